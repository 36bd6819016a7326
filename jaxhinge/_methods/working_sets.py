"""Many problems on the same rows, each reduced to the rows that may matter to it.

Given parameters near the solution, rows far from the kink keep their side. Those that are satisfied are left out. Those
that are violated are pushed as hard as they may be: all of one sign become one row, their weighted mean, whose weight
is theirs in all. By convexity the reduced objective is nowhere above that of all rows. A dual point of it is one of all
rows with the same value: what pushes a mean pushes each of its rows in proportion.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._methods.certificate import Certified, Program, certify
from jaxhinge._rows.gathered import GatheredRows

_SIDES = (1.0, -1.0)


class WorkingSet(NamedTuple):
    """Reduced problems, and how their duals are those of all rows.

    Attributes:
      program: The reduced problems, each of m chosen rows and a mean of either sign.
      chosen: `(problems, m)`, the numbers of the rows.
      pushed: `(2, problems, n)`, the weights of the rows that are in the means, else 0.
    """

    program: Program
    chosen: NDArray
    pushed: NDArray

    def inward(self, z: NDArray, alpha: NDArray) -> Certified:
        """Parameters, and a dual point of all rows, certified in the reduced problems."""
        few = np.take_along_axis(alpha, self.chosen, axis=-1)
        return certify(self.program, z, np.concatenate([few, self.pushed.sum(axis=-1).T], axis=-1))

    def outward(self, alpha: NDArray) -> NDArray:
        """A dual point of the reduced problems, as one of all rows."""
        m = self.chosen.shape[-1]
        share = alpha[:, m:] / self.program.c[:, m:]
        every: NDArray = np.einsum("bs,sbn->bn", share, self.pushed)
        np.put_along_axis(every, self.chosen, alpha[:, :m], axis=-1)
        return every


def working_set(program: Program, z: NDArray, m: int) -> WorkingSet:
    """The m rows of each problem that are nearest to the kink at `z`, over `DenseRows`."""
    violations = program.r - program.scores(z)
    counts = program.sign != 0
    distance = np.where(counts, np.abs(violations), np.inf)
    chosen = np.sort(np.argpartition(distance, m, axis=-1)[:, :m], axis=-1)
    inside = counts & (violations > 0)
    np.put_along_axis(inside, chosen, False, axis=-1)
    pushed = np.stack([np.where(inside & (program.sign == side), program.c, 0.0) for side in _SIDES])

    total = pushed.sum(axis=-1).T
    some = np.where(total > 0, total, 1.0)
    means = np.stack([program.rows.adjoint(one) for one in pushed], axis=1) / some[..., None]
    required = np.einsum("sbn,bn->bs", pushed, program.r) / some

    def of_rows(values: NDArray, of_means: NDArray) -> NDArray:
        return np.concatenate([np.take_along_axis(values, chosen, axis=-1), of_means], axis=-1)

    reduced = replace(
        program,
        rows=GatheredRows.of(program.rows, chosen, means),
        sign=of_rows(program.sign, np.where(total > 0, _SIDES, 0.0)),
        r=of_rows(program.r, required),
        c=of_rows(program.c, some),
    )
    return WorkingSet(reduced, chosen, pushed)
