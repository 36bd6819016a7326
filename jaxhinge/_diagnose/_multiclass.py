"""The pushes of the losses of several classes, for any recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import Mask, Pushes, Recipe, counted, score_slack
from jaxhinge._diagnose._rivals import Scores, largest_rival, push_strength, size_of, unit_rows
from jaxhinge._diagnose._rows_kept import kept_rows

_LARGEST = (
    "largest", "largest_of_all", "largest_score", "overwritten", "overwritten_argmax", "floored", "floored_label",
)  # fmt: skip


def multiclass_pushes(point: Point, objective: Objective, recipe: Recipe, unit: float) -> list[Pushes]:
    """What the rows contribute; more than one answer where the recipe leaves a discrete choice."""
    given = _scores(point, objective, recipe, unit)
    own = {"weston_watkins": "every", "crammer_singer": "largest", "one_vs_rest": "one_vs_rest"}[objective.family]
    rival = own if recipe.rival == "own" else recipe.rival
    if recipe.slope == "logistic":
        pushes = _logistic(point, objective, given)
    elif rival == "one_vs_rest":
        pushes = _one_vs_rest(point, objective, recipe, given)
    elif rival == "summed":
        return _weighted(_one_hinge_of_a_row(point, objective, recipe, given), point, recipe)
    elif rival in _LARGEST:
        pushes = largest_rival(point, objective, replace_rival(recipe, rival), given)
    else:
        pushes = _every_rival(point, objective, recipe, given)
    if recipe.rows in ("one_mask_of_sum", "one_mask_of_mean"):
        return _weighted(_one_hinge_of_all(point, objective, rival, pushes, given), point, recipe)
    if recipe.rows == "worst_of_class":
        return _weighted([_worst_of_class(point, objective, given)], point, recipe)
    return _weighted(kept_rows(pushes, recipe), point, recipe)


def replace_rival(recipe: Recipe, rival: str) -> Recipe:
    """The recipe with the rival of the stated loss written out."""
    return recipe if recipe.rival == rival else recipe.altered({"rival": rival})


def _scores(point: Point, objective: Objective, recipe: Recipe, unit: float) -> Scores:
    """The margins between classes as the recipe takes them, and their rounding."""
    every = np.arange(len(point.x))
    data, terms, count = point.products
    if recipe.scores == "transposed":
        data = point.x @ point.w.T
        terms = np.abs(point.x) @ np.abs(point.w.T) + np.abs(point.b)
    scores = recipe.score_sign * (data + recipe.margin_bias * point.b)
    slack = score_slack(count, unit) * (terms + terms[every, point.y][:, None] + objective.margin)
    z = objective.margin + (recipe.rival_sign * scores - scores[every, point.y][:, None])
    return Scores(scores, z, slack, terms)


def _weighted(found: list[Pushes], point: Point, recipe: Recipe) -> list[Pushes]:
    if point.weight is None or recipe.weights == "none":
        return found
    column = point.weights[:, None]
    return [
        replace(
            one,
            fixed=one.fixed * column,
            groups=[(row, vertices * point.weights[row]) for row, vertices in one.groups],
            size=one.size * column,
        )
        for one in found
    ]


def _logistic(point: Point, objective: Objective, given: Scores) -> Pushes:
    """Cross-entropy of the softmax; for one-vs-rest, a logistic loss for each class."""
    label, count = unit_rows(point), len(point.x)
    if objective.family == "one_vs_rest":
        fixed = 0.5 * (1.0 + np.tanh(0.5 * given.scores)) - label
    else:
        shares = np.exp(given.scores - np.max(given.scores, axis=1, keepdims=True))
        fixed = shares / np.sum(shares, axis=1, keepdims=True) - label
    rounding = 3.0 * (1.0 + given.terms)
    return Pushes(point.x, fixed, [], rounding, (count, count), np.max(given.z, axis=1), np.max(given.slack, axis=1))


def _every_rival(point: Point, objective: Objective, recipe: Recipe, given: Scores) -> Pushes:
    """Weston-Watkins: every wrong class that violates the margin gets +1, the label minus their number."""
    label, z = unit_rows(point), given.z
    on, free = counted(z, given.slack, recipe)
    on, free = on & (label == 0.0), free & (label == 0.0)
    strength = push_strength(z, given.scores, recipe)
    fixed = on * strength * recipe.rival_push
    fixed = fixed + label * _label_push(on * strength, on, recipe)[:, None]
    groups = []
    counts_rival = recipe.label_push in ("count", "one_more", "one_less", "number_of_rivals")
    for row, rival in zip(*np.nonzero(free), strict=True):
        push = np.zeros(point.num_classes)
        push[rival] = strength[row, rival] * recipe.rival_push
        if counts_rival or (recipe.label_push == "once" and not np.any(on[row])):
            push[point.y[row]] -= 1.0 if recipe.label_push == "number_of_rivals" else strength[row, rival]
        groups.append((int(row), np.array([np.zeros_like(push), push])))
    counts = np.any(on, axis=1), np.any(on | free, axis=1)
    violation = np.sum(np.maximum(np.where(label == 1.0, 0.0, z), 0.0), axis=1)
    slack = np.sum(given.slack, axis=1)
    return Pushes(point.x, fixed, groups, size_of(fixed, groups, given, recipe), _range(*counts), violation, slack)


def _label_push(pushes: Array, on: Mask, recipe: Recipe) -> Array:
    total = np.asarray(-np.sum(pushes, axis=1))
    choices: dict[str, Array] = {
        "count": total,
        "forgotten": np.zeros_like(total),
        "once": -np.any(on, axis=1).astype(float),
        "one_more": total - 1.0,
        "one_less": total + 1.0,
        "every_row": -np.ones_like(total),
        "number_of_rivals": -np.sum(on, axis=1).astype(float),
    }
    return choices[recipe.label_push]


def _one_vs_rest(point: Point, objective: Objective, recipe: Recipe, given: Scores) -> Pushes:
    """A hinge for each class by itself: +1 is wanted from the label, -1 from every other."""
    sign = 2.0 * unit_rows(point) - 1.0
    z = objective.margin - sign * given.scores
    on, free = counted(z, given.slack, recipe)
    if recipe.mask == "violating" and recipe.slope in ("squared", "half_squared"):
        on, free = on | free, np.zeros_like(free)
    push = -sign * push_strength(z, given.scores, recipe)
    if recipe.push_labels == "none":
        push = -np.abs(push)
    groups = []
    for row, column in zip(*np.nonzero(free), strict=True):
        vertex = np.zeros(point.num_classes)
        vertex[column] = push[row, column]
        groups.append((int(row), np.array([np.zeros_like(vertex), vertex])))
    fixed = push * on
    violation = np.sum(np.maximum(z, 0.0), axis=1)
    counts = np.any(on, axis=1), np.any(on | free, axis=1)
    size = size_of(fixed, groups, given, recipe)
    return Pushes(point.x, fixed, groups, size, _range(*counts), violation, np.sum(given.slack, axis=1))


def _one_hinge_of_a_row(point: Point, objective: Objective, recipe: Recipe, given: Scores) -> list[Pushes]:
    """One hinge of the sum over the wrong classes: all of them push, or none."""
    label = unit_rows(point)
    total = np.sum(np.where(label == 1.0, 0.0, given.z), axis=1)
    slack = np.sum(given.slack, axis=1)
    push = (1.0 - label) - label * (point.num_classes - 1)
    on, free = total > slack, np.abs(total) <= slack
    groups = [(int(row), np.array([np.zeros_like(push[row]), push[row]])) for row in np.flatnonzero(free)]
    fixed = push * on[:, None]
    size = size_of(fixed, groups, given, recipe)
    return kept_rows(Pushes(point.x, fixed, groups, size, _range(on, on | free), total, slack), recipe)


def _one_hinge_of_all(point: Point, objective: Objective, rival: str, pushes: Pushes, given: Scores) -> list[Pushes]:
    """One hinge of the sum of all margins of all rows: all of them push, or none."""
    label, count = unit_rows(point), len(point.x)
    wrong = np.where(label == 1.0, 0.0, given.z)
    if rival == "largest":
        top = np.argmax(np.where(label == 1.0, -np.inf, given.z), axis=1)
        chosen = np.eye(point.num_classes)[top]
        total, push = float(np.sum(np.max(np.where(label == 1.0, -np.inf, given.z), axis=1))), chosen - label
    elif rival == "one_vs_rest":
        sign = 2.0 * label - 1.0
        total, push = float(np.sum(objective.margin - sign * given.scores)), -sign
    else:
        total, push = float(np.sum(wrong)), (1.0 - label) - label * (point.num_classes - 1)
    every = replace(pushes, fixed=push, groups=[], size=np.abs(push), active=(count, count))
    no_row = replace(every, fixed=0.0 * push, active=(0, 0))
    if abs(total) <= float(np.sum(given.slack)):
        return [every, no_row]
    return [every if total > 0.0 else no_row]


def _worst_of_class(point: Point, objective: Objective, given: Scores) -> Pushes:
    """A maximum over the rows for each wrong class, as `np.max(margins, 0)` takes it."""
    label = unit_rows(point)
    z = np.where(label == 1.0, 0.0, given.z)
    worst = np.argmax(z, axis=0)
    fixed = np.zeros_like(z)
    for rival, row in enumerate(worst):
        if z[row, rival] > given.slack[row, rival]:
            fixed[row, rival] += 1.0
            fixed[row, point.y[row]] -= 1.0
    count = len(point.x)
    return Pushes(point.x, fixed, [], np.abs(fixed), (count, count), np.max(z, axis=1), np.max(given.slack, axis=1))


def _range(least: Mask, most: Mask) -> tuple[int, int]:
    return int(np.sum(least)), int(np.sum(most))
