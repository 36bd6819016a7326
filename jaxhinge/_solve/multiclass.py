"""The exact multiclass solver: minimisers that come with a duality gap."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhinge._base.arrays import flag, scalar_like
from jaxhinge._base.interrupts import computed
from jaxhinge._base.precision import in_float64
from jaxhinge._base.values import check_finite
from jaxhinge._methods.multiclass.stages import (
    Config,
    LabelledRows,
    Start,
    solve_float32_stage,
    solve_float64_stage,
    solve_rows,
)
from jaxhinge._methods.padded import padded, padded_size
from jaxhinge._methods.problem import Answer, Status
from jaxhinge._objective.objective import LinearParams
from jaxhinge._solve.binary import Solution, SolverOptions
from jaxhinge._solve.given import caller_dtype, config_of, is_traced
from jaxhinge._solve.labels import Classified, check_init, classified, host_limits
from jaxhinge._solve.one_vs_rest import solve_one_vs_rest

MulticlassLoss = Literal["crammer_singer", "weston_watkins", "one_vs_rest"]
_LOSSES = ("crammer_singer", "weston_watkins", "one_vs_rest")


def solve_multiclass(
    x: ArrayLike,
    labels: ArrayLike,
    *,
    l2: ArrayLike,
    loss: MulticlassLoss = "crammer_singer",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool | Literal["regularized"] = True,
    tol: ArrayLike = 1e-4,
    max_steps: ArrayLike = 100,
    init: Solution | None = None,
    as_numpy: bool = False,
    num_classes: int | None = None,
) -> Solution:
    r"""The multiclass support vector machine solved exactly: the minimiser of `jaxhinge.loss`, with a duality gap.

    .. math::
        \min_{w, b}\ \sum_i c_i\, \ell(s_i, y_i) + \frac{l2}{2} \|w\|^2, \qquad
        s_i = x_i \cdot w + b, \qquad c_i = \mathrm{weight}_i / \textstyle\sum \mathrm{weight}

    with one column of `w` and one entry of `b` per class. By `loss`, the loss of a row with label y is

    - "crammer_singer": `max(0, max_{j != y} 1 + s_j - s_y)`, `losses.multiclass_hinge_loss`;
    - "weston_watkins": `sum_{j != y} max(0, 1 + s_j - s_y)`, `losses.weston_watkins_loss`;
    - "one_vs_rest": `sum_j max(0, 1 - t_j s_j)`, t_j = 1 for the label and -1 elsewhere,
      `losses.one_vs_rest_hinge_loss`: a binary machine for each class.

    `l2 = 1 / (C * sum(weight))` in terms of LIBLINEAR's `C`. The dual variables of the first two are the pushes
    `dual_ij >= 0` of row i against its wrong classes j, 0 for its label. With `V_ij = sum_m dual_im` for the label and
    `V_ij = -dual_ij` elsewhere, the dual value is

    .. math::
        \sum_{ij} \mathrm{dual}_{ij} - \frac{1}{2\, l2} \Big\|\sum_i x_i V_i^\top\Big\|^2

    subject to `sum_j dual_ij <= c_i` (Crammer-Singer) or `dual_ij <= c_i` (Weston-Watkins) and, where the bias is
    free, `sum_i V_ij = 0` for every class. For one-vs-rest, column j is the dual of a binary machine as in `solve`.

    It is pure: it works under `jit` and `vmap`; a new number does not recompile. On arrays that are not traced, rows
    are padded with zero weight to one of a few sizes. The work is certified in float64 on CPU and GPU, whatever the
    flags and the input's dtype. A step forms and factors a matrix of order `(k - 1) * d` (d features, no more of them
    than rows); beyond an order of 8,192 a step is 50 steps of accelerated ascent on the dual instead, which need no
    memory but take long where `l2` is small.

    Args:
      x: Features `(n, d)`.
      labels: Integers `0..k-1`, `(n,)`.
      l2: The strength of regularisation, above 0.
      loss: "crammer_singer", "weston_watkins" or "one_vs_rest".
      sample_weight: `(n,)`, not negative, not all 0.
      fit_intercept: True for free biases, False for none, "regularized" to count them in the norm as LIBLINEAR does.
        Free biases of the first two losses only matter by their differences: they come with the sum 0.
      tol: Stop when `gap <= tol * primal_value`.
      max_steps: Stop after this many steps.
      init: A solution of a nearby problem to start from: another `l2`, other weights.
      as_numpy: Give NumPy arrays, float64 throughout. Host only.
      num_classes: k; by default one more than the largest label. Needed where `labels` are traced. A class without
        rows gets `w = 0` and a bias out of reach of every row where biases are free.

    Returns:
      A `Solution`, float32 (float64 where x64 is on and `x` is float64): `params.w` `(d, k)`, `params.b` `(k,)`,
      `dual` `(n, k)`; `gap` holds for the rounded `params`. `predict(params, x)` gives labels. Derivatives are refused
      for the first two losses: take those of `jaxhinge.loss` at `params` held fixed, which are the derivatives of
      `primal_value` by the envelope theorem. One-vs-rest has the derivatives of `solve`.

    Raises:
      ValueError: On concrete arrays: NaN or infinity, labels that are no integers `0..k-1`, one class only, `l2 <= 0`,
        negative or all-zero weights; under a trace those give the status `REFUSED` and NaN. Shapes that do not fit
        are refused anywhere.
      TypeError: Something is not a real number; a derivative is taken.

    References:
      Crammer and Singer, On the algorithmic implementation of multiclass kernel-based vector machines, 2001; Weston
      and Watkins, Support vector machines for multi-class pattern recognition, 1999; Rifkin and Klautau, In defense of
      one-vs-all classification, 2004; Keerthi et al., A sequential dual method for large scale multi-class linear
      SVMs, 2008.

    >>> import jax.numpy as jnp, jaxhinge
    >>> x, labels = jnp.array([[2.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]), jnp.array([0, 1, 2])
    >>> solution = jaxhinge.solve_multiclass(x, labels, l2=0.1)
    >>> jaxhinge.Status(int(solution.status)).name, bool(solution.gap <= 1e-4 * solution.primal_value)
    ('CONVERGED', True)
    >>> print(jaxhinge.predict(solution.params, x))
    [0 1 2]
    """
    if not isinstance(loss, str) or loss not in _LOSSES:
        raise ValueError(f"loss must be one of {', '.join(_LOSSES)}; got {loss!r}.")
    intercept = config_of("hinge", fit_intercept, "auto").intercept
    options = SolverOptions(tol, max_steps, init, flag("as_numpy", as_numpy))
    traced = is_traced(x, labels, l2, sample_weight, options)
    if traced and options.as_numpy:
        raise ValueError(
            "as_numpy=True gives NumPy arrays, so it is for the host only; leave it out under jit and vmap."
        )
    problem = classified(x, labels, l2, sample_weight, num_classes, traced=traced)
    if loss == "one_vs_rest":
        return solve_one_vs_rest(intercept, problem, options, traced=traced)
    config = Config(loss == "weston_watkins", intercept, problem.num_classes)
    return (_solve_traced if traced else _solve_host)(config, problem, options)


def _solve_traced(config: Config, problem: Classified, options: SolverOptions) -> Solution:
    dtype = problem.x.dtype
    l2 = scalar_like("l2", problem.l2, dtype)
    total = jnp.sum(problem.weight)
    finite = jnp.all(jnp.isfinite(problem.x)) & jnp.isfinite(total + l2)
    valid = problem.valid & finite & jnp.all(problem.weight >= 0) & (total > 0) & (l2 > 0)
    rows = LabelledRows(problem.x.T, problem.labels, problem.weight / total, l2, valid)
    start = _multiclass_start(options.init, problem.x.shape, config.num_classes, jnp, dtype)
    tol = scalar_like("tol", options.tol, dtype)
    return _solution(_without_derivative(replace(config, dtype=dtype))(rows, start, tol, _steps(options)))


def _steps(options: SolverOptions) -> jax.Array:
    return jnp.asarray(options.max_steps, jnp.int32)


@lru_cache
def _without_derivative(config: Config) -> Any:
    """`solve_rows` behind the float64 boundary; a derivative would be wrong without a word, and is refused."""
    solver = jax.custom_jvp(jax.jit(in_float64(partial(solve_rows, config), config.dtype)))

    @solver.defjvp
    def _refuse(primals: Any, tangents: Any) -> Any:
        raise TypeError(
            "solve_multiclass has no derivative for this loss. The derivative of its primal_value by l2, x or "
            "sample_weight is that of jaxhinge.loss at fixed params (envelope theorem): differentiate "
            "jaxhinge.loss(jax.lax.stop_gradient(params), x, labels, l2=l2, loss_fn=...), with params from a call on "
            "stop_gradient(x) and stop_gradient(l2)."
        )

    return solver


def _solve_host(config: Config, problem: Classified, options: SolverOptions) -> Solution:
    tol, max_steps = host_limits(options)
    x, size = problem.x, padded_size(len(problem.x))
    dtype = jnp.float64 if options.as_numpy else caller_dtype(x)
    rows = LabelledRows(
        padded(x.T, size),
        padded(problem.labels, size),
        padded(problem.weight / problem.weight.sum(), size),
        np.float64(problem.l2),
        np.bool_(True),
    )
    start = _multiclass_start(options.init, x.shape, config.num_classes, np, np.float64)
    start = start._replace(dual=padded(start.dual.T, size).T)
    answer = _solve_padded(replace(config, dtype=dtype), rows, start, tol, max_steps)
    if answer.status == Status.REFUSED:
        check_finite("x", x)
        raise ValueError("The objective overflows float64: scale the features down, or change l2.")
    answer = answer._replace(dual=answer.dual[: len(x)])
    return _solution(answer if options.as_numpy else jax.device_put(answer))


def _solve_padded(config: Config, rows: LabelledRows, start: Start, tol: np.float64, max_steps: np.int32) -> Answer:
    """The answer in NumPy arrays. A program of its own tries what float32 can do: few problems need the other."""
    with jax.enable_x64(True):
        rows = jax.device_put(rows)
        answer, progress = computed(_compiled_multiclass(solve_float32_stage, config)(rows, start, tol, max_steps))
        if answer.status in (Status.STALLED, Status.STEP_LIMIT) and progress.steps < max_steps:
            answer = computed(_compiled_multiclass(solve_float64_stage, config)(rows, progress, tol, max_steps))
        return jax.tree.map(np.array, answer)  # type: ignore[no-any-return]


@lru_cache
def _compiled_multiclass(solver: Any, config: Config) -> Any:
    return jax.jit(in_float64(partial(solver, config), config.dtype))


def _multiclass_start(init: Solution | None, shape: tuple[int, int], num_classes: int, numpy: Any, dtype: Any) -> Start:
    """The start that `init` asks for, or zeros."""
    n, d = shape
    if init is None:
        zeros = numpy.zeros
        return Start(
            zeros((d, num_classes), dtype),
            zeros(num_classes, dtype),
            zeros((n, num_classes), dtype),
            numpy.asarray(False),
        )
    check_init(init, shape, num_classes)
    w, b, dual = (numpy.asarray(leaf).astype(dtype) for leaf in (*init.params, init.dual))
    return Start(w, b, dual, numpy.asarray(True))


def _solution(answer: Answer) -> Solution:
    return Solution(LinearParams(answer.w, answer.b), *answer[2:])
