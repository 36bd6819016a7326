"""The two executors of one source: a Python loop over NumPy arrays on the host, `lax` under a trace.

Steps are functions of arrays. They take the namespace from their arrays, and their loops from here: the only place
that knows which of the two runs them. On the host many problems may be worked on together, along leading axes of
their arrays; under a trace `vmap` does that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import Array

State = TypeVar("State", bound=Any)
Tree = TypeVar("Tree", bound=Any)


def namespace(array: Array) -> Any:
    """`numpy` for what NumPy made, else `jax.numpy`."""
    return np if isinstance(array, (np.ndarray, np.generic)) else jnp


class Watch:
    """Who watches the steps of a solve on the host: hears Ctrl-C, and is shown each certificate.

    Attributes:
      keeps: Whether Ctrl-C ends the steps, so that the result so far is returned; else it is raised.
      interrupted: Whether it did.
      bar: Shown `(gap, primal, steps)` after each step, or None.
    """

    def __init__(self, keeps: bool = False, bar: Any = None) -> None:
        self.keeps, self.interrupted, self.bar = keeps, False, bar


def while_loop(
    going: Callable[[State], Array], step: Callable[[State], State], state: State, watch: Watch | None = None
) -> State:
    """Steps while `going`; the last leaf of the state tells the executor. A watched state has `best` and `steps`."""
    if namespace(jax.tree.leaves(state)[-1]) is not np:
        return jax.lax.while_loop(going, step, state)
    if watch is None:
        while going(state):
            state = step(state)
        return state
    try:
        while not watch.interrupted and going(state):
            state = step(state)
            if watch.bar is not None:
                best = state.best
                watch.bar.show(float(best.primal - best.dual), float(best.primal), int(state.steps))
    except KeyboardInterrupt:
        if not watch.keeps:
            raise
        watch.interrupted = True
    return state


def repeat(number: int, step: Callable[[State], State], state: State) -> State:
    """So many steps."""
    if namespace(jax.tree.leaves(state)[-1]) is np:
        for _ in range(number):
            state = step(state)
        return state
    return jax.lax.fori_loop(0, number, lambda _, state: step(state), state)  # type: ignore[no-any-return]


def either(condition: Array, yes: Callable[[], Tree], no: Callable[[], Tree]) -> Tree:
    """One branch or the other; on the host only that one is computed."""
    if namespace(condition) is np:
        return yes() if condition else no()
    return jax.lax.cond(condition, yes, no)  # type: ignore[no-any-return]


def choose(condition: Array, yes: Tree, no: Tree) -> Tree:
    """One tree or the other, leaf by leaf, problem by problem."""
    where = namespace(condition).where

    def leaf(yes: Array, no: Array) -> Array:
        more = max(np.ndim(yes), np.ndim(no)) - np.ndim(condition)
        return where(condition[(..., *[None] * more)] if np.ndim(condition) else condition, yes, no)

    return jax.tree.map(leaf, yes, no)  # type: ignore[no-any-return]


def each(function: Callable[[Array], Tree], items: Array) -> Tree:
    """`function` of every item along the first axis."""
    if namespace(items) is not np:
        return jax.vmap(function)(items)
    found: Tree = jax.tree.map(lambda *leaves: np.stack(leaves), *[function(item) for item in items])
    return found


def dot(a: Array, b: Array) -> Array:
    """The product of vectors along the last axis."""
    return a @ b if a.ndim == b.ndim == 1 else namespace(a).sum(a * b, axis=-1)


def column(values: Array) -> Array:
    """A number for each problem, to go with vectors of each."""
    return values[..., None]
