"""The classic ways to write this gradient, reproduced exactly on data with many rows on the kink.

Features are integers, weights halves and the number of rows a power of two: every product, sum and
mean below is exact in float32, so equality is exact too.
"""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxhinge

N, D, L2 = 256, 4, 0.25


def problem():
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (N, D)).astype(np.float32)
    y = rng.choice(np.float32([-1, 1]), N)
    return np.float32([0.5, -1.0, 1.5, 0.5]), np.float32(0.5), x, y


def loop_gradient(w, b, x, y, threshold):
    """The course-note gradient of mean hinge plus l2/2 ||w||^2: a row counts where its margin <= threshold."""
    grad_w, grad_b = np.zeros_like(w), np.zeros_like(b)
    for row, target in zip(x, y, strict=True):
        if target * (row @ w + b) <= threshold:
            grad_w -= target * row
            grad_b -= target
    return grad_w / N + L2 * w, grad_b / N


def gradient(**options):
    w, b, x, y = problem()
    return jax.jit(jax.grad(jaxhinge.loss))(jaxhinge.LinearParams(w, b), x, y, l2=L2, **options)


def assert_same(ours, theirs):
    np.testing.assert_array_equal(ours.w, theirs[0])
    np.testing.assert_array_equal(ours.b, theirs[1])


def test_many_rows_lie_on_the_kink_and_in_the_band():
    w, b, x, y = problem()
    margins = y * (x @ w + b)
    assert np.sum(margins == 1) >= N // 20
    assert np.sum((margins > 1) & (margins <= 1.5)) >= N // 20


def test_the_numpy_loop_with_margin_at_most_1_is_subgradient_1():
    assert_same(gradient(subgradient=1.0), loop_gradient(*problem(), threshold=1.0))


@pytest.mark.parametrize("epsilon", [1e-3, 0.5, 1.0])
def test_the_numpy_loop_with_a_tolerance_is_subgradient_1_with_kink_tol(epsilon):
    assert_same(gradient(subgradient=1.0, kink_tol=epsilon), loop_gradient(*problem(), threshold=1.0 + epsilon))


def test_the_textbook_rule_margin_below_1_is_the_default():
    assert_same(gradient(), loop_gradient(*problem(), threshold=np.nextafter(np.float32(1), np.float32(0))))


@pytest.mark.parametrize(
    ("spelling", "subgradient"),
    [
        (lambda m: jax.nn.relu(1 - m), 0.0),
        (lambda m: jnp.maximum(0, 1 - m), 0.5),
        (lambda m: optax.losses.hinge_loss(m, jnp.ones_like(m)), 0.5),
        (lambda m: jnp.where(m <= 1, 1 - m, 0), 1.0),
    ],
    ids=["jax.nn.relu", "jnp.maximum", "optax", "where"],
)
def test_the_spellings_of_jax(spelling, subgradient):
    w, b, x, y = problem()
    objective = lambda w, b: jnp.mean(spelling(y * (x @ w + jnp.full(N, b)))) + L2 / 2 * w @ w  # noqa: E731
    theirs = jax.jit(jax.grad(objective, (0, 1)))(w, b)
    assert_same(gradient(subgradient=subgradient), theirs)
    assert float(jax.grad(spelling)(1.0)) == -subgradient


if importlib.util.find_spec("torch"):
    import torch
    import torch.nn.functional as F

    # The third column of the kink table: the derivative in the margin at 1, as it was measured.
    SPELLINGS = {
        "relu": (lambda m: torch.relu(1 - m), 0.0),
        "clamp": (lambda m: torch.clamp(1 - m, min=0), 1.0),
        "maximum": (lambda m: torch.maximum(torch.zeros(()), 1 - m), 0.5),
        "margin_ranking_loss": (
            lambda m: F.margin_ranking_loss(m, torch.zeros_like(m), torch.ones_like(m), margin=1.0, reduction="none"),
            1.0,
        ),
        "hinge_embedding_loss": (
            lambda m: F.hinge_embedding_loss(m, -torch.ones_like(m), margin=1.0, reduction="none"),
            1.0,
        ),
    }

    @pytest.mark.parametrize("name", SPELLINGS)
    def test_the_spellings_of_torch(name):
        spelling, subgradient = SPELLINGS[name]
        w, b, x, y = (torch.tensor(a) for a in problem())
        w.requires_grad_()
        b.requires_grad_()
        margins = y * (x @ w + b)
        (spelling(margins).mean() + L2 / 2 * w @ w).backward()
        assert_same(gradient(subgradient=subgradient), (w.grad.numpy(), b.grad.numpy()))

    def test_torch_relu_is_the_default():
        w, b, x, y = (torch.tensor(a) for a in problem())
        w.requires_grad_()
        b.requires_grad_()
        (torch.relu(1 - y * (x @ w + b)).mean() + L2 / 2 * w @ w).backward()
        assert_same(gradient(), (w.grad.numpy(), b.grad.numpy()))
