"""What each cause means, in one sentence with its formula, and the line to change."""

from __future__ import annotations

from typing import NamedTuple

from jaxhinge._diagnose._loss_mends import LOSS_MENDS
from jaxhinge._diagnose._objective import Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import Factors, Part, Recipe
from jaxhinge._diagnose._sizes import described


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
        "The regulariser gives {half}l2 * sign(w), the gradient of an L1 norm; that of l2/2 ||w||^2 is l2 * w.",
        "dw += l2 * w   # not l2 * np.sign(w)",
    ),
    "regularizer_norm_not_squared": Advice(
        "The regulariser gives {half}l2 * w / ||w||, the gradient of a norm; that of l2/2 ||w||^2 is l2 * w.",
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
        "The labels are treated as 0 and 1: rows with a label of 0 do not push, or 2*y - 1 is applied to -1 and +1.",
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
    "data_scaled": Advice("The data term is {data} times what it should be.", "dw_data *= {mend}; db *= {mend}"),
    "bias_scaled": Advice("The data term of the bias is {bias} times what it should be.", "db = push.mean()"),
    "weights_scaled": Advice(
        "The data term of the weights is {data} times what it should be; that of the bias is right.",
        "dw_data = X.T @ push / n",
    ),
    "regularizer_scaled": Advice(
        "The regulariser is {shrinkage} times what it should be: {strength:.6g} * w, where {stated} * w is meant.",
        "dw += {stated} * w",
    ),
    "everything_scaled": Advice("{everything}", "dw *= {mend}; db *= {mend}"),
    "data_gradient_missing": Advice(
        "The data has no effect on the gradient: only the regulariser is there.", "dw += X.T @ push / n"
    ),
    "weights_gradient_missing": Advice(
        "The weights get no gradient from the data, though the bias does.", "dw += X.T @ push / n"
    ),
    "gradient_zero": Advice(
        "The gradient is 0 at every point that was tried: a graph that was cut (detach, item, float, a copy), or a "
        "loss that does not use the w and b that it is given.",
        "compute the loss from the w and b that are passed in, without detaching or converting them",
    ),
    "update_returned": Advice(
        "It returns the params after a step of gradient descent with learning rate {rate:.6g}, not the gradient.",
        "return dw, db   # and let the caller do w -= learning_rate * dw",
    ),
    "sample_weight_missing": Advice("The weights of the rows are not used.", "push = -sample_weight * y * active"),
    "sample_weight_not_normalized": Advice(
        "The weighted sum is divided by the number of rows; a weighted mean divides by the sum of the weights.",
        "dw_data /= sample_weight.sum(); db /= sample_weight.sum()   # not / n",
    ),
    "bias_regularizer_missing": Advice(
        "The bias is not regularised, where fit_intercept='regularized' was stated.", "db += l2 * b"
    ),
    "regularizer_skipped": Advice(
        "The regulariser is left out {skipped}.",
        "dw = l2 * w + dw_data   # once, whichever rows are active",
    ),
    "score_sign_flipped": Advice(
        "Margin and push are those of -score: a row pushes where 1 + margin > 0, and away from its label.",
        "margin = y * (X @ w + b); push = -y * (margin < 1)",
    ),
    "one_minus_missing": Advice(
        "It is the gradient of max(0, margin): the 1 - of max(0, 1 - margin) is missing.",
        "active = margin < 1; push = -y * active   # of max(0, 1 - margin)",
    ),
    "value_left_in_slope": Advice(
        "The push of a row is multiplied by its score or its loss; the slope of the hinge is 1, whatever its value.",
        "push = -y * active   # without the score or the loss",
    ),
    "label_missing_from_bias": Advice("{bias_label}", "margin = y * (X @ w + b); db = (-y * active).mean()"),
    "margins_summed": Advice(
        "One hinge is taken of the sum (or mean) of all margins: all rows push together, or none.",
        "active = margin < 1   # for each row by itself, before the sum",
    ),
    "max_over_rows": Advice(
        "A maximum over the rows is taken: only the row with the smallest margin pushes.",
        "loss = np.maximum(0, 1 - margin)   # np.max(..., 0) is a maximum over axis 0",
    ),
    "first_example_only": Advice(
        "Only the first row (or the first that violates) counts: a return inside the loop?",
        "return dw, db   # behind the loop, not inside it",
    ),
    "sum_reset_by_satisfied_row": Advice(
        "A row that keeps the margin sets the sum of the rows before it back to 0.",
        "if margin < 1: dw += -y[i] * X[i]   # and no else",
    ),
    "loop_left_too_early": Advice(
        "The rows behind the first one that keeps the margin are not met: a break where continue is meant.",
        "if margin >= 1: continue   # not break",
    ),
    "wrong_margin": Advice(
        "The kink is at margin {threshold:.6g}; it should be at margin {required:g}.", "active = margin < 1"
    ),
    "hinge": Advice("Every violator pushes by 1: the gradient of the plain hinge, not of {loss}.", "{own_slope}"),
    "epsilon_insensitive": Advice(
        "Every row outside the tube pushes by 1: the gradient of the plain loss, not of its square.",
        "push = -2 * np.sign(r) * np.maximum(0, abs(r) - epsilon)",
    ),
    "squared_epsilon_insensitive": Advice(
        "Each push is multiplied by {square_factor}its loss: the gradient of the squared loss.",
        "push = -np.sign(r) * (abs(r) > epsilon)",
    ),
    "residual_sign_flipped": Advice(
        "The two sides of the residual are exchanged: prediction - target where target - prediction is meant.",
        "residual = y - (X @ w + b)",
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
_MULTICLASS |= {
    "one_vs_rest": Advice(
        "Each class has a hinge of its own (one-vs-rest), with margins t * s for t = +1 at the label and -1 elsewhere; "
        "the stated loss compares the classes with the label.",
        "margins = scores - scores[np.arange(n), y][:, None] + 1   # or loss_fn=jh.losses.one_vs_rest_hinge_loss",
    ),
    "rival_sign_flipped": Advice(
        "The score of the wrong class enters with the wrong sign: 1 - s_y - s_j where 1 - s_y + s_j is meant.",
        "margins = scores - scores[np.arange(n), y][:, None] + 1",
    ),
    "score_sign_flipped": Advice(
        "Margins and pushes are those of -scores: a class pushes where s_y - s_j + 1 > 0.",
        "margins = scores - scores[np.arange(n), y][:, None] + 1   # s_j - s_y + 1",
    ),
    "one_minus_missing": Advice(
        "It is the gradient of max(0, s_y - s_j); the margin is 1 - (s_y - s_j).",
        "margins = scores - scores[np.arange(n), y][:, None] + 1",
    ),
    "value_left_in_slope": Advice(
        "The margins themselves are left in the push where their mask is meant.", "push = (margins > 0).astype(float)"
    ),
    "margins_summed": Advice(
        "One hinge is taken of a sum of margins; each margin has a hinge of its own.",
        "np.maximum(0, margins).sum()   # the maximum first, then the sum",
    ),
    "max_over_rows": Advice(
        "A maximum over the rows is taken, so that only the worst row counts.",
        "np.maximum(0, margins)   # np.max(margins, 0) is a maximum over axis 0",
    ),
    "label_column_overwritten": Advice(
        "The push of the label's column is overwritten: where the largest class is the label itself, +1 takes the "
        "place of -1.",
        "g[y] -= 1; g[margins.argmax()] += 1   # += and -=, and only where the margin is violated",
    ),
    "label_pushed_by_every_row": Advice(
        "Every row gives the column of its label -x_i, whether it violates the margin or not, and once only.",
        "push[np.arange(n), y] = -(margins > 0).sum(axis=1)",
    ),
    "rival_floored_at_zero": Advice(
        "The largest wrong score is never below 0: the score of the label was set to 0 before the maximum, not to "
        "-infinity.",
        "rivals[np.arange(n), y] = -np.inf   # before rivals.max(axis=1)",
    ),
    "weston_watkins": Advice(
        "Every class that violates the margin against the label pushes (Weston-Watkins).",
        "see the formula of the stated loss   # or diagnose(..., loss_fn=jh.losses.weston_watkins_loss)",
    ),
}
_CRAMMER_SINGER = {
    "weston_watkins": Advice(
        "Every violating class pushes (Weston-Watkins); only the largest should (Crammer-Singer).",
        "push = one_hot(margins.argmax(axis=1))   # or diagnose(..., loss_fn=jh.losses.weston_watkins_loss)",
    ),
    "correct_class_not_excluded": Advice(
        "The largest class is sought among all, the label included with its margin, so a row pushes only where a wrong "
        "class scores above the label (a threshold of 0 gives the same gradient).",
        "margins[np.arange(n), y] = -np.inf   # before argmax",
    ),
    "label_count_forgotten": Advice(
        "The column of the label gets no push: -x_i is missing there.", "push[np.arange(n), y] -= 1"
    ),
}
_REGRESSION = {
    "wrong_margin": Advice(
        "The tube ends at a residual of {tube:.6g}; it should end at epsilon = {epsilon:g}.",
        "active = abs(y - scores) > {epsilon:g}",
    ),
}


def advice(cause: str, recipe: Recipe, own: Point, objective: Objective, *, in_a_loss: bool = False) -> Advice:
    """The sentence and the mend of one cause, with the numbers that were found."""
    table = dict(_COMMON)
    if objective.multiclass:
        table.update(_MULTICLASS)
    if objective.family == "crammer_singer":
        table.update(_CRAMMER_SINGER)
    if objective.family == "regression":
        table.update(_REGRESSION)
    if cause not in table:
        return Advice("", "")
    sentence, mend = table[cause]
    if in_a_loss:
        mend = LOSS_MENDS.get(cause, mend)
    words = {**_words(recipe, objective), **_sizes(recipe, own, objective)}
    return Advice(*(_in_units(text.format(**words), objective) for text in (sentence, mend)))


def _words(recipe: Recipe, objective: Objective) -> dict[str, object]:
    """What the sentences say of the recipe."""
    (low, high), kink = recipe.band, objective.margin - recipe.shift
    side, role = {
        "outer_band": ("outside", "count as violators"),
        "half_band": ("on both sides of", "push by half"),
    }.get(recipe.mask, ("inside", "count as satisfied"))
    band = (
        f"Rows {side} the kink {role} up to a distance between {low:g} and {high:g}; a valid gradient "
        "leaves a choice at margin = 1 exactly, nowhere else."
    )
    if recipe.shift:
        band = (
            f"Rows outside the kink count as violators up to margin {kink:.6g}; a valid gradient leaves a "
            "choice at margin = 1 exactly, nowhere else."
        )
    whole = recipe.whole_sign < 0.0 or (recipe.factors is not None and recipe.factors.shrinkage.factor < 0.0)
    outside = "the margin is y * (x @ w) + b" if recipe.bias_outside_label else "db lacks the factor y_i"
    return {
        "l2": objective.l2,
        "stated": "1" if objective.C is not None else "l2",
        "strength": recipe.strength,
        "loss": objective.name,
        "required": objective.margin,
        "threshold": kink,
        "epsilon": abs(objective.margin),
        "tube": abs(kink),
        "half": "1/2 * " if recipe.shrinkage == "halved" else "",
        "skipped": {
            "each_violating": "for each row that keeps the margin: it is added with the violators, in the loop",
            "each_satisfied": "for each row that violates the margin: it is added with the others, in the loop",
        }.get(recipe.shrinkage_rows, "where no row violates the margin"),
        "square_factor": "2 * " if recipe.slope == "squared" else "",
        "sign_of": "The whole gradient" if whole else "The data term",
        "sign_formula": "+y_i x_i where -y_i x_i is meant" + (", and -l2 * w" if whole and objective.l2 else ""),
        "sign_mend": "return -dw, -db" if whole else "push = -y * active",
        "band": band,
        "bias_label": f"The label does not reach the bias: {outside}.",
        "own_slope": _own_slope(objective),
    }


def _own_slope(objective: Objective) -> str:
    if objective.slope == "smooth":
        return f"push = -y * np.clip((1 - margin) / {objective.width:g}, 0, 1)"
    return "push = -2 * y * np.maximum(0, 1 - margin)"


def _sizes(recipe: Recipe, own: Point, objective: Objective) -> dict[str, object]:
    """What the sentences say of fitted sizes."""
    factors = recipe.factors or Factors(Part(), Part(), Part(), 0.0)
    data, l2 = factors.data, objective.l2 or 1.0
    shrinkage = Part(factors.shrinkage.factor / l2, factors.shrinkage.power)
    size = Part(abs(data.factor), data.power)
    everything = f"The whole gradient is {described(size, own, objective)} times a valid gradient."
    if objective.C is None and objective.l2 > 0.0 and not data.power and abs(data.factor * objective.l2 - 1.0) < 1e-6:
        C = 1.0 / (objective.l2 * own.rows)
        everything += (
            f" The form 1/2 ||w||^2 + C sum loss looks so, with C = 1/(l2 n) = {C:.6g}; if that is what you mean, say "
            "C=... in place of l2=..."
        )
    return {
        "data": described(size, own, objective),
        "bias": described(factors.bias, own, objective),
        "shrinkage": described(shrinkage, own, objective),
        "everything": everything,
        "mend": f"{1.0 / size.factor if size.factor else 1.0:.6g}" + {1: " / n", 0: "", -1: " * n"}[data.power],
        "rate": -data.factor,
    }


def _in_units(text: str, objective: Objective) -> str:
    """The formulas with the loss of a residual, or with the required margin that was asked for, where it is not 1."""
    if objective.family == "regression":
        pinball = "np.maximum(q * r, (q - 1) * r)"
        loss = pinball if objective.margin == 0.0 else f"np.maximum(0, abs(r) - {-objective.margin:g})"
        return text.replace("np.maximum(0, 1 - margin)", loss)
    if objective.margin == 1.0 or objective.family != "binary":
        return text
    asked = f"{objective.margin:g}"
    for old in ("margin < 1", "below 1", "instead of 1", "x @ w + b < 1", "margin = 1"):
        text = text.replace(old, old[:-1] + asked)
    return text.replace("1 - margin", f"{asked} - margin").replace("below -1", f"below -{asked}")
