"""Scores, losses and gradients of sparse rows: those of the same rows made dense."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from helpers.sparse_rows import bcoo
from jax.experimental.sparse import BCOO

import jaxhinge as jh

RNG = np.random.default_rng(0)
# Multiples of 1/4, so that some margins are on the kink and sums are exact.
DENSE = np.where(RNG.random((40, 12)) < 0.3, RNG.integers(-8, 9, (40, 12)) / 4, 0).astype(np.float32)
SPARSE = {"scipy": sp.csr_matrix(DENSE), "BCOO": bcoo(DENSE, padding=5)}
Y, LABELS = np.where(RNG.random(40) < 0.5, 1, -1), RNG.integers(0, 3, 40)
PARAMS = jh.LinearParams(jnp.asarray(RNG.integers(-4, 5, 12) / 4), jnp.float32(0.25))
CLASSES = jh.LinearParams(jnp.asarray(RNG.integers(-4, 5, (12, 3)) / 4), jnp.zeros(3))
WEIGHT = RNG.integers(1, 4, 40).astype(np.float32)


@pytest.mark.parametrize("kind", SPARSE)
@pytest.mark.parametrize("params", [PARAMS, CLASSES], ids=["targets", "classes"])
def test_scores_and_predictions(kind, params):
    scores, predicted = jax.jit(
        lambda: (jh.decision_function(params, SPARSE[kind]), jh.predict(params, SPARSE[kind]))
    )()
    np.testing.assert_array_equal(scores, DENSE @ np.asarray(params.w) + np.asarray(params.b))
    np.testing.assert_array_equal(predicted, jh.predict(params, DENSE))
    assert scores.dtype == jnp.float32


@pytest.mark.parametrize("kind", SPARSE)
@pytest.mark.parametrize("subgradient", [0.0, 0.3])
def test_value_and_gradient_at_the_kink(kind, subgradient):
    assert (1 - Y * (DENSE @ np.asarray(PARAMS.w) + np.asarray(PARAMS.b)) == 0).any()
    options = {"l2": 0.1, "sample_weight": WEIGHT, "subgradient": subgradient}
    of = functools.partial(jax.value_and_grad(jh.loss), **options)
    found, expected = jax.jit(lambda: (of(PARAMS, SPARSE[kind], Y), of(PARAMS, DENSE, Y)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, expected)
    assert float(jh.loss(PARAMS, SPARSE[kind], Y, **options)) == pytest.approx(float(expected[0]), rel=1e-6)


def test_classes_under_jit_and_vmap():
    loss = jax.jit(lambda params, x: jh.loss(params, x, LABELS, loss_fn=jh.losses.multiclass_hinge_loss))
    gradient = jax.jit(jax.grad(loss))
    np.testing.assert_allclose(gradient(CLASSES, SPARSE["BCOO"]).w, gradient(CLASSES, DENSE).w, atol=1e-6)
    scales = np.float32([0.5, 1, 2])
    of = jax.jit(lambda scale, x: jh.loss((scale * PARAMS.w, PARAMS.b), x, Y))
    losses = jax.vmap(of, (0, None))(scales, SPARSE["BCOO"])
    np.testing.assert_allclose(losses, [of(scale, DENSE) for scale in scales], rtol=1e-6)


def test_the_stored_numbers_are_differentiable():
    def value(data):
        return jh.loss(PARAMS, BCOO((data, SPARSE["BCOO"].indices), shape=DENSE.shape), Y)

    found = np.asarray(jax.jit(jax.grad(value))(SPARSE["BCOO"].data))
    rows, columns = np.asarray(SPARSE["BCOO"].indices).T
    inside = rows < len(DENSE)
    expected = np.asarray(jax.jit(jax.grad(lambda x: jh.loss(PARAMS, x, Y)))(DENSE))[rows[inside], columns[inside]]
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
