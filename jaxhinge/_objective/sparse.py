"""Scores of sparse rows: by SciPy where nothing is traced, else by sums over the stored numbers of a BCOO."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxhinge._base.arrays import at_least_float32
from jaxhinge._base.sparse import check_bcoo, csr_of, is_bcoo


def sparse_features(name: str, x: Any, *, traced: bool) -> Any:
    """Checked sparse features `(n, d)`: a CSR array of SciPy, or under a trace a BCOO of floats."""
    if not traced:
        return csr_of(name, x)
    if not is_bcoo(x):
        return bcoo_of(csr_of(name, x))
    check_bcoo(name, x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"{name} must be real numbers; got a BCOO of dtype {x.dtype}.")
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return type(x)((x.data.astype(jnp.result_type(float)), x.indices), shape=x.shape)


def bcoo_of(x: Any) -> Any:
    """The BCOO of a CSR array, in the dtype that JAX has for its own; nothing is compiled."""
    from jax.experimental.sparse import BCOO

    coo = x.tocoo()
    data = np.asarray(coo.data, jax.dtypes.canonicalize_dtype(coo.data.dtype))
    indices = np.stack(coo.coords, axis=1).astype(np.int32)
    return BCOO(jax.device_put((data, indices)), shape=x.shape, indices_sorted=True, unique_indices=True)


def affine(w: jax.Array, b: jax.Array, x: Any, dtype: DTypeLike) -> jax.Array:
    """`x @ w + b` of sparse `x`, accumulated in float32 at least."""
    wide = at_least_float32(dtype)
    if is_bcoo(x):
        # A number outside of the shape is padding: it takes a weight of 0, and is added to no row.
        rows, columns = x.indices[:, 0], x.indices[:, 1]
        taken = w.astype(wide).at[columns].get(mode="fill", fill_value=0)
        terms = x.data.astype(wide).reshape(-1, *[1] * (w.ndim - 1)) * taken
        products = jnp.zeros((x.shape[0], *w.shape[1:]), wide)
        products = products.at[rows].add(terms, mode="drop", indices_are_sorted=bool(x.indices_sorted))
    else:
        products = jax.device_put(np.asarray(x @ np.asarray(w, x.dtype), wide))
    return products + jnp.broadcast_to(b.astype(wide), products.shape)
