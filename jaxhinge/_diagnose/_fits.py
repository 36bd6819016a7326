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
from jaxhinge._diagnose._gradients import few_features, first_features, gradient_sets
from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import PRECISIONS, Factors, Part, Recipe
from jaxhinge._diagnose._sizes import named_sizes, rounded

# The simplest first: where all points have as many rows, the powers of `n` cannot be told apart.
_POWERS = (0, 1, -1)
_MOST_POINTS = 12
# Parts that a fit replaces; a recipe that changes them is not fitted.
_OF_SIZE = {
    "divisor", "shrinkage", "bias_shrinkage", "bias", "whole_sign", "shrinkage_rows", "direction", "weights",
}  # fmt: skip


@dataclass(frozen=True)
class _Known:
    """The parts at one point, and what was returned there; of very many features only the first."""

    point: Point
    weights: Array
    data: Array
    gradient: Array


def fits(
    core: Alteration, points: list[tuple[Point, Array]], own: Point, objective: Objective, precisions: Iterable[str]
) -> Alteration | None:
    """The sizes with which this mistake explains the points off its kinks, with the causes that they stand for.

    `points` are those that are judged, and the gradients that were returned there.
    """
    altered = {part for part, value in core.changes.items() if value != "own"}
    if altered & _OF_SIZE or altered == {"data_sign"}:
        return None
    known = _known_parts(core, points, objective)
    if len(known) < 2 or not any(np.any(one.data) for one in known):
        return None
    found = (_fitted(core, known, own, objective, PRECISIONS[precision]) for precision in precisions)
    return next((one for one in found if one is not None), None)


def _fitted(core: Alteration, known: list[_Known], own: Point, objective: Objective, unit: float) -> Alteration | None:
    """The sizes to this rounding."""
    count = known[0].weights.size
    weights = _best(known, slice(0, count), [one.weights for one in known], unit)
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


def _known_parts(core: Alteration, points: list[tuple[Point, Array]], objective: Objective) -> list[_Known]:
    found: list[_Known] = []
    for point, gradient in points:
        known = _known(core, point, gradient, objective)
        if known is not None:
            found.append(known)
            if known.weights.size >= 4 and not _is_combination([known], slice(0, known.weights.size)):
                return []
        # Points of many rows say no more than those of few.
        if len(found) == _MOST_POINTS:
            break
    return found


def _known(core: Alteration, point: Point, gradient: Array, objective: Objective) -> _Known | None:
    """The parts at a point; None where a kink leaves them open."""
    bare = Recipe(**{**core.changes, "shrinkage": "none", "bias_shrinkage": "none"})
    features = few_features(point, bare)
    sets = gradient_sets(point, objective, bare, "float64", features)
    if len(sets) != 1 or sets[0].groups or sets[0].undefined:
        return None
    return _Known(point, point.w[:features].ravel(), sets[0].fixed, first_features(gradient, point, features))


def _is_combination(known: list[_Known], part: slice, *, of_bias: bool = False) -> bool:
    """Whether that part of the gradients, at all these points together, is one of the data and of the parameters."""
    gradient = np.concatenate([one.gradient[part] for one in known])
    own = [one.point.b.ravel() if of_bias else one.weights for one in known]
    basis = np.stack([np.concatenate([one.data[part] for one in known]), np.concatenate(own)])
    norms = np.maximum(np.sqrt(np.sum(basis**2, axis=1)), 1e-300)
    basis = basis / norms[:, None]
    if not (np.isfinite(basis).all() and np.isfinite(gradient).all()):
        return False
    rest = gradient - np.linalg.lstsq(basis @ basis.T, basis @ gradient, rcond=1e-12)[0] @ basis
    return bool(rest @ rest <= 1e-3 * (gradient @ gradient) + 1e-30)


def may_be_sized(core: Alteration, points: list[tuple[Point, Array]], objective: Objective) -> bool:
    """Whether a mistake in sizes may go with this one: a quick test at points with equally many rows.

    There every size is one number, whatever power of `n` it is, unless the regulariser is of another kind or rows have
    weights.
    """
    if not points or {"direction", "shrinkage_rows"} & set(core.changes) or points[0][0].weight is not None:
        return True
    counts = [len(point.x) for point, _ in points]
    most = max(counts, key=counts.count)
    alike = [one for one, count in zip(points, counts, strict=True) if count == most][:5]
    found = [_known(core, point, gradient, objective) for point, gradient in alike]
    known = [one for one in found if one is not None]
    if len(known) < max(2, len(found)):
        return True
    count = known[0].weights.size
    return _is_combination(known, slice(0, count)) and (
        objective.intercept == "none" or _is_combination(known, slice(count, None), of_bias=True)
    )


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
        if not (np.isfinite(gram).all() and np.isfinite(target).all()):
            continue
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
