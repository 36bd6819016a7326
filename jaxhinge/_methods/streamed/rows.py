"""What a first pass over rows finds out: that they can be used, their targets, their mean, and a sample of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import check_binary_targets
from jaxhinge._methods.streamed.blocks import Layout, Piece, Pieces, cut
from jaxhinge._methods.streamed.kernels import Block

# The sample that is solved first has at most so many rows and bytes: enough to come near the solution at little cost.
_SAMPLE_ROWS = 1 << 17
_SAMPLE_BYTES = 1 << 26
# Rows that are summed at a time in the first pass.
_SUMMED = 4096


class StreamedRows(NamedTuple):
    """Rows to be read again and again, and what is kept of them.

    Attributes:
      pieces: Where they come from.
      layout: How they are cut into blocks.
      y: `(n,)`, the targets: int8, or float64 where they are real.
      weight: `(n,)`, or None where all count alike.
      total: The sum of the weights.
      num_counted: How many are above 0.
      centre: `(d,)`, the weighted mean of the features.
      sample: Some of the rows as a table of its own, or None where there are few rows.
    """

    pieces: Pieces
    layout: Layout
    y: NDArray
    weight: NDArray | None
    total: float
    num_counted: int
    centre: NDArray
    sample: StreamedRows | None

    @property
    def num_rows(self) -> int:
        """How many there are."""
        return len(self.y)

    @property
    def stand_in(self) -> float:
        """The mean of the weights above 0."""
        return self.total / self.num_counted

    @property
    def num_blocks(self) -> int:
        """Blocks in a pass."""
        return -(-len(self.y) // self.layout.size)

    def caller_dtype(self, as_numpy: bool) -> Any:
        """What comes back in."""
        return np.dtype(np.float64) if as_numpy else jax.dtypes.canonicalize_dtype(self.layout.dtype)

    def blocks(self) -> Iterator[Block]:
        """One pass, during which the targets must be those of the first."""
        pieces = self.pieces.begin() if self.pieces.whole else self._unchanged()
        for number, x in enumerate(cut(self.layout, pieces)):
            yield Block(x, *self.targets_of(number))

    def rows_of(self, block: int) -> slice:
        """The rows in a block."""
        return slice(block * self.layout.size, min((block + 1) * self.layout.size, self.num_rows))

    def num_duals(self, rows: int) -> int:
        """Dual variables of so many rows: a residual has two sides."""
        return 2 * rows if self.pieces.real else rows

    def duals_of(self, block: int) -> slice:
        """The dual variables of the rows in a block."""
        rows = self.rows_of(block)
        return slice(self.num_duals(rows.start), self.num_duals(rows.stop))

    def targets_of(self, block: int) -> tuple[NDArray, NDArray | None]:
        """The targets and the weights of the rows in a block."""
        rows = self.rows_of(block)
        return self.y[rows], None if self.weight is None else self.weight[rows]

    def _unchanged(self) -> Iterator[Piece]:
        start = 0
        for number, piece in enumerate(self.pieces.begin()):
            stop = start + len(piece.y)
            if stop > self.num_rows or not np.array_equal(piece.y, self.y[start:stop]):
                raise ValueError(
                    f"Block {number} (rows {start}..{stop - 1}) has other targets than in the first pass. "
                    "The blocks must hold the same rows in the same order each time; do not shuffle them."
                )
            yield piece
            start = stop
        if start != self.num_rows:
            raise ValueError(f"The blocks held {self.num_rows} rows in the first pass, but {start} in a later one.")


def first_pass(pieces: Pieces, tick: Callable[[], None]) -> StreamedRows:
    """Read all rows once, with a `tick()` for each block."""
    first = next(pieces.begin(), None)
    if first is None:
        raise ValueError("x yielded no blocks. A function of blocks must return a new iterator each time it is called.")
    layout = Layout.of(first.x)
    notes = _Notes(first, pieces)
    most = min(_SAMPLE_ROWS, _SAMPLE_BYTES // (layout.num_features * layout.dtype.itemsize))
    # Of no more rows there is no sample, and none is kept.
    sample = _Sample(0 if pieces.whole and len(first.y) <= most else most)
    moment, begin = np.zeros(layout.num_features), 0
    for x in cut(layout, notes.of(pieces)):
        y, weight = notes.view(slice(begin, begin + len(x)))
        part = _weighted_sum(x, weight)
        if not np.isfinite(part).all() and not np.isfinite(x).all():
            _name_bad_values(pieces, notes.starts, begin, x)
        moment += part
        sample.add(x, y, weight)
        begin += len(x)
        tick()
    return _table(pieces, layout, notes, moment, sample)


def _weighted_sum(x: NDArray, weight: NDArray | None) -> NDArray:
    """`weight @ x` in float64, a few rows at a time."""
    total = np.zeros(x.shape[1])
    with np.errstate(all="ignore"):
        for begin in range(0, len(x), _SUMMED):
            some = x[begin : begin + _SUMMED].astype(np.float64, copy=False)
            total += (np.ones(len(some)) if weight is None else weight[begin : begin + _SUMMED]) @ some
    return total


def _table(pieces: Pieces, layout: Layout, notes: _Notes, moment: NDArray, sample: _Sample) -> StreamedRows:
    y, weight = notes.view(slice(None))
    counted = int(np.count_nonzero(weight)) if weight is not None else len(y)
    if not counted:
        raise ValueError("sample_weight is 0 for every row; at least one row needs a weight above 0.")
    if not pieces.real:
        _check_classes(y, weight)
    total = float(weight.sum()) if weight is not None else float(len(y))
    streamed = StreamedRows(pieces, layout, y, weight, total, counted, moment / total, None)
    return streamed._replace(sample=_sample_table(streamed, sample))


def _sample_table(streamed: StreamedRows, sample: _Sample) -> StreamedRows | None:
    """The sample in the frame of the whole, unless it is no sample, or one class is hardly in it."""
    if not sample.size:
        return None
    x, y, weight = sample.rows()
    counted = y if weight is None else y[weight > 0]
    classes = len(counted) if streamed.pieces.real else min(np.sum(counted > 0), np.sum(counted < 0))
    if len(x) > streamed.num_rows // 4 or classes < 10:
        return None
    total = float(len(x)) if weight is None else float(weight.sum())
    pieces = Pieces(lambda: iter([Piece(x, y, weight)]), True, streamed.pieces.real)
    return StreamedRows(pieces, streamed.layout, y, weight, total, len(counted), streamed.centre, None)


def _check_classes(y: NDArray, weight: NDArray | None) -> None:
    counted = y if weight is None else y[weight > 0]
    if not (counted > 0).any() or not (counted < 0).any():
        # The check raises an error that names the value.
        check_binary_targets("y", y, weight)


def _name_bad_values(pieces: Pieces, starts: list[int], first_row: int, x: NDArray) -> None:
    bad = np.argwhere(~np.isfinite(x))
    row, column = first_row + int(bad[0, 0]), int(bad[0, 1])
    piece = int(np.searchsorted(starts, row, side="right")) - 1
    raise ValueError(
        f"x{pieces.place(piece)} has NaN or infinity, the first at ({row - starts[piece]}, {column}) "
        f"({x[tuple(bad[0])]}). Impute them or drop those rows."
    )


class _Column:
    """Values of all rows, of which more and more are known."""

    def __init__(self, dtype: Any) -> None:
        self._values = np.zeros(0, dtype)
        self.size = 0

    def append(self, values: NDArray) -> None:
        size = self.size + len(values)
        if size > len(self._values):
            grown = np.zeros(max(size, 2 * len(self._values)), self._values.dtype)
            grown[: self.size] = self._values[: self.size]
            self._values = grown
        self._values[self.size : size] = values
        self.size = size

    def view(self, rows: slice) -> NDArray:
        return self._values[: self.size][rows]


class _Notes:
    """Targets and weights of the pieces, as they pass by; of whole arrays they are not copied."""

    def __init__(self, first: Piece, pieces: Pieces) -> None:
        self.weighted = first.weight is not None
        self._whole = first if pieces.whole else None
        self._y, self._weight = _Column(first.y.dtype), _Column(np.float64)
        self.starts: list[int] = []
        self.size = 0

    def of(self, pieces: Pieces) -> Iterator[Piece]:
        for number, piece in enumerate(pieces.begin()):
            if (piece.weight is not None) != self.weighted:
                has = "no sample weights, but block 0 has some" if self.weighted else "sample weights, but block 0 none"
                raise ValueError(f"Block {number} has {has}. Give all or none.")
            self.starts.append(self.size)
            self.size += len(piece.y)
            if self._whole is None:
                self._y.append(piece.y)
                if piece.weight is not None:
                    self._weight.append(piece.weight)
            yield piece

    def view(self, rows: slice) -> tuple[NDArray, NDArray | None]:
        if self._whole is not None:
            return self._whole.y[rows], None if self._whole.weight is None else self._whole.weight[rows]
        return self._y.view(rows), self._weight.view(rows) if self.weighted else None


class _Sample:
    """Rows drawn at random, whatever their number: those whose random number is below a falling threshold."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rng = np.random.default_rng(0)
        self._threshold = 1.0
        self._kept: list[tuple[NDArray, NDArray, NDArray, NDArray | None]] = []
        self.size = 0

    def add(self, x: NDArray, y: NDArray, weight: NDArray | None) -> None:
        if not self._most:
            return
        self._keep(self._rng.random(len(x)), x, y, weight)
        while self.size > self._most:
            self._threshold /= 2
            kept, self._kept, self.size = self._kept, [], 0
            for part in kept:
                self._keep(*part)

    def rows(self) -> tuple[NDArray, NDArray, NDArray | None]:
        _, x, y, weight = zip(*self._kept, strict=True)
        return np.concatenate(x), np.concatenate(y), None if weight[0] is None else np.concatenate(weight)

    def _keep(self, numbers: NDArray, x: NDArray, y: NDArray, weight: NDArray | None) -> None:
        chosen = numbers < self._threshold
        self._kept.append((numbers[chosen], x[chosen], y[chosen], None if weight is None else weight[chosen]))
        self.size += int(chosen.sum())
