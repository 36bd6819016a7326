"""What each cause means, in one sentence with its formula, and the line to change."""

from __future__ import annotations

from typing import NamedTuple

from jaxhinge._diagnose._point import Objective
from jaxhinge._diagnose._recipe import Recipe


class Advice(NamedTuple):
    """A sentence about what the function computes, and the code that mends it."""

    sentence: str
    mend: str


_COMMON = {
    "not_averaged": Advice(
        "The data term is the sum over the rows; the objective has the mean, 1/n of it.", "dw_data /= n; db /= n"
    ),
    "averaged_over_active": Advice(
        "The data term is divided by the number of rows that violate the margin; the mean divides by all n rows.",
        "dw_data = X[active].T @ push[active] / len(X)   # not X[active].mean(axis=0), not / active.sum()",
    ),
    "regularizer_missing": Advice(
        "The gradient of the regulariser is missing: l2 * w, the gradient of l2/2 ||w||^2.", "dw += l2 * w"
    ),
    "regularizer_doubled": Advice(
        "The regulariser gives 2 * l2 * w, the gradient of l2 ||w||^2; that of l2/2 ||w||^2 is l2 * w.",
        "dw += l2 * w   # or call diagnose with l2=2*l2, if l2 ||w||^2 is what you mean",
    ),
    "regularizer_halved": Advice(
        "The regulariser gives l2/2 * w; the gradient of l2/2 ||w||^2 is l2 * w.", "dw += l2 * w   # not l2 / 2 * w"
    ),
    "regularizer_averaged": Advice(
        "The regulariser is divided by n as well: l2/n * w. Only the data term is a mean.",
        "dw = dw_data / n + l2 * w   # add the regulariser after the division",
    ),
    "regularizer_times_n": Advice(
        "The regulariser is counted once for each row: n * l2 * w.", "dw = dw_data / n + l2 * w   # outside the loop"
    ),
    "regularizer_sign_flipped": Advice("The regulariser has the wrong sign: -l2 * w.", "dw += l2 * w"),
    "regularizer_l1": Advice(
        "The regulariser gives l2 * sign(w), the gradient of an L1 norm; that of l2/2 ||w||^2 is l2 * w.",
        "dw += l2 * w   # not l2 * np.sign(w)",
    ),
    "regularizer_norm_not_squared": Advice(
        "The regulariser gives l2 * w / ||w||, the gradient of l2 ||w||; that of l2/2 ||w||^2 is l2 * w.",
        "dw += l2 * w   # the norm is squared",
    ),
    "regularizer_unexpected": Advice(
        "The weights are regularised with {strength:.6g} * w, where l2={l2:g} was stated.",
        "diagnose(..., l2={strength:.6g})   # if it is meant; otherwise drop that term from dw",
    ),
    "bias_regularized": Advice(
        "The bias is regularised like a weight; the objective has l2/2 ||w||^2 without b.",
        "db = db_data   # without l2 * b",
    ),
    "bias_gradient_missing": Advice(
        "The bias gets no gradient from the data; its gradient is the mean of the pushes, without x.",
        "db = push.mean()   # push = -(margin < 1) * y",
    ),
    "bias_not_averaged": Advice(
        "The bias' gradient is the sum over the rows, while that of the weights is the mean.", "db /= n"
    ),
    "weights_not_averaged": Advice(
        "The weights' gradient is the sum over the rows, while that of the bias is the mean.", "dw_data /= n"
    ),
    "bias_sign_flipped": Advice("The gradient of the bias has the wrong sign.", "db = -db"),
    "weights_sign_flipped": Advice(
        "The data term of the weights' gradient has the wrong sign; that of the bias is right.", "dw_data = -dw_data"
    ),
    "bias_missing_from_margin": Advice(
        "The margin is computed without the bias: y * (x @ w).", "margin = y * (X @ w + b)"
    ),
    "bias_subtracted": Advice(
        "The score is taken as x @ w - b, the convention of some books; here it is x @ w + b.",
        "margin = y * (X @ w + b)   # and db = push.mean(), with this sign",
    ),
    "sign_flipped": Advice(
        "{sign_of} has the wrong sign: {sign_formula}, so a descent step would climb.", "{sign_mend}"
    ),
    "threshold_at_zero": Advice(
        "A row pushes only where it is misclassified (margin < 0); the hinge pushes wherever the margin is below 1.",
        "active = margin < 1",
    ),
    "mask_inverted": Advice(
        "The rows beyond the margin push and the violators do not: the comparison is the wrong way round.",
        "active = margin < 1",
    ),
    "mask_missing": Advice(
        "Every row pushes; only those with margin < 1 should.", "push = -y * (margin < 1)   # not -y alone"
    ),
    "margin_added_to_correct_class": Advice(
        "The required margin is on the wrong side: a row pushes where its margin is below -1 instead of 1.",
        "active = margin < 1",
    ),
    "kink_tolerance_too_wide": Advice("{band}", "active = margin < 1   # or <= 1; no tolerance is needed"),
    "squared_hinge": Advice(
        "Each push is multiplied by {square_factor}max(0, 1 - margin): the gradient of a squared hinge.",
        "push = -y * (margin < 1)   # not -{square_factor}y * np.maximum(0, 1 - margin)",
    ),
    "logistic": Advice(
        "Every row pushes by 1 / (1 + exp(margin)): the gradient of the logistic loss.", "push = -y * (margin < 1)"
    ),
    "last_example_only": Advice(
        "Only the last row that was met counts: an assignment where a sum is meant.", "dw += -y[i] * X[i]   # not dw ="
    ),
    "label_missing": Advice(
        "The label is left out of the gradient: rows push by -x_i, not -y_i x_i.", "push = -y * active"
    ),
    "label_missing_from_margin": Advice(
        "The label is left out of the margin: the mask is x @ w + b < 1.", "margin = y * (X @ w + b)"
    ),
    "labels_zero_one": Advice(
        "The labels are treated as 0 and 1: a label 0 pushes nothing, or 2*y - 1 is applied to -1 and +1.",
        "use y in {{-1, +1}} as given, without converting it",
    ),
    "broadcast_n_by_n": Advice(
        "Every label meets every score: (n,) against (n, 1) made an (n, n) array of margins.",
        "y = y.ravel(); scores = scores.ravel()   # before y * scores",
    ),
    "averaged_over_classes": Advice(
        "The data term is divided by the number of classes as well as by n.", "dW_data /= n   # not by the classes too"
    ),
    "label_count_forgotten": Advice(
        "The column of the label does not get -count_i * x_i, minus the number of violating classes.",
        "push[np.arange(n), y] = -violating.sum(axis=1)",
    ),
    "correct_class_not_excluded": Advice(
        "The label's own class takes part as if it were a wrong one.", "margins[np.arange(n), y] = 0"
    ),
    "weights_transposed": Advice("W or its gradient is transposed.", "scores = X @ W + b; dW = X.T @ push / n"),
    "crammer_singer": Advice(
        "Only the largest wrong class pushes (Crammer-Singer); every one that violates should (Weston-Watkins).",
        "push = (margins > 0).astype(float)   # or diagnose(..., loss_fn=jh.losses.multiclass_hinge_loss)",
    ),
    "weston_watkins": Advice(
        "Every violating class pushes (Weston-Watkins); only the largest should (Crammer-Singer).",
        "push = one_hot(margins.argmax(axis=1))   # or diagnose(..., loss_fn=jh.losses.weston_watkins_loss)",
    ),
    "gradient_accumulated": Advice(
        "Each call adds to the result of the one before: the same arguments give a growing gradient.",
        "dw = np.zeros_like(w)   # in torch: w.grad = None before backward()",
    ),
    "wrong_shape": Advice("What was returned does not have the shapes of w and b.", ""),
    "raised": Advice("The function raised an exception.", ""),
    "not_finite": Advice(
        "NaN or infinity was returned for finite arguments.",
        "check divisions by a count or a norm that may be 0, and exp of a large margin",
    ),
}
_MULTICLASS = {
    "threshold_at_zero": Advice(
        "A class pushes only where it scores above the label (s_j > s_y); it should wherever s_j + 1 > s_y.",
        "margins = scores - scores[np.arange(n), y][:, None] + 1",
    ),
    "mask_inverted": Advice(
        "The classes that keep the margin push and the violators do not.", "violating = margins > 0"
    ),
    "mask_missing": Advice("Classes push whether they violate the margin or not.", "violating = margins > 0"),
    "margin_added_to_correct_class": Advice(
        "The margin was added to the score of the label: a class pushes where s_j > s_y + 1 instead of s_j + 1 > s_y.",
        "margins = scores - scores[np.arange(n), y][:, None] + 1",
    ),
    "squared_hinge": Advice(
        "Each push is multiplied by {square_factor}max(0, 1 + s_j - s_y): the gradient of a squared hinge.",
        "push = (margins > 0).astype(float)",
    ),
    "logistic": Advice(
        "The push is softmax(scores) - one_hot(y): the gradient of cross-entropy.", "push = (margins > 0).astype(float)"
    ),
    "bias_gradient_missing": Advice("The bias gets no gradient from the data.", "db = push.sum(axis=0) / n"),
    "bias_missing_from_margin": Advice("The scores are computed without the bias: x @ W.", "scores = X @ W + b"),
    "bias_subtracted": Advice("The scores are taken as x @ W - b.", "scores = X @ W + b"),
    "kink_tolerance_too_wide": Advice("{band}", "violating = margins > 0"),
    "last_example_only": Advice(
        "Only the last row that was met counts: an assignment where a sum is meant.",
        "dW[:, j] += X[i]   # not dW[:, j] =",
    ),
}
_CRAMMER_SINGER = {
    "correct_class_not_excluded": Advice(
        "The largest class is sought among all, the label included with its margin, so a row pushes only where a wrong "
        "class scores above the label (a threshold of 0 gives the same gradient).",
        "margins[np.arange(n), y] = -np.inf   # before argmax",
    ),
    "label_count_forgotten": Advice(
        "The column of the label gets nothing: -x_i is missing there.", "push[np.arange(n), y] -= 1"
    ),
}


def advice(cause: str, recipe: Recipe, objective: Objective) -> Advice:
    """The sentence and the mend of one cause, with the numbers that were found."""
    table = dict(_COMMON)
    if objective.family != "binary":
        table.update(_MULTICLASS)
    if objective.family == "crammer_singer":
        table.update(_CRAMMER_SINGER)
    if cause not in table:
        return Advice("", "")
    low, high = recipe.band
    side, role = {
        "outer_band": ("outside", "count as violators"),
        "half_band": ("on both sides of", "push by half"),
    }.get(recipe.mask, ("inside", "count as satisfied"))
    whole = recipe.whole_sign < 0.0
    words = {
        "l2": objective.l2,
        "strength": recipe.strength,
        "square_factor": "2 * " if recipe.slope == "squared" else "",
        "sign_of": "The whole gradient" if whole else "The data term",
        "sign_formula": "+y_i x_i where -y_i x_i is meant" + (", and -l2 * w" if whole and objective.l2 else ""),
        "sign_mend": "return -dw, -db" if whole else "push = -y * active",
        "band": (
            f"Rows {side} the kink {role} up to a distance between {low:g} and {high:g}; a valid gradient "
            "leaves a choice at margin = 1 exactly, nowhere else."
        ),
    }
    sentence, mend = table[cause]
    return Advice(*(_in_units(text.format(**words), objective) for text in (sentence, mend)))


def _in_units(text: str, objective: Objective) -> str:
    """The formulas with the required margin that was asked for, where it is not 1."""
    if objective.margin == 1.0 or objective.family != "binary":
        return text
    asked = f"{objective.margin:g}"
    for old in ("margin < 1", "below 1", "instead of 1", "x @ w + b < 1", "margin = 1"):
        text = text.replace(old, old[:-1] + asked)
    return text.replace("1 - margin", f"{asked} - margin").replace("below -1", f"below -{asked}")
