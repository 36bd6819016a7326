"""The exact multiclass solver: minimisers that come with a duality gap."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhinge._base.arrays import scalar_like
from jaxhinge._base.interrupts import OnInterrupt
from jaxhinge._base.values import is_on_accelerator
from jaxhinge._methods.multiclass.host import solve_on_host
from jaxhinge._methods.multiclass.implicit import differentiable
from jaxhinge._methods.multiclass.stages import LARGEST_SYSTEM, Config, LabelledRows, solve_rows
from jaxhinge._methods.padded import solve_padded
from jaxhinge._methods.problem import Config as BinaryConfig
from jaxhinge._solve.binary import (
    Solution,
    SolverOptions,
    check_for_trace,
    check_one_program,
    solution_of,
    solved_on_host,
    solver_options,
    start_of,
)
from jaxhinge._solve.given import Place, caller_dtype, config_of, is_traced, place_of, refuse_stored
from jaxhinge._solve.labels import Classified, classified
from jaxhinge._solve.multiclass_sources import one_vs_rest_elsewhere, solve_classes_of_stream
from jaxhinge._solve.one_vs_rest import solve_one_vs_rest

MulticlassLoss = Literal["crammer_singer", "weston_watkins", "one_vs_rest"]
MulticlassMethod = Literal["auto", "newton", "interior_point", "ascent"]
_LOSSES = ("crammer_singer", "weston_watkins", "one_vs_rest")


def solve_multiclass(
    x: Any,
    labels: ArrayLike | None = None,
    *,
    l2: ArrayLike,
    loss: MulticlassLoss = "crammer_singer",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool | Literal["regularized"] = True,
    tol: ArrayLike = 1e-4,
    max_steps: ArrayLike = 100,
    init: Solution | None = None,
    method: MulticlassMethod = "auto",
    as_numpy: bool = False,
    num_classes: int | None = None,
    progress: bool | None = None,
    on_interrupt: OnInterrupt = "raise",
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

    It is pure: it works under `jit` and `vmap`; a new number does not recompile. What is not traced and lies on a CPU
    is solved in NumPy, on the host, where nothing is compiled; arrays on an accelerator, and NumPy input where the
    default device is one, in JAX. The work is done in float64 on CPU and GPU, whatever the flags and the input's dtype.
    A step of the interior point forms and factors a matrix of order `(k - 1) * d` (d features, no more of them than
    rows). A step of the ascent is 50 ascents on the dual, which need no memory but take long where `l2` is small.

    Rows need not fit in memory. A memory-mapped `x`, of any size, and blocks of rows are streamed as `solve` does, by
    Newton's method on a smoothed loss from the solution of rows drawn at random: a pass over the rows for each step,
    and two more that certify what is returned. Nothing is kept of a row but its label, its weight and its dual. Rows on
    a mesh stay where they are for "one_vs_rest"; the other losses refuse them.

    Args:
      x: Features `(n, d)`, dense or sparse as for `solve`; under a trace sparse ones for "one_vs_rest" alone.
        Differentiable, and so are `l2` and `sample_weight`: `params` by implicit differentiation (valid where no row
        changes sides: no violation reaches 0 or the largest of its row, and no dual one of its bounds), the two values
        by the envelope theorem. `dual`, `gap`, `steps` and `status` carry no derivative. To be streamed: a
        memory-mapped file, or, without `labels`, blocks `(x, labels)` or `(x, labels, sample_weight)`: a list, or a
        function that makes an iterator for each pass.
      labels: Integers `0..k-1`, `(n,)`. None where `x` is blocks.
      l2: The strength of regularisation, above 0.
      loss: "crammer_singer", "weston_watkins" or "one_vs_rest".
      sample_weight: `(n,)`, not negative, not all 0.
      fit_intercept: True for free biases, False for none, "regularized" to count them in the norm as LIBLINEAR does.
        Free biases of the first two losses only matter by their differences: they come with the sum 0.
      tol: Stop when `gap <= tol * primal_value`.
      max_steps: Stop after this many steps.
      method: "interior_point"; "ascent", accelerated projected gradient ascent on the dual; "auto" is the interior
        point, after up to 20 steps of ascents where the order of its matrix is above 1,500, and ascents alone above
        8,192. For "one_vs_rest", the methods of `solve`, "newton" among them. Streamed rows of the first two losses
        know "auto" only.
      num_classes: k; by default one more than the largest label. Needed where `labels` are traced. A class without
        rows gets `w = 0` and a bias out of reach of every row where biases are free.
      init, as_numpy, progress: As for `solve`.
      on_interrupt: As for `solve`; "return" is not for "one_vs_rest" of streamed rows, either.

    Returns:
      A `Solution`, float32 (float64 where x64 is on and `x` is float64): `params.w` `(d, k)`, `params.b` `(k,)`,
      `dual` `(n, k)`; `gap` holds for the rounded `params`. `predict(params, x)` gives labels.

    Raises:
      ValueError: On concrete arrays: NaN or infinity, labels that are no integers `0..k-1`, one class only, `l2 <= 0`,
        negative or all-zero weights; under a trace those give the status `REFUSED` and NaN. Shapes that do not fit
        are refused anywhere. A method that the loss or the rows do not have, or whose matrix would be too large; rows
        on a mesh, but for "one_vs_rest"; blocks that end after one pass or change from pass to pass.
      TypeError: Something is not a real number.

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
    binary = config_of("hinge", fit_intercept, method)
    options = solver_options(tol, max_steps, init, as_numpy, progress, on_interrupt)
    traced = is_traced(x, labels, l2, sample_weight, tol, max_steps, init)
    if traced:
        check_for_trace(options)
    place = place_of(x, labels, traced)
    if place != "memory":
        return _solve_elsewhere(place, loss, binary, (x, labels, l2, sample_weight, num_classes), options)
    problem = classified(x, labels, l2, sample_weight, num_classes, traced=traced)
    if loss == "one_vs_rest":
        return solve_one_vs_rest(binary, problem, options, traced=traced)
    if method == "newton":
        raise ValueError(
            f'method="newton" is for loss="one_vs_rest"; for {loss} there are "interior_point" and "ascent".'
        )
    refuse_stored(f'loss="{loss}"', problem.x)
    config = Config(loss == "weston_watkins", binary.intercept, problem.num_classes, method)
    _check_system(config, problem.x.shape)
    if traced:
        return _solve_traced(config, problem, options)
    return _solve_host(config, problem, options, is_on_accelerator(x))


def _solve_elsewhere(
    place: Place, loss: MulticlassLoss, binary: BinaryConfig, problem: tuple[Any, ...], options: SolverOptions
) -> Solution:
    """The solution of rows in a file, in blocks, or on a mesh."""
    x, labels, l2, sample_weight, num_classes = problem
    if loss == "one_vs_rest":
        intercept: Any = {"free": True, "none": False}.get(binary.intercept, "regularized")
        return one_vs_rest_elsewhere(
            x, labels, num_classes, sample_weight, options, l2=l2, fit_intercept=intercept, method=binary.method
        )
    if place == "mesh":
        raise ValueError(
            f'x lies on a mesh, but loss="{loss}" needs all rows on one device. Where they fit, say so: '
            'numpy.asarray(x). Or take loss="one_vs_rest".'
        )
    config = Config(loss == "weston_watkins", binary.intercept, 0, binary.method)
    answer = solve_classes_of_stream(config, x, labels, l2, sample_weight, num_classes, options)
    return solution_of(answer if options.as_numpy else jax.device_put(answer))


def _check_system(config: Config, shape: tuple[int, int]) -> None:
    """Refuse the interior point where its matrix would not fit."""
    n, d = shape
    order = (config.num_classes - 1) * min(d + (config.intercept != "none"), n + 1)
    if config.method == "interior_point" and order > LARGEST_SYSTEM:
        raise ValueError(
            f'method="interior_point" would factor a matrix of order {order}, above {LARGEST_SYSTEM}: use "ascent", '
            'which is what "auto" does here.'
        )


def _solve_traced(config: Config, problem: Classified, options: SolverOptions) -> Solution:
    dtype = problem.x.dtype
    l2 = scalar_like("l2", problem.l2, dtype)
    total = jnp.sum(problem.weight)
    finite = jnp.all(jnp.isfinite(problem.x)) & jnp.isfinite(total + l2)
    valid = problem.valid & finite & jnp.all(problem.weight >= 0) & (total > 0) & (l2 > 0)
    rows = LabelledRows(problem.x.T, problem.labels, problem.weight / total, l2, valid)
    start = jax.lax.stop_gradient(start_of(options.init, problem.x.shape, jnp, dtype, config.num_classes))
    tol, max_steps = scalar_like("tol", options.tol, dtype), jnp.asarray(options.max_steps, jnp.int32)
    return solution_of(differentiable(replace(config, dtype=dtype))(rows, start, tol, max_steps))


def _solve_host(config: Config, problem: Classified, options: SolverOptions, on_accelerator: bool) -> Solution:
    """Solve what is not traced: in NumPy, or in JAX where the data are on an accelerator."""
    x = problem.x
    config = replace(config, dtype=np.float64 if options.as_numpy else caller_dtype(x))
    c = problem.weight / problem.weight.sum()
    rows = LabelledRows(x.T, problem.labels, c, np.float64(problem.l2), np.bool_(True))
    start = start_of(options.init, x.shape, np, np.float64, config.num_classes)
    if on_accelerator:
        check_one_program(options._replace(progress=None))
    solver: Any = partial(solve_padded, solver=solve_rows) if on_accelerator else solve_on_host
    return solved_on_host(partial(solver, config, rows, start), x, on_accelerator, options)
