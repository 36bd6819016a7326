"""A loss that the user wrote: its gradient, by JAX where it traces and by differences elsewhere, and its kink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._diagnose._point import Array, Objective, Point
from jaxhinge._diagnose._returned import Differences, WrongShape

_STEP = 1e-6
_GRID = np.arange(-3.0, 3.0 + 1e-9, 0.125)


def traces(loss: Callable[..., Any], own: Point) -> bool:
    """Whether JAX can differentiate the loss."""
    try:
        jax_gradient(loss)(*own.arguments())
    except Exception:
        # Whatever the reason is, differences need only values; a loss that fails there too is reported.
        return False
    return True


def jax_gradient(loss: Callable[..., Any]) -> Callable[..., tuple[Array, Array]]:
    """The gradient of a JAX loss in float64, whatever the default precision of the process is."""

    def gradient(w: Array, b: Array, x: Array, y: Any) -> tuple[Array, Array]:
        with jax.enable_x64(True):
            value, (dw, db) = jax.value_and_grad(loss, argnums=(0, 1))(*(jnp.asarray(part) for part in (w, b, x, y)))
            # A constant NaN has a gradient of zeros.
            spoilt = 0.0 if np.isfinite(float(value)) else np.nan
            return np.asarray(dw) + spoilt, np.asarray(db) + spoilt

    return gradient


def coarse(loss: Callable[..., Any], own: Point) -> bool:
    """Whether the values are float32, whatever type they come in: differences would drown in their rounding."""
    rng = np.random.default_rng(0)
    values = set[float]()
    try:
        for _ in range(4):
            w, b = rng.normal(size=own.w.shape), np.asarray(rng.normal(size=own.b.shape))
            values.add(_scalar(loss(w, b, own.x.copy(), own.y.copy())))
    except Exception:
        return False
    # A float64 has more digits, unless it is 0, a count or not finite.
    return sum(np.isfinite(value) and value % 0.125 != 0.0 for value in values) > 1 and all(
        not np.isfinite(value) or value == float(np.float32(value)) for value in values
    )


def difference_gradient(loss: Callable[..., Any]) -> Callable[..., Differences]:
    """The mean of the two one-sided differences of each coordinate; at a kink of all of them, fraction 1/2."""

    def gradient(w: Array, b: Array, x: Array, y: Any) -> Differences:
        def value(flat: Array) -> float:
            bias = flat[w.size :].reshape(b.shape)
            given = bias.copy()
            found = _scalar(loss(flat[: w.size].reshape(w.shape), bias, x.copy(), y.copy()))
            if b.ndim == 0 and bias != given:
                # `s = b; s += ...` is right for a number.
                return _scalar(loss(flat[: w.size].reshape(w.shape), given[()], x.copy(), y.copy()))
            return found

        at = np.concatenate([np.ravel(w), np.ravel(b)])
        steps = _STEP * np.maximum(1.0, np.abs(at))
        slopes = [
            (value(at + step * unit) - value(at - step * unit)) / (2.0 * step)
            for step, unit in zip(steps, np.eye(len(at)), strict=True)
        ]
        return Differences(np.reshape(slopes[: w.size], w.shape), np.reshape(slopes[w.size :], b.shape))

    return gradient


def _scalar(value: Any) -> float:
    array = np.asarray(value.detach() if hasattr(value, "detach") else value, dtype=np.float64)
    if array.size != 1:
        raise WrongShape(f"The loss returned an array of shape {array.shape}; return one number, e.g. losses.mean().")
    return float(array.reshape(()))


def kink_places(loss: Callable[..., Any], own: Point, objective: Objective) -> list[float]:
    """The margins at which the loss of a single row has a kink, to an eighth; binary losses only."""
    if objective.family != "binary":
        return []
    try:
        values = np.array(
            [
                _scalar(loss(np.zeros_like(own.w), np.asarray(place), np.zeros((1, len(own.w))), np.ones(1)))
                for place in _GRID
            ]
        )
    except Exception:
        return []
    if not np.all(np.isfinite(values)):
        return []
    bends = values[2:] - 2.0 * values[1:-1] + values[:-2]
    # A kink bends by the step times the jump of the slope; a smooth curve bends everywhere a little.
    places = _GRID[1:-1][bends > 0.25 * 0.125]
    return [float(place) for place in places] if len(places) <= 2 else []
