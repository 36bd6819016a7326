"""The exact solver for rows that do not fit in memory: read again in every pass, a block at a time.

Newton's method on a smoothed hinge comes first, started from the solution of rows drawn at random. Where that leads
nowhere the interior point takes over. What is kept is two float32 numbers for each row (seven with the interior point;
twice as many for a residual), its target, its weight where there are any, and the d x d system. The work is done on the
host, in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.interrupts import OnInterrupt
from jaxhinge._base.threads import one_blas_thread
from jaxhinge._methods.certificate import FLOOR
from jaxhinge._methods.coordinates import reflection
from jaxhinge._methods.problem import Answer, Config, Start
from jaxhinge._methods.streamed.blocks import pieces_of
from jaxhinge._methods.streamed.certified import Certified, Point, certified, value_at_zero
from jaxhinge._methods.streamed.interior_point import make_steps
from jaxhinge._methods.streamed.kernels import Coordinates, KernelConfig, Sides, in_box, targets_of
from jaxhinge._methods.streamed.newton import Iterate, newton_steps
from jaxhinge._methods.streamed.passes import Best, Stop, StreamedProblem, StreamState, ended, nothing, within
from jaxhinge._methods.streamed.progress import Bar
from jaxhinge._methods.streamed.rows import StreamedRows, first_pass

# `_COLD_PASSES`: from 0 Newton's method takes at most so many passes before the interior point is tried.
_COLD_PASSES = 30
# `_WARM_PASSES`: from a sample's solution it takes at most so many.
_WARM_PASSES = 15
# `_FIRST_WIDTH`: width of the smoothed kink at a cold start, in units of the margin.
_FIRST_WIDTH = 2.0
# `_LEAST_WIDTH`: at least so wide is the kink at the start from an earlier solution,
_LEAST_WIDTH = 0.02
# `_WIDTH_PER_GAP`: and so many times its relative gap.
_WIDTH_PER_GAP = 5.0
# `_SAMPLE_TOL`: smallest relative gap that the sample is solved to.
_SAMPLE_TOL = 1e-4
# `_FLOAT32_FLOOR`: complementarity, relative to the objective, below which float32 resolves no further progress.
_FLOAT32_FLOOR = 1e-7
# `_FLOAT32_GAP`: where the relative gap is smaller already, the float32 stage is left out.
_FLOAT32_GAP = 1e-4
# `_CLOSEST`: smallest initial barrier parameter of a warm start, relative to a cold one.
_CLOSEST = 1e-3
# `_BOUND_TOL`: the bound for given parameters is improved to this relative gap, or by so many steps.
_BOUND_TOL, _BOUND_STEPS = 1e-4, 100


class Source(NamedTuple):
    """Where the rows come from, and what their loss is: arrays `x`, `y` and weights, or blocks `x`; `sides` of a
    residual, or None for a classifier."""

    x: Any
    y: Any = None
    sample_weight: Any = None
    sides: Sides | None = None


class Limits(NamedTuple):
    """When a solve ends: at a relative gap, after so many steps, or at Ctrl-C, which may be heard as "return"."""

    tol: float
    max_steps: int
    on_interrupt: OnInterrupt = "raise"


class _Task(NamedTuple):
    """A problem with what is fixed about its solution: `dtype` is the caller's."""

    config: Config
    problem: StreamedProblem
    dtype: Any


class Stream:
    """Rows after a first pass, for any number of problems on them.

    Attributes:
      shape: Dual variables and features, `(n, d)`.
      dtype: What comes back in.
      interrupted: Whether Ctrl-C has ended a solve: later ones only certify where they would start.
    """

    def __init__(self, streamed: StreamedRows, sides: Sides | None, as_numpy: bool, bar: Bar) -> None:
        self._streamed, self._sides, self._bar = streamed, sides, bar
        self.shape = streamed.num_duals(streamed.num_rows), streamed.layout.num_features
        self.dtype = streamed.caller_dtype(as_numpy)
        self.interrupted = False

    def solve(self, config: Config, l2: float, start: Start, limits: Limits) -> Answer:
        """The answer in NumPy arrays."""
        task = self._task(config, l2)
        state, stop = StreamState(nothing(task.problem), self._bar), Stop(limits.tol, limits.max_steps)
        certify = partial(_certify, task, state)
        try:
            found = self._certified_start(task, start, state) if self.interrupted else None
            found = found or _search(task, stop, state, start, certify) or certify()
        except KeyboardInterrupt:
            if limits.on_interrupt == "raise":
                raise
            self.interrupted = True
            found = certify()
        answer = Answer(*found.point, found.primal, found.primal - found.gap, found.gap, state.steps, None)
        return ended(answer, state, stop, self.dtype, interrupted=self.interrupted)

    def gap(self, config: Config, l2: float, start: Start) -> float:
        """The objective at the parameters minus a dual value: that of a dual as it is, or of one that is solved for."""
        task = self._task(config, l2)
        state, alpha = StreamState(nothing(task.problem), self._bar), start.dual
        if alpha is None:
            _search(task, Stop(_BOUND_TOL, _BOUND_STEPS), state, start, lambda: None)
            alpha = _dual_of(task, state.best)
        # A bias that is not a part of the problem may be better than none.
        return max(certified(config, task.problem, Point(start.w, start.b, alpha), state).gap, 0.0)

    def _task(self, config: Config, l2: float) -> _Task:
        return _Task(config, _problem(config, self._streamed, self._sides, l2), self.dtype)

    def _certified_start(self, task: _Task, start: Start, state: StreamState) -> Certified:
        point = Point(*(leaf.astype(self.dtype) for leaf in (start.w, start.b, start.dual)))
        return certified(task.config, task.problem, point, state)


@contextmanager
def opened(source: Source, as_numpy: bool, progress: bool | None, tol: float) -> Iterator[Stream]:
    """The rows of a memory-mapped `x`, or of blocks, for binary problems and those of residuals."""
    with first_read(source, source.sides is not None, progress, tol) as (streamed, bar):
        yield Stream(streamed, source.sides, as_numpy, bar)


@contextmanager
def first_read(source: Source, real: bool, progress: bool | None, tol: float) -> Iterator[tuple[StreamedRows, Bar]]:
    """The rows after a first pass, and a bar that shows every pass and is closed at the end."""
    bar = Bar(progress, tol)
    try:
        with one_blas_thread():
            streamed = first_pass(pieces_of(source.x, source.y, source.sample_weight, real), bar.tick)
            bar.begin(streamed.num_blocks)
            # A value that overflows is never better than another, and is refused at the end.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                yield streamed, bar
    finally:
        bar.close()


def _problem(config: Config, streamed: StreamedRows, sides: Sides | None, l2: float) -> StreamedProblem:
    """The rows with what their blocks share: centred for a free bias, else turned to the direction of their mean."""
    d = streamed.layout.num_features
    # The centre is rounded to the precision in which it is subtracted from the features.
    centre = streamed.centre.astype(streamed.layout.dtype).astype(np.float64)
    centre = centre if config.intercept == "free" else np.zeros(d)
    direction, penalty = streamed.centre, np.full(d, l2)
    if config.intercept != "none":
        direction = np.append(direction, 1.0)
        penalty = np.append(penalty, l2 if config.intercept == "regularized" else 0.0)
    normal, scaled = reflection(direction)
    shift = 0.0
    if sides is not None and config.intercept == "free":
        shift = float(np.average(streamed.y, weights=streamed.weight))
    coordinates = Coordinates(centre, normal, scaled, *_sums(streamed, sides), sides, shift)
    at_zero, unit = value_at_zero(config, streamed, coordinates)
    return StreamedProblem(streamed, coordinates, penalty, unit, at_zero)


def _sums(streamed: StreamedRows, sides: Sides | None) -> tuple[float, float, float]:
    """The fields `total`, `stand_in` and `shares` of coordinates."""
    shares = 1 + (streamed.num_rows - streamed.num_counted) * streamed.stand_in / streamed.total
    return streamed.total, streamed.stand_in, shares * (1.0 if sides is None else sides.above + sides.below)


def _search(
    task: _Task, stop: Stop, state: StreamState, start: Start, certify: Callable[[], Certified | None]
) -> Certified | None:
    """Newton's method, then the interior point in float32 and in float64, until one is enough; certified in float64."""
    config, problem, _ = task
    z, warm = np.zeros_like(problem.penalty), bool(start.warm)
    if warm:
        z = _given(task, start, state)
        if state.is_over(stop):
            return None
    found: Certified | None = None
    iterate, passes = _first_iterate(task, z, warm, stop, state)
    if passes:
        newton_steps(config, problem, iterate, stop, passes, state)
        found = certify()
        if state.is_over(stop) or config.method == "newton":
            return found
    for dtype, from_best in ((np.float32, warm), (np.float64, True), (np.float64, False)):
        kernel_config = KernelConfig(config.squared, config.intercept, dtype)
        values = state.best.values
        reached = values.gap / max(abs(values.primal), FLOOR)
        if dtype == np.float32 and reached < _FLOAT32_GAP:
            continue
        closeness = min(max(reached, _CLOSEST), 1.0) if from_best else 1.0
        place = state.best.z if from_best else np.zeros_like(z)
        floor = _FLOAT32_FLOOR if dtype == np.float32 else 0.0
        make_steps(problem, kernel_config, place, closeness * problem.unit, floor, stop, state)
        # Where the gap is small enough in float64 but not after rounding to the caller's dtype, more steps do not help.
        enough = dtype == np.float64 and state.is_over(stop)
        found = certify()
        if enough or state.is_over(stop):
            break
    return found


def _first_iterate(task: _Task, z: NDArray, warm: bool, stop: Stop, state: StreamState) -> tuple[Iterate, int]:
    """Where Newton's method begins, and how many passes it has: none where it is not to begin."""
    config, problem, _ = task
    width = _FIRST_WIDTH
    if config.method == "interior_point":
        return Iterate(z, width * problem.unit), 0
    if warm:
        values = state.best.values
        width = min(max(_WIDTH_PER_GAP * values.gap / max(abs(values.primal), FLOOR), _LEAST_WIDTH), _FIRST_WIDTH)
        return Iterate(z, width * problem.unit), _COLD_PASSES
    if problem.streamed.sample is None:
        return Iterate(z, width * problem.unit), _COLD_PASSES
    iterate, easy = _sampled(task, stop)
    return iterate, _WARM_PASSES if easy or config.method == "newton" else 0


def _sampled(task: _Task, stop: Stop) -> tuple[Iterate, bool]:
    """The solution of a sample of the rows, and whether Newton's method found it easily."""
    config, problem, _ = task
    sample, unit = problem.streamed.sample, problem.unit
    assert sample is not None
    total, stand_in, shares = _sums(sample, problem.coordinates.sides)
    coordinates = problem.coordinates._replace(total=total, stand_in=stand_in, shares=shares)
    at_zero, _ = value_at_zero(config, sample, coordinates)
    part = problem._replace(streamed=sample, coordinates=coordinates, at_zero=at_zero)
    state = StreamState(nothing(part))
    coarse = Stop(max(stop.tol, _SAMPLE_TOL), _COLD_PASSES)
    first = Iterate(np.zeros_like(problem.penalty), _FIRST_WIDTH * unit)
    iterate = newton_steps(config, part, first, coarse, _COLD_PASSES, state)
    # The choice of the sample moves all scores by about this much.
    width = max(iterate.width, unit * float(np.sqrt(len(iterate.z) / sample.num_rows)))
    return Iterate(state.best.z, width), within(state.best.values, coarse.tol)


def _given(task: _Task, start: Start, state: StreamState) -> NDArray:
    """What a start is worth, found in one pass and kept; and its place in the coordinates of the work."""
    config, problem, _ = task
    coordinates, streamed = problem.coordinates, problem.streamed
    z = np.asarray(start.w, np.float64)
    if config.intercept != "none":
        z = np.append(z, start.b + z @ coordinates.centre - coordinates.shift)
    if config.intercept != "free":
        z = z - (coordinates.scaled @ z) * coordinates.normal
    b = np.float64(0) if config.intercept == "none" else start.b
    found = certified(config, problem, Point(start.w, b, start.dual), state)
    alpha = None
    if start.dual is not None:
        alpha = [_in_box(task, start.dual, block) for block in range(streamed.num_blocks)]
    lower, values = found.primal - found.gap, state.best.values
    if found.primal < values.primal:
        state.best = state.best._replace(z=z, values=state.best.values._replace(primal=found.primal))
    if lower > values.dual and alpha is not None:
        kept = state.best.values._replace(dual=lower, ratio=found.ratio)
        state.best = state.best._replace(alpha=alpha, values=kept)
    return z


def _in_box(task: _Task, dual: NDArray, block: int) -> NDArray:
    """The dual variables of a block, which may be those of a problem with other weights."""
    streamed = task.problem.streamed
    _, _, c = targets_of(task.problem.coordinates, *streamed.targets_of(block))
    return in_box(task.config.squared, streamed.pieces.real, c, dual[streamed.duals_of(block)])


def _certify(task: _Task, state: StreamState) -> Certified:
    """Rounded to the caller's dtype first, and both values in float64 for exactly what is returned: one more pass."""
    config, problem, dtype = task
    found = certified(config, problem, _rounded(task, state.best), state)
    point, primal, gap = found.point, found.primal, found.gap
    # Where rounding has spoilt a point, 0 is better; its objective follows from the targets alone.
    b = np.asarray(0 if config.intercept == "none" else problem.coordinates.shift, dtype)
    at_zero, _ = value_at_zero(config, problem.streamed, problem.coordinates._replace(shift=float(b)))
    if primal > at_zero:
        point, gap, primal = point._replace(w=np.zeros_like(point.w), b=b), gap - (primal - at_zero), at_zero
    if gap > primal:
        point, gap = point._replace(dual=np.zeros_like(point.dual)), primal
    # The values that lower precision believed are replaced by those of float64.
    values = state.best.values._replace(primal=primal, dual=primal - gap)
    state.best = state.best._replace(values=values)
    return found._replace(point=point, primal=primal, gap=max(gap, 0.0))


def _rounded(task: _Task, best: Best) -> Point:
    """The best parameters and dual in the caller's dtype."""
    config, problem, dtype = task
    streamed, coordinates = problem.streamed, problem.coordinates
    d = streamed.layout.num_features
    z = best.z if config.intercept == "free" else best.z - (coordinates.scaled @ best.z) * coordinates.normal
    w = z[:d].astype(dtype)
    b = np.zeros((), dtype)
    if config.intercept != "none":
        b = np.asarray(z[d] - w.astype(np.float64) @ coordinates.centre + coordinates.shift, dtype)
    return Point(w, b, _dual_of(task, best))


def _dual_of(task: _Task, best: Best) -> NDArray:
    """The best dual, balanced, in the caller's dtype."""
    streamed = task.problem.streamed
    dual = np.zeros(streamed.num_duals(streamed.num_rows), task.dtype)
    for block, alpha in enumerate(best.alpha or []):
        y, weight = streamed.targets_of(block)
        heavy = np.tile([True, False], len(y)) if streamed.pieces.real else y > 0
        balanced = np.where(heavy, *best.values.ratio) * alpha
        if weight is not None:
            balanced[np.repeat(weight == 0, streamed.num_duals(1))] = 0
        dual[streamed.duals_of(block)] = balanced
        # It is kept in float32, which may have rounded it beyond a bound.
        dual[streamed.duals_of(block)] = _in_box(task, dual, block)
    return dual
