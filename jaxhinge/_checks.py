"""Shape, dtype, label and value checks, each with a message that names the mend.

Shapes and dtypes are known while JAX traces, so those checks run everywhere. Values are known only
on the host: the checks of values take NumPy arrays and belong to `fit`, `solve`, `sweep` and
`diagnose`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_REAL = "real numbers (floats, or integers, which are converted)"


def as_array(name: str, value: Any) -> jax.Array:
    """Bring lists, NumPy arrays, data frames and tracers to a JAX array; refuse what is not numeric."""
    if isinstance(value, jax.Array):
        return value
    try:
        if not isinstance(value, (bool, int, float, list, tuple)) and not hasattr(value, "__jax_array__"):
            value = np.asarray(value)
        return jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} must be {_REAL}; got {type(value).__name__}: {error}") from error


def float_array(name: str, value: Any) -> jax.Array:
    """A floating array of the same precision; integers become the default float, the rest is refused."""
    array = as_array(name, value)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array
    if jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(jnp.result_type(float))
    raise TypeError(f"{name} must be {_REAL}; got dtype {array.dtype}. Convert it first, e.g. {name}.astype(float).")


def feature_array(name: str, value: Any) -> jax.Array:
    """Like `float_array`, but boolean features (indicator columns) count as 0 and 1."""
    array = as_array(name, value)
    return array.astype(jnp.result_type(float)) if array.dtype == jnp.bool_ else float_array(name, array)


def label_array(name: str, value: Any) -> jax.Array:
    """An integer array of class labels `0..k-1`."""
    array = as_array(name, value)
    if jnp.issubdtype(array.dtype, jnp.integer):
        return array
    raise TypeError(
        f"{name} must be integer class labels 0..k-1; got dtype {array.dtype}. "
        f"Map them first, e.g. classes, {name} = np.unique({name}, return_inverse=True)."
    )


def target_array(name: str, value: Any, scores: jax.Array) -> jax.Array:
    """Targets in the dtype of the scores: a scalar, or one target for each score."""
    array = as_array(name, value)
    if array.dtype == jnp.bool_:
        raise TypeError(f"{name} must be -1 and +1; got booleans. Convert them: np.where({name}, 1, -1).")
    array = float_array(name, array).astype(scores.dtype)
    return array if array.shape == () else same_shape(name, array, "scores", scores)


def same_shape(name: str, array: jax.Array, other_name: str, other: jax.Array) -> jax.Array:
    """Refuse two arrays of different shapes, rather than broadcast `(n,)` against `(n, 1)`."""
    if array.shape == other.shape:
        return array
    raise ValueError(
        f"{name} has shape {array.shape} but {other_name} has shape {other.shape}; they must be equal."
        + _shape_advice(name, array.shape, other_name, other.shape)
    )


def _shape_advice(name: str, shape: tuple[int, ...], other_name: str, other: tuple[int, ...]) -> str:
    if shape == (*other, 1):
        return f" Drop the last axis: {name}[..., 0]."
    if other == (*shape, 1):
        return f" Drop the last axis: {other_name}[..., 0]."
    if other[:-1] == shape:
        return f" {other_name} has one column per class: use a multiclass loss, or one column of {other_name}."
    return ""


def check_real_number(name: str, value: Any, *, meaning: str, valid: Callable[[float], bool] = lambda _: True) -> None:
    """Refuse a concrete Python or NumPy number outside its range; tracers and arrays pass."""
    if isinstance(value, (bool, np.bool_, str, complex)):
        raise TypeError(f"{name} must be a real number, {meaning}; got {value!r}.")
    if isinstance(value, (int, float, np.integer, np.floating)) and not valid(float(value)):
        raise ValueError(f"{name} must be {meaning}; got {value!r}.")


def option_like(name: str, value: Any, like: jax.Array) -> jax.Array:
    """A number, or one number for each entry of `like`, in the dtype of `like`."""
    array = float_array(name, value).astype(like.dtype)
    if array.shape in ((), like.shape):
        return array
    raise ValueError(
        f"{name} must be a number or an array of shape {like.shape}; got shape {array.shape}. "
        f"To try several values, jax.vmap over {name}."
    )


def scalar_like(name: str, value: Any, dtype: Any) -> jax.Array:
    """One number in the given dtype."""
    array = float_array(name, value)
    if array.shape != ():
        raise ValueError(f"{name} must be one number; got shape {array.shape}. To try several, jax.vmap over {name}.")
    return array.astype(dtype)


def integer(name: str, value: Any) -> int:
    """A size known while tracing."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise TypeError(f"{name} must be a Python integer, known before tracing; got {value!r}.")
