"""`fit`: the training loop with everything a host can add to it."""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from tqdm import tqdm

from jaxhinge import _checks, losses
from jaxhinge._epochs import Carry, Problem, Settings, run_epochs, start
from jaxhinge._hoist import freeze, split
from jaxhinge._objective import LinearParams
from jaxhinge._train import Optimizer

NDArray = np.ndarray[Any, Any]

_BINARY: set[Any] = {losses.hinge_loss, losses.squared_hinge_loss, losses.smooth_hinge_loss, losses.perceptron_loss}
_MULTICLASS: set[Any] = {
    losses.multiclass_hinge_loss,
    losses.weston_watkins_loss,
    losses.one_vs_rest_hinge_loss,
    losses.multiclass_perceptron_loss,
}
_REGRESSION: set[Any] = {losses.epsilon_insensitive_loss, losses.squared_epsilon_insensitive_loss, losses.pinball_loss}

_LONG_RUN = 2.0  # seconds, beyond which a progress bar is worth its line
_REDRAW = 0.2
_NOT_NEGATIVE = "a finite number, at least 0"

# Raised where an optimizer or a loss branches on one of its numbers, or needs it in NumPy.
_NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


class History(NamedTuple):
    """What happened, per epoch, as NumPy arrays `(epochs,)`; `history["loss"]` is `history.loss`.

    Attributes:
      loss: The whole objective on all rows, at the parameters that `fit` would have returned then.
    """

    loss: NDArray

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else tuple.__getitem__(self, key)


class FitResult(NamedTuple):
    """What `fit` found.

    Attributes:
      params: `LinearParams`; the average of the iterates where that was asked for.
      history: Per epoch; `history.loss[-1]` is `jaxhinge.loss` of `params`, up to rounding.
      stopped_early: Whether `tol` ended the run before its last epoch.
    """

    params: LinearParams
    history: History
    stopped_early: bool


def fit(
    x: Any,
    y: Any,
    *,
    l2: ArrayLike,
    optimizer: Optimizer | None = None,
    epochs: int = 100,
    batch_size: int | None = None,
    key: jax.Array | None = None,
    params: tuple[ArrayLike, ArrayLike] | None = None,
    loss_fn: Callable[..., jax.Array] = losses.hinge_loss,
    num_classes: int | None = None,
    sample_weight: Any = None,
    regularize_bias: bool = False,
    average_from: int | None = None,
    tol: float | None = None,
    patience: int = 5,
    progress: bool | None = None,
    **loss_options: Any,
) -> FitResult:
    r"""Minimise `jaxhinge.loss` over an affine model with an optax optimizer. Host only.

    Every epoch visits every row once in a new random order. The objective of a batch is the weighted
    mean over its rows, plus the regulariser; the last batch of an epoch has the rows that remain.

    Args:
      x: Features `(n, d)`: a NumPy or JAX array, lists, a data frame. Finite numbers.
      y: `(n,)`: -1 and +1; labels `0..k-1` for the multiclass losses; real targets for the
        regression losses.
      l2: The strength of regularisation, one number, at least 0.
      optimizer: Any optax optimizer, schedules included (they count steps, `ceil(n / batch_size)`
        to an epoch). A new learning rate, or any other float in it, does not compile again. None
        takes a preconditioned stochastic gradient method that needs no tuning; features need not be
        standardised for it.
      epochs: Passes over the data, at least 1.
      batch_size: Rows in a batch; None chooses by `n`, from 1 to 512.
      key: `jax.random.key(seed)` for the order of the rows; None is seed 0.
      params: Where to start, e.g. the `params` of another fit. None starts from 0, and for the
        regression losses with the median of `y` as the bias.
      loss_fn: `loss_fn(scores, y, **loss_options)`, one loss per row.
      num_classes: `k`; None takes the largest label + 1. Only for losses of one score per class.
      sample_weight: `(n,)`, not negative, not all 0: a weight of 2 is a row given twice.
      regularize_bias: Whether the bias counts in the norm.
      average_from: The epoch, counted from 0, from which iterates are averaged; the average is
        returned in place of the last iterate. None returns the last iterate.
      tol: Stop after `patience` epochs in a row that did not bring the objective `tol` of its size
        below the lowest before them. None runs all epochs.
      patience: See `tol`, at least 1.
      progress: Whether to draw a progress bar; None draws one on a terminal where the run takes
        more than two seconds.
      **loss_options: For `loss_fn`: `subgradient=`, `kink_tol=`, `margin=`, ...

    Returns:
      `FitResult(params, history, stopped_early)`. The parameters are float32, or float64 where `x`
      is float64 and x64 is on.

    Raises:
      ValueError: Shapes do not fit, values are not finite, targets are not what `loss_fn` needs,
        all rows are of one class, `l2` or a weight is negative, or a count is too small.
      TypeError: Something is not a number, or is traced (`jaxhinge.train` works under jit and vmap).

    References:
      Shalev-Shwartz et al., Pegasos: primal estimated sub-gradient solver for SVM, 2011; the
      default optimizer after Duchi, Hazan and Singer, Adaptive subgradient methods, 2011.

    >>> import jaxhinge, numpy as np, optax
    >>> x = np.array([[2.0, 0.0], [1.0, 1.0], [-1.0, 0.5], [-2.0, -1.0]])
    >>> y = np.array([1, 1, -1, -1])
    >>> result = jaxhinge.fit(x, y, l2=0.1)
    >>> print(jaxhinge.predict(result.params, x))
    [ 1  1 -1 -1]
    >>> result = jaxhinge.fit(x, y, l2=0.1, optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 200)), epochs=50)
    >>> result.history.loss.shape
    (50,)
    """
    value = (optimizer, loss_fn, loss_options)
    problem, classes = _problem(x, y, l2, loss_fn, num_classes, sample_weight)
    problem = problem._replace(
        key=jax.random.key(0) if key is None else key,
        epochs=_checks.host_integer("epochs", epochs, at_least=1),
        average_from=0 if average_from is None else _average_from(average_from, epochs),
        tol=-1.0 if tol is None else _checks.check_host_number("tol", tol, meaning=_NOT_NEGATIVE, valid=_not_negative),
        patience=_checks.host_integer("patience", patience, at_least=1),
    )
    origin = _origin(problem, classes, loss_fn) if params is None else _given(params, problem, classes)
    size = _batch_size(len(problem.x)) if batch_size is None else batch_size
    size = _checks.host_integer("batch_size", size, at_least=1)
    structure, numbers = split(value)
    settings = Settings(structure, size, regularize_bias, average_from is not None, _power_of_two(epochs))
    try:
        carry = _run(settings, problem._replace(numbers=numbers), origin, progress)
    except _NEEDS_VALUES:
        carry = _run(settings._replace(structure=freeze(value)), problem, origin, progress)
    found = carry.state.params if average_from is None else carry.mean
    stopped = tol is not None and int(carry.stale) >= patience
    return FitResult(found, History(np.asarray(carry.history)[: int(carry.epoch)]), stopped)


def _problem(
    x: Any, y: Any, l2: Any, loss_fn: Callable[..., jax.Array], num_classes: int | None, sample_weight: Any
) -> tuple[Problem, int | None]:
    """The checked arrays in the dtypes of the run, and the number of classes."""
    l2 = _checks.check_host_number("l2", l2, meaning=_NOT_NEGATIVE, valid=_not_negative)
    x = _checks.host_real("x", x)
    _checks.check_features("x", x)
    x = _cast("x", x, x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else np.dtype(float))
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    weight = None
    if sample_weight is not None:
        weight = _checks.host_real("sample_weight", sample_weight).astype(float)
        _checks.check_sample_weight("sample_weight", weight, len(x))
        # Only ratios matter, and the largest is 1 in any precision.
        weight = (weight / weight.max()).astype(dtype)
    y = _checks.host_array("y", y)
    _checks.check_rows("y", y, len(x))
    y, classes = _targets(y, weight, _unwrapped(loss_fn), num_classes)
    y = y.astype(np.int32) if classes else _cast("y", y, dtype)
    spread = float(np.std(y, dtype=float)) if _unwrapped(loss_fn) in _REGRESSION else 1.0
    return Problem(x, y, weight, spread or 1.0, l2, [], None, None, None, None, None), classes


def _targets(
    y: NDArray, weight: NDArray | None, loss_fn: Callable[..., jax.Array], num_classes: int | None
) -> tuple[NDArray, int | None]:
    """Check `y` for what the loss needs; a loss of another origin takes labels where `num_classes` is given."""
    if num_classes is not None:
        _checks.host_integer("num_classes", num_classes, at_least=2)
        if loss_fn in _BINARY | _REGRESSION:
            raise ValueError(
                f"num_classes={num_classes} needs a multiclass loss_fn, such as "
                f"jaxhinge.losses.multiclass_hinge_loss; {loss_fn.__name__} takes one score per row."
            )
    if loss_fn in _MULTICLASS or num_classes is not None:
        return y, _checks.check_class_labels("y", y, num_classes, weight)
    if loss_fn in _BINARY:
        _checks.check_binary_targets("y", y, weight)
    else:
        _checks.check_real_targets("y", y)
    return y, None


def _origin(problem: Problem, classes: int | None, loss_fn: Callable[..., jax.Array]) -> LinearParams:
    shape = () if classes is None else (classes,)
    dtype = jnp.promote_types(problem.x.dtype, jnp.float32)
    regression = _unwrapped(loss_fn) in _REGRESSION
    bias: Any = np.full(shape, np.median(problem.y) if regression else 0, dtype)
    weights: Any = np.zeros((problem.x.shape[1], *shape), dtype)
    return LinearParams(weights, bias)


def _given(params: Any, problem: Problem, classes: int | None) -> LinearParams:
    """Parameters of a warm start, in the shapes of this problem."""
    try:
        w, b = params
    except (TypeError, ValueError) as error:
        raise TypeError(f"params must be LinearParams or a 2-tuple (w, b); got {type(params).__name__}.") from error
    dtype = jnp.promote_types(problem.x.dtype, jnp.float32)
    shape = () if classes is None else (classes,)
    given: list[Any] = []
    for name, value, expected in (("w", w, (problem.x.shape[1], *shape)), ("b", b, shape)):
        array = _checks.host_real(name, value)
        _checks.check_finite(name, array)
        if array.shape != expected:
            raise ValueError(f"params: {name} has shape {array.shape}, but x and y need {expected}.")
        given.append(array.astype(dtype))
    return LinearParams(given[0], given[1])


def _run(settings: Settings, problem: Problem, origin: LinearParams, progress: bool | None) -> Carry:
    """All epochs in one call or, where a progress bar may be drawn, in calls that leave time to draw it."""
    carry: Carry = start(settings, problem, origin)
    epochs = problem.epochs
    if progress is False or (progress is None and not sys.stderr.isatty()):
        carry = run_epochs(settings, problem, carry, epochs)
        return carry
    carry = run_epochs(settings, problem, carry, 1)
    done, chunk, bar = int(carry.epoch), 1, None
    began = time.perf_counter()  # only now, with everything compiled
    while done < epochs and int(carry.stale) < problem.patience:
        carry = run_epochs(settings, problem, carry, min(epochs, done + chunk))
        done = int(carry.epoch)
        pace = (time.perf_counter() - began) / (done - 1)
        chunk = max(1, int(_REDRAW / pace))
        if bar is None and (progress or pace * epochs > _LONG_RUN):
            bar = tqdm(total=epochs, unit="epoch", file=sys.stderr)
        if bar is not None:
            bar.set_postfix(loss=f"{float(carry.history[done - 1]):.4g}", refresh=False)
            bar.update(done - bar.n)
    if bar is not None:
        bar.close()
    return carry


def _batch_size(n: int) -> int:
    """A power of two: about 24 steps to an epoch of a small data set, 150 of a large one."""
    fine, coarse = (1 << round(math.log2(max(1, n / steps))) for steps in (24, 150))
    return max(min(fine, 64), min(coarse, 512))


def _average_from(epoch: int, epochs: int) -> int:
    if _checks.host_integer("average_from", epoch, at_least=0) >= epochs:
        raise ValueError(f"average_from must be an epoch of the run, 0..{epochs - 1}; got {epoch}.")
    return epoch


def _cast(name: str, array: NDArray, dtype: Any) -> NDArray:
    """In the dtype that JAX would use for this one; finite before and after."""
    narrow = jax.dtypes.canonicalize_dtype(dtype)
    with np.errstate(over="ignore"):
        cast = np.asarray(array, narrow)
    if cast.dtype.itemsize < array.dtype.itemsize and not np.isfinite(cast).all():
        raise ValueError(f"{name} has values beyond the range of {narrow}, e.g. {np.abs(array).max()}. Rescale {name}.")
    return cast


def _unwrapped(loss_fn: Any) -> Any:
    while isinstance(loss_fn, functools.partial):
        loss_fn = loss_fn.func
    return loss_fn


def _power_of_two(epochs: int) -> int:
    return max(128, 1 << (epochs - 1).bit_length())


def _not_negative(value: float) -> bool:
    return value >= 0
