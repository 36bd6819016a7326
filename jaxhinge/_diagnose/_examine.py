"""One examination: call the function, search for the recipe that explains it, and write down what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxhinge._diagnose._causes import advice
from jaxhinge._diagnose._diagnosis import Diagnosis
from jaxhinge._diagnose._facts import Comparison
from jaxhinge._diagnose._findings import comparison, differing_rows, kink_note, puzzled, reading_note, trouble_notes
from jaxhinge._diagnose._gradients import gradient_sets
from jaxhinge._diagnose._kinks import choice, fractions, narrow_band, rows_on_kink
from jaxhinge._diagnose._point import Array, Objective, Point
from jaxhinge._diagnose._probes import Probe, own_probes, synthetic_probes, tie_breakers
from jaxhinge._diagnose._recipe import Recipe
from jaxhinge._diagnose._returned import Returned, call
from jaxhinge._diagnose._search import Evidence, Explanation, Search

# Rounds of further probe points while several causes fit equally well.
_TIE_ROUNDS = 3


class Examination:
    """The function, its calls and what they returned."""

    def __init__(
        self, grad_fn: Callable[..., Any], own: Point, objective: Objective, *, beside_kinks: bool = True
    ) -> None:
        self.grad_fn, self.own, self.objective = grad_fn, own, objective
        self.evidence: list[Evidence] = []
        self.num_calls = 0
        # Quotients of differences, coordinate by coordinate, need not be a subgradient at a kink.
        self.beside_kinks = beside_kinks
        # The number of rows that the function insists on, where it accepts no other.
        self.fixed_rows: int | None = None
        self.coarsest = "float32"
        # Whether a binary bias is handed over as a number, where the function wrote into the array.
        self.bias_as_number = False

    def called(self, point: Point) -> Returned:
        """One call, counted."""
        self.num_calls += 1
        returned = call(self.grad_fn, point, bias_as_number=self.bias_as_number)
        if "b" in returned.wrote_to and point.b.ndim == 0:
            # `s = b; s += ...` is right for a number, and a bias is a number to most who write it.
            self.bias_as_number = True
            return replace(self.called(point), wrote_to=returned.wrote_to)
        return returned

    def diagnosis(self) -> Diagnosis:
        """The whole examination."""
        self._collect()
        first = self.evidence[0].returned
        if first.gradient is None:
            return self._without_numbers(first)
        explanation, alternatives = self._explanation()
        causes = self._causes(explanation)
        if causes == ["unknown"] and self._accumulates():
            causes = ["gradient_accumulated"]
        return self._written(causes, explanation, alternatives)

    def _collect(self) -> None:
        own = list(own_probes(self.own, self.objective))
        own = [probe for probe in own if self._conclusive(probe)] or own
        made = self._synthetic(None)
        # The bar appears only where the whole takes longer than two seconds.
        # disable=None: no bar where stderr is not a terminal.
        with tqdm(total=len(own) + len(made), desc="jaxhinge.diagnose", delay=2.0, leave=False, disable=None) as bar:
            self.evidence = self._judged(own, bar)
            if self.evidence[0].returned.gradient is None:
                return
            others = self._judged(made, bar)
            if others[0].returned.gradient is None and self.own.rows != len(made[0].point.x):
                self.fixed_rows = self.own.rows
                others = self._judged(self._synthetic(self.own.rows), bar)
            self.evidence += others

    def _synthetic(self, rows: int | None) -> list[Probe]:
        made = synthetic_probes(self.own, self.objective, rows)
        return [probe for probe in made if self._conclusive(probe)]

    def _conclusive(self, probe: Probe) -> bool:
        return self.beside_kinks or not gradient_sets(probe.point, self.objective, Recipe(), "differences")[0].groups

    def _judged(self, probes: Iterable[Probe], bar: Any = None) -> list[Evidence]:
        found = []
        for probe in probes:
            found.append(Evidence(probe, self.called(probe.point)))
            if bar is not None:
                bar.update(1)
            if len(found) == 1 and found[0].returned.gradient is None:
                break
        return found

    def _explanation(self) -> tuple[Explanation | None, tuple[str, ...]]:
        found = self._found()
        for seed in range(2, 2 + _TIE_ROUNDS):
            if len(found) <= 1:
                break
            fresh = self._judged(tie_breakers(self.own, self.objective, self.fixed_rows, seed))
            judge = Search(self.own, self.objective, fresh, self.coarsest)
            found = [one for one in found if judge.precision_of(one.recipe, one.reading) is not None] or found
        if len(found) > 1:
            return None, tuple(sorted(one.cause for one in found))
        return (found[0] if found else None), ()

    def _found(self) -> list[Explanation]:
        """Explanations, the ordinary reading of the function first; what a reading supposes is tested by calls."""
        found = Search(self.own, self.objective, self.evidence).explanations()
        if not found:
            self.coarsest = self._working_precision()
            if self.coarsest != "float32":
                found = Search(self.own, self.objective, self.evidence, self.coarsest).explanations()
        if not found and self.own.rows > 1:
            search = Search(self.own, self.objective, self.evidence)
            found = search.explanations("rows_outside")
            if not found and self._same_after(lambda x: -x):
                found = search.explanations("data_outside")
        return found

    def _working_precision(self) -> str:
        """The dtype that a function which returns a wider one seems to compute in.

        It rounds x first, so x that was rounded before makes no difference to it, to the last bit.
        """
        if not self._same_after(lambda x: 1.5 * x):
            for precision, bits in (("bfloat16", 8), ("float16", 11)):
                if self._same_after(partial(_rounded, bits=bits)):
                    return precision
        return "float32"

    def _same_after(self, change: Callable[[Array], Array]) -> bool:
        """Whether another x gives the same gradient, to the last bit."""
        smooth = [item for item in self.evidence if item.probe.smooth and item.returned.finite]
        item = smooth[0] if smooth else self.evidence[0]
        again = self.called(replace(item.probe.point, x=change(item.probe.point.x)))
        first = item.returned.gradient
        return first is not None and again.gradient is not None and np.array_equal(first, again.gradient)

    def _causes(self, explanation: Explanation | None) -> list[str]:
        trouble = {name for name in self.evidence[0].returned.trouble.split("+") if name}
        odd = [item for item in self.evidence if item.returned.gradient is not None and not item.returned.finite]
        if explanation is not None:
            odd = [item for item in odd if not self._excused(item, explanation)]
        causes = trouble | ({"not_finite"} if odd else set())
        if explanation is not None and len(odd) * 2 <= len(self.evidence):
            causes |= set(explanation.causes)
        if not causes and any(item.returned.trouble == "raised" and item.probe.own_data for item in self.evidence):
            causes = {"raised"}
        # That no bias came back is said anyway; as a cause it would claim that the weights are right.
        if explanation is None and causes <= {"bias_gradient_missing"}:
            causes = {"unknown"}
        return sorted(causes)

    def _excused(self, item: Evidence, explanation: Explanation) -> bool:
        sets = gradient_sets(item.probe.point, self.objective, explanation.recipe, explanation.precision)
        return any(one.undefined for one in sets)

    def _accumulates(self) -> bool:
        """Whether every call adds a valid gradient to the result of the one before."""
        smooth = next((item.probe.point for item in self.evidence if item.probe.smooth), self.own)
        calls = [self.called(smooth) for _ in range(3)]
        if not all(one.finite for one in calls):
            return False
        first, second, third = (one.gradient for one in calls if one.gradient is not None)
        allowed = gradient_sets(smooth, self.objective, Recipe(), "float32")
        steps = [second - first, third - second]
        size = float(np.max(np.abs(third)))
        return all(np.any(np.abs(step) > 1e-6 * size) for step in steps) and all(
            any(np.all(np.abs(step - one.nearest(step)) <= 1e-5 * size) for one in allowed) for step in steps
        )

    def _without_numbers(self, first: Returned) -> Diagnosis:
        return Diagnosis(
            ok=False,
            cause=first.trouble,
            findings=(first.detail,),
            kink_rows=rows_on_kink(self.own, self.objective, "float64"),
            kink_fractions=np.full(len(rows_on_kink(self.own, self.objective, "float64")), np.nan),
            num_calls=self.num_calls,
            num_points=len(self.evidence),
        )

    def _written(self, causes: list[str], explanation: Explanation | None, alternatives: tuple[str, ...]) -> Diagnosis:
        precision = explanation.precision if explanation else Search(self.own, self.objective, self.evidence).start
        recipe = explanation.recipe if explanation else Recipe()
        told = [advice(cause, recipe, self.objective) for cause in causes]
        compared = comparison(self.evidence, self.objective, precision, right=not causes)
        rows = rows_on_kink(self.own, self.objective, precision)
        first = self.evidence[0]
        taken = choice(self.evidence, self.objective, precision) if not causes else ""
        return Diagnosis(
            ok=not causes,
            cause="+".join(causes) or "none",
            findings=tuple(
                filter(
                    None,
                    [one.sentence for one in told]
                    + self._notes(causes, explanation, alternatives, compared, taken, precision),
                )
            ),
            mends=tuple(one.mend for one in told if one.mend),
            kink_rows=rows,
            kink_fractions=fractions(first, self.objective, precision, rows)
            if first.probe.point is self.own
            else np.full(len(rows), np.nan),
            kink_choice=taken,
            alternatives=alternatives,
            comparison=compared,
            precision=precision,
            num_calls=self.num_calls,
            num_points=len(self.evidence),
        )

    def _notes(
        self,
        causes: list[str],
        explanation: Explanation | None,
        alternatives: tuple[str, ...],
        compared: Comparison | None,
        taken: str,
        precision: str,
    ) -> list[str]:
        notes = [*trouble_notes(self.evidence), *reading_note(explanation)]
        if not causes:
            return [*notes, kink_note(taken, narrow_band(self.evidence, self.objective))]
        if explanation is not None:
            return [*notes, differing_rows(self.evidence, self.objective, explanation, compared)]
        if alternatives:
            notes.append(
                "These fit equally well, and no probe point tells them apart: " + ", ".join(alternatives) + "."
            )
        return [*notes, *puzzled(self.evidence, self.own, self.objective, precision, self.called)]


def _rounded(x: Array, bits: int) -> Array:
    """The nearest numbers with so many significant binary digits."""
    fraction, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.round(np.ldexp(fraction, bits)), exponent - bits))


def not_judged(own: Point, objective: Objective) -> Diagnosis:
    """The answer where the values of a loss are float32."""
    rows = rows_on_kink(own, objective, "float64")
    told = (
        "The values of the loss are float32, and their differences are lost in its rounding. Compute the loss in "
        "float64, or take its gradient in your framework and give that to jaxhinge.diagnose."
    )
    return Diagnosis(
        ok=False,
        cause="unknown",
        findings=(told,),
        kink_rows=rows,
        kink_fractions=np.full(len(rows), np.nan),
        precision="float32",
    )
