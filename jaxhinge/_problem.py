"""From what users type to the rows that the core takes: checked, weighed, padded; on the host or under a trace."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge import _checks, _host_checks
from jaxhinge._rows import Config, Method, Rows

NDArray = np.ndarray[Any, Any]
_ALIGNMENT = 64  # bytes
_COLUMNS = 512
_HUGE = 1e290
_POSITIVE = "a number above 0 (2.3e-308 at least: processors take smaller ones for 0)"


class Problem(NamedTuple):
    """Rows before they are weighed: `scale * sum_i weight_i loss(r_i - sign_i (x_i . w + b)) / sum(weight)`."""

    x: Any
    sign: Any
    r: Any
    weight: Any
    l2: Any
    scale: Any = 1.0
    q_bias: Any = 0.0
    valid: Any = True


def is_traced(*values: Any) -> bool:
    """Whether any of these is inside a JAX transformation, so that its values are not known, or `jit` takes it all."""
    # Told that an iterator is a leaf, JAX does not warn of it: the checks refuse it by its name.
    leaves = jax.tree.leaves(values, is_leaf=lambda value: isinstance(value, Iterator))
    # Under `jit` nothing can be computed from constants either: whatever is called becomes a part of the program.
    return any(isinstance(leaf, jax.core.Tracer) for leaf in (*leaves, jnp.zeros(())))


def config_of(loss: str, fit_intercept: bool | str, method: str) -> Config:
    """The static choices, checked."""
    if not isinstance(loss, str) or loss not in ("hinge", "squared_hinge"):
        raise ValueError(f'loss must be "hinge" or "squared_hinge"; got {loss!r}.')
    intercept: Literal["free", "regularized", "none"] = "regularized"
    if isinstance(fit_intercept, (bool, np.bool_)):
        intercept = "free" if fit_intercept else "none"
    elif not isinstance(fit_intercept, str) or fit_intercept != "regularized":
        raise ValueError(f'fit_intercept must be True, False or "regularized"; got {fit_intercept!r}.')
    if not isinstance(method, str) or method not in ("auto", "interior_point", "ascent"):
        raise ValueError(f'method must be "auto", "interior_point" or "ascent"; got {method!r}.')
    checked: Method = method  # type: ignore[assignment]
    return Config(squared=loss == "squared_hinge", intercept=intercept, method=checked)


def binary_problem(x: Any, y: Any, l2: Any, sample_weight: Any, *, traced: bool) -> Problem:
    """Rows of a classifier. On the host bad targets are errors; under a trace they make the problem invalid."""
    if not traced:
        x, weight = host_rows(x, sample_weight)
        y = _host_checks.host_array("y", y)
        _host_checks.check_rows("y", y, len(x))
        _host_checks.check_binary_targets("y", y, weight)
        return Problem(x, y.astype(np.float64), np.ones(len(x)), weight, host_l2(l2))
    features, weights = traced_rows(x, sample_weight)
    y = _checks.target_array("y", y, features[:, 0])
    if y.shape == ():
        raise ValueError(f"y must have one target for each of the {len(features)} rows of x; got a scalar.")
    counted = weights > 0
    both = jnp.any(counted & (y == 1)) & jnp.any(counted & (y == -1))
    valid = both & jnp.all((y == 1) | (y == -1))
    return Problem(features, jax.lax.stop_gradient(y), jnp.ones_like(y), weights, l2, valid=valid)


def host_rows(x: Any, sample_weight: Any) -> tuple[NDArray, NDArray]:
    """Checked features and weights (1 by default). NaN is looked for by the solver, and named afterwards."""
    x = _host_checks.host_real("x", x)
    _checks.check_feature_shape("x", x)
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float32 if jnp.issubdtype(x.dtype, jnp.floating) else np.float64)
    if sample_weight is None:
        return x, np.ones(len(x))
    weight = _host_checks.host_real("sample_weight", sample_weight).astype(np.float64)
    _host_checks.check_sample_weight("sample_weight", weight, len(x))
    # Their sum, unlike their ratios, may be beyond float64.
    largest = float(np.max(weight))
    return x, weight if largest < _HUGE else weight / largest


def host_l2(l2: Any) -> float:
    """The strength of regularisation, above 0."""
    return _host_checks.check_number("l2", l2, meaning=_POSITIVE, valid=lambda l2: l2 >= sys.float_info.min)


def traced_rows(x: Any, sample_weight: Any) -> tuple[jax.Array, jax.Array]:
    """Features and weights whose shapes fit, float32 at least."""
    x = _checks.feature_array("x", x)
    _checks.check_feature_shape("x", x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if sample_weight is None:
        return x, jnp.ones_like(x[:, 0])
    weight = _checks.float_array("sample_weight", sample_weight).astype(x.dtype)
    return x, _checks.same_shape("sample_weight", weight, "the column x[:, 0]", x[:, 0])


def weighed(problem: Problem) -> Rows:
    """The rows of a traced problem, with every check that needs values in `valid`."""
    dtype = problem.x.dtype
    l2 = _checks.scalar_like("l2", problem.l2, dtype)
    total = jnp.sum(problem.weight)
    finite = jnp.all(jnp.isfinite(problem.x)) & jnp.all(jnp.isfinite(problem.r)) & jnp.isfinite(total + l2)
    return Rows(
        xt=problem.x.T,
        sign=problem.sign.astype(dtype),
        r=problem.r.astype(dtype),
        c=problem.weight / total * problem.scale,
        l2=l2,
        q_bias=jnp.asarray(problem.q_bias, dtype),
        centre=jax.lax.stop_gradient(problem.weight / total @ problem.x),
        valid=problem.valid & finite & jnp.all(problem.weight >= 0) & (total > 0) & (l2 > 0),
    )


def weighed_and_padded(config: Config, problem: Problem) -> tuple[Config, Rows]:
    """The rows of a host problem in float64, padded with rows that do not count; centred where that loses nothing."""
    size, centre = padded_size(len(problem.x)), centre_of(problem.x, problem.weight)
    centred = config.intercept == "free" and problem.x.dtype == np.float64
    return replace(config, centred=centred), Rows(
        xt=padded(problem.x.T, size, centre if centred else None),
        sign=padded(problem.sign, size),
        r=padded(problem.r, size),
        c=padded(problem.weight / problem.weight.sum() * problem.scale, size),
        l2=np.float64(problem.l2),
        q_bias=np.float64(problem.q_bias),
        centre=centre,
        valid=np.bool_(True),
    )


def centre_of(x: NDArray, weight: NDArray) -> NDArray:
    """The weighted mean row, `(d,)`, in the precision of `x`.

    Not by a product of BLAS: its threads spin on for milliseconds, and take the cores from the solver.
    """
    # NaN and infinity are named afterwards.
    with np.errstate(invalid="ignore", over="ignore"):
        centre: NDArray = np.einsum("n,nd->d", (weight / weight.sum()).astype(x.dtype), x)
    return centre


def caller_dtype(x: NDArray) -> Any:
    """What JAX would make of `x`: float64 only where x64 is on."""
    return jnp.float64 if jax.dtypes.canonicalize_dtype(np.float64) == np.float64 == x.dtype else jnp.float32


def padded_size(n: int) -> int:
    """The next of a few sizes: eight to each doubling, so at most an eighth more, and at least 16."""
    unit = 1 << max(4, (n - 1).bit_length() - 4)
    return -(-n // unit) * unit


def padded(array: NDArray, size: int, centre: NDArray | None = None) -> NDArray:
    """The array with zeros appended along its last axis, less a centre `(d,)` of its columns."""
    result, n = _aligned((*array.shape[:-1], size), array.dtype), array.shape[-1]
    # A transposed array is read along its rows: some at a time, or each number would cost a line of the cache.
    for begin in range(0, n, _COLUMNS):
        some = result[..., begin : min(begin + _COLUMNS, n)]
        some[...] = array[..., begin : begin + _COLUMNS]
        if centre is not None:
            # NaN and infinity are named afterwards.
            with np.errstate(invalid="ignore", over="ignore"):
                some -= centre[:, None]
    result[..., n:] = 0
    return result


def _aligned(shape: tuple[int, ...], dtype: Any) -> NDArray:
    """Memory that JAX takes for its own, on the CPU, where any other would be copied."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    aligned: NDArray = memory[begin : begin + size].view(dtype).reshape(shape)
    return aligned
