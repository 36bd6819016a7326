"""What was found, written down as a `Diagnosis`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxhinge._diagnose._causes import advice
from jaxhinge._diagnose._diagnosis import Diagnosis
from jaxhinge._diagnose._evidence import Evidence, Explanation
from jaxhinge._diagnose._findings import comparison, differing_rows, kink_note, puzzled, reading_note, trouble_notes
from jaxhinge._diagnose._kinks import choice, fractions, narrow_band
from jaxhinge._diagnose._measured import Curve
from jaxhinge._diagnose._objective import Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import Recipe
from jaxhinge._diagnose._returned import Returned
from jaxhinge._diagnose._search import Search
from jaxhinge._diagnose._source import quoted_line, uses_autograd
from jaxhinge._diagnose._values import loss_finding
from jaxhinge._diagnose._violations import rows_on_kink


class Account(NamedTuple):
    """The verdict and what stands behind it."""

    causes: list[str]
    explanation: Explanation | None
    alternatives: tuple[str, ...] = ()
    curve: Curve | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """Everything that the report is written from.

    Attributes:
      function: What the caller wrote.
      is_loss: Whether that is a loss.
      own: The caller's point.
      objective: What was stated.
      evidence: The probe points and what was returned there.
      called: Calls the function once more.
    """

    function: Callable[..., Any]
    is_loss: bool
    own: Point
    objective: Objective
    evidence: list[Evidence]
    called: Callable[[Point], Returned]


def written(account: Account, case: Case, num_calls: Callable[[], int]) -> Diagnosis:
    """The diagnosis."""
    causes, explanation = account.causes, account.explanation
    precision = explanation.precision if explanation else Search(case.own, case.objective, case.evidence).start
    compared = comparison(case.evidence, case.objective, precision, right=not causes)
    rows = rows_on_kink(case.own, case.objective, precision)
    first = case.evidence[0]
    taken = choice(case.evidence, case.objective, precision) if not causes else ""
    recipe = explanation.recipe if explanation else Recipe()
    in_a_loss = case.is_loss or uses_autograd(case.function)
    told = [advice(cause, recipe, case.own, case.objective, in_a_loss=in_a_loss) for cause in causes]
    loss = loss_finding(case.evidence, case.own, case.objective, explanation.reading if explanation else "as_given")
    findings = [one.sentence for one in told]
    findings += [quoted_line(case.function, cause) for cause in causes]
    right = explanation is not None and not explanation.causes
    findings += trouble_notes(case.evidence, right=right) + reading_note(explanation)
    if not causes:
        findings.append(kink_note(taken, narrow_band(case.evidence, case.objective)))
    elif explanation is not None:
        findings.append(differing_rows(case.evidence, case.objective, explanation, compared))
    elif causes != ["gradient_zero"]:
        findings += _alternatives(account) + puzzled(case.evidence, case.objective, precision, case.called)
    if loss and not (case.is_loss and causes):
        subject = "The gradient is right, but the loss" if not causes else "The loss"
        findings.append(f"{subject} that it returns is not the stated one: {loss}.")
    return Diagnosis(
        ok=not causes,
        cause="+".join(causes) or "none",
        findings=tuple(filter(None, findings)),
        mends=tuple(one.mend for one in told if one.mend),
        kink_rows=rows,
        kink_fractions=fractions(first, case.objective, precision, rows)
        if first.probe.point is case.own
        else np.full(len(rows), np.nan),
        kink_choice=taken,
        alternatives=account.alternatives,
        comparison=compared,
        precision=precision,
        num_calls=num_calls(),
        num_points=len(case.evidence),
        loss_ok=None if loss is None else not loss,
        curve=account.curve,
    )


def _alternatives(account: Account) -> list[str]:
    if not account.alternatives:
        return []
    return ["These fit equally well, and no probe point tells them apart: " + ", ".join(account.alternatives) + "."]


def without_numbers(first: Returned, own: Point, objective: Objective, num_calls: int) -> Diagnosis:
    """The answer where no gradient came back."""
    rows = rows_on_kink(own, objective, "float64")
    return Diagnosis(
        ok=False,
        cause=first.trouble,
        findings=(first.detail,),
        kink_rows=rows,
        kink_fractions=np.full(len(rows), np.nan),
        num_calls=num_calls,
        num_points=1,
    )


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
