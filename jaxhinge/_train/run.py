"""The epochs of `fit`, in calls short enough to draw a bar, to save checkpoints and to be interrupted between them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhinge._base.checkpoint import Checkpoints
from jaxhinge._base.interrupts import OnInterrupt, computed
from jaxhinge._base.progress import LateBar
from jaxhinge._base.sparse import is_sparse
from jaxhinge._objective.objective import LinearParams
from jaxhinge._train.epochs import Carry, Settings, TrainingProblem, begun, run_epochs, start, unbegun
from jaxhinge._train.static import describe

_PAUSE = 0.2  # seconds of one compiled call, after which bar, checkpoints and Ctrl-C have their turn
_SMALL = 2_000_000  # numbers that the first call reads, in some hundredths of a second: the pace is not known yet


class Host(NamedTuple):
    """What the host does beside a run.

    Attributes:
      progress: Whether to draw a bar; None where the run is long and stderr a terminal.
      checkpoints: Where to save, or None.
      facts: Makes the settings that are stored in a checkpoint; called only where there are checkpoints.
      on_interrupt: What Ctrl-C does.
    """

    progress: bool | None
    checkpoints: Checkpoints | None
    facts: Callable[[], dict[str, Any]]
    on_interrupt: OnInterrupt


def run(settings: Settings, problem: TrainingProblem, origin: LinearParams, host: Host) -> tuple[Carry, bool]:
    """All epochs, from the last checkpoint on where there is one; and whether Ctrl-C ended them."""
    carry, save = _begin(settings, problem, origin, host)
    patience = host.checkpoints.every_seconds if host.checkpoints else float("inf")
    chunk = 1 if host.checkpoints else max(1, _SMALL // max(1, problem.x.size))
    done = max(0, int(carry.epoch))
    bar = _Bar(host.progress, total=problem.epochs, initial=done, unit="epoch")
    looked = saved = time.perf_counter()
    try:
        while done < problem.epochs and int(carry.stale) < problem.patience:
            following: Carry = computed(run_epochs(settings, problem, origin, carry, min(problem.epochs, done + chunk)))
            carry, before, done = following, done, int(following.epoch)
            pace, looked = (time.perf_counter() - looked) / (done - before), time.perf_counter()
            chunk = max(1, int(min(_PAUSE, patience) / pace))
            bar.show(carry)
            if looked - saved >= patience:
                save(carry)
                saved = time.perf_counter()
    except KeyboardInterrupt:
        save(carry)
        if host.on_interrupt == "raise":
            raise
        return (carry if carry.epoch >= 0 else begun(settings, problem, origin)), True
    finally:
        bar.close()
    save(carry)
    return carry, False


def _begin(
    settings: Settings, problem: TrainingProblem, origin: LinearParams, host: Host
) -> tuple[Carry, Callable[[Carry], None]]:
    """Where the run begins, and how to save it."""
    if host.checkpoints is None:
        return unbegun(settings, problem, origin), lambda carry: None
    checkpoints, facts = host.checkpoints, host.facts()
    found = checkpoints.latest(jax.eval_shape(lambda: start(settings, problem, origin)), facts)
    last = -1 if found is None else found[0]

    def save(carry: Carry) -> None:
        nonlocal last
        if int(carry.epoch) > last:
            with _uninterrupted():
                checkpoints.save(int(carry.epoch), carry, facts)
                last = int(carry.epoch)

    return begun(settings, problem, origin) if found is None else found[1], save


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block; a second Ctrl-C interrupts at once. Signals reach the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def put_off(number: int, frame: Any) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)

    handler = signal.signal(signal.SIGINT, put_off)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)
    if heard:
        signal.raise_signal(signal.SIGINT)


class _Bar(LateBar):
    """Counts epochs."""

    def show(self, carry: Carry) -> None:
        """Say how far the run is."""
        bar, done = self.drawn(), int(carry.epoch)
        if bar is not None:
            bar.set_postfix(loss=f"{float(carry.history[done - 1]):.4g}", refresh=False)
            bar.update(done - bar.n)


def run_facts(value: Any, settings: Settings, problem: TrainingProblem, params: Any) -> dict[str, Any]:
    """All settings that the result of a run depends on, by name: they tell its checkpoints from those of other runs.

    `value` is `(optimizer, loss_fn, loss_options)`; `params` are those of a warm start, or None.
    """
    optimizer, loss_fn, loss_options = value
    return {
        "x": describe((problem.x.data, problem.x.indices, problem.x.shape) if is_sparse(problem.x) else problem.x),
        "y": describe(problem.y),
        "sample_weight": describe(problem.weight),
        "params": describe(params),
        "l2": problem.l2,
        "optimizer": describe(optimizer),
        "loss_fn": describe(loss_fn),
        **{name: describe(option) for name, option in loss_options.items()},
        "epochs": problem.epochs,
        "batch_size": settings.batch_size,
        "key": f"{jax.random.key_impl(problem.key)} {np.asarray(jax.random.key_data(problem.key)).tolist()}",
        "regularize_bias": settings.regularize_bias,
        "average_from": problem.average_from if settings.averaging else None,
        "tol": problem.tol if problem.tol >= 0 else None,
        "patience": problem.patience,
    }


def as_checkpoints(given: Any) -> Checkpoints | None:
    """A directory stands for checkpoints in it."""
    if given is None or isinstance(given, Checkpoints):
        return given
    if isinstance(given, (str, os.PathLike)):
        return Checkpoints(given)
    raise TypeError(f"checkpoint must be a directory, jaxhinge.Checkpoints or None; got {type(given).__name__}.")
