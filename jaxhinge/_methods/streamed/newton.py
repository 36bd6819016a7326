r"""Newton's method on the smoothed objective: one pass over the rows for each step, and a certificate in each.

The hinge is made smooth over a width h; the smoothed objective is piecewise quadratic, and Newton's method ends in a
few steps where most rows know on which side of the kink they are. Its slopes are a feasible dual point, whose gap falls
with the square of h where the rows near the kink are spread evenly: a gap of a thousandth needs h of about 0.05. That
takes a fifth of the passes of an interior point, which is better where rows are heaped on the kink or none is.

Keerthi and DeCoste, A modified finite Newton method for fast solution of large scale linear SVMs, 2005; Chapelle,
Training a support vector machine in the primal, 2007; Nesterov, Smooth minimization of non-smooth functions, 2005.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.precision import eps
from jaxhinge._methods.linear_systems import factored, solved
from jaxhinge._methods.problem import Config
from jaxhinge._methods.streamed.kernels import KernelConfig, smoothed
from jaxhinge._methods.streamed.passes import Stop, StreamedProblem, StreamState, values_of, visit

# `_SHARE`: smoothing may use this share of the allowed gap.
_SHARE = 0.25
# `_FINE_WIDTH`: below this width, in units of the margin, float32 does not tell the sides of the kink well enough.
_FINE_WIDTH = 2e-3
# `_FINE_GAP`: nor does it below this relative gap.
_FINE_GAP = 1e-3
# `_FINE_TOL`: float64 is used only where a smaller relative gap than this is asked for.
_FINE_TOL = 1e-5
# `_DECREASE`: a step must lower the objective by this share of what its slope promises (Armijo's rule).
_DECREASE = 1e-4


class Iterate(NamedTuple):
    """Where the search is: a point, and the width of the smoothing."""

    z: NDArray
    width: float


class Evaluation(NamedTuple):
    """What one pass has found out at a place.

    Attributes:
      iterate: The place.
      value: The smoothed objective.
      gradient: Its gradient.
      direction: The Newton direction.
      left: The gap that the minimiser would leave; 0 where a narrower kink would not change it.
      rounding: Of the value, relative.
    """

    iterate: Iterate
    value: float
    gradient: NDArray
    direction: NDArray
    left: float
    rounding: float

    @property
    def decrement(self) -> float:
        """How fast the objective falls along the direction."""
        return -float(np.vdot(self.gradient, self.direction))


class Pace(NamedTuple):
    """How a search goes on, and when it gives up.

    Attributes:
      narrower: The width shrinks by this factor at most from one step to the next.
      least_width: A narrower kink is rounding.
      shortest: The line search gives up below this step length.
      patience: Stop after this many steps without progress; only rounding is left then.
    """

    narrower: float
    least_width: float
    shortest: float
    patience: int


_PACE = Pace(narrower=8.0, least_width=0.0, shortest=1e-3, patience=3)


def newton_steps(
    config: Config, problem: StreamedProblem, iterate: Iterate, stop: Stop, num_passes: int, state: StreamState
) -> Iterate:
    """Step until the certificate is within `tol`, or so many passes are made, or no step makes progress."""
    evaluate = partial(_evaluate, config, problem, stop, state)
    return search(evaluate, iterate, _PACE, stop, state, state.passes + num_passes)


def search(
    evaluate: Callable[[Iterate], Evaluation],
    iterate: Iterate,
    pace: Pace,
    stop: Stop,
    state: StreamState,
    last_pass: float = np.inf,
) -> Iterate:
    """Newton's method with a line search, while the width shrinks; each `evaluate` is a pass and a certificate."""
    found = evaluate(iterate)
    steps_without_progress, least, gap = 0, np.inf, np.inf
    while not state.is_over(stop) and state.passes < last_pass and np.isfinite(found.decrement):
        width = _next_width(found, pace, stop.tol * abs(state.best.values.primal))
        if width < found.iterate.width:
            found = evaluate(Iterate(found.iterate.z + found.direction, width))
            steps_without_progress, least = 0, np.inf
            continue
        progressed = found.decrement < least / 2 or state.best.values.gap < 0.99 * gap
        steps_without_progress = 0 if progressed else steps_without_progress + 1
        least, gap = min(least, found.decrement), state.best.values.gap
        new = None if steps_without_progress == pace.patience else _search_line(evaluate, found, pace, stop, state)
        if new is None:
            break
        found = new
    return found.iterate


def _next_width(found: Evaluation, pace: Pace, allowed: float) -> float:
    """Narrower where the gap of the minimiser would be too large, and the point is as near to it as that."""
    left, width = found.left, found.iterate.width
    if left <= 2 * _SHARE * allowed or found.decrement > left or width < pace.least_width:
        return width
    return max(width * float(np.sqrt(_SHARE * allowed / left)), width / pace.narrower)


def _search_line(
    evaluate: Callable[[Iterate], Evaluation], found: Evaluation, pace: Pace, stop: Stop, state: StreamState
) -> Evaluation | None:
    """The full step, or a shorter one where the objective does not fall enough: each try is a pass."""
    z, width = found.iterate
    length = 1.0
    while length > pace.shortest:
        new = evaluate(Iterate(z + length * found.direction, width))
        # Differences smaller than the rounding of the values are not counted as a rise.
        allowed = found.value - _DECREASE * length * found.decrement + new.rounding * abs(found.value)
        if state.is_over(stop) or new.value <= allowed:
            return new
        steepness = float(np.vdot(new.gradient, found.direction))
        # The next length is where the slope, taken to be linear between the ends, would be 0.
        length *= float(np.clip(found.decrement / (found.decrement + steepness), 0.1, 0.7))
    return None


def _evaluate(config: Config, problem: StreamedProblem, stop: Stop, state: StreamState, iterate: Iterate) -> Evaluation:
    """One pass."""
    penalty, z = problem.penalty, iterate.z
    kernel_config = KernelConfig(config.squared, config.intercept, _precision(problem, iterate, stop, state))
    alpha, sums, _ = visit(problem, kernel_config, partial(smoothed, z, iterate.width), state)
    state.certify(z, alpha, values_of(kernel_config, penalty, z, sums.certificate))
    gradient, rounding = penalty * z - np.sum(sums.certificate.adjoint, axis=0), eps(kernel_config.dtype)
    direction = solved(factored(sums.gram + np.diag(penalty), rounding), -gradient)
    value = float(penalty @ (z * z) / 2 + sums.loss)
    left = 0.0 if config.squared else float(sums.slack - (sums.loss - sums.certificate.loss))
    return Evaluation(iterate, value, gradient, direction, left, 8 * rounding)


def _precision(problem: StreamedProblem, iterate: Iterate, stop: Stop, state: StreamState) -> Any:
    values = state.best.values
    near = values.gap < _FINE_GAP * abs(values.primal) or iterate.width < _FINE_WIDTH * problem.unit
    return np.float64 if stop.tol < _FINE_TOL and near else np.float32
