"""Sparse rows on the host: SciPy's products, and nothing made dense but what a model has for each feature."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.threads import in_threads
from jaxhinge._rows.kernel import KernelRows

# Stored numbers in a block of rows: threads share the blocks, which are the same whatever the number of threads.
_BLOCK = 2**18
# Rows in a block of the kernel, which is written a block at a time.
_KERNEL_ROWS = 512


@dataclass(frozen=True)
class SparseRows(KernelRows):
    """Rows `a_i = (x_i - centre, 1)`, or without the 1. The centre is taken from products, not from the rows.

    Attributes:
      x: A CSR array `(n, d)`, float64, without duplicates.
      centre: `(d,)`, or None for 0.
      bias: Whether every row ends in a 1.
    """

    x: Any
    centre: NDArray | None
    bias: bool

    @classmethod
    def of(cls, x: Any, centre: NDArray | None, bias: bool) -> SparseRows:
        """The rows of a CSR array of any floating dtype."""
        return cls(x.astype(np.float64, copy=False), centre, bias)

    @property
    def shape(self) -> tuple[int, int]:
        """`(p, n)`."""
        return self.x.shape[1] + self.bias, self.x.shape[0]

    @property
    def sparse(self) -> bool:
        """Whether most numbers are 0, and not stored."""
        return True

    @property
    def by_products(self) -> bool:
        """Systems are solved by products with the rows."""
        return True

    def products(self, z: NDArray) -> NDArray:
        """`a_i . z` for every row, `(..., n)` for `z` `(..., p)`."""
        d = self.x.shape[1]
        w = z[..., :d]
        found = self._forward(w)
        if self.bias:
            found += (z[..., d] if self.centre is None else z[..., d] - w @ self.centre)[..., None]
        elif self.centre is not None:
            found -= (w @ self.centre)[..., None]
        return found

    def adjoint(self, push: NDArray) -> NDArray:
        """`sum_i push_i a_i`, `(..., p)` for `push` `(..., n)`."""
        found, total = self._backward(push), np.sum(push, axis=-1)[..., None]
        found = found if self.centre is None else found - total * self.centre
        return np.concatenate([found, total], axis=-1) if self.bias else found

    def squares(self, weight: NDArray) -> NDArray:
        """The diagonal of `gram(weight)`, `(p,)`."""
        found, total = self._squared @ weight, np.sum(weight)
        if self.centre is not None:
            found = np.maximum(found - self.centre * (2 * self._backward(weight) - total * self.centre), 0)
        return np.append(found, total) if self.bias else found

    def norms(self, scale: NDArray) -> NDArray:
        """`sum_j scale_j a_ij^2` of every row, `(n,)`."""
        d = self.x.shape[1]
        w = scale[:d]
        found: NDArray = self._squared.T @ w
        if self.centre is not None:
            found = np.maximum(found - self._forward(2 * w * self.centre) + w @ self.centre**2, 0)
        return found + scale[d] if self.bias else found

    def gram(self, weight: NDArray) -> NDArray:
        """`sum_i weight_i a_i a_i'`, `(..., p, p)` for `weight` `(..., n)` of at least 0: dense, for few features."""
        if weight.ndim > 1:
            return np.stack([self.gram(one) for one in weight])
        d = self.x.shape[1]
        gram = np.zeros(self.shape[:1] * 2)
        scaled = self._scaled(np.sqrt(weight))
        gram[:d, :d] = (scaled.T @ scaled).toarray()
        sums, total = self._backward(weight), np.sum(weight)
        if self.centre is not None:
            gram[:d, :d] -= np.outer(self.centre, sums) + np.outer(sums - total * self.centre, self.centre)
            sums = sums - total * self.centre
        if self.bias:
            gram[d, :d] = gram[:d, d] = sums
            gram[d, d] = total
        return gram

    def gram_of_few(self, weight: NDArray) -> NDArray:
        """The same for weights of which most are 0."""
        rows, weight = self.active(weight)
        return rows.gram(weight)

    @cached_property
    def kernel_of_features(self) -> NDArray:
        """The products of all pairs of rows, without the 1, `(n, n)`: dense, for few rows."""
        n = self.x.shape[0]
        kernel, columns = np.empty((n, n)), self.x.T.tocsr()
        for begin in range(0, n, _KERNEL_ROWS):
            rows = slice(begin, begin + _KERNEL_ROWS)
            kernel[rows] = (self.x[rows] @ columns).toarray()
        if self.centre is not None:
            shift = self._forward(self.centre)
            kernel += self.centre @ self.centre - shift[:, None] - shift
        return kernel

    def magnitudes(self, z: NDArray, push: NDArray) -> tuple[NDArray, NDArray]:
        """`|A| z` and `|A|' push`: the scale of what rounding may take from products and sums."""
        centre = None if self.centre is None else -abs(self.centre)
        sizes = SparseRows(abs(self.x), centre, self.bias)
        return sizes.products(z), sizes.adjoint(push)

    def take(self, chosen: Any) -> SparseRows:
        """Some of the rows."""
        return SparseRows(self.x[chosen], self.centre, self.bias)

    def active(self, weight: NDArray) -> tuple[SparseRows, NDArray]:
        """The rows whose weight is not 0, and their weights."""
        chosen = np.flatnonzero(weight)
        return self.take(chosen), weight[chosen]

    def _scaled(self, scale: NDArray) -> Any:
        scaled = self.x.copy()
        scaled.data *= np.repeat(scale, np.diff(self.x.indptr))
        return scaled

    def _forward(self, w: NDArray) -> NDArray:
        parts = self._each_block(lambda rows, block, _: (block @ w.T).T)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def _backward(self, push: NDArray) -> NDArray:
        parts = self._each_block(lambda rows, _, transposed: (transposed @ push[..., rows].T).T)
        total: NDArray = sum(parts[1:], parts[0])
        return total

    def _each_block(self, function: Callable[[slice, Any, Any], NDArray]) -> list[NDArray]:
        return in_threads(lambda item: function(*item), self._blocks)

    @cached_property
    def _squared(self) -> Any:
        """The squares of all numbers, transposed."""
        x = self.x
        return type(x)((x.data * x.data, x.indices, x.indptr), shape=x.shape).T

    @cached_property
    def _blocks(self) -> list[tuple[slice, Any, Any]]:
        """Blocks of rows and their transposes, which share the memory of all of them."""
        x, (n, d) = self.x, self.x.shape
        # Every block adds up a vector of all features: it must hold more numbers than that, or the sums cost more.
        size = max(_BLOCK, 2 * d)
        if x.nnz < 2 * size:
            return [(slice(None), x, x.T)]
        ends = np.searchsorted(x.indptr, np.arange(size, x.nnz, size))
        edges = np.unique(np.concatenate([[0], ends, [n]]))
        blocks = []
        for begin, end in itertools.pairwise(edges.tolist()):
            first, last = x.indptr[begin], x.indptr[end]
            parts = x.data[first:last], x.indices[first:last], x.indptr[begin : end + 1] - first
            block = type(x)(parts, shape=(end - begin, d))
            blocks.append((slice(begin, end), block, block.T))
        return blocks
