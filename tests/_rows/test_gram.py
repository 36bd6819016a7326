"""The weighted Gram matrix of rows under a trace against NumPy, however the rows are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhinge._rows import gram

RNG = np.random.default_rng(0)


def exact(rows, weight):
    return np.sum([w * np.outer(a, a) for a, w in zip(rows.T, weight, strict=True)], axis=0)


@pytest.fixture
def small_chunks(monkeypatch):
    """Three columns of 128 at a time, so that few numbers go every way that many do."""
    monkeypatch.setattr(gram, "_CHUNK", 3 * 128 * 5)
    monkeypatch.setattr(gram, "_FEW", 128)


@pytest.mark.parametrize("n", [100, 3 * 128, 4 * 128, 7 * 128, 9 * 128 + 1, 1000])
def test_a_gram_matrix_is_the_sum_over_all_rows(n, small_chunks):
    rows, weight = RNG.standard_normal((5, n)), RNG.random(n)
    for given in (jnp.asarray(rows, jnp.float32), gram.blocked(jnp.asarray(rows, jnp.float32))):
        np.testing.assert_allclose(gram.weighted_gram(given, weight), exact(rows, weight), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0)])
def test_gram_matrices_of_a_batch_are_those_of_each(axes, small_chunks):
    rows, weight = RNG.standard_normal((2, 5, 900)), RNG.random((2, 900))
    given = [leaf if axis == 0 else leaf[0] for leaf, axis in zip((rows, weight), axes, strict=True)]
    found = jax.vmap(gram.weighted_gram, in_axes=axes)(*(jnp.asarray(leaf, jnp.float32) for leaf in given))
    for number in range(2):
        expected = exact(rows[number if axes[0] == 0 else 0], weight[number if axes[1] == 0 else 0])
        np.testing.assert_allclose(found[number], expected, rtol=1e-4, atol=1e-3)
