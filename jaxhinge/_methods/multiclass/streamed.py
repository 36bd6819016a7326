r"""The multiclass solver for rows that do not fit in memory: read again in every pass, a block at a time, in NumPy.

Newton's method on the smoothed loss, one pass for each step, and a certificate in each. Over a width h the largest of
the alternatives of a row becomes `max_b b . v + h/2 (1 - |b|^2)`, b at least 0 with the sum 1; of two alternatives
that is Huber's hinge. Its slopes b are a feasible dual point. Nothing is kept of a row but its label and weight: the
dual of the best place is worked out again at the end.

Where the bias is free the pushes are balanced by factors that depend on the label and the class only, so that the value
of the balanced dual point follows from sums for each pair of classes.

Nesterov, Smooth minimization of non-smooth functions, 2005; Keerthi and DeCoste, A modified finite Newton method for
fast solution of large scale linear SVMs, 2005.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._methods.multiclass.ascent import on_simplex
from jaxhinge._methods.multiclass.linear_systems import Edges, factor_of, graph_of_grams_on_host, solve_reduced
from jaxhinge._methods.multiclass.program import (
    Program,
    RowSums,
    gap_of_sums,
    over_penalty,
    potential_of,
    row_sums,
    violations,
)
from jaxhinge._methods.multiclass.stages import OUT_OF_REACH, Config, canonical
from jaxhinge._methods.problem import Answer
from jaxhinge._methods.streamed.kernels import Block, sliced
from jaxhinge._methods.streamed.newton import Evaluation, Iterate, Pace, search
from jaxhinge._methods.streamed.passes import Best, Stop, StreamState, Values, ended, one_pass
from jaxhinge._methods.streamed.progress import Bar
from jaxhinge._methods.streamed.rows import StreamedRows
from jaxhinge._methods.streamed.stages import Limits
from jaxhinge._rows.dense import DenseRows

# `_FIRST_WIDTH`: width of the smoothed kink at a cold start.
_FIRST_WIDTH = 2.0
# `_WARM_WIDTH`: at the start from an earlier solution.
_WARM_WIDTH = 0.1
# `_ROUNDING`: of the objective, relative.
_ROUNDING = 1e-14
_PACE = Pace(narrower=3.0, least_width=1e-9, shortest=1e-6, patience=15)
# `_STIFFNESS`: share of the rows that hold a free bias where none lies in the kink.
_STIFFNESS = 1e-6
# `_SAMPLE_STOP`: a sample is solved to this relative gap at least, in at most so many passes over it.
_SAMPLE_STOP = Stop(1e-4, 30)


class _Sums(NamedTuple):
    """Sums over rows at a place: the loss, the smoothed one, the gap of the slopes but for stationarity, the pushes
    `(k, k)` of the rows of each label against each class, the same times `a_i` `(k, k, p)`, and the graph of Grams."""

    loss: Any
    smoothed: Any
    slack: Any
    flow: NDArray
    adjoints: NDArray
    graph: NDArray


@dataclass(frozen=True)
class StreamedClasses:
    """Rows with labels after a first pass, and their problem.

    Attributes:
      config: The static choices.
      streamed: The rows; their targets are the labels.
      l2: The strength of regularisation.
    """

    config: Config
    streamed: StreamedRows
    l2: float
    present: NDArray = field(init=False)
    centre: NDArray = field(init=False)

    def __post_init__(self) -> None:
        weight, y = self.streamed.weight, self.streamed.y
        present = np.zeros(self.config.num_classes)
        present[np.unique(y if weight is None else y[weight > 0]).astype(np.intp)] = 1
        free = self.config.intercept == "free"
        object.__setattr__(self, "present", present)
        object.__setattr__(self, "centre", self.streamed.centre if free else np.zeros_like(self.streamed.centre))

    @property
    def at_zero(self) -> float:
        """The objective at 0, where every violation is 1."""
        if not self.config.summed:
            return 1.0
        return float((self.present.sum() if self.config.intercept == "free" else len(self.present)) - 1)

    @property
    def frame(self) -> Program:
        """The program without its rows."""
        bias = {"free": [0.0], "regularized": [self.l2], "none": []}[self.config.intercept]
        penalty = np.concatenate([np.full(len(self.centre), self.l2), bias])
        label, one = self.present[:, None], np.ones(1)
        return Program(None, label, label, one, penalty, self.config.summed, self.config.intercept == "free")

    def program(self, block: Block) -> Program:
        """The program of a slice of rows."""
        weight = np.ones(len(block.y)) if block.weight is None else block.weight
        counts = weight > 0
        label = ((block.y[None, :] == np.arange(len(self.present))[:, None]) & counts[None, :]).astype(np.float64)
        wrong = counts[None, :] - label
        if self.config.intercept == "free":
            wrong = wrong * self.present[:, None]
        c = np.where(counts, weight, self.streamed.stand_in) / self.streamed.total
        centre = self.centre if self.centre.any() else None
        rows = DenseRows.of(block.x, centre, self.config.intercept != "none")
        return replace(self.frame, rows=rows, label=label, wrong=wrong, c=c)


def solve_stream(task: StreamedClasses, start: NDArray | None, limits: Limits, dtype: Any, bar: Bar) -> Answer:
    """The answer in NumPy arrays; `start` `(k, p)` are parameters to begin at, in centred features."""
    stop, interrupted = Stop(limits.tol, limits.max_steps), False
    state = StreamState(_nothing(task), bar)
    try:
        iterate = Iterate(start, _WARM_WIDTH) if start is not None else _sampled(task, stop)
        search(partial(_evaluate, task, state), iterate, _PACE, stop, state)
    except KeyboardInterrupt:
        if limits.on_interrupt == "raise":
            raise
        interrupted = True
    return ended(_certified(task, state, dtype), state, stop, dtype, interrupted=interrupted)


def _nothing(task: StreamedClasses) -> Best:
    """What is known without looking at the features: the objective at 0, and that a dual of 0 proves a bound of 0."""
    zeros = np.zeros((len(task.present), len(task.frame.penalty)))
    return Best(Iterate(zeros, _FIRST_WIDTH), None, Values(task.at_zero, 0.0, np.ones(2)))


def _sampled(task: StreamedClasses, stop: Stop) -> Iterate:
    """Where to begin: at the solution of a sample, or at 0 where there are few rows."""
    first, sample = _nothing(task), task.streamed.sample
    if sample is None:
        return first.z  # type: ignore[no-any-return]
    state, coarse = StreamState(first), Stop(max(stop.tol, _SAMPLE_STOP.tol), _SAMPLE_STOP.max_steps)
    search(partial(_evaluate, replace(task, streamed=sample), state), first.z, _PACE, coarse, state)
    z, width = state.best.z
    # The choice of the sample moves all scores by about this much.
    return Iterate(z, max(width, float(np.sqrt(z.size / sample.num_rows))))


def _evaluate(task: StreamedClasses, state: StreamState, place: Iterate) -> Evaluation:
    """One pass."""
    frame, z = task.frame, place.z
    _, sums, _ = _visit(task, partial(_smoothed, place), state)
    norm = float(np.sum(frame.penalty[None, :] * z * z)) / 2
    factor = _balance(frame, sums.flow)
    state.certify(place, place, Values(norm + float(sums.loss), _dual_value(frame, sums, factor), factor))
    gradient = frame.penalty[None, :] * z - _pulled(np.ones_like(sums.flow), sums.adjoints)
    if frame.free_bias:
        # Where no row lies in the kink nothing holds the biases.
        sums.graph[:, -1, :, -1] += _STIFFNESS / place.width * (np.eye(len(z) - 1) - 1 / len(z))
    with np.errstate(all="ignore"):
        direction = canonical(frame, solve_reduced(factor_of(frame, sums.graph), -gradient))
    return Evaluation(place, norm + float(sums.smoothed), gradient, direction, float(sums.slack), _ROUNDING)


def _visit(task: StreamedClasses, function: Any, state: StreamState, dual: NDArray | None = None) -> Any:
    """One pass of `function(program, dual)` over slices of the rows."""

    def kernel(index: int, block: Block) -> Any:
        rows = None if dual is None else dual[task.streamed.rows_of(index)]
        return sliced(lambda part, some: function(task.program(part), some), block, rows)

    return one_pass(task.streamed, kernel, state)


def _smoothed(place: Iterate, program: Program, _: None) -> Any:
    """The sums of a slice."""
    v = violations(program, program.scores(place.z))
    fraction, smooth, edges = _slopes(program, v, place.width)
    push, k, p = program.c[None, :] * fraction, len(v), len(program.penalty)
    excess = np.maximum(v, 0)
    loss = program.c @ (excess.sum(axis=0) if program.summed else excess.max(axis=0))
    adjoints = np.zeros((k, k, p))
    for label in range(k):
        rows = np.flatnonzero(program.label[label])
        if len(rows):
            adjoints[label] = program.rows.take(rows).adjoint(push[:, rows])
    graph = graph_of_grams_on_host(program.rows, edges)
    flow = program.label @ push.T
    return None, _Sums(loss, program.c @ smooth, loss - np.sum(push * v), flow, adjoints, graph), None


def _slopes(program: Program, v: NDArray, width: float) -> tuple[NDArray, NDArray, Edges]:
    """The pushes of the smoothed loss but for `c`, its values `(n,)`, and the graph of its second derivatives."""
    if program.summed:
        u = program.wrong * np.clip((v + width) / (2 * width), 0, 1)
        smooth = np.where(v < width, width * u * u, program.wrong * v).sum(axis=0)
        curved = (u > 0) & (u < 1)
        return u, smooth, Edges(program.label, program.c[None, :] * curved / (2 * width))
    allowed = (program.wrong + program.label) > 0
    b = on_simplex(v / width, allowed, np.ones(v.shape[1]))
    active = (b > 0).astype(np.float64)
    smooth = np.sum(b * v, axis=0) + width / 2 * (program.label.sum(axis=0) - np.sum(b * b, axis=0))
    several = np.sum(active, axis=0) > 1
    weight = program.c * several / (2 * width * np.maximum(np.sum(active, axis=0), 1))
    return program.wrong * b, smooth, Edges(active * weight[None, :], active * several[None, :])


def _pulled(factor: NDArray, adjoints: NDArray) -> NDArray:
    """`sum_i V_ij a_i` `(k, p)` of pushes times a factor for each label and class."""
    scaled = factor[:, :, None] * adjoints
    pulled: NDArray = scaled.sum(axis=1) - scaled.sum(axis=0)
    return pulled


def _balance(frame: Program, flow: NDArray) -> NDArray:
    """The factors `(k, k)` that make pushes with these flows between classes feasible; 0 where none near 1 do."""
    if not frame.free_bias:
        return np.ones_like(flow)
    potential = potential_of(flow)
    factor = 1 - potential[:, None] + potential[None, :]
    used = np.where(flow > 0, factor, 1)
    if not (abs(used - 1) < 1).all():
        return np.zeros_like(flow)
    # One factor for all keeps the balance, and every bound.
    factor = factor / max(1.0, float(used.max()))
    return np.where(flow > 0, factor, 0)


def _dual_value(frame: Program, sums: _Sums, factor: NDArray) -> float:
    pulled = _pulled(factor, sums.adjoints)
    return float(np.sum(factor * sums.flow) - np.sum(pulled * pulled * over_penalty(frame)[None, :]) / 2)


class _Rounded(NamedTuple):
    """What is returned: parameters `(k, p)` and the same for centred features."""

    params: NDArray
    shifted: NDArray


def _certified(task: StreamedClasses, state: StreamState, dtype: Any) -> Answer:
    """Rounded to the caller's dtype first, and the gap in float64 for exactly what is returned: two more passes."""
    frame, streamed, d = task.frame, task.streamed, len(task.centre)
    z = canonical(frame, state.best.z.z)
    rounded = _rounded(task, z, dtype)
    dual = np.zeros((streamed.num_rows, len(z)), dtype)
    flow, lowest = _write_dual(task, state, rounded, dual)
    if frame.free_bias:
        absent = (lowest - OUT_OF_REACH) * (task.present == 0)
        rounded = _rounded(task, z, dtype, absent)
    factor = _balance(frame, flow)
    sums = _final_sums(task, rounded, dual, factor, state)
    primal = float(np.sum(frame.penalty[None, :] * rounded.shifted**2)) / 2 + float(sums.loss)
    gap = float(gap_of_sums(frame, rounded.shifted, sums, streamed.num_rows))
    if gap > primal:
        # No objective is negative, which is what a dual of 0 proves.
        dual[...], gap = 0, primal
    b = rounded.params[:, d] if rounded.params.shape[1] > d else np.zeros(len(z))
    w = rounded.params[:, :d].T.astype(dtype)
    return Answer(w, b.astype(dtype), dual, primal, primal - gap, gap, state.steps, None)


def _rounded(task: StreamedClasses, z: NDArray, dtype: Any, absent: Any = 0.0) -> _Rounded:
    d = len(task.centre)
    w = z[:, :d].astype(dtype).astype(np.float64)
    if z.shape[1] == d:
        return _Rounded(w, w)
    shift = w @ task.centre
    b = (z[:, d] - shift + absent).astype(dtype).astype(np.float64)
    return _Rounded(np.column_stack([w, b]), np.column_stack([w, b + shift]))


def _write_dual(task: StreamedClasses, state: StreamState, rounded: _Rounded, dual: NDArray) -> tuple[NDArray, float]:
    """Write the best dual point, and find the flows between classes that are left, and the lowest score of a label."""
    _, place, (_, _, factor) = state.best

    def write(program: Program, rows: NDArray) -> Any:
        scores = program.scores(rounded.shifted)
        lowest = np.min(np.where(program.label > 0, scores, np.inf))
        push = np.zeros_like(program.label)
        if place is not None:
            fraction, _, _ = _slopes(program, violations(program, program.scores(place.z)), place.width)
            push = program.c[None, :] * fraction * (factor.T @ program.label)
        rows[...] = push.T
        return None, (program.label @ _bounded(program, rows).T,), -lowest

    _, (flow,), largest = _visit(task, write, state, dual)
    return flow, -largest


def _bounded(program: Program, rows: NDArray) -> NDArray:
    """Pushes `(k, n)` as they were written `(n, k)`, within their bounds, which rounding may have broken."""
    push = rows.T.astype(np.float64)
    used = push if program.summed else push.sum(axis=0, keepdims=True)
    bounded: NDArray = push / np.maximum(used / program.c[None, :], 1)
    return bounded


def _final_sums(
    task: StreamedClasses, rounded: _Rounded, dual: NDArray, factor: NDArray, state: StreamState
) -> RowSums:
    """What the rows add to the gap of exactly what is returned."""

    def added_up(program: Program, rows: NDArray) -> Any:
        push = _bounded(program, rows) * (factor.T @ program.label)
        scores = program.scores(rounded.shifted)
        return None, row_sums(program, rounded.shifted, scores, push, program.adjoint(push)), None

    _, sums, _ = _visit(task, added_up, state, dual)
    found: RowSums = sums
    return found
