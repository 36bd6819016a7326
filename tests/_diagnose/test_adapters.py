"""Functions with other arguments: CS231n's, a folded bias, columns, classes first, row by row, and torch modules."""

import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhinge as jh

L2 = 0.1
RNG = np.random.default_rng(1)
X, W = RNG.normal(size=(30, 4)), RNG.normal(size=4)
Y = np.where(RNG.random(30) < 0.4, -1.0, 1.0)
CLASSES, MATRIX = RNG.integers(3, size=30), RNG.normal(size=(4, 3))
WW = {"l2": L2, "loss_fn": jh.losses.weston_watkins_loss}


def gradient(w, b, x, y):
    push = -y * (y * (x @ w + b) < 1) / len(y)
    return x.T @ push + L2 * w, push.sum()


def svm_loss_naive(W, X, y, reg):
    dW, loss = np.zeros(W.shape), 0.0
    for i in range(X.shape[0]):
        scores = X[i].dot(W)
        for j in range(W.shape[1]):
            margin = scores[j] - scores[y[i]] + 1
            if j != y[i] and margin > 0:
                loss += margin
                dW[:, j] += X[i]
                dW[:, y[i]] -= X[i]
    return loss / len(X) + reg * np.sum(W * W), dW / len(X) + 2 * reg * W


def test_the_function_of_the_course_with_its_column_of_ones():
    asked = jh.adapt_arguments(svm_loss_naive, "W X y reg", reg=L2 / 2)
    params, x = np.vstack([MATRIX, np.zeros(3)]), np.c_[X, np.ones(30)]
    diagnosis = jh.diagnose(asked, params, x, CLASSES, fit_intercept=False, **WW)
    assert (diagnosis.ok, diagnosis.loss_ok) == (True, True)
    doubled = jh.adapt_arguments(svm_loss_naive, "W X y reg", reg=L2)
    assert jh.diagnose(doubled, MATRIX, X, CLASSES, fit_intercept=False, **WW).cause == "regularizer_doubled"
    folded = jh.adapt_arguments(svm_loss_naive, "W X y reg", bias="last", reg=L2 / 2)
    params = MATRIX, np.array([0.1, 0.0, -0.2])
    assert jh.diagnose(folded, params, X, CLASSES, fit_intercept="regularized", **WW).ok


@pytest.mark.parametrize("bias", ["first", "last"])
def test_a_folded_bias(bias):
    place = 0 if bias == "first" else -1

    def folded(theta, z, y):
        assert np.all(z[:, place] == 1)
        g = -z.T @ (y * (y * (z @ theta) < 1)) / len(y) + L2 * theta
        g[place] -= L2 * theta[place]
        return g

    @jax.jit
    def loss(theta, z, y):
        return jnp.maximum(0, 1 - y * (z @ theta)).mean() + L2 / 2 * (theta**2).sum() - L2 / 2 * theta[place] ** 2

    assert jh.diagnose(jh.adapt_arguments(folded, "w x y", bias=bias), (W, 0.3), X, Y, l2=L2).ok
    assert jh.diagnose_loss(jh.adapt_arguments(loss, "w x y", bias=bias), (W, 0.3), X, Y, l2=L2).ok


def test_columns_order_classes_first_and_row_by_row():
    columns = jh.adapt_arguments(lambda w, b, x, y: gradient(w, b, x, y[:, 0]), column_labels=True)
    swapped = jh.adapt_arguments(lambda x, y, w, b: gradient(w, b, x, y), "x y w b")
    single = jh.adapt_arguments(lambda w, b, x, y: gradient(w, b, x[None], np.array([y])), row_by_row=True)
    for function in (columns, swapped, single):
        assert jh.diagnose(function, (W, 0.3), X, Y, l2=L2).ok
    classes_first = jh.adapt_arguments(
        lambda W, X, y: tuple(part.T for part in svm_loss_naive(W.T, X, y, L2 / 2)[1:]), "w x y", classes_first=True
    )
    assert jh.diagnose(classes_first, MATRIX, X, CLASSES, fit_intercept=False, **WW).ok


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (
            lambda: jh.diagnose(svm_loss_naive, MATRIX, X, CLASSES, **WW),
            'adapt_arguments(svm_loss_naive, "w x y reg", reg=...), W, X, y, fit_intercept=False',
        ),
        (lambda: jh.diagnose(gradient, (W, 0.3), X, Y[:, None]), "adapt_arguments(gradient, "),
        (lambda: jh.diagnose(svm_loss_naive, (MATRIX.T, np.zeros(4)), np.c_[X, X][:, :4], CLASSES, **WW), "w.T"),
    ],
)
def test_the_error_for_the_raw_function_shows_the_line_that_adapts_it(call, line):
    with pytest.raises((TypeError, ValueError), match=re.escape(line)):
        call()


def test_a_raw_function_that_raises_is_shown_its_line():
    diagnosis = jh.diagnose(svm_loss_naive, (MATRIX, np.zeros(3)), X, CLASSES, **WW)
    assert diagnosis.cause == "raised"
    assert 'jaxhinge.adapt_arguments(svm_loss_naive, "w x y reg", reg=...)' in diagnosis.findings[0]
    # In the report it stays one line, to be copied.
    assert '\n    jaxhinge.diagnose(jaxhinge.adapt_arguments(svm_loss_naive, "w x y reg", reg=...), W, X, y' in str(
        diagnosis
    )


def one_row(w, b, x, y):
    return (-y * x, -y) if y * (x @ w + b) < 1 else (0 * w, 0.0)


def of_a_tuple(params, x, y):
    return gradient(*params, x, y)


def cost(theta, X, y, lam):
    return np.maximum(0, 1 - y * (X @ theta)).mean() + lam / 2 * theta @ theta


@pytest.mark.parametrize(
    ("judge", "function", "line"),
    [
        (
            jh.diagnose,
            one_row,
            'jaxhinge.diagnose(jaxhinge.adapt_arguments(one_row, "w b x y", row_by_row=True), (w, b)',
        ),
        (jh.diagnose, of_a_tuple, "jaxhinge.diagnose(lambda w, b, x, y: of_a_tuple((w, b), x, y), (w, b), X, y, ...)"),
        (
            jh.diagnose_loss,
            cost,
            "jaxhinge.diagnose_loss(jaxhinge.adapt_arguments(cost, \"w x y lam\", bias='last', lam=",
        ),
        (jh.diagnose_loss, gradient, "give a function that returns its gradient as well to jaxhinge.diagnose"),
    ],
)
def test_what_is_shown_to_those_who_pass_what_they_have(judge, function, line):
    assert line in judge(function, (W, 0.3), X, Y).findings[0]


@pytest.mark.parametrize("arguments", ["w x", "w b x y reg", "x y"])
def test_arguments_that_do_not_fit_are_refused(arguments):
    with pytest.raises(ValueError, match="arguments must be names among"):
        jh.adapt_arguments(gradient, arguments)
    with pytest.raises(TypeError, match="function must be a function"):
        jh.adapt_arguments(3.0)


if importlib.util.find_spec("torch") is not None:
    import torch

    @pytest.mark.parametrize("bias", [True, False])
    def test_a_torch_module_with_its_loss(bias):
        module = torch.nn.Linear(4, 1, bias=bias)
        before = [one.detach().clone() for one in module.parameters()]

        def loss(output, y):
            penalty = L2 / 2 * module.weight.square().sum()
            return torch.relu(1 - y * output.squeeze(1)).mean() + penalty

        asked = jh.module_gradient(module, loss)
        params = (W, 0.3) if bias else W
        diagnosis = jh.diagnose(asked, params, X, Y, l2=L2, fit_intercept=bias)
        assert (diagnosis.ok, diagnosis.loss_ok, diagnosis.precision) == (True, True, "float32")
        broadcast = jh.module_gradient(module, lambda output, y: torch.relu(1 - y * output).mean())
        assert jh.diagnose(broadcast, params, X, Y, fit_intercept=bias).cause == "broadcast_n_by_n"
        for one, then in zip(module.parameters(), before, strict=True):
            assert torch.equal(one, then)

    def test_a_torch_module_of_classes():
        module = torch.nn.Linear(4, 3).double()
        asked = jh.module_gradient(module, torch.nn.MultiMarginLoss())
        params = MATRIX, np.zeros(3)
        assert jh.diagnose(asked, params, X, CLASSES, loss_fn=WW["loss_fn"]).cause == "averaged_over_classes"
        with pytest.raises(ValueError, match="one matrix of weights"):
            jh.module_gradient(torch.nn.Sequential(module, torch.nn.Linear(3, 3)), abs)


def test_the_loss_alone_is_told_from_a_gradient_of_a_model_without_a_bias():
    found = jh.diagnose(
        lambda w, x, y: svm_loss_naive(w, x, y, L2 / 2)[0], MATRIX, X, CLASSES, fit_intercept=False, **WW
    )
    assert found.cause == "wrong_shape"
    assert "one number, perhaps the loss alone" in str(found.findings)
    assert "return dw of shape (4, 3), or (loss, dw)" in str(found.findings)


def test_classes_with_the_loss_of_two_are_shown_the_loss_of_the_course():
    with pytest.raises(ValueError, match=r"weston_watkins_loss, .* \(as in CS231n\)"):
        jh.diagnose(lambda w, x, y: w, MATRIX, X, CLASSES, fit_intercept=False)
