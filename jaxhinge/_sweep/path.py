"""The regularisation path: solutions along a vector of strengths."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike
from tqdm import tqdm

from jaxhinge._base.arrays import check_within_range
from jaxhinge._base.interrupts import OnInterrupt
from jaxhinge._base.progress import LONG_RUN
from jaxhinge._base.values import check_outside_jit
from jaxhinge._methods.problem import Answer, Method
from jaxhinge._objective.objective import LinearParams
from jaxhinge._solve.binary import Loss, solution_of, solver_options
from jaxhinge._solve.given import config_of
from jaxhinge._solve.prepared import prepared
from jaxhinge._sweep.sweep import checked_strengths


class Path(NamedTuple):
    """Solutions along `l2`, in the order given; each leaf leads with `num_l2`.

    Attributes:
      l2: `(num_l2,)`.
      params: `LinearParams`, `w` `(num_l2, d)` and `b` `(num_l2,)`.
      dual: `(num_l2, n)`.
      primal_value, dual_value, gap: `(num_l2,)`, as those of a `Solution`.
      steps: `(num_l2,)`, what each took from its neighbour.
      status: `(num_l2,)`, codes of `Status`.
    """

    l2: Any
    params: LinearParams
    dual: Any
    primal_value: Any
    dual_value: Any
    gap: Any
    steps: Any
    status: Any


def path(
    x: Any,
    y: ArrayLike | None = None,
    *,
    l2: ArrayLike,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool | Literal["regularized"] = True,
    loss: Loss = "hinge",
    tol: float = 1e-4,
    max_steps: int = 100,
    method: Method = "auto",
    as_numpy: bool = False,
    progress: bool | None = None,
    on_interrupt: OnInterrupt = "raise",
) -> Path:
    """The solution of `solve` at every `l2`, each started from its neighbour, with the gap at every point. Host only.

    The strongest is solved first. The exact path is piecewise linear in 1/l2 (Hastie et al., 2004); here each point
    is solved to its own gap, which costs a few steps and does not accumulate errors along the way.

    Args:
      x: Features `(n, d)`, dense or sparse. Rows on a mesh stay where they are. A memory-mapped file, or blocks without
        `y`, are streamed as for `solve`.
      y: Targets -1 and +1, `(n,)`. None where `x` is blocks.
      l2: Strengths of regularisation `(num_l2,)`, above 0, in any order.
      sample_weight: `(n,)`, not negative, not all 0.
      fit_intercept: As for `solve`.
      loss: "hinge" or "squared_hinge".
      tol: Each point stops when `gap <= tol * |primal_value|`.
      max_steps: Each point stops after this many steps.
      method: As for `solve`.
      as_numpy: Give NumPy arrays, float64 throughout.
      progress: Whether to draw a bar over the strengths; None draws one on a terminal where it takes more than two
        seconds.
      on_interrupt: What Ctrl-C does: "raise", or "return" what was reached, certified: at the strengths that were not
        reached, the neighbour's solution as it is. "return" is not for rows on a mesh or on an accelerator.

    Returns:
      A `Path`, float32 (float64 where x64 is on and `x` is float64).

    Raises:
      ValueError, TypeError: As `solve`, and for a strength that is not above 0.

    References:
      Hastie, Rosset, Tibshirani and Zhu, The entire regularization path for the support vector machine, 2004.

    >>> import jax.numpy as jnp, jaxhinge
    >>> x, y = jnp.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), jnp.array([1, 1, -1])
    >>> path = jaxhinge.path(x, y, l2=[1.0, 0.3, 0.1])
    >>> path.params.w.shape, bool((path.gap <= 1e-4 * path.primal_value).all())
    ((3, 2), True)
    """
    check_outside_jit("path")
    strengths = checked_strengths(l2)
    config = config_of(loss, fit_intercept, method)
    options = solver_options(tol, max_steps, None, as_numpy, progress, on_interrupt)
    order = np.argsort(-strengths, kind="stable")
    bar = tqdm(total=len(order), desc="path", delay=LONG_RUN, disable=None if progress is None else not progress)
    with bar, prepared(config, x, y, sample_weight, options) as solver:
        check_within_range("l2", strengths.max(), solver.dtype)
        answers: dict[int, Answer] = {}
        before: Answer | None = None
        for number in order.tolist():
            before = answers[number] = solver.solve(float(strengths[number]), before)
            bar.update()
        leaves = [solver.stacked(leaf) for leaf in zip(*(answers[i] for i in range(len(order))), strict=True)]
    given = strengths.astype(solver.dtype)
    return Path(given if as_numpy else jax.device_put(given), *solution_of(Answer(*leaves)))
