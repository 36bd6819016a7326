"""Checks of values, each with a message that names the mend.

Values are known on the host only, where arrays are concrete: these checks take what users pass, or NumPy arrays, and
belong to `fit`, `solve`, `sweep`, `diagnose` and the estimators.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state

from jaxhinge._base.arrays import (
    REAL,
    check_feature_shape,
    in_native_order,
    integer,
    refuse_masked,
    refuse_narrow,
    refuse_sparse,
    shown,
)
from jaxhinge._base.sparse import is_sparse

_trace_state: Callable[[], Any] = get_opaque_trace_state
_MOST_CLASSES = 2**31 - 1  # labels are converted to int32


def inside_jit() -> bool:
    """Whether this runs inside `jit`, where what is computed from constants has no values either."""
    # Outside of every transformation no JAX array is made: that would start the backend, and may hang after a fork.
    if _trace_state() == _OUTSIDE:
        return False
    # Nothing is compiled for it, unlike for `jnp.zeros(())`.
    return isinstance(jax.device_put(np.float32(0)), jax.core.Tracer)


def _state_outside() -> Any:
    """The trace state outside of every transformation, as a new thread has it: this one may be inside of one."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(_trace_state()))
    thread.start()
    thread.join()
    return found[0]


_OUTSIDE = _state_outside()


def is_on_accelerator(x: Any) -> bool:
    """Whether the work is done in JAX although nothing is traced: `x` lies on another device than a CPU, or would.

    Sparse features are worked on by SciPy, wherever they lie.
    """
    if is_sparse(x):
        return False
    if isinstance(x, jax.Array):
        return any(device.platform != "cpu" for device in x.devices())
    return jax.default_backend() != "cpu"


def check_outside_jit(name: str) -> None:
    """Refuse to work inside `jit`."""
    if inside_jit():
        raise TypeError(
            f"{name} works on the host, but this is inside jit, where everything is traced: call it outside. "
            "jaxhinge.loss, train and solve work inside."
        )


def host_array(name: str, value: Any) -> np.ndarray[Any, Any]:
    """The NumPy array of a list, a data frame or a JAX array; a traced array has no values to check."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} is traced, but its values are needed here, on the host. "
            "Call this outside jit, vmap and grad; jaxhinge.train and jaxhinge.loss work inside."
        )
    refuse_masked(name, value)
    refuse_sparse(name, value)
    try:
        return in_native_order(np.asarray(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be {REAL}; got {type(value).__name__}: {error}") from error


def host_real(name: str, value: Any) -> np.ndarray[Any, Any]:
    """A NumPy array of real numbers; strings, objects and complex numbers are refused."""
    array = host_array(name, value)
    refuse_narrow(name, array.dtype)
    if array.dtype == np.longdouble != np.float64:
        raise TypeError(f"{name} must be floats of 64 bits at most; got dtype {array.dtype}. Use {name}.astype(float).")
    if array.dtype == np.bool_ or jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating):
        return array
    raise TypeError(f"{name} must be {REAL}; got {_kind(value, array)}.{_host_advice(name, value)}")


def _kind(value: Any, array: np.ndarray[Any, Any]) -> str:
    return f"dtype {array.dtype}" if array.ndim else f"{type(value).__name__} of dtype {array.dtype}"


def _host_advice(name: str, value: Any) -> str:
    frame = f" A data frame whose columns are numbers of several types: {name}.astype(float)."
    return (
        " Encode strings and categories as numbers first, e.g. with pandas.get_dummies or sklearn.preprocessing."
        f"{frame if hasattr(value, 'dtypes') else ''}"
    )


def check_features(name: str, array: np.ndarray[Any, Any]) -> None:
    """Features are `(n, d)` with at least one row and one column, and finite."""
    check_feature_shape(name, array)
    check_finite(name, array)


def check_finite(name: str, array: Any) -> None:
    """Refuse NaN and infinity, and say where the first one is."""
    sparse = is_sparse(array)
    bad = ~np.isfinite(array.data if sparse else array)
    if not bad.any():
        return
    where = np.stack(array.tocoo().coords, axis=1)[bad] if sparse else np.argwhere(bad)
    first = tuple(int(i) for i in where[0])
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
    if array.dtype.kind == "c":
        raise TypeError(f"{name} must be -1 and +1; got complex numbers. Take {name}.real.")
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


def check_targets_of_block(name: str, array: np.ndarray[Any, Any]) -> None:
    """The same but for both classes: one block of rows may hold a single class, only all together must hold both."""
    if array.dtype.kind not in "iuf" or not np.isin(array, (-1, 1)).all():
        check_binary_targets(name, array)


def check_class_labels(
    name: str, array: np.ndarray[Any, Any], num_classes: int | None, sample_weight: np.ndarray[Any, Any] | None = None
) -> int:
    """Labels are integers `0..k-1` of at least two classes; returns `k`, inferred where it is None."""
    advice = f" Map them first: classes, {name} = numpy.unique({name}, return_inverse=True)."
    if array.dtype.kind == "m" or not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(
            f"{name} must be integer labels 0..k-1; got {_some(_distinct(array))} ({array.dtype}).{advice}"
        )
    smallest, largest = int(array.min()), int(array.max())
    bound = largest + 1 if num_classes is None else num_classes
    if smallest < 0 or largest >= min(bound, _MOST_CLASSES):
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


def check_weight_of_block(name: str, array: np.ndarray[Any, Any], num_rows: int) -> None:
    """The same, but the weights of a block of rows may all be 0."""
    check_rows(name, array, num_rows)
    if array.any():
        check_sample_weight(name, array, num_rows)


def check_number(name: str, value: Any, *, meaning: str, valid: Callable[[float], bool] = lambda _: True) -> float:
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
        raise ValueError(f"{name} must be at most {at_most}; got {shown(number)}.")
    return number


def _distinct(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    # `numpy.unique` sorts, and Python cannot order, for example, None and a string.
    return np.unique(array.astype(str) if array.dtype == object else array)


def _some(values: np.ndarray[Any, Any]) -> str:
    shown = ", ".join(repr(value) for value in values[:4].tolist())
    return f"{shown}, ... ({len(values)} different values)" if len(values) > 4 else shown
