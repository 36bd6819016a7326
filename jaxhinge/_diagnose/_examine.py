"""One examination: call the function at the probe points, and search for the recipe that explains what it returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from jaxhinge._diagnose._alterations import Alteration
from jaxhinge._diagnose._calls import Calling, call, calling_of
from jaxhinge._diagnose._compiled import compiled
from jaxhinge._diagnose._diagnosis import Diagnosis
from jaxhinge._diagnose._evidence import Evidence, Explanation
from jaxhinge._diagnose._gradients import gradient_sets
from jaxhinge._diagnose._measured import (
    Curve,
    Meter,
    ends_far_away,
    measured_curve,
    measured_threshold,
    threshold_alteration,
)
from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._probes import Probe, Weighing, beside_measured, own_probes, synthetic_probes, tie_breakers
from jaxhinge._diagnose._recipe import Recipe
from jaxhinge._diagnose._returned import Returned
from jaxhinge._diagnose._search import Search
from jaxhinge._diagnose._signatures import original
from jaxhinge._diagnose._written import Account, Case, without_numbers, written

# Rounds of further probe points while several causes fit equally well.
_TIE_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Patient:
    """The function, and how it is called.

    Attributes:
      function: What the caller wrote, for its name and its lines.
      grad_fn: The gradient to judge, the function itself or made from it.
      labels: What the caller calls the labels; None where they are as usual.
      is_loss: Whether the caller wrote a loss.
      kink: The margin at which the values of the loss have their kink, where that is known.
      beside_kinks: Whether the gradient can be judged at kinks. Quotients of differences, coordinate by coordinate,
        need not be a subgradient there.
    """

    function: Callable[..., Any]
    grad_fn: Callable[..., Any]
    labels: npt.NDArray[Any] | None = None
    is_loss: bool = False
    kink: float | None = None
    beside_kinks: bool = True


@dataclass(eq=False)
class Examination:
    """The function, its calls and what they returned.

    Attributes:
      patient: The function.
      own: The caller's point.
      objective: What the gradient should be of.
      evidence: The probe points and what was returned there, the caller's point first.
      num_calls: How often the function was called.
      fixed_rows: The number of rows that the function insists on, where it accepts no other.
      coarsest: The coarsest dtype that the function may compute in.
      bias_as_number: Whether a scalar bias is handed over as a number, because the function wrote into the array.
      bias_first: Whether the bias is the first entry of a gradient that comes as one array.
      function: What is called, from the second call on.
    """

    patient: Patient
    own: Point
    objective: Objective
    evidence: list[Evidence] = field(default_factory=list)
    num_calls: int = 0
    fixed_rows: int | None = None
    coarsest: str = "float32"
    bias_as_number: bool = False
    bias_first: bool = False
    weighing: Weighing = "none"
    function: Callable[..., Any] | None = None

    @cached_property
    def calling(self) -> Calling:
        """How the function is called."""
        weighted = self.own.weight is not None
        patient = self.patient
        return calling_of(patient.function, self.objective, patient.labels, weighted=weighted, is_loss=patient.is_loss)

    def called(self, point: Point) -> Returned:
        """One call, counted."""
        self.num_calls += 1
        kept = {"bias_as_number": self.bias_as_number, "bias_first": self.bias_first}
        returned = call(self.function or self.patient.grad_fn, point, self.calling, **kept)
        if self.function is None:
            plain = returned.in_jax and not returned.trouble and not returned.wrote_to
            grad_fn = self.patient.grad_fn
            self.function = compiled(grad_fn, self.own, self.calling) if plain else grad_fn
        if "b" in returned.wrote_to and point.b.ndim == 0 and not self.bias_as_number:
            # `s = b; s += ...` is right for a number, and a bias is a number to most who write it.
            self.bias_as_number = True
            return replace(self.called(point), wrote_to=returned.wrote_to)
        return returned

    def diagnosis(self) -> Diagnosis:
        """The whole examination."""
        self._collect()
        first = self.evidence[0].returned
        if first.gradient is None:
            return without_numbers(first, self.own, self.objective, self.num_calls)
        if self._is_zero():
            return self._written(Account(["gradient_zero"], None))
        explanation, alternatives = self._explanation()
        if explanation is None and first.folded and not self.bias_first:
            other = Examination(self.patient, self.own, self.objective, num_calls=self.num_calls, bias_first=True)
            other._collect()
            found = other._explanation()[0]
            if found is not None:
                return other._written(Account(other._causes(found), found))
        causes = self._causes(explanation)
        if causes == ["unknown"] and self._accumulates():
            causes = ["gradient_accumulated"]
        curve = self._curve if causes == ["unknown"] and not alternatives else None
        return self._written(Account(causes, explanation, alternatives, curve))

    def _written(self, account: Account) -> Diagnosis:
        case = Case(
            original(self.patient.function), self.patient.is_loss, self.own, self.objective, self.evidence, self.called
        )
        return written(account, case, lambda: self.num_calls)

    def _collect(self) -> None:
        self.weighing = self._way_of_weighing()
        if self.weighing == "by_row":
            self.fixed_rows = len(self.own.x)
        own = list(own_probes(self.own, self.objective))
        own = [probe for probe in own if self._conclusive(probe)] or own
        made = self._synthetic()
        # The bar appears only where the whole takes longer than two seconds.
        # disable=None: no bar where stderr is not a terminal.
        with tqdm(total=len(own) + len(made), desc="jaxhinge.diagnose", delay=2.0, leave=False, disable=None) as bar:
            self.evidence = self._judged(own, bar)
            if self.evidence[0].returned.gradient is None:
                return
            others = self._judged(made, bar)
            if others[0].returned.gradient is None and len(self.own.x) != len(made[0].point.x):
                self.fixed_rows = len(self.own.x)
                self.weighing = "by_row" if self.weighing == "by_label" else self.weighing
                others = self._judged(self._synthetic(), bar)
            self.evidence += others

    def _way_of_weighing(self) -> Weighing:
        """Where the weights of made-up rows come from."""
        if self.own.weight is None:
            return "none"
        if self.calling.weights is not None:
            return "handed"
        alike = self.objective.family != "regression" and all(
            len(np.unique(self.own.weight[self.own.y == label])) == 1 for label in np.unique(self.own.y)
        )
        return "by_label" if alike else "by_row"

    def _synthetic(self) -> list[Probe]:
        made = synthetic_probes(self.own, self.objective, self.fixed_rows, weighing=self.weighing)
        return [probe for probe in made if self._conclusive(probe)]

    def _conclusive(self, probe: Probe) -> bool:
        if self.patient.beside_kinks:
            return True
        return not gradient_sets(probe.point, self.objective, Recipe(), "differences")[0].groups

    def _judged(self, probes: Iterable[Probe], bar: Any = None) -> list[Evidence]:
        found = []
        for probe in probes:
            found.append(Evidence(probe, self.called(probe.point)))
            if bar is not None:
                bar.update(1)
            if len(found) == 1 and found[0].returned.gradient is None:
                break
        return found

    def _is_zero(self) -> bool:
        """Whether every gradient that was returned is 0, though some right one is not."""
        judged = [item for item in self.evidence if item.returned.finite]
        return (
            bool(judged)
            and not any(np.any(item.returned.gradient) for item in judged)
            and Search(self.own, self.objective, self.evidence).right() is None
        )

    def _search(self, measured: Sequence[Alteration] = ()) -> Search:
        return Search(self.own, self.objective, self.evidence, self.coarsest, measured)

    def _explanation(self) -> tuple[Explanation | None, tuple[str, ...]]:
        found = self._found(self._from_values())
        # Rows at the probe points are within a few units of the kink: a mask that ends farther out looks missing there.
        if not found or (any("mask_missing" in one.causes for one in found) and ends_far_away(self._meter)):
            found = self._from_curve()
        for seed in range(2, 2 + _TIE_ROUNDS):
            if len(found) <= 1:
                break
            more = tie_breakers(self.own, self.objective, self.fixed_rows, seed, self.weighing)
            judge = Search(self.own, self.objective, self._judged(more), self.coarsest)
            found = [one for one in found if judge.precision_of(one.recipe, one.reading) is not None] or found
        if len(found) > 1:
            return None, tuple(sorted(one.cause for one in found))
        return (found[0] if found else None), ()

    def _found(self, measured: list[Alteration]) -> list[Explanation]:
        """Explanations, the ordinary reading of the function first; what a reading supposes is tested by calls."""
        search = self._search(measured)
        found = search.explanations()
        if not found:
            self.coarsest = self._working_precision()
            if self.coarsest != "float32":
                found = self._search(measured).explanations()
        several = len(self.own.x) > 1
        if several and any(one.recipe.factors is not None for one in found):
            # A size in proportion to n may be a count that is taken from elsewhere.
            outside = search.explanations("rows_outside", most_causes=len(found[0].causes) - 1)
            if outside and len(outside[0].causes) < len(found[0].causes):
                return outside
        if not found and several:
            self.coarsest = "float32"
            found = search.explanations("rows_outside")
            if not found and self._same_after(lambda x: -x):
                found = search.explanations("data_outside")
        return found

    def _from_values(self) -> list[Alteration]:
        """The mistake that the kink of a loss is, read off its values."""
        if self.patient.kink is None:
            return []
        measured = threshold_alteration(self.patient.kink, self.objective, of_a_loss=True)
        return [] if measured is None else [measured]

    @cached_property
    def _meter(self) -> Meter:
        return Meter(self.own, self.objective, self.called, self.fixed_rows)

    @cached_property
    def _curve(self) -> Curve | None:
        return measured_curve(self._meter)

    def _from_curve(self) -> list[Explanation]:
        """Explanations by a kink at another margin, as the push of one row shows it."""
        if self._curve is None:
            return []
        threshold = measured_threshold(self._curve, self._meter)
        if threshold is None:
            return []
        of_a_loss = self.patient.is_loss or all(item.returned.loss is not None for item in self.evidence[:3])
        measured = threshold_alteration(threshold, self.objective, of_a_loss=of_a_loss)
        if measured is None:
            return []
        beside = beside_measured(self.own, self.objective, threshold, self.fixed_rows, self.weighing)
        self.evidence += self._judged(probe for probe in beside if self._conclusive(probe))
        return self._search([measured]).explanations()

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
        if explanation is not None and len(odd) < len(self.evidence):
            causes |= set(explanation.causes)
        if not causes and any(item.returned.trouble == "raised" and item.probe.own_data for item in self.evidence):
            causes = {"raised"}
        # That no bias came back is said anyway; as a cause it would claim that the weights are right.
        if explanation is None and causes <= {"bias_gradient_missing"}:
            causes = {"unknown"}
        return sorted(causes)

    def _excused(self, item: Evidence, explanation: Explanation) -> bool:
        """Whether the mistake itself divides by a count of 0 at this point."""
        if explanation.recipe.divisor != "active":
            return False
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


def _rounded(x: Array, bits: int) -> Array:
    """The nearest numbers with so many significant binary digits."""
    fraction, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.round(np.ldexp(fraction, bits)), exponent - bits))
