r"""One solution of the many iterates: from nearly optimal to optimal up to rounding, and one bias of the optimal ones.

A gap of eps leaves the weights within sqrt(2 eps / l2) of the optimal ones, and which point of that ball a solver ends
at depends on its path: weighted rows and repeated rows would agree to half the digits of the gap. What a nearly optimal
point does tell is which rows are on the margin (M), inside (I) and outside of it, and given those the conditions of
optimality are linear. With targets t_i = sign_i required_i and pushes beta_i = sign_i alpha_i they are

    l2 w = sum_I sign_i c_i x_i + sum_M beta_i x_i,    x_i . w + b = t_i on M,    sum_I sign_i c_i + sum_M beta_i = 0

(the last for a free bias), and one singular value decomposition of the rows on the margin solves them, be these
dependent or not. For the squared hinge, whose margin is nothing special, they are the least squares of the rows inside.
Where the solution puts rows on another side it is solved again, which is Newton's method on a semismooth equation; it
is taken if its objective is no higher than that of the point it came from.

A free bias need not be unique: with as much weight of one sign inside the margin as of the other and no row on it, it
can move without a change of the objective. Given the weights, the hinges are a piecewise linear function of the bias
whose slope at b is the weight of the breakpoints `t_i - x_i . w` below b, less the weight of all rows of positive sign:
the optimal biases are a weighted quantile of the breakpoints, and the middle of them is taken.

Ye, On the finite convergence of interior-point algorithms for linear programming, 1992; Hintermueller, Ito and
Kunisch, The primal-dual active set strategy as a semismooth Newton method, 2003.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.threads import one_blas_thread
from jaxhinge._methods.certificate import Program, gap_between
from jaxhinge._methods.problem import Status
from jaxhinge._rows.dense import DenseRows
from jaxhinge._solve.binary import Solution

# `_SLOPE_ROUNDING`: slopes of the hinges in the bias that differ by less, relative to the whole weight, count as equal.
_SLOPE_ROUNDING = 1e-12
# `_RANK_ROUNDING`: singular values that are smaller, relative to the largest, count as 0.
_RANK_ROUNDING = 1e-11
# `_VALUE_ROUNDING`: objectives that differ by less, relative to the sum of their terms, count as equal.
_VALUE_ROUNDING = 1e-14
# `_FLOOR`: smallest objective, relative to the whole weight, that the relative stopping test divides by.
_FLOOR = 1e-12
# `_PASSES`: the active set is looked for so many times at most.
_PASSES = 8
# `_MOST_WORK`: beyond so many multiplications the decomposition would take longer than the solve did.
_MOST_WORK = 1e9


class Hinges(NamedTuple):
    """The problem `sum_i c_i loss(required_i - sign_i (x_i . w + b)) + l2/2 |w|^2`, in NumPy float64.

    Attributes:
      x: `(n, d)`; `with_middle_bias` takes a sparse one, too.
      sign: `(n,)`, -1 and +1.
      required: `(n,)`, the required margin.
      c: `(n,)`, not negative.
      l2: Above 0.
      squared: Whether the loss is squared.
      free_bias: Whether there is a bias; a regularised one is a column of `x`.
    """

    x: NDArray
    sign: NDArray
    required: NDArray
    c: NDArray
    l2: float
    squared: bool
    free_bias: bool


class _Point(NamedTuple):
    """Parameters, the dual that goes with them, feasible or not, and `required - sign * scores`."""

    w: NDArray
    b: float
    alpha: NDArray
    violation: NDArray


class Polished(NamedTuple):
    """A solution, and whether it was found to be exact: whether another solver would end at the same."""

    solution: Solution
    active_set_identified: bool


# A polished point that overflows is no better than the given one. The threads of BLAS would spin beside busy cores.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
@one_blas_thread()
def polish(hinges: Hinges, solution: Solution, tol: float) -> Polished:
    """The solution made exact up to rounding where that is possible, with the middle of its optimal biases.

    Args:
      hinges: The problem.
      solution: Of `hinges`, in NumPy float64; `dual` may go on, for rows that do not count.
      tol: The relative gap at which the result counts as converged.
    """
    counts = hinges.c > 0
    given: Any = solution
    dual = given.dual[: len(counts)][counts]
    hinges = _restricted(hinges, counts)
    point, active_set_identified = _better_of_polished(
        hinges, _point(hinges, given.params.w, float(given.params.b), dual), tol
    )
    primal, alpha = _primal_value(hinges, point), _feasible(hinges, point.alpha)
    if _dual_value(hinges, alpha) < given.dual_value:
        alpha = dual
    gap = _gap(hinges, point, alpha)
    converged = gap <= tol * max(primal, _FLOOR * hinges.c.sum())
    start = _point(hinges, given.params.w, float(given.params.b), dual)
    of_start = _primal_value(hinges, start)
    if not converged and _gap(hinges, start, _feasible(hinges, dual)) <= tol * of_start:
        # Rows that lie on the margin to the last digit leave more to rounding than those a little inside of it.
        kept: Any = {"status": np.int32(Status.CONVERGED)}
        return Polished(solution._replace(**kept), False)
    otherwise = Status.STALLED if given.status == Status.CONVERGED else given.status
    every = np.zeros(len(counts))
    every[counts] = alpha
    result: Any = {
        "params": given.params._replace(w=point.w, b=np.float64(point.b)),
        "dual": every,
        "primal_value": np.float64(primal),
        "dual_value": np.float64(primal - gap),
        "gap": np.float64(gap),
        "status": np.int32(Status.CONVERGED if converged else otherwise),
    }
    return Polished(solution._replace(**result), active_set_identified)


def middle_bias(scores: NDArray, sign: NDArray, required: NDArray, c: NDArray) -> float:
    """The middle of the biases that minimise `sum_i c_i max(0, required_i - sign_i (scores_i + b))`.

    All arguments are `(n,)`, `c` positive, and both signs occur.

    >>> import numpy as np
    >>> middle_bias(np.array([-3.0, 3.0]), np.array([-1.0, 1.0]), np.ones(2), np.ones(2))
    0.0
    """
    breakpoints = sign * required - scores
    order = np.argsort(breakpoints)
    below = np.cumsum(c[order])
    share, rounding = c[sign > 0].sum(), _SLOPE_ROUNDING * below[-1]
    first = np.searchsorted(below, share - rounding)
    last = np.searchsorted(below, share + rounding, side="right")
    ends = np.minimum([first, last], len(below) - 1)
    return float(breakpoints[order[ends]].mean())


def with_middle_bias(hinges: Hinges, solution: Solution) -> Solution:
    """The solution with the middle of its optimal biases, which lowers the objective: its gap holds as it is."""
    counts = hinges.c > 0
    scores = hinges.x @ solution.params.w
    arrays = (scores, hinges.sign, hinges.required, hinges.c)
    b: Any = np.float64(middle_bias(*(array[counts] for array in arrays)))
    return solution._replace(params=solution.params._replace(b=b))


def _point(hinges: Hinges, w: NDArray, b: float, alpha: NDArray | None) -> _Point:
    """The point with these parameters; without a dual, that of the squared hinge."""
    violation = hinges.required - hinges.sign * (hinges.x @ w + b)
    if alpha is None:
        alpha = 2 * hinges.c * np.maximum(0, violation)
    return _Point(w, b, alpha, violation)


def _restricted(hinges: Hinges, rows: NDArray) -> Hinges:
    """The problem of some of the rows."""
    if rows.all():
        return hinges
    x, sign, required, c = (array[rows] for array in (hinges.x, hinges.sign, hinges.required, hinges.c))
    return hinges._replace(x=x, sign=sign, required=required, c=c)


def _better_of_polished(hinges: Hinges, given: _Point, tol: float) -> tuple[_Point, bool]:
    """The polished point, or the given one where it is lower, with a middle bias; and whether it is exact."""
    polished, active_set_identified = _polished(hinges, given)
    old, new = _with_middle_bias(hinges, given), _with_middle_bias(hinges, polished)
    primal, new_primal = _primal_value(hinges, old), _primal_value(hinges, new)
    # The polished point may be worse by rounding, but never so much that it would no longer count as converged.
    terms = hinges.c @ (np.abs(hinges.required) + np.abs(hinges.required - new.violation))
    active_set_identified = active_set_identified and bool(
        new_primal <= primal + min(_VALUE_ROUNDING * terms, tol / 2 * primal)
    )
    return (new if active_set_identified or new_primal < primal else old), active_set_identified


def _with_middle_bias(hinges: Hinges, point: _Point) -> _Point:
    if hinges.squared or not hinges.free_bias:
        return point
    b = middle_bias(hinges.x @ point.w, hinges.sign, hinges.required, hinges.c)
    return _point(hinges, point.w, b, point.alpha)


def _polished(hinges: Hinges, point: _Point) -> tuple[_Point, bool]:
    """The conditions of optimality solved for the sides that the rows are on; and whether the rows stay there."""
    d, unit = hinges.x.shape[1], _unit_of_violation(hinges)
    solve = _least_squares if hinges.squared else _on_margin
    sides = _sides(hinges, point, unit)
    for _ in range(_PASSES):
        among = np.count_nonzero(sides == 0)
        if among * d * min(among, d) > _MOST_WORK:
            return point, False
        try:
            point, before = solve(hinges, point, sides), sides
        except np.linalg.LinAlgError:  # numbers that overflow have no decomposition
            return point, False
        sides = _sides(hinges, point, unit)
        if (sides == before).all():
            return point, True
    return point, False


def _unit_of_violation(hinges: Hinges) -> float:
    """What a row's dual, going from its lower to its upper bound, does to the row's own score; or the margin, if less.

    In this unit a dual, as a fraction of its bound, and a violation tell together on which side a row is.
    """
    mean = hinges.c @ hinges.x / hinges.c.sum() if hinges.free_bias else np.zeros(hinges.x.shape[1])
    squares = np.einsum("nd,nd->n", hinges.x, hinges.x) - 2 * hinges.x @ mean + mean @ mean
    response = np.mean(hinges.c * squares) / hinges.l2
    sizes = [size for size in (response, np.mean(np.abs(hinges.required))) if size > 0]
    return float(min(sizes, default=1.0))


def _sides(hinges: Hinges, point: _Point, unit: float) -> NDArray:
    """0 for the rows whose equations are solved: on the margin, or squared, inside; else 1 inside and -1 outside."""
    if hinges.squared:
        return np.where(point.violation > 0, 0, -1)
    place = point.alpha / hinges.c + point.violation / unit
    return np.where(place >= 1, 1, np.where(place <= 0, -1, 0))


def _on_margin(hinges: Hinges, point: _Point, sides: NDArray) -> _Point:
    """The hinge: weights that are closest to what the rows inside ask for, and put these rows on the margin."""
    margin, inside = sides == 0, sides == 1
    push = np.where(inside, hinges.sign * hinges.c, 0)
    wanted, rows, targets = push @ hinges.x, hinges.x[margin], (hinges.sign * hinges.required)[margin]
    beta = (hinges.sign * point.alpha)[margin]
    row_mean, target_mean = np.zeros(len(wanted)), 0.0
    if hinges.free_bias and len(rows):
        # The bias absorbs the means: the equations are those of rows less their mean, with pushes of a known sum.
        row_mean, target_mean = rows.mean(axis=0), targets.mean()
        rows, targets = rows - row_mean, targets - target_mean
        beta = beta - (push.sum() + beta.sum()) / len(rows)
        wanted = wanted - push.sum() * row_mean
    u, s, vt = _decomposition(rows)
    # The projection is made twice: without that its rounding would be divided by l2.
    apart = wanted - vt.T @ (vt @ wanted)
    apart = apart - vt.T @ (vt @ apart)
    w = vt.T @ ((u.T @ targets) / s) + apart / hinges.l2
    # Dependent rows leave a choice of duals: those nearest to the old ones are taken.
    beta = beta + u @ ((vt @ (hinges.l2 * w - wanted - beta @ rows)) / s)
    alpha = np.where(inside, hinges.c, 0)
    alpha[margin] = hinges.sign[margin] * beta
    bias = point.b if hinges.free_bias and not len(rows) else float(target_mean - row_mean @ w)
    return _point(hinges, w, bias if hinges.free_bias else 0.0, alpha)


def _least_squares(hinges: Hinges, point: _Point, sides: NDArray) -> _Point:
    """The squared hinge: the regularised least squares of the rows inside."""
    inside = sides == 0
    rows, targets, weight = hinges.x[inside], (hinges.sign * hinges.required)[inside], hinges.c[inside]
    row_mean, target_mean = np.zeros(rows.shape[1]), 0.0
    if hinges.free_bias and len(rows):
        row_mean, target_mean = weight @ rows / weight.sum(), weight @ targets / weight.sum()
        rows, targets = rows - row_mean, targets - target_mean
    root = np.sqrt(2 * weight)
    u, s, vt = _decomposition(root[:, None] * rows)
    w = vt.T @ (s / (s * s + hinges.l2) * (u.T @ (root * targets)))
    bias = point.b if not len(rows) else float(target_mean - row_mean @ w)
    return _point(hinges, w, bias if hinges.free_bias else 0.0, None)


def _decomposition(rows: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """The singular value decomposition without what rounding alone holds in place."""
    u, s, vt = np.linalg.svd(rows, full_matrices=False)
    kept = s > _RANK_ROUNDING * s.max(initial=0)
    return u[:, kept], s[kept], vt[kept]


def _primal_value(hinges: Hinges, point: _Point) -> float:
    excess = np.maximum(0, point.violation)
    losses = excess * excess if hinges.squared else excess
    return float(hinges.c @ losses + hinges.l2 / 2 * point.w @ point.w)


def _gap(hinges: Hinges, point: _Point, alpha: NDArray) -> float:
    """The primal value less the value of a feasible dual point, bounded from above."""
    rows = DenseRows(np.asarray(hinges.x, np.float64), None, hinges.free_bias)
    penalty = np.full(hinges.x.shape[1], hinges.l2)
    z = point.w
    if hinges.free_bias:
        penalty, z = np.append(penalty, 0.0), np.append(z, point.b)
    program = Program(
        rows, hinges.sign, hinges.required, hinges.c, penalty, np.zeros_like(z), hinges.squared, hinges.free_bias
    )
    return float(gap_between(program, z, point.violation, alpha, program.adjoint(alpha)))


def _dual_value(hinges: Hinges, alpha: NDArray) -> float:
    pull = (alpha * hinges.sign) @ hinges.x
    value = hinges.required @ alpha - pull @ pull / (2 * hinges.l2)
    return float(value - np.sum(alpha * alpha / hinges.c) / 4 if hinges.squared else value)


def _feasible(hinges: Hinges, alpha: NDArray) -> NDArray:
    """The dual clipped to its box, and for a free bias the heavier side scaled down to the lighter."""
    alpha = np.maximum(0, alpha) if hinges.squared else np.clip(alpha, 0, hinges.c)
    if not hinges.free_bias:
        return alpha
    positive = hinges.sign > 0
    push, pull = float(np.sum(alpha[positive])), float(np.sum(alpha[~positive]))
    both = min(push, pull)
    balanced: NDArray = alpha * np.where(positive, both / (push or 1), both / (pull or 1))
    return balanced
