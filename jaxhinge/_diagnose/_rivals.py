"""The pushes where one class of each row is sought: the largest wrong one, and mistakes in looking for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import Pushes, Recipe, counted, weight_in_band


class Scores(NamedTuple):
    """`(n, k)` each: scores, margins `z` between a class and the label, their rounding, and magnitudes of terms."""

    scores: Array
    z: Array
    slack: Array
    terms: Array


def unit_rows(point: Point) -> Array:
    """`(n, k)`, 1 in the column of the label."""
    return np.asarray(np.eye(point.num_classes)[point.y.astype(int)])


def push_strength(z: Array, scores: Array, recipe: Recipe) -> Array:
    """By how much an entry that pushes does so."""
    band = weight_in_band(z, recipe)
    if recipe.slope == "times_score":
        return scores * band
    factor = {"squared": 2.0, "half_squared": 1.0}.get(recipe.slope)
    return (1.0 if factor is None else factor * z) * band


def size_of(fixed: Array, groups: list[tuple[int, Array]], given: Scores, recipe: Recipe) -> Array:
    """The magnitude of the pushes, by which rounding is measured."""
    size = np.abs(fixed)
    for row, vertices in groups:
        size[row] += np.max(np.abs(vertices), axis=0)
    if recipe.slope not in ("own", "hinge"):
        # The slope is then a score, known only to the rounding of the score.
        size = size + np.any(size > 0.0, axis=1, keepdims=True) * 3.0 * (1.0 + given.terms)
    return size


def largest_rival(point: Point, objective: Objective, recipe: Recipe, given: Scores) -> Pushes:
    """Crammer-Singer: the wrong class with the largest score gets +1 and the label -1, where that violates."""
    label, z = unit_rows(point), given.z
    # A last column stands for the floor at a score of 0, where there is one.
    floor = objective.margin - given.scores[np.arange(len(z)), point.y]
    wrong = np.where(label == 1.0, -np.inf, z)
    # Where the margin of the label was zeroed, the label wins the maximum in rows that violate no margin.
    candidates = {
        "largest_of_all": z,
        "overwritten_argmax": z,
        "overwritten": np.where(label == 1.0, 0.0, z),
        "largest_score": np.where(label == 1.0, -np.inf, given.scores),
    }.get(recipe.rival, wrong)
    floored = recipe.rival in ("floored", "floored_label")
    candidates = np.column_stack([candidates, floor if floored else np.full(len(z), -np.inf)])
    top, slack = np.max(candidates, axis=1), np.max(given.slack, axis=1)
    tied = candidates >= (top - slack)[:, None]
    if recipe.rival == "largest_score":
        top = z[np.arange(len(z)), np.argmax(candidates, axis=1)]
    violation = np.max(wrong, axis=1) if recipe.rival == "overwritten_argmax" else top
    on, free = counted(violation, slack, recipe)
    if recipe.rival == "overwritten":
        on, free = on | free | (top >= -slack), np.zeros_like(free)
    fixed, groups = np.zeros_like(z), []
    strength = push_strength(top, given.scores[np.arange(len(z)), np.argmax(z, axis=1)], recipe)
    if recipe.label_push == "every_row":
        fixed = fixed - label
    for row in np.flatnonzero(on | free):
        vertices = strength[row] * _vertices(point, recipe, int(row), np.flatnonzero(tied[row]))
        if on[row] and len(vertices) == 1:
            fixed[row] += vertices[0]
        else:
            groups.append((int(row), vertices if on[row] else np.vstack([np.zeros(point.num_classes), vertices])))
    size = size_of(fixed, groups, given, recipe)
    active = (int(np.sum(on)), int(np.sum(on | free)))
    return Pushes(point.x, fixed, groups, size, active, top, slack)


def _vertices(point: Point, recipe: Recipe, row: int, classes: npt.NDArray[np.int_]) -> Array:
    """The push of a row for each class that may be the largest; class `k` is the floor."""
    k, label = point.num_classes, int(point.y[row])
    found = np.zeros((len(classes), k))
    for index, chosen in enumerate(classes):
        rival = label if chosen == k and recipe.rival == "floored_label" else chosen
        if rival < k:
            found[index, rival] += recipe.rival_push
        if recipe.rival in ("overwritten", "overwritten_argmax"):
            # The second assignment wins where both meet the same column.
            found[index, label] = 1.0 if chosen == label else -1.0
        elif recipe.label_push not in ("forgotten", "every_row"):
            found[index, label] -= 1.0
    return found
