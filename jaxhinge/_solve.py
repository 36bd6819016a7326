"""The exact solver: minimisers that come with a duality gap."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhinge import _checks
from jaxhinge._core import Answer, Config, Intercept, Method, Rows, Start, Status, solve_rows
from jaxhinge._implicit import differentiable
from jaxhinge._objective import LinearParams
from jaxhinge._precision import in_float64

Loss = Literal["hinge", "squared_hinge"]


class Solution(NamedTuple):
    """A minimiser with the proof of how good it is.

    Attributes:
      params: `LinearParams`.
      dual: `(n,)`, the dual variables.
      primal_value: The objective at `params`, in the units of `jaxhinge.loss`.
      dual_value: A lower bound on the objective at any parameters, from `dual` made feasible.
      gap: `primal_value - dual_value`: no parameters are better than `params` by more than this.
      steps: How many steps the solver made.
      status: A code of `Status`.
    """

    params: LinearParams
    dual: jax.Array
    primal_value: jax.Array
    dual_value: jax.Array
    gap: jax.Array
    steps: jax.Array
    status: jax.Array


class SolverOptions(NamedTuple):
    """What every solver takes beside its problem."""

    tol: ArrayLike
    max_steps: ArrayLike
    init: Solution | None
    as_numpy: bool


class Problem(NamedTuple):
    """Rows before they are weighed: `sum_i weight_i loss(r_i - sign_i (x_i . w + b)) / sum(weight) * scale`."""

    x: Any
    sign: Any
    r: Any
    weight: Any
    l2: Any
    scale: Any = 1.0
    q_bias: Any = 0.0
    valid: Any = True


def solve(
    x: ArrayLike,
    y: ArrayLike,
    *,
    l2: ArrayLike,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool | Literal["regularized"] = True,
    loss: Loss = "hinge",
    tol: ArrayLike = 1e-4,
    max_steps: ArrayLike = 100,
    init: Solution | None = None,
    method: Method = "auto",
    as_numpy: bool = False,
) -> Solution:
    r"""The support vector machine solved exactly: the minimiser of `jaxhinge.loss`, with a duality gap.

    .. math::
        \min_{w, b}\ \sum_i c_i \max(0, 1 - y_i (x_i \cdot w + b)) + \frac{l2}{2} \|w\|^2, \qquad
        c_i = \mathrm{weight}_i / \textstyle\sum \mathrm{weight}

    (the hinge squared with `loss="squared_hinge"`). `l2 = 1 / (C * sum(weight))` in terms of LIBLINEAR's `C`. The
    dual that certifies it has `0 <= dual_i <= c_i` (no upper bound when squared), `sum(dual_i y_i) = 0` when the
    bias is free, and the value `sum(dual) - |sum_i dual_i y_i x_i|^2 / (2 l2)`, less `sum(dual_i^2 / (4 c_i))` when
    squared.

    It is pure: it works under `jit`, `vmap` and `shard_map`; a new number does not recompile. On arrays that are not
    traced, rows are padded with zero weight to one of a few sizes, so that data with nearly as many rows do not
    recompile either. The work is done in float64 on CPU and GPU, whatever the flags and the input's dtype.

    Args:
      x: Features `(n, d)`. Differentiable, and so are `l2` and `sample_weight`: `params` by implicit differentiation
        (valid where no row changes sides: rows on the margin have `0 < dual_i < c_i`, and a free bias has such a
        row; elsewhere the limit along the central path comes back), the two values by the envelope theorem. `dual`,
        `gap`, `steps` and `status` carry no derivative, nor does `y`.
      y: Targets -1 and +1, `(n,)`.
      l2: The strength of regularisation, above 0.
      sample_weight: `(n,)`, not negative, not all 0.
      fit_intercept: True for a free bias, False for none, "regularized" to count it in the norm as LIBLINEAR does.
      loss: "hinge" or "squared_hinge".
      tol: Stop when `gap <= tol * |primal_value|`.
      max_steps: Stop after this many steps.
      init: A solution of a nearby problem to start from: another `l2`, other weights.
      method: "interior_point"; "ascent", accelerated gradient ascent on the dual; "auto" ascends first where there
        are more features than rows or than 1,000, and goes on with the interior point where that is not enough.
      as_numpy: Give NumPy arrays, float64 throughout. Host only.

    Returns:
      A `Solution`, float32 (float64 where x64 is on and `x` is float64). `gap` holds for the rounded `params`.

    Raises:
      ValueError: On concrete arrays: NaN or infinity, targets other than -1 and +1, one class only, `l2 <= 0`,
        negative or all-zero weights; under a trace those give the status `REFUSED` and NaN. Shapes that do not fit
        are refused anywhere.
      TypeError: Something is not a real number.

    References:
      Ferris and Munson, Interior-point methods for massive support vector machines, 2002; Boyd and Vandenberghe,
      Convex Optimization, 2004, chapters 5 and 11; Amos and Kolter, OptNet, 2017.

    >>> import jax.numpy as jnp, jaxhinge
    >>> x, y = jnp.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), jnp.array([1, 1, -1])
    >>> solution = jaxhinge.solve(x, y, l2=0.1)
    >>> jaxhinge.Status(int(solution.status)).name, bool(solution.gap <= 1e-4 * solution.primal_value)
    ('CONVERGED', True)
    >>> print(jaxhinge.predict(solution.params, x))
    [ 1  1 -1]
    """
    config = Config(squared=_is_squared(loss), intercept=_intercept(fit_intercept), method=_method(method))
    options = SolverOptions(tol, max_steps, init, _checks.flag("as_numpy", as_numpy))
    if is_traced(x, y, l2, sample_weight, options):
        return solve_problem(config, _traced_problem(x, y, l2, sample_weight), options)
    return solve_problem(config, _host_problem(x, y, l2, sample_weight), options)


def is_traced(*values: Any) -> bool:
    """Whether any of these is inside a JAX transformation, so that its values are not known."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def solve_problem(config: Config, problem: Problem, options: SolverOptions) -> Solution:
    """Solve on the host, padded, or inside a transformation, as it is."""
    return (
        _solve_traced(config, problem, options)
        if is_traced(problem, options)
        else _solve_host(config, problem, options)
    )


def _host_problem(x: Any, y: Any, l2: Any, sample_weight: Any) -> Problem:
    x, weight = host_rows(x, sample_weight)
    y = _checks.host_array("y", y)
    _checks.check_rows("y", y, len(x))
    _checks.check_binary_targets("y", y, weight)
    return Problem(x, y.astype(np.float64), np.ones(len(x)), weight, host_l2(l2))


def host_rows(x: Any, sample_weight: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Checked features and weights (1 by default). NaN is looked for by the solver, and named afterwards."""
    x = _checks.host_real("x", x)
    _checks.check_feature_shape("x", x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(np.float64)
    if sample_weight is None:
        return x, np.ones(len(x))
    weight = _checks.host_real("sample_weight", sample_weight).astype(np.float64)
    _checks.check_sample_weight("sample_weight", weight, len(x))
    return x, weight


def host_l2(l2: Any) -> float:
    """The strength of regularisation, above 0."""
    return _checks.check_host_number("l2", l2, meaning=_POSITIVE, valid=lambda value: value > 0)


def _traced_problem(x: Any, y: Any, l2: Any, sample_weight: Any) -> Problem:
    x, weight = traced_rows(x, sample_weight)
    y = _checks.target_array("y", y, x[:, 0])
    if y.shape == ():
        raise ValueError(f"y must have one target for each of the {len(x)} rows of x; got a scalar.")
    counted = weight > 0
    both = jnp.any(counted & (y == 1)) & jnp.any(counted & (y == -1))
    valid = both & jnp.all((y == 1) | (y == -1))
    return Problem(x, jax.lax.stop_gradient(y), jnp.ones_like(y), weight, l2, valid=valid)


def traced_rows(x: Any, sample_weight: Any) -> tuple[jax.Array, jax.Array]:
    """Features and weights whose shapes fit, float32 at least."""
    x = _checks.feature_array("x", x)
    _checks.check_feature_shape("x", x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if sample_weight is None:
        return x, jnp.ones_like(x[:, 0])
    weight = _checks.float_array("sample_weight", sample_weight).astype(x.dtype)
    return x, _checks.same_shape("sample_weight", weight, "the column x[:, 0]", x[:, 0])


def _solve_traced(config: Config, problem: Problem, options: SolverOptions) -> Solution:
    if options.as_numpy:
        raise ValueError(
            "as_numpy=True gives NumPy arrays, so it is for the host only; leave it out under jit and vmap."
        )
    x, weight = problem.x, problem.weight
    dtype = x.dtype
    l2 = _checks.scalar_like("l2", problem.l2, dtype)
    tol = _checks.scalar_like("tol", options.tol, dtype)
    total = jnp.sum(weight)
    finite = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(problem.r)) & jnp.isfinite(total) & jnp.isfinite(l2)
    valid = problem.valid & finite & jnp.all(weight >= 0) & (total > 0) & (l2 > 0)
    rows = Rows(
        x=x,
        sign=problem.sign.astype(dtype),
        r=problem.r.astype(dtype),
        c=weight / total * problem.scale,
        l2=l2,
        q_bias=jnp.asarray(problem.q_bias, dtype),
        valid=valid,
    )
    start = _start(options.init, x.shape, jnp, dtype)
    max_steps = jnp.asarray(options.max_steps, jnp.int32)
    answer = differentiable(replace(config, dtype=dtype))(rows, jax.lax.stop_gradient(start), tol, max_steps)
    return _solution(answer)


def _solve_host(config: Config, problem: Problem, options: SolverOptions) -> Solution:
    n = len(problem.x)
    tol = _checks.check_host_number("tol", options.tol, meaning="a number, at least 0", valid=lambda v: v >= 0)
    max_steps = _checks.host_integer("max_steps", np.asarray(options.max_steps).item(), at_least=1)
    canonical = (
        jnp.float64 if jax.dtypes.canonicalize_dtype(np.float64) == np.float64 == problem.x.dtype else jnp.float32
    )
    dtype = jnp.float64 if options.as_numpy else canonical
    size = padded_size(n)
    start = _start(options.init, problem.x.shape, np, np.float64)
    weight = problem.weight / problem.weight.sum() * problem.scale
    rows = Rows(
        x=_padded(problem.x, size),
        sign=_padded(problem.sign, size),
        r=_padded(problem.r, size),
        c=_padded(weight, size),
        l2=np.float64(problem.l2),
        q_bias=np.float64(problem.q_bias),
        valid=np.bool_(True),
    )
    with jax.enable_x64(True):
        answer = _compiled(replace(config, dtype=dtype))(
            rows, start._replace(dual=_padded(start.dual, size)), np.float64(tol), np.int32(max_steps)
        )
    if int(answer.status) == Status.REFUSED:
        _checks.check_finite("x", problem.x)
        raise ValueError("The objective overflows float64: scale the features down, or raise l2.")
    answer = answer._replace(dual=np.asarray(answer.dual)[:n])
    answer = jax.tree.map(np.asarray, answer)
    return _solution(answer if options.as_numpy else jax.tree.map(jnp.asarray, answer))


@lru_cache
def _compiled(config: Config) -> Any:
    return jax.jit(in_float64(partial(solve_rows, config), config.dtype))


def padded_size(n: int) -> int:
    """The next of a few sizes: eight to each doubling, so at most an eighth more, and at least 16."""
    unit = 1 << max(4, (n - 1).bit_length() - 3)
    return -(-n // unit) * unit


def _padded(array: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    padded = np.zeros((size, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


def _start(init: Solution | None, shape: tuple[int, int], numpy: Any, dtype: Any) -> Start:
    """The start that `init` asks for, or zeros."""
    n, d = shape
    if init is None:
        zeros = numpy.zeros
        return Start(zeros(d, dtype), zeros((), dtype), zeros(n, dtype), numpy.asarray(False))
    if not isinstance(init, Solution):
        raise TypeError(f"init must be a Solution of an earlier solve; got {type(init).__name__}.")
    w, b, dual = (numpy.asarray(leaf).astype(dtype) for leaf in (*init.params, init.dual))
    if w.shape != (d,) or dual.shape != (n,):
        raise ValueError(
            f"init has params.w of shape {w.shape} and dual of shape {dual.shape}, but x of shape {shape} needs "
            f"({d},) and ({n},). Start from a solution with the same rows and features, or leave init out."
        )
    return Start(w, b, dual, numpy.asarray(True))


def _solution(answer: Answer) -> Solution:
    return Solution(
        params=LinearParams(answer.w, answer.b),
        dual=answer.dual,
        primal_value=answer.primal_value,
        dual_value=answer.dual_value,
        gap=answer.primal_value - answer.dual_value,
        steps=answer.steps,
        status=answer.status,
    )


_POSITIVE = "a number above 0"


def _is_squared(loss: str) -> bool:
    if loss not in ("hinge", "squared_hinge"):
        raise ValueError(f'loss must be "hinge" or "squared_hinge"; got {loss!r}.')
    return loss == "squared_hinge"


def _intercept(fit_intercept: bool | str) -> Intercept:
    if fit_intercept == "regularized":
        return "regularized"
    if isinstance(fit_intercept, (bool, np.bool_)):
        return "free" if fit_intercept else "none"
    raise ValueError(f'fit_intercept must be True, False or "regularized"; got {fit_intercept!r}.')


def _method(method: str) -> Method:
    if method not in ("auto", "interior_point", "ascent"):
        raise ValueError(f'method must be "auto", "interior_point" or "ascent"; got {method!r}.')
    return method  # type: ignore[return-value]
