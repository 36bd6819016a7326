"""One mistake, or two together, as the parts of the right recipe that they replace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Parts that `pairs_by_label` has no use for.
_OF_A_ROW = {"slope", "margin_labels", "push_labels"}
_SIZES = {"divisor", "data_sign", "whole_sign", "shrinkage", "bias_shrinkage", "bias"}


@dataclass(frozen=True)
class Alteration:
    """One mistake, or two together.

    Attributes:
      causes: The names to report, in alphabetical order.
      changes: The parts of `Recipe` that differ.
    """

    causes: tuple[str, ...]
    changes: dict[str, Any]

    @property
    def of_size(self) -> bool:
        """Whether it only multiplies the data term, the regulariser or the bias by constants (or powers of `n`)."""
        return set(self.changes) <= _SIZES and self.changes.get("divisor") != "active"

    def joined(self, other: Alteration) -> Alteration | None:
        """Both mistakes, or None where they replace the same part or are one cause."""
        if set(self.changes) & set(other.changes) or set(self.causes) & set(other.causes):
            return None
        changes = {**self.changes, **other.changes}
        if "shift" in changes and changes.get("mask", "violating") != "violating":
            # Both say where the mask ends.
            return None
        if "score_sign" in changes and ("shift" in changes or changes.get("mask") in ("inverted", "all")):
            # Another mask with the sign of the push flipped is the same.
            return None
        if changes.get("rows") == "pairs_by_label" and (set(changes) & _OF_A_ROW or changes.get("mask") == "all"):
            # Its pushes are +1 and -1; and where every pair pushes it is a plain sum.
            return None
        return Alteration(tuple(sorted(self.causes + other.causes)), changes)


def pairs(singles: list[Alteration]) -> Iterator[Alteration]:
    """Every two mistakes that can be made together."""
    for index, first in enumerate(singles):
        yield from paired(first, singles[index + 1 :])


def paired(first: Alteration, others: list[Alteration]) -> Iterator[Alteration]:
    """This mistake with each of the others, where both can be made together."""
    for second in others:
        joined = first.joined(second)
        if joined is not None and len(joined.causes) == 2:
            yield joined
