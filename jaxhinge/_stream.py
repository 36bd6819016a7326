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

from jaxhinge import _checks, _host_checks
from jaxhinge import _stream_kernels as kernels
from jaxhinge._certificate import FLOOR
from jaxhinge._problem import host_l2
from jaxhinge._rows import Answer, Config, Status
from jaxhinge._stream_bar import Bar
from jaxhinge._stream_interior import make_steps
from jaxhinge._stream_kernels import Block, Frame, Kind
from jaxhinge._stream_newton import Place, descend
from jaxhinge._stream_passes import Journal, Problem, Stop, Values, nothing, one_pass, values_of, within
from jaxhinge._stream_rows import NDArray, pieces_of
from jaxhinge._stream_table import Table, survey
from jaxhinge._waiting import OnInterrupt

# Newton's method takes so many passes at most before the interior point is tried: from 0, and from a sample's solution.
_COLD_PASSES = 30
_WARM_PASSES = 15
_FIRST_WIDTH = 2.0
_SAMPLE_TOL = 1e-4
# Complementarity, of the objective, below which float32 holds nothing more; and a start is not taken for nearer to the
# end of the central path than this.
_QUICK_FLOOR = 1e-7
_QUICK_GAP = 1e-4
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
        table = survey(pieces_of(x, y, sample_weight), bar.tick)
        bar.begin(table.num_blocks)
        dtype = np.dtype(np.float64) if options.as_numpy else jax.dtypes.canonicalize_dtype(table.layout.dtype)
        # What overflows is told by its value: it is never better than anything, and refused at the end.
        with np.errstate(over="ignore", invalid="ignore"):
            problem = _problem(config, table, strength)
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
        _checks.flag("progress", options.progress)
    given = _host_checks.host_array("max_steps", options.max_steps)
    return Stop(
        _host_checks.check_number("tol", options.tol, meaning="a number, at least 0", valid=lambda v: v >= 0),
        _host_checks.host_integer("max_steps", given.item() if given.shape == () else given, at_least=1),
    )


def _problem(config: Config, table: Table, l2: float) -> Problem:
    """The rows with what their blocks share: centred for a free bias, else turned to the direction of their mean."""
    d = table.layout.num_features
    # In the precision in which it is taken from the features.
    centre = table.centre.astype(table.layout.dtype).astype(np.float64)
    centre = centre if config.intercept == "free" else np.zeros(d)
    direction, penalty = table.centre, np.full(d, l2)
    if config.intercept != "none":
        direction = np.append(direction, 1.0)
        penalty = np.append(penalty, l2 if config.intercept == "regularized" else 0.0)
    # Householder's reflection, that takes the direction to the first coordinate.
    direction = direction / max(np.abs(direction).max(), np.finfo(np.float64).tiny)
    normal = direction / max(np.linalg.norm(direction), np.finfo(np.float64).tiny)
    normal[0] += -1 if normal[0] < 0 else 1
    frame = Frame(centre, normal, 2 * normal / (normal @ normal), *_sums(table))
    return Problem(table, frame, penalty)


def _sums(table: Table) -> tuple[np.float64, np.float64, np.float64]:
    """The last three fields of a frame."""
    shares = 1 + (len(table.sign) - table.num_counted) * table.stand_in / table.total
    return np.float64(table.total), np.float64(table.stand_in), np.float64(shares)


def _solve(
    config: Config, problem: Problem, stop: Stop, dtype: Any, bar: Bar, on_interrupt: OnInterrupt
) -> tuple[_Certified, Status, int]:
    """What was found, what to call it where it is not within `tol`, and the number of steps."""
    journal = Journal(nothing(problem), bar)
    certify = partial(_certify, config, problem, dtype, journal)
    try:
        certified = _search(config, problem, stop, journal, certify)
    except KeyboardInterrupt:
        if on_interrupt == "raise":
            raise
        return certify(), Status.STEP_LIMIT, journal.steps
    return certified, Status.STEP_LIMIT if journal.steps >= stop.max_steps else Status.STALLED, journal.steps


def _search(
    config: Config, problem: Problem, stop: Stop, journal: Journal, certify: Callable[[], _Certified]
) -> _Certified:
    """Newton's method, then the interior point in float32 and in float64, until one is enough; certified in float64."""
    z, width = np.zeros_like(problem.penalty), _FIRST_WIDTH
    easy, passes = config.method == "auto", _COLD_PASSES
    if easy and problem.table.sample is not None:
        place, easy = _sampled(config, problem, stop)
        z, width, passes = place.z, place.width, _WARM_PASSES
    if easy:
        descend(config, problem, Place(z, width), stop, passes, journal)
        certified = certify()
        if journal.is_over(stop):
            return certified
    for dtype, warm in ((jnp.float32, False), (jnp.float64, True), (jnp.float64, False)):
        kind = Kind(config.squared, config.intercept, dtype)
        values = journal.best.values
        reached = values.gap / max(abs(values.primal), FLOOR)
        if dtype == jnp.float32 and reached < _QUICK_GAP:
            continue
        closeness = min(max(reached, _CLOSEST), 1.0) if warm else 1.0
        start = journal.best.z if warm else np.zeros_like(z)
        make_steps(problem, kind, start, closeness, _QUICK_FLOOR if dtype == jnp.float32 else 0.0, stop, journal)
        # Where float64 is enough for the gap, but not after rounding to the caller's dtype, there is no more to be had.
        enough = dtype == jnp.float64 and journal.is_over(stop)
        certified = certify()
        if enough or journal.is_over(stop):
            break
    return certified


def _sampled(config: Config, problem: Problem, stop: Stop) -> tuple[Place, bool]:
    """The solution of a sample of the rows, and whether Newton's method found it easily."""
    sample = problem.table.sample
    assert sample is not None
    frame = Frame(*problem.frame[:3], *_sums(sample))
    part = problem._replace(table=sample, frame=frame)
    journal = Journal(nothing(part))
    coarse = Stop(max(stop.tol, _SAMPLE_TOL), _COLD_PASSES)
    place = descend(config, part, Place(np.zeros_like(problem.penalty), _FIRST_WIDTH), coarse, _COLD_PASSES, journal)
    # All scores are off by about this much for the choice of the sample.
    width = max(place.width, float(np.sqrt(len(place.z) / sample.num_rows)))
    return Place(journal.best.z, width), within(journal.best.values, coarse.tol)


def _certify(config: Config, problem: Problem, dtype: Any, journal: Journal) -> _Certified:
    """Rounded to the caller's dtype first, and both values in float64 for exactly what is returned: one more pass."""
    table, frame, penalty = problem
    size = table.layout.size
    w, b, dual = _rounded(config, problem, dtype, journal)
    kind = Kind(config.squared, config.intercept, jnp.float64)

    def certify(index: int, block: Block) -> Any:
        return kernels.certified(kind, frame, block, w, b, dual[index * size : (index + 1) * size])

    _, sums, _ = one_pass(table, certify, journal)
    point = w.astype(np.float64)
    if config.intercept != "none":
        # The last coordinate of every row is 1.
        point = np.append(point, float(b))
        sums = sums._replace(adjoint=np.column_stack([sums.adjoint, sums.sides * [1, -1]]))
    values = values_of(kind, penalty, point, sums)
    if not np.isfinite(values.primal):
        raise ValueError("The objective overflows float64: scale the features down, or change l2.")
    # What rounding has spoilt is not taken: parameters of 0 have a value of 1, and a dual of 0 one of 0.
    if values.primal > 1:
        w, b, values = np.zeros_like(w), np.zeros_like(b), values._replace(primal=1.0)
    if not values.dual >= 0:
        dual, values = np.zeros_like(dual), values._replace(dual=0.0)
    # Nor is what lower precision believed of them.
    journal.best = journal.best._replace(values=journal.best.values._replace(primal=values.primal, dual=values.dual))
    return _Certified(w, b, dual[: table.num_rows], values)


def _rounded(config: Config, problem: Problem, dtype: Any, journal: Journal) -> tuple[NDArray, NDArray, NDArray]:
    """The best parameters and dual in the caller's dtype."""
    (table, frame, _), best = problem, journal.best
    d, size = table.layout.num_features, table.layout.size
    z = best.z if config.intercept == "free" else best.z - (frame.scaled @ best.z) * frame.normal
    w = z[:d].astype(dtype)
    b = np.asarray(0 if config.intercept == "none" else z[d] - w.astype(np.float64) @ frame.centre, dtype)
    dual = np.zeros(len(table.sign), dtype)
    for index, alpha in enumerate(best.alpha or []):
        rows = slice(index * size, (index + 1) * size)
        dual[rows] = np.where(table.sign[rows] > 0, *best.values.ratio) * np.asarray(alpha)
    if table.weight is not None:
        dual[table.weight == 0] = 0
    return w, b, dual
