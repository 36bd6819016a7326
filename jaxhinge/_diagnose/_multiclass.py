"""The pushes of the Weston-Watkins and the Crammer-Singer hinge, for any recipe."""

from __future__ import annotations

import numpy as np

from jaxhinge._diagnose._point import Array, Objective, Point
from jaxhinge._diagnose._recipe import Mask, Pushes, Recipe, counted, last_alternatives, score_slack, weight_in_band


def multiclass_pushes(point: Point, objective: Objective, recipe: Recipe, unit: float) -> list[Pushes]:
    """What the rows contribute; more than one answer where the recipe leaves a discrete choice."""
    w = point.w.T if recipe.scores == "transposed" else point.w
    every = np.arange(len(point.x))
    scores = point.x @ w + recipe.margin_bias * point.b
    terms = np.abs(point.x) @ np.abs(w) + np.abs(point.b)
    slack = score_slack(point.x, unit) * (terms + terms[every, point.y][:, None] + objective.margin)
    z = objective.margin + (scores - scores[every, point.y][:, None])
    if recipe.slope == "logistic":
        pushes = _softmax(point, scores, terms)
    elif recipe.rival == "every" or (recipe.rival == "own" and objective.family == "weston_watkins"):
        pushes = _every_rival(point, objective, recipe, z, slack, terms)
    else:
        pushes = _largest_rival(point, objective, recipe, z, slack, terms)
    return last_alternatives(pushes, recipe) if recipe.rows in ("last", "last_row") else [pushes]


def _softmax(point: Point, scores: Array, terms: Array) -> Pushes:
    shares = np.exp(scores - np.max(scores, axis=1, keepdims=True))
    fixed = shares / np.sum(shares, axis=1, keepdims=True) - _unit(point.y, point.num_classes)
    return Pushes(point.x, fixed, [], 3.0 * (1.0 + terms), (len(fixed), len(fixed)))


def _every_rival(point: Point, objective: Objective, recipe: Recipe, z: Array, slack: Array, terms: Array) -> Pushes:
    """Weston-Watkins: every wrong class that violates the margin gets +1, the label minus their number."""
    label = _unit(point.y, point.num_classes)
    on, free = counted(z, slack, objective.margin, recipe)
    on, free = on & (label == 0.0), free & (label == 0.0)
    strength = _strength(z, recipe)
    fixed = on * strength
    fixed = fixed + label * _label_push(fixed, on, recipe)[:, None]
    groups = []
    for row, rival in zip(*np.nonzero(free), strict=True):
        push = np.zeros(point.num_classes)
        push[rival] = strength[row, rival]
        if recipe.label_push in ("count", "one_more", "one_less") or (
            recipe.label_push == "once" and not np.any(on[row])
        ):
            push[point.y[row]] -= strength[row, rival]
        groups.append((int(row), np.array([np.zeros_like(push), push])))
    counts = np.any(on, axis=1), np.any(on | free, axis=1)
    return Pushes(point.x, fixed, groups, _size(fixed, groups, terms, recipe), _range(*counts))


def _label_push(fixed: Array, on: Mask, recipe: Recipe) -> Array:
    total = np.asarray(-np.sum(fixed, axis=1))
    choices: dict[str, Array] = {
        "count": total,
        "forgotten": np.zeros_like(total),
        "once": -np.any(on, axis=1).astype(float),
        "one_more": total - 1.0,
        "one_less": total + 1.0,
    }
    return choices[recipe.label_push]


def _largest_rival(point: Point, objective: Objective, recipe: Recipe, z: Array, slack: Array, terms: Array) -> Pushes:
    """Crammer-Singer: the wrong class with the largest score gets +1 and the label -1, where that violates."""
    label = _unit(point.y, point.num_classes)
    rivals = z if recipe.rival == "largest_of_all" else np.where(label == 1.0, -np.inf, z)
    top = np.max(rivals, axis=1)
    slack = np.max(slack, axis=1)
    tied = rivals >= (top - slack)[:, None]
    on, free = counted(top, slack, objective.margin, recipe)
    fixed, groups = np.zeros_like(z), []
    strength = _strength(top, recipe)
    for row in np.flatnonzero(on | free):
        classes = np.flatnonzero(tied[row])
        pushes = strength[row] * np.eye(point.num_classes)[classes]
        if recipe.label_push != "forgotten":
            pushes = pushes - strength[row] * label[row]
        if on[row] and len(classes) == 1:
            fixed[row] = pushes[0]
        else:
            groups.append((int(row), pushes if on[row] else np.vstack([np.zeros(point.num_classes), pushes])))
    return Pushes(point.x, fixed, groups, _size(fixed, groups, terms, recipe), _range(on, on | free))


def _strength(z: Array, recipe: Recipe) -> Array:
    factor = {"squared": 2.0, "half_squared": 1.0}.get(recipe.slope)
    return (1.0 if factor is None else factor * z) * weight_in_band(z, recipe)


def _size(fixed: Array, groups: list[tuple[int, Array]], terms: Array, recipe: Recipe) -> Array:
    size = np.abs(fixed)
    for row, vertices in groups:
        size[row] += np.max(np.abs(vertices), axis=0)
    if recipe.slope != "hinge":
        # The slope is then a score, known only to the rounding of the score.
        size = size + np.any(size > 0.0, axis=1, keepdims=True) * 3.0 * (1.0 + terms)
    return size


def _unit(y: Array, num_classes: int) -> Array:
    return np.asarray(np.eye(num_classes)[y.astype(int)])


def _range(least: Mask, most: Mask) -> tuple[int, int]:
    return int(np.sum(least)), int(np.sum(most))
