"""The matrix of a Newton step against NumPy, however the rows are cut; and the coordinates in which steps are made."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhinge._methods import linear_systems
from jaxhinge._methods.certificate import Certified, Program
from jaxhinge._methods.coordinates import Task, reflected, working_program
from jaxhinge._methods.padded import padded

RNG = np.random.default_rng(0)


def exact(rows, weight):
    return np.sum([w * np.outer(a, a) for a, w in zip(rows.T, weight, strict=True)], axis=0)


@pytest.fixture
def small_chunks(monkeypatch):
    """Three columns of 128 at a time, so that few numbers go every way that many do."""
    monkeypatch.setattr(linear_systems, "_CHUNK", 3 * 128 * 5)
    monkeypatch.setattr(linear_systems, "_FEW", 128)


@pytest.mark.parametrize("n", [100, 3 * 128, 4 * 128, 7 * 128, 9 * 128 + 1, 1000])
def test_a_gram_matrix_is_the_sum_over_all_rows(n, small_chunks):
    rows, weight = RNG.standard_normal((5, n)), RNG.random(n)
    for given in (jnp.asarray(rows, jnp.float32), linear_systems._blocked(jnp.asarray(rows, jnp.float32))):
        np.testing.assert_allclose(
            linear_systems.weighted_gram(given, weight), exact(rows, weight), rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0)])
def test_gram_matrices_of_lanes_are_those_of_each(axes, small_chunks):
    rows, weight = RNG.standard_normal((2, 5, 900)), RNG.random((2, 900))
    given = [leaf if axis == 0 else leaf[0] for leaf, axis in zip((rows, weight), axes, strict=True)]
    found = jax.vmap(linear_systems.weighted_gram, in_axes=axes)(*(jnp.asarray(leaf, jnp.float32) for leaf in given))
    for lane in range(2):
        expected = exact(rows[lane if axes[0] == 0 else 0], weight[lane if axes[1] == 0 else 0])
        np.testing.assert_allclose(found[lane], expected, rtol=1e-4, atol=1e-3)


def task(n=30, offset=1e4):
    """Rows far from 0 with a bias that counts in the norm."""
    features = RNG.standard_normal((4, n)) + offset
    with jax.enable_x64(True):
        ones = jnp.ones(n)
        program = Program(
            jnp.asarray(features), ones, ones, ones / n, jnp.full(5, 0.1), jnp.zeros(5), False, False, ones=True
        )
        return Task(program, jnp.zeros(4), jnp.append(jnp.asarray(features.mean(axis=1)), 1)), np.vstack(
            [features, np.ones(n)]
        )


def test_rows_left_out_count_as_ones():
    problem, rows = task()
    program = problem.program
    z, alpha = RNG.standard_normal(5), RNG.random(30)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(program.columns, rows)
        np.testing.assert_allclose(program.scores(jnp.asarray(z)), z @ rows, rtol=1e-12)
        np.testing.assert_allclose(program.adjoint(jnp.asarray(alpha)), rows @ alpha, rtol=1e-12)


def test_turned_coordinates_have_the_same_scores_and_hold_the_offset_in_one_of_them():
    problem, rows = task()
    with jax.enable_x64(True):
        working = working_program(problem, jnp.float64)
        z = RNG.standard_normal(5)
        move = partial(reflected, problem)
        there = move(Certified(jnp.asarray(z), jnp.zeros(30), jnp.zeros(()), jnp.zeros(())))
        np.testing.assert_allclose(there.z @ working.rows, z @ rows, rtol=1e-9)
        np.testing.assert_allclose(move(there).z, z, rtol=1e-12)
    assert np.abs(working.rows[1:]).max() < 100 < np.abs(working.rows[0]).min()


def test_float32_keeps_what_rows_far_from_0_differ_in():
    problem, _ = task(offset=1e6)
    with jax.enable_x64(True):
        wide, low = (working_program(problem, dtype).rows for dtype in (jnp.float64, jnp.float32))
    np.testing.assert_allclose(low[1:], wide[1:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (3, 1000), (2, 512)])
def test_padding_keeps_the_numbers_and_is_taken_without_a_copy(shape):
    array = RNG.standard_normal(shape[::-1]).T.astype(np.float32)
    result = padded(array, 1024)
    assert result.shape == (*shape[:-1], 1024)
    np.testing.assert_array_equal(result[..., : shape[-1]], array)
    assert (result[..., shape[-1] :] == 0).all()
    assert jax.device_put(result).unsafe_buffer_pointer() == result.ctypes.data


def test_padding_takes_a_centre_from_the_columns_but_not_from_the_padding():
    array = RNG.standard_normal((3, 700))
    result = padded(array, 1024, array.mean(axis=1))
    np.testing.assert_allclose(result[:, :700], array - array.mean(axis=1, keepdims=True), rtol=1e-12, atol=1e-15)
    assert (result[:, 700:] == 0).all()
