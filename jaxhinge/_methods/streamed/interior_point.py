r"""The interior point of `_interior_point` for rows that are read block by block: three passes for each step.

A step needs three passes, for each needs what the one before has summed over all rows:

1. the point moves as far as the last pass allowed; the matrix of the Newton system there, and its right-hand side for
   the predictor;
2. along the predictor: how far it may go, the certificate at its end, and the right-hand side for the corrector, which
   is affine in the target that is known only afterwards;
3. along the corrector: how far it may go.

Directions are made again from the scores wherever they are needed: five numbers are kept for a row, ten for a residual.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.precision import eps
from jaxhinge._methods.certificate import Program
from jaxhinge._methods.interior_point import PATIENCE, gained, longest_step, next_target, step_length
from jaxhinge._methods.interior_rows import (
    Interior,
    Targets,
    along,
    central_rows,
    complementarity_gap_of,
    corrector_targets,
    direction_of,
    inverse_of,
    predictor_targets,
    primal_residual,
    pull,
    shrinkage,
    weight_of,
)
from jaxhinge._methods.linear_systems import factored, solved
from jaxhinge._methods.streamed.kernels import (
    Block,
    Certificate,
    Coordinates,
    KernelConfig,
    boxed,
    by_side,
    certificate,
    program_of,
    sliced,
)
from jaxhinge._methods.streamed.passes import Stop, StreamedProblem, StreamState, one_pass, values_of


class _System(NamedTuple):
    """Of pass 1: `A' D A`, `A' (c f)` and `A' (c D rhs)` for the predictor, and the gap that complementarity leaves."""

    gram: Any
    adjoint: Any
    right: Any
    complementarity_gap: Any


class _Prediction(NamedTuple):
    """Of pass 2: the certificate, the weighted sum of the predictor's second-order terms, and `A' (c D rhs)` `(2, p)`
    for the corrector: for target 0, and what a target of 1 adds."""

    certificate: Certificate
    second: Any
    right: Any


class _Newton(NamedTuple):
    """The factored system of a step, the dual residual, and the predictor's `dz`."""

    factor: Any
    residual: Any
    dz: Any


class _Move(NamedTuple):
    """A step decided on: both directions `(2, p)` of `z`, predictor and corrector, the target, and the length."""

    dz: Any
    target: Any
    length: Any


def make_steps(
    problem: StreamedProblem,
    kernel_config: KernelConfig,
    z: NDArray,
    kappa: float,
    floor: float,
    stop: Stop,
    state: StreamState,
) -> None:
    """Step from the central point above `z` until the certificate is within `tol`, or nothing is gained any more.

    Steps end too where complementarity, relative to the objective, falls below `floor`.
    """
    streamed, coordinates, penalty = problem.streamed, problem.coordinates, problem.penalty

    def begin(_: int, block: Block) -> Any:
        return _opened(kernel_config, coordinates, block, z, kappa)

    points, system, _ = one_pass(streamed, begin, state)
    complementarity_gap, steps_without_progress, last_gap = np.inf, 0, state.best.values.gap
    while not state.is_over(stop):
        values = state.best.values
        progressed = gained(values.gap, last_gap, system.complementarity_gap, complementarity_gap)
        steps_without_progress = 0 if progressed else steps_without_progress + 1
        complementarity_gap, last_gap = float(system.complementarity_gap), values.gap
        # The comparison is negated so that NaN ends the steps, too.
        if steps_without_progress >= PATIENCE or not complementarity_gap > floor * abs(values.primal):
            return
        newton = _predictor(kernel_config, penalty, z, system)
        if not np.isfinite(newton.dz).all():
            return
        kappa = system.complementarity_gap / ((1 if kernel_config.squared else 2) * coordinates.shares)
        move = _decide(problem, kernel_config, z, points, kappa, newton, stop, state)
        if move is None:
            return

        def advance(index: int, block: Block, move: _Move = move, points: list[Any] = points) -> Any:
            # The old point is dropped at once: both together would be ten numbers for each row.
            point, points[index] = points[index], None
            return _advanced(kernel_config, coordinates, block, point, move)

        points, system, _ = one_pass(streamed, advance, state)
        z = z + move.length * move.dz[1]


def _decide(
    problem: StreamedProblem,
    kernel_config: KernelConfig,
    z: NDArray,
    points: list[Any],
    kappa: Any,
    newton: _Newton,
    stop: Stop,
    state: StreamState,
) -> _Move | None:
    """Passes 2 and 3 of a step: the certificate, and where to go unless it is good enough."""
    streamed, coordinates, penalty = problem.streamed, problem.coordinates, problem.penalty

    def predict(index: int, block: Block) -> Any:
        return _predicted(kernel_config, coordinates, block, points[index], newton.dz)

    alpha, prediction, largest = one_pass(streamed, predict, state)
    end = z + newton.dz
    state.certify(end, alpha, values_of(kernel_config, penalty, end, prediction.certificate))
    if state.is_over(stop):
        return None
    move = _corrector(kernel_config, coordinates, newton, kappa, prediction, largest)

    def correct(index: int, block: Block) -> Any:
        return _corrected(kernel_config, coordinates, block, points[index], move)

    _, _, largest = one_pass(streamed, correct, state)
    return move._replace(length=step_length(longest_step(np.float64(largest))))


def _system(program: Program, point: Interior) -> _System:
    inverse = inverse_of(point)
    weight = weight_of(program, point, inverse)
    rhs = primal_residual(program, point) + pull(program, inverse, predictor_targets(point))
    gram = program.gram(program.c * weight)
    adjoint, right = program.adjoint(np.stack([program.c * point.f, program.c * weight * rhs]))
    return _System(gram, adjoint, right, complementarity_gap_of(program, point))


def _opened(kernel_config: KernelConfig, coordinates: Coordinates, block: Block, z: NDArray, kappa: float) -> Any:
    """Pass 1 of the first step: from the central point above `z`."""
    dtype = kernel_config.dtype

    def function(block: Block, _: None) -> Any:
        program = program_of(kernel_config, coordinates, block)
        point = central_rows(program, None, program.scores(z.astype(dtype)), dtype(kappa))
        return point, _system(program, point), None

    return sliced(function, block, None)


def _advanced(kernel_config: KernelConfig, coordinates: Coordinates, block: Block, point: Interior, move: _Move) -> Any:
    """Pass 1 of a later step: from where the last one leads."""

    def function(block: Block, point: Interior) -> Any:
        program = program_of(kernel_config, coordinates, block)
        point = along(program, point, _direction(program, point, move), kernel_config.dtype(move.length))
        return point, _system(program, point), None

    return sliced(function, block, point)


def _predicted(
    kernel_config: KernelConfig, coordinates: Coordinates, block: Block, point: Interior, dz: NDArray
) -> Any:
    """Pass 2, and the predicted dual of each row."""
    dtype = kernel_config.dtype

    def function(block: Block, point: Interior) -> Any:
        program = program_of(kernel_config, coordinates, block)
        inverse = inverse_of(point)
        weight = weight_of(program, point, inverse)
        scores = program.scores(dz.astype(dtype))
        predictor = direction_of(program, point, inverse, weight, predictor_targets(point), None, scores)
        end = along(program, point, predictor, dtype(1))
        alpha = boxed(program, program.c * end.f)
        parts = by_side(program.sign, alpha)
        rhs = primal_residual(program, point)
        rhs = rhs + pull(program, inverse, corrector_targets(point, predictor, dtype(0)))
        per_target = pull(program, inverse, Targets(np.ones_like(rhs), np.ones_like(rhs)))
        scale = program.c * weight
        products = program.adjoint(np.stack([*parts, scale * rhs, scale * per_target]))
        found = certificate(program, program.r - end.scores, parts, products[:2])
        sums = _Prediction(found, complementarity_gap_of(program, predictor), products[2:])
        return alpha, sums, shrinkage(program, inverse, predictor)

    return sliced(function, block, point)


def _corrected(
    kernel_config: KernelConfig, coordinates: Coordinates, block: Block, point: Interior, move: _Move
) -> Any:
    """Pass 3."""

    def function(block: Block, point: Interior) -> Any:
        program = program_of(kernel_config, coordinates, block)
        return None, None, shrinkage(program, inverse_of(point), _direction(program, point, move))

    return sliced(function, block, point)


def _direction(program: Program, point: Interior, move: _Move) -> Interior:
    """The corrected direction, by way of the predictor's."""
    inverse = inverse_of(point)
    weight = weight_of(program, point, inverse)
    dtype = weight.dtype.type
    scores = program.scores(move.dz.astype(dtype))
    predictor = direction_of(program, point, inverse, weight, predictor_targets(point), None, scores[0])
    targets = corrector_targets(point, predictor, dtype(move.target))
    return direction_of(program, point, inverse, weight, targets, None, scores[1])


def _predictor(kernel_config: KernelConfig, penalty: NDArray, z: NDArray, system: _System) -> _Newton:
    """Between passes 1 and 2: where the predictor leads."""
    factor = factored(system.gram + np.diag(penalty), eps(kernel_config.dtype))
    residual = penalty * z - system.adjoint
    return _Newton(factor, residual, solved(factor, system.right - residual))


def _corrector(
    kernel_config: KernelConfig,
    coordinates: Coordinates,
    newton: _Newton,
    kappa: Any,
    prediction: _Prediction,
    largest: float,
) -> _Move:
    """Between passes 2 and 3: where the corrector leads."""
    length = longest_step(np.float64(largest))
    # Along the predictor the complementarity products fall in proportion, but for their second-order terms.
    second = prediction.second / ((1 if kernel_config.squared else 2) * coordinates.shares)
    target = next_target(kappa, (1 - length) * kappa + length**2 * second)
    dz = solved(newton.factor, prediction.right[0] + target * prediction.right[1] - newton.residual)
    return _Move(np.stack([newton.dz, dz]), target, np.zeros_like(target))
