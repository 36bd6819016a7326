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

import jax.numpy as jnp
import numpy as np

from jaxhinge import _stream_kernels as kernels
from jaxhinge._precision import eps
from jaxhinge._rows import Config
from jaxhinge._stream_kernels import Block, Kind
from jaxhinge._stream_passes import Journal, Problem, Stop, one_pass, values_of
from jaxhinge._stream_rows import NDArray

# Of the allowed gap, what smoothing may take; and the widths from one step to the next.
_SHARE = 0.25
_NARROWER = 8.0
# Below this width, and for gaps below this, float32 does not tell the sides of the kink well enough.
_FINE_WIDTH = 2e-3
_FINE_GAP = 1e-3
_FINE_TOL = 1e-5
_DECREASE = 1e-4
_SHORTEST = 1e-3
# After so many steps that gained nothing only rounding is left.
_PATIENCE = 3


class Place(NamedTuple):
    """Where the search is: a point, and the width of the smoothing."""

    z: NDArray
    width: float


class _Seen(NamedTuple):
    """What one pass has found out at a place: the objective, the Newton direction, how fast the objective falls along
    it, and the relative rounding of all this."""

    place: Place
    sums: Any
    value: float
    direction: NDArray
    decrement: float
    rounding: float


def descend(config: Config, problem: Problem, place: Place, stop: Stop, num_passes: int, journal: Journal) -> Place:
    """Step until the certificate is within `tol`, or so many passes are made, or no step makes progress."""
    last = journal.passes + num_passes
    seen = _look(config, problem, place, stop, journal)
    idle, least, gap = 0, np.inf, np.inf
    while not journal.is_over(stop) and journal.passes < last and np.isfinite(seen.decrement):
        width = _next_width(config, seen, stop.tol * abs(journal.best.values.primal))
        if width < seen.place.width:
            ahead = Place(seen.place.z + seen.direction, width)
            seen, idle, least = _look(config, problem, ahead, stop, journal), 0, np.inf
            continue
        idle = 0 if seen.decrement < least / 2 or journal.best.values.gap < 0.99 * gap else idle + 1
        least, gap = min(least, seen.decrement), journal.best.values.gap
        found = None if idle == _PATIENCE else _search_line(config, problem, seen, stop, journal)
        if found is None:
            break
        seen = found
    return seen.place


def _look(config: Config, problem: Problem, place: Place, stop: Stop, journal: Journal) -> _Seen:
    """One pass."""
    table, frame, penalty = problem
    kind = Kind(config.squared, config.intercept, _precision(place, stop, journal))

    def look(_: int, block: Block) -> Any:
        return kernels.smoothed(kind, frame, block, place.z, np.float64(place.width))

    alpha, sums, _ = one_pass(table, look, journal)
    journal.certify(place.z, alpha, values_of(kind, penalty, place.z, sums.certificate))
    value, direction, decrement = kernels.newton_step(kind, penalty, place.z, sums)
    return _Seen(place, sums, float(value), np.asarray(direction), float(decrement), 8 * eps(kind.dtype))


def _precision(place: Place, stop: Stop, journal: Journal) -> Any:
    values = journal.best.values
    near = values.gap < _FINE_GAP * abs(values.primal) or place.width < _FINE_WIDTH
    return jnp.float64 if stop.tol < _FINE_TOL and near else jnp.float32


def _next_width(config: Config, seen: _Seen, allowed: float) -> float:
    """Narrower where the gap of the minimiser would be too large, and the point is as near to it as that."""
    sums, width = seen.sums, seen.place.width
    left = float(sums.slack - (sums.loss - sums.certificate.loss))
    if config.squared or left <= 2 * _SHARE * allowed or seen.decrement > left:
        return width
    return max(width * float(np.sqrt(_SHARE * allowed / left)), width / _NARROWER)


def _search_line(config: Config, problem: Problem, seen: _Seen, stop: Stop, journal: Journal) -> _Seen | None:
    """The full step, or a shorter one where the objective does not fall enough: each try is a pass."""
    z, width = seen.place
    length = 1.0
    while length > _SHORTEST:
        new = _look(config, problem, Place(z + length * seen.direction, width), stop, journal)
        # Beyond the rounding of the values there is nothing to be compared.
        allowed = seen.value - _DECREASE * length * seen.decrement + new.rounding * abs(seen.value)
        if journal.is_over(stop) or new.value <= allowed:
            return new
        slope = float(kernels.slope(None, problem.penalty, new.place.z, new.sums, seen.direction))
        # Where the slope, taken to be linear between the two ends, is 0.
        length *= float(np.clip(seen.decrement / (seen.decrement + slope), 0.1, 0.7))
    return None
