"""The search for the recipe that explains every probe point to rounding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jaxhinge._diagnose._alterations import Alteration, paired, pairs
from jaxhinge._diagnose._evidence import Evidence, Explanation, Reading, read_point
from jaxhinge._diagnose._fits import fits, may_be_sized
from jaxhinge._diagnose._gradients import few_features, first_features, gradient_sets
from jaxhinge._diagnose._mistakes import alterations
from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import PRECISIONS, Recipe


class Search:
    """Explanations of the evidence, the simplest first."""

    def __init__(
        self,
        own: Point,
        objective: Objective,
        evidence: list[Evidence],
        coarsest: str = "float32",
        measured: Sequence[Alteration] = (),
    ) -> None:
        self.own, self.objective = own, objective
        # Smooth probes first, for they settle the precision; then small ones, for they are cheap.
        judged = [item for item in evidence if item.returned.gradient is not None]
        self.evidence = sorted(judged, key=lambda item: (not item.probe.smooth, len(item.probe.point.x)))
        self.start = _narrowest(judged)
        # Values of a coarser dtype than was returned are believed only up to here.
        self.coarsest = self.start if _finer(coarsest, self.start) else coarsest
        # A mask that was measured stands in place of the guesses at it.
        known = {"mask", "shift"} if measured else set[str]()
        self.singles = [*measured, *(one for one in alterations(own, objective) if not known & set(one.changes))]
        self.read = dict[tuple[int, Reading], Point]()
        self.untouched = Alteration((), {})
        self.sizable = dict[int, bool]()
        self.fitted = dict[tuple[int, Reading], list[Alteration]]()

    def right(self, reading: Reading = "as_given") -> Explanation | None:
        """The explanation that the gradient is right."""
        return self.fit(self.untouched, reading)

    def explanations(self, reading: Reading = "as_given", most_causes: int = 3) -> list[Explanation]:
        """All explanations of the simplest kind that has any, one for each cause; by so many causes at most."""
        right = self.right(reading)
        if right is not None:
            closer = [] if right.precision == self.start else self._fitting(self.singles, reading)
            return [found for found in closer if _finer(found.precision, right.precision)] or [right]
        best: list[Explanation] = []
        for tier, fitted in self._tiers(reading, most_causes):
            # A fitted size is closer than l2 in float32 is, and no mistake: it must not displace what fits.
            if fitted and best:
                continue
            found = self._fitting(tier, reading)
            if found and (not best or _finer(found[0].precision, best[0].precision)):
                best = found
            if best and best[0].precision == self.start:
                break
        return best

    def _tiers(self, reading: Reading, most_causes: int) -> Iterator[tuple[Iterable[Alteration], bool]]:
        """The simplest mistakes first, and whether they fit the sizes of the parts."""
        if most_causes < 1:
            return
        yield self.singles, False
        yield (one for one in self._fits(self.untouched, reading) if len(one.causes) == 1), True
        if most_causes < 2:
            return
        if reading == "as_given":
            yield self._pairs(), False
        yield self._fits(self.untouched, reading), True
        yield self._fits_of_singles(reading, 2), True
        if reading == "as_given":
            yield self._without_bias(), False
            yield self._fits_of_singles(reading, 3), True

    def _pairs(self) -> Iterator[Alteration]:
        """Every two mistakes; those in sizes only where the other leaves a question of sizes."""
        single = [one for one in self.singles if len(one.causes) == 1]
        sizes = [one for one in single if one.of_size]
        others = [one for one in single if not one.of_size]
        yield from pairs(others)
        for core in others:
            if self._may_be_sized(core):
                yield from paired(core, sizes)
        if self._may_be_sized(self.untouched):
            yield from pairs(sizes)

    def _may_be_sized(self, core: Alteration) -> bool:
        """Whether sizes may be wrong beside this mistake; asked once."""
        if id(core) not in self.sizable:
            smooth = self._points("as_given", smooth=True)
            self.sizable[id(core)] = may_be_sized(core, smooth, self.objective)
        return self.sizable[id(core)]

    def _fits(self, core: Alteration, reading: Reading) -> list[Alteration]:
        """This mistake with the sizes that fit; sought once."""
        key = id(core), reading
        if key not in self.fitted:
            possible = reading == "data_outside" or self._may_be_sized(core)
            precisions = dict.fromkeys((self.start, self.coarsest))
            points = self._points(reading) if possible else []
            found = fits(core, points, self.own, self.objective, precisions)
            self.fitted[key] = [found] if found is not None else []
        return self.fitted[key]

    def _fits_of_singles(self, reading: Reading, most_causes: int) -> Iterator[Alteration]:
        for single in self.singles:
            yield from (one for one in self._fits(single, reading) if len(one.causes) <= most_causes)

    def fit(self, alteration: Alteration, reading: Reading) -> Explanation | None:
        """The explanation by this mistake, if every probe agrees."""
        recipe = Recipe(**alteration.changes)
        precision = self.precision_of(recipe, reading)
        return None if precision is None else Explanation(alteration.causes, recipe, precision, reading)

    def precision_of(self, recipe: Recipe, reading: Reading) -> str | None:
        """The finest precision at which every probe agrees with the recipe, or None."""
        precision, first = self.start, self.evidence[0]
        # Most recipes are refuted here, and by more than rounding.
        if first.probe.smooth and not self._agrees(first, recipe, self.coarsest, reading):
            return None
        for item in self.evidence:
            while not self._agrees(item, recipe, precision, reading):
                # A mistake beside the kink looks like rounding; only points away from it tell the precision.
                coarser = _coarser(precision, self.coarsest)
                if coarser is None or not (item.probe.smooth or coarser == "float32"):
                    self._try_first(item)
                    return None
                precision = coarser
        return precision

    def _try_first(self, item: Evidence) -> None:
        """Try this point before the others of its kind from now on: a point that refutes one recipe refutes many."""
        self.evidence.remove(item)
        self.evidence.insert(0 if item.probe.smooth else sum(one.probe.smooth for one in self.evidence), item)

    def _agrees(self, item: Evidence, recipe: Recipe, precision: str, reading: Reading) -> bool:
        point = self._point(item, reading)
        gradient = item.returned.gradient
        if gradient is None or not item.returned.finite:
            return True
        features = few_features(point, recipe) if precision != "differences" else None
        if features is not None:
            few = first_features(gradient, point, features)
            screens = gradient_sets(point, self.objective, recipe, precision, features)
            if not any(one.undefined or one.bounded(few) for one in screens):
                return False
        sets = gradient_sets(point, self.objective, recipe, precision)
        if any(one.undefined and (recipe.direction in ("unit", "unit_too") or not np.any(gradient)) for one in sets):
            return True
        if precision != "differences":
            return any(one.contains(gradient) for one in sets)
        # Differences need not be a subgradient at a kink of the recipe, but each is between its bounds.
        low, high = (np.array(bounds) for bounds in zip(*(one.bounds() for one in sets), strict=True))
        slack = sets[0].tolerance
        low, high = np.min(low, axis=0) - slack, np.max(high, axis=0) + slack
        return bool(np.all(gradient >= low) and np.all(gradient <= high))

    def _point(self, item: Evidence, reading: Reading) -> Point:
        """The point that the function is taken to compute at: one object for each, for it keeps what was tried."""
        if reading == "as_given":
            return item.probe.point
        key = id(item), reading
        if key not in self.read:
            self.read[key] = read_point(item.probe, self.own, reading)
        return self.read[key]

    def _points(self, reading: Reading, *, smooth: bool = False) -> list[tuple[Point, Array]]:
        """The points that can be judged and what was returned there, the smooth ones first, small ones before large."""
        found = sorted(self.evidence, key=lambda item: (not item.probe.smooth, len(item.probe.point.x)))
        return [
            (self._point(item, reading), item.returned.gradient)
            for item in found
            if item.returned.gradient is not None and item.returned.finite and (item.probe.smooth or not smooth)
        ]

    def _fitting(self, tier: Iterable[Alteration], reading: Reading) -> list[Explanation]:
        found: dict[str, Explanation] = {}
        for alteration in tier:
            if "+".join(alteration.causes) not in found:
                explanation = self.fit(alteration, reading)
                if explanation is not None:
                    found[explanation.cause] = explanation
        finest = min((list(PRECISIONS).index(one.precision) for one in found.values()), default=0)
        return [one for one in found.values() if list(PRECISIONS).index(one.precision) == finest]

    def _without_bias(self) -> Iterator[Alteration]:
        """A model without a bias, where no gradient of it came back: one decision, whatever else is wrong."""
        if any("bias_gradient_missing" not in item.returned.trouble for item in self.evidence):
            return
        folded = Alteration(_NO_BIAS, {"bias": "zero", "margin_bias": 0.0})
        for single in self.singles:
            joined = folded.joined(single)
            if joined is not None and len(single.causes) == 1:
                yield joined


_NO_BIAS = ("bias_gradient_missing", "bias_missing_from_margin")


def _narrowest(judged: list[Evidence]) -> str:
    order = list(PRECISIONS)
    return max((item.returned.precision for item in judged), key=order.index, default="float64")


def _coarser(precision: str, coarsest: str) -> str | None:
    order = list(PRECISIONS)
    return order[order.index(precision) + 1] if _finer(precision, coarsest) else None


def _finer(first: str, second: str) -> bool:
    order = list(PRECISIONS)
    return order.index(first) < order.index(second)
