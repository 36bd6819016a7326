"""Scores, losses and gradients of sparse rows: those of the same rows made dense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from jax.experimental.sparse import BCOO

import jaxhinge as jh

RNG = np.random.default_rng(0)
# Multiples of 1/4, so that some margins are on the kink and sums are exact.
DENSE = np.where(RNG.random((40, 12)) < 0.3, RNG.integers(-8, 9, (40, 12)) / 4, 0).astype(np.float32)
SPARSE = {"scipy": sp.csr_matrix(DENSE), "BCOO": BCOO.fromdense(jnp.asarray(DENSE), nse=DENSE.astype(bool).sum() + 5)}
Y, LABELS = np.where(RNG.random(40) < 0.5, 1, -1), RNG.integers(0, 3, 40)
PARAMS = jh.LinearParams(jnp.asarray(RNG.integers(-4, 5, 12) / 4), jnp.float32(0.25))
CLASSES = jh.LinearParams(jnp.asarray(RNG.integers(-4, 5, (12, 3)) / 4), jnp.zeros(3))
WEIGHT = RNG.integers(1, 4, 40).astype(np.float32)


@pytest.mark.parametrize("kind", SPARSE)
@pytest.mark.parametrize("params", [PARAMS, CLASSES], ids=["targets", "classes"])
def test_scores_and_predictions(kind, params):
    x = SPARSE[kind]
    np.testing.assert_array_equal(jh.decision_function(params, x), DENSE @ np.asarray(params.w) + np.asarray(params.b))
    np.testing.assert_array_equal(jh.predict(params, x), jh.predict(params, DENSE))
    assert jh.decision_function(params, x).dtype == jnp.float32


@pytest.mark.parametrize("kind", SPARSE)
@pytest.mark.parametrize("subgradient", [0.0, 0.3])
def test_value_and_gradient_at_the_kink(kind, subgradient):
    assert (jnp.abs(1 - Y * jh.decision_function(PARAMS, DENSE)) == 0).any()
    options = {"l2": 0.1, "sample_weight": WEIGHT, "subgradient": subgradient}
    value, gradient = jax.value_and_grad(jh.loss)(PARAMS, SPARSE[kind], Y, **options)
    expected, expected_gradient = jax.value_and_grad(jh.loss)(PARAMS, DENSE, Y, **options)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient.w, expected_gradient.w, atol=1e-6)
    np.testing.assert_allclose(gradient.b, expected_gradient.b, atol=1e-6)
    assert float(jh.loss(PARAMS, SPARSE[kind], Y, **options)) == pytest.approx(float(expected), rel=1e-6)


def test_classes_under_jit_and_vmap():
    loss = jax.jit(lambda params, x: jh.loss(params, x, LABELS, loss_fn=jh.losses.multiclass_hinge_loss))
    gradient = jax.grad(loss)(CLASSES, SPARSE["BCOO"])
    np.testing.assert_allclose(gradient.w, jax.grad(loss)(CLASSES, DENSE).w, atol=1e-6)
    scales = jnp.array([0.5, 1.0, 2.0])
    losses = jax.vmap(lambda scale, x: jh.loss((scale * PARAMS.w, PARAMS.b), x, Y), (0, None))(scales, SPARSE["BCOO"])
    alone = [jh.loss((scale * PARAMS.w, PARAMS.b), DENSE, Y) for scale in scales]
    np.testing.assert_allclose(losses, alone, rtol=1e-6)


def test_the_stored_numbers_are_differentiable():
    def value(data):
        return jh.loss(PARAMS, BCOO((data, SPARSE["BCOO"].indices), shape=DENSE.shape), Y)

    found = jax.grad(value)(SPARSE["BCOO"].data)
    rows, columns = SPARSE["BCOO"].indices.T
    inside = rows < len(DENSE)
    expected = jax.grad(lambda x: jh.loss(PARAMS, x, Y))(jnp.asarray(DENSE))[rows[inside], columns[inside]]
    np.testing.assert_allclose(found[inside], expected, atol=1e-6)
    np.testing.assert_array_equal(found[~inside], 0)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (sp.csr_array(DENSE[:, :11]), ValueError, r"x has shape \(40, 11\), but w of shape \(12,\)"),
        (sp.csr_array(DENSE * 1j), TypeError, "real numbers"),
        (BCOO.fromdense(jnp.ones((2, 3, 12))), ValueError, "without batch or dense dimensions"),
        (BCOO.fromdense(jnp.ones(12)), ValueError, "without batch or dense dimensions"),
    ],
)
def test_what_is_refused(x, error, message):
    for function in (jh.loss, jax.grad(jh.loss)):
        with pytest.raises(error, match=message):
            function(PARAMS, x, Y)
