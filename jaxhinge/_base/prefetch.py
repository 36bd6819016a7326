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

# Seconds after which a thread that waits on a full queue checks whether its results are still wanted.
_POLL = 0.05
# Seconds that closing waits for the thread to end. An iterable that never yields again must not block the caller.
_FAREWELL = 1.0


class _End(NamedTuple):
    """The end of the results: `error` ended them, or, where it is None, the items did."""

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
    # JAX's contexts hold for one thread only: without `wide`, arrays made in the new one would be float32.
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
    except BaseException as raised:  # every exception is raised again in the caller's thread
        error = raised
    _offer(ready, _End(error), unwanted)


def _offer(ready: queue.Queue[Any], entry: Any, unwanted: threading.Event) -> bool:
    """Put the entry into the queue; False where the caller has closed it first."""
    while not unwanted.is_set():
        try:
            ready.put(entry, timeout=_POLL)
            return True
        except queue.Full:
            continue
    return False
