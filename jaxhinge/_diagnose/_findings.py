"""Sentences about what was noticed, and the numbers to show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxhinge._diagnose._binary import binary_pushes
from jaxhinge._diagnose._evidence import Evidence, Explanation
from jaxhinge._diagnose._facts import Comparison
from jaxhinge._diagnose._gradients import GradientSet, gradient_sets
from jaxhinge._diagnose._measured import rows_are_mixed
from jaxhinge._diagnose._objective import Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import PRECISIONS, Recipe
from jaxhinge._diagnose._returned import Returned
from jaxhinge._diagnose._violations import violations

_MOST_ROWS = 6


def valid_set(item: Evidence, objective: Objective, precision: str) -> GradientSet:
    """The valid gradients at a probe point."""
    return gradient_sets(item.probe.point, objective, Recipe(), precision)[0]


def comparison(evidence: list[Evidence], objective: Objective, precision: str, *, right: bool) -> Comparison | None:
    """The numbers at the caller's params; or, where those are right, at the smallest point where they are not."""
    judged = [item for item in evidence if item.returned.finite]
    if not judged:
        return None
    chosen = judged[0]
    if not right:
        wrong = [item for item in judged if not _is_valid(item, objective, precision)]
        if wrong and chosen is not wrong[0]:
            chosen = min(wrong, key=lambda item: (not item.probe.own_data, len(item.probe.point.x)))
    allowed, point, gradient = valid_set(chosen, objective, precision), chosen.probe.point, chosen.returned.gradient
    assert gradient is not None
    low, high = allowed.bounds()
    shown = slice(0, point.w.size if objective.intercept == "none" else None)
    return Comparison(
        where=chosen.probe.name,
        names=tuple(_names(point))[shown],
        returned=gradient[shown],
        nearest=allowed.nearest(gradient)[shown],
        low=low[shown],
        high=high[shown],
        tolerance=allowed.tolerance[shown],
        size=f"n = {len(point.x)}, d = {len(point.w)}" + (f", k = {point.num_classes}" if point.w.ndim == 2 else ""),
    )


def _is_valid(item: Evidence, objective: Objective, precision: str) -> bool:
    gradient = item.returned.gradient
    return gradient is not None and item.returned.finite and valid_set(item, objective, precision).contains(gradient)


def _names(point: Point) -> list[str]:
    if point.w.ndim == 1:
        return [f"w[{feature}]" for feature in range(len(point.w))] + ["b"]
    d, k = point.w.shape
    return [f"w[{i}, {j}]" for i in range(d) for j in range(k)] + [f"b[{j}]" for j in range(k)]


def trouble_notes(evidence: list[Evidence], *, right: bool) -> list[str]:
    """What went wrong besides the numbers, which are right or not."""
    notes = [evidence[0].returned.detail] if evidence[0].returned.trouble else []
    if notes and right:
        notes.append("Its numbers are those of a valid gradient.")
    for item in evidence[1:]:
        if item.returned.gradient is None:
            notes.append(f"At another point ({item.probe.name}, n = {len(item.probe.point.x)}): {item.returned.detail}")
            break
    odd = [item for item in evidence if item.returned.gradient is not None and not item.returned.finite]
    if odd:
        names = ", ".join(dict.fromkeys(item.probe.name for item in odd[:4]))
        notes.append(f"NaN or infinity at {len(odd)} of {len(evidence)} points: {names}.")
    wrote = sorted({name for item in evidence for name in item.returned.wrote_to})
    if wrote:
        judged = (
            " It was judged with b as a plain number." if "b" in wrote and not evidence[0].probe.point.b.ndim else ""
        )
        notes.append(f"The function writes into its argument {' and '.join(wrote)}; work on a copy.{judged}")
    return notes


def reading_note(explanation: Explanation | None) -> list[str]:
    """What the function takes from outside its arguments."""
    if explanation is None or explanation.reading == "as_given":
        return []
    if explanation.reading == "rows_outside":
        return ["It divides by your number of rows whatever x it is given: n is taken from outside, not from len(x)."]
    return ["It ignores the x and y that it is given and uses data from outside; it was judged on your rows only."]


def kink_note(taken: str, band: float | None) -> str:
    """What a valid gradient does on the kink."""
    choices = {
        "0": "A row exactly on the margin does not push (fraction 0, as margin < 1 or relu do).",
        "1": "A row exactly on the margin pushes in full (fraction 1, as margin <= 1 or torch.clamp do).",
        "1/2": "A row exactly on the margin pushes by half (fraction 1/2, as jnp.maximum and torch.maximum do).",
        "mixed": "On the kink the fraction differs from row to row, or from point to point; any is valid.",
    }
    note = choices.get(taken, "")
    if band is not None:
        note += (
            f" Rows outside the margin by {band:g} are counted in: a tolerance, narrower than the rounding of a "
            "float32 margin and so harmless."
        )
    return note.strip()


def differing_rows(
    evidence: list[Evidence], objective: Objective, explanation: Explanation, compared: Comparison | None
) -> str:
    """The rows whose push is not what it should be, at the point that is shown."""
    if compared is None or objective.family != "binary" or explanation.recipe.rows != "all":
        return ""
    item = next(item for item in evidence if item.probe.name == compared.where and item.returned.finite)
    unit = PRECISIONS[explanation.precision]
    taken = binary_pushes(item.probe.point, objective, explanation.recipe, unit)[0]
    right = binary_pushes(item.probe.point, objective, Recipe(), unit)[0]
    on_kink = {row for row, _ in taken.groups + right.groups}
    rows = [row for row in np.flatnonzero(np.any(taken.fixed != right.fixed, axis=1)) if row not in on_kink]
    if not rows:
        return ""
    margins = objective.margin - violations(item.probe.point, objective)[0][:, 0]
    given, wanted = taken.fixed[:, 0] + 0.0, right.fixed[:, 0] + 0.0
    listed = "; ".join(
        f"row {row} (margin {margins[row]:.4g}) by {given[row]:.3g} instead of {wanted[row]:.3g}"
        for row in rows[:_MOST_ROWS]
    )
    more = f"; and {len(rows) - _MOST_ROWS} more" if len(rows) > _MOST_ROWS else ""
    return f"Rows that push differently there, as factors of x_i: {listed}{more}."


def puzzled(
    evidence: list[Evidence], objective: Objective, precision: str, called: Callable[[Point], Returned]
) -> list[str]:
    """What may help where no cause fits."""
    judged = [item for item in evidence if item.returned.finite]
    if not judged:
        return []
    wrong = [item for item in judged if not _is_valid(item, objective, precision)]
    notes = _repeated(wrong or judged, objective, precision, called)
    if wrong and len(wrong) < len(judged):
        fine = dict.fromkeys(item.probe.name for item in judged if item not in wrong)
        bad = dict.fromkeys(item.probe.name for item in wrong)
        notes.append(f"Valid at: {', '.join(fine)}. Not valid at: {', '.join(bad)}.")
    return notes + _mixed(judged, objective, precision, called)


def _mixed(
    judged: list[Evidence], objective: Objective, precision: str, called: Callable[[Point], Returned]
) -> list[str]:
    """Whether rows are right one at a time and wrong together."""

    def valid(point: Point) -> bool:
        gradient = called(point).gradient
        allowed = gradient_sets(point, objective, Recipe(), precision)[0]
        return gradient is not None and bool(np.all(np.isfinite(gradient))) and allowed.contains(gradient)

    several = [item.probe.point for item in judged if item.probe.smooth and len(item.probe.point.x) > 1]
    if several and rows_are_mixed(several[0], valid):
        return [
            "Each of two rows alone has the right gradient, both together have not: rows are mixed before the hinge "
            "is taken, or the reduction over the rows is wrong."
        ]
    return []


def _repeated(
    items: list[Evidence], objective: Objective, precision: str, called: Callable[[Point], Returned]
) -> list[str]:
    item = next((one for one in items if one.probe.smooth), items[0])
    again = called(item.probe.point)
    if again.gradient is None or item.returned.gradient is None:
        return []
    tolerance = valid_set(item, objective, precision).tolerance
    if np.any(np.abs(again.gradient - item.returned.gradient) > 4.0 * tolerance):
        return [
            "Two calls with the same arguments differ, away from any kink: randomness or state that is kept "
            "between calls (gradients not reset to zero?)."
        ]
    returned = [one.returned.gradient for one in items if one.returned.gradient is not None]
    if len(returned) > 2 and all(np.array_equal(one, returned[0]) for one in returned):
        return ["The same gradient comes back at every point: the arguments are ignored, or the first result is kept."]
    return []
