"""The report: a diagnosis as text."""

from __future__ import annotations

import textwrap

import numpy as np

from jaxhinge._diagnose._facts import Comparison, Facts
from jaxhinge._diagnose._measured import SHOWN, Curve

_WIDTH = 92
_MOST_COORDINATES = 4

_TRY_NEXT = (
    "Try next: call it with one row and one feature and compare by hand; then without the regulariser (l2=0); then "
    "with the bias at 0. The first step at which it is right holds the mistake."
)


def report(diagnosis: Facts) -> str:
    """Verdict, cause, numbers, rows, the line to change."""
    parts = [_verdict(diagnosis)]
    parts += [_filled(finding) for finding in diagnosis.findings]
    if diagnosis.comparison is not None and not diagnosis.ok:
        parts.append(_table(diagnosis.comparison))
    if diagnosis.curve is not None:
        parts.append(_curve(diagnosis.curve))
    if len(diagnosis.kink_rows):
        parts.append(textwrap.fill(_kink_rows(diagnosis), _WIDTH))
    if diagnosis.mends:
        parts.append("Change:\n" + "\n".join(f"    {mend}" for mend in diagnosis.mends))
    if diagnosis.num_points == 0:
        return "\n\n".join(parts)
    if diagnosis.cause == "unknown":
        parts.append(textwrap.fill(_TRY_NEXT, _WIDTH))
    parts.append(
        f"Judged at {diagnosis.num_points} points with {diagnosis.num_calls} calls, to {diagnosis.precision} rounding."
    )
    return "\n\n".join(parts)


def _filled(finding: str) -> str:
    """The sentences in lines of equal width; a line of code stays one line, to be copied."""
    told, mark, code = finding.partition(" Adapt it: ")
    return textwrap.fill(told + mark.rstrip(), _WIDTH) + (f"\n    {code.removesuffix('.')}" if mark else "")


def _verdict(diagnosis: Facts) -> str:
    if diagnosis.ok and diagnosis.loss_ok is False:
        return "RIGHT GRADIENT, WRONG LOSS: a valid gradient at every point tried, but the loss is another."
    if diagnosis.ok:
        return "RIGHT: a valid gradient at every point tried."
    if diagnosis.num_points == 0:
        return "NOT JUDGED."
    if diagnosis.cause == "unknown":
        return "WRONG: not a valid gradient, and none of the known causes explains it."
    return f"WRONG: {diagnosis.cause}"


def _table(shown: Comparison) -> str:
    """The worst coordinates: what was returned beside what is valid."""
    off = np.abs(shown.returned - shown.nearest)
    order = np.argsort(-off, kind="stable")[:_MOST_COORDINATES]
    lines = [f"At {shown.where} ({shown.size}):", f"    {'coordinate':<12}{'returned':>14}    expected"]
    for index in order:
        low, high = shown.low[index], shown.high[index]
        wide = high - low > 2.0 * shown.tolerance[index]
        expected = f"between {low:.6g} and {high:.6g}" if wide else f"{shown.nearest[index]:.6g}"
        mark = "" if off[index] > shown.tolerance[index] else "    (agrees)"
        lines.append(f"    {shown.names[index]:<12}{shown.returned[index]:>14.6g}    {expected}{mark}")
    left = len(off) - len(order)
    return "\n".join(lines + ([f"    ... and {left} more coordinates, not worse"] if left > 0 else []))


def _kink_rows(diagnosis: Facts) -> str:
    def one(row: int, fraction: float) -> str:
        return f"{row}" if np.isnan(fraction) else f"{row} (takes {fraction:.3g})"

    rows = list(zip(diagnosis.kink_rows, diagnosis.kink_fractions, strict=True))
    listed = ", ".join(one(int(row), float(fraction)) for row, fraction in rows[:8])
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    return f"Rows on the kink at your params, where any fraction in [0, 1] of the push is valid: {listed}{more}."


def _curve(curve: Curve) -> str:
    """The measured push at a few margins, beside the right one."""
    one_label = bool(np.all(curve.other == curve.returned))
    heads = ["your function"] if one_label else ["label +1", "label -1"]
    lines = ["The push of one row alone:", f"    {curve.variable:>9}" + "".join(f"{head:>15}" for head in heads)]
    lines[1] += f"{'right':>10}"
    for wanted in SHOWN:
        at = int(np.argmin(np.abs(curve.places - wanted)))
        values = [curve.returned[at]] if one_label else [curve.returned[at], curve.other[at]]
        row = f"    {curve.places[at]:>9.4g}" + "".join(f"{value + 0.0:>15.4g}" for value in values)
        lines.append(row + f"{curve.right[at] + 0.0:>10.4g}")
    return "\n".join(lines)
