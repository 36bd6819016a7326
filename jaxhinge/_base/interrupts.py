"""Wait for computations so that Ctrl-C is heard: `block_until_ready` returns only when the device is done."""

from __future__ import annotations

import time
from typing import Any, Literal, TypeVar, cast

import jax

OnInterrupt = Literal["raise", "return"]
Tree = TypeVar("Tree")


def computed(tree: Tree) -> Tree:
    """Wait until all arrays of a tree are computed, and return the tree.

    KeyboardInterrupt is raised at once; the computation itself cannot be stopped, and ends in the background.
    """
    arrays: list[Any] = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    began = time.perf_counter()
    while not all(array.is_ready() for array in arrays):
        time.sleep(min(max((time.perf_counter() - began) / 20, 2e-5), 0.01))
    return tree


def check_on_interrupt(given: Any) -> OnInterrupt:
    """Refuse any value of `on_interrupt` but "raise" and "return"."""
    if not isinstance(given, str) or given not in ("raise", "return"):
        raise ValueError(f'on_interrupt must be "raise" or "return"; got {given!r}.')
    return cast(OnInterrupt, given)
