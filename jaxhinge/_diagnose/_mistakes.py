"""The known mistakes: which parts of the right recipe each of them replaces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from jaxhinge._diagnose._alterations import Alteration
from jaxhinge._diagnose._objective import Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._probes import LADDER

_Found = Iterator[tuple[str, dict[str, Any]]]
# A mask that ends farther inside the kink than this is measured instead.
_WIDEST_INNER_BAND = 0.1


def alterations(own: Point, objective: Objective) -> list[Alteration]:
    """Every single mistake that can be made with this objective."""
    families = {"binary": _binary, "regression": _regression}
    found = [*_averaging(own, objective), *_regularizer(objective), *_slopes(objective), *_rows()]
    if objective.intercept != "none":
        found += _bias(objective)
    if objective.family != "regression":
        found += _masks(objective)
    found += families.get(objective.family, _multiclass)(objective)
    if objective.multiclass and own.w.shape[0] == own.w.shape[1]:
        found += [("weights_transposed", {"layout": "transposed"}), ("weights_transposed", {"scores": "transposed"})]
    if objective.multiclass and own.num_classes > 2:
        found.append(("averaged_over_classes", {"divisor": "wrong_classes"}))
    return [Alteration(tuple(cause.split("+")), changes) for cause, changes in found]


def _averaging(own: Point, objective: Objective) -> _Found:
    if objective.C is None:
        yield "not_averaged", {"divisor": "one"}
    yield "averaged_over_active", {"divisor": "active"}
    yield "sign_flipped", {"data_sign": -1.0}
    yield "sign_flipped", {"whole_sign": -1.0}
    if own.weight is not None:
        yield "sample_weight_missing", {"weights": "none", **({"divisor": "count"} if objective.C is None else {})}
        if objective.C is None:
            yield "sample_weight_not_normalized", {"divisor": "count"}
            yield "not_averaged+sample_weight_missing", {"weights": "none", "divisor": "one"}


def _regularizer(objective: Objective) -> _Found:
    if objective.l2 == 0.0:
        return
    yield "regularizer_missing", {"shrinkage": "none"}
    yield "regularizer_doubled", {"shrinkage": "doubled"}
    yield "regularizer_halved", {"shrinkage": "halved"}
    yield "regularizer_averaged", {"shrinkage": "averaged"}
    yield "regularizer_times_n", {"shrinkage": "multiplied"}
    yield "regularizer_sign_flipped", {"shrinkage": "negative"}
    for direction, cause in (("signs", "regularizer_l1"), ("unit", "regularizer_norm_not_squared")):
        # Of l2/2 times the norm as well: its square alone was forgotten.
        for shrinkage in ("l2", "halved"):
            yield cause, {"direction": direction, "shrinkage": shrinkage}
    yield "regularizer_norm_not_squared", {"direction": "unit_too"}
    yield "regularizer_skipped", {"shrinkage_rows": "any_violating"}
    # A row always violates one of the sides of a residual that leave no room between them.
    if objective.family != "regression" or objective.margin < 0.0:
        yield "regularizer_skipped", {"shrinkage_rows": "each_violating"}
        yield "regularizer_skipped", {"shrinkage_rows": "each_satisfied"}
    if objective.intercept == "free":
        yield "bias_regularized", {"bias_shrinkage": "same"}
        yield "bias_regularized", {"bias_shrinkage": "l2"}
    elif objective.intercept == "regularized":
        yield "bias_regularizer_missing", {"bias_shrinkage": "none"}


def _bias(objective: Objective) -> _Found:
    yield "bias_gradient_missing", {"bias": "zero"}
    if objective.C is None:
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
    # Margin and push of the negative score; and the same with the right push.
    yield "score_sign_flipped", {"score_sign": -1.0, "data_sign": -1.0}
    yield "mask_inverted", {"score_sign": -1.0}
    if objective.margin == 0.0:
        return
    if objective.family != "crammer_singer":
        yield "threshold_at_zero", {"shift": objective.margin}
    flipped = {"mask": "inverted", "shift": objective.margin}
    if objective.slope == "hinge":
        yield "one_minus_missing", {**flipped, "data_sign": -1.0}
        yield "mask_inverted+threshold_at_zero", flipped
    else:
        # The slope of a square has the sign of what is squared.
        yield "one_minus_missing", flipped
    yield "margin_added_to_correct_class", {"shift": 2.0 * objective.margin}
    if objective.slope != "hinge":
        return
    for low, high in pairwise(LADDER):
        yield "kink_tolerance_too_wide", {"mask": "outer_band", "band": (low, high)}
        yield "kink_tolerance_too_wide", {"mask": "half_band", "band": (low, high)}
        if high < min(_WIDEST_INNER_BAND, objective.margin / 1.5):
            yield "kink_tolerance_too_wide", {"mask": "inner_band", "band": (low, high)}


def _slopes(objective: Objective) -> _Found:
    residual = objective.family == "regression"
    if objective.slope != "squared":
        name = "squared_epsilon_insensitive" if residual else "squared_hinge"
        yield name, {"slope": "squared"}
        yield name, {"slope": "half_squared"}
    if objective.slope != "hinge":
        yield "epsilon_insensitive" if residual else "hinge", {"slope": "hinge"}
    if not residual:
        yield "logistic", {"slope": "logistic", "mask": "all"}
    if objective.family == "binary":
        yield "labels_zero_one+logistic", {"slope": "logistic_zero_one", "mask": "all"}
    if not objective.multiclass:
        yield "value_left_in_slope", {"slope": "times_score"}
        yield "value_left_in_slope", {"slope": "times_margin"}


def _rows() -> _Found:
    for rows in ("last", "last_row"):
        for divisor in ("own", "one"):
            for bias_rows in ("same", "all"):
                yield "last_example_only", {"rows": rows, "divisor": divisor, "bias_rows": bias_rows}
    for divisor in ("own", "one"):
        for rows in ("first", "first_row"):
            yield "first_example_only", {"rows": rows, "divisor": divisor}
        for mask in ("violating", "all"):
            yield "max_over_rows", {"rows": "worst", "divisor": divisor, "mask": mask}
    for rows, cause in (("since_reset", "sum_reset_by_satisfied_row"), ("until_satisfied", "loop_left_too_early")):
        yield cause, {"rows": rows}


def _binary(objective: Objective) -> _Found:
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
    if objective.intercept != "none":
        yield "label_missing_from_bias", {"bias_outside_label": True}
        yield "label_missing_from_bias", {"bias_outside_label": True, "bias_label": False}
        yield "label_missing_from_bias", {"bias_label": False}
    yield from _one_hinge_of_all()


def _one_hinge_of_all() -> _Found:
    for rows in ("one_mask_of_sum", "one_mask_of_mean"):
        for divisor in ("own", "one"):
            yield "margins_summed", {"rows": rows, "divisor": divisor, "mask": "violating"}


def _regression(objective: Objective) -> _Found:
    if objective.sides != (0.5, 0.5) and objective.sides[0] != objective.sides[1]:
        yield "residual_sign_flipped", {"score_sign": -1.0, "data_sign": -1.0}


def _multiclass(objective: Objective) -> _Found:
    yield "averaged_over_classes", {"divisor": "classes"}
    yield from _one_hinge_of_all()
    if objective.family == "one_vs_rest":
        yield "weston_watkins", {"rival": "every"}
        yield "crammer_singer", {"rival": "largest"}
        return
    yield "label_count_forgotten", {"label_push": "forgotten"}
    yield "one_vs_rest", {"rival": "one_vs_rest"}
    yield "margins_summed", {"rival": "summed"}
    yield "label_pushed_by_every_row", {"label_push": "every_row"}
    for push in (-1.0, 1.0):
        yield "rival_sign_flipped", {"rival_sign": -1.0, "rival_push": push}
    yield from (_weston_watkins if objective.family == "weston_watkins" else _crammer_singer)(objective)


def _weston_watkins(objective: Objective) -> _Found:
    yield "label_count_forgotten", {"label_push": "once"}
    yield "correct_class_not_excluded", {"label_push": "one_more"}
    yield "correct_class_not_excluded", {"label_push": "one_less"}
    yield "crammer_singer", {"rival": "largest"}
    yield "value_left_in_slope", {"slope": "half_squared", "label_push": "number_of_rivals"}
    yield "value_left_in_slope", {"slope": "half_squared", "label_push": "every_row"}
    for divisor in ("own", "one"):
        yield "max_over_rows", {"rows": "worst_of_class", "divisor": divisor}
    for rival, cause in _RIVALS:
        yield f"crammer_singer+{cause}", {"rival": rival}
    yield "crammer_singer+label_column_overwritten", {"rival": "overwritten_argmax", "mask": "all"}


_RIVALS = (
    ("largest_of_all", "correct_class_not_excluded"),
    ("overwritten", "label_column_overwritten"),
    ("overwritten_argmax", "label_column_overwritten"),
    ("floored", "rival_floored_at_zero"),
    ("floored_label", "rival_floored_at_zero"),
)


def _crammer_singer(objective: Objective) -> _Found:
    yield "weston_watkins", {"rival": "every"}
    for push in (-1.0, 1.0):
        # The largest score is found first, and enters with the wrong sign then.
        yield "rival_sign_flipped", {"rival": "largest_score", "rival_sign": -1.0, "rival_push": push}
    for rival, cause in _RIVALS:
        yield cause, {"rival": rival}
    if objective.margin > 0.0:
        yield "label_column_overwritten", {"rival": "overwritten_argmax", "mask": "all"}
