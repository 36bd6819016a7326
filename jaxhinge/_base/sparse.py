"""Sparse features: recognised without an import, and brought to one form on the host."""

from __future__ import annotations

import sys
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import check_feature_shape


def is_sparse(x: Any) -> bool:
    """Whether `x` is sparse: of SciPy, or of `jax.experimental.sparse`."""
    return is_bcoo(x) or _is_scipy(x)


def is_bcoo(x: Any) -> bool:
    """Whether `x` is a sparse array of JAX."""
    # What was never imported has no instances; to import it here takes longer than most solves.
    module = sys.modules.get("jax.experimental.sparse")
    return module is not None and isinstance(x, module.JAXSparse)


def _is_scipy(x: Any) -> bool:
    module = sys.modules.get("scipy.sparse")
    return module is not None and module.issparse(x)


def csr_of(name: str, x: Any) -> Any:
    """Checked sparse features as a CSR array of float32 or float64, without duplicates; the caller's is not changed.

    Raises:
      TypeError: Its numbers are not real.
      ValueError: It is no matrix, is empty, or an index lies outside of its shape.
    """
    from scipy import sparse

    if is_bcoo(x):
        x = _coo_of(name, x)
    if x.ndim != 2:
        raise ValueError(f"{name} must have shape (n, d), a row per example; got the sparse shape {x.shape}.")
    check_feature_shape(name, x)
    dtype = np.dtype(x.dtype)
    if dtype != np.bool_ and not jnp.issubdtype(dtype, jnp.integer) and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name} must be real numbers; got a sparse array of dtype {dtype}. Use {name}.astype(float).")
    wide = np.float32 if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize <= 4 else np.float64
    _check_indices(name, x)
    given, x = x, sparse.csr_array(x)
    if not x.has_canonical_format:
        x = x.copy() if np.shares_memory(x.data, getattr(given, "data", x.data)) else x
        x.sum_duplicates()
    return x.astype(wide, copy=False)


def check_bcoo(name: str, x: Any) -> None:
    """Of JAX's sparse arrays a BCOO of rows, with nothing else before or behind its two dimensions."""
    if type(x).__name__ != "BCOO":
        raise TypeError(f"{name} is a {type(x).__name__}; of JAX's sparse arrays BCOO is known: {name}.to_bcoo().")
    if x.n_batch or x.n_dense or x.ndim != 2:
        raise ValueError(
            f"{name} must be a BCOO of shape (n, d) without batch or dense dimensions; got shape {x.shape} with "
            f"n_batch={x.n_batch}, n_dense={x.n_dense}."
        )


def _coo_of(name: str, x: Any) -> Any:
    """A sparse array of JAX as one of SciPy. What lies just outside of its shape is padding, in JAX."""
    from scipy import sparse

    check_bcoo(name, x)
    if len(x.data.devices()) > 1:
        raise ValueError(
            f"{name} is a BCOO on a mesh, whose rows no solver divides. Give dense rows (jaxhinge.shard_rows), or a "
            "BCOO on one device."
        )
    data, indices = np.asarray(x.data), np.asarray(x.indices)
    if jnp.issubdtype(data.dtype, jnp.floating) and data.dtype.itemsize < 4:
        # SciPy knows no floats of 16 bits; float32 holds each of them exactly.
        data = data.astype(np.float32)
    kept = (indices < np.asarray(x.shape)).all(axis=1)
    data, indices = (data, indices) if kept.all() else (data[kept], indices[kept])
    return sparse.coo_array((data, (indices[:, 0], indices[:, 1])), shape=x.shape)


def _check_indices(name: str, x: Any) -> None:
    """SciPy's compiled products trust the indices: one outside of the shape would read or write foreign memory."""
    if x.format in ("csr", "csc", "bsr"):
        try:
            x.check_format(full_check=True)
        except ValueError as error:
            raise ValueError(f"{name} is no valid sparse {x.format} array: {error}.") from error
    elif x.format == "coo":
        for axis, (size, index) in enumerate(zip(x.shape, x.coords, strict=True)):
            if len(index) and not 0 <= index.min() <= index.max() < size:
                raise ValueError(
                    f"{name} has indices from {index.min()} to {index.max()} along axis {axis} of size {size}."
                )
