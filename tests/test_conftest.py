"""The proof machinery itself: a count that stays at 0 whatever happens would prove nothing."""

import warnings

import jax
import jax.numpy as jnp
import pytest


def test_a_compilation_is_counted_once(compilations):
    double = jax.jit(lambda x: 2 * x)
    x, y, longer = jnp.arange(7.0), jnp.ones(7), jnp.arange(11.0)
    with compilations() as names:
        double(x)
        double(y)
    assert len(names) == 1
    with compilations() as names:
        double(longer)
    assert len(names) == 1


def test_a_static_number_is_seen_to_recompile(compilations):
    power = jax.jit(lambda x, n: x**n, static_argnums=1)
    x = jnp.arange(3.0)
    with compilations() as names:
        for n in (2, 3, 4):
            power(x, n)
    assert len(names) == 3


def test_ranks_are_not_promoted():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.zeros(3) + jnp.zeros((3, 1))


def test_warnings_are_errors():
    with pytest.raises(UserWarning, match="loud"):
        warnings.warn("loud", stacklevel=1)


def test_float64_stays_inside_its_fixture(x64):
    assert jnp.asarray(1.0).dtype == jnp.float64


def test_float64_is_off_elsewhere():
    assert jnp.asarray(1.0).dtype == jnp.float32
