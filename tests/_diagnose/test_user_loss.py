"""Losses that people write, differentiated by JAX or by differences; and the geometry under the doctor."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhinge as jh
from jaxhinge._diagnose._polytope import nearest_point

L2 = 0.05


def problem(n=20, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=d), 0.4), rng.normal(size=(n, d)), np.where(rng.random(n) < 0.4, -1, 1)


def binary(module, *, margin=1.0, l2=L2, reduce="mean", power=1):
    def loss(w, b, x, y):
        slack = module.maximum(0.0, margin - y * (x @ w + b)) ** power
        return getattr(module, reduce)(slack) + l2 / 2 * module.sum(w**2)

    return loss


@pytest.mark.parametrize("module", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize(
    ("options", "cause", "kink"),
    [
        ({}, "none", None),
        ({"margin": 0.0}, "threshold_at_zero", "0"),
        ({"margin": 2.0}, "wrong_margin", "2"),
        ({"l2": 0.0}, "regularizer_missing", None),
        ({"l2": 2 * L2}, "regularizer_doubled", None),
        ({"reduce": "sum"}, "not_averaged", None),
        ({"power": 2}, "squared_hinge", None),
    ],
)
def test_binary_losses(module, options, cause, kink):
    loss = binary(module, **options)
    diagnosis = jh.diagnose_loss(jax.jit(loss) if module is jnp and options else loss, *problem(), l2=L2)
    assert diagnosis.cause == cause
    places = [finding for finding in diagnosis.findings if "has its kink at margin" in finding]
    assert places == (
        [] if kink is None else [f"The loss of one row has its kink at margin {kink}; it should be at margin 1."]
    )


def test_the_loss_of_this_package_and_what_it_takes_on_the_kink():
    for subgradient, choice in ((0.0, "0"), (0.5, "1/2"), (1.0, "1")):

        @jax.jit
        def loss(w, b, x, y, subgradient=subgradient):
            return jh.loss((w, b), x, y, l2=L2, subgradient=subgradient)

        diagnosis = jh.diagnose_loss(loss, *problem(), l2=L2)
        assert (diagnosis.ok, diagnosis.kink_choice, diagnosis.precision) == (True, choice, "float64")
    assert not jax.config.jax_enable_x64


def test_multiclass_losses():
    rng = np.random.default_rng(2)
    params, x, y = (rng.normal(size=(3, 4)), rng.normal(size=4)), rng.normal(size=(15, 3)), rng.integers(4, size=15)

    def largest(w, b, x, y):
        scores = x @ w + b
        z = 1 + scores - scores[np.arange(len(y)), y][:, None]
        z[np.arange(len(y)), y] = 0.0
        return np.maximum(z, 0).max(axis=1).mean() + L2 / 2 * np.vdot(w, w)

    assert jh.diagnose_loss(largest, params, x, y, l2=L2, loss_fn=jh.losses.multiclass_hinge_loss).ok
    other = jh.diagnose_loss(largest, params, x, y, l2=L2, loss_fn=jh.losses.weston_watkins_loss)
    assert other.cause == "crammer_singer"


@pytest.mark.parametrize(
    ("loss", "cause", "words"),
    [
        (lambda w, b, x, y: np.maximum(0.0, 1 - y * (x @ w + b)), "wrong_shape", "losses.mean()"),
        (lambda w, b, x, y: missing, "raised", "NameError"),  # noqa: F821
        (lambda w, b, x, y: np.nan * w.sum(), "not_finite", "NaN or infinity"),
    ],
)
def test_losses_that_are_none(loss, cause, words):
    diagnosis = jh.diagnose_loss(loss, *problem(), l2=L2)
    assert diagnosis.cause == cause
    assert words in str(diagnosis)


def test_a_loss_must_be_callable_and_its_data_good():
    with pytest.raises(TypeError, match="user_loss must be a function"):
        jh.diagnose_loss(3.0, *problem())
    params, x, y = problem()
    with pytest.raises(ValueError, match="y must be -1"):
        jh.diagnose_loss(binary(np), params, x, 0 * y)


if importlib.util.find_spec("torch") is not None:
    import torch

    def test_a_torch_loss_is_judged_by_differences():
        def loss(w, b, x, y):
            w, b, x, y = (torch.as_tensor(a, dtype=torch.float64) for a in (w, b, x, y))
            return torch.relu(1 - y * (x @ w + b)).mean() + L2 * w.square().sum()

        diagnosis = jh.diagnose_loss(loss, *problem(), l2=L2)
        assert (diagnosis.cause, diagnosis.precision) == ("regularizer_doubled", "differences")


@pytest.mark.parametrize("seed", range(30))
def test_the_nearest_point_of_a_sum_of_polytopes_is_optimal(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 6))
    groups = [rng.normal(size=(rng.integers(1, 5), size)) for _ in range(rng.integers(1, 9))]
    if seed % 3 == 0:
        groups.append(groups[0])
    base = rng.normal(size=size) * 10.0 ** rng.integers(-2, 2)
    nearest, shares = nearest_point(base, groups, enough=0.0)
    rebuilt = base + sum(share @ vertices for share, vertices in zip(shares, groups, strict=True))
    np.testing.assert_allclose(nearest, rebuilt, atol=1e-12)
    for share in shares:
        assert np.all(share >= 0.0)
        assert np.sum(share) == pytest.approx(1.0, abs=1e-12)
    # Optimal where no corner is farther against the point than the point itself.
    farthest = base @ nearest + sum(np.min(vertices @ nearest) for vertices in groups)
    assert nearest @ nearest - farthest <= 1e-10 * (1.0 + np.abs(farthest))


def test_the_nearest_point_is_exact_where_the_target_is_inside():
    rng = np.random.default_rng(9)
    groups = [np.stack([np.zeros(20), rng.normal(size=20)]) for _ in range(15)]
    shares = rng.random(15)
    base = -sum(share * group[1] for share, group in zip(shares, groups, strict=True))
    nearest, found = nearest_point(base, groups, enough=0.0)
    np.testing.assert_allclose(nearest, 0.0, atol=1e-12)
    np.testing.assert_allclose([share[1] for share in found], shares, atol=1e-10)


def test_the_nearest_point_stops_once_the_sum_is_proven_far():
    groups = [np.stack([np.zeros(3), np.eye(3)[axis]]) for axis in range(3)]
    nearest, _ = nearest_point(np.full(3, 5.0), groups, enough=1e-9, far=1.0)
    assert np.linalg.norm(nearest) >= np.sqrt(75.0)


def in_jax(w, b, x, y):
    push = jnp.where(y * (x @ w + b) < 1, -y, 0.0)
    return x.T @ push / len(y) + 0.1 * w, jnp.mean(push)


def test_a_jax_function_is_traced_once_for_each_number_of_rows():
    runs = []

    def recorded(w, b, x, y):
        runs.append((len(x), isinstance(x, jax.core.Tracer)))
        return in_jax(w, b, x, y)

    diagnosis = jh.diagnose(recorded, *problem(20), l2=0.1)
    assert diagnosis.ok
    assert diagnosis.num_calls > len(runs)
    traced = [rows for rows, is_traced in runs if is_traced]
    assert sorted(traced) == [1, 14, 20, 40, 150]
    assert {rows for rows, is_traced in runs if not is_traced} == {20}


def over_rows(w, b, x, y):
    dw, db = 0.1 * jnp.asarray(w), jnp.zeros(())
    for row, label in zip(x, y, strict=True):
        push = jnp.where(label * (jnp.dot(row, w) + b) < 1, -label / len(y), 0.0)
        dw, db = dw + push * row, db + push
    return dw, db


def over_something_else(w, b, x, y):
    dw, db = in_jax(w, b, x, y)
    for _ in range(300):
        db = 2 * db / 2
    return dw, db


@pytest.mark.parametrize("loop", [over_rows, over_something_else])
def test_a_long_loop_is_not_compiled_as_a_whole(loop):
    traced = []

    def recorded(w, b, x, y):
        traced.append(isinstance(x, jax.core.Tracer))
        return loop(w, b, x, y)

    assert jh.diagnose(recorded, *problem(6), l2=0.1).ok
    assert sum(traced) == 2


def test_a_jax_function_that_cannot_be_compiled_is_judged_as_it_stands():
    total = [0.0, 0.0]

    def accumulates(w, b, x, y):
        total[:] = [old + new for old, new in zip(total, in_jax(w, b, x, y), strict=True)]
        return tuple(total)

    def branches(w, b, x, y):
        dw, db = in_jax(w, b, x, y)
        return (dw, db) if float(jnp.sum(dw)) != 7.0 else (0 * dw, db)

    def draws(w, b, x, y):
        dw, db = in_jax(w, b, x, y)
        return dw + np.float32(noise.normal()), db

    noise = np.random.default_rng(0)
    assert jh.diagnose(accumulates, *problem(20), l2=0.1).cause == "gradient_accumulated"
    assert jh.diagnose(branches, *problem(20), l2=0.1).cause == "none"
    assert jh.diagnose(draws, *problem(20), l2=0.1).cause == "unknown"
