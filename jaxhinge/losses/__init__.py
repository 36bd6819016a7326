"""Every loss of the hinge family, per example, through one positive part and one max over classes.

The first argument is differentiable; options are keyword-only. `subgradient` chooses the derivative
on the kink and `kink_tol` how near counts as on it. No reduction is applied: take the mean, or use
`jaxhinge.loss`.
"""

from jaxhinge.losses._binary import hinge_loss, perceptron_loss, smooth_hinge_loss, squared_hinge_loss
from jaxhinge.losses._multiclass import (
    multiclass_hinge_loss,
    multiclass_perceptron_loss,
    one_vs_rest_hinge_loss,
    weston_watkins_loss,
)
from jaxhinge.losses._multilabel import multilabel_margin_loss
from jaxhinge.losses._ranking import hinge_embedding_loss, margin_ranking_loss, triplet_margin_loss
from jaxhinge.losses._regression import (
    epsilon_insensitive_loss,
    pinball_loss,
    squared_epsilon_insensitive_loss,
)

__all__ = [
    "epsilon_insensitive_loss",
    "hinge_embedding_loss",
    "hinge_loss",
    "margin_ranking_loss",
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "multilabel_margin_loss",
    "one_vs_rest_hinge_loss",
    "perceptron_loss",
    "pinball_loss",
    "smooth_hinge_loss",
    "squared_epsilon_insensitive_loss",
    "squared_hinge_loss",
    "triplet_margin_loss",
    "weston_watkins_loss",
]
