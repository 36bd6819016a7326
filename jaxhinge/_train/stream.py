"""`fit` on batches that come from outside: one compiled step, called from the host, batches read ahead by a thread."""

from __future__ import annotations

import collections
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import NDArray, check_feature_shape, random_key
from jaxhinge._base.interrupts import OnInterrupt
from jaxhinge._base.prefetch import prefetched
from jaxhinge._base.progress import LateBar
from jaxhinge._base.sources import Source, shuffled_rows, source_of
from jaxhinge._base.values import host_integer
from jaxhinge._objective.objective import LinearParams
from jaxhinge._train.batches import running_mean
from jaxhinge._train.data import first_key, first_params, fit_problem, problem_of
from jaxhinge._train.epochs import step_parts
from jaxhinge._train.optimizer import FeatureScale, default_optimizer, feature_scale
from jaxhinge._train.reader import Batch, Reader
from jaxhinge._train.static import Static, freeze, split
from jaxhinge._train.step import Optimizer, TrainState
from jaxhinge.losses._families import REGRESSION, unwrapped

_REDRAW = 0.5  # seconds between two updates of the progress bar
_AHEAD_ROWS = 4096  # rows that are read before the first step, to know the scale of the features
_AHEAD_BYTES = 1 << 26  # bytes at which that reading stops, where rows are long
_IN_FLIGHT = 4  # steps that may wait for the device; each keeps its batch in memory
_NEVER = 1 << 30  # a step number that no run reaches

# Raised where an optimizer or a loss branches on one of its numbers, or needs it in NumPy.
NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


class Options(NamedTuple):
    """The options of `fit`, checked."""

    l2: Any
    optimizer: Optimizer | None
    epochs: int
    steps_per_epoch: int | None
    params: Any
    loss_fn: Callable[..., jax.Array]
    loss_options: dict[str, Any]
    num_classes: int | None
    regularize_bias: bool
    average_from: int | None
    tol: Any
    patience: int
    progress: bool | None
    on_interrupt: OnInterrupt


class Outcome(NamedTuple):
    """The parameters, the loss of each whole epoch, whether the run went stale, and whether Ctrl-C ended it."""

    params: LinearParams
    losses: NDArray
    stale: bool
    interrupted: bool


class _Settings(NamedTuple):
    structure: Static
    regularize_bias: bool
    averaging: bool


class _Run(NamedTuple):
    """The numbers of a run; new values do not recompile."""

    l2: Any
    numbers: list[Any]
    scale: FeatureScale
    target_scale: Any
    num_steps: Any


class _Carry(NamedTuple):
    """A run between two batches; `loss` is the mean so far of the epoch's batches, over rows that weigh `weight`."""

    state: TrainState
    mean: LinearParams
    loss: jax.Array
    weight: jax.Array


def outside_source(batches: Any, sample_weight: Any, batch_size: Any, key: Any) -> Source:
    """Batches whose sizes, weights and order are the caller's."""
    source = source_of("x", batches)
    for name, value in (("sample_weight", sample_weight), ("batch_size", batch_size), ("key", key)):
        if value is not None:
            advice = "Yield (x, y, sample_weight)." if name == "sample_weight" else "Decide it where they are made."
            raise ValueError(f"{name} is for arrays x and y, but x is an iterable of batches. {advice}")
    return source


def mapped_source(
    x: NDArray, y: Any, sample_weight: Any, batch_size: int, key: Any, options: Options
) -> tuple[Source, int | None]:
    """Shuffled rows of a memory-mapped file, and the number of classes in `y`."""
    check_feature_shape("x", x)
    size = host_integer("batch_size", batch_size, at_least=1)
    # `like` stands for `x` in these checks: the features themselves are read and checked batch by batch.
    like = np.broadcast_to(np.zeros((), x.dtype), (len(x), 1))
    problem, classes = fit_problem(like, y, options.l2, options.loss_fn, options.num_classes, sample_weight)
    key = first_key() if key is None else random_key("key", key)
    return shuffled_rows(x, problem.y, problem.weight, size, key), classes


def fit_stream(source: Source, options: Options) -> Outcome:
    """Run all epochs, or until the loss of an epoch has gone stale."""
    _check_passes(source, options)
    reader = Reader(options.loss_fn, options.num_classes)
    passes = 1 if source.once else options.epochs if options.steps_per_epoch is None else None
    batches = _passes(source, passes)
    with contextlib.closing(prefetched(batches, partial(_read, reader))) as ready:
        ahead = list(_ahead(ready, options))
        run, params = _begin(source, options, ahead)
        settings, run = _compilable(options, run, params, ahead[0])
        return _epochs(settings, run, params, options, reader, itertools.chain(ahead, ready))


def _check_passes(source: Source, options: Options) -> None:
    if source.once and options.epochs > 1 and options.steps_per_epoch is None:
        raise ValueError(
            f"x is an iterator, which ends after one pass, but epochs={options.epochs}. Pass epochs=1; or a function "
            "that makes a new one for each epoch: fit(lambda: make_batches(), ...); or, if it goes on for ever, "
            "steps_per_epoch=."
        )
    if options.optimizer is None and options.steps_per_epoch is None and source.length is None:
        raise ValueError(
            "optimizer=None needs to know the number of steps, but the batches have no len(). "
            "Pass steps_per_epoch=, or an optimizer, e.g. optax.adam(1e-3)."
        )


def _passes(source: Source, passes: int | None) -> Iterator[tuple[str, Any] | None]:
    """All batches, each with its name for error messages; None ends each pass."""
    for number in itertools.count() if passes is None else range(passes):
        index = -1
        for index, batch in enumerate(source.begin(number)):
            yield f"batch {index} of pass {number}", batch
        if index < 0:
            raise ValueError(
                f"Pass {number} over the batches found none. A function of batches must return a new iterator each "
                "time it is called."
            )
        yield None


def _read(reader: Reader, named: tuple[str, Any] | None) -> Batch | None:
    return None if named is None else reader.read(named)


def _ahead(ready: Iterable[Batch | None], options: Options) -> Iterator[Batch | None]:
    """The batches that are read before the first step."""
    wanted = options.optimizer is None or unwrapped(options.loss_fn) in REGRESSION
    rows = size = 0
    for batch in ready:
        yield batch
        if batch is None:
            return
        rows, size = rows + batch.real, size + batch.x.nbytes
        if not wanted or rows >= _AHEAD_ROWS or size >= _AHEAD_BYTES:
            return


def _begin(source: Source, options: Options, ahead: list[Batch | None]) -> tuple[_Run, LinearParams]:
    """The numbers of the run and its first parameters, from the first batches."""
    batches = [batch for batch in ahead if batch is not None]
    x, y, weight = (
        np.concatenate([getattr(batch, name)[: batch.real] for batch in batches]) for name in ("x", "y", "weight")
    )
    problem = problem_of(x, y, weight, options.l2, options.loss_fn)
    params = first_params(options.params, problem, options.num_classes, options.loss_fn)
    scale = FeatureScale(jnp.zeros(x.shape[1], x.dtype), jnp.ones(x.shape[1], x.dtype))
    if options.optimizer is None:
        scale = _feature_scale(x, weight if weight.any() else np.ones_like(weight))
    steps = options.steps_per_epoch or source.length or 0
    return _Run(options.l2, [], scale, problem.target_scale, np.int32(options.epochs * steps)), params


_feature_scale = jax.jit(feature_scale)


def _compilable(options: Options, run: _Run, params: LinearParams, batch: Batch | None) -> tuple[_Settings, _Run]:
    """The static parts of the step, and the run. Numbers are static only where optimizer or loss branch on them."""
    value = (options.optimizer, options.loss_fn, options.loss_options)
    structure, numbers = split(value)
    settings = _Settings(structure, options.regularize_bias, options.average_from is not None)
    with_numbers = run._replace(numbers=numbers)
    assert batch is not None  # a pass without batches has been refused
    try:
        carry = jax.eval_shape(partial(_initial_carry, settings), with_numbers, params)
        jax.eval_shape(partial(_step, settings), with_numbers, carry, batch[:3], _NEVER)
    except NEEDS_VALUES:
        return settings._replace(structure=freeze(value)), run
    return settings, with_numbers


def _epochs(
    settings: _Settings,
    run: _Run,
    params: LinearParams,
    options: Options,
    reader: Reader,
    batches: Iterator[Batch | None],
) -> Outcome:
    progress = _Progress(_initial_carry(settings, run, params))
    interrupted = False
    try:
        with contextlib.closing(_Bar(options.progress, int(run.num_steps))) as bar:
            while progress.epoch < options.epochs and progress.stale < options.patience:
                _one_epoch(settings, run, progress, options, _epoch(batches, options.steps_per_epoch), bar)
                if progress.epoch == 1 and options.steps_per_epoch is None:
                    reader.check_classes()
        reader.check_classes()
    except KeyboardInterrupt:
        if options.on_interrupt == "raise":
            raise
        interrupted = True
    carry = progress.carry
    found = carry.state.params if options.average_from is None else carry.mean
    losses = np.asarray(progress.losses, found.w.dtype)
    return Outcome(found, losses, progress.stale >= options.patience, interrupted)


class _Progress:
    """A run as the host sees it: what Ctrl-C leaves."""

    def __init__(self, carry: _Carry) -> None:
        self.carry = carry
        self.average_from = _NEVER
        self.epoch = self.stale = self.steps = 0
        self.losses: list[float] = []


def _one_epoch(
    settings: _Settings, run: _Run, progress: _Progress, options: Options, batches: Iterator[Batch], bar: _Bar
) -> None:
    if progress.epoch == options.average_from:
        progress.average_from = progress.steps
    carry = progress.carry
    progress.carry = carry._replace(loss=jnp.zeros_like(carry.loss), weight=jnp.zeros_like(carry.weight))
    in_flight: collections.deque[jax.Array] = collections.deque()
    for batch in batches:
        progress.carry = _step(settings, run, progress.carry, batch[:3], progress.average_from)
        in_flight.append(progress.carry.state.step)
        if len(in_flight) > _IN_FLIGHT:
            in_flight.popleft().block_until_ready()
        progress.steps += 1
        bar.update(progress.carry, progress.steps)
    value, best = float(progress.carry.loss), min(progress.losses, default=np.inf)
    progress.losses.append(value)
    # The first epoch is progress; the comparison would say no, for `best` is still infinite.
    gained = progress.epoch == 0 or value < best - options.tol * abs(best)
    progress.stale = 0 if gained or options.tol < 0 else progress.stale + 1
    progress.epoch += 1


def _epoch(batches: Iterator[Batch | None], steps: int | None) -> Iterator[Batch]:
    """The batches of one epoch: the next `steps` of them, or, for None, those of one pass."""
    taken = 0
    for batch in batches:
        if batch is None and steps is None:
            return
        if batch is None:
            continue
        yield batch
        taken += 1
        if taken == steps:
            return
    raise ValueError(
        f"The batches ended {taken} steps into an epoch of steps_per_epoch={steps}. Pass fewer epochs or steps, or a "
        "function that makes a new iterator each time the batches end."
    )


def _parts(settings: _Settings, run: _Run) -> tuple[Any, Any, Any]:
    default = partial(default_optimizer, run.scale, run.target_scale, run.num_steps)
    return step_parts(settings.structure, run.numbers, settings.regularize_bias, default)


@partial(jax.jit, static_argnums=0)
def _initial_carry(settings: _Settings, run: _Run, params: LinearParams) -> _Carry:
    init, _, _ = _parts(settings, run)
    state = init(params)
    zero = jnp.zeros((), state.params.w.dtype)
    return _Carry(state, state.params, zero, zero)


@partial(jax.jit, static_argnums=0)
def _step(settings: _Settings, run: _Run, carry: _Carry, batch: Any, average_from: Any) -> _Carry:
    _, step, _ = _parts(settings, run)
    x, y, weight = batch
    total = jnp.sum(weight)
    # Where all weights are 0 their mean is not defined: weights of 1 stand in, and the new state is dropped.
    empty = total == 0
    state, metrics = step(carry.state, x, y, l2=run.l2, sample_weight=jnp.where(empty, 1, weight))
    start = average_from if settings.averaging else None
    mean = running_mean(carry.mean, state.params, state.step - 1, start)
    seen = carry.weight + total
    value = carry.loss + (metrics.loss - carry.loss) * total / seen
    new = _Carry(state, mean, value.astype(carry.loss.dtype), seen)
    moved: _Carry = jax.tree.map(lambda old, moved: jnp.where(empty, old, moved), carry, new)
    return moved


class _Bar(LateBar):
    """Counts steps."""

    def __init__(self, progress: bool | None, num_steps: int) -> None:
        super().__init__(progress, total=num_steps or None, unit="step")
        self._total, self._shown = num_steps, self._began

    def update(self, carry: _Carry, steps: int) -> None:
        """Show how far the run is. Reading the loss waits for the device, so this is done every `_REDRAW` seconds."""
        now = time.perf_counter()
        if now - self._shown < _REDRAW and steps != self._total:
            return
        bar = self.drawn()
        if bar is not None:
            self._shown = now
            bar.set_postfix(loss=f"{float(carry.loss):.4g}", refresh=False)
            bar.update(steps - bar.n)
