"""Rows made ready once, wherever they lie, for binary problems at many strengths, each started from its neighbour."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import jax
import numpy as np

from jaxhinge._base.values import check_finite, is_on_accelerator
from jaxhinge._methods.executor import Watch
from jaxhinge._methods.host import solve_on_host
from jaxhinge._methods.padded import solve_padded
from jaxhinge._methods.problem import Answer, Config, Rows, Start
from jaxhinge._methods.sharded import MeshRows
from jaxhinge._methods.streamed.stages import Limits, Source, Stream, opened
from jaxhinge._solve.binary import SolverOptions, check_one_program, check_streamable
from jaxhinge._solve.given import binary_problem, caller_dtype, host_limits, place_of, weighed_on_host


class Prepared(Protocol):
    """A solver for rows that are ready; `dtype` is that of what comes back."""

    dtype: Any

    def solve(self, l2: float, before: Answer | None) -> Answer:
        """The answer at a strength, from that at another."""

    def stacked(self, leaves: tuple[Any, ...]) -> Any:
        """The answers' arrays as one, which leads with the strengths."""


@contextmanager
def prepared(config: Config, x: Any, y: Any, sample_weight: Any, options: SolverOptions) -> Iterator[Prepared]:
    """A solver for rows in memory, in a stream, or on a mesh."""
    limits = Limits(*host_limits(options.tol, options.max_steps), options.on_interrupt)
    place = place_of(x, y, traced=False)
    if place == "stream":
        check_streamable(config)
        with opened(Source(x, y, sample_weight), options.as_numpy, False, limits.tol) as stream:
            yield _OfStream(config, stream, limits, options.as_numpy)
    elif place == "mesh":
        # The bar is over the strengths.
        check_one_program(options._replace(progress=None))
        yield _OfMesh(config, MeshRows(config, options.as_numpy, x, y, sample_weight), limits)
    else:
        on_accelerator = is_on_accelerator(x)
        if on_accelerator:
            check_one_program(options._replace(progress=None))
        problem = binary_problem(x, y, 1.0, sample_weight, traced=False)
        check_finite("x", problem.x)
        dtype = np.float64 if options.as_numpy else caller_dtype(problem.x)
        config = replace(config, dtype=dtype)
        yield _InMemory(config, weighed_on_host(config, problem), limits, on_accelerator, options.as_numpy)


class _InMemory:
    def __init__(self, config: Config, rows: Rows, limits: Limits, on_accelerator: bool, as_numpy: bool) -> None:
        self._config, self._rows, self._limits, self.dtype = config, rows, limits, config.dtype
        self._on_accelerator, self._as_numpy = on_accelerator, as_numpy
        # One for all strengths: after Ctrl-C the others only certify where they would start.
        self._watch = Watch(limits.on_interrupt == "return")

    def solve(self, l2: float, before: Answer | None) -> Answer:
        start, (tol, max_steps, _) = _start(before, len(self._rows.c), self._rows.xt.shape[0]), self._limits
        rows = self._rows._replace(l2=np.float64(l2))
        if self._on_accelerator:
            return solve_padded(self._config, rows, start, tol, max_steps)
        return solve_on_host(self._config, rows, start, tol, max_steps, self._watch)

    def stacked(self, leaves: tuple[Any, ...]) -> Any:
        return _joined(leaves, self._as_numpy)


class _OfStream:
    def __init__(self, config: Config, stream: Stream, limits: Limits, as_numpy: bool) -> None:
        self._config, self._stream, self._limits, self.dtype = config, stream, limits, stream.dtype
        self._as_numpy = as_numpy

    def solve(self, l2: float, before: Answer | None) -> Answer:
        return self._stream.solve(self._config, l2, _start(before, *self._stream.shape), self._limits)

    def stacked(self, leaves: tuple[Any, ...]) -> Any:
        return _joined(leaves, self._as_numpy)


class _OfMesh:
    def __init__(self, config: Config, rows: MeshRows, limits: Limits) -> None:
        self._config, self._rows, self._limits, self.dtype = config, rows, limits, rows.dtype

    def solve(self, l2: float, before: Answer | None) -> Answer:
        given = None if before is None else ((before.w, before.b), before.dual)
        return self._rows.solve(l2, given, self._limits.tol, self._limits.max_steps)

    def stacked(self, leaves: tuple[Any, ...]) -> Any:
        return self._rows.stacked(leaves)


def _joined(leaves: tuple[Any, ...], as_numpy: bool) -> Any:
    return np.stack(leaves) if as_numpy else jax.device_put(np.stack(leaves))


def _start(before: Answer | None, n: int, d: int) -> Start:
    if before is None:
        return Start(np.zeros(d), np.float64(0), np.zeros(n), np.False_)
    w, b, dual = (np.asarray(leaf, np.float64) for leaf in (before.w, before.b, before.dual))
    return Start(w, b, dual, np.True_)
