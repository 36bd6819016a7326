"""What parameters and a dual point are worth, in float64, for exactly the numbers given: one pass over the rows."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._methods.certificate import RowGaps, gap_of_sums, losses, row_gaps
from jaxhinge._methods.problem import Config
from jaxhinge._methods.streamed.kernels import (
    Block,
    Coordinates,
    KernelConfig,
    boxed,
    by_side,
    in_box,
    plain_program,
    sliced,
    targets_of,
)
from jaxhinge._methods.streamed.passes import StreamedProblem, StreamState, balance, one_pass
from jaxhinge._methods.streamed.rows import StreamedRows


class Point(NamedTuple):
    """Parameters, and a dual of all rows or None for 0."""

    w: NDArray
    b: Any
    dual: NDArray | None


class Certified(NamedTuple):
    """A point, its objective, by how much no parameters are better, and what balances the two sides of its dual."""

    point: Point
    primal: float
    gap: float
    ratio: NDArray


class _Sums(NamedTuple):
    loss: Any
    adjoint: NDArray
    of_adjoint: NDArray
    unbalanced: Any
    gaps: RowGaps


def certified(config: Config, problem: StreamedProblem, point: Point, state: StreamState) -> Certified:
    """The point with its values, its dual made feasible first."""
    streamed, coordinates, penalty = problem.streamed, problem.coordinates, problem.penalty
    kernel_config = KernelConfig(config.squared, config.intercept, np.float64)
    ratio = _ratio(config, streamed, coordinates, point.dual)
    z = np.append(point.w.astype(np.float64), float(point.b))[: len(penalty)]
    # A bias that is not a part of the problem counts as it is.
    bias = float(point.b) if config.intercept == "none" else 0.0

    def certify(index: int, block: Block) -> Any:
        alpha = (
            np.zeros(streamed.num_duals(len(block.y))) if point.dual is None else point.dual[streamed.duals_of(index)]
        )
        return sliced(partial(_certified_sums, kernel_config, coordinates, z, bias, ratio), block, alpha)

    sums: _Sums
    _, sums, _ = one_pass(streamed, certify, state)
    primal = float(penalty @ (z * z) / 2 + sums.loss)
    gap = gap_of_sums(penalty, np.zeros_like(z), streamed.num_rows, z, sums.adjoint, sums.of_adjoint, sums.gaps)
    # Such a bias moves the violations: what it is worth to the dual point goes out.
    return Certified(point, primal, float(gap - bias * sums.unbalanced), ratio)


def _certified_sums(
    kernel_config: KernelConfig,
    coordinates: Coordinates,
    z: NDArray,
    bias: float,
    ratio: NDArray,
    block: Block,
    alpha: NDArray,
) -> Any:
    program = plain_program(kernel_config, coordinates, block)
    violations = program.r - program.scores(z) - program.sign * bias
    alpha = ratio @ by_side(program.sign, boxed(program, alpha.astype(np.float64)))
    of_scores, of_adjoint = program.rows.magnitudes(np.abs(z), alpha)
    gaps = row_gaps(program, violations, alpha, of_scores + abs(bias))
    loss = program.c @ losses(program, violations)
    return None, _Sums(loss, program.adjoint(alpha), of_adjoint, program.sign @ alpha, gaps), None


def _ratio(config: Config, streamed: StreamedRows, coordinates: Coordinates, dual: NDArray | None) -> NDArray:
    """What balances a dual: it follows from the targets and the weights."""
    if dual is None or config.intercept != "free":
        return np.ones(2)
    sums = np.zeros(2)
    for index in range(streamed.num_blocks):
        sign, _, c = targets_of(coordinates, *streamed.targets_of(index))
        alpha = in_box(config.squared, streamed.pieces.real, c, dual[streamed.duals_of(index)].astype(np.float64))
        sums += by_side(sign, alpha).sum(axis=1)
    return balance(sums)


def value_at_zero(config: Config, streamed: StreamedRows, coordinates: Coordinates) -> tuple[float, float]:
    """The objective without weights, the bias being the shift, and the size of the margins that are then required."""
    if not streamed.pieces.real:
        return 1.0, 1.0
    loss = required = total = 0.0
    for index in range(streamed.num_blocks):
        sign, r, c = targets_of(coordinates, *streamed.targets_of(index))
        excess = np.maximum(r, 0)
        loss += float(c @ (excess * excess if config.squared else excess))
        required, total = required + float(c @ np.abs(r)), total + float(c @ np.abs(sign))
    # Rounding must not make it less than it is.
    return loss * (1 + 1e-14), required / total or 1.0
