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

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.interrupts import OnInterrupt
from jaxhinge._base.precision import rounded_down, rounded_up
from jaxhinge._base.threads import one_blas_thread
from jaxhinge._methods.certificate import FLOOR
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
from jaxhinge._methods.multiclass.stages import Config, canonical
from jaxhinge._methods.problem import Answer, Status
from jaxhinge._methods.streamed.kernels import Block, sliced
from jaxhinge._methods.streamed.passes import one_pass
from jaxhinge._methods.streamed.progress import Bar
from jaxhinge._methods.streamed.rows import StreamedRows
from jaxhinge._rows.dense import DenseRows

# `_FIRST_WIDTH`: width of the smoothed kink at a cold start.
_FIRST_WIDTH = 2.0
# `_SHARE`: smoothing may use this share of the allowed gap.
_SHARE = 0.25
# `_NARROWER`: the width shrinks by this factor at most from one step to the next.
_NARROWER = 3.0
# `_LEAST_WIDTH`: a narrower kink is rounding.
_LEAST_WIDTH = 1e-9
# `_STIFFNESS`: share of the rows that hold a free bias where none lies in the kink.
_STIFFNESS = 1e-6
# `_DECREASE`: a step must lower the objective by this share of what its slope promises (Armijo's rule).
_DECREASE = 1e-4
# `_SHORTEST`: the line search gives up below this step length.
_SHORTEST = 1e-6
# `_PATIENCE`: stop after this many steps without progress.
_PATIENCE = 15
# `_SAMPLE_STEPS`: a sample is solved in at most so many passes over it.
_SAMPLE_STEPS = 30
# `_OUT_OF_REACH`: see `stages`.
_OUT_OF_REACH = 2.0


class _Sums(NamedTuple):
    """Sums over rows at a place: the loss, the smoothed one, the gap of the slopes but for stationarity, the pushes
    `(k, k)` of the rows of each label against each class, the same times `a_i` `(k, k, p)`, and the graph of Grams."""

    loss: Any
    smoothed: Any
    slack: Any
    flow: NDArray
    adjoints: NDArray
    graph: NDArray


class _Place(NamedTuple):
    """Where the search is: a point, and the width of the smoothing."""

    z: NDArray
    width: float


class _Evaluation(NamedTuple):
    """What one pass has found out at a place."""

    place: _Place
    sums: _Sums
    value: float
    direction: NDArray
    decrement: float


@dataclass
class Progress:
    """What has been reached, to be read by whoever interrupts: the best values with their places, steps and passes."""

    bar: Bar | None = None
    primal: float = np.inf
    dual: float = -np.inf
    of_primal: Any = None
    of_dual: Any = None
    steps: int = 0
    passes: int = 0

    def tick(self) -> None:
        """A block has been worked on."""
        if self.bar is not None:
            self.bar.tick()

    def note(self, primal: float, dual: float, place: _Place, factor: NDArray) -> None:
        """A step has been certified; the factors balance its dual point."""
        if primal < self.primal:
            self.primal, self.of_primal = primal, place
        if dual > self.dual:
            self.dual, self.of_dual = dual, (place, factor)
        self.steps += 1
        if self.bar is not None:
            self.bar.show(self.primal - self.dual, self.primal, self.steps)

    def within(self, tol: float) -> bool:
        """Whether the gap is small enough."""
        return self.primal - self.dual <= tol * max(self.primal, FLOOR)


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


def solve_stream(
    task: StreamedClasses, start: NDArray | None, limits: tuple[float, int, OnInterrupt], dtype: Any, bar: Bar
) -> Answer:
    """The answer in NumPy arrays; `start` `(k, p)` are parameters to begin at, in centred features."""
    tol, max_steps, on_interrupt = limits
    progress, interrupted = Progress(bar), False
    try:
        place = _Place(start, 0.1) if start is not None else _sampled(task, tol)
        _search(task, place, tol, max_steps, progress)
    except KeyboardInterrupt:
        if on_interrupt == "raise":
            raise
        interrupted = True
    answer = _certified(task, progress, dtype)
    gap, primal = float(answer.gap), float(answer.primal_value)
    status = Status.STEP_LIMIT if interrupted or progress.steps >= max_steps else Status.STALLED
    status = Status.CONVERGED if gap <= tol * max(primal, FLOOR) else status
    return answer._replace(steps=np.int32(progress.steps), status=np.int32(status))


def _sampled(task: StreamedClasses, tol: float) -> _Place:
    """Where to begin: at the solution of a sample, or at 0 where there are few rows."""
    sample, zeros = task.streamed.sample, np.zeros((len(task.present), len(task.frame.penalty)))
    if sample is None:
        return _Place(zeros, _FIRST_WIDTH)
    part, progress = replace(task, streamed=sample), Progress()
    _search(part, _Place(zeros, _FIRST_WIDTH), max(tol, 1e-4), _SAMPLE_STEPS, progress)
    found = progress.of_primal or _Place(zeros, _FIRST_WIDTH)
    # The choice of the sample moves all scores by about this much.
    return _Place(found.z, max(found.width, float(np.sqrt(zeros.size / sample.num_rows))))


def _search(task: StreamedClasses, place: _Place, tol: float, max_steps: int, progress: Progress) -> None:
    """Step until the certificate is within `tol`, the steps are made, or none makes progress."""
    found: _Evaluation | None = _evaluate(task, place, progress)
    idle, gap, least = 0, np.inf, np.inf
    while found and not progress.within(tol) and progress.steps < max_steps and np.isfinite(found.decrement):
        width = _next_width(found, tol * abs(progress.primal))
        if width < found.place.width:
            found = _evaluate(task, _Place(found.place.z + found.direction, width), progress)
            least, idle = np.inf, 0
            continue
        idle = 0 if found.decrement < least / 2 or progress.primal - progress.dual < 0.99 * gap else idle + 1
        least, gap = min(least, found.decrement), progress.primal - progress.dual
        found = None if idle == _PATIENCE else _search_line(task, found, tol, max_steps, progress)


def _next_width(found: _Evaluation, allowed: float) -> float:
    """Narrower where the gap of the minimiser would be too large, and the point is as near to it as that."""
    left, width = float(found.sums.slack), found.place.width
    if left <= 2 * _SHARE * allowed or found.decrement > left or width < _LEAST_WIDTH:
        return width
    return max(width * float(np.sqrt(_SHARE * allowed / left)), width / _NARROWER)


def _search_line(
    task: StreamedClasses, found: _Evaluation, tol: float, max_steps: int, progress: Progress
) -> _Evaluation | None:
    """The full step, or a shorter one where the objective does not fall enough: each try is a pass."""
    length, (z, width) = 1.0, found.place
    while length > _SHORTEST and progress.steps < max_steps:
        new = _evaluate(task, _Place(z + length * found.direction, width), progress)
        allowed = found.value - _DECREASE * length * found.decrement + 1e-14 * abs(found.value)
        if progress.within(tol) or new.value <= allowed:
            return new
        steepness = float(np.sum(_gradient(task.frame, new.place.z, new.sums) * found.direction))
        # The next length is where the slope, taken to be linear between the ends, would be 0.
        length *= float(np.clip(found.decrement / (found.decrement + steepness), 0.1, 0.7))
    return None


def _evaluate(task: StreamedClasses, place: _Place, progress: Progress) -> _Evaluation:
    """One pass."""
    frame, z = task.frame, place.z

    def kernel(_: int, block: Block) -> Any:
        return sliced(partial(_smoothed, task, place), block, None)

    state: Any = progress
    _, sums, _ = one_pass(task.streamed, kernel, state)
    norm = float(np.sum(frame.penalty[None, :] * z * z)) / 2
    factor = _balance(frame, sums.flow)
    progress.note(norm + float(sums.loss), _dual_value(frame, sums, factor), place, factor)
    gradient = _gradient(frame, z, sums)
    if frame.free_bias:
        # Where no row lies in the kink nothing holds the biases.
        sums.graph[:, -1, :, -1] += _STIFFNESS / place.width * (np.eye(len(z) - 1) - 1 / len(z))
    with np.errstate(all="ignore"):
        direction = canonical(frame, solve_reduced(factor_of(frame, sums.graph), -gradient))
    return _Evaluation(place, sums, norm + float(sums.smoothed), direction, float(-np.sum(gradient * direction)))


def _smoothed(task: StreamedClasses, place: _Place, block: Block, _: None) -> Any:
    """The sums of a slice."""
    program = task.program(block)
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


def _gradient(frame: Program, z: NDArray, sums: _Sums) -> NDArray:
    """Of the smoothed objective."""
    gradient: NDArray = frame.penalty[None, :] * z - _pulled(np.ones_like(sums.flow), sums.adjoints)
    return gradient


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


def _certified(task: StreamedClasses, progress: Progress, dtype: Any) -> Answer:
    """Rounded to the caller's dtype first, and the gap in float64 for exactly what is returned: two more passes."""
    frame, streamed, d = task.frame, task.streamed, len(task.centre)
    zeros = np.zeros((len(task.present), len(frame.penalty)))
    z = canonical(frame, progress.of_primal.z) if progress.of_primal else zeros
    at_zero = _value_at_zero(task)
    z = z if progress.primal <= at_zero else zeros
    rounded = _rounded(task, z, dtype)
    dual = np.zeros((streamed.num_rows, len(z)), dtype)
    flow, lowest = _write_dual(task, progress, rounded, dual)
    if frame.free_bias:
        absent = (lowest - _OUT_OF_REACH) * (task.present == 0)
        rounded = _rounded(task, z, dtype, absent)
    factor = _balance(frame, flow)
    sums = _final_sums(task, rounded, dual, factor, progress)
    norm = float(np.sum(frame.penalty[None, :] * rounded.shifted**2)) / 2
    primal = norm + float(sums.loss)
    if not np.isfinite(primal):
        raise ValueError("The objective overflows float64: scale the features down, or change l2.")
    gap = float(gap_of_sums(frame, rounded.shifted, sums, streamed.num_rows))
    if gap > primal:
        # No objective is negative, which is what a dual of 0 proves.
        dual[...], gap = 0, primal
    b = rounded.params[:, d] if rounded.params.shape[1] > d else np.zeros(len(z))
    bounds = rounded_down(np.float64(primal - gap), dtype), rounded_up(np.float64(gap), dtype)
    value, lower, gap = map(np.dtype(dtype).type, (primal, *bounds))
    w = rounded.params[:, :d].T.astype(dtype)
    return Answer(w, b.astype(dtype), dual, value, lower, gap, np.int32(0), np.int32(0))


def _value_at_zero(task: StreamedClasses) -> float:
    """The objective at 0, where every violation is 1."""
    if not task.config.summed:
        return 1.0
    return float((task.present.sum() if task.config.intercept == "free" else len(task.present)) - 1)


def _rounded(task: StreamedClasses, z: NDArray, dtype: Any, absent: Any = 0.0) -> _Rounded:
    d = len(task.centre)
    w = z[:, :d].astype(dtype).astype(np.float64)
    if z.shape[1] == d:
        return _Rounded(w, w)
    shift = w @ task.centre
    b = (z[:, d] - shift + absent).astype(dtype).astype(np.float64)
    return _Rounded(np.column_stack([w, b]), np.column_stack([w, b + shift]))


def _write_dual(task: StreamedClasses, progress: Progress, rounded: _Rounded, dual: NDArray) -> tuple[NDArray, float]:
    """Write the best dual point, and find the flows between classes that are left, and the lowest score of a label."""
    best, k = progress.of_dual, len(task.present)

    def kernel(index: int, block: Block) -> Any:
        def function(block: Block, rows: NDArray) -> Any:
            program = task.program(block)
            scores = program.scores(rounded.shifted)
            lowest = np.min(np.where(program.label > 0, scores, np.inf))
            push = np.zeros_like(program.label)
            if best is not None:
                place, factor = best
                fraction, _, _ = _slopes(program, violations(program, program.scores(place.z)), place.width)
                push = program.c[None, :] * fraction * (factor.T @ program.label)
            rows[...] = push.T
            return None, (program.label @ _bounded(program, rows).T,), -lowest

        return sliced(function, block, dual[task.streamed.rows_of(index)])

    state: Any = progress
    _, (flow,), largest = one_pass(task.streamed, kernel, state)
    return flow.reshape(k, k), -largest


def _bounded(program: Program, rows: NDArray) -> NDArray:
    """Pushes `(k, n)` as they were written `(n, k)`, within their bounds, which rounding may have broken."""
    push = rows.T.astype(np.float64)
    used = push if program.summed else push.sum(axis=0, keepdims=True)
    bounded: NDArray = push / np.maximum(used / program.c[None, :], 1)
    return bounded


def _final_sums(
    task: StreamedClasses, rounded: _Rounded, dual: NDArray, factor: NDArray, progress: Progress
) -> RowSums:
    """What the rows add to the gap of exactly what is returned."""

    def kernel(index: int, block: Block) -> Any:
        def function(block: Block, rows: NDArray) -> Any:
            program = task.program(block)
            push = _bounded(program, rows) * (factor.T @ program.label)
            scores = program.scores(rounded.shifted)
            return None, row_sums(program, rounded.shifted, scores, push, program.adjoint(push)), None

        return sliced(function, block, dual[task.streamed.rows_of(index)])

    state: Any = progress
    _, sums, _ = one_pass(task.streamed, kernel, state)
    found: RowSums = sums
    return found


@contextmanager
def watched(progress: bool | None, tol: float) -> Iterator[Bar]:
    """A bar that shows every pass, closed at the end; BLAS is held to one thread meanwhile."""
    bar = Bar(progress, tol)
    try:
        with one_blas_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            yield bar
    finally:
        bar.close()
