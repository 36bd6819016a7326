"""Sparse rows for tests, made without a computation of JAX's: `BCOO.fromdense` compiles a dozen programs."""

import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO


def bcoo(dense, padding=0):
    """The entries of a matrix that are not 0, followed by some that lie outside of its shape."""
    dense = np.asarray(dense)
    indices = np.concatenate([np.argwhere(dense), np.full((padding, 2), dense.shape)])
    data = np.append(dense[np.nonzero(dense)], np.zeros(padding, dense.dtype))
    return BCOO((jnp.asarray(data), jnp.asarray(indices)), shape=dense.shape)
