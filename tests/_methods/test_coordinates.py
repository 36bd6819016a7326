"""The coordinates in which steps are made under a trace, and padding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhinge._methods.certificate import Certified, Program
from jaxhinge._methods.coordinates import Task, reflected, working_program
from jaxhinge._methods.padded import padded
from jaxhinge._rows.columns import Columns

RNG = np.random.default_rng(0)


def task(n=30, offset=1e4):
    """Rows far from 0 with a bias that counts in the norm."""
    features = RNG.standard_normal((4, n)) + offset
    with jax.enable_x64(True):
        ones = jnp.ones(n)
        program = Program(
            Columns(jnp.asarray(features), True), ones, ones, ones / n, jnp.full(5, 0.1), jnp.zeros(5), False, False
        )
        return Task(program, jnp.zeros(4), jnp.append(jnp.asarray(features.mean(axis=1)), 1)), np.vstack(
            [features, np.ones(n)]
        )


def test_rows_left_out_count_as_ones():
    problem, rows = task()
    program = problem.program
    z, alpha = RNG.standard_normal(5), RNG.random(30)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(program.rows.whole, rows)
        np.testing.assert_allclose(program.scores(jnp.asarray(z)), z @ rows, rtol=1e-12)
        np.testing.assert_allclose(program.adjoint(jnp.asarray(alpha)), rows @ alpha, rtol=1e-12)


def test_turned_coordinates_have_the_same_scores_and_hold_the_offset_in_one_of_them():
    problem, rows = task()
    with jax.enable_x64(True):
        working = working_program(problem, jnp.float64)
        z = RNG.standard_normal(5)
        move = partial(reflected, problem)
        there = move(Certified(jnp.asarray(z), jnp.zeros(30), jnp.zeros(()), jnp.zeros(())))
        np.testing.assert_allclose(there.z @ working.rows.features, z @ rows, rtol=1e-9)
        np.testing.assert_allclose(move(there).z, z, rtol=1e-12)
    assert np.abs(working.rows.features[1:]).max() < 100 < np.abs(working.rows.features[0]).min()


def test_float32_keeps_what_rows_far_from_0_differ_in():
    problem, _ = task(offset=1e6)
    with jax.enable_x64(True):
        wide, low = (working_program(problem, dtype).rows.features for dtype in (jnp.float64, jnp.float32))
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
