"""A loss that the user wrote: its gradient, by JAX where it traces and by differences elsewhere, and its kink."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._diagnose._calls import FAILURES, Calling
from jaxhinge._diagnose._compiled import ROUNDING, agree, at_point, unrolls
from jaxhinge._diagnose._objective import Array, Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._returned import Differences, WrongShape, numbers

_STEP = 1e-6
# More weights than this are not all judged by differences.
_MOST_WEIGHTS = 600
# The number of weights that is judged then.
_KEPT_WEIGHTS = 100
_GRID = np.arange(-3.0, 3.0 + 1e-9, 0.125)


def traced_gradient(loss: Callable[..., Any], own: Point, calling: Calling) -> Callable[..., Any] | None:
    """Value and gradient in float64, whatever the default precision is; None where JAX cannot differentiate the loss.

    A loss in NumPy gives a NumPy number for NumPy arguments; then JAX is left out, which would compile for it.
    """
    places = (0, 1) if calling.passes_bias else (0,)

    def differentiated(*arguments: Any, **options: Any) -> Any:
        return jax.value_and_grad(loss, argnums=places)(*map(jnp.asarray, arguments), **options)

    try:
        value = at_point(loss, own, calling)
        if not isinstance(value, jax.Array):
            return None
        function: Callable[..., Any] = jax.jit(differentiated)
        if not (agree(value, at_point(loss, own, calling), 0.0) and _compiles(function, value, own, calling)):
            function = differentiated
            with jax.enable_x64(True):
                at_point(function, own, calling)
    except FAILURES:
        # Whatever the reason is, differences need only values; a loss that fails there too is reported.
        return None

    def gradient(*arguments: Any, **options: Any) -> Any:
        with jax.enable_x64(True):
            value, found = function(*arguments, **options)
            # A constant NaN has a gradient of zeros.
            spoilt = 0.0 if np.isfinite(float(value)) else np.nan
            return float(value), *(np.asarray(part) + spoilt for part in found)

    return gradient


def _compiles(differentiated: Callable[..., Any], value: jax.Array, own: Point, calling: Calling) -> bool:
    """Whether a compiled gradient comes with this value at the caller's point, and is worth compiling."""
    try:
        with jax.enable_x64(True):
            if unrolls(differentiated, own, calling):
                return False
            found = at_point(differentiated, own, calling)[0]
    except FAILURES:
        return False
    return agree(value, found, ROUNDING)


def coarse(loss: Callable[..., Any], own: Point, calling: Calling) -> bool:
    """Whether the values are float32, whatever type they come in: differences would drown in their rounding."""
    rng = np.random.default_rng(0)
    values = set[float]()
    try:
        for _ in range(4):
            b = np.asarray(rng.normal(size=own.b.shape)) * calling.intercept
            arguments, options = calling.arguments(replace(own, w=rng.normal(size=own.w.shape), b=b))
            values.add(scalar(loss(*arguments, **options)))
    except FAILURES:
        return False
    # A float64 has more digits, unless it is 0, a count or not finite.
    return sum(np.isfinite(value) and value % 0.125 != 0.0 for value in values) > 1 and all(
        not np.isfinite(value) or value == float(np.float32(value)) for value in values
    )


def narrower(loss: Callable[..., Any], own: Point, calling: Calling) -> Point | None:
    """The caller's point with its first features only, where there are very many and the loss takes fewer."""
    if own.w.size <= _MOST_WEIGHTS:
        return None
    kept = max(2, _KEPT_WEIGHTS // own.num_classes)
    narrow = replace(own, w=own.w[:kept], x=own.x[:, :kept])
    try:
        arguments, options = calling.arguments(narrow)
        scalar(loss(*arguments, **options))
    except FAILURES:
        # A loss of a fixed width is judged in full, however long that takes.
        return None
    return narrow


def difference_gradient(loss: Callable[..., Any], calling: Calling) -> Callable[..., Differences]:
    """The mean of the two one-sided differences of each coordinate; at a kink of all of them, fraction 1/2."""

    def gradient(*arguments: Any, **options: Any) -> Differences:
        def data() -> list[Any]:
            return [np.array(part) for part in others] if writes else others

        def value(parts: list[Array]) -> float:
            given = [part.copy() for part in parts]
            found = scalar(loss(*given, *data(), **options))
            if len(parts) == 2 and parts[1].ndim == 0 and given[1] != parts[1]:
                # `s = b; s += ...` is right for a number.
                found = scalar(loss(parts[0].copy(), parts[1][()], *data(), **options))
            return found

        count = 2 if calling.passes_bias else 1
        params = [np.array(part, dtype=np.float64) for part in arguments[:count]]
        # Copies of many rows take longer than most losses: they are made only for a loss that writes into them.
        others, writes = list(arguments[count:]), True
        kept = [np.array(part) for part in others]
        loss(*(part.copy() for part in params), *kept, **options)
        writes = not all(np.array_equal(part, before) for part, before in zip(kept, others, strict=True))
        slopes = [_slopes(value, params, place) for place in range(count)]
        return Differences(slopes[0], slopes[1] if count == 2 else np.zeros(()), value(params))

    return gradient


def _slopes(value: Callable[[list[Array]], float], params: list[Array], place: int) -> Array:
    """Central differences in every coordinate of one of the parameters."""
    slopes = np.zeros(params[place].shape)
    for index in np.ndindex(slopes.shape):
        ends = []
        at = float(params[place][index])
        step = _STEP * max(1.0, abs(at))
        for end in (at + step, at - step):
            moved = [part.copy() for part in params]
            moved[place][index] = end
            ends.append(value(moved))
        slopes[index] = (ends[0] - ends[1]) / (2.0 * step)
    return slopes


def scalar(value: Any) -> float:
    """The loss as a number; raises `WrongShape`."""
    if isinstance(value, (tuple, list)):
        told = "return the loss alone, or give a function that returns its gradient as well to jaxhinge.diagnose."
        raise WrongShape(f"The loss returned {len(value)} parts; {told}")
    if value is None:
        raise WrongShape("It returned None. Is the return statement missing?")
    array, _ = numbers("The loss", value)
    if array.size != 1:
        raise WrongShape(f"The loss returned an array of shape {array.shape}; return one number, e.g. losses.mean().")
    return float(array.reshape(()))


def _one_row(loss: Callable[..., Any], own: Point, calling: Calling, place: float, label: float) -> float:
    w, b, x = np.zeros_like(own.w), np.asarray(label * place), np.zeros((1, len(own.w)))
    if not calling.intercept:
        w[0], b, x[0, 0] = label * place, np.zeros(()), 1.0
    weight = None if own.weight is None else np.ones(1)
    arguments, options = calling.arguments(Point(w, b, x, np.array([label]), 1.0, weight))
    return scalar(loss(*arguments, **options))


def kink_places(loss: Callable[..., Any], own: Point, objective: Objective, calling: Calling) -> list[float]:
    """The margins at which the loss of a single row has a kink, to an eighth or better; binary losses only."""
    if objective.family != "binary":
        return []
    # Without a bias the margin is a weight, and the regulariser bends the curve; it is known.
    bent = 0.5 * objective.l2 * _GRID**2 if objective.intercept != "free" else 0.0 * _GRID
    try:
        values = np.array([_one_row(loss, own, calling, place, 1.0) for place in _GRID]) - bent
    except FAILURES:
        return []
    if not np.all(np.isfinite(values)):
        return []
    exact = _of_a_hinge(values)
    if exact is not None:
        return [exact]
    bends = values[2:] - 2.0 * values[1:-1] + values[:-2]
    # A kink bends by the step times the jump of the slope; a smooth curve bends everywhere a little.
    places = _GRID[1:-1][bends > 0.25 * 0.125]
    return [float(place) for place in places] if len(places) <= 2 else []


def _of_a_hinge(values: Array) -> float | None:
    """The kink of `slope * max(0, kink - margin)` plus a constant; None where the values are of another kind."""
    slope = (values[0] - values[1]) / (_GRID[1] - _GRID[0])
    if slope <= 0.0 or values[-2] != values[-1]:
        return None
    kink = _GRID[0] + (values[0] - values[-1]) / slope
    right = slope * np.maximum(0.0, kink - _GRID) + values[-1]
    if not np.allclose(values, right, rtol=0.0, atol=1e-9 * abs(slope)):
        return None
    return float(np.round(kink, 9)) + 0.0
