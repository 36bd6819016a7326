"""Functions that once fooled the gradient doctor, and neighbours of them that must not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhinge as jh

L2 = 0.1


def problem(n=24, d=3):
    rng = np.random.default_rng(7)
    return (rng.normal(size=d), 0.4), rng.normal(size=(n, d)), np.where(rng.random(n) < 0.4, -1.0, 1.0)


def scalar_loop(w, b, x, y):
    """The score begins as the bias itself and grows in place, as it may where the bias is a number."""
    dw, db = np.zeros(len(w)), 0.0
    for xi, yi in zip(x, y, strict=True):
        score = b
        for j in range(len(w)):
            score += w[j] * xi[j]
        if yi * score <= 1:
            dw -= yi * xi
            db -= yi
    return [list(dw / len(x) + L2 * w), db / len(x)]


def scalar_loop_sum(w, b, x, y):
    dw, db = scalar_loop(w, b, x, y)
    return (np.array(dw) - L2 * w) * len(x) + L2 * w, db * len(x)


def half_within_a_tolerance(w, b, x, y):
    margin = y * (x @ w + b)
    push = -y * np.where(np.isclose(margin, 1, rtol=0, atol=0.1), 0.5, margin < 1) / len(x)
    return x.T @ push + L2 * w, push.sum()


def doubled_with_bias_once(w, b, x, y):
    push = -y * (y * (x @ w + b) < 1) / len(x)
    return x.T @ push + 2 * L2 * w, push.sum() + L2 * b


def bias_alone(w, b, x, y):
    push = -y * (y * (x @ w + b) < 1) / len(x)
    return x.T @ push, push.sum() + L2 * b


def every_row_summed(w, b, x, y):
    return -y @ x + L2 * w, -y.sum()


def zeros_without_violators(w, b, x, y):
    bad = y * (x @ w + b) < 1
    if not bad.any():
        return np.zeros_like(w), 0.0
    return L2 * w - (y[bad, None] * x[bad]).mean(axis=0), -y[bad].mean()


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (scalar_loop, "none"),
        (scalar_loop_sum, "not_averaged"),
        (half_within_a_tolerance, "kink_tolerance_too_wide"),
        (doubled_with_bias_once, "bias_regularized+regularizer_doubled"),
        (bias_alone, "bias_regularized+regularizer_missing"),
        (every_row_summed, "mask_missing+not_averaged"),
        (zeros_without_violators, "averaged_over_active"),
    ],
)
def test_these_functions_get_the_cause_a_reader_would_name(function, cause):
    diagnosis = jh.diagnose(function, *problem(), l2=L2)
    assert (diagnosis.cause, diagnosis.ok) == (cause, cause == "none")


def test_a_function_that_writes_into_the_bias_is_told_how_it_was_judged():
    (_, b), x, y = problem()
    diagnosis = jh.diagnose(scalar_loop, (np.ones(3), np.array(b)), x, y, l2=L2)
    assert "writes into its argument b" in diagnosis.findings[0]
    assert "plain number" in diagnosis.findings[0]


def test_the_library_with_a_wide_tolerance_is_told_so_at_every_subgradient():
    params, x, y = problem()

    @jax.jit
    def wide(w, b, x, y, s):
        return jax.grad(jh.loss)((w, b), x, y, l2=L2, kink_tol=0.1, subgradient=s)

    for subgradient in (0.0, 0.5, 1.0):
        given = functools.partial(wide, s=subgradient)
        assert jh.diagnose(given, params, x, y, l2=L2).cause == "kink_tolerance_too_wide"


def test_a_band_of_half_pushes_is_named_for_classes_too():
    rng = np.random.default_rng(0)
    params, x, y = (rng.normal(size=(3, 4)), np.zeros(4)), rng.normal(size=(12, 3)), rng.integers(0, 4, 12)

    @jax.jit
    def wide(w, b, x, y):
        loss = jh.losses.weston_watkins_loss
        return jax.grad(jh.loss)((w, b), x, y, l2=L2, loss_fn=loss, kink_tol=0.1, subgradient=0.5)

    found = jh.diagnose(wide, params, x, y, l2=L2, loss_fn=jh.losses.weston_watkins_loss)
    assert found.cause == "kink_tolerance_too_wide"
    assert "on both sides of the kink push by half" in found.findings[0]


@pytest.mark.parametrize("slope", [0.05, 0.1, 0.3])
def test_a_smoothed_kink_is_not_called_a_tolerance(slope):
    def smooth(w, b, x, y):
        push = -y * np.clip((1 - y * (x @ w + b)) / slope + 0.5, 0, 1) / len(x)
        return x.T @ push + L2 * w, push.sum()

    assert jh.diagnose(smooth, *problem(), l2=L2).cause == "unknown"


def test_a_second_mistake_below_the_rounding_of_float32_is_named_in_float64():
    l2 = 1e-6

    def logistic(w, b, x, y):
        error = 1 / (1 + np.exp(-(x @ w + b))) - (y + 1) / 2
        return (x.T @ error + l2 * w) / len(x), error.mean()

    assert jh.diagnose(logistic, *problem(), l2=l2).cause == "logistic+regularizer_averaged"


def test_a_strength_rounded_to_float32_is_no_mistake():
    rounded = float(np.float32(L2))

    def gradient(w, b, x, y, divide=True):
        push = -y * (y * (x @ w + b) < 1) / (len(x) if divide else 1)
        return x.T @ push + rounded * w, push.sum()

    assert jh.diagnose(gradient, *problem(), l2=L2).ok
    assert jh.diagnose(lambda *args: gradient(*args, divide=False), *problem(), l2=L2).cause == "not_averaged"


@pytest.mark.parametrize("name", ["w", "b", "x"])
@pytest.mark.parametrize("change", [lambda value: value + 1j, lambda value: np.asarray(value).astype(str)])
def test_complex_numbers_and_text_are_refused(name, change):
    (w, b), x, y = problem()
    data = {"w": w, "b": b, "x": x} | {name: change({"w": w, "b": b, "x": x}[name])}
    with pytest.raises(TypeError, match=f"{name} must be an array of real numbers"):
        jh.diagnose(scalar_loop, (data["w"], data["b"]), data["x"], y)


def test_a_complex_gradient_is_not_read_as_its_real_part():
    diagnosis = jh.diagnose(lambda w, b, x, y: (w * 1j, 1.0), *problem())
    assert diagnosis.cause == "wrong_shape"
    assert "real numbers" in diagnosis.findings[0]


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_loss_that_is_a_constant_nan_is_not_finite(value):
    def loss(w, b, x, y):
        return jnp.where(jnp.sum(y**2) > 0, value, 0.0)

    assert jh.diagnose_loss(loss, *problem()).cause == "not_finite"


def test_a_loss_whose_score_begins_as_the_bias_is_right():
    def loss(w, b, x, y):
        total = 0.0
        for xi, yi in zip(x, y, strict=True):
            score = b
            for j in range(len(w)):
                score += float(w[j]) * float(xi[j])
            total += max(0.0, 1 - float(yi * score))
        return total / len(x) + L2 / 2 * float(np.sum(np.square(w)))

    assert jh.diagnose_loss(loss, *problem(), l2=L2).ok


def untraced(dtype, margin=1.0):
    def loss(w, b, x, y):
        w, b, x, y = (np.asarray(value, dtype) for value in (w, b, x, y))
        return float(np.mean(np.maximum(0, margin - y * (x @ w + b))) + dtype(L2 / 2) * w @ w)

    return loss


@pytest.mark.parametrize("margin", [1.0, 2.0])
def test_differences_of_float32_values_are_not_judged(margin):
    diagnosis = jh.diagnose_loss(untraced(np.float32, margin), *problem(), l2=L2)
    assert (diagnosis.ok, diagnosis.cause) == (False, "unknown")
    assert str(diagnosis).startswith("NOT JUDGED.")
    assert "float64" in diagnosis.findings[0]
    assert "WRONG" not in str(diagnosis)
    assert jh.diagnose_loss(untraced(np.float64), *problem(), l2=L2).ok


def test_differences_on_many_features():
    assert jh.diagnose_loss(untraced(np.float64), *problem(8, 400), l2=L2).ok
    assert jh.diagnose_loss(untraced(np.float64), *problem(8, 400), l2=0.0).cause == "regularizer_unexpected"
