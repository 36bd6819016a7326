"""A JAX function compiled as a whole: operation by operation, JAX compiles each anew for every number of rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxhinge._base.precision import eps
from jaxhinge._diagnose._calls import FAILURES, Calling
from jaxhinge._diagnose._point import Point

# `ROUNDING`: two orders of summation differ by less than so many units of rounding, relative to the largest entry.
ROUNDING = 256.0
# A program of more operations takes longer to compile than its operations one by one.
_MOST_OPERATIONS = 500


def compiled(function: Callable[..., Any], own: Point, calling: Calling) -> Callable[..., Any]:
    """The function compiled where that changes nothing: else the function as it is.

    It must return the same twice, trace, and return the same when compiled; so a function that keeps a state is not.
    """
    if hasattr(function, "lower"):
        # Compiled by its author.
        return function
    fast = jax.jit(function)
    try:
        first = at_point(function, own, calling)
        steady = agree(first, at_point(function, own, calling), 0.0) and not unrolls(fast, own, calling)
        return fast if steady and agree(first, at_point(fast, own, calling), ROUNDING) else function
    except FAILURES:
        # Whatever the reason is, the function as it stands is judged and reported.
        return function


def unrolls(fast: Any, own: Point, calling: Calling) -> bool:
    """Whether Python loops make the program long: over rows, so that it grows with them, or over anything else.

    It would take long to compile. Operation by operation it is compiled for one turn of the loop.
    """
    twice = replace(
        own,
        x=np.concatenate([own.x, own.x]),
        y=np.concatenate([own.y, own.y]),
        weight=None if own.weight is None else np.concatenate([own.weight, own.weight]),
    )
    lengths = set()
    for point in (own, twice):
        arguments, options = calling.arguments(point)
        lengths.add(len(fast.trace(*arguments, **options).jaxpr.eqns))
    return len(lengths) > 1 or max(lengths) > _MOST_OPERATIONS


def at_point(function: Callable[..., Any], point: Point, calling: Calling) -> Any:
    """What a function returns at a point, as it is."""
    arguments, options = calling.arguments(point)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def agree(first: Any, second: Any, units: float) -> bool:
    """Whether two results have the same arrays, up to so many units of rounding of the first."""
    structure: Any = jax.tree.structure(first)
    alike = map(partial(_near, units), jax.tree.leaves(first), jax.tree.leaves(second))
    return bool(structure == jax.tree.structure(second)) and all(alike)


def _near(units: float, first: jax.Array, second: jax.Array) -> bool:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    finite = np.where(np.isfinite(a), np.abs(a), 0.0)
    allowed = units * eps(first.dtype) * np.max(finite, initial=0.0) if a.size and units else 0.0
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=0.0, atol=allowed, equal_nan=True))
