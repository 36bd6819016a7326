"""The losses by what their second argument is, for those who check it."""

from __future__ import annotations

import functools
from typing import Any

from jaxhinge.losses._binary import hinge_loss, perceptron_loss, smooth_hinge_loss, squared_hinge_loss
from jaxhinge.losses._multiclass import (
    multiclass_hinge_loss,
    multiclass_perceptron_loss,
    one_vs_rest_hinge_loss,
    weston_watkins_loss,
)
from jaxhinge.losses._multilabel import multilabel_margin_loss
from jaxhinge.losses._regression import (
    epsilon_insensitive_loss,
    pinball_loss,
    squared_epsilon_insensitive_loss,
)

_Family = set[Any]

BINARY: _Family = {hinge_loss, squared_hinge_loss, smooth_hinge_loss, perceptron_loss}
MULTICLASS: _Family = {
    multiclass_hinge_loss,
    weston_watkins_loss,
    one_vs_rest_hinge_loss,
    multiclass_perceptron_loss,
}
MULTILABEL: _Family = {multilabel_margin_loss}
REGRESSION: _Family = {epsilon_insensitive_loss, squared_epsilon_insensitive_loss, pinball_loss}


def unwrapped(loss_fn: Any) -> Any:
    """The loss inside any `functools.partial`."""
    while isinstance(loss_fn, functools.partial):
        loss_fn = loss_fn.func
    return loss_fn


def is_one_of(loss_fn: Any, family: _Family) -> bool:
    """Whether a loss, inside any `functools.partial`, is of a family; a loss of the user's own need not hash."""
    return any(unwrapped(loss_fn) is known for known in family)
