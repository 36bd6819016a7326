"""Shape, dtype, label and value checks, each with a message that names the mend.

Shapes and dtypes are known while JAX traces, so those checks run everywhere. Values are known only
on the host: the checks of values take NumPy arrays and belong to `fit`, `solve`, `sweep` and
`diagnose`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_REAL = "real numbers (floats, or integers, which are converted)"
_NUMBERS = (int, float, np.integer, np.floating)


def as_array(name: str, value: Any) -> jax.Array:
    """Bring lists, NumPy arrays, data frames and tracers to a JAX array; refuse what is not numeric."""
    _refuse_masked(name, value)
    try:
        # NumPy would only warn of a number that becomes infinite.
        with np.errstate(over="raise"):
            if isinstance(value, float):
                np.asarray(value, jnp.result_type(float))  # JAX itself may convert it without NumPy
            if isinstance(value, (jax.Array, bool, int, float, complex)) or _holds_jax_arrays(value):
                return jnp.asarray(value)
            array = np.asarray(value)
            if array.dtype == np.bool_ or jnp.issubdtype(array.dtype, jnp.number):
                return _not_wrapped(jnp.asarray(array), array)
    except FloatingPointError as error:
        raise ValueError(
            f"{name} has numbers beyond the range of {jnp.result_type(float)}: scale them down, or turn on x64."
        ) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} must be {_REAL}; got {type(value).__name__}: {error}") from error
    raise TypeError(
        f"{name} must be {_REAL}; got {type(value).__name__} of dtype {array.dtype}.{_type_advice(name, value, array)}"
    )


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


def _type_advice(name: str, value: Any, array: np.ndarray[Any, Any]) -> str:
    if hasattr(value, "todense"):
        return f" Make it dense: {name}.{'toarray' if hasattr(value, 'toarray') else 'todense'}()."
    if array.dtype.kind in "SUT":
        return f" Number the classes first: classes, {name} = np.unique({name}, return_inverse=True)."
    return f" Convert it first, e.g. np.asarray({name}, dtype=float)." if array.ndim else ""


def _refuse_masked(name: str, value: Any) -> None:
    if np.ma.is_masked(value):
        raise TypeError(f"{name} has masked entries, which JAX does not know. Drop or fill them: {name}.filled(0).")


def float_array(name: str, value: Any) -> jax.Array:
    """A floating array of the same precision; integers become the default float, the rest is refused."""
    array = as_array(name, value)
    if jnp.issubdtype(array.dtype, jnp.floating):
        _refuse_narrow(name, array.dtype)
        return array
    if jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(jnp.result_type(float))
    raise TypeError(f"{name} must be {_REAL}; got dtype {array.dtype}. Convert it first, e.g. {name}.astype(float).")


def _refuse_narrow(name: str, dtype: Any) -> None:
    # Some of them have no infinity, so that what is beyond their range is NaN; and they promote to nothing.
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
        # uint8 would wrap the class numbers beyond 255, and int4 promotes to nothing.
        return array.astype(jnp.int32) if array.dtype.itemsize < 4 else array
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
        return f" Drop the last axis: {other_name}[..., 0] (of a model with one output: w[:, 0] and b[0])."
    if other[:-1] == shape:
        return f" {other_name} has one column per class: use a multiclass loss, or one column of {other_name}."
    return ""


def check_real_number(name: str, value: Any, *, meaning: str, valid: Callable[[float], bool] = lambda _: True) -> None:
    """Refuse a concrete Python or NumPy number outside its range; tracers and arrays pass."""
    if isinstance(value, (bool, np.bool_, str, complex)):
        raise TypeError(f"{name} must be a real number, {meaning}; got {value!r}.")
    if isinstance(value, _NUMBERS) and not valid(_as_float(value)):
        raise ValueError(f"{name} must be {meaning}; got {_shown(value)}.")


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _shown(value: Any) -> str:
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
    """A choice known while tracing."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, known before tracing; got {value!r}.")


def integer(name: str, value: Any) -> int:
    """A size known while tracing."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise TypeError(f"{name} must be a Python integer, known before tracing; got {value!r}.")


def random_key(name: str, value: Any) -> Any:
    """A single JAX key, also of the older kind that is two numbers."""
    try:
        jax.eval_shape(jax.random.bits, value)
    except (TypeError, ValueError, OverflowError) as error:
        shape = f" of shape {jnp.shape(value)}" if isinstance(value, jax.Array) else ""
        raise TypeError(
            f"{name} must be a JAX key, such as jax.random.key(0); got {type(value).__name__}{shape}."
        ) from error
    return value


def host_array(name: str, value: Any) -> np.ndarray[Any, Any]:
    """The NumPy array of a list, a data frame or a JAX array; a traced array has no values to check."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} is traced, but its values are needed here, on the host. "
            "Call this outside jit, vmap and grad; jaxhinge.train and jaxhinge.loss work inside."
        )
    _refuse_masked(name, value)
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be {_REAL}; got {type(value).__name__}: {error}") from error


def host_real(name: str, value: Any) -> np.ndarray[Any, Any]:
    """A NumPy array of real numbers; strings, objects and complex numbers are refused."""
    array = host_array(name, value)
    _refuse_narrow(name, array.dtype)
    if array.dtype == np.longdouble != np.float64:
        raise TypeError(f"{name} must be floats of 64 bits at most; got dtype {array.dtype}. Use {name}.astype(float).")
    if array.dtype == np.bool_ or jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating):
        return array
    raise TypeError(f"{name} must be {_REAL}; got {_kind(value, array)}.{_host_advice(name, value)}")


def _kind(value: Any, array: np.ndarray[Any, Any]) -> str:
    return f"dtype {array.dtype}" if array.ndim else f"{type(value).__name__} of dtype {array.dtype}"


def _host_advice(name: str, value: Any) -> str:
    if hasattr(value, "todense"):
        return _type_advice(name, value, np.empty(0))
    frame = f" A data frame whose columns are numbers of several types: {name}.astype(float)."
    return (
        " Encode strings and categories as numbers first, e.g. with pandas.get_dummies or sklearn.preprocessing."
        f"{frame if hasattr(value, 'dtypes') else ''}"
    )


def check_features(name: str, array: np.ndarray[Any, Any]) -> None:
    """Features are `(n, d)` with at least one row and one column, and finite."""
    check_feature_shape(name, array)
    check_finite(name, array)


def check_feature_shape(name: str, array: Any) -> None:
    """Features are `(n, d)` with at least one row and one column."""
    if array.ndim != 2:
        advice = " For one feature, use x[:, None]." if array.ndim == 1 else " Flatten each row: x.reshape(len(x), -1)."
        raise ValueError(f"{name} must have shape (n, d), a row per example; got {array.shape}.{advice}")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: shape {array.shape}; at least one row and one column are needed.")


def check_finite(name: str, array: np.ndarray[Any, Any]) -> None:
    """Refuse NaN and infinity, and say where the first one is."""
    bad = ~np.isfinite(array)
    if not bad.any():
        return
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    raise ValueError(
        f"{name} has NaN or infinity in {int(bad.sum())} of {bad.size} places, the first at {first} ({array[first]}). "
        "Impute them or drop those rows."
    )


def check_rows(name: str, array: np.ndarray[Any, Any], num_rows: int) -> None:
    """One value for each row of x."""
    if array.shape != (num_rows,):
        advice = f" Drop the last axis: {name}[:, 0]." if array.shape == (num_rows, 1) else ""
        raise ValueError(f"{name} has shape {array.shape}, but x has {num_rows} rows: expected ({num_rows},).{advice}")


def check_binary_targets(
    name: str, array: np.ndarray[Any, Any], sample_weight: np.ndarray[Any, Any] | None = None
) -> None:
    """Targets are -1 and +1, and both occur among the rows whose weight is not 0."""
    found = _distinct(array if sample_weight is None else array[sample_weight > 0])
    if array.dtype.kind in "OUS" or array.dtype == np.bool_:
        example = repr(found[-1].item()) if found.size else "'positive'"
        condition = name if array.dtype == np.bool_ else f"{name} == {example}"
        raise ValueError(f"{name} must be -1 and +1; got {_some(found)}. Convert: numpy.where({condition}, 1, -1).")
    check_finite(name, array)
    if not np.isin(found, (-1, 1)).all():
        advice = " Choose which value is +1: numpy.where(condition, 1, -1)."
        if np.isin(found, (0, 1)).all():
            advice = f" Labels 0 and 1 become targets with 2 * {name} - 1."
        elif len(found) > 2:
            advice = (
                " For several classes there are multiclass loss_fn and solve_multiclass, for real targets "
                "regression loss_fn and solve_regression."
            )
        raise ValueError(f"{name} must be -1 and +1; got {_some(found)}.{advice}")
    if len(found) < 2:
        raise ValueError(
            f"{name} has one class only: {_some(found)}. A classifier needs rows of both -1 and +1 "
            "(with a weight above 0); check how the rows were selected."
        )


def check_class_labels(
    name: str, array: np.ndarray[Any, Any], num_classes: int | None, sample_weight: np.ndarray[Any, Any] | None = None
) -> int:
    """Labels are integers `0..k-1` of at least two classes; returns `k`, inferred where it is None."""
    advice = f" Map them first: classes, {name} = numpy.unique({name}, return_inverse=True)."
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(
            f"{name} must be integer labels 0..k-1; got {_some(_distinct(array))} ({array.dtype}).{advice}"
        )
    smallest, largest = int(array.min()), int(array.max())
    bound = largest + 1 if num_classes is None else num_classes
    if smallest < 0 or largest >= bound:
        wanted = "0..k-1" if num_classes is None else f"0..{num_classes - 1} (num_classes={num_classes})"
        raise ValueError(f"{name} must be labels {wanted}; got labels from {smallest} to {largest}.{advice}")
    found = _distinct(array if sample_weight is None else array[sample_weight > 0])
    if len(found) < 2:
        raise ValueError(f"{name} has one class only: {_some(found)}. A classifier needs rows of two classes at least.")
    return bound


def check_real_targets(name: str, array: np.ndarray[Any, Any]) -> None:
    """Targets of a regression are finite numbers."""
    if array.dtype.kind in "OUS":
        raise ValueError(f"{name} must be real targets; got {_some(_distinct(array))}. Convert: {name}.astype(float).")
    check_finite(name, array)


def check_sample_weight(name: str, array: np.ndarray[Any, Any], num_rows: int) -> None:
    """Weights are one per row, finite, not negative, and not all 0."""
    check_rows(name, array, num_rows)
    check_finite(name, array)
    if (array < 0).any():
        raise ValueError(f"{name} must not be negative; the smallest is {array.min()}. Drop a row with weight 0.")
    if not (array > 0).any():
        raise ValueError(f"{name} is 0 for every row; at least one row needs a weight above 0.")


def check_host_number(name: str, value: Any, *, meaning: str, valid: Callable[[float], bool] = lambda _: True) -> float:
    """One concrete finite number in its range, whatever it was given as; returned as a float."""
    if isinstance(value, (bool, np.bool_, str, complex)):
        raise TypeError(f"{name} must be {meaning}; got {value!r}.")
    array = host_real(name, value)
    if array.shape != ():
        raise ValueError(f"{name} must be {meaning}: one number; got shape {array.shape}.")
    number = float(array)
    if not (np.isfinite(number) and valid(number)):
        raise ValueError(f"{name} must be {meaning}; got {value!r}.")
    return number


def host_integer(name: str, value: Any, *, at_least: int, at_most: int = 2**31 - 1) -> int:
    """A count within its limits, by default those of int32."""
    number = integer(name, value)
    if number < at_least:
        raise ValueError(f"{name} must be at least {at_least}; got {number}.")
    if number > at_most:
        raise ValueError(f"{name} must be at most {at_most}; got {_shown(number)}.")
    return number


def _distinct(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    # Values of different types, None among strings, cannot be sorted as they are.
    return np.unique(array.astype(str) if array.dtype == object else array)


def _some(values: np.ndarray[Any, Any]) -> str:
    shown = ", ".join(repr(value) for value in values[:4].tolist())
    return f"{shown}, ... ({len(values)} different values)" if len(values) > 4 else shown
