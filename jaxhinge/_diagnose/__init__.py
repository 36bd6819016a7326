"""The gradient doctor: is a hinge gradient right and, if not, why?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxhinge._diagnose._diagnosis import Diagnosis
from jaxhinge._diagnose._examine import Examination
from jaxhinge._diagnose._point import checked_point, objective_of
from jaxhinge.losses import hinge_loss

__all__ = ["Diagnosis", "assert_valid_gradient", "diagnose"]


def diagnose(
    grad_fn: Callable[..., Any],
    params: Any,
    x: Any,
    y: Any,
    *,
    l2: Any = 0.0,
    loss_fn: Callable[..., Any] = hinge_loss,
) -> Diagnosis:
    """TODO"""
    if not callable(grad_fn):
        raise TypeError(f"grad_fn must be a function grad_fn(w, b, x, y); got {type(grad_fn).__name__}.")
    objective = objective_of(loss_fn, l2)
    return Examination(grad_fn, checked_point(params, x, y, objective), objective).diagnosis()


def assert_valid_gradient(*args, **kw):
    d = diagnose(*args, **kw)
    if not d.ok:
        raise AssertionError(str(d))
