"""Rows that are read from their source in every pass: in pieces as the caller has them, in blocks of one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import NDArray, check_feature_shape, refuse_masked
from jaxhinge._base.sources import read_rows, source_of
from jaxhinge._base.values import (
    check_real_targets,
    check_rows,
    check_targets_of_block,
    check_weight_of_block,
    host_array,
    host_real,
)

_BLOCK_BYTES = 1 << 23
# A block has a multiple of so many rows, and at most so many times as many.
_UNIT, _MOST_UNITS = 1024, 64


class Piece(NamedTuple):
    """Some rows as the caller gave them: `x` need only have a shape and allow for slicing; `y` is int8 or float64."""

    x: Any
    y: NDArray
    weight: NDArray | None


class Pieces(NamedTuple):
    """All rows: `begin()` reads them once more. `whole` says that arrays were given, not blocks; `real`, that targets
    are numbers, not -1 and +1."""

    begin: Callable[[], Iterator[Piece]]
    whole: bool
    real: bool

    def place(self, piece: int) -> str:
        """The words that an error about a piece ends with."""
        return "" if self.whole else f" of block {piece}"


def pieces_of(x: Any, y: Any, sample_weight: Any, real: bool) -> Pieces:
    """The arrays in one piece, or an iterable of blocks that can be read again and again."""
    if y is not None:
        piece = _piece("", real, x, y, sample_weight)
        return Pieces(lambda: iter([piece]), True, real)
    if sample_weight is not None:
        raise ValueError("sample_weight is for arrays x and y, but x is an iterable. Yield (x, y, sample_weight).")
    source = source_of("x", x)
    if source.once:
        raise ValueError(
            "x is an iterator, which ends after one pass, but a solve reads the rows a dozen times. Pass a list of "
            "blocks (x, y), or a function that makes a new iterator for each pass: lambda: read_blocks()."
        )
    return Pieces(lambda: _given_blocks(source.begin(0), real), False, real)


def _given_blocks(blocks: Iterator[Any], real: bool) -> Iterator[Piece]:
    for number, given in enumerate(blocks):
        if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
            what = f"{len(given)} parts" if isinstance(given, (tuple, list)) else type(given).__name__
            raise TypeError(f"Block {number} of x must be (x, y) or (x, y, sample_weight); got {what}.")
        yield _piece(f" of block {number}", real, *given, *([None] if len(given) == 2 else []))


def _piece(place: str, real: bool, x: Any, y: Any, weight: Any) -> Piece:
    if hasattr(x, "todense"):
        raise TypeError(
            f"x{place} is sparse. Give dense blocks, e.g. lambda: ((x[i : i + 10_000].toarray(), y[i : i + 10_000]) "
            "for i in range(0, n, 10_000))."
        )
    refuse_masked(f"x{place}", x)
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        x = host_real(f"x{place}", x)
    check_feature_shape(f"x{place}", _Shape(x))
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == np.bool_):
        raise TypeError(f"x{place} must be real numbers; got dtype {x.dtype}. Encode categories as numbers first.")
    y = (host_real if real else host_array)(f"y{place}", y)
    check_rows(f"y{place}", y, x.shape[0])
    (check_real_targets if real else check_targets_of_block)(f"y{place}", y)
    y = y.astype(np.float64 if real else np.int8, copy=False)
    if weight is not None:
        weight = host_real(f"sample_weight{place}", weight).astype(np.float64, copy=False)
        check_weight_of_block(f"sample_weight{place}", weight, x.shape[0])
    return Piece(x, y, weight)


class _Shape:
    """What a check of shapes looks at, of an array that may lie in a file."""

    def __init__(self, array: Any) -> None:
        self.shape = tuple(array.shape)
        self.ndim = len(self.shape)


class Layout(NamedTuple):
    """How rows are cut: blocks of `size` rows of `num_features` numbers of one dtype."""

    size: int
    num_features: int
    dtype: Any

    @classmethod
    def of(cls, x: Any) -> Layout:
        """That of the first piece."""
        dtype = np.dtype(np.float32 if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize <= 4 else np.float64)
        units = _BLOCK_BYTES // (dtype.itemsize * x.shape[1] * _UNIT)
        return cls(min(max(units, 1), _MOST_UNITS) * _UNIT, x.shape[1], dtype)


def cut(layout: Layout, pieces: Iterator[Piece]) -> Iterator[NDArray]:
    """The features in blocks of one size, but for the last, which may be smaller."""
    block, filled = _empty(layout), 0
    for number, piece in enumerate(pieces):
        _check_like(layout, number, piece.x)
        done, rows = 0, piece.x.shape[0]
        while done < rows:
            taken = min(layout.size - filled, rows - done)
            read_rows(piece.x, done, done + taken, block[filled : filled + taken])
            done, filled = done + taken, filled + taken
            if filled == layout.size:
                yield block
                block, filled = _empty(layout), 0
    if filled:
        yield block[:filled]


def _empty(layout: Layout) -> NDArray:
    return np.empty((layout.size, layout.num_features), layout.dtype)


def _check_like(layout: Layout, number: int, x: Any) -> None:
    other = Layout.of(x)
    if other.num_features != layout.num_features:
        raise ValueError(
            f"x of block {number} has {other.num_features} features (shape {tuple(x.shape)}), but the first block has "
            f"{layout.num_features}. All blocks need the same features."
        )
    if other.dtype != layout.dtype:
        raise TypeError(
            f"x of block {number} is {x.dtype}, which is worked on as {other.dtype}, but the first block as "
            f"{layout.dtype}. Convert all blocks to one dtype."
        )
