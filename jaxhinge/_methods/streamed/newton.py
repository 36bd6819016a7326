r"""Newton's method on the smoothed objective: one pass over the rows for each step, and a certificate in each.

The hinge is made smooth over a width h; the smoothed objective is piecewise quadratic, and Newton's method ends in a
few steps where most rows know on which side of the kink they are. Its slopes are a feasible dual point, whose gap falls
with the square of h where the rows near the kink are spread evenly: a gap of a thousandth needs h of about 0.05. That
takes a fifth of the passes of an interior point, which is better where rows are heaped on the kink or none is.

Keerthi and DeCoste, A modified finite Newton method for fast solution of large scale linear SVMs, 2005; Chapelle,
Training a support vector machine in the primal, 2007; Nesterov, Smooth minimization of non-smooth functions, 2005.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.precision import eps
from jaxhinge._methods.linear_systems import factored, solved
from jaxhinge._methods.problem import Config
from jaxhinge._methods.streamed.kernels import Block, KernelConfig, smoothed
from jaxhinge._methods.streamed.passes import Stop, StreamedProblem, StreamState, one_pass, values_of

# `_SHARE`: smoothing may use this share of the allowed gap.
_SHARE = 0.25
# `_NARROWER`: the width shrinks by this factor at most from one step to the next.
_NARROWER = 8.0
# `_FINE_WIDTH`: below this width, in units of the margin, float32 does not tell the sides of the kink well enough.
_FINE_WIDTH = 2e-3
# `_FINE_GAP`: nor does it below this relative gap.
_FINE_GAP = 1e-3
# `_FINE_TOL`: float64 is used only where a smaller relative gap than this is asked for.
_FINE_TOL = 1e-5
# `_DECREASE`: a step must lower the objective by this share of what its slope promises (Armijo's rule).
_DECREASE = 1e-4
# `_SHORTEST`: the line search gives up below this step length.
_SHORTEST = 1e-3
# `_PATIENCE`: stop after this many steps without progress; only rounding is left then.
_PATIENCE = 3


class Iterate(NamedTuple):
    """Where the search is: a point, and the width of the smoothing."""

    z: NDArray
    width: float


class _Evaluation(NamedTuple):
    """What one pass has found out at a place: the objective, the Newton direction, how fast the objective falls along
    it, and the relative rounding of all this."""

    iterate: Iterate
    sums: Any
    value: float
    direction: NDArray
    decrement: float
    rounding: float


def newton_steps(
    config: Config, problem: StreamedProblem, iterate: Iterate, stop: Stop, num_passes: int, state: StreamState
) -> Iterate:
    """Step until the certificate is within `tol`, or so many passes are made, or no step makes progress."""
    last = state.passes + num_passes
    evaluation = _evaluate(config, problem, iterate, stop, state)
    steps_without_progress, least, gap = 0, np.inf, np.inf
    while not state.is_over(stop) and state.passes < last and np.isfinite(evaluation.decrement):
        width = _next_width(config, evaluation, stop.tol * abs(state.best.values.primal))
        if width < evaluation.iterate.width:
            ahead = Iterate(evaluation.iterate.z + evaluation.direction, width)
            evaluation, steps_without_progress, least = _evaluate(config, problem, ahead, stop, state), 0, np.inf
            continue
        steps_without_progress = (
            0 if evaluation.decrement < least / 2 or state.best.values.gap < 0.99 * gap else steps_without_progress + 1
        )
        least, gap = min(least, evaluation.decrement), state.best.values.gap
        found = None if steps_without_progress == _PATIENCE else _search_line(config, problem, evaluation, stop, state)
        if found is None:
            break
        evaluation = found
    return evaluation.iterate


def _evaluate(
    config: Config, problem: StreamedProblem, iterate: Iterate, stop: Stop, state: StreamState
) -> _Evaluation:
    """One pass."""
    penalty, z = problem.penalty, iterate.z
    kernel_config = KernelConfig(config.squared, config.intercept, _precision(problem, iterate, stop, state))

    def evaluate(_: int, block: Block) -> Any:
        return smoothed(kernel_config, problem.coordinates, block, z, iterate.width)

    alpha, sums, _ = one_pass(problem.streamed, evaluate, state)
    state.certify(z, alpha, values_of(kernel_config, penalty, z, sums.certificate))
    gradient, rounding = _gradient(penalty, z, sums), eps(kernel_config.dtype)
    direction = solved(factored(sums.gram + np.diag(penalty), rounding), -gradient)
    value = float(penalty @ (z * z) / 2 + sums.loss)
    return _Evaluation(iterate, sums, value, direction, float(-gradient @ direction), 8 * rounding)


def _gradient(penalty: NDArray, z: NDArray, sums: Any) -> NDArray:
    """Of the smoothed objective."""
    gradient: NDArray = penalty * z - np.sum(sums.certificate.adjoint, axis=0)
    return gradient


def _precision(problem: StreamedProblem, iterate: Iterate, stop: Stop, state: StreamState) -> Any:
    values = state.best.values
    near = values.gap < _FINE_GAP * abs(values.primal) or iterate.width < _FINE_WIDTH * problem.unit
    return np.float64 if stop.tol < _FINE_TOL and near else np.float32


def _next_width(config: Config, evaluation: _Evaluation, allowed: float) -> float:
    """Narrower where the gap of the minimiser would be too large, and the point is as near to it as that."""
    sums, width = evaluation.sums, evaluation.iterate.width
    left = float(sums.slack - (sums.loss - sums.certificate.loss))
    if config.squared or left <= 2 * _SHARE * allowed or evaluation.decrement > left:
        return width
    return max(width * float(np.sqrt(_SHARE * allowed / left)), width / _NARROWER)


def _search_line(
    config: Config, problem: StreamedProblem, evaluation: _Evaluation, stop: Stop, state: StreamState
) -> _Evaluation | None:
    """The full step, or a shorter one where the objective does not fall enough: each try is a pass."""
    z, width = evaluation.iterate
    length = 1.0
    while length > _SHORTEST:
        new = _evaluate(config, problem, Iterate(z + length * evaluation.direction, width), stop, state)
        # Differences smaller than the rounding of the values are not counted as a rise.
        allowed = evaluation.value - _DECREASE * length * evaluation.decrement + new.rounding * abs(evaluation.value)
        if state.is_over(stop) or new.value <= allowed:
            return new
        steepness = float(_gradient(problem.penalty, new.iterate.z, new.sums) @ evaluation.direction)
        # The next length is where the slope, taken to be linear between the ends, would be 0.
        length *= float(np.clip(evaluation.decrement / (evaluation.decrement + steepness), 0.1, 0.7))
    return None
