"""Fits: how large each part of a gradient is, where it has the right parts in the wrong sizes.

Over the probe points off every kink the parts are known vectors, so that their sizes are a linear fit:

    dw = a * data_w + c * w,    db = e * data_b + h * b,

with `a`, `c` and `e` constant or proportional to `n` or `1/n`. An exact fit is a cause; the report shows its sizes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np

from jaxhinge._diagnose._alterations import Alteration
from jaxhinge._diagnose._evidence import Evidence, Reading, read_point
from jaxhinge._diagnose._gradients import gradient_sets
from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import PRECISIONS, Factors, Part, Recipe
from jaxhinge._diagnose._sizes import named_sizes, rounded

# The simplest first: where all points have as many rows, the powers of `n` cannot be told apart.
_POWERS = (0, 1, -1)
_MOST_POINTS = 12
# Coordinates that the test of one point looks at.
_ENOUGH = 512
# Features that the test of a core looks at.
_FEATURES = 24
# Parts that a fit replaces; a recipe that changes them is not fitted.
_OF_SIZE = {
    "divisor", "shrinkage", "bias_shrinkage", "bias", "whole_sign", "shrinkage_rows", "direction", "weights",
}  # fmt: skip


@dataclass(frozen=True)
class _Known:
    """The parts at one point, and what was returned there."""

    point: Point
    data: Array
    gradient: Array


def fits(
    core: Alteration,
    evidence: list[Evidence],
    own: Point,
    objective: Objective,
    reading: Reading,
    precisions: Iterable[str],
) -> Alteration | None:
    """The sizes with which this mistake explains the points off its kinks, with the causes that they stand for."""
    altered = {part for part, value in core.changes.items() if value != "own"}
    if altered & _OF_SIZE or altered == {"data_sign"}:
        return None
    known = _known_parts(core, evidence, own, objective, reading)
    if len(known) < 2 or not any(np.any(one.data) for one in known):
        return None
    found = (_fitted(core, known, own, objective, PRECISIONS[precision]) for precision in precisions)
    return next((one for one in found if one is not None), None)


def _fitted(core: Alteration, known: list[_Known], own: Point, objective: Objective, unit: float) -> Alteration | None:
    """The sizes to this rounding."""
    count = own.w.size
    weights = _best(known, slice(0, count), [one.point.w.ravel() for one in known], unit)
    if weights is None:
        return None
    (data, shrinkage), bias, own_bias = weights, weights[0], 0.0
    if objective.intercept != "none":
        fitted = _best(known, slice(count, None), [one.point.b.ravel() for one in known], unit)
        if fitted is None or fitted[1].power:
            return None
        bias, own_bias = fitted[0], fitted[1].factor
    factors = rounded(Factors(data, bias, shrinkage, own_bias), own, objective, unit)
    causes = named_sizes(factors, own, objective, unit)
    if causes is None or set(causes) & set(core.causes):
        return None
    changes = {**core.changes, "factors": factors, "strength": factors.shrinkage.factor}
    return Alteration(tuple(sorted({*core.causes, *causes})), changes)


def _known_parts(
    core: Alteration, evidence: list[Evidence], own: Point, objective: Objective, reading: Reading
) -> list[_Known]:
    bare = Recipe().altered({**core.changes, "shrinkage": "none", "bias_shrinkage": "none"})
    found: list[_Known] = []
    for item in sorted(evidence, key=lambda item: (not item.probe.smooth, len(item.probe.point.x))):
        gradient = item.returned.gradient
        # Points of many rows say no more than those of few.
        if gradient is None or not item.returned.finite or len(found) == _MOST_POINTS:
            continue
        point = read_point(item.probe, own, reading)
        sets = gradient_sets(point, objective, bare, "float64")
        if len(sets) == 1 and not sets[0].groups and not sets[0].undefined:
            found.append(_Known(point, sets[0].fixed, gradient))
            if not _may_fit(found, own.w.size):
                return []
    return found


def _may_fit(found: list[_Known], count: int) -> bool:
    """Whether the weights at the last point alone are a combination of the data term and of `w`."""
    one, some = found[-1], min(count, _ENOUGH)
    return some < 4 or _is_combination(one.gradient[:some], [one.data[:some], one.point.w.ravel()[:some]])


def _is_combination(gradient: Array, vectors: list[Array]) -> bool:
    basis = np.stack(vectors)
    norms = np.maximum(np.sqrt(np.sum(basis**2, axis=1)), 1e-300)
    basis = basis / norms[:, None]
    rest = gradient - np.linalg.lstsq(basis @ basis.T, basis @ gradient, rcond=1e-12)[0] @ basis
    return bool(rest @ rest <= 1e-3 * (gradient @ gradient) + 1e-30)


def may_be_sized(core: Alteration, evidence: list[Evidence], objective: Objective) -> bool:
    """Whether a mistake in sizes may go with this one: a quick test at the smooth points with equally many rows.

    There every size is one number, whatever power of `n` it is, unless the regulariser is of another kind or rows have
    weights.
    """
    smooth = [item for item in evidence if item.probe.smooth and item.returned.finite]
    if not smooth or {"direction", "shrinkage_rows"} & set(core.changes) or smooth[0].probe.point.weight is not None:
        return True
    bare = Recipe().altered({**core.changes, "shrinkage": "none", "bias_shrinkage": "none"})
    counts = [len(item.probe.point.x) for item in smooth]
    most = max(counts, key=counts.count)
    alike = [item for item, count in zip(smooth, counts, strict=True) if count == most][:5]
    known = []
    for item in alike:
        sets = gradient_sets(item.probe.point, objective, bare, "float64", _FEATURES)
        if len(sets) != 1 or sets[0].groups or sets[0].undefined or item.returned.gradient is None:
            return True
        shape, bias = item.probe.point.w.shape, len(item.returned.gradient) - item.probe.point.w.size
        weights = item.returned.gradient[: len(item.returned.gradient) - bias].reshape(shape)[:_FEATURES].ravel()
        known.append((sets[0].fixed, weights, item.returned.gradient[-bias:], item.probe.point))
    if len(known) < 2:
        return True
    size = len(known[0][1])
    data = np.concatenate([one[0][:size] for one in known]), np.concatenate([one[0][size:] for one in known])
    own = [one[3].w[:_FEATURES].ravel() for one in known], [one[3].b.ravel() for one in known]
    fits_weights = _is_combination(np.concatenate([one[1] for one in known]), [data[0], np.concatenate(own[0])])
    if not fits_weights or objective.intercept == "none":
        return fits_weights
    return _is_combination(np.concatenate([one[2] for one in known]), [data[1], np.concatenate(own[1])])


def _best(known: list[_Known], part: slice, others: list[Array], unit: float) -> tuple[Part, Part] | None:
    """The sizes of the data term and of the parameters themselves, where they fit."""
    data, gradient = [one.data[part] for one in known], [one.gradient[part] for one in known]
    rows = np.array([one.point.rows for one in known])
    grams = np.array([[[x @ x, x @ v], [x @ v, v @ v]] for x, v in zip(data, others, strict=True)])
    targets = np.array([[x @ g, v @ g] for x, v, g in zip(data, others, gradient, strict=True)])
    total = float(sum(g @ g for g in gradient))
    # Dots of vectors lose half the digits of a fit.
    enough = max(1e-10, (100.0 * unit) ** 2)
    for powers in sorted(product(_POWERS, _POWERS), key=lambda both: sum(map(abs, both))):
        scales = np.stack([rows ** float(power) for power in powers], axis=1)
        gram = np.einsum("ni,nij,nj->ij", scales, grams, scales)
        target = np.sum(scales * targets, axis=0)
        norm = np.sqrt(np.maximum(np.diag(gram), 1e-300))
        solution = np.linalg.lstsq(gram / np.outer(norm, norm), target / norm, rcond=1e-13)[0] / norm
        if total - 2.0 * solution @ target + solution @ gram @ solution > enough * total + 1e-300:
            continue
        for _ in range(3):
            rest = [
                g - (s * solution) @ np.stack([x, v]) for g, x, v, s in zip(gradient, data, others, scales, strict=True)
            ]
            left = sum(s * np.array([x @ r, v @ r]) for s, x, v, r in zip(scales, data, others, rest, strict=True))
            solution = solution + np.linalg.lstsq(gram / np.outer(norm, norm), left / norm, rcond=1e-13)[0] / norm
        first, second = (Part(float(size), power) for size, power in zip(solution, powers, strict=True))
        return first, second
    return None
