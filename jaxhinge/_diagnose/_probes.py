"""Probe points: where the function is called, chosen so that no two causes predict the same gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._point import Array, Objective, Point

Role = Literal["smooth", "kink", "near", "hidden", "plain"]

# Distances from the kink, in units of the margin: from just above the rounding of a float32 margin.
LADDER = tuple(float(f"{digits}e{power}") for power in range(-6, 0) for digits in ("2.7", "9"))
# Distances that the rounding of a float32 margin hides; a row there may count as on the kink.
HIDDEN = (3e-9, 3e-8, 3e-7)
# With more rows than this the points at which every row is on a kink are left to smaller data.
_MOST_TIED_ROWS = 60
_MOST_SYNTHETIC_ROWS = 2000


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
        w, b = _params(rng, own)
        # Infinite where the squares overflow: then such a feature gets a weight of 0.
        with np.errstate(over="ignore"):
            spread = np.sqrt(np.mean(own.x**2, axis=0))
        w = (w.T / np.where(spread > 0.0, spread, 1.0)).T
        yield Probe("your rows, random params", _moved(own, w, b), own_data=True, role="plain")
    zero = np.zeros_like(own.w), np.zeros_like(own.b)
    tied = objective.family == "crammer_singer" or objective.margin == 0.0
    if not tied or len(own.x) <= _MOST_TIED_ROWS:
        yield Probe("your rows, params 0", _moved(own, *zero), own_data=True, role="plain")
    if objective.family == "binary":
        if len(own.x) <= _MOST_TIED_ROWS:
            bias = np.asarray(objective.margin)
            yield Probe("your rows, one class on the kink", _moved(own, zero[0], bias), own_data=True, role="plain")
        yield from _solved_kink(rng, own, objective)


def _solved_kink(rng: np.random.Generator, own: Point, objective: Objective) -> Iterator[Probe]:
    """Params for which a few of the caller's rows are on the kink."""
    rows = rng.choice(len(own.x), size=min(len(own.x), own.w.size, 4), replace=False)
    bias = np.asarray(0.25)
    w = np.linalg.lstsq(own.x[rows], objective.margin * own.y[rows] - bias, rcond=None)[0]
    if np.max(np.abs(own.y[rows] * (own.x[rows] @ w + bias) - objective.margin)) < 1e-13:
        yield Probe("your rows, some on the kink", _moved(own, w, bias), own_data=True, role="plain")


def synthetic_probes(own: Point, objective: Objective, rows: int | None = None, seed: int = 1) -> Iterator[Probe]:
    """Made-up rows of the caller's width; `rows` fixes their number where the function needs it fixed.

    Few different numbers of rows, for JAX compiles anew for each.
    """
    make = _Maker(own, objective, np.random.default_rng(seed), rows)
    yield make.smooth("random rows", 8, ("outside", "misclassified", "inside"))
    yield make.smooth("random rows", 5, ("misclassified", "outside"), bias_scale=2.0)
    yield make.smooth("every row beyond the margin", 5, ("outside",), w_scale=4.0)
    yield make.smooth("every row inside the margin", 5, ("inside",))
    yield make.smooth("every row misclassified", 5, ("misclassified",))
    yield make.smooth("one row", 1, ("misclassified",))
    yield make.smooth("random rows, the last beyond the margin", 5, ("inside", "misclassified", "outside"))
    yield make.at_zero("params 0, unbalanced labels", 5)
    yield make.placed("rows on the kink", [0.0] * 5, others=3, role="kink")
    yield make.placed("every row on the kink", [0.0] * 5, others=0, role="kink")
    yield make.placed("rows just outside the kink", [-distance for distance in LADDER], others=2, role="near")
    yield make.placed("rows just inside the kink", list(LADDER), others=2, role="near")
    yield make.placed(
        "rows a rounding error outside the kink", [-distance for distance in HIDDEN], others=2, role="hidden"
    )
    if len(own.x) <= _MOST_SYNTHETIC_ROWS:
        yield make.smooth("random rows, as many as yours", len(own.x), ("outside", "misclassified", "inside"))


def tie_breakers(own: Point, objective: Objective, rows: int | None, seed: int) -> Iterator[Probe]:
    """More of the same, with other numbers, for causes that still fit equally well."""
    make = _Maker(own, objective, np.random.default_rng(seed), rows)
    yield make.smooth("random rows", 14, ("inside", "outside", "misclassified"), w_scale=1.5)
    yield make.smooth("random rows", 8, ("misclassified", "inside", "outside"), bias_scale=3.0)


def _params(rng: np.random.Generator, own: Point) -> tuple[Array, Array]:
    w = rng.normal(size=own.w.shape) / np.sqrt(own.w.shape[0])
    return w, np.asarray(rng.choice([-1.0, 1.0], size=own.b.shape) * rng.uniform(0.3, 0.9, size=own.b.shape))


def _moved(own: Point, w: Array, b: Array) -> Point:
    return Point(w, b, own.x, own.y, rows=len(own.x))


@dataclass(frozen=True)
class _Maker:
    own: Point
    objective: Objective
    rng: np.random.Generator
    rows: int | None

    def smooth(
        self, name: str, count: int, sides: tuple[str, ...], w_scale: float = 1.0, bias_scale: float = 1.0
    ) -> Probe:
        """Rows away from every kink, on the named sides of it in turn; the last row is on the last side."""
        w, b = _params(self.rng, self.own)
        w, b = w_scale * w, bias_scale * b
        x, y = self._candidates(w, b, 40 * len(sides) + 20 * (self.rows or count))
        z, gap = self._violation(w, b, x, y)
        side = {"outside": z < -self.objective.margin, "inside": (z > 0.0) & (z < self.objective.margin)}
        side["misclassified"] = z > self.objective.margin
        wanted = self.rows or count
        picked = np.zeros(wanted, dtype=int)
        for offset, name_of_side in enumerate(reversed(sides)):
            places = np.arange(wanted)[::-1][offset :: len(sides)]
            found = np.flatnonzero(side[name_of_side])
            found = found if len(found) else np.arange(len(x))
            # The clearest rows first, so that low precision cannot move one across a kink.
            found = found[np.argsort(-np.minimum(gap[found], 0.1), kind="stable")]
            picked[places] = found[np.arange(len(places)) % len(found)]
        return self._probe(name, w, b, x[picked], y[picked], role="smooth" if np.min(gap[picked]) > 0.02 else "plain")

    def at_zero(self, name: str, count: int) -> Probe:
        """Params of 0, and one label given to all rows but the first."""
        w, b = np.zeros_like(self.own.w), np.zeros_like(self.own.b)
        x, y = self._candidates(w, b, self.rows or count)
        y[1:] = y[0]
        if len(y) > 1:
            y[0] = -y[0] if self.objective.family == "binary" else (y[0] + 1) % self.own.num_classes
        return self._probe(name, w, b, x, y, role="plain")

    def placed(self, name: str, targets: list[float], others: int, role: Role = "plain") -> Probe:
        """Rows at given places beside the kink, all numbers with few binary digits, then rows anywhere.

        With few digits the margins are exact, so a row on the kink is on it in float64, float32 and
        less, whatever the order of the sums.
        """
        d = len(self.own.w)
        w = self._short_weights()
        b = np.asarray(self.rng.choice([-0.5, 0.5], size=self.own.b.shape), np.float64)
        total = self.rows or len(targets) + others
        wanted = [*targets[:total], *[None] * max(0, total - len(targets))]
        rows, labels = [], []
        for target in wanted:
            x, y = self._placed_row(w, b, d, target)
            rows.append(x)
            labels.append(y)
        order = self.rng.permutation(total)
        return self._probe(name, w, b, np.array(rows)[order], np.array(labels)[order], role=role)

    def _short_weights(self) -> Array:
        """Weights whose slopes towards the kink are powers of two, and not all of them 0."""
        if self.own.w.ndim == 1:
            return np.asarray(self.rng.choice([-1.0, -0.5, 0.5, 1.0], size=self.own.w.shape), np.float64)
        w = np.asarray(self.rng.choice([-0.5, 0.5, 1.5], size=self.own.w.shape), np.float64)
        if len(w) == 1:
            # On one feature, classes of equal weight would tie everywhere.
            w[0] = self.rng.permutation(self.own.num_classes) - self.own.num_classes // 2
        else:
            w[0, :2] = [-0.5, 0.5]
        return w

    def _placed_row(self, w: Array, b: Array, d: int, target: float | None) -> tuple[Array, float]:
        for _ in range(200):
            x = np.zeros(d)
            features = self.rng.choice(d, size=min(d, 3), replace=False)
            x[features] = self.rng.choice([-1.0, -0.5, 0.5, 1.0], size=len(features))
            labels = np.arange(self.own.num_classes) if w.ndim == 2 else np.array([-1.0, 1.0])
            y = float(self.rng.choice(labels))
            if target is None or self._place(w, b, x, y, features[0], target):
                break
        return x, y

    def _place(self, w: Array, b: Array, x: Array, y: float, feature: int, target: float) -> bool:
        """Move one feature so that the row (its largest rival) is at `target`; False where that is not exact."""
        if w.ndim == 1:
            slope, z = -y * w[feature], self.objective.margin - y * (x @ w + b)
        else:
            scores = x @ w + b
            z_all = self.objective.margin + scores - scores[int(y)]
            z_all[int(y)] = -np.inf
            rival = int(np.argmax(z_all))
            slope, z = w[feature, rival] - w[feature, int(y)], z_all[rival]
        if abs(slope) not in (0.5, 1.0, 2.0):
            return False
        x[feature] += (target - z) / slope
        reached, _ = self._violation(w, b, x[None], np.array([y]))
        return bool(abs(reached[0] - target) <= 1e-12 and abs(x[feature]) <= 3.0)

    def _candidates(self, w: Array, b: Array, count: int) -> tuple[Array, npt.NDArray[np.float64]]:
        x = self.rng.normal(size=(count, len(self.own.w)))
        if w.ndim == 1:
            return x, np.asarray(self.rng.choice([-1.0, 1.0], size=count), np.float64)
        labels = self.rng.integers(self.own.num_classes, size=count)
        best = np.argmax(x @ w + b, axis=1)
        return x, np.where(self.rng.random(count) < 0.5, best, labels).astype(np.float64)

    def _violation(self, w: Array, b: Array, x: Array, y: Array) -> tuple[Array, Array]:
        """`z` of each row (of its largest rival), and how far the row is from any kink or tie."""
        margin, scores = self.objective.margin, x @ w + b
        if w.ndim == 1:
            z_all = (margin - y * scores)[:, None]
        else:
            every, label = np.arange(len(x)), y.astype(int)
            z_all = margin + scores - scores[every, label][:, None]
            z_all[every, label] = -np.inf
        distances = [np.abs(z_all - edge) for edge in (0.0, margin, 2.0 * margin)]
        gap = np.min(np.concatenate(distances, axis=1), axis=1)
        if z_all.shape[1] > 2:
            ordered = np.sort(z_all, axis=1)
            gap = np.minimum(gap, ordered[:, -1] - ordered[:, -2])
        return np.max(z_all, axis=1), gap

    def _probe(self, name: str, w: Array, b: Array, x: Array, y: Array, *, role: Role) -> Probe:
        labels = y.astype(np.int64) if w.ndim == 2 else y
        return Probe(name, Point(w, b, x, labels, rows=len(x)), own_data=False, role=role)
