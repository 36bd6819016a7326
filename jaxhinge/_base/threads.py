"""How many cores a solve on the host takes: BLAS works on one thread, and large products on a few threads of our own.

OpenBLAS's threads spin while they wait. Beside another busy process a solve of 20 ms then takes seconds. Its sums also
have other bits with another number of threads. So BLAS is held to one thread while a solver runs. A product with many
rows is cut into blocks of fixed sizes instead, which threads that sleep while they wait share among them: the bits do
not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Limiter:
    """BLAS held to one thread while somebody asks for it, and given back what it had by the last who does.

    The libraries are looked up once: that takes 2 ms, which a small solve would feel.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.threads = os.cpu_count() or 1
        self.libraries: list[Any] = []
        self.loaded = ""
        self.before: list[tuple[Any, int]] = []

    def enter(self) -> None:
        with self.lock:
            if self.users == 0:
                self._look_up()
                self.before = [(library, library.get_num_threads()) for library in self.libraries]
                # Where BLAS was held to fewer threads than there are cores, as in workers of joblib, so are ours.
                self.threads = max((number for _, number in self.before), default=self.threads)
                for library, number in self.before:
                    if number != 1:
                        library.set_num_threads(1)
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                for library, number in self.before:
                    if number != 1:
                        library.set_num_threads(number)

    def _look_up(self) -> None:
        # SciPy brings a BLAS of its own, which may have been loaded since.
        loaded = "scipy" if "scipy.linalg" in sys.modules else "numpy"
        if loaded == self.loaded:
            return
        try:
            from threadpoolctl import ThreadpoolController
        except ImportError:
            return
        controllers = ThreadpoolController().lib_controllers
        self.libraries = [library for library in controllers if library.user_api == "blas"]
        self.loaded = loaded


_limiter = _Limiter()
_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _forget() -> None:
    """In the child of a fork: threads, and the holders of locks, have stayed in the parent."""
    global _pool, _pool_lock
    users, before = _limiter.users, _limiter.before
    _limiter.__init__()  # type: ignore[misc]
    if users:
        # The child took the limit along, but nobody in it will lift it.
        for library, number in before:
            library.set_num_threads(number)
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread; without `threadpoolctl` it keeps its own number, which costs speed only."""
    _limiter.enter()
    try:
        yield
    finally:
        _limiter.leave()


def num_threads() -> int:
    """How many threads a solver may use: as many as BLAS had."""
    return _limiter.threads


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`function` of every item, in order, by as many threads as BLAS would have had; by this one where that is one."""
    global _pool
    if num_threads() < 2 or len(items) < 2 or threading.current_thread().name.startswith("jaxhinge rows"):
        return [function(item) for item in items]
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(os.cpu_count() or 1, "jaxhinge rows")
    futures = [_pool.submit(function, item) for item in items[1:]]
    first = function(items[0])
    return [first, *(future.result() for future in futures)]
