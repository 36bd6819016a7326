"""The products of all pairs of rows, for few rows of many features."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.precision import eps

# `_JITTER`: added to the kernel, in units of what rounding may have taken from it: rows that repeat have no factor
# otherwise. It is raised until there is one.
_JITTER = (1.0, 1e2, 1e4)


class KernelRows:
    """What the rows in memory on the host have in common."""

    bias: bool

    def of_problems(self, chosen: Any) -> Any:
        """The rows of some of the problems that lead in the arrays of a program: the same, where all share them."""
        return self

    @cached_property
    def kernel_of_features(self) -> NDArray:
        """The products of all pairs of rows, without the 1, `(n, n)`."""
        raise NotImplementedError

    def kernel(self, *, last: bool) -> NDArray:
        """The products of all pairs of rows, with or without their last coordinate, `(n, n)`."""
        return self.kernel_of_features + 1 if last and self.bias else self.kernel_of_features

    @cached_property
    def root(self) -> NDArray:
        """The lower Cholesky factor of `kernel_of_features`; where that has not full rank, of a matrix next to it."""
        kernel = self.kernel_of_features
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
