"""The search for the recipe that explains every probe point to rounding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from jaxhinge._diagnose._alterations import Alteration, alterations, pairs
from jaxhinge._diagnose._gradients import gradient_sets
from jaxhinge._diagnose._point import Array, Objective, Point
from jaxhinge._diagnose._probes import Probe
from jaxhinge._diagnose._recipe import PRECISIONS, Recipe
from jaxhinge._diagnose._returned import Returned

# How the function takes its arguments: as they are given; dividing by the caller's number of rows
# whatever x it gets; or computing with the caller's x and y whatever it gets.
Reading = Literal["as_given", "rows_outside", "data_outside"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """A probe point and what the function returned there."""

    probe: Probe
    returned: Returned


@dataclass(frozen=True)
class Explanation:
    """A recipe that fits, the causes it stands for (none where it is the right one), and how closely it fits."""

    causes: tuple[str, ...]
    recipe: Recipe
    precision: str
    reading: Reading

    @property
    def cause(self) -> str:
        """The name of the explanation."""
        return "+".join(self.causes) or "none"


def read_point(probe: Probe, own: Point, reading: Reading) -> Point:
    """The point that the function is taken to compute at."""
    if reading == "data_outside":
        return replace(probe.point, x=own.x, y=own.y, rows=own.rows)
    return replace(probe.point, rows=own.rows) if reading == "rows_outside" else probe.point


class Search:
    """Explanations of the evidence, the simplest first."""

    def __init__(self, own: Point, objective: Objective, evidence: list[Evidence], coarsest: str = "float32") -> None:
        self.own, self.objective = own, objective
        # Smooth probes first, for they settle the precision; then small ones, for they are cheap.
        judged = [item for item in evidence if item.returned.gradient is not None]
        self.evidence = sorted(judged, key=lambda item: (not item.probe.smooth, len(item.probe.point.x)))
        self.start = _narrowest(judged)
        # Values of a coarser dtype than was returned are believed only up to here.
        self.coarsest = self.start if _finer(coarsest, self.start) else coarsest
        self.singles = alterations(own, objective)

    def explanations(self, reading: Reading = "as_given") -> list[Explanation]:
        """All explanations of the simplest kind that has any, one for each cause."""
        right = self.fit(Alteration((), {}), reading)
        if right is not None:
            closer = [] if right.precision == self.start else self._fitting(self._plain(), reading)
            return [found for found in closer if _finer(found.precision, right.precision)] or [right]
        best: list[Explanation] = []
        for tier, fitted in self._tiers(reading):
            # A fitted strength is closer than l2 in float32 is, and no mistake: it must not displace what fits.
            if fitted and best:
                continue
            found = self._fitting(tier, reading)
            if found and (not best or _finer(found[0].precision, best[0].precision)):
                best = found
            if best and best[0].precision == self.start:
                break
        return best

    def _tiers(self, reading: Reading) -> Iterator[tuple[Iterable[Alteration], bool]]:
        """The simplest mistakes first, and whether they fit the strength of the regulariser."""
        yield self._plain(), False
        yield self._fitted(), True
        if reading == "as_given":
            yield pairs(self._plain_for_pairs()), False
            yield self._fitted_pairs(), True
            yield self._without_bias(), False

    def fit(self, alteration: Alteration, reading: Reading) -> Explanation | None:
        """The explanation by this mistake, if every probe agrees."""
        recipe = Recipe().altered(alteration.changes)
        if alteration.fitted:
            strength = self._strength(recipe, reading)
            if strength is None:
                return None
            recipe = recipe.altered({"strength": strength})
        precision = self.precision_of(recipe, reading)
        return None if precision is None else Explanation(alteration.causes, recipe, precision, reading)

    def precision_of(self, recipe: Recipe, reading: Reading) -> str | None:
        """The finest precision at which every probe agrees with the recipe, or None."""
        precision = self.start
        for item in self.evidence:
            while not self._agrees(item, recipe, precision, reading):
                # A mistake beside the kink looks like rounding; only points away from it tell the precision.
                coarser = _coarser(precision, self.coarsest)
                if coarser is None or not (item.probe.smooth or coarser == "float32"):
                    return None
                precision = coarser
        return precision

    def _agrees(self, item: Evidence, recipe: Recipe, precision: str, reading: Reading) -> bool:
        point = read_point(item.probe, self.own, reading)
        gradient = item.returned.gradient
        if gradient is None or not item.returned.finite:
            return True
        # Differences need not be a subgradient at a kink of the recipe, but each is between its bounds.
        blurred = precision == "differences"
        return any(
            (one.undefined and (recipe.shrinkage == "norm" or not np.any(gradient)))
            or (one.bounded(gradient) if blurred else one.contains(gradient))
            for one in gradient_sets(point, self.objective, recipe, precision)
        )

    def _fitting(self, tier: Iterable[Alteration], reading: Reading) -> list[Explanation]:
        found: dict[str, Explanation] = {}
        for alteration in tier:
            if "+".join(alteration.causes) not in found:
                explanation = self.fit(alteration, reading)
                if explanation is not None:
                    found[explanation.cause] = explanation
        finest = min((list(PRECISIONS).index(one.precision) for one in found.values()), default=0)
        return [one for one in found.values() if list(PRECISIONS).index(one.precision) == finest]

    def _plain(self) -> list[Alteration]:
        return [single for single in self.singles if not single.fitted]

    def _fitted(self) -> list[Alteration]:
        return [single for single in self.singles if single.fitted]

    def _plain_for_pairs(self) -> list[Alteration]:
        return [single for single in self._plain() if len(single.causes) == 1]

    def _fitted_pairs(self) -> list[Alteration]:
        unexpected = [single for single in self._fitted() if len(single.causes) == 1]
        joined = (fitted.joined(single) for fitted in unexpected for single in self._plain_for_pairs())
        return [pair for pair in joined if pair is not None]

    def _without_bias(self) -> list[Alteration]:
        """Where no bias came back and none is read, which is one decision of the author, whatever else is wrong."""
        if any("bias_gradient_missing" not in item.returned.trouble for item in self.evidence):
            return []
        causes = ("bias_gradient_missing", "bias_missing_from_margin")
        folded = Alteration(causes, {"bias": "zero", "margin_bias": 0.0})
        joined = (folded.joined(single) for single in self._plain_for_pairs())
        return [found for found in joined if found is not None]

    def _strength(self, recipe: Recipe, reading: Reading) -> float | None:
        """The factor of `w` that the largest `w` among points off the kink asks for."""
        best: tuple[float, float] | None = None
        for item in self.evidence:
            point = read_point(item.probe, self.own, reading)
            length = float(np.sum(point.w**2))
            if length == 0.0 or (best is not None and length <= best[0]) or not item.returned.finite:
                continue
            bare = gradient_sets(point, self.objective, recipe.altered({"strength": 0.0}), "float64")
            if len(bare) == 1 and not bare[0].groups:
                best = length, self._projected(item, bare[0].fixed, recipe, point)
        return None if best is None or abs(best[1]) < 1e-12 else best[1]

    def _projected(self, item: Evidence, bare: Array, recipe: Recipe, point: Point) -> float:
        assert item.returned.gradient is not None
        rest = recipe.whole_sign * (item.returned.gradient - bare)[: point.w.size]
        return float(rest @ point.w.ravel() / np.sum(point.w**2))


def _narrowest(judged: list[Evidence]) -> str:
    order = list(PRECISIONS)
    return max((item.returned.precision for item in judged), key=order.index, default="float64")


def _coarser(precision: str, coarsest: str) -> str | None:
    order = list(PRECISIONS)
    return order[order.index(precision) + 1] if _finer(precision, coarsest) else None


def _finer(first: str, second: str) -> bool:
    order = list(PRECISIONS)
    return order.index(first) < order.index(second)
