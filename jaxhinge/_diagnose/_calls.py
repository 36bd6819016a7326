"""Calls of the caller's function, with its arguments as it takes them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._objective import Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._returned import Returned, WrongShape, read
from jaxhinge._diagnose._signatures import no_suggestion, required, roles, suggested_call, takes_weights
from jaxhinge._diagnose._source import users_line

# `FAILURES`: what the caller's function may end with. Were `SystemExit` let through, `exit()` would end the caller.
FAILURES = (Exception, SystemExit)


@dataclass(frozen=True)
class Calling:
    """What the function is given.

    Attributes:
      labels: What the caller calls the labels, in order; None where they are as usual.
      intercept: Whether the model has a bias.
      passes_bias: Whether the function has a place for it.
      weights: The keyword for the weights of the rows, "" for a fifth argument, None where they are not passed.
      suggest: A sentence with the line that adapts the caller's function.
    """

    labels: npt.NDArray[Any] | None = None
    intercept: bool = True
    passes_bias: bool = True
    weights: str | None = None
    suggest: Callable[..., str] = no_suggestion

    def arguments(self, point: Point, *, bias_as_number: bool = False) -> tuple[list[Any], dict[str, Any]]:
        """Copies, so that a function that writes into its arguments leaves the point as it is."""
        y = point.y.copy()
        if self.labels is not None:
            y = self.labels[(y > 0.0).astype(int) if y.dtype.kind == "f" else y]
        b = point.b.copy()
        parts = [point.w.copy(), *([b[()] if bias_as_number else b] if self.passes_bias else []), point.x.copy(), y]
        if self.weights is None:
            return parts, {}
        weight = point.weights.copy()
        return (parts, {self.weights: weight}) if self.weights else ([*parts, weight], {})


def calling_of(
    function: Callable[..., Any],
    objective: Objective,
    labels: npt.NDArray[Any] | None,
    *,
    weighted: bool,
    is_loss: bool = False,
) -> Calling:
    """How to call the function: by its signature, where it has one."""
    intercept = objective.intercept != "none"
    wanted = required(function)
    name = takes_weights(function) if weighted else None
    own = 4 if intercept else 3
    # A function of four arguments takes the bias, though the model has none, unless x is its second (`W, X, y, reg`).
    passes_bias = intercept or (wanted == 4 and name is None and roles(function)[1] != "x")
    weights = name
    if weighted and name is None and wanted == own + 1:
        weights, passes_bias = "", intercept
    door = "diagnose_loss" if is_loss else "diagnose"
    return Calling(labels, intercept, passes_bias, weights, partial(suggested_call, function, door=door))


def call(
    function: Callable[..., Any],
    point: Point,
    calling: Calling,
    *,
    bias_as_number: bool = False,
    bias_first: bool = False,
) -> Returned:
    """Call the function on copies of a point and read what it returns."""
    arguments, options = calling.arguments(point, bias_as_number=bias_as_number)
    before, _ = calling.arguments(point)
    try:
        # Warnings of the caller's function, thirty times over, would only hide the report.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = function(*arguments, **options)
            result = read(value, point, intercept=calling.intercept, bias_first=bias_first)
    except WrongShape as error:
        return Returned(None, trouble="wrong_shape", detail=str(error) + calling.suggest())
    except FAILURES as error:
        told = f"It raised {type(error).__name__}: {error}{users_line(error)}."
        # `if y * score < 1` is right for one row.
        shape = {"row_by_row": True} if "ambiguous" in str(error) else {}
        if point.w.ndim == 2 and _runs(function, [point.w.T.copy(), *calling.arguments(point)[0][1:]], options):
            shape = {"classes_first": True}
        return Returned(None, trouble="raised", detail=told + calling.suggest(**shape))
    names = ("w", "b", "x", "y") if calling.passes_bias else ("w", "x", "y")
    wrote = [name for name, old, new in zip(names, before, arguments, strict=False) if not np.array_equal(old, new)]
    return replace(result, wrote_to=tuple(wrote), in_jax=_in_jax(value))


def _in_jax(value: Any) -> bool:
    """Whether all of a value are JAX arrays."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return bool(value) and all(map(_in_jax, value))
    return isinstance(value, jax.Array)


def _runs(function: Callable[..., Any], arguments: list[Any], options: dict[str, Any]) -> bool:
    """Whether the function takes these arguments."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(*arguments, **options)
    except FAILURES:
        return False
    return True
