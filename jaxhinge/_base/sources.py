"""Sources of rows that are read in batches, again and again, and need not fit in memory."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import NDArray

# Size of a chunk of neighbouring rows, which is read at once: smaller ones read a disk in too many pieces.
_CHUNK_BYTES = 1 << 20
# Number of chunks, from random places, whose rows are shuffled together. More of them mix better and take more memory.
_CHUNKS_MIXED = 32


class Source(NamedTuple):
    """Something that yields batches.

    Attributes:
      begin: `begin(epoch)`, an iterator over the batches of one pass.
      once: Whether the batches can be read only once, as those of a generator.
      length: The number of batches in a pass, where it is known.
    """

    begin: Callable[[int], Iterator[Any]]
    once: bool
    length: int | None


def source_of(name: str, batches: Any) -> Source:
    """An iterable, an iterator, or a function that makes one."""
    if callable(batches) and not hasattr(batches, "__iter__"):
        return Source(lambda _: iter(_batches(f"what {name}() returned", batches())), False, None)
    _batches(name, batches)
    once = iter(batches) is batches
    try:
        length: int | None = len(batches)
    except (TypeError, NotImplementedError):
        length = None
    return Source(lambda _: iter(batches), once, length)


def _batches(name: str, value: Any) -> Any:
    iterable = hasattr(value, "__iter__") or hasattr(value, "__getitem__")
    if isinstance(value, (str, bytes, dict, np.ndarray, np.generic, jax.Array)) or not iterable:
        raise TypeError(
            f"{name} must be arrays x and y, or an iterable of batches (x, y) or (x, y, sample_weight), or a function "
            f"that returns one; got {type(value).__name__} and no y."
        )
    return value


def is_mapped(array: Any) -> bool:
    """Whether an array is a memory-mapped file."""
    return isinstance(array, np.memmap)


def read_rows(array: Any, start: int, stop: int, out: NDArray | None = None) -> NDArray:
    """Rows `start..stop`, copied (into `out`); of a memory-mapped file without keeping its pages in this process."""
    part = array[start:stop]
    if out is None:
        out = np.array(part)
    else:
        out[...] = part
    if is_mapped(part):
        _let_go(part)
    return out


def _let_go(part: NDArray) -> None:
    """Drop the pages of a part of a mapped file from this process; the system's file cache may keep them."""
    base: Any = part
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    # Pages of a copy-on-write map stay: they may hold the only copy of what the caller wrote.
    if base is None or part.size == 0 or not part.flags.c_contiguous or getattr(part, "mode", "c") == "c":
        return
    page = mmap.PAGESIZE
    origin = np.frombuffer(base, np.uint8, count=1).ctypes.data
    first = (part.ctypes.data - origin) // page * page
    last = min(len(base), part.ctypes.data - origin + part.nbytes)
    if hasattr(base, "madvise") and last > first:
        base.madvise(mmap.MADV_DONTNEED, first, last - first)


def shuffled_rows(x: NDArray, y: NDArray, weight: NDArray | None, batch_size: int, key: jax.Array) -> Source:
    """Batches of the rows of arrays, each once per epoch in a new order.

    Chunks of neighbouring rows are read in a random order, so that a disk is read in large pieces. The rows of
    `_CHUNKS_MIXED` chunks at a time are shuffled together: data of no more chunks are shuffled completely.
    """
    chunk = max(1, _CHUNK_BYTES // max(1, x[:1].nbytes))

    def begin(epoch: int) -> Iterator[Any]:
        seed = np.asarray(jax.random.bits(jax.random.fold_in(key, epoch), (4,), jnp.uint32))
        return _shuffled(x, y, weight, batch_size, chunk, np.random.default_rng(seed))

    return Source(begin, False, -(-len(x) // batch_size))


def _shuffled(
    x: NDArray, y: NDArray, weight: NDArray | None, batch_size: int, chunk: int, rng: np.random.Generator
) -> Iterator[Any]:
    starts = rng.permutation(np.arange(0, len(x), chunk))
    kept = x[:0], np.zeros(0, np.int64)
    for group in range(0, len(starts), _CHUNKS_MIXED):
        spans = [(start, min(start + chunk, len(x))) for start in starts[group : group + _CHUNKS_MIXED].tolist()]
        features = np.concatenate([kept[0], *(read_rows(x, *span) for span in spans)])
        numbers = np.concatenate([kept[1], *(np.arange(*span) for span in spans)])
        order = rng.permutation(len(numbers))
        last = group + _CHUNKS_MIXED >= len(starts)
        full = len(order) if last else len(order) // batch_size * batch_size
        for start in range(0, full, batch_size):
            taken = order[start : min(start + batch_size, full)]
            rows = numbers[taken]
            yield features[taken], y[rows], *(() if weight is None else (weight[rows],))
        kept = features[order[full:]], numbers[order[full:]]
