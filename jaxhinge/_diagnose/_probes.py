"""Probe points: where the function is called, chosen so that no two causes predict the same gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._violations import violation

Role = Literal["smooth", "kink", "near", "hidden", "plain"]

# Distances from the kink, in units of the margin; the least is just above the rounding of a float32 margin.
LADDER = tuple(float(f"{digits}e{power}") for power in range(-6, 0) for digits in ("2.7", "9"))
# Distances that the rounding of a float32 margin hides; a row there may count as on the kink.
HIDDEN = (3e-9, 3e-8, 3e-7)
# With more rows than this the points at which every row is on a kink are left to smaller data.
_MOST_TIED_ROWS = 60
_MOST_SYNTHETIC_ROWS = 2000
# The rows of a made-up point: all of `LADDER`, and two more. Of other numbers there are few, for JAX compiles for each.
_ROWS = len(LADDER) + 2
# More rows than a batch usually has, so that a function which takes only the first batch shows it.
_MANY_ROWS = 150
# With more features than this fewer candidates are drawn for each row.
_MANY_FEATURES = 500

# How the rows of a made-up point get their weights: by their label; any, where the function is handed them; or the
# caller's own weights and labels, row by row, where the function has them from elsewhere.
Weighing = Literal["none", "by_label", "handed", "by_row"]


@dataclass(frozen=True, eq=False)
class Probe:
    """A point and what it is for.

    Attributes:
      name: For the report.
      point: The arguments.
      own_data: Whether `x` and `y` are the caller's.
      role: "smooth" where it was built to keep clear of every kink, so that the precision of the function
        shows; "kink" where rows are exactly on it in any precision; "near" where they are
        beside it; "hidden" where they are outside by less than the rounding of float32.
    """

    name: str
    point: Point
    own_data: bool
    role: Role

    @property
    def smooth(self) -> bool:
        """Whether it keeps clear of every kink."""
        return self.role == "smooth"


def own_probes(own: Point, objective: Objective) -> Iterator[Probe]:
    """The caller's rows, at the caller's params and at others."""
    rng = np.random.default_rng(0)
    yield Probe("your params", own, own_data=True, role="plain")
    for _ in range(2):
        w, b = _params(rng, own, objective)
        # Infinite where the squares overflow: then such a feature gets a weight of 0.
        with np.errstate(over="ignore"):
            spread = np.sqrt(np.mean(own.x**2, axis=0))
        w = (w.T / np.where(spread > 0.0, spread, 1.0)).T
        yield Probe("your rows, random params", replace(own, w=w, b=b), own_data=True, role="plain")
    w, b = np.zeros_like(own.w), np.zeros_like(own.b)
    tied = objective.family == "crammer_singer" or objective.margin == 0.0
    few = len(own.x) <= _MOST_TIED_ROWS
    if few or not (tied or len(own.x) > _MOST_SYNTHETIC_ROWS):
        yield Probe("your rows, params 0", replace(own, w=w, b=b), own_data=True, role="plain")
    if objective.family == "binary" and objective.intercept != "none" and few:
        bias = np.asarray(objective.margin)
        yield Probe("your rows, one class on the kink", replace(own, w=w, b=bias), own_data=True, role="plain")
    if objective.family == "binary":
        yield from _solved_kink(rng, own, objective)


def _solved_kink(rng: np.random.Generator, own: Point, objective: Objective) -> Iterator[Probe]:
    """Params for which a few of the caller's rows are on the kink."""
    rows = rng.choice(len(own.x), size=min(len(own.x), own.w.size, 4), replace=False)
    bias = np.asarray(0.0 if objective.intercept == "none" else 0.25)
    w = np.linalg.lstsq(own.x[rows], objective.margin * own.y[rows] - bias, rcond=None)[0]
    if np.max(np.abs(own.y[rows] * (own.x[rows] @ w + bias) - objective.margin)) < 1e-13:
        yield Probe("your rows, some on the kink", replace(own, w=w, b=bias), own_data=True, role="plain")


def synthetic_probes(
    own: Point, objective: Objective, rows: int | None = None, seed: int = 1, weighing: Weighing = "none"
) -> Iterator[Probe]:
    """Made-up rows of the caller's width; `rows` fixes their number where the function needs it fixed."""
    make = _Maker(own, objective, np.random.default_rng(seed), rows, weighing)
    yield make.smooth("random rows", _ROWS, ("outside", "misclassified", "inside"))
    yield make.smooth("random rows", _ROWS, ("misclassified", "outside"), bias_scale=2.0)
    yield make.smooth("every row beyond the margin", _ROWS, ("outside",), w_scale=4.0)
    yield make.smooth("every row inside the margin", _ROWS, ("inside",))
    yield make.smooth("every row misclassified", _ROWS, ("misclassified",))
    yield make.smooth("one row", 1, ("misclassified",))
    yield make.smooth("random rows, the last beyond the margin", _ROWS, ("inside", "misclassified", "outside"))
    yield make.at_zero("params 0, unbalanced labels", _ROWS)
    yield make.placed("rows on the kink", [0.0] * 5, role="kink")
    yield make.placed("every row on the kink", [0.0] * _ROWS, role="kink")
    yield make.placed("rows just outside the kink", [-distance for distance in LADDER], role="near")
    yield make.placed("rows just inside the kink", list(LADDER), role="near")
    yield make.placed("rows a rounding error outside the kink", [-distance for distance in HIDDEN], role="hidden")
    if rows is None and len(own.x) != _MANY_ROWS:
        yield make.smooth("many random rows", _MANY_ROWS, ("misclassified", "inside", "outside"))
    if len(own.x) <= _MOST_SYNTHETIC_ROWS:
        yield make.smooth("random rows, as many as yours", len(own.x), ("outside", "misclassified", "inside"))


def tie_breakers(
    own: Point, objective: Objective, rows: int | None, seed: int, weighing: Weighing = "none"
) -> Iterator[Probe]:
    """More of the same, with other numbers, for causes that still fit equally well."""
    make = _Maker(own, objective, np.random.default_rng(seed), rows, weighing)
    yield make.smooth("random rows", _ROWS, ("inside", "outside", "misclassified"), w_scale=1.5)
    yield make.smooth("random rows", _ROWS, ("misclassified", "inside", "outside"), bias_scale=3.0)


def beside_measured(
    own: Point, objective: Objective, kink: float, rows: int | None, weighing: Weighing = "none"
) -> Iterator[Probe]:
    """Rows on both sides of a kink that was measured, which may be far from the right one."""
    make = _Maker(own, replace(objective, margin=kink), np.random.default_rng(9), rows, weighing)
    scale = max(1.0, abs(kink))
    sides = ("outside", "misclassified", "inside")
    yield make.smooth("rows on both sides of the measured kink", _ROWS, sides, w_scale=scale, bias_scale=scale)


def _params(rng: np.random.Generator, own: Point, objective: Objective) -> tuple[Array, Array]:
    w = rng.normal(size=own.w.shape) / np.sqrt(own.w.shape[0])
    b = np.asarray(rng.choice([-1.0, 1.0], size=own.b.shape) * rng.uniform(0.3, 0.9, size=own.b.shape))
    return w, np.zeros_like(b) if objective.intercept == "none" else b


@dataclass(frozen=True)
class _Maker:
    own: Point
    objective: Objective
    rng: np.random.Generator
    rows: int | None
    weighing: Weighing

    def smooth(
        self, name: str, count: int, sides: tuple[str, ...], w_scale: float = 1.0, bias_scale: float = 1.0
    ) -> Probe:
        """Rows away from every kink, on the named sides of it in turn; the last row is on the last side."""
        w, b = _params(self.rng, self.own, self.objective)
        w, b = w_scale * w, bias_scale * b
        wanted = self.rows or count
        # Few candidates for many rows: then some rows may be closer to a kink.
        more = 20 if wanted <= 60 else 4
        few = len(w) > _MANY_FEATURES
        x, y = self._candidates(w, b, (12 if few else 40) * len(sides) + (4 if few else more) * wanted)
        z, gap = violation(self.objective, x @ w + b, y)
        span = self.objective.span
        side = {"outside": z < -span, "inside": (z > 0.0) & (z < span), "misclassified": z > span}
        if self.objective.family == "regression":
            side["outside"] = z < 0.0
        # The clearest rows first, so that low precision cannot move one across a kink.
        clear = np.argsort(-np.minimum(gap, 0.1), kind="stable")
        picked = np.zeros(wanted, dtype=int)
        for offset, name_of_side in enumerate(reversed(sides)):
            places = np.arange(wanted)[::-1][offset :: len(sides)]
            found = clear[side[name_of_side][clear]]
            found = found if len(found) else clear
            picked[places] = found[np.arange(len(places)) % len(found)]
        if self.weighing == "by_row":
            picked = self._with_own_labels(picked, y, clear)
        return self._probe(name, w, b, x[picked], y[picked], role="smooth" if np.min(gap[picked]) > 0.02 else "plain")

    def _with_own_labels(self, picked: npt.NDArray[np.int_], y: Array, clear: npt.NDArray[np.int_]) -> Any:
        """The same rows where their label is the caller's, else the clearest that have it."""
        if self.objective.family == "regression":
            return picked
        chosen = picked.copy()
        for place, label in enumerate(self.own.y):
            if y[picked[place]] != label:
                alike = clear[y[clear] == label]
                chosen[place] = alike[place % min(len(alike), 5)] if len(alike) else picked[place]
        return chosen

    def at_zero(self, name: str, count: int) -> Probe:
        """Params of 0, and one label given to all rows but the first."""
        w, b = np.zeros_like(self.own.w), np.zeros_like(self.own.b)
        x, y = self._candidates(w, b, self.rows or count)
        if self.objective.family != "regression":
            y[1:] = y[0]
            if len(y) > 1:
                y[0] = (y[0] + 1) % self.own.num_classes if self.objective.multiclass else -y[0]
        return self._probe(name, w, b, x, y, role="plain")

    def placed(self, name: str, targets: list[float], role: Role) -> Probe:
        """Rows at given places beside the kink, all numbers with few binary digits, then rows anywhere.

        With few digits the margins are exact, so a row on the kink is on it in float64, float32 and
        less, whatever the order of the sums.
        """
        w = self._short_weights()
        b = np.asarray(self.rng.choice([-0.5, 0.5], size=self.own.b.shape), np.float64)
        b = np.zeros_like(b) if self.objective.intercept == "none" else b
        total = self.rows or _ROWS
        wanted = [*targets[:total], *[None] * max(0, total - len(targets))]
        order = self.rng.permutation(total)
        rows, labels = np.zeros((total, len(w))), np.zeros(total)
        for place, target in zip(order, wanted, strict=True):
            rows[place], labels[place] = self._placed_row(w, b, target, int(place))
        return self._probe(name, w, b, rows, labels, role=role)

    def _short_weights(self) -> Array:
        """Weights whose slopes towards the kink are powers of two, and not all of them 0."""
        if self.own.w.ndim == 1:
            return np.asarray(self.rng.choice([-1.0, -0.5, 0.5, 1.0], size=self.own.w.shape), np.float64)
        w = np.asarray(self.rng.choice([-0.5, 0.5, 1.5], size=self.own.w.shape), np.float64)
        if self.objective.family == "one_vs_rest":
            w = np.asarray(self.rng.choice([-1.0, -0.5, 0.5, 1.0], size=self.own.w.shape), np.float64)
        elif len(w) == 1:
            # On one feature, classes of equal weight would tie everywhere.
            w[0] = self.rng.permutation(self.own.num_classes) - self.own.num_classes // 2
        else:
            w[0, :2] = [-0.5, 0.5]
        return w

    def _placed_row(self, w: Array, b: Array, target: float | None, place: int) -> tuple[Array, float]:
        for _ in range(200):
            x = np.zeros(len(w))
            features = self.rng.choice(len(w), size=min(len(w), 3), replace=False)
            x[features] = self.rng.choice([-1.0, -0.5, 0.5, 1.0], size=len(features))
            labels = np.arange(self.own.num_classes) if w.ndim == 2 else np.array([-1.0, 1.0])
            y = float(self.rng.choice(labels))
            if self.weighing == "by_row" and self.objective.family != "regression":
                y = float(self.own.y[place])
            if self.objective.family == "regression":
                score = float(x @ w + b)
                return x, score + y * ((target if target is not None else 0.75) - self.objective.margin)
            if target is None or self._place(w, b, x, y, features[0], target):
                break
        return x, y

    def _place(self, w: Array, b: Array, x: Array, y: float, feature: int, target: float) -> bool:
        """Move one feature so that the row (its largest rival) is at `target`; False where that is not exact."""
        if w.ndim == 1:
            slope, z = -y * w[feature], self.objective.margin - y * (x @ w + b)
        elif self.objective.family == "one_vs_rest":
            label = int(y)
            slope, z = -w[feature, label], self.objective.margin - (x @ w[:, label] + b[label])
        else:
            scores = x @ w + b
            z_all = self.objective.margin + scores - scores[int(y)]
            z_all[int(y)] = -np.inf
            rival = int(np.argmax(z_all))
            slope, z = w[feature, rival] - w[feature, int(y)], z_all[rival]
        if abs(slope) not in (0.5, 1.0, 2.0):
            return False
        x[feature] += (target - z) / slope
        scores = (x @ w + b)[None]
        if self.objective.family == "one_vs_rest":
            reached = self.objective.margin - scores[0, int(y)]
        else:
            reached = violation(self.objective, scores, np.array([y]))[0][0]
        return bool(abs(reached - target) <= 1e-12 and abs(x[feature]) <= 3.0)

    def _candidates(self, w: Array, b: Array, count: int) -> tuple[Array, npt.NDArray[np.float64]]:
        x = self.rng.normal(size=(count, len(self.own.w)))
        if self.objective.family == "regression":
            residual = self.rng.uniform(-2.0, 2.0, size=count)
            inside = self.rng.random(count) < 0.3
            return x, x @ w + b + np.where(inside, 0.5 * self.objective.margin * residual, residual)
        if w.ndim == 1:
            return x, np.asarray(self.rng.choice([-1.0, 1.0], size=count), np.float64)
        labels = self.rng.integers(self.own.num_classes, size=count)
        best = np.argmax(x @ w + b, axis=1)
        return x, np.where(self.rng.random(count) < 0.5, best, labels).astype(np.float64)

    def _probe(self, name: str, w: Array, b: Array, x: Array, y: Array, *, role: Role) -> Probe:
        labels = y.astype(np.int64) if w.ndim == 2 else y
        weight = self._weight(labels)
        rows = float(len(x)) if weight is None else float(np.sum(weight))
        return Probe(name, Point(w, b, x, labels, rows, weight), own_data=False, role=role)

    def _weight(self, labels: npt.NDArray[Any]) -> Array | None:
        """The weights of made-up rows; powers of two where any will do, so that sums stay exact."""
        if self.weighing == "none" or self.own.weight is None:
            return None
        if self.weighing == "handed":
            return np.asarray(self.rng.choice([0.5, 1.0, 2.0, 4.0], size=len(labels)))
        if self.weighing == "by_row":
            return self.own.weight
        known = {label: self.own.weight[self.own.y == label][0] for label in np.unique(self.own.y)}
        return np.array([known.get(label, 1.0) for label in labels])
