"""Checks of shapes, dtypes and options, each with a message that names the mend.

Shapes and dtypes are known while JAX traces, so these checks run everywhere; checks of values are in `values`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

REAL = "real numbers (floats, or integers, which are converted)"
NDArray = np.ndarray[Any, Any]
# An array of JAX, traced or not, or of NumPy: what a function that runs on the host and under a trace takes.
Array = Any
_NUMBERS = (int, float, np.integer, np.floating)


def as_array(name: str, value: Any) -> jax.Array:
    """Bring lists, NumPy arrays, data frames and tracers to a JAX array; refuse what is not numeric."""
    refuse_masked(name, value)
    refuse_sparse(name, value)
    try:
        # Without this NumPy only warns of a number that overflows.
        with np.errstate(over="raise"):
            if isinstance(value, float):
                np.asarray(value, jnp.result_type(float))  # raises on overflow; JAX may convert without NumPy
            if isinstance(value, (jax.Array, bool, int, float, complex)) or _holds_jax_arrays(value):
                return jnp.asarray(value)
            array = in_native_order(np.asarray(value))
            if array.dtype == np.bool_ or jnp.issubdtype(array.dtype, jnp.number):
                return _not_wrapped(jnp.asarray(array), array)
    except FloatingPointError as error:
        raise ValueError(
            f"{name} has numbers beyond the range of {jnp.result_type(float)}: scale them down, or turn on x64."
        ) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} must be {REAL}; got {type(value).__name__}: {error}") from error
    raise TypeError(
        f"{name} must be {REAL}; got {type(value).__name__} of dtype {array.dtype}.{_type_advice(name, array)}"
    )


def in_native_order(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array in the byte order of this machine; JAX takes no other, and files may have another."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _holds_jax_arrays(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value))
    return hasattr(value, "__jax_array__")


def _not_wrapped(array: jax.Array, original: np.ndarray[Any, Any]) -> jax.Array:
    """Refuse integers that JAX has wrapped: in int32, 2**32 is 0."""
    if (
        original.dtype.kind in "iu"
        and array.dtype != original.dtype
        and (original != original.astype(array.dtype)).any()
    ):
        raise OverflowError(f"some integers do not fit in {array.dtype}; convert to floats first.")
    return array


def _type_advice(name: str, array: np.ndarray[Any, Any]) -> str:
    """A sentence that says how to convert a value which is not numeric; empty where no advice fits."""
    if array.dtype.kind in "SUT":
        return f" Number the classes first: classes, {name} = np.unique({name}, return_inverse=True)."
    return f" Convert it first, e.g. np.asarray({name}, dtype=float)." if array.ndim else ""


def refuse_sparse(name: str, value: Any) -> None:
    """Refuse sparse arrays at once: NumPy would read JAX's row by row, each by a program of its own."""
    if hasattr(value, "todense"):
        how = "toarray" if hasattr(value, "toarray") else "todense"
        raise TypeError(f"{name} must be {REAL}; got {type(value).__name__}. Make it dense: {name}.{how}().")


def refuse_masked(name: str, value: Any) -> None:
    """Refuse arrays with masked entries: JAX drops the mask and would use the values under it."""
    if np.ma.is_masked(value):
        array = name.split(" ")[0]  # without the number of a block
        raise TypeError(f"{name} has masked entries, which JAX does not know. Drop or fill them: {array}.filled(0).")


def float_array(name: str, value: Any) -> jax.Array:
    """A floating array in its own precision. Integers become the default float; other dtypes are refused."""
    array = as_array(name, value)
    if jnp.issubdtype(array.dtype, jnp.floating):
        refuse_narrow(name, array.dtype)
        return array
    if jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(jnp.result_type(float))
    raise TypeError(f"{name} must be {REAL}; got dtype {array.dtype}. Convert it first, e.g. {name}.astype(float).")


def refuse_narrow(name: str, dtype: Any) -> None:
    """Refuse floats of fewer than 16 bits."""
    # Overflow is NaN in those without an infinity, and JAX does not promote them to wider floats.
    if jnp.issubdtype(dtype, jnp.floating) and np.dtype(dtype).itemsize < 2:
        raise TypeError(
            f"{name} must be floats of 16 bits at least; got dtype {dtype}. Convert it first: "
            f"{name}.astype(jnp.float32)."
        )


def feature_array(name: str, value: Any) -> jax.Array:
    """Like `float_array`, but boolean features (indicator columns) count as 0 and 1."""
    array = as_array(name, value)
    return array.astype(jnp.result_type(float)) if array.dtype == jnp.bool_ else float_array(name, array)


def label_array(name: str, value: Any) -> jax.Array:
    """An integer array of class labels `0..k-1`."""
    array = as_array(name, value)
    if jnp.issubdtype(array.dtype, jnp.integer):
        # In uint8 the class numbers beyond 255 would wrap around, and JAX does not promote int4.
        return array.astype(jnp.int32) if array.dtype.itemsize < 4 else array
    raise TypeError(
        f"{name} must be integer class labels 0..k-1; got dtype {array.dtype}. "
        f"Map them first, e.g. classes, {name} = np.unique({name}, return_inverse=True)."
    )


def target_array(name: str, value: Any, scores: jax.Array) -> jax.Array:
    """Targets -1 and +1 in the dtype of the scores: a scalar, or one target for each score."""
    array = as_array(name, value)
    if array.dtype == jnp.bool_:
        raise TypeError(f"{name} must be -1 and +1; got booleans. Convert them: np.where({name}, 1, -1).")
    refuse_integer_zeros(name, value)
    array = float_array(name, array).astype(scores.dtype)
    return array if array.shape == () else same_shape(name, array, "scores", scores)


def refuse_integer_zeros(name: str, value: Any) -> None:
    """Refuse NumPy and Python integers that hold a 0: as labels 0 and 1, label 0 would have no gradient.

    Floats pass, and so do JAX arrays: their values may be traced, or on a device.
    """
    if isinstance(value, (jax.Array, float)) or _holds_jax_arrays(value):
        return
    array = np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer) or (array != 0).all():
        return
    if ((array == 0) | (array == 1)).all():
        advice = f"Labels 0 and 1 become targets with 2 * {name} - 1."
    else:
        advice = "Rows with target 0 have no gradient: drop them, or pass floats to keep them."
    raise ValueError(f"{name} must be -1 and +1; got integers that hold 0. {advice}")


def common_dtype(*values: Any) -> Any:
    """The dtype to which JAX promotes arrays or dtypes, also where it promotes none by itself ("strict")."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*values)


def at_least_float32(dtype: Any) -> Any:
    """A floating dtype, or float32 where it is narrower."""
    return common_dtype(dtype, jnp.float32)


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
        return f" Drop the last axis: {other_name}[..., 0] (of a model with one output: w[:, 0] and b[0])."
    if other[:-1] == shape:
        return f" {other_name} has one column per class: use a multiclass loss, or one column of {other_name}."
    return ""


def check_real_number(name: str, value: Any, *, meaning: str, valid: Callable[[float], bool] = lambda _: True) -> None:
    """Refuse a concrete Python or NumPy number outside its range; tracers and arrays pass."""
    if isinstance(value, (bool, np.bool_, str, complex)):
        raise TypeError(f"{name} must be a real number, {meaning}; got {value!r}.")
    if isinstance(value, _NUMBERS) and not valid(_as_float(value)):
        raise ValueError(f"{name} must be {meaning}; got {shown(value)}.")


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def shown(value: Any) -> str:
    """The number as text. A huge integer becomes a phrase: Python refuses to print thousands of digits."""
    return repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "an integer of many digits"


def check_within_range(name: str, value: Any, dtype: Any) -> None:
    """Refuse a concrete finite number that would become infinite."""
    if isinstance(value, _NUMBERS) and np.isfinite(float(value)):
        largest = float(jnp.finfo(dtype).max)  # type: ignore[no-untyped-call]
        if abs(float(value)) > largest:
            raise ValueError(f"{name} must be within the range of {np.dtype(dtype)}, {largest:g}; got {value!r}.")


def option_like(name: str, value: Any, like: jax.Array) -> jax.Array:
    """A number, or one number for each entry of `like`, in the dtype of `like`."""
    array = float_array(name, value)
    check_within_range(name, value, like.dtype)
    array = array.astype(like.dtype)
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
    check_within_range(name, value, dtype)
    return array.astype(dtype)


def flag(name: str, value: Any) -> bool:
    """A Python or NumPy boolean; a traced one is refused."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, known before tracing; got {value!r}.")


def integer(name: str, value: Any) -> int:
    """A Python or NumPy integer; a traced one is refused."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise TypeError(f"{name} must be a Python integer, known before tracing; got {value!r}.")


def random_key(name: str, value: Any) -> Any:
    """One JAX key: from `jax.random.key`, or from the older `jax.random.PRNGKey`."""
    try:
        jax.eval_shape(jax.random.bits, value)
    except (TypeError, ValueError, OverflowError) as error:
        shape = f" of shape {jnp.shape(value)}" if isinstance(value, jax.Array) else ""
        raise TypeError(
            f"{name} must be a JAX key, such as jax.random.key(0); got {type(value).__name__}{shape}."
        ) from error
    return value


def check_feature_shape(name: str, array: Any) -> None:
    """Features are `(n, d)` with at least one row and one column."""
    if array.ndim != 2:
        advice = " For one feature, use x[:, None]." if array.ndim == 1 else " Flatten each row: x.reshape(len(x), -1)."
        raise ValueError(f"{name} must have shape (n, d), a row per example; got {array.shape}.{advice}")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: shape {array.shape}; at least one row and one column are needed.")
