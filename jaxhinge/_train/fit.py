"""`fit`: training on the host, with checks, a progress bar, checkpoints and interrupts."""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxhinge import losses
from jaxhinge._base.arrays import NDArray, flag, random_key
from jaxhinge._base.checkpoint import Checkpoints
from jaxhinge._base.interrupts import OnInterrupt, check_on_interrupt
from jaxhinge._base.sources import is_mapped
from jaxhinge._base.sparse import is_sparse
from jaxhinge._base.values import check_number, check_outside_jit, host_integer
from jaxhinge._objective.objective import LinearParams
from jaxhinge._solve.gap import duality_gap
from jaxhinge._train.data import first_key, first_params, fit_problem
from jaxhinge._train.epochs import Settings
from jaxhinge._train.run import Host, as_checkpoints, run, run_facts
from jaxhinge._train.sparse import batch_capacity
from jaxhinge._train.static import freeze, split
from jaxhinge._train.step import Optimizer
from jaxhinge._train.stream import NEEDS_VALUES, Options, fit_stream, mapped_source, outside_source
from jaxhinge.losses._families import MULTILABEL, is_one_of

_NOT_NEGATIVE = "a finite number, at least 0"


class History(NamedTuple):
    """What happened, per epoch, as NumPy arrays `(epochs,)`; `history["loss"]` is `history.loss`.

    Attributes:
      loss: The objective on all rows, at the parameters that `fit` would return after that epoch. For streamed
        batches, the mean over the epoch's batches of the objective on a batch, before the step on it.
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
      certificate: Computes `gap`; it keeps a reference to the data, and is pickled with them.
      interrupted: Whether Ctrl-C ended the run (with `on_interrupt="return"`).
    """

    params: LinearParams
    history: History
    stopped_early: bool
    certificate: Callable[[], float]
    interrupted: bool = False

    @property
    def gap(self) -> float:
        """`jaxhinge.duality_gap` of `params`: no parameters have an objective lower by more than this.

        It is computed when it is first asked for, and costs about one `jaxhinge.solve`. ValueError where there is
        no certificate: for losses other than the hinge and its square (with margin 1), and for `l2=0`.
        """
        return self.certificate()


def fit(
    x: Any,
    y: Any = None,
    *,
    l2: ArrayLike,
    optimizer: Optimizer | None = None,
    epochs: int = 100,
    steps_per_epoch: int | None = None,
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
    checkpoint: str | os.PathLike[str] | Checkpoints | None = None,
    on_interrupt: OnInterrupt = "raise",
    **loss_options: Any,
) -> FitResult:
    r"""Minimise `jaxhinge.loss` over an affine model with an optax optimizer. Host only.

    Every epoch visits every row once in a new random order. The objective of a batch is the weighted
    mean over its rows, plus the regulariser; the last batch of an epoch has the rows that remain.

    Data need not fit in memory. A memory-mapped `x` (`numpy.load(..., mmap_mode="r")`) is read in chunks of
    neighbouring rows, in a random order, and mixed over 32 of them. Without `y`, `x` is any iterable of batches
    `(x, y)` or `(x, y, sample_weight)`, or a function that makes one for each epoch; their order is theirs. A thread
    reads, checks and pads batches while the device works, and batches of different sizes share one compiled step.

    Args:
      x: Features `(n, d)`: a NumPy or JAX array, lists, a data frame, a memory-mapped file, or sparse ones of SciPy or
        JAX, of which nothing is made dense. Finite numbers. Or, without `y`, batches.
      y: `(n,)`: -1 and +1; labels `0..k-1` for the multiclass losses; real targets for the
        regression losses.
      l2: The strength of regularisation, one number, at least 0.
      optimizer: Any optax optimizer, schedules included (they count steps, `ceil(n / batch_size)`
        to an epoch). A new learning rate, or any other float in it, does not compile again. None
        takes a preconditioned stochastic gradient method that needs no tuning; features need not be
        standardised for it.
      epochs: Passes over the data, at least 1. An iterator, such as a generator, allows for one.
      steps_per_epoch: For streamed data: the batches that make an epoch. They go on where the last epoch ended, and
        from the beginning where they end, so that a generator may be endless. None ends an epoch with the data.
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
      checkpoint: A directory, or `Checkpoints(directory, ...)`, where the run is saved as it goes. Called again with
        the same arguments, `fit` goes on from there to the same bits as a run that was never stopped (on the same
        machine and versions); with others it raises an error that lists them. Functions are told apart by their names
        and the numbers in them.
      on_interrupt: What Ctrl-C does: "raise" KeyboardInterrupt at once, or "return" what was reached: the last whole
        epoch, on streamed data the last step. Either way it is saved first, where there is a `checkpoint`.
      **loss_options: For `loss_fn`: `subgradient=`, `kink_tol=`, `margin=`, ...

    Returns:
      `FitResult(params, history, stopped_early)`, and its `gap`. The parameters are float32, or float64 where `x`
      is float64 and x64 is on.

    Raises:
      ValueError: Shapes do not fit, values are not finite, targets are not what `loss_fn` needs,
        all rows are of one class, `l2` or a weight is negative, or a count is too small. Where they
        come in batches, the batch is named.
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
    check_outside_jit("fit")
    if is_one_of(loss_fn, MULTILABEL):
        raise ValueError(
            "fit takes one target for each row, but multilabel_margin_loss needs a list of classes. Use "
            "jaxhinge.make_train_step or jaxhinge.train, with objective=jaxhinge.loss and loss_fn= as an option."
        )
    checkpoints = as_checkpoints(checkpoint)
    options = _checked(Options(
        l2, optimizer, epochs, steps_per_epoch, params, loss_fn, loss_options, num_classes, regularize_bias,
        average_from, tol, patience, progress, check_on_interrupt(on_interrupt),
    ))  # fmt: skip
    if y is not None and not is_mapped(x):
        return _fit_arrays(x, y, sample_weight, batch_size, key, checkpoints, options)
    if checkpoints is not None:
        raise ValueError(
            "checkpoint is for arrays in memory. For streamed data, write the loop: jaxhinge.make_train_step, and "
            "jaxhinge.Checkpoints to save its state and the position in the data."
        )
    return _fit_stream(x, y, sample_weight, batch_size, key, options)


def _checked(options: Options) -> Options:
    """The options whose values do not depend on the data; `tol` is -1 for None."""
    epochs = host_integer("epochs", options.epochs, at_least=1)
    first = options.average_from
    if first is not None and host_integer("average_from", first, at_least=0) >= epochs:
        raise ValueError(f"average_from must be an epoch of the run, 0..{epochs - 1}; got {first}.")
    host_integer("patience", options.patience, at_least=1)
    tol = -1.0 if options.tol is None else check_number("tol", options.tol, meaning=_NOT_NEGATIVE, valid=_not_negative)
    return options._replace(epochs=epochs, tol=tol)


def _fit_arrays(
    x: Any, y: Any, sample_weight: Any, batch_size: int | None, key: Any, checkpoints: Any, options: Options
) -> FitResult:
    if options.steps_per_epoch is not None:
        raise ValueError("steps_per_epoch is for streamed data; an array has ceil(n / batch_size) steps to an epoch.")
    value = (options.optimizer, options.loss_fn, options.loss_options)
    problem, classes = fit_problem(x, y, options.l2, options.loss_fn, options.num_classes, sample_weight)
    problem = problem._replace(
        key=first_key() if key is None else random_key("key", key),
        epochs=options.epochs,
        average_from=options.average_from or 0,
        tol=options.tol,
        patience=options.patience,
    )
    origin = first_params(options.params, problem, classes, options.loss_fn)
    size = _batch_size(problem.x.shape[0]) if batch_size is None else batch_size
    size = host_integer("batch_size", size, at_least=1, at_most=sys.maxsize)
    structure, numbers = split(value)
    capacity = batch_capacity(problem.x, size) if is_sparse(problem.x) else None
    averaging, history_size = options.average_from is not None, _power_of_two(options.epochs)
    settings = Settings(structure, size, options.regularize_bias, averaging, history_size, capacity)
    facts = functools.partial(run_facts, value, settings, problem, origin if options.params is not None else None)
    progress = options.progress if options.progress is None else flag("progress", options.progress)
    host = Host(progress, checkpoints, facts, options.on_interrupt)
    try:
        carry, interrupted = run(settings, problem._replace(numbers=numbers), origin, host)
    except NEEDS_VALUES:
        carry, interrupted = run(settings._replace(structure=freeze(value)), problem, origin, host)
    found = carry.mean if averaging else carry.state.params
    history = History(np.asarray(carry.history)[: int(carry.epoch)])
    loss = options.regularize_bias, options.loss_fn, options.loss_options
    certificate = _Certificate(functools.partial(_gap, found, x, y, options.l2, sample_weight, *loss))
    return FitResult(found, history, int(carry.stale) >= options.patience, certificate, interrupted)


def _fit_stream(x: Any, y: Any, sample_weight: Any, batch_size: int | None, key: Any, options: Options) -> FitResult:
    if options.steps_per_epoch is not None:
        host_integer("steps_per_epoch", options.steps_per_epoch, at_least=1)
    options = options._replace(l2=check_number("l2", options.l2, meaning=_NOT_NEGATIVE, valid=_not_negative))
    if y is None:
        source = outside_source(x, sample_weight, batch_size, key)
    else:
        source, classes = mapped_source(x, y, sample_weight, batch_size or _batch_size(len(x)), key, options)
        options = options._replace(num_classes=classes)
    found, history, stale, interrupted = fit_stream(source, options)
    return FitResult(found, History(history), stale, _no_gap, interrupted)


class _Certificate:
    """A gap that is computed when it is first asked for, and kept. Unlike a closure, it can be pickled."""

    def __init__(self, compute: Callable[[], float]) -> None:
        self._compute = compute
        self._gap: float | None = None

    def __call__(self) -> float:
        if self._gap is None:
            self._gap = self._compute()
        return self._gap


def _no_gap() -> float:
    raise ValueError(
        "A fit to streamed data keeps no reference to them. For hinge losses, read them once more: "
        "jaxhinge.duality_gap(result.params, x, y, l2=l2), or without y where x is blocks."
    )


def _gap(
    params: LinearParams,
    x: Any,
    y: Any,
    l2: Any,
    sample_weight: Any,
    regularize_bias: bool,
    loss_fn: Callable[..., jax.Array],
    loss_options: dict[str, Any],
) -> float:
    names: dict[Any, Any] = {losses.hinge_loss: "hinge", losses.squared_hinge_loss: "squared_hinge"}
    if loss_fn not in names or loss_options.get("margin", 1.0) != 1.0 or not l2 > 0:
        raise ValueError(
            "There is a certificate for l2 > 0 and loss_fn=losses.hinge_loss or losses.squared_hinge_loss with margin "
            f"1; this fit had l2={l2}, loss_fn={getattr(loss_fn, '__name__', loss_fn)}, options {loss_options}. "
            "history.loss says what it reached; solve_multiclass, solve_regression and solve_quantile certify others."
        )
    intercept: Any = "regularized" if regularize_bias else True
    gap = duality_gap(params, x, y, l2=l2, sample_weight=sample_weight, fit_intercept=intercept, loss=names[loss_fn])
    return float(gap)


def _batch_size(n: int) -> int:
    """A power of two: about 24 steps to an epoch of a small data set, 150 of a large one."""
    fine, coarse = (1 << round(math.log2(max(1, n / steps))) for steps in (24, 150))
    return max(min(fine, 64), min(coarse, 512))


def _power_of_two(epochs: int) -> int:
    return max(128, 1 << (epochs - 1).bit_length())


def _not_negative(value: float) -> bool:
    return value >= 0
