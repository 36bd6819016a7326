"""More features than rows on the host: as many coordinates as there are rows.

The weights that solve a problem are a combination of its rows, `w = X' v`. With the kernel `K = X X'` and its Cholesky
factor, `K = L L'`, the coordinates `u = L' v` have the scores `L u` and the norm `|u| = |w|`: a program of the same
form, whose rows are those of L. The dual is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.precision import eps
from jaxhinge._methods.certificate import Certified, Program, certify
from jaxhinge._rows.dense import DenseRows, TwoSided

# Beyond so many rows the kernel and its factor cost more than products with the rows.
_MANY_ROWS = 4000
# `_JITTER`: added to the kernel, in units of what rounding may have taken from it: rows that repeat have no factor
# otherwise. It is raised until there is one.
_JITTER = (1.0, 1e2, 1e4)


def kernel_fits(program: Program) -> bool:
    """Whether a program has more features than rows, and few rows."""
    p, n = program.shape
    return p > n and n <= _MANY_ROWS


@dataclass(frozen=True)
class _FewRows(DenseRows):
    """The rows of the factor, whose kernel is known."""

    known: NDArray | None = None

    @cached_property
    def kernel_of_features(self) -> NDArray:
        """That of the rows as they were given."""
        assert self.known is not None
        return self.known


class RowCoordinates:
    """A program in the coordinates `(u, b)`, and the way there and back.

    Attributes:
      program: In those coordinates.
    """

    def __init__(self, given: Program) -> None:
        self._given, self._bias = given, self._rows_of(given).bias
        d = given.shape[0] - self._bias
        self._root = _factor(self._rows_of(given).kernel_of_features)
        n = len(self._root)
        few = _FewRows(self._root, None, self._bias, self._rows_of(given).kernel_of_features)
        penalty, q = given.penalty, given.q
        self.program = replace(
            given,
            rows=TwoSided(few) if isinstance(given.rows, TwoSided) else few,
            penalty=np.concatenate([np.repeat(penalty[..., :1], n, axis=-1), penalty[..., d:]], axis=-1),
            q=np.concatenate([np.zeros((*q.shape[:-1], n)), q[..., d:]], axis=-1),
        )

    @staticmethod
    def _rows_of(program: Program) -> Any:
        return program.rows.rows if isinstance(program.rows, TwoSided) else program.rows

    def inward(self, found: Certified) -> Certified:
        """A certificate of the given program, as one of this."""
        d = self._given.shape[0] - self._bias
        without_bias = np.concatenate([found.z[..., :d], 0 * found.z[..., d:]], axis=-1)
        u = _solved(self._root, self._rows_of(self._given).products(without_bias), transposed=False)
        return certify(self.program, np.concatenate([u, found.z[..., d:]], axis=-1), found.alpha)

    def outward(self, found: Certified) -> Certified:
        """A certificate of this program, as one of the given one."""
        n, d = len(self._root), self._given.shape[0] - self._bias
        combination = _solved(self._root, found.z[..., :n], transposed=True)
        w = self._rows_of(self._given).adjoint(combination)[..., :d]
        return certify(self._given, np.concatenate([w, found.z[..., n:]], axis=-1), found.alpha)


def _factor(kernel: NDArray) -> NDArray:
    """The lower Cholesky factor of a kernel; of one without full rank, of one next to it."""
    size = np.max(np.diagonal(kernel), initial=0.0) or 1.0
    for jitter in _JITTER:
        shifted = kernel.copy()
        shifted[np.diag_indices_from(shifted)] += jitter * len(kernel) * eps(kernel.dtype) * size
        try:
            root: NDArray = np.linalg.cholesky(shifted)
            return root
        except np.linalg.LinAlgError:
            continue
    return np.full_like(kernel, np.nan)


def _solved(root: NDArray, values: NDArray, *, transposed: bool) -> NDArray:
    """`L^-1 v`, or `L'^-1 v`, along the last axis."""
    # Imported when it is needed: it takes a tenth of a second.
    from scipy.linalg import lapack

    solution: NDArray = lapack.dtrtrs(root, values.T, lower=1, trans=int(transposed))[0].T
    return solution
