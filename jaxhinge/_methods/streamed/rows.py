"""What a first pass over rows finds out: that they can be used, their targets, their mean, and a sample of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import check_binary_targets
from jaxhinge._methods.streamed.blocks import Layout, Piece, Pieces, cut
from jaxhinge._methods.streamed.kernels import Block, first_pass_sums

# The sample that is solved first has at most so many rows and bytes: enough to come near the solution at little cost.
_SAMPLE_ROWS = 1 << 17
_SAMPLE_BYTES = 1 << 28


class StreamedRows(NamedTuple):
    """Rows to be read again and again, and what is kept of them.

    Attributes:
      pieces: Where they come from.
      layout: How they are cut into blocks.
      num_rows: How many there are.
      sign: int8, `(blocks * size,)`: the targets, 0 beyond the last row.
      weight: Of the same shape, or None where all count alike.
      total: The sum of the weights.
      num_counted: How many are above 0.
      centre: `(d,)`, the weighted mean of the features.
      sample: Some of the rows as a table of its own, or None where there are few rows.
    """

    pieces: Pieces
    layout: Layout
    num_rows: int
    sign: NDArray
    weight: NDArray | None
    total: float
    num_counted: int
    centre: NDArray
    sample: StreamedRows | None

    @property
    def stand_in(self) -> float:
        """The mean of the weights above 0."""
        return self.total / self.num_counted

    @property
    def num_blocks(self) -> int:
        """Blocks in a pass."""
        return len(self.sign) // self.layout.size

    def blocks(self) -> Iterator[Block]:
        """One pass, during which the targets must be those of the first."""
        pieces = self.pieces.begin() if self.pieces.whole else self._unchanged()
        for number, x in enumerate(cut(self.layout, pieces)):
            rows = slice(number * self.layout.size, (number + 1) * self.layout.size)
            yield Block(x, self.sign[rows], None if self.weight is None else self.weight[rows])

    def _unchanged(self) -> Iterator[Piece]:
        start = 0
        for number, piece in enumerate(self.pieces.begin()):
            stop = start + len(piece.y)
            if stop > self.num_rows or not np.array_equal(piece.y, self.sign[start:stop]):
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
    notes = _Notes(first.weight is not None)
    sample = _Sample(min(_SAMPLE_ROWS, _SAMPLE_BYTES // (layout.num_features * layout.dtype.itemsize)))
    moment = np.zeros(layout.num_features)
    blocks = cut(layout, notes.of(pieces))
    for number, x in enumerate(blocks):
        rows = slice(number * layout.size, min((number + 1) * layout.size, notes.num_rows))
        weight = notes.weight.view(rows) if notes.weighted else np.ones(rows.stop - rows.start)
        part, finite = first_pass_sums(x, np.pad(weight, (0, len(x) - len(weight))))
        if not finite:
            _name_bad_values(pieces, notes.starts, rows.start, x)
        moment += np.asarray(part)
        sample.add(x[: len(weight)], notes.sign.view(rows), weight if notes.weighted else None)
        tick()
    return _table(pieces, layout, notes, moment, sample)


def _table(pieces: Pieces, layout: Layout, notes: _Notes, moment: NDArray, sample: _Sample) -> StreamedRows:
    n = notes.num_rows
    size = -(-n // layout.size) * layout.size
    sign, weight = notes.sign.padded(size), notes.weight.padded(size) if notes.weighted else None
    _check_classes(sign, weight)
    counted = int(np.count_nonzero(weight)) if weight is not None else n
    total = float(weight.sum()) if weight is not None else float(n)
    streamed = StreamedRows(pieces, layout, n, sign, weight, total, counted, moment / total, None)
    return streamed._replace(sample=_sample_table(streamed, sample))


def _sample_table(streamed: StreamedRows, sample: _Sample) -> StreamedRows | None:
    """The sample in the frame of the whole, unless it is no sample, or one class is hardly in it."""
    x, sign, weight = sample.rows()
    counted = sign if weight is None else sign[weight > 0]
    if len(x) > streamed.num_rows // 4 or min(np.sum(counted > 0), np.sum(counted < 0)) < 10:
        return None
    n = len(x)
    missing = -n % streamed.layout.size
    total = float(n) if weight is None else float(weight.sum())
    return StreamedRows(
        pieces=Pieces(lambda: iter([Piece(x, sign, weight)]), True),
        layout=streamed.layout,
        num_rows=n,
        sign=np.pad(sign, (0, missing)),
        weight=None if weight is None else np.pad(weight, (0, missing)),
        total=total,
        num_counted=len(counted),
        centre=streamed.centre,
        sample=None,
    )


def _check_classes(sign: NDArray, weight: NDArray | None) -> None:
    counted = sign != 0 if weight is None else weight > 0
    if weight is not None and not counted.any():
        raise ValueError("sample_weight is 0 for every row; at least one row needs a weight above 0.")
    if not ((sign > 0) & counted).any() or not ((sign < 0) & counted).any():
        # The check raises an error that names the value.
        check_binary_targets("y", sign[sign != 0], None if weight is None else weight[sign != 0])


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
        return self._values[rows]

    def padded(self, size: int) -> NDArray:
        values = np.zeros(size, self._values.dtype)
        values[: self.size] = self._values[: self.size]
        return values


class _Notes:
    """Targets and weights of the pieces, as they pass by."""

    def __init__(self, weighted: bool) -> None:
        self.weighted = weighted
        self.sign, self.weight = _Column(np.int8), _Column(np.float64)
        self.starts: list[int] = []

    @property
    def num_rows(self) -> int:
        return self.sign.size

    def of(self, pieces: Pieces) -> Iterator[Piece]:
        for number, piece in enumerate(pieces.begin()):
            if (piece.weight is not None) != self.weighted:
                has = "no sample weights, but block 0 has some" if self.weighted else "sample weights, but block 0 none"
                raise ValueError(f"Block {number} has {has}. Give all or none.")
            self.starts.append(self.num_rows)
            self.sign.append(piece.y)
            if piece.weight is not None:
                self.weight.append(piece.weight)
            yield piece


class _Sample:
    """Rows drawn at random, whatever their number: those whose random number is below a falling threshold."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rng = np.random.default_rng(0)
        self._threshold = 1.0
        self._kept: list[tuple[NDArray, NDArray, NDArray, NDArray | None]] = []
        self._size = 0

    def add(self, x: NDArray, sign: NDArray, weight: NDArray | None) -> None:
        self._keep(self._rng.random(len(x)), x, sign, weight)
        while self._size > self._most:
            self._threshold /= 2
            kept, self._kept, self._size = self._kept, [], 0
            for part in kept:
                self._keep(*part)

    def rows(self) -> tuple[NDArray, NDArray, NDArray | None]:
        _, x, sign, weight = zip(*self._kept, strict=True)
        return np.concatenate(x), np.concatenate(sign), None if weight[0] is None else np.concatenate(weight)

    def _keep(self, numbers: NDArray, x: NDArray, sign: NDArray, weight: NDArray | None) -> None:
        chosen = numbers < self._threshold
        self._kept.append((numbers[chosen], x[chosen], sign[chosen], None if weight is None else weight[chosen]))
        self._size += int(chosen.sum())
