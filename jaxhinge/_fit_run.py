"""The epochs of `fit`, in calls short enough to draw a bar, to save checkpoints and to be interrupted between them."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from jaxhinge._checkpoint import Checkpoints
from jaxhinge._epochs import Carry, Problem, Settings, run_epochs, start
from jaxhinge._hoist import Static, describe
from jaxhinge._objective import LinearParams

_LONG_RUN = 2.0  # seconds, beyond which a progress bar is worth its line
_PAUSE = 0.2  # seconds between two looks at the clock
_SMALL = 2_000_000  # numbers to read, which take some hundredths of a second: no look before

OnInterrupt = Literal["raise", "return"]


class Host(NamedTuple):
    """What the host does beside a run.

    Attributes:
      progress: Whether to draw a bar; None where the run is long and stderr a terminal.
      checkpoints: Where to save, or None.
      facts: What the checkpoints say of the run, made when it is needed.
      on_interrupt: What Ctrl-C does.
    """

    progress: bool | None
    checkpoints: Checkpoints | None
    facts: Callable[[], dict[str, Any]]
    on_interrupt: OnInterrupt


def run(settings: Settings, problem: Problem, origin: LinearParams, host: Host) -> tuple[Carry, bool]:
    """All epochs, from the last checkpoint on where there is one; and whether Ctrl-C ended them."""
    carry, save = _begin(settings, problem, origin, host)
    patience = host.checkpoints.every_seconds if host.checkpoints else float("inf")
    chunk = 1 if host.checkpoints else max(1, _SMALL // max(1, problem.x.size))
    done = int(carry.epoch)
    bar = _Bar(problem.epochs, done, host.progress)
    looked = saved = time.perf_counter()
    try:
        while done < problem.epochs and int(carry.stale) < problem.patience:
            following: Carry = run_epochs(settings, problem, carry, min(problem.epochs, done + chunk))
            _wait(following.epoch)
            carry, before, done = following, done, int(following.epoch)
            pace, looked = (time.perf_counter() - looked) / (done - before), time.perf_counter()
            chunk = max(1, int(min(_PAUSE, patience) / pace))
            bar.show(carry, pace)
            if looked - saved >= patience:
                save(carry)
                saved = time.perf_counter()
    except KeyboardInterrupt:
        save(carry)
        if host.on_interrupt == "raise":
            raise
        return carry, True
    finally:
        bar.close()
    save(carry)
    return carry, False


def _begin(
    settings: Settings, problem: Problem, origin: LinearParams, host: Host
) -> tuple[Carry, Callable[[Carry], None]]:
    """Where the run begins, and how to save it."""
    if host.checkpoints is None:
        return start(settings, problem, origin), lambda carry: None
    checkpoints, facts = host.checkpoints, host.facts()
    found = checkpoints.latest(jax.eval_shape(lambda: start(settings, problem, origin)), facts)
    last = -1 if found is None else found[0]

    def save(carry: Carry) -> None:
        nonlocal last
        if int(carry.epoch) > last:
            checkpoints.save(int(carry.epoch), carry, facts)
            last = int(carry.epoch)

    return start(settings, problem, origin) if found is None else found[1], save


def _wait(array: Any) -> None:
    """Wait until an array is computed, so that Ctrl-C is heard: JAX's own waiting is deaf to it."""
    began = time.perf_counter()
    while not array.is_ready():
        time.sleep(min(max((time.perf_counter() - began) / 20, 2e-5), 0.01))


class _Bar:
    """A progress bar on stderr: where it is asked for, or on a terminal where the run is long."""

    def __init__(self, epochs: int, done: int, progress: bool | None) -> None:
        self._epochs, self._first, self._done = epochs, done, done
        self._wanted = progress
        self._possible = sys.stderr.isatty() if progress is None else progress
        self._bar: Any = None

    def show(self, carry: Carry, pace: float) -> None:
        """Say how far the run is, given the seconds that an epoch takes."""
        if not self._possible:
            return
        self._done = int(carry.epoch)
        if self._bar is None and (self._wanted or pace * self._epochs > _LONG_RUN):
            self._bar = tqdm(total=self._epochs, initial=self._first, unit="epoch", file=sys.stderr)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{float(carry.history[self._done - 1]):.4g}", refresh=False)
            self._bar.update(self._done - self._bar.n)

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()


def run_facts(
    structure: Static, numbers: list[Any], settings: Settings, problem: Problem, params: Any
) -> dict[str, Any]:
    """All that the bits of a run depend on, by name, so that a checkpoint of another run is told from its own."""
    return {
        "x": _summary(problem.x),
        "y": _summary(problem.y),
        "sample_weight": None if problem.weight is None else _summary(problem.weight),
        "params": None if params is None else [_summary(leaf) for leaf in params],
        "l2": problem.l2,
        "optimizer, loss_fn and options": describe(structure),
        "numbers of optimizer, loss_fn and options": [_summary(number) for number in numbers],
        "epochs": problem.epochs,
        "batch_size": settings.batch_size,
        "key": f"{jax.random.key_impl(problem.key)} {np.asarray(jax.random.key_data(problem.key)).tolist()}",
        "regularize_bias": settings.regularize_bias,
        "average_from": problem.average_from if settings.averaging else None,
        "tol": problem.tol if problem.tol >= 0 else None,
        "patience": problem.patience,
    }


def _summary(value: Any) -> Any:
    """A number as it is, an array by its shape, dtype and the SHA-256 of its bytes."""
    array = np.ascontiguousarray(value)
    if np.ndim(value) == 0:
        return float(value)
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return f"{array.dtype} {array.shape}, SHA-256 {digest[:16]}"


def as_checkpoints(given: Any) -> Checkpoints | None:
    """A directory stands for checkpoints in it."""
    if given is None or isinstance(given, Checkpoints):
        return given
    if isinstance(given, (str, os.PathLike)):
        return Checkpoints(given)
    raise TypeError(f"checkpoint must be a directory, jaxhinge.Checkpoints or None; got {type(given).__name__}.")


def check_on_interrupt(given: Any) -> OnInterrupt:
    """What Ctrl-C does: one of two words."""
    if given not in ("raise", "return"):
        raise ValueError(f'on_interrupt must be "raise" or "return"; got {given!r}.')
    checked: OnInterrupt = given
    return checked
