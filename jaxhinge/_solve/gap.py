"""A certified bound for parameters that came from anywhere."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhinge._base.arrays import float_array
from jaxhinge._base.options import host_l2
from jaxhinge._base.precision import in_float64, rounded_up
from jaxhinge._base.values import check_finite, host_real
from jaxhinge._methods.host import gap_on_host
from jaxhinge._methods.problem import Config, Start
from jaxhinge._methods.sharded import MeshRows
from jaxhinge._methods.stages import gap_of_rows
from jaxhinge._methods.streamed.stages import Source, opened
from jaxhinge._solve.binary import Loss
from jaxhinge._solve.given import binary_problem, caller_dtype, config_of, is_traced, place_of, weighed, weighed_on_host

# Under a trace, or on a mesh, the dual point is improved to a relative gap of `_TIGHT`, or by `_STEPS` steps.
_TIGHT = 1e-7
_STEPS = 60


def duality_gap(
    params: tuple[ArrayLike, ArrayLike],
    x: Any,
    y: ArrayLike | None = None,
    *,
    l2: ArrayLike,
    dual: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool | Literal["regularized"] = True,
    loss: Loss = "hinge",
) -> jax.Array:
    r"""How far parameters can be from optimal: their objective minus a lower bound on every other.

    The bound is the value of a feasible dual point. One that is given is clipped to its box and balanced, and then
    evaluated as it is. Otherwise one is found by the steps of `solve`, starting from `params`, so that the gap is
    nearly the true excess `loss(params) - min loss`; either way it is never below that excess, but for rounding. On
    streamed rows a given dual takes two passes, and one that is found is good to 1e-4 of the objective.

    Args:
      params: `(w, b)`, `w` `(d,)` and `b` `()`: of an optax run, of LIBLINEAR, of a colleague.
      x: Features `(n, d)`, dense or sparse as for `solve`. A memory-mapped file, or blocks without `y`, are streamed as
        for `solve`.
      y: Targets -1 and +1, `(n,)`. None where `x` is blocks.
      l2: The strength of regularisation, above 0.
      dual: `(n,)`, for example of a `Solution`.
      sample_weight: `(n,)`, not negative, not all 0.
      fit_intercept: As for `solve`. Without an intercept `b` must be 0 to be optimal, but it counts as it is.
      loss: "hinge" or "squared_hinge".

    Returns:
      A scalar in the units of `jaxhinge.loss`, computed in float64 where there is one. It carries no derivative. Under
      a trace, data that `solve` would refuse give NaN.

    Raises:
      ValueError, TypeError: As `solve` does, and where the shape of `params` or `dual` does not fit `x`.

    References:
      Boyd and Vandenberghe, Convex Optimization, 2004, section 5.5.1.

    >>> import jax.numpy as jnp, jaxhinge
    >>> x, y = jnp.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), jnp.array([1, 1, -1])
    >>> bool(jaxhinge.duality_gap(jaxhinge.init_params(2), x, y, l2=0.1) > 0.5)
    True
    >>> solution = jaxhinge.solve(x, y, l2=0.1)
    >>> bool(jaxhinge.duality_gap(solution.params, x, y, l2=0.1) < 1e-4)
    True
    """
    config = config_of(loss, fit_intercept, "auto")
    traced = is_traced(params, x, y, l2, dual, sample_weight)
    w, b = _pair(params)
    place = place_of(x, y, traced)
    if place == "stream":
        return _streamed_gap(config, Source(x, y, sample_weight), l2, w, b, dual)
    if place == "mesh":
        return _gap_on_mesh(config, MeshRows(config, False, x, y, sample_weight), l2, w, b, dual)
    problem = binary_problem(x, y, l2, sample_weight, traced=traced)
    n, d = problem.x.shape
    w, b = _fitting("w", w, (d,), traced), _fitting("b", b, (), traced)
    alpha = _fitting("dual", np.zeros(n) if dual is None else dual, (n,), traced)
    if traced:
        start = jax.tree.map(jax.lax.stop_gradient, Start(w, b, alpha, jnp.asarray(True)))
        tol, steps = jnp.asarray(_TIGHT, problem.x.dtype), jnp.int32(_STEPS)
        core = _compiled_gap(replace(config, dtype=problem.x.dtype), dual is None)
        gap: jax.Array = core(jax.lax.stop_gradient(weighed(problem)), start, tol, steps)
        return gap
    start = Start(w, b, alpha, np.True_)
    gap_64 = float(
        gap_on_host(replace(config, dtype=np.float64), weighed_on_host(config, problem), start, dual is None)
    )
    if not np.isfinite(gap_64):
        check_finite("x", problem.x)
        gap_64 = np.inf  # infinity less infinity: beyond float64
    return _bound(gap_64, caller_dtype(problem.x))


def _streamed_gap(config: Config, source: Source, l2: Any, w: Any, b: Any, dual: Any) -> jax.Array:
    strength = host_l2(l2)
    with opened(source, False, False, 0.0) as stream:
        n, d = stream.shape
        alpha = None if dual is None else _fitting("dual", dual, (n,), False)
        start = Start(_fitting("w", w, (d,), False), _fitting("b", b, (), False), alpha, np.True_)
        return _bound(stream.gap(config, strength, start), stream.dtype)


def _gap_on_mesh(config: Config, rows: MeshRows, l2: Any, w: Any, b: Any, dual: Any) -> jax.Array:
    n, d = rows.shape
    if dual is not None and np.shape(dual) != (n,):
        raise ValueError(f"dual has shape {np.shape(dual)}, but x needs it to have shape {(n,)}.")
    params = _fitting("w", w, (d,), False), _fitting("b", b, (), False)
    return rows.gap(host_l2(l2), params, dual, _TIGHT, _STEPS)


def _bound(gap: float, dtype: Any) -> jax.Array:
    # A bound beyond the caller's dtype is infinite there.
    with np.errstate(over="ignore"):
        bound: jax.Array = jax.device_put(rounded_up(np.asarray(gap), dtype).astype(dtype))
        return bound


@lru_cache
def _compiled_gap(config: Config, improve: bool) -> Any:
    return jax.jit(in_float64(partial(gap_of_rows, config, improve), config.dtype))


def _pair(params: Any) -> tuple[Any, Any]:
    advice = ' Use (params["w"], params["b"]).' if isinstance(params, dict) else ""
    try:
        w, b = params
        if advice:
            raise TypeError("the names of its entries are no numbers")
    except (TypeError, ValueError) as error:
        kind = type(params).__name__
        raise TypeError(f"params must be LinearParams or a 2-tuple (w, b); got {kind}.{advice}") from error
    return w, b


def _fitting(name: str, value: Any, shape: tuple[int, ...], traced: bool) -> Any:
    array = float_array(name, value) if traced else host_real(name, value).astype(np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, but x needs it to have shape {shape}.")
    if not traced:
        check_finite(name, array)
    return array
