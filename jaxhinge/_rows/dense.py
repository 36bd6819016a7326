"""Rows in memory on the host, as the caller gave them: nothing is copied but a block at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.threads import in_threads
from jaxhinge._rows.kernel import KernelRows

# Numbers in a block of rows: 1 MB of float64, which fits the cache of a core. The blocks are the same whatever the
# number of threads, and so is the order of the sums.
_BLOCK = 2**17
# `_ROWS_OF_GRAM`: a block of a Gram matrix has at least so many rows for each feature, or adding up the matrices costs
# as much as making them (5,000 x 784, one core: 170 ms in blocks of 167 rows, 90 in blocks of 1,250).
_ROWS_OF_GRAM = 2
# Rows of fewer numbers are centred once and for all, in a copy.
_SMALL = 2**20
# Below so many numbers threads cost more than they save.
_THREADS_PAY = 2**20
# `_MOSTLY_0`: of weights of which less than one in so many is above 0, only these rows are multiplied.
_MOSTLY_0 = 3
# A block of the kernel has at most so many columns, or as many as there are rows: adding up the matrices costs, too.
_KERNEL_COLUMNS = 1024
# Beyond so many features a step costs less by products with the rows than by a matrix of the features.
_MANY_FEATURES = 1500
# Products of pairs of features are kept for many problems on the same rows where they are few.
_MANY_PAIRS = 2**22


@dataclass(frozen=True)
class DenseRows(KernelRows):
    """Rows `a_i = (x_i - centre, 1)`, or without the 1.

    Attributes:
      x: `(n, d)`, float32 or float64, in any layout.
      centre: `(d,)`, or None for 0.
      bias: Whether every row ends in a 1.
    """

    x: NDArray
    centre: NDArray | None
    bias: bool

    @classmethod
    def of(cls, x: NDArray, centre: NDArray | None, bias: bool) -> DenseRows:
        """The rows, centred at once where they are small."""
        if x.size > _SMALL:
            return cls(x, centre, bias)
        x = np.asarray(x, np.float64)
        return cls(np.ascontiguousarray(x) if centre is None else x - centre, None, bias)

    @property
    def shape(self) -> tuple[int, int]:
        """`(p, n)`."""
        return self.x.shape[1] + self.bias, self.x.shape[0]

    @property
    def sparse(self) -> bool:
        """Whether most numbers are 0, and not stored."""
        return False

    @property
    def by_products(self) -> bool:
        """Whether systems are better solved by products with the rows than by a matrix of the features."""
        return bool(self.x.shape[1] > _MANY_FEATURES)

    def products(self, z: NDArray) -> NDArray:
        """`a_i . z` for every row, `(..., n)` for `z` `(..., p)`."""
        d = self.x.shape[1]
        w = z[..., :d]
        found = np.empty((*z.shape[:-1], len(self.x)))

        def block(rows: slice) -> None:
            found[..., rows] = _wide(self.x[rows]) @ w if w.ndim == 1 else w @ _wide(self.x[rows]).T

        self._each_block(block)
        if self.bias:
            shift = z[..., d] if self.centre is None else z[..., d] - w @ self.centre
            found += shift[..., None]
        elif self.centre is not None:
            found -= (w @ self.centre)[..., None]
        return found

    def adjoint(self, push: NDArray) -> NDArray:
        """`sum_i push_i a_i`, `(..., p)` for `push` `(..., n)`."""
        found = self._summed(lambda rows: push[..., rows] @ _wide(self.x[rows]))
        if self.bias or self.centre is not None:
            total = np.sum(push, axis=-1)[..., None]
            found = found if self.centre is None else found - total * self.centre
            found = np.concatenate([found, total], axis=-1) if self.bias else found
        return found

    def gram(self, weight: NDArray) -> NDArray:
        """`sum_i weight_i a_i a_i'`, `(..., p, p)` for `weight` `(..., n)` of at least 0."""
        if weight.ndim > 1:
            return self._grams(weight)
        return self._summed(lambda rows: self._gram_of(rows, weight[rows]), self._gram_blocks(len(weight)))

    def gram_of_few(self, weight: NDArray) -> NDArray:
        """The same for weights of which most are 0."""
        chosen = np.flatnonzero(weight)
        if 2 * len(chosen) > len(weight):
            return self.gram(weight)
        parts = [chosen[rows] for rows in self._gram_blocks(len(chosen))]
        grams = in_threads(lambda rows: self._gram_of(rows, weight[rows]), parts)
        return sum(grams[1:], grams[0]) if grams else np.zeros((self.shape[0],) * 2)

    def squares(self, weight: NDArray) -> NDArray:
        """The diagonal of `gram(weight)`, `(p,)`."""

        def block(rows: slice) -> NDArray:
            x = _wide(self.x[rows]) if self.centre is None else self.x[rows] - self.centre
            found: NDArray = weight[rows] @ (x * x)
            return found

        found = self._summed(block)
        return np.append(found, np.sum(weight)) if self.bias else found

    def norms(self, scale: NDArray) -> NDArray:
        """`sum_j scale_j a_ij^2` of every row, `(n,)`."""
        d, found = self.x.shape[1], np.empty(len(self.x))

        def block(rows: slice) -> None:
            x = _wide(self.x[rows]) if self.centre is None else self.x[rows] - self.centre
            found[rows] = (x * x) @ scale[:d]

        self._each_block(block)
        return found + scale[d] if self.bias else found

    @cached_property
    def kernel_of_features(self) -> NDArray:
        """The products of all pairs of rows, without the 1, `(n, n)`."""
        n, d = self.x.shape
        step = -(-d // (2 * -(-d // (2 * max(n, _KERNEL_COLUMNS)))))

        def half(first: int) -> NDArray:
            total = np.zeros((n, n))
            for begin in range(first, d, 2 * step):
                columns = slice(begin, begin + step)
                some = _wide(self.x[:, columns])
                some = some if self.centre is None else some - self.centre[columns]
                total += some @ some.T
            return total

        # Always two sums, so that the bits do not depend on how many threads there are.
        halves = in_threads(half, [0, step])
        return halves[0] + halves[1]

    def magnitudes(self, z: NDArray, push: NDArray) -> tuple[NDArray, NDArray]:
        """`|A| z` and `|A|' push`: the scale of what rounding may take from products and sums."""
        d = self.x.shape[1]
        w, of_scores = z[..., :d], np.empty(push.shape)

        def block(rows: slice) -> NDArray:
            x = np.abs(_wide(self.x[rows]))
            of_scores[..., rows] = x @ w if w.ndim == 1 else w @ x.T
            sums: NDArray = push[..., rows] @ x
            return sums

        of_adjoint, total = self._summed(block), np.sum(push, axis=-1)[..., None]
        if self.centre is not None:
            of_scores += (w @ np.abs(self.centre))[..., None]
            of_adjoint = of_adjoint + total * np.abs(self.centre)
        if self.bias:
            of_scores += z[..., d:]
            of_adjoint = np.concatenate([of_adjoint, total], axis=-1)
        return of_scores, of_adjoint

    def active(self, weight: NDArray) -> tuple[DenseRows, NDArray]:
        """The rows whose weight is not 0, and their weights; all rows where a copy of the others would save little."""
        chosen = np.flatnonzero(weight)
        return (self, weight) if 2 * len(chosen) > len(weight) else (self.take(chosen), weight[chosen])

    def take(self, chosen: Any) -> DenseRows:
        """Some of the rows, centred."""
        x = _wide(self.x[chosen])
        return DenseRows(x if self.centre is None else x - self.centre, None, self.bias)

    @property
    def whole(self) -> NDArray:
        """`(n, p)`, the ones included."""
        x = self.x if self.centre is None else self.x - self.centre
        return np.column_stack([x, np.ones(len(x))]) if self.bias else x

    def _gram_of(self, rows: Any, weight: NDArray) -> NDArray:
        d = self.x.shape[1]
        scaled = np.empty((len(weight), d + self.bias))
        np.subtract(self.x[rows], 0 if self.centre is None else self.centre, out=scaled[:, :d])
        if self.bias:
            scaled[:, d] = 1
        scaled *= np.sqrt(weight)[:, None]
        gram: NDArray = scaled.T @ scaled
        return gram

    def _grams(self, weight: NDArray) -> NDArray:
        pairs = self._pairs
        if pairs is None or _MOSTLY_0 * np.count_nonzero(weight) < weight.size:
            return np.stack([self.gram_of_few(one) for one in weight])
        place, products = pairs
        grams: NDArray = (weight @ products)[..., place]
        return grams

    @cached_property
    def _pairs(self) -> tuple[NDArray, NDArray] | None:
        """The products of all pairs of coordinates, `(n, pairs)`, and where a `(p, p)` matrix finds them."""
        p, n = self.shape
        if n * p * (p + 1) // 2 > _MANY_PAIRS:
            return None
        rows = np.concatenate([self.take(slice(None)).x, np.ones((n, int(self.bias)))], axis=1)
        first, second = np.triu_indices(p)
        place = np.zeros((p, p), np.intp)
        place[first, second] = place[second, first] = np.arange(len(first))
        return place, rows[:, first] * rows[:, second]

    def _blocks(self) -> list[slice]:
        step = max(1, _BLOCK // self.x.shape[1])
        return [slice(begin, begin + step) for begin in range(0, len(self.x), step)]

    def _gram_blocks(self, n: int) -> list[slice]:
        """Blocks of n rows, of one size, so that threads end together."""
        step = max(1, _BLOCK // self.x.shape[1], _ROWS_OF_GRAM * self.x.shape[1])
        count = max(1, -(-n // step))
        if n * self.x.shape[1] >= _THREADS_PAY:
            count += count % 2
        step = max(1, -(-n // count))
        return [slice(begin, begin + step) for begin in range(0, n, step)]

    def _each_block(self, function: Callable[[slice], Any], blocks: list[slice] | None = None) -> list[Any]:
        blocks = self._blocks() if blocks is None else blocks
        return in_threads(function, blocks) if self.x.size >= _THREADS_PAY else [function(rows) for rows in blocks]

    def _summed(self, function: Callable[[slice], NDArray], blocks: list[slice] | None = None) -> NDArray:
        parts = self._each_block(function, blocks)
        total: NDArray = sum(parts[1:], parts[0])
        return total


def _wide(x: NDArray) -> NDArray:
    return x if x.dtype == np.float64 else x.astype(np.float64)


@dataclass(frozen=True)
class TwoSided:
    """Every row twice, one after the other: the two sides of a residual. The rows themselves are not repeated."""

    rows: Any

    @property
    def shape(self) -> tuple[int, int]:
        """`(p, 2 n)`."""
        p, n = self.rows.shape
        return p, 2 * n

    @property
    def sparse(self) -> bool:
        """As `DenseRows.sparse`."""
        sparse: bool = self.rows.sparse
        return sparse

    @property
    def by_products(self) -> bool:
        """As `DenseRows.by_products`."""
        by_products: bool = self.rows.by_products
        return by_products

    def products(self, z: NDArray) -> NDArray:
        """As `DenseRows.products`."""
        return np.repeat(self.rows.products(z), 2, axis=-1)

    def adjoint(self, push: NDArray) -> NDArray:
        """As `DenseRows.adjoint`."""
        found: NDArray = self.rows.adjoint(_paired(push))
        return found

    def gram(self, weight: NDArray) -> NDArray:
        """As `DenseRows.gram`."""
        gram: NDArray = self.rows.gram(_paired(weight))
        return gram

    def gram_of_few(self, weight: NDArray) -> NDArray:
        """As `DenseRows.gram_of_few`."""
        gram: NDArray = self.rows.gram_of_few(_paired(weight))
        return gram

    def active(self, weight: NDArray) -> tuple[Any, NDArray]:
        """As `DenseRows.active`, of rows with one side."""
        found: tuple[Any, NDArray] = self.rows.active(_paired(weight))
        return found

    def squares(self, weight: NDArray) -> NDArray:
        """As `DenseRows.squares`."""
        found: NDArray = self.rows.squares(_paired(weight))
        return found

    def norms(self, scale: NDArray) -> NDArray:
        """As `DenseRows.norms`."""
        return np.repeat(self.rows.norms(scale), 2)

    def kernel(self, *, last: bool) -> NDArray:
        """As `KernelRows.kernel`."""
        kernel: NDArray = self.rows.kernel(last=last).repeat(2, axis=0).repeat(2, axis=1)
        return kernel

    def magnitudes(self, z: NDArray, push: NDArray) -> tuple[NDArray, NDArray]:
        """As `DenseRows.magnitudes`."""
        of_scores, of_adjoint = self.rows.magnitudes(z, _paired(push))
        return np.repeat(of_scores, 2, axis=-1), of_adjoint

    def take(self, chosen: NDArray) -> Any:
        """Some of the sides, as rows."""
        return self.rows.take(chosen // 2)


def _paired(values: NDArray) -> NDArray:
    sums: NDArray = values.reshape(*values.shape[:-1], -1, 2).sum(axis=-1)
    return sums
