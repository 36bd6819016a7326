r"""The interior point of `_interior_point` for rows that are read block by block: three passes for each step.

A step needs three passes, for each needs what the one before has summed over all rows:

1. the point moves as far as the last pass allowed; the matrix of the Newton system there, and its right-hand side for
   the predictor;
2. along the predictor: how far it may go, the certificate at its end, and the right-hand side for the corrector, which
   is affine in the target that is known only afterwards;
3. along the corrector: how far it may go.

Directions are made again from the scores wherever they are needed: five numbers are kept for a row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge import _interior_point
from jaxhinge._certificate import Program
from jaxhinge._interior_rows import (
    Interior,
    Targets,
    along,
    central_rows,
    complementarity_gap,
    corrector_targets,
    direction_of,
    inverse_of,
    predictor_targets,
    primal_residual,
    pull,
    shrinkage,
    weight_of,
)
from jaxhinge._newton import factored, solved, weighted_gram
from jaxhinge._precision import eps
from jaxhinge._stream_kernels import (
    Block,
    Certificate,
    Frame,
    Kind,
    adjoints,
    boxed,
    by_side,
    certificate,
    kernel,
    program_of,
    sliced,
)
from jaxhinge._stream_passes import Journal, Problem, Stop, one_pass, values_of
from jaxhinge._stream_rows import NDArray


class _System(NamedTuple):
    """Of pass 1: `A' D A`, `A' (c f)` and `A' (c D rhs)` for the predictor, and the gap that complementarity leaves."""

    gram: Any
    adjoint: Any
    right: Any
    left: Any


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
    problem: Problem, kind: Kind, z: NDArray, kappa: float, floor: float, stop: Stop, journal: Journal
) -> None:
    """Step from the central point above `z` until the certificate is within `tol`, or nothing is gained any more.

    Steps end too where complementarity, relative to the objective, falls below `floor`.
    """
    table, frame, penalty = problem

    def begin(_: int, block: Block) -> Any:
        return _opened(kind, frame, block, z, np.float64(kappa))

    points, system, _ = one_pass(table, begin, journal)
    left, idle, last_gap = np.inf, 0, journal.best.values.gap
    while not journal.is_over(stop):
        values = journal.best.values
        useful = _gained(None, *map(np.float64, (values.gap, last_gap, system.left, left)))
        idle = 0 if useful else idle + 1
        left, last_gap = float(system.left), values.gap
        # NaN is not above the floor.
        if idle >= _interior_point.PATIENCE or not left > floor * abs(values.primal):
            return
        newton = _predictor(kind, penalty, z, system)
        if not np.isfinite(newton.dz).all():
            return
        kappa = np.float64(system.left / ((1 if kind.squared else 2) * frame.shares))
        move = _decide(problem, kind, z, points, kappa, newton, stop, journal)
        if move is None:
            return

        def advance(index: int, block: Block, move: _Move = move, points: list[Any] = points) -> Any:
            # Let go of at once: two points for each row would be ten numbers.
            point, points[index] = points[index], None
            return _advanced(kind, frame, block, point, move)

        points, system, _ = one_pass(table, advance, journal)
        z = z + np.float64(move.length) * np.asarray(move.dz[1])


def _decide(
    problem: Problem,
    kind: Kind,
    z: NDArray,
    points: list[Any],
    kappa: np.float64,
    newton: _Newton,
    stop: Stop,
    journal: Journal,
) -> _Move | None:
    """Passes 2 and 3 of a step: the certificate, and where to go unless it is good enough."""
    table, frame, penalty = problem

    def predict(index: int, block: Block) -> Any:
        return _predicted(kind, frame, block, points[index], newton.dz)

    alpha, prediction, largest = one_pass(table, predict, journal)
    end = z + np.asarray(newton.dz)
    journal.certify(end, alpha, values_of(kind, penalty, end, prediction.certificate))
    if journal.is_over(stop):
        return None
    move = _corrector(kind, frame, newton, kappa, prediction, np.float64(largest))

    def correct(index: int, block: Block) -> Any:
        return _corrected(kind, frame, block, points[index], move)

    _, _, largest = one_pass(table, correct, journal)
    decided: _Move = _length(None, move, np.float64(largest))
    return decided


def _system(program: Program, point: Interior) -> _System:
    inverse = inverse_of(point)
    weight = weight_of(program, point, inverse)
    rhs = primal_residual(program, point) + pull(program, inverse, predictor_targets(point))
    gram = weighted_gram(program.rows, program.c * weight * program.sign * program.sign)
    adjoint, right = adjoints(program, [program.c * point.f, program.c * weight * rhs])
    return _System(gram, adjoint, right, complementarity_gap(program, point))


@kernel
def _opened(kind: Kind, frame: Frame, block: Block, z: jax.Array, kappa: jax.Array) -> Any:
    """Pass 1 of the first step: from the central point above `z`."""

    def function(block: Block, _: None) -> Any:
        program = program_of(kind, frame, block)
        point = central_rows(program, None, program.scores(z.astype(kind.dtype)), kappa.astype(kind.dtype))
        return point, _system(program, point), None

    return sliced(function, block, None)


@kernel
def _advanced(kind: Kind, frame: Frame, block: Block, point: Interior, move: _Move) -> Any:
    """Pass 1 of a later step: from where the last one leads."""

    def function(block: Block, point: Interior) -> Any:
        program = program_of(kind, frame, block)
        point = along(program, point, _direction(program, point, move), move.length.astype(kind.dtype))
        return point, _system(program, point), None

    return sliced(function, block, point)


@kernel
def _predicted(kind: Kind, frame: Frame, block: Block, point: Interior, dz: jax.Array) -> Any:
    """Pass 2, and the predicted dual of each row."""

    def function(block: Block, point: Interior) -> Any:
        program = program_of(kind, frame, block)
        inverse = inverse_of(point)
        weight = weight_of(program, point, inverse)
        scores = program.scores(dz.astype(kind.dtype))
        predictor = direction_of(program, point, inverse, weight, predictor_targets(point), None, scores)
        end = along(program, point, predictor, jnp.ones((), kind.dtype))
        alpha = boxed(program, program.c * end.f)
        rhs = primal_residual(program, point)
        rhs += pull(program, inverse, corrector_targets(point, predictor, jnp.zeros((), kind.dtype)))
        per_target = pull(program, inverse, Targets(jnp.ones_like(rhs), jnp.ones_like(rhs)))
        scale = program.c * weight
        products = adjoints(program, [*by_side(program.sign, alpha), scale * rhs, scale * per_target])
        found = certificate(program, program.r - end.scores, alpha, products[:2])
        sums = _Prediction(found, complementarity_gap(program, predictor), products[2:])
        return alpha, sums, shrinkage(program, inverse, predictor)

    return sliced(function, block, point)


@kernel
def _corrected(kind: Kind, frame: Frame, block: Block, point: Interior, move: _Move) -> Any:
    """Pass 3."""

    def function(block: Block, point: Interior) -> Any:
        program = program_of(kind, frame, block)
        return None, None, shrinkage(program, inverse_of(point), _direction(program, point, move))

    return sliced(function, block, point)


def _direction(program: Program, point: Interior, move: _Move) -> Interior:
    """The corrector of a move."""
    inverse = inverse_of(point)
    weight = weight_of(program, point, inverse)
    scores = program.sign[None, :] * (move.dz.astype(weight.dtype) @ program.rows)
    predictor = direction_of(program, point, inverse, weight, predictor_targets(point), None, scores[0])
    targets = corrector_targets(point, predictor, move.target.astype(weight.dtype))
    return direction_of(program, point, inverse, weight, targets, None, scores[1])


@kernel
def _predictor(kind: Kind, penalty: jax.Array, z: jax.Array, system: _System) -> _Newton:
    """Between passes 1 and 2: where the predictor leads."""
    factor = factored(system.gram + jnp.diag(penalty), eps(kind.dtype))
    residual = penalty * z - system.adjoint
    return _Newton(factor, residual, solved(factor, system.right - residual))


@kernel
def _corrector(
    kind: Kind, frame: Frame, newton: _Newton, kappa: jax.Array, prediction: _Prediction, largest: jax.Array
) -> _Move:
    """Between passes 2 and 3: where the corrector leads."""
    length = _interior_point.longest_step(largest)
    # Along the predictor the complementarity products fall in proportion, but for their second-order terms.
    second = prediction.second / ((1 if kind.squared else 2) * frame.shares)
    target = _interior_point.next_target(kappa, (1 - length) * kappa + length**2 * second)
    dz = solved(newton.factor, prediction.right[0] + target * prediction.right[1] - newton.residual)
    return _Move(jnp.stack([newton.dz, dz]), target, jnp.zeros_like(target))


@kernel
def _length(_: None, move: _Move, largest: jax.Array) -> _Move:
    """After pass 3: how far to go."""
    return move._replace(length=_interior_point.step_length(_interior_point.longest_step(largest)))


@kernel
def _gained(_: None, gap: jax.Array, old_gap: jax.Array, left: jax.Array, old_left: jax.Array) -> jax.Array:
    """Whether a step was of use."""
    return _interior_point.gained(gap, old_gap, left, old_left)
