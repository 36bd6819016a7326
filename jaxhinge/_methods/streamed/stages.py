"""The exact solver for rows that do not fit in memory: read again in every pass, a block at a time.

Newton's method on a smoothed hinge comes first, started from the solution of rows drawn at random. Where that leads
nowhere the interior point takes over. What is kept is two float32 numbers for each row (seven with the interior point),
its target (one byte), its weight where there are any, and the d x d system.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import NDArray, flag
from jaxhinge._base.interrupts import OnInterrupt
from jaxhinge._base.options import host_l2
from jaxhinge._base.values import check_number, host_array, host_integer
from jaxhinge._methods.certificate import FLOOR
from jaxhinge._methods.problem import Answer, Config, Status
from jaxhinge._methods.streamed.blocks import pieces_of
from jaxhinge._methods.streamed.interior_point import make_steps
from jaxhinge._methods.streamed.kernels import Block, Coordinates, KernelConfig, certified_sums
from jaxhinge._methods.streamed.newton import Iterate, newton_steps
from jaxhinge._methods.streamed.passes import (
    Stop,
    StreamedProblem,
    StreamState,
    Values,
    nothing,
    one_pass,
    values_of,
    within,
)
from jaxhinge._methods.streamed.progress import Bar
from jaxhinge._methods.streamed.rows import StreamedRows, first_pass

# `_COLD_PASSES`: from 0 Newton's method takes at most so many passes before the interior point is tried.
_COLD_PASSES = 30
# `_WARM_PASSES`: from a sample's solution it takes at most so many.
_WARM_PASSES = 15
# `_FIRST_WIDTH`: width of the smoothed kink at a cold start, in units of the margin.
_FIRST_WIDTH = 2.0
# `_SAMPLE_TOL`: smallest relative gap that the sample is solved to.
_SAMPLE_TOL = 1e-4
# `_FLOAT32_FLOOR`: complementarity, relative to the objective, below which float32 resolves no further progress.
_FLOAT32_FLOOR = 1e-7
# `_FLOAT32_GAP`: where the relative gap is smaller already, the float32 stage is left out.
_FLOAT32_GAP = 1e-4
# `_CLOSEST`: smallest initial barrier parameter of a warm start, relative to a cold one.
_CLOSEST = 1e-3


class StreamOptions(NamedTuple):
    """Those of `solve` that are not part of its problem."""

    tol: Any
    max_steps: Any
    as_numpy: bool
    progress: bool | None
    on_interrupt: OnInterrupt


class _Certified(NamedTuple):
    """What is returned: parameters and dual in the caller's dtype, and their values."""

    w: NDArray
    b: NDArray
    dual: NDArray
    values: Values


def solve_stream(config: Config, x: Any, y: Any, l2: Any, sample_weight: Any, options: StreamOptions) -> Answer:
    """The answer for a memory-mapped `x`, or for blocks (`y` is None), in NumPy arrays."""
    stop, strength = _stop_of(options), host_l2(l2)
    bar = Bar(options.progress, stop.tol)
    try:
        streamed = first_pass(pieces_of(x, y, sample_weight), bar.tick)
        bar.begin(streamed.num_blocks)
        dtype = np.dtype(np.float64) if options.as_numpy else jax.dtypes.canonicalize_dtype(streamed.layout.dtype)
        # A value that overflows is never better than another, and is refused at the end.
        with np.errstate(over="ignore", invalid="ignore"):
            problem = _problem(config, streamed, strength)
            certified, otherwise, steps = _solve(config, problem, stop, dtype, bar, options.on_interrupt)
    finally:
        bar.close()
    w, b, dual, values = certified
    status = Status.CONVERGED if within(values, stop.tol) else otherwise
    primal, lower, gap = (dtype.type(value) for value in (values.primal, values.dual, values.gap))
    return Answer(w, b, dual, primal, lower, gap, np.int32(steps), np.int32(status))


def _stop_of(options: StreamOptions) -> Stop:
    """When to stop, all options checked."""
    if options.progress is not None:
        flag("progress", options.progress)
    given = host_array("max_steps", options.max_steps)
    return Stop(
        check_number("tol", options.tol, meaning="a number, at least 0", valid=lambda v: v >= 0),
        host_integer("max_steps", given.item() if given.shape == () else given, at_least=1),
    )


def _problem(config: Config, streamed: StreamedRows, l2: float) -> StreamedProblem:
    """The rows with what their blocks share: centred for a free bias, else turned to the direction of their mean."""
    d = streamed.layout.num_features
    # The centre is rounded to the precision in which it is subtracted from the features.
    centre = streamed.centre.astype(streamed.layout.dtype).astype(np.float64)
    centre = centre if config.intercept == "free" else np.zeros(d)
    direction, penalty = streamed.centre, np.full(d, l2)
    if config.intercept != "none":
        direction = np.append(direction, 1.0)
        penalty = np.append(penalty, l2 if config.intercept == "regularized" else 0.0)
    # Householder's reflection, that takes the direction to the first coordinate.
    direction = direction / max(np.abs(direction).max(), np.finfo(np.float64).tiny)
    normal = direction / max(np.linalg.norm(direction), np.finfo(np.float64).tiny)
    normal[0] += -1 if normal[0] < 0 else 1
    coordinates = Coordinates(centre, normal, 2 * normal / (normal @ normal), *_sums(streamed))
    return StreamedProblem(streamed, coordinates, penalty)


def _sums(streamed: StreamedRows) -> tuple[np.float64, np.float64, np.float64]:
    """The last three fields of a frame."""
    shares = 1 + (len(streamed.sign) - streamed.num_counted) * streamed.stand_in / streamed.total
    return np.float64(streamed.total), np.float64(streamed.stand_in), np.float64(shares)


def _solve(
    config: Config, problem: StreamedProblem, stop: Stop, dtype: Any, bar: Bar, on_interrupt: OnInterrupt
) -> tuple[_Certified, Status, int]:
    """What was found, what to call it where it is not within `tol`, and the number of steps."""
    state = StreamState(nothing(problem), bar)
    certify = partial(_certify, config, problem, dtype, state)
    try:
        certified = _search(config, problem, stop, state, certify)
    except KeyboardInterrupt:
        if on_interrupt == "raise":
            raise
        return certify(), Status.STEP_LIMIT, state.steps
    return certified, Status.STEP_LIMIT if state.steps >= stop.max_steps else Status.STALLED, state.steps


def _search(
    config: Config, problem: StreamedProblem, stop: Stop, state: StreamState, certify: Callable[[], _Certified]
) -> _Certified:
    """Newton's method, then the interior point in float32 and in float64, until one is enough; certified in float64."""
    z, width = np.zeros_like(problem.penalty), _FIRST_WIDTH
    easy, passes = config.method == "auto", _COLD_PASSES
    if easy and problem.streamed.sample is not None:
        iterate, easy = _sampled(config, problem, stop)
        z, width, passes = iterate.z, iterate.width, _WARM_PASSES
    if easy:
        newton_steps(config, problem, Iterate(z, width), stop, passes, state)
        certified = certify()
        if state.is_over(stop):
            return certified
    for dtype, warm in ((jnp.float32, False), (jnp.float64, True), (jnp.float64, False)):
        kernel_config = KernelConfig(config.squared, config.intercept, dtype)
        values = state.best.values
        reached = values.gap / max(abs(values.primal), FLOOR)
        if dtype == jnp.float32 and reached < _FLOAT32_GAP:
            continue
        closeness = min(max(reached, _CLOSEST), 1.0) if warm else 1.0
        start = state.best.z if warm else np.zeros_like(z)
        make_steps(
            problem, kernel_config, start, closeness, _FLOAT32_FLOOR if dtype == jnp.float32 else 0.0, stop, state
        )
        # Where the gap is small enough in float64 but not after rounding to the caller's dtype, more steps do not help.
        enough = dtype == jnp.float64 and state.is_over(stop)
        certified = certify()
        if enough or state.is_over(stop):
            break
    return certified


def _sampled(config: Config, problem: StreamedProblem, stop: Stop) -> tuple[Iterate, bool]:
    """The solution of a sample of the rows, and whether Newton's method found it easily."""
    sample = problem.streamed.sample
    assert sample is not None
    coordinates = Coordinates(*problem.coordinates[:3], *_sums(sample))
    part = problem._replace(streamed=sample, coordinates=coordinates)
    state = StreamState(nothing(part))
    coarse = Stop(max(stop.tol, _SAMPLE_TOL), _COLD_PASSES)
    iterate = newton_steps(
        config, part, Iterate(np.zeros_like(problem.penalty), _FIRST_WIDTH), coarse, _COLD_PASSES, state
    )
    # The choice of the sample moves all scores by about this much.
    width = max(iterate.width, float(np.sqrt(len(iterate.z) / sample.num_rows)))
    return Iterate(state.best.z, width), within(state.best.values, coarse.tol)


def _certify(config: Config, problem: StreamedProblem, dtype: Any, state: StreamState) -> _Certified:
    """Rounded to the caller's dtype first, and both values in float64 for exactly what is returned: one more pass."""
    streamed, coordinates, penalty = problem
    size = streamed.layout.size
    w, b, dual = _rounded(config, problem, dtype, state)
    kernel_config = KernelConfig(config.squared, config.intercept, jnp.float64)

    def certify(index: int, block: Block) -> Any:
        return certified_sums(kernel_config, coordinates, block, w, b, dual[index * size : (index + 1) * size])

    _, sums, _ = one_pass(streamed, certify, state)
    point = w.astype(np.float64)
    if config.intercept != "none":
        # The last coordinate of every row is 1.
        point = np.append(point, float(b))
        sums = sums._replace(adjoint=np.column_stack([sums.adjoint, sums.sides * [1, -1]]))
    values = values_of(kernel_config, penalty, point, sums)
    if not np.isfinite(values.primal):
        raise ValueError("The objective overflows float64: scale the features down, or change l2.")
    # Where rounding has spoilt a point, 0 is better: parameters of 0 have a value of 1, a dual of 0 one of 0.
    if values.primal > 1:
        w, b, values = np.zeros_like(w), np.zeros_like(b), values._replace(primal=1.0)
    if not values.dual >= 0:
        dual, values = np.zeros_like(dual), values._replace(dual=0.0)
    # The values that lower precision believed are replaced by those of float64.
    state.best = state.best._replace(values=state.best.values._replace(primal=values.primal, dual=values.dual))
    return _Certified(w, b, dual[: streamed.num_rows], values)


def _rounded(
    config: Config, problem: StreamedProblem, dtype: Any, state: StreamState
) -> tuple[NDArray, NDArray, NDArray]:
    """The best parameters and dual in the caller's dtype."""
    (streamed, coordinates, _), best = problem, state.best
    d, size = streamed.layout.num_features, streamed.layout.size
    z = best.z if config.intercept == "free" else best.z - (coordinates.scaled @ best.z) * coordinates.normal
    w = z[:d].astype(dtype)
    b = np.asarray(0 if config.intercept == "none" else z[d] - w.astype(np.float64) @ coordinates.centre, dtype)
    dual = np.zeros(len(streamed.sign), dtype)
    for index, alpha in enumerate(best.alpha or []):
        rows = slice(index * size, (index + 1) * size)
        dual[rows] = np.where(streamed.sign[rows] > 0, *best.values.ratio) * np.asarray(alpha)
    if streamed.weight is not None:
        dual[streamed.weight == 0] = 0
    return w, b, dual
