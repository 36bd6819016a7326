"""The regularisation path: solutions along a vector of strengths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhinge._base.arrays import check_within_range, flag
from jaxhinge._base.values import check_finite, check_number, check_outside_jit, host_integer, is_on_accelerator
from jaxhinge._methods.host import solve_on_host
from jaxhinge._methods.padded import solve_padded
from jaxhinge._methods.problem import Answer, Start
from jaxhinge._objective.objective import LinearParams
from jaxhinge._solve.binary import Loss
from jaxhinge._solve.given import binary_problem, caller_dtype, config_of, weighed_on_host
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
    x: ArrayLike,
    y: ArrayLike,
    *,
    l2: ArrayLike,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool | Literal["regularized"] = True,
    loss: Loss = "hinge",
    tol: float = 1e-4,
    max_steps: int = 100,
    as_numpy: bool = False,
) -> Path:
    """The solution of `solve` at every `l2`, each started from its neighbour, with the gap at every point. Host only.

    The strongest is solved first. The exact path is piecewise linear in 1/l2 (Hastie et al., 2004); here each point
    is solved to its own gap, which costs a few steps and does not accumulate errors along the way.

    Args:
      x: Features `(n, d)`.
      y: Targets -1 and +1, `(n,)`.
      l2: Strengths of regularisation `(num_l2,)`, above 0, in any order.
      sample_weight: `(n,)`, not negative, not all 0.
      fit_intercept: As for `solve`.
      loss: "hinge" or "squared_hinge".
      tol: Each point stops when `gap <= tol * |primal_value|`.
      max_steps: Each point stops after this many steps.
      as_numpy: Give NumPy arrays, float64 throughout.

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
    tolerance = check_number("tol", tol, meaning="a number, at least 0", valid=lambda value: value >= 0)
    limit = host_integer("max_steps", max_steps, at_least=1)
    problem = binary_problem(x, y, strengths[0], sample_weight, traced=False)
    check_finite("x", problem.x)
    dtype = jnp.float64 if flag("as_numpy", as_numpy) else caller_dtype(problem.x)
    check_within_range("l2", strengths.max(), dtype)
    config = replace(config_of(loss, fit_intercept, "auto"), dtype=dtype)
    rows = weighed_on_host(config, problem)
    n, d = problem.x.shape
    start = Start(np.zeros(d), np.float64(0), np.zeros(n), np.False_)
    solver = solve_padded if is_on_accelerator(x) else solve_on_host
    answers: dict[int, Answer] = {}
    for number in np.argsort(-strengths, kind="stable"):
        answer = solver(config, rows._replace(l2=strengths[number]), start, tolerance, limit)
        w, b, dual = (np.asarray(leaf, np.float64) for leaf in (answer.w, answer.b, answer.dual))
        start = Start(w, b, dual, np.True_)
        answers[int(number)] = answer
    leaves = [np.stack(leaf) for leaf in zip(*(answers[i] for i in range(len(strengths))), strict=True)]
    found = Answer(*leaves)
    result = Path(
        l2=strengths.astype(dtype),
        params=LinearParams(found.w, found.b),
        dual=found.dual,
        primal_value=found.primal_value,
        dual_value=found.dual_value,
        gap=found.gap,
        steps=found.steps,
        status=found.status,
    )
    return result if as_numpy else jax.device_put(result)
