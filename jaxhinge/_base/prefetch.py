"""Batches made ready by a thread while the device works on the ones before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

_Item = TypeVar("_Item")
_Ready = TypeVar("_Ready")

_POLL = 0.05  # seconds between two looks of a waiting thread at whether it is still wanted
_FAREWELL = 1.0


class _End(NamedTuple):
    """No more items: because there are none, or because of an error."""

    error: BaseException | None


def prefetched(
    items: Iterable[_Item], prepare: Callable[[_Item], _Ready], depth: int = 2
) -> Generator[_Ready, None, None]:
    """`prepare(item)` for each item, in order, computed in a thread up to `depth` results ahead.

    What `items` or `prepare` raise is raised here, after the results before it. Closing the generator
    (`contextlib.closing`) stops the thread after the item that it is at.
    """
    ready: queue.Queue[_Ready | _End] = queue.Queue(depth)
    unwanted = threading.Event()
    # JAX's context managers hold for one thread only, and an iterable may make JAX arrays.
    wide = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    arguments = (items, prepare, ready, unwanted, wide)
    thread = threading.Thread(target=_fill, args=arguments, name="jaxhinge prefetch", daemon=True)
    thread.start()
    try:
        while True:
            entry = ready.get()
            if not isinstance(entry, _End):
                yield entry
            elif entry.error is None:
                return
            else:
                raise entry.error
    finally:
        unwanted.set()
        # An item that never comes must not hold up whoever stopped waiting for it.
        thread.join(_FAREWELL)


def _fill(
    items: Iterable[Any],
    prepare: Callable[[Any], Any],
    ready: queue.Queue[Any],
    unwanted: threading.Event,
    wide: bool,
) -> None:
    error: BaseException | None = None
    try:
        with jax.enable_x64(wide):
            for item in items:
                if not _offer(ready, prepare(item), unwanted):
                    return
    except BaseException as raised:  # whatever it is, it belongs to the caller's thread
        error = raised
    _offer(ready, _End(error), unwanted)


def _offer(ready: queue.Queue[Any], entry: Any, unwanted: threading.Event) -> bool:
    """Wait for a place in the queue; False where nobody wants the entry any more."""
    while not unwanted.is_set():
        try:
            ready.put(entry, timeout=_POLL)
            return True
        except queue.Full:
            continue
    return False
