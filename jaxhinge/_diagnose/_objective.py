"""The objective that a gradient is judged against, as the caller states it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jaxhinge import losses
from jaxhinge._base.values import check_number

Array = npt.NDArray[np.float64]
Family = Literal["binary", "regression", "weston_watkins", "crammer_singer", "one_vs_rest"]
Intercept = Literal["free", "regularized", "none"]


@dataclass(frozen=True)
class Objective:
    """Mean loss plus `l2/2 ||w||^2`, or `1/2 ||w||^2 + C sum loss`.

    Every loss here is a sum of terms in `z`: the required margin minus a margin `sign * (score - offset)`. Such a term
    pushes where `z > 0`.

    Attributes:
      family: What the terms of a row are: one margin, two sides of a residual, or margins between classes.
      margin: The required margin; `-epsilon` for the two sides of a residual.
      l2: The factor of `w` in the gradient; 1 in the form with `C`.
      name: The name of the loss, for sentences.
      slope: The derivative in `z` where `z > 0`: 1, `2 z`, or `z / width` up to 1.
      width: The width of the smooth hinge.
      sides: The factors of a positive and of a negative residual.
      C: The factor of the sum in that form, else None.
      intercept: Whether there is a bias, and whether the regulariser includes it.
    """

    family: Family
    margin: float
    l2: float
    name: str = "hinge_loss"
    slope: Literal["hinge", "squared", "smooth"] = "hinge"
    width: float = 1.0
    sides: tuple[float, float] = (1.0, 1.0)
    C: float | None = None
    intercept: Intercept = "free"

    @property
    def multiclass(self) -> bool:
        """Whether there is a score for each class."""
        return self.family not in ("binary", "regression")

    @property
    def span(self) -> float:
        """The distance between the kink and a margin of 0, in which rows are right but push; 1 for a residual."""
        return 1.0 if self.family == "regression" else self.margin


_L = losses
_FAMILIES: dict[Callable[..., Any], Objective] = {
    _L.hinge_loss: Objective("binary", 1.0, 0.0),
    _L.squared_hinge_loss: Objective("binary", 1.0, 0.0, slope="squared"),
    _L.smooth_hinge_loss: Objective("binary", 1.0, 0.0, slope="smooth"),
    _L.perceptron_loss: Objective("binary", 0.0, 0.0),
    _L.weston_watkins_loss: Objective("weston_watkins", 1.0, 0.0),
    _L.multiclass_hinge_loss: Objective("crammer_singer", 1.0, 0.0),
    _L.multiclass_perceptron_loss: Objective("crammer_singer", 0.0, 0.0),
    _L.one_vs_rest_hinge_loss: Objective("one_vs_rest", 1.0, 0.0),
    _L.epsilon_insensitive_loss: Objective("regression", -0.1, 0.0),
    _L.squared_epsilon_insensitive_loss: Objective("regression", -0.1, 0.0, slope="squared"),
    _L.pinball_loss: Objective("regression", 0.0, 0.0, sides=(0.5, 0.5)),
}
# Options that choose among the valid gradients; they do not change the set of them.
_CHOICES = {"subgradient", "kink_tol", "ties"}
_ACCEPTED = {
    _L.smooth_hinge_loss: {"margin", "width"},
    _L.epsilon_insensitive_loss: {"epsilon"},
    _L.squared_epsilon_insensitive_loss: {"epsilon"},
    _L.pinball_loss: {"quantile"},
}


def objective_of(loss_fn: Callable[..., Any], l2: Any, C: Any = None, fit_intercept: Any = True) -> Objective:
    """The objective that these stand for; refuses a loss whose valid gradients are not known here."""
    strength = check_number("l2", l2, meaning="one real number, at least 0", valid=lambda value: value >= 0.0)
    factor = None
    if C is not None:
        factor = check_number("C", C, meaning="one real number, above 0", valid=lambda value: value > 0.0)
        if strength:
            raise ValueError(
                f"State either l2 or C; got l2={strength:g} and C={factor:g}. "
                "They are two forms: mean loss + l2/2 ||w||^2, and 1/2 ||w||^2 + C sum loss."
            )
        strength = 1.0
    intercepts: dict[Any, Intercept] = {True: "free", False: "none", "regularized": "regularized"}
    if not isinstance(fit_intercept, (bool, np.bool_, str)) or fit_intercept not in intercepts:
        raise ValueError(f'fit_intercept must be True, False or "regularized"; got {fit_intercept!r}.')
    return replace(_stated(loss_fn), l2=strength, C=factor, intercept=intercepts[fit_intercept])


def _stated(loss_fn: Callable[..., Any]) -> Objective:
    base, options = loss_fn, dict[str, Any]()
    while isinstance(base, functools.partial):
        options = {**base.keywords, **options}
        base = base.func
    known = _FAMILIES.get(base) if callable(base) else None
    if known is None or set(options) - _CHOICES - _ACCEPTED.get(base, {"margin"}):
        names = ", ".join(f"jaxhinge.losses.{function.__name__}" for function in _FAMILIES)
        raise ValueError(
            f"loss_fn must be one of {names}, or a functools.partial of one that sets margin, width, epsilon or "
            f"quantile; got {loss_fn!r}."
        )
    known = replace(known, name=base.__name__)
    if "margin" in options:
        known = replace(known, margin=_at_least_zero("margin", options["margin"]))
    if "epsilon" in options:
        known = replace(known, margin=-_at_least_zero("epsilon", options["epsilon"]))
    if "width" in options:
        width = check_number("width", options["width"], meaning="one number above 0", valid=lambda value: value > 0.0)
        known = replace(known, width=width)
    if "quantile" in options:
        q = check_number("quantile", options["quantile"], meaning="one number in (0, 1)", valid=lambda v: 0.0 < v < 1.0)
        known = replace(known, sides=(q, 1.0 - q))
    return known


def _at_least_zero(name: str, value: Any) -> float:
    number = float(value)
    if not (np.isfinite(number) and number >= 0.0):
        raise ValueError(f"{name} must be finite and at least 0; got {number!r}.")
    return number
