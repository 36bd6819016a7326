"""Training on sparse rows: the steps, batches and results of the same rows made dense."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.compiled import compiled
from helpers.sparse_rows import bcoo
from jax.experimental.sparse import BCOO
from scipy import sparse

import jaxhinge as jh

KEY = np.random.default_rng(0)
N, D = 30, 12
DENSE = np.where(KEY.random((N, D)) < 0.3, KEY.normal(size=(N, D)), 0).astype(np.float32)
# A row and a column of zeros, a column without any, and a row without any.
DENSE[4], DENSE[:, 5], DENSE[:, 6], DENSE[7] = 0, 0, 1, 2
Y = np.where(KEY.random(N) < 0.5, 1, -1)
WEIGHT = KEY.random(N).astype(np.float32)


def scipy_rows(dense):
    return sparse.csc_matrix(dense)


def unsorted_rows(dense):
    """A BCOO in no order, with a padding that lies outside of its shape."""
    rows, columns = np.nonzero(dense)
    order = np.random.default_rng(1).permutation(len(rows))
    indices = np.concatenate([np.stack([rows, columns], axis=1)[order], [dense.shape]])
    return BCOO((jnp.asarray(np.append(dense[rows, columns][order], 7.0)), jnp.asarray(indices)), shape=dense.shape)


def trained(x, y=Y, *, batch_size, **options):
    options = {"l2": 0.1, "sample_weight": WEIGHT, "optimizer": optax.sgd(0.1), "num_steps": 25, **options}
    params = options.pop("params", jh.init_params(D))
    return compiled(jh.train, params, x, y, batch_size=batch_size, key=jax.random.key(3), **options)


@pytest.mark.parametrize("rows", [scipy_rows, unsorted_rows])
@pytest.mark.parametrize(("batch_size", "blocks"), [(7, 1), (10, 2), (N, 1)])
def test_train_makes_the_steps_of_dense_rows(rows, batch_size, blocks):
    found, history = trained(rows(DENSE), batch_size=batch_size, blocks=blocks)
    expected, expected_history = trained(DENSE, batch_size=batch_size, blocks=blocks)
    np.testing.assert_allclose(found.w, expected.w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(history.loss, expected_history.loss, rtol=1e-4)


def test_rows_that_are_traced_give_the_same_batches():
    x = unsorted_rows(DENSE)
    found, _ = jax.jit(lambda x: trained(x, batch_size=7))(x)
    expected, _ = trained(DENSE, batch_size=7)
    np.testing.assert_allclose(found.w, expected.w, rtol=1e-4, atol=1e-6)


def test_a_sweep_over_sparse_rows_is_a_vmap():
    strengths = jnp.array([1e-3, 1.0])
    found, _ = jax.vmap(lambda l2: trained(scipy_rows(DENSE), batch_size=8, l2=l2))(strengths)
    for w, l2 in zip(found.w, strengths, strict=True):
        np.testing.assert_allclose(w, trained(DENSE, batch_size=8, l2=l2)[0].w, rtol=1e-4, atol=1e-6)


def test_an_objective_of_the_users_own_is_given_the_rows_of_a_batch():
    shapes = []

    def objective(w, x, y, *, sample_weight):
        shapes.append((type(x), x.shape))
        return jnp.mean(sample_weight * jh.losses.hinge_loss(x @ w, y))

    options = {"objective": objective, "l2": None, "params": jnp.zeros(D), "batch_size": 8}
    found, _ = trained(scipy_rows(DENSE), **options)
    assert set(shapes) == {(BCOO, (8, D))}
    np.testing.assert_allclose(found, trained(DENSE, **options)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [scipy_rows, unsorted_rows])
def test_fit_makes_the_steps_of_dense_rows(rows):
    options = {"l2": 0.1, "epochs": 4, "sample_weight": WEIGHT}
    found, expected = jh.fit(rows(DENSE), Y, **options), jh.fit(DENSE, Y, **options)
    np.testing.assert_allclose(found.params.w, expected.params.w, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.history.loss, expected.history.loss, rtol=1e-4)
    np.testing.assert_allclose(found.gap, expected.gap, rtol=1e-3, atol=1e-5)


def test_fit_of_classes_goes_on_from_its_checkpoint(tmp_path):
    labels = np.arange(N) % 3
    options = {"l2": 0.1, "loss_fn": jh.losses.multiclass_hinge_loss, "epochs": 4}
    expected = jh.fit(scipy_rows(DENSE), labels, checkpoint=tmp_path, **options)
    again = jh.fit(sparse.csr_array(DENSE), labels, checkpoint=tmp_path, **options)
    np.testing.assert_array_equal(again.params.w, expected.params.w)
    np.testing.assert_allclose(expected.params.w, jh.fit(DENSE, labels, **options).params.w, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="x: "):
        jh.fit(sparse.csr_array(2 * DENSE), labels, checkpoint=tmp_path, **options)


def test_numbers_that_are_not_finite_are_named():
    x = sparse.csr_array(DENSE)
    x.data[0] = np.nan
    with pytest.raises(ValueError, match=r"x has NaN or infinity in 1 of .* the first at \(0, "):
        jh.fit(x, Y, l2=0.1)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_floats_keep_their_dtype_and_give_the_steps_of_dense_rows(dtype):
    seen = []

    def objective(params, x, y, **options):
        seen.append(x.dtype)
        return jh.loss(params, x, y, **options)

    rows = jnp.asarray(DENSE, dtype)
    found, _ = trained(bcoo(rows), batch_size=7, objective=objective)
    assert set(seen) == {jnp.dtype(dtype)}
    np.testing.assert_allclose(found.w, trained(rows, batch_size=7)[0].w, rtol=1e-3, atol=1e-5)
    fitted = [jh.fit(x, Y, l2=0.1, epochs=2).gap for x in (bcoo(rows), rows)]
    # The steps are of float32, and add in another order.
    np.testing.assert_allclose(*fitted, rtol=1e-4)
    solved = jh.solve(bcoo(rows), Y, l2=0.1, tol=1e-6)
    np.testing.assert_allclose(solved.primal_value, jh.solve(rows, Y, l2=0.1, tol=1e-6).primal_value, rtol=1e-5)


def test_rows_without_a_number_train_the_bias():
    empty = sparse.csr_array((N, D), dtype=np.float32)
    found, _ = trained(empty, batch_size=7)
    expected, _ = trained(np.zeros((N, D), np.float32), batch_size=7)
    np.testing.assert_array_equal(found.w, 0)
    np.testing.assert_allclose(found.b, expected.b, rtol=1e-5)
    assert np.isfinite(jh.fit(empty, Y, l2=0.1, epochs=2).history.loss).all()
