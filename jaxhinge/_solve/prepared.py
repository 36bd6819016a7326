"""Rows made ready once, wherever they lie, for binary problems at many strengths, each started from its neighbour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhinge._base.values import check_finite, is_on_accelerator
from jaxhinge._methods.executor import Watch
from jaxhinge._methods.host import solve_on_host
from jaxhinge._methods.padded import solve_padded
from jaxhinge._methods.problem import Answer, Config, Rows, numpy_start
from jaxhinge._methods.sharded import MeshRows
from jaxhinge._methods.streamed.stages import Limits, Source, Stream, opened
from jaxhinge._solve.binary import SolverOptions, check_one_program, check_streamable
from jaxhinge._solve.given import binary_problem, caller_dtype, host_limits, place_of, weighed_on_host


class Prepared(NamedTuple):
    """A solver for rows that are ready.

    Attributes:
      dtype: What comes back in.
      solve: The answer at a strength, from that at another.
      stacked: The answers' arrays as one, which leads with the strengths.
    """

    dtype: Any
    solve: Callable[[float, Answer | None], Answer]
    stacked: Callable[[tuple[Any, ...]], Any]


@contextmanager
def prepared(config: Config, x: Any, y: Any, sample_weight: Any, options: SolverOptions) -> Iterator[Prepared]:
    """A solver for rows in memory, in a stream, or on a mesh."""
    limits = Limits(*host_limits(options.tol, options.max_steps), options.on_interrupt)
    place, joined = place_of(x, y, traced=False), partial(_joined, options.as_numpy)
    if place == "stream":
        check_streamable(config)
        with opened(Source(x, y, sample_weight), options.as_numpy, False, limits.tol) as stream:
            yield Prepared(stream.dtype, partial(_solve_stream, config, stream, limits), joined)
    elif place == "mesh":
        # The bar is over the strengths.
        check_one_program(options._replace(progress=None))
        rows = MeshRows(config, options.as_numpy, x, y, sample_weight)
        yield Prepared(rows.dtype, partial(_solve_on_mesh, rows, limits), rows.stacked)
    else:
        problem = binary_problem(x, y, 1.0, sample_weight, traced=False)
        check_finite("x", problem.x)
        config = replace(config, dtype=np.float64 if options.as_numpy else caller_dtype(problem.x))
        yield Prepared(config.dtype, _in_memory(config, weighed_on_host(config, problem), limits, x, options), joined)


def _solve_stream(config: Config, stream: Stream, limits: Limits, l2: float, before: Answer | None) -> Answer:
    return stream.solve(config, l2, numpy_start(before, *stream.shape), limits)


def _solve_on_mesh(rows: MeshRows, limits: Limits, l2: float, before: Answer | None) -> Answer:
    given = None if before is None else ((before.w, before.b), before.dual)
    return rows.solve(l2, given, limits.tol, limits.max_steps)


def _in_memory(
    config: Config, rows: Rows, limits: Limits, x: Any, options: SolverOptions
) -> Callable[[float, Answer | None], Answer]:
    tol, max_steps, on_interrupt = limits
    on_accelerator = is_on_accelerator(x)
    if on_accelerator:
        check_one_program(options._replace(progress=None))
    # One for all strengths: after Ctrl-C the others only certify where they would start.
    watch = Watch(on_interrupt == "return")

    def solve(l2: float, before: Answer | None) -> Answer:
        start, problem = numpy_start(before, len(rows.c), rows.xt.shape[0]), rows._replace(l2=np.float64(l2))
        if on_accelerator:
            return solve_padded(config, problem, start, tol, max_steps)
        return solve_on_host(config, problem, start, tol, max_steps, watch)

    return solve


def _joined(as_numpy: bool, leaves: tuple[Any, ...]) -> Any:
    return np.stack(leaves) if as_numpy else jax.device_put(np.stack(leaves))
