"""The mistakes: each is a cause and the parts of the right recipe that it replaces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jaxhinge._diagnose._point import Objective, Point
from jaxhinge._diagnose._probes import LADDER

# Parts that `pairs_by_label` has no use for.
_OF_A_ROW = {"slope", "margin_labels", "push_labels"}


@dataclass(frozen=True)
class Alteration:
    """One mistake, or two together.

    Attributes:
      causes: The names to report, in alphabetical order.
      changes: The parts of `Recipe` that differ.
      fitted: Whether the strength of the regulariser is read off the returned gradients.
    """

    causes: tuple[str, ...]
    changes: dict[str, Any]

    @property
    def fitted(self) -> bool:
        """Whether the strength of the regulariser is unknown beforehand."""
        return self.changes.get("shrinkage") == "fitted"

    def joined(self, other: Alteration) -> Alteration | None:
        """Both mistakes, or None where they replace the same part or are one cause."""
        if set(self.changes) & set(other.changes) or set(self.causes) & set(other.causes):
            return None
        changes = {**self.changes, **other.changes}
        if changes.get("rows") == "pairs_by_label" and (set(changes) & _OF_A_ROW or changes.get("mask") == "all"):
            # Its pushes are +1 and -1; and where every pair pushes it is a plain sum.
            return None
        return Alteration(tuple(sorted(self.causes + other.causes)), changes)


def alterations(own: Point, objective: Objective) -> list[Alteration]:
    """Every single mistake that can be made with this objective."""
    family = _binary if objective.family == "binary" else _multiclass
    found = [*_averaging(), *_regularizer(objective), *_bias(), *_masks(objective), *_slopes(objective)]
    found += [*_last_example(), *family(own, objective)]
    return [Alteration(tuple(cause.split("+")), changes) for cause, changes in found]


def pairs(singles: list[Alteration]) -> Iterator[Alteration]:
    """Every two mistakes that can be made together."""
    for index, first in enumerate(singles):
        for second in singles[index + 1 :]:
            joined = first.joined(second)
            if joined is not None and len(joined.causes) == 2:
                yield joined


_Found = Iterator[tuple[str, dict[str, Any]]]


def _averaging() -> _Found:
    yield "not_averaged", {"divisor": "one"}
    yield "averaged_over_active", {"divisor": "active"}
    yield "sign_flipped", {"data_sign": -1.0}
    yield "sign_flipped", {"whole_sign": -1.0}


def _regularizer(objective: Objective) -> _Found:
    if objective.l2 > 0.0:
        yield "regularizer_missing", {"shrinkage": "none"}
        yield "regularizer_doubled", {"shrinkage": "doubled"}
        yield "regularizer_halved", {"shrinkage": "halved"}
        yield "regularizer_averaged", {"shrinkage": "averaged"}
        yield "regularizer_times_n", {"shrinkage": "multiplied"}
        yield "regularizer_sign_flipped", {"shrinkage": "negative"}
        yield "regularizer_l1", {"shrinkage": "absolute"}
        yield "regularizer_norm_not_squared", {"shrinkage": "norm"}
        yield "bias_regularized", {"bias_shrinkage": "same"}
        yield "bias_regularized", {"bias_shrinkage": "l2"}
    yield "regularizer_unexpected", {"shrinkage": "fitted"}
    yield "bias_regularized+regularizer_unexpected", {"shrinkage": "fitted", "bias_shrinkage": "same"}


def _bias() -> _Found:
    yield "bias_gradient_missing", {"bias": "zero"}
    yield "bias_not_averaged", {"bias": "summed"}
    yield "weights_not_averaged", {"bias": "averaged_alone"}
    yield "bias_sign_flipped", {"bias": "flipped"}
    yield "weights_sign_flipped", {"data_sign": -1.0, "bias": "flipped"}
    yield "bias_missing_from_margin", {"margin_bias": 0.0}
    # Some books write the score as w . x - b.
    yield "bias_subtracted", {"margin_bias": -1.0}
    yield "bias_subtracted", {"margin_bias": -1.0, "bias": "flipped"}


def _masks(objective: Objective) -> _Found:
    yield "mask_inverted", {"mask": "inverted"}
    yield "mask_missing", {"mask": "all"}
    if objective.margin > 0.0:
        if objective.family != "crammer_singer":
            yield "threshold_at_zero", {"mask": "zero"}
        yield "margin_added_to_correct_class", {"mask": "shifted"}
        for low, high in pairwise(LADDER):
            yield "kink_tolerance_too_wide", {"mask": "outer_band", "band": (low, high)}
            yield "kink_tolerance_too_wide", {"mask": "half_band", "band": (low, high)}
            if high < objective.margin / 1.5:
                yield "kink_tolerance_too_wide", {"mask": "inner_band", "band": (low, high)}


def _slopes(objective: Objective) -> _Found:
    yield "squared_hinge", {"slope": "squared"}
    yield "squared_hinge", {"slope": "half_squared"}
    yield "logistic", {"slope": "logistic", "mask": "all"}
    if objective.family == "binary":
        yield "labels_zero_one+logistic", {"slope": "logistic_zero_one", "mask": "all"}


def _last_example() -> _Found:
    for rows in ("last", "last_row"):
        for divisor in ("rows", "one"):
            for bias_rows in ("same", "all"):
                yield "last_example_only", {"rows": rows, "divisor": divisor, "bias_rows": bias_rows}


def _binary(own: Point, objective: Objective) -> _Found:
    yield "label_missing", {"push_labels": "none"}
    yield "label_missing", {"push_labels": "none", "margin_labels": "none"}
    yield "label_missing_from_margin", {"margin_labels": "none"}
    for use in ("zero_one", "twice_minus_one"):
        yield "labels_zero_one", {"push_labels": use, "margin_labels": use}
        yield "labels_zero_one", {"push_labels": use}
        yield "labels_zero_one", {"margin_labels": use}
    for rows in ("pairs", "pairs_by_label"):
        for divisor in ("pairs", "rows", "one"):
            yield "broadcast_n_by_n", {"rows": rows, "divisor": divisor}


def _multiclass(own: Point, objective: Objective) -> _Found:
    yield "averaged_over_classes", {"divisor": "classes"}
    if own.num_classes > 2:
        yield "averaged_over_classes", {"divisor": "wrong_classes"}
    yield "label_count_forgotten", {"label_push": "forgotten"}
    if objective.family == "weston_watkins":
        yield "label_count_forgotten", {"label_push": "once"}
        yield "correct_class_not_excluded", {"label_push": "one_more"}
        yield "correct_class_not_excluded", {"label_push": "one_less"}
        yield "crammer_singer", {"rival": "largest"}
    else:
        yield "correct_class_not_excluded", {"rival": "largest_of_all"}
        yield "weston_watkins", {"rival": "every"}
    if own.w.shape[0] == own.w.shape[1]:
        yield "weights_transposed", {"layout": "transposed"}
        yield "weights_transposed", {"scores": "transposed"}
