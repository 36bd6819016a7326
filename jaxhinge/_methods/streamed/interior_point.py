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

from functools import partial
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
from jaxhinge._methods.streamed.kernels import Certificate, KernelConfig, boxed, by_side, certificate
from jaxhinge._methods.streamed.passes import Stop, StreamedProblem, StreamState, values_of, visit


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
    points, system, _ = visit(problem, kernel_config, partial(_opened, z, kappa), state)
    complementarity_gap, steps_without_progress, last_gap = np.inf, 0, state.best.values.gap
    while not state.is_over(stop):
        values = state.best.values
        progressed = gained(values.gap, last_gap, system.complementarity_gap, complementarity_gap)
        steps_without_progress = 0 if progressed else steps_without_progress + 1
        complementarity_gap, last_gap = float(system.complementarity_gap), values.gap
        # The comparison is negated so that NaN ends the steps, too.
        if steps_without_progress >= PATIENCE or not complementarity_gap > floor * abs(values.primal):
            return
        newton = _predictor(kernel_config, problem.penalty, z, system)
        if not np.isfinite(newton.dz).all():
            return
        kappa = system.complementarity_gap / _num_products(problem, kernel_config)
        move = _decide(problem, kernel_config, z, points, kappa, newton, stop, state)
        if move is None:
            return
        # The old points are dropped at once: with the new ones they would be ten numbers for each row.
        points, system, _ = visit(problem, kernel_config, partial(_advanced, move), state, points, last=True)
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
    alpha, prediction, largest = visit(problem, kernel_config, partial(_predicted, newton.dz), state, points)
    end = z + newton.dz
    state.certify(end, alpha, values_of(kernel_config, problem.penalty, end, prediction.certificate))
    if state.is_over(stop):
        return None
    move = _corrector(_num_products(problem, kernel_config), newton, kappa, prediction, largest)
    _, _, largest = visit(problem, kernel_config, partial(_corrected, move), state, points)
    return move._replace(length=step_length(longest_step(np.float64(largest))))


def _num_products(problem: StreamedProblem, kernel_config: KernelConfig) -> float:
    """How many complementarity products there are, weighted by `c`."""
    return (1 if kernel_config.squared else 2) * problem.coordinates.shares


def _system(program: Program, point: Interior) -> _System:
    inverse = inverse_of(point)
    weight = weight_of(program, point, inverse)
    rhs = primal_residual(program, point) + pull(program, inverse, predictor_targets(point))
    gram = program.gram(program.c * weight)
    adjoint, right = program.adjoint(np.stack([program.c * point.f, program.c * weight * rhs]))
    return _System(gram, adjoint, right, complementarity_gap_of(program, point))


def _opened(z: NDArray, kappa: float, program: Program, _: None) -> Any:
    """Pass 1 of the first step: from the central point above `z`."""
    dtype = program.c.dtype.type
    point = central_rows(program, None, program.scores(z.astype(dtype)), dtype(kappa))
    return point, _system(program, point), None


def _advanced(move: _Move, program: Program, point: Interior) -> Any:
    """Pass 1 of a later step: from where the last one leads."""
    point = along(program, point, _direction(program, point, move), program.c.dtype.type(move.length))
    return point, _system(program, point), None


def _predicted(dz: NDArray, program: Program, point: Interior) -> Any:
    """Pass 2, and the predicted dual of each row."""
    dtype, inverse = program.c.dtype.type, inverse_of(point)
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


def _corrected(move: _Move, program: Program, point: Interior) -> Any:
    """Pass 3."""
    return None, None, shrinkage(program, inverse_of(point), _direction(program, point, move))


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


def _corrector(num_products: float, newton: _Newton, kappa: Any, prediction: _Prediction, largest: float) -> _Move:
    """Between passes 2 and 3: where the corrector leads."""
    length = longest_step(np.float64(largest))
    # Along the predictor the complementarity products fall in proportion, but for their second-order terms.
    second = prediction.second / num_products
    target = next_target(kappa, (1 - length) * kappa + length**2 * second)
    dz = solved(newton.factor, prediction.right[0] + target * prediction.right[1] - newton.residual)
    return _Move(np.stack([newton.dz, dz]), target, np.zeros_like(target))
