"""From what users type to the rows that the core takes: checked, weighed, padded; on the host or under a trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import (
    NDArray,
    at_least_float32,
    check_feature_shape,
    feature_array,
    float_array,
    same_shape,
    scalar_like,
    target_array,
)
from jaxhinge._base.options import host_l2
from jaxhinge._base.sources import is_mapped
from jaxhinge._base.sparse import csr_of, is_sparse
from jaxhinge._base.values import (
    check_binary_targets,
    check_number,
    check_rows,
    check_sample_weight,
    host_array,
    host_integer,
    host_real,
    inside_jit,
)
from jaxhinge._methods.padded import centre_of
from jaxhinge._methods.problem import Config, Method, Rows
from jaxhinge._methods.sharded import is_sharded
from jaxhinge._objective.sparse import sparse_features
from jaxhinge._rows.columns import added
from jaxhinge._rows.stored import StoredRows

_HUGE = 1e290


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
    origin: Any = None  # the features as they were given: the device that they lie on does the work


def is_traced(*values: Any) -> bool:
    """Whether any of these is inside a JAX transformation, so that its values are not known, or `jit` takes it all."""
    # An iterator is passed as a leaf, or JAX would warn of it before the checks refuse it by its name.
    leaves = jax.tree.leaves(values, is_leaf=lambda value: isinstance(value, Iterator))
    # Under `jit` nothing can be computed from constants either: whatever is called becomes a part of the program.
    return inside_jit() or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


Place = Literal["memory", "stream", "mesh"]


def place_of(x: Any, y: Any, traced: bool) -> Place:
    """Where the rows are: in memory (or under a trace), in a file or blocks, or on a mesh. Asked once, at the door."""
    if y is None or (not traced and is_mapped(x)):
        if traced:
            raise TypeError(
                "x without y is blocks, which are read on the host, but something is traced. Call this outside of jit, "
                "vmap and grad, or give it the arrays x and y."
            )
        return "stream"
    return "mesh" if not traced and is_sharded(x) else "memory"


def in_memory(name: str, x: Any, y: Any = ()) -> Any:
    """`x`, unless `name` would have to read a memory map whole, or it is blocks (and `y` None)."""
    if is_mapped(x):
        raise ValueError(
            f"x is a memory-mapped file, but {name} needs all rows in memory. Where they fit, say so: numpy.asarray(x)."
        )
    unlike_rows = callable(x) or isinstance(x, Iterator) or _is_list_of_blocks(x)
    if unlike_rows or (y is None and not hasattr(x, "shape")):
        raise ValueError(
            f"x is {'a function' if callable(x) else 'blocks of rows'}, but {name} needs all rows in memory, as one "
            "array. Where they fit, join them."
        )
    return x


def _is_list_of_blocks(x: Any) -> bool:
    first = x[0] if isinstance(x, (list, tuple)) and x else None
    return isinstance(first, (list, tuple)) and len(first) in (2, 3) and np.ndim(first[0]) == 2


def config_of(loss: str, fit_intercept: bool | str, method: str) -> Config:
    """The static choices, checked."""
    if not isinstance(loss, str) or loss not in ("hinge", "squared_hinge"):
        raise ValueError(f'loss must be "hinge" or "squared_hinge"; got {loss!r}.')
    intercept: Literal["free", "regularized", "none"] = "regularized"
    if isinstance(fit_intercept, (bool, np.bool_)):
        intercept = "free" if fit_intercept else "none"
    elif not isinstance(fit_intercept, str) or fit_intercept != "regularized":
        raise ValueError(f'fit_intercept must be True, False or "regularized"; got {fit_intercept!r}.')
    if not isinstance(method, str) or method not in ("auto", "newton", "interior_point", "ascent"):
        raise ValueError(f'method must be "auto", "newton", "interior_point" or "ascent"; got {method!r}.')
    checked: Method = method  # type: ignore[assignment]
    return Config(squared=loss == "squared_hinge", intercept=intercept, method=checked)


def binary_problem(x: Any, y: Any, l2: Any, sample_weight: Any, *, traced: bool) -> Problem:
    """Rows of a classifier. On the host bad targets are errors; under a trace they make the problem invalid."""
    if not traced:
        rows, weight = host_rows(x, sample_weight)
        y = host_array("y", y)
        check_rows("y", y, rows.shape[0])
        check_binary_targets("y", y, weight)
        return Problem(rows, y.astype(np.float64), np.ones(rows.shape[0]), weight, host_l2(l2), origin=x)
    features, weights = traced_rows(x, sample_weight)
    y = target_array("y", y, one_column(features))
    if y.shape == ():
        raise ValueError(f"y must have one target for each of the {features.shape[0]} rows of x; got a scalar.")
    counted = weights > 0
    both = jnp.any(counted & (y == 1)) & jnp.any(counted & (y == -1))
    valid = both & jnp.all((y == 1) | (y == -1))
    return Problem(features, jax.lax.stop_gradient(y), jnp.ones_like(y), weights, l2, valid=valid)


def host_limits(tol: Any, max_steps: Any) -> tuple[float, int]:
    """The relative gap and the number of steps at which to stop, checked."""
    tol = check_number("tol", tol, meaning="a number, at least 0", valid=lambda v: v >= 0)
    given = host_array("max_steps", max_steps)
    return tol, host_integer("max_steps", given.item() if given.shape == () else given, at_least=1)


def host_rows(x: Any, sample_weight: Any) -> tuple[Any, NDArray]:
    """Checked features and weights (1 by default). NaN is looked for by the solver, and named afterwards."""
    x = host_features("x", x)
    if sample_weight is None:
        return x, np.ones(x.shape[0])
    weight = host_real("sample_weight", sample_weight).astype(np.float64)
    check_sample_weight("sample_weight", weight, x.shape[0])
    # The sum of huge weights may overflow float64, although their ratios do not.
    largest = float(np.max(weight))
    return x, weight if largest < _HUGE else weight / largest


def host_features(name: str, x: Any) -> Any:
    """Features `(n, d)` in float32 or float64, dense or CSR."""
    if is_sparse(x):
        return csr_of(name, x)
    x = host_real(name, x)
    check_feature_shape(name, x)
    if x.dtype in (np.float32, np.float64):
        return x
    return x.astype(np.float32 if jnp.issubdtype(x.dtype, jnp.floating) else np.float64)


def traced_rows(x: Any, sample_weight: Any) -> tuple[Any, jax.Array]:
    """Features, dense or `StoredRows`, and weights whose shapes fit, float32 at least."""
    features = traced_features(x)
    column = one_column(features)
    if sample_weight is None:
        return features, jnp.ones_like(column)
    weight = float_array("sample_weight", sample_weight).astype(features.dtype)
    return features, same_shape("sample_weight", weight, "the column x[:, 0]", column)


def traced_features(x: Any) -> Any:
    """Features `(n, d)` of float32 at least: an array, or the stored numbers of a sparse one."""
    if is_sparse(x):
        x = sparse_features("x", x, traced=True)
        check_feature_shape("x", x)
        return StoredRows.of(x, at_least_float32(x.dtype))
    x = feature_array("x", x)
    check_feature_shape("x", x)
    return x.astype(at_least_float32(x.dtype))


def one_column(features: Any) -> jax.Array:
    """A vector that is like a column of the features."""
    if isinstance(features, StoredRows):
        return jnp.zeros_like(features.data, shape=features.shape[0])
    column: jax.Array = features[:, 0]
    return column


def refuse_stored(name: str, features: Any) -> None:
    """Refuse sparse rows where a trace needs dense ones."""
    if isinstance(features, StoredRows):
        raise TypeError(
            f"x is sparse inside jit or vmap, where {name} takes dense rows only. Call it outside, on the host, with x "
            "as it is."
        )


def weighed(problem: Problem) -> Rows:
    """The rows of a traced problem, with every check that needs values in `valid`."""
    x, dtype = problem.x, problem.x.dtype
    l2 = scalar_like("l2", problem.l2, dtype)
    total = jnp.sum(problem.weight)
    stored = isinstance(x, StoredRows)
    share = problem.weight / total
    of_rows = added(share) if x.shape[0] < len(share) else share
    finite = (
        jnp.all(jnp.isfinite(x.data if stored else x)) & jnp.all(jnp.isfinite(problem.r)) & jnp.isfinite(total + l2)
    )
    return Rows(
        xt=x if stored else x.T,
        sign=problem.sign.astype(dtype),
        r=problem.r.astype(dtype),
        c=share * problem.scale,
        l2=l2,
        q_bias=jnp.asarray(problem.q_bias, dtype),
        centre=jax.lax.stop_gradient(x.adjoint(of_rows) if stored else share @ x),
        valid=problem.valid & finite & jnp.all(problem.weight >= 0) & (total > 0) & (l2 > 0),
    )


def weighed_on_host(config: Config, problem: Problem) -> Rows:
    """The rows of a host problem in NumPy; the features are not copied."""
    weight = problem.weight
    of_rows = weight.reshape(-1, 2).sum(axis=1) if config.paired else weight
    return Rows(
        xt=problem.x.T,
        sign=problem.sign,
        r=problem.r,
        c=weight / weight.sum() * problem.scale,
        l2=np.float64(problem.l2),
        q_bias=np.float64(problem.q_bias),
        centre=centre_of(problem.x, of_rows),
        valid=np.bool_(True),
    )


def caller_dtype(x: NDArray) -> Any:
    """What JAX would make of `x`: float64 only where x64 is on."""
    return jnp.float64 if jax.dtypes.canonicalize_dtype(np.float64) == np.float64 == x.dtype else jnp.float32
