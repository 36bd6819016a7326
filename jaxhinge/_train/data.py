"""The arguments of `fit`, checked on the host and converted to the dtypes of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import NDArray, at_least_float32, check_within_range
from jaxhinge._base.sparse import csr_of, is_sparse
from jaxhinge._base.values import (
    check_binary_targets,
    check_class_labels,
    check_features,
    check_finite,
    check_number,
    check_real_targets,
    check_rows,
    check_sample_weight,
    host_array,
    host_integer,
    host_real,
)
from jaxhinge._objective.objective import LinearParams
from jaxhinge._objective.sparse import bcoo_of
from jaxhinge._train.epochs import TrainingProblem
from jaxhinge.losses._families import BINARY, MULTICLASS, REGRESSION, unwrapped

_NOT_NEGATIVE = "a finite number, at least 0"


def fit_problem(
    x: Any, y: Any, l2: Any, loss_fn: Callable[..., jax.Array], num_classes: int | None, sample_weight: Any
) -> tuple[TrainingProblem, int | None]:
    """The checked arrays in the dtypes of the run, and the number of classes."""
    l2 = check_number("l2", l2, meaning=_NOT_NEGATIVE, valid=lambda value: value >= 0)
    if not callable(loss_fn):
        raise TypeError(f"loss_fn must be a function such as jaxhinge.losses.hinge_loss; got {loss_fn!r}.")
    x = _features(x)
    dtype = at_least_float32(x.dtype)
    check_within_range("l2", l2, dtype)
    weight = None
    if sample_weight is not None:
        weight = host_real("sample_weight", sample_weight).astype(float)
        check_sample_weight("sample_weight", weight, x.shape[0])
        # Only ratios of weights matter. With a largest of 1, no weight overflows in the dtype of the run.
        weight = (weight / weight.max()).astype(dtype)
    y = host_array("y", y)
    check_rows("y", y, x.shape[0])
    if jnp.issubdtype(y.dtype, jnp.complexfloating):
        raise TypeError(f"y must be targets or labels, which are real; got {y.dtype}. Take y.real.")
    y, classes = _targets(y, weight, unwrapped(loss_fn), num_classes)
    y = y.astype(np.int32) if classes else cast("y", y, dtype)
    return problem_of(x, y, weight, l2, loss_fn), classes


def problem_of(
    x: Any, y: NDArray, weight: NDArray | None, l2: Any, loss_fn: Callable[..., jax.Array]
) -> TrainingProblem:
    """Checked arrays as a problem whose run is still to be described."""
    spread = float(np.std(y, dtype=float)) if unwrapped(loss_fn) in REGRESSION else 1.0
    return TrainingProblem(x, y, weight, spread or 1.0, l2, [], None, None, None, None, None)


def _features(x: Any) -> Any:
    """Checked features in the dtype of the run: an array of NumPy, or a BCOO."""
    if is_sparse(x):
        x = csr_of("x", x)
        check_finite("x", x)
        x.data = cast("x", x.data, x.dtype)
        return bcoo_of(x)
    x = host_real("x", x)
    check_features("x", x)
    return cast("x", x, x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else np.dtype(float))


def _targets(
    y: NDArray, weight: NDArray | None, loss_fn: Callable[..., jax.Array], num_classes: int | None
) -> tuple[NDArray, int | None]:
    """Check that `y` is what the loss needs. For a loss of the user's own, `num_classes` says that `y` are labels."""
    check_num_classes(num_classes, loss_fn)
    if loss_fn in MULTICLASS or num_classes is not None:
        return y, check_class_labels("y", y, num_classes, weight)
    if loss_fn in BINARY:
        check_binary_targets("y", y, weight)
    else:
        check_real_targets("y", y)
    return y, None


def check_num_classes(num_classes: int | None, loss_fn: Callable[..., jax.Array]) -> None:
    """Refuse `num_classes` for losses of one score per row."""
    if num_classes is not None:
        host_integer("num_classes", num_classes, at_least=2)
        if loss_fn in BINARY | REGRESSION:
            raise ValueError(
                f"num_classes={num_classes} needs a multiclass loss_fn, such as "
                f"jaxhinge.losses.multiclass_hinge_loss; {loss_fn.__name__} takes one score per row."
            )


def first_params(
    params: Any, problem: TrainingProblem, classes: int | None, loss_fn: Callable[..., jax.Array]
) -> LinearParams:
    """Where a run starts: at `params`, or at its origin where there are none."""
    return _origin_of(problem, classes, loss_fn) if params is None else _given_params(params, problem, classes)


def _origin_of(problem: TrainingProblem, classes: int | None, loss_fn: Callable[..., jax.Array]) -> LinearParams:
    """Zeros; the bias of a regression starts at the median."""
    shape = () if classes is None else (classes,)
    dtype = at_least_float32(problem.x.dtype)
    regression = unwrapped(loss_fn) in REGRESSION
    bias: Any = np.full(shape, np.median(problem.y) if regression else 0, dtype)
    weights: Any = np.zeros((problem.x.shape[1], *shape), dtype)
    return LinearParams(weights, bias)


def _given_params(params: Any, problem: TrainingProblem, classes: int | None) -> LinearParams:
    """Parameters of a warm start, in the shapes of this problem."""
    try:
        w, b = params
    except (TypeError, ValueError) as error:
        raise TypeError(f"params must be LinearParams or a 2-tuple (w, b); got {type(params).__name__}.") from error
    dtype = at_least_float32(problem.x.dtype)
    shape = () if classes is None else (classes,)
    given: list[Any] = []
    for name, value, expected in (("w", w, (problem.x.shape[1], *shape)), ("b", b, shape)):
        array = host_real(name, value)
        check_finite(name, array)
        if array.shape != expected:
            raise ValueError(f"params: {name} has shape {array.shape}, but x and y need {expected}.")
        given.append(array.astype(dtype))
    return LinearParams(given[0], given[1])


def cast(name: str, array: NDArray, dtype: Any) -> NDArray:
    """The array in the dtype that JAX uses for `dtype`; refused where a number becomes infinite."""
    narrow = jax.dtypes.canonicalize_dtype(dtype)
    with np.errstate(over="ignore"):
        cast = np.asarray(array, narrow)
    if cast.dtype.itemsize < array.dtype.itemsize and not np.isfinite(cast).all():
        raise ValueError(f"{name} has values beyond the range of {narrow}, e.g. {np.abs(array).max()}. Rescale {name}.")
    return cast


def first_key() -> jax.Array:
    """`jax.random.key(0)`, whose numbers are all 0: made of them, for the seeding of a key is a program to compile."""
    data = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    zeros: Any = np.zeros(data.shape, data.dtype)
    key: jax.Array = jax.random.wrap_key_data(zeros)
    return key
