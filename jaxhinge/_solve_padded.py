"""Solving padded rows on the host: what float32 can do first and, where that is not enough, the rest."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from jaxhinge._core import solve_quickly, solve_thoroughly
from jaxhinge._precision import in_float64
from jaxhinge._rows import Answer, Config, Rows, Start, Status
from jaxhinge._solve_pieces import quickly_in_pieces, thoroughly_in_pieces
from jaxhinge._waiting import OnInterrupt, computed


def solve_padded(
    config: Config,
    rows: Rows,
    start: Start,
    tol: np.float64,
    max_steps: np.int32,
    on_interrupt: OnInterrupt = "raise",
) -> Answer:
    """The answer in NumPy arrays. A program of its own tries what float32 can do: few problems need the other."""
    quickly, thoroughly = _halves(config, on_interrupt)
    with jax.enable_x64(True):
        answer = _fetched(quickly(rows, start, tol, max_steps))
        if answer.status != Status.STALLED:
            return answer
        left = np.int32(max_steps - answer.steps)
        w, b, dual = (leaf.astype(np.float64) for leaf in (answer.w, answer.b, answer.dual))
        try:
            again = _fetched(thoroughly(rows, Start(w, b, dual, np.asarray(True)), tol, left))
        except KeyboardInterrupt:
            if on_interrupt == "raise":
                raise
            return answer._replace(status=np.int32(Status.STEP_LIMIT))
    # Rounding may have spoilt the better one.
    found = again if again.gap <= answer.gap else answer
    return found._replace(steps=answer.steps + again.steps, status=again.status)


def _fetched(answer: Answer) -> Answer:
    # Copies, which may be written to.
    return jax.tree.map(np.array, answer)  # type: ignore[no-any-return]


def _halves(config: Config, on_interrupt: OnInterrupt) -> tuple[Callable[..., Answer], Callable[..., Answer]]:
    """The two halves: each a program, or in pieces, between which there is something to return."""
    if on_interrupt == "return":
        return partial(quickly_in_pieces, config), partial(thoroughly_in_pieces, config)
    return partial(_whole, solve_quickly, config), partial(_whole, solve_thoroughly, config)


def _whole(solver: Any, config: Config, *arguments: Any) -> Answer:
    return computed(_compiled(solver, config)(*arguments))  # type: ignore[no-any-return]


@lru_cache
def _compiled(solver: Any, config: Config) -> Any:
    return jax.jit(in_float64(partial(solver, config), config.dtype))
