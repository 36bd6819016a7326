"""Every loss once more, one example at a time in plain Python: slow, and too simple to be wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


def _positive(z):
    return z if z > 0 else 0.0


def hinge_loss(score, target, margin=1.0):
    return _positive(margin - target * score)


def squared_hinge_loss(score, target, margin=1.0):
    return _positive(margin - target * score) ** 2


def smooth_hinge_loss(score, target, width=1.0, margin=1.0):
    m = target * score
    if m >= margin:
        return 0.0
    if m <= margin - width:
        return margin - m - width / 2
    return (margin - m) ** 2 / (2 * width)


def perceptron_loss(score, target):
    return _positive(-target * score)


def multiclass_hinge_loss(scores, label, margin=1.0):
    return _positive(max(margin + s - scores[label] for j, s in enumerate(scores) if j != label))


def weston_watkins_loss(scores, label, margin=1.0, p=1, class_weight=None, class_margin=None):
    weight = 1.0 if class_weight is None else class_weight[label]
    margin = margin if class_margin is None else margin * class_margin[label]
    return weight * sum(_positive(margin + s - scores[label]) ** p for j, s in enumerate(scores) if j != label)


def multilabel_margin_loss(scores, targets, margin=1.0):
    right = targets[: targets.index(-1)] if -1 in targets else targets
    wrong = [j for j in range(len(scores)) if j not in right]
    return sum(_positive(margin + scores[j] - scores[t]) for t in right for j in wrong) / len(scores)


def one_vs_rest_hinge_loss(scores, label, margin=1.0):
    return sum(_positive(margin - (s if j == label else -s)) for j, s in enumerate(scores))


def multiclass_perceptron_loss(scores, label):
    return max(scores) - scores[label]


def margin_ranking_loss(score1, score2, target, margin=0.0):
    return _positive(margin - target * (score1 - score2))


def hinge_embedding_loss(distance, target, margin=1.0):
    return distance if target == 1 else _positive(margin - distance)


def triplet_margin_loss(anchor, positive, negative, margin=1.0, p=2, swap=False):
    def distance(a, b):
        sizes = [abs(u - v + 1e-6) for u, v in zip(a, b, strict=True)]
        return max(sizes) if p == math.inf else sum(size**p for size in sizes) ** (1 / p)

    to_negative = distance(anchor, negative)
    if swap:
        to_negative = min(to_negative, distance(positive, negative))
    return _positive(margin + distance(anchor, positive) - to_negative)


def epsilon_insensitive_loss(prediction, target, epsilon=0.1):
    return _positive(abs(target - prediction) - epsilon)


def squared_epsilon_insensitive_loss(prediction, target, epsilon=0.1):
    return _positive(abs(target - prediction) - epsilon) ** 2


def pinball_loss(prediction, target, quantile=0.5):
    residual = target - prediction
    return quantile * residual if residual > 0 else (quantile - 1) * residual


class Case(NamedTuple):
    """A loss, the options it is called with, and 12 examples whose scores lie off every kink."""

    name: str
    options: dict[str, Any]
    arguments: Callable[[], tuple[np.ndarray, ...]]

    @property
    def num_scores(self) -> int:
        """How many leading arguments are differentiable scores, not targets."""
        return {"margin_ranking_loss": 2, "triplet_margin_loss": 3}.get(self.name, 1)

    def values(self, arguments=None) -> np.ndarray:
        rows = zip(*(argument.tolist() for argument in arguments or self.arguments()), strict=True)
        return np.array([globals()[self.name](*row, **self.options) for row in rows])


def _binary():
    rng = np.random.default_rng(0)
    return rng.normal(size=12) * 2, rng.choice([-1, 1], 12)


def _multiclass():
    rng = np.random.default_rng(1)
    return rng.normal(size=(12, 4)), rng.integers(0, 4, 12)


def _multilabel():
    rng = np.random.default_rng(6)
    # The right classes, -1, and after it classes that do not count; the last rows have none right, all, and one twice.
    targets = [[*rng.permutation(4)[:size], -1, *rng.integers(-1, 4, 3)][:4] for size in (1, 2, 3) * 3]
    return rng.normal(size=(12, 4)), np.array([*targets, [-1, 0, 1, 2], [3, 1, 0, 2], [2, 2, -1, -1]])


def _ranking():
    rng = np.random.default_rng(2)
    return rng.normal(size=12), rng.normal(size=12), rng.choice([-1, 1], 12)


def _embedding():
    rng = np.random.default_rng(3)
    return rng.uniform(0, 3, 12), rng.choice([-1, 1], 12)


def _triplet():
    rng = np.random.default_rng(4)
    return tuple(rng.normal(size=(3, 12, 5)))


def _regression():
    rng = np.random.default_rng(5)
    return rng.normal(size=12), rng.normal(size=12)


_OPTIONS_AND_ARGUMENTS = {
    "hinge_loss": ([{}, {"margin": 0.25}, {"margin": -0.5}], _binary),
    "squared_hinge_loss": ([{}, {"margin": 2.0}], _binary),
    "smooth_hinge_loss": ([{}, {"width": 0.5}, {"width": 3.0, "margin": 2.0}], _binary),
    "perceptron_loss": ([{}], _binary),
    "multiclass_hinge_loss": ([{}, {"margin": 0.25}], _multiclass),
    "weston_watkins_loss": (
        [
            {},
            {"margin": 0.25},
            {"p": 2},
            {"class_weight": [0.5, 1.0, 2.0, 0.0]},
            {"class_margin": [0.5, 1.0, 2.0, 0.0]},
            {"p": 2, "margin": 0.75, "class_weight": [0.5, 1.0, 2.0, 3.0], "class_margin": [0.5, 1.0, 2.0, 0.25]},
        ],
        _multiclass,
    ),
    "multilabel_margin_loss": ([{}, {"margin": 0.25}], _multilabel),
    "one_vs_rest_hinge_loss": ([{}, {"margin": 0.25}], _multiclass),
    "multiclass_perceptron_loss": ([{}], _multiclass),
    "margin_ranking_loss": ([{}, {"margin": 1.0}], _ranking),
    "hinge_embedding_loss": ([{}, {"margin": 2.0}], _embedding),
    "triplet_margin_loss": (
        [
            {},
            {"margin": 0.25},
            {"p": 1},
            {"p": 1.5},
            {"p": 5},
            {"p": math.inf},
            {"swap": True},
            {"p": 3, "swap": True, "margin": 2.0},
        ],
        _triplet,
    ),
    "epsilon_insensitive_loss": ([{}, {"epsilon": 0.0}, {"epsilon": 1.0}], _regression),
    "squared_epsilon_insensitive_loss": ([{}, {"epsilon": 1.0}], _regression),
    "pinball_loss": ([{}, {"quantile": 0.9}, {"quantile": 0.0}, {"quantile": 1.0}], _regression),
}

CASES = [
    Case(name, options, arguments)
    for name, (all_options, arguments) in _OPTIONS_AND_ARGUMENTS.items()
    for options in all_options
]
DEFAULT_CASES = [case for case in CASES if not case.options]


def case_id(case: Case) -> str:
    return "-".join([case.name, *(f"{name}={value}" for name, value in case.options.items())])
