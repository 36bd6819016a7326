"""Rows of several problems that each have their own: a copy of a few of the rows that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._rows.dense import DenseRows
from jaxhinge._rows.kernel import KernelRows


@dataclass(frozen=True)
class GatheredRows(KernelRows):
    """Rows `(problems, m, p)`, the ones of a bias included; vectors lead with the problems."""

    x: NDArray

    @classmethod
    def of(cls, rows: DenseRows, chosen: NDArray, more: NDArray) -> GatheredRows:
        """The rows of the numbers `chosen` `(problems, k)`, and `more` of them `(problems, m - k, p)`."""
        count, k = chosen.shape
        d = rows.x.shape[1]
        x = np.ones((count, k + more.shape[1], d + rows.bias))
        x[:, :k, :d] = rows.x[chosen]
        if rows.centre is not None:
            x[:, :k, :d] -= rows.centre
        x[:, k:] = more
        return cls(x)

    @property
    def shape(self) -> tuple[int, int]:
        """`(p, m)`."""
        return self.x.shape[2], self.x.shape[1]

    @property
    def sparse(self) -> bool:
        """As `DenseRows.sparse`."""
        return False

    def products(self, z: NDArray) -> NDArray:
        """As `DenseRows.products`."""
        found: NDArray = np.matmul(self.x, z[..., None])[..., 0]
        return found

    def adjoint(self, push: NDArray) -> NDArray:
        """As `DenseRows.adjoint`."""
        found: NDArray = np.matmul(push[:, None, :], self.x)[:, 0]
        return found

    def gram(self, weight: NDArray) -> NDArray:
        """As `DenseRows.gram`."""
        scaled = self.x * np.sqrt(weight)[..., None]
        gram: NDArray = np.matmul(scaled.swapaxes(-1, -2), scaled)
        return gram

    def of_problems(self, chosen: Any) -> GatheredRows:
        """As `KernelRows.of_problems`."""
        return GatheredRows(self.x[chosen])
