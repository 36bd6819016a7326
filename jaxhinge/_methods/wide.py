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
from jaxhinge._methods.certificate import Certified, Program, certify
from jaxhinge._rows.dense import DenseRows, TwoSided


@dataclass(frozen=True)
class _FewRows(DenseRows):
    """The rows of the factor, whose kernel is known."""

    known: Any = None

    @cached_property
    def kernel_of_features(self) -> NDArray:
        """That of the rows as they were given."""
        known: NDArray = self.known
        return known


def in_row_coordinates(given: Program) -> Program:
    """The program in the coordinates `(u, b)`; its features have one penalty, and no linear term."""
    rows = _one_sided(given)
    few: Any = _FewRows(rows.root, None, rows.bias, rows.kernel_of_features)
    n, d, penalty, q = len(few.x), given.shape[0] - rows.bias, given.penalty, given.q
    return replace(
        given,
        rows=TwoSided(few) if isinstance(given.rows, TwoSided) else few,
        penalty=np.concatenate([np.repeat(penalty[..., :1], n, axis=-1), penalty[..., d:]], axis=-1),
        q=np.concatenate([np.zeros((*q.shape[:-1], n)), q[..., d:]], axis=-1),
    )


def inward(given: Program, inner: Program, found: Certified) -> Certified:
    """A certificate of the given program, as one in row coordinates."""
    rows = _one_sided(given)
    d = given.shape[0] - rows.bias
    without_bias = np.concatenate([found.z[..., :d], 0 * found.z[..., d:]], axis=-1)
    u = _solved(rows.root, rows.products(without_bias), transposed=False)
    return certify(inner, np.concatenate([u, found.z[..., d:]], axis=-1), found.alpha)


def outward(given: Program, found: Certified) -> Certified:
    """A certificate in row coordinates, as one of the given program."""
    rows = _one_sided(given)
    n, d = len(rows.root), given.shape[0] - rows.bias
    w = rows.adjoint(_solved(rows.root, found.z[..., :n], transposed=True))[..., :d]
    return certify(given, np.concatenate([w, found.z[..., n:]], axis=-1), found.alpha)


def _one_sided(program: Program) -> Any:
    return program.rows.rows if isinstance(program.rows, TwoSided) else program.rows


def _solved(root: NDArray, values: NDArray, *, transposed: bool) -> NDArray:
    """`L^-1 v`, or `L'^-1 v`, along the last axis."""
    # Imported when it is needed: it takes a tenth of a second.
    from scipy.linalg import lapack

    solution: NDArray = lapack.dtrtrs(root, values.T, lower=1, trans=int(transposed))[0].T
    return solution
