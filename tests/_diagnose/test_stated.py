"""What users state to the doctor: the form with C, no bias, weights of rows, labels, the loss, and a loss beside dw."""

import functools
import re

import jax
import numpy as np
import pytest

import jaxhinge as jh

L2 = 0.1
RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(40, 5)), RNG.normal(size=5)
Y = np.where(RNG.random(40) < 0.4, -1.0, 1.0)
CLASSES, MATRIX = RNG.integers(3, size=40), RNG.normal(size=(5, 3))
TARGETS = X @ W + RNG.normal(size=40)


def gradient(w, b, x, y, sample_weight=None):
    weight = np.ones(len(y)) if sample_weight is None else sample_weight
    push = -weight * y * (y * (x @ w + b) < 1) / weight.sum()
    return x.T @ push + L2 * w, push.sum()


def without_bias(w, x, y):
    return gradient(w, 0.0, x, y)[0]


def with_c(w, b, x, y, C=0.7):
    push = -C * y * (y * (x @ w + b) < 1)
    return w + x.T @ push, push.sum()


def test_the_form_with_c():
    assert jh.diagnose(with_c, (W, 0.3), X, Y, C=0.7).ok
    assert jh.diagnose(functools.partial(with_c, C=1.0), (W, 0.3), X, Y, C=0.7).cause == "data_scaled"
    averaged = functools.partial(with_c, C=0.7 / 40)
    assert jh.diagnose(averaged, (W, 0.3), X, Y, C=0.7).cause == "data_scaled"
    scaled = jh.diagnose(lambda *args: with_c(*args, C=1 / (L2 * len(args[3]))), (W, 0.3), X, Y, l2=L2)
    assert scaled.cause == "everything_scaled"
    assert "say C=... in place of l2" in scaled.findings[0]
    with pytest.raises(ValueError, match="State either l2 or C"):
        jh.diagnose(with_c, (W, 0.3), X, Y, C=0.7, l2=0.1)


@pytest.mark.parametrize("params", [W, (W,), (W, 0.0)], ids=["w", "tuple", "pair"])
@pytest.mark.parametrize(
    "returned",
    [lambda dw: dw, lambda dw: (dw,), lambda dw: (3.0, dw), lambda dw: {"dw": dw}],
    ids=["array", "tuple", "with_loss", "dict"],
)
def test_a_model_without_a_bias(params, returned):
    diagnosis = jh.diagnose(lambda *args: returned(without_bias(*args)), params, X, Y, l2=L2, fit_intercept=False)
    assert diagnosis.ok
    wrong = jh.diagnose(lambda *args: returned(without_bias(*args)), params, X, Y, l2=2 * L2, fit_intercept=False)
    assert wrong.cause == "regularizer_halved"
    assert wrong.comparison.names == tuple(f"w[{i}]" for i in range(5))


def test_a_function_that_takes_a_bias_though_the_model_has_none():
    assert jh.diagnose(lambda w, b, x, y: without_bias(w, x, y), W, X, Y, l2=L2, fit_intercept=False).ok
    with pytest.raises(ValueError, match="there is no bias, but params has b"):
        jh.diagnose(without_bias, (W, 1.0), X, Y, l2=L2, fit_intercept=False)


def test_a_bias_that_is_regularised():
    def grad_fn(w, b, x, y):
        dw, db = gradient(w, b, x, y)
        return dw, db + L2 * b

    assert jh.diagnose(grad_fn, (W, 0.3), X, Y, l2=L2, fit_intercept="regularized").ok
    wrong = jh.diagnose(gradient, (W, 0.3), X, Y, l2=L2, fit_intercept="regularized")
    assert wrong.cause == "bias_regularizer_missing"


def test_weights_of_rows_handed_over_known_by_row_or_by_class():
    weight = RNG.random(40) + 0.2
    by_class = np.where(Y > 0, 0.5, 2.0)

    def known(w, b, x, y):
        return gradient(w, b, x, y, weight)

    def of_classes(w, b, x, y):
        return gradient(w, b, x, y, np.where(y > 0, 0.5, 2.0))

    for function, given in ((gradient, weight), (known, weight), (of_classes, by_class)):
        assert jh.diagnose(function, (W, 0.3), X, Y, l2=L2, sample_weight=given).ok
    ignored = jh.diagnose(lambda w, b, x, y: gradient(w, b, x, y), (W, 0.3), X, Y, l2=L2, sample_weight=weight)
    assert ignored.cause == "sample_weight_missing"
    with pytest.raises(ValueError, match=re.escape("sample_weight has shape (3,)")):
        jh.diagnose(gradient, (W, 0.3), X, Y, sample_weight=np.ones(3))


def test_labels_by_other_names():
    bits = (Y > 0).astype(int)
    for labels, given in (((0, 1), bits), ((False, True), bits.astype(bool)), ((2, 5), 2 + 3 * bits)):

        def converts(w, b, x, y, positive=labels[1]):
            return gradient(w, b, x, np.where(y == positive, 1.0, -1.0))

        assert jh.diagnose(converts, (W, 0.3), X, given, l2=L2, labels=labels).ok
    assert jh.diagnose(gradient, (W, 0.3), X, bits, l2=L2, labels=(0, 1)).cause == "labels_zero_one"
    with pytest.raises(ValueError, match="y must hold the stated labels"):
        jh.diagnose(gradient, (W, 0.3), X, Y, labels=(0, 1))
    with pytest.raises(ValueError, match="labels must be"):
        jh.diagnose(gradient, (W, 0.3), X, bits, labels=(0, 1, 2))

    @jax.jit
    def from_one(w, b, x, y):
        return jax.grad(jh.loss)((w, b), x, y - 1, l2=L2, loss_fn=jh.losses.weston_watkins_loss)

    options = {"l2": L2, "loss_fn": jh.losses.weston_watkins_loss, "labels": range(1, 4)}
    assert jh.diagnose(from_one, (MATRIX, np.zeros(3)), X, CLASSES + 1, **options).ok


LOSSES = [
    (jh.losses.squared_hinge_loss, Y),
    (functools.partial(jh.losses.smooth_hinge_loss, width=0.5), Y),
    (jh.losses.perceptron_loss, Y),
    (functools.partial(jh.losses.epsilon_insensitive_loss, epsilon=0.3), TARGETS),
    (jh.losses.squared_epsilon_insensitive_loss, TARGETS),
    (functools.partial(jh.losses.pinball_loss, quantile=0.8), TARGETS),
    (jh.losses.one_vs_rest_hinge_loss, CLASSES),
]


@pytest.mark.parametrize(("loss_fn", "y"), LOSSES)
def test_every_loss_of_linear_scores(loss_fn, y):
    params = (MATRIX, np.full(3, 0.1)) if y is CLASSES else (W, 0.3)

    @jax.jit
    def grad_fn(w, b, x, y, l2=L2):
        return jax.value_and_grad(jh.loss)((w, b), x, y, l2=l2, loss_fn=loss_fn)

    right = jh.diagnose(grad_fn, params, X, y, l2=L2, loss_fn=loss_fn)
    assert (right.ok, right.loss_ok) == (True, True)
    wrong = jh.diagnose(functools.partial(grad_fn, l2=0.0), params, X, y, l2=L2, loss_fn=loss_fn)
    assert (wrong.cause, wrong.loss_ok) == ("regularizer_missing", False)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data, penalty, n: data + penalty + 1, "too large by 1 for each row"),
        (lambda data, penalty, n: data * n + penalty, "its data term is the sum over the rows"),
        (lambda data, penalty, n: data, "the regulariser is missing from it"),
        (lambda data, penalty, n: data + 2 * penalty, "its regulariser is 2 times the right one"),
        (lambda data, penalty, n: np.exp(data), "is right (your params"),
    ],
)
def test_the_loss_beside_a_right_gradient_is_judged(change, told):
    def grad_fn(w, b, x, y):
        data, penalty = np.maximum(0, 1 - y * (x @ w + b)).mean(), L2 / 2 * w @ w
        return change(data, penalty, len(y)), *gradient(w, b, x, y)

    diagnosis = jh.diagnose(grad_fn, (W, 0.3), X, Y, l2=L2)
    assert (diagnosis.ok, diagnosis.loss_ok) == (True, False)
    assert told in diagnosis.findings[-1] or ("is right (" in told and "is right (" in diagnosis.findings[-1])
    assert str(diagnosis).startswith("RIGHT GRADIENT, WRONG LOSS")


def test_the_measured_push_is_shown_where_no_cause_fits():
    from matplotlib import pyplot

    def steep(w, b, x, y):
        m = y * (x @ w + b)
        push = -y * np.where(m < -0.3, 2.0, np.where(m < 1, 1.5, 0.0)) / len(y)
        return x.T @ push + L2 * w, push.sum()

    diagnosis = jh.diagnose(steep, (W, 0.3), X, Y, l2=L2)
    assert diagnosis.cause == "unknown"
    assert re.search(r"margin +your function +right\n(.*\n)* +-1 +2 +1\n", str(diagnosis))
    figure = diagnosis.plot()
    assert figure.axes[0].get_xlabel() == "margin"
    pyplot.close(figure)


def test_rows_that_are_mixed_are_told():
    def softened_together(w, b, x, y):
        margin = y * (x @ w + b)
        push = -y * (margin < 1) * (1 + 0.1 * np.ptp(margin)) / len(y)
        return x.T @ push + L2 * w, push.sum()

    findings = jh.diagnose(softened_together, (W, 0.3), X, Y, l2=L2).findings
    assert any("Each of two rows alone has the right gradient" in told for told in findings)


def test_the_callers_own_line_is_quoted():
    def fails(w, b, x, y):
        return np.linalg.solve(np.zeros((2, 2)), np.ones(2))

    assert 'return np.linalg.solve(np.zeros((2, 2)), np.ones(2))")' in jh.diagnose(fails, (W, 0.3), X, Y).findings[0]

    def strict(w, b, x, y):
        active = y * (x @ w + b) < 0
        return -(y * active) @ x / len(y) + L2 * w, -(y * active).mean()

    assert any("active = y * (x @ w + b) < 0" in told for told in jh.diagnose(strict, (W, 0.3), X, Y, l2=L2).findings)


def test_a_loss_gets_the_line_of_a_loss():
    def summed(w, b, x, y):
        return np.maximum(0, 1 - y * (x @ w + b)).sum() + L2 / 2 * w @ w

    diagnosis = jh.diagnose_loss(summed, (W, 0.3), X, Y, l2=L2)
    assert diagnosis.mends == ("loss = np.maximum(0, 1 - margin).mean()   # not .sum()",)


def test_nothing_compiles_for_a_numpy_function(caplog):
    def loss(w, b, x, y):
        return np.maximum(0, 1 - y * (x @ w + b)).mean() + L2 / 2 * w @ w

    with jax.log_compiles(), caplog.at_level("WARNING"):
        assert jh.diagnose(gradient, (W, 0.3), X, Y, l2=L2).ok
        assert jh.diagnose_loss(loss, (W, 0.3), X, Y, l2=L2).ok
        assert jh.diagnose_loss(lambda *args: 2 * loss(*args), (W, 0.3), X, Y, l2=L2).cause == "everything_scaled"
    assert not [record for record in caplog.records if "ompil" in record.getMessage()]


def tube(epsilon=0.1, sign=1.0, squared=0.0, l2=L2):
    def grad_fn(w, b, x, y):
        r = y - x @ w - b
        size = squared * np.maximum(abs(r) - epsilon, 0) if squared else abs(r) > epsilon
        push = -sign * np.sign(r) * size / len(y)
        return x.T @ push + l2 * w, push.sum()

    return grad_fn


def tilted(w, b, x, y):
    """The pinball loss of 0.2, which is that of 0.8 with the residual the other way round."""
    push = np.where(y - x @ w - b > 0, -0.2, 0.8) / len(y)
    return x.T @ push + L2 * w, push.sum()


@pytest.mark.parametrize(
    ("function", "loss_fn", "cause"),
    [
        (tube(), jh.losses.epsilon_insensitive_loss, "none"),
        (tube(sign=-1.0), jh.losses.epsilon_insensitive_loss, "sign_flipped"),
        (tube(epsilon=0.5), jh.losses.epsilon_insensitive_loss, "wrong_margin"),
        (tube(squared=2.0), jh.losses.epsilon_insensitive_loss, "squared_epsilon_insensitive"),
        (tube(squared=2.0), jh.losses.squared_epsilon_insensitive_loss, "none"),
        (tube(squared=1.0), jh.losses.squared_epsilon_insensitive_loss, "data_scaled"),
        (tube(), jh.losses.squared_epsilon_insensitive_loss, "epsilon_insensitive"),
        (tilted, functools.partial(jh.losses.pinball_loss, quantile=0.2), "none"),
        (tilted, functools.partial(jh.losses.pinball_loss, quantile=0.8), "residual_sign_flipped"),
    ],
)
def test_gradients_of_a_regression(function, loss_fn, cause):
    assert jh.diagnose(function, (W, 0.3), X, TARGETS, l2=L2, loss_fn=loss_fn).cause == cause


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_float32_is_excused_alike_whatever_the_unit_of_the_weights(unit):
    weight = unit * np.random.default_rng(3).uniform(0.5, 2.0, size=len(X))

    def in_float32(w, b, x, y, sample_weight, l2=L2):
        w, b, x, y, c = (np.asarray(part, np.float32) for part in (w, b, x, y, sample_weight))
        push = -y * c * (y * (x @ w + b) < 1) / c.sum()
        return x.T @ push + np.float32(l2) * w, push.sum()

    assert jh.diagnose(in_float32, (W, 0.3), X, Y, l2=L2, sample_weight=weight).ok
    wrong = functools.partial(in_float32, l2=0.0)
    assert jh.diagnose(wrong, (W, 0.3), X, Y, l2=L2, sample_weight=weight).cause == "regularizer_missing"
