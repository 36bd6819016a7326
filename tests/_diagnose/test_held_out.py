"""Functions written before the recipes were read: their causes by a reader's names, and what careless users pass."""

import functools

import numpy as np
import pytest
import scipy.sparse

import jaxhinge as jh

L2, N, D, K = 0.1, 24, 4, 4
TUBE = functools.partial(jh.losses.epsilon_insensitive_loss, epsilon=0.5)
SQUARED_TUBE = functools.partial(jh.losses.squared_epsilon_insensitive_loss, epsilon=0.5)
WW, CS = jh.losses.weston_watkins_loss, jh.losses.multiclass_hinge_loss
CASES = []


def case(cause, *, adapt=None, **options):
    def register(function):
        CASES.append((cause, function, adapt, options))
        return function

    return register


def params_and_rows(kind, integers):
    """Gaussian rows, or integers with a quarter of the rows on the kink."""
    rng = np.random.default_rng(7)
    x = rng.integers(-3, 4, size=(N, D)).astype(float) if integers else rng.normal(size=(N, D))
    if kind == "classes":
        draw = (
            (lambda *size: rng.integers(-1, 2, size).astype(float))
            if integers
            else (lambda *size: rng.normal(0, 1, size))
        )
        return (draw(D, K), draw(K)), x, np.arange(N) % K
    w, b = (np.array([1.0, -1.0, 0.0, 2.0]), 1.0) if integers else (rng.normal(size=D), 0.3)
    y = np.where(rng.random(N) < 0.5, -1, 1)
    if integers:
        x[::4, 0] += y[::4] - (x[::4] @ w + b)
    if kind == "residuals":
        y = x @ w + b + (rng.integers(-3, 4, N) * 0.5 if integers else rng.normal(size=N))
    return (w, b), x, y


@case("bias_scaled", C=2.0)
def c_on_the_weights_only(w, b, x, y):
    dw, db = w.copy(), 0.0
    for xi, yi in zip(x, y, strict=True):
        if 1 - yi * (xi @ w + b) > 0:
            dw -= 2.0 * yi * xi
            db -= yi
    return dw, db


@case("regularizer_skipped", l2=L2, adapt={"row_by_row": True})
def penalty_in_the_branch(w, b, xi, yi):
    if yi * (np.inner(w, xi) + b) >= 1:
        return np.zeros_like(w), 0.0
    return L2 * w - yi * xi, -yi


@case("score_sign_flipped", l2=L2, labels=(0, 1))
def labels_converted_backwards(w, b, x, y):
    t = 1 - 2 * y
    active = t * (x @ w + b) < 1
    return -np.einsum("n,nd->d", t * active, x) / len(y) + L2 * w, -np.sum(t * active) / len(y)


@case("broadcast_n_by_n", l2=L2, adapt={"column_labels": True})
def column_against_row(w, b, x, y):
    push = -y * (y * (x @ w + b) < 1)
    return (x.T @ push).mean(axis=1) / len(x) + L2 * w, push.mean()


@case("loop_left_too_early", l2=L2)
def break_for_continue(w, b, x, y):
    gw, gb = [0.0] * len(w), 0.0
    for xi, yi in zip(x.tolist(), y.tolist(), strict=True):
        if yi * (sum(u * v for u, v in zip(xi, w, strict=True)) + b) >= 1:
            break
        gw = [g - yi * v / len(y) for g, v in zip(gw, xi, strict=True)]
        gb -= yi / len(y)
    return [g + L2 * wi for g, wi in zip(gw, w, strict=True)], gb


@case("not_averaged+squared_hinge", l2=L2)
def squared_and_summed(w, b, x, y):
    z = np.maximum(1 - y * (np.dot(x, w) + b), 0)
    return -2 * np.dot(x.T, y * z) + L2 * w, -2 * np.sum(y * z)


@case("label_count_forgotten", l2=L2, loss_fn=WW)
def label_pushed_once(W, b, x, y):
    dW, db = L2 * W, np.zeros(K)
    for xi, t in zip(x, y, strict=True):
        rivals = [j for j in range(K) if j != t and (xi @ W + b)[j] - (xi @ W + b)[t] + 1 > 0]
        for j in rivals:
            dW[:, j] += xi / len(y)
            db[j] += 1 / len(y)
        if rivals:
            dW[:, t] -= xi / len(y)
            db[t] -= 1 / len(y)
    return dW, db


@case("mask_missing", l2=L2, loss_fn=CS)
def rival_pushed_by_every_row(W, b, x, y):
    onehot = np.eye(K)[y]
    rival = np.argmax(np.where(onehot == 1, -np.inf, x @ W + b), axis=1)
    push = np.eye(K)[rival] - onehot
    return np.einsum("nd,nk->dk", x, push) / len(y) + L2 * W, push.mean(axis=0)


@case("wrong_margin", l2=L2, loss_fn=TUBE)
def no_tube(w, b, x, y):
    push = np.sign(x @ w + b - y)
    return x.T @ push / len(y) + L2 * w, push.mean()


@case("not_averaged+wrong_margin", l2=L2, loss_fn=TUBE)
def narrow_tube_summed(w, b, x, y):
    r = x @ w + b - y
    push = np.where(r > 0.1, 1.0, 0.0) - np.where(r < -0.1, 1.0, 0.0)
    return x.T @ push + L2 * w, push.sum()


@case("wrong_margin", l2=L2, loss_fn=SQUARED_TUBE)
def least_squares(w, b, x, y):
    r = x @ w + b - y
    return 2 * x.T @ r / len(r) + L2 * w, 2 * r.mean()


@pytest.mark.parametrize("integers", [False, True], ids=["gaussian", "integers"])
@pytest.mark.parametrize("one", CASES, ids=[one[1].__name__ for one in CASES])
def test_the_cause_is_the_one_that_its_author_had_in_mind(one, integers):
    cause, function, adapt, options = one
    loss_fn = options.get("loss_fn")
    kind = "classes" if loss_fn in (WW, CS) else "residuals" if loss_fn in (TUBE, SQUARED_TUBE) else "rows"
    params, x, y = params_and_rows(kind, integers)
    y = (y + 1) // 2 if "labels" in options else y
    asked = function if adapt is None else jh.adapt_arguments(function, **adapt)
    assert jh.diagnose(asked, params, x, y, **options).cause == cause


def test_another_tube_is_told_with_its_width():
    params, x, y = params_and_rows("residuals", integers=False)
    found = jh.diagnose(no_tube, params, x, y, l2=L2, loss_fn=TUBE)
    assert found.findings[0] == "The tube ends at a residual of 0; it should end at epsilon = 0.5."
    assert found.mends == ("active = abs(y - scores) > 0.5",)


def test_a_loss_of_residuals_is_mended_in_their_words():
    def summed(w, b, x, y):
        return np.maximum(0, abs(x @ w + b - y) - 0.5).sum() + L2 / 2 * w @ w

    params, x, y = params_and_rows("residuals", integers=False)
    found = jh.diagnose_loss(summed, params, x, y, l2=L2, loss_fn=TUBE)
    assert found.cause == "not_averaged"
    assert found.mends[0].startswith("loss = np.maximum(0, abs(r) - 0.5).mean()")


def right(w, b, x, y):
    active = y * (y * (x @ w + b) < 1)
    return L2 * w - x.T @ active / len(y), -active.mean()


class Tensor:
    """An array of a framework, of whose methods NumPy needs one only."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def detach(self):
        return self

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


def test_arrays_of_other_frameworks_are_read():
    params, x, y = params_and_rows("rows", integers=False)
    assert jh.diagnose(lambda *args: tuple(map(Tensor, right(*args))), params, x, y, l2=L2).ok


@pytest.mark.parametrize(
    ("function", "is_loss", "told"),
    [
        (lambda w, b, x, y: None, True, "It returned None"),
        (lambda w, b, x, y: "0.3", True, "The loss is not an array of real numbers but str"),
        (lambda w, b, x, y: ([None] * len(w), 0.0), False, "it holds None"),
    ],
    ids=["loss_none", "loss_str", "none_in_dw"],
)
def test_what_is_no_number_has_the_wrong_shape(function, is_loss, told):
    params, x, y = params_and_rows("rows", integers=False)
    found = (jh.diagnose_loss if is_loss else jh.diagnose)(function, params, x, y, l2=L2)
    assert found.cause == "wrong_shape"
    assert told in str(found).replace("\n", " ")


def test_a_result_that_never_changes_is_told_so():
    params, x, y = params_and_rows("rows", integers=False)
    first = right(*params, x, y)
    found = jh.diagnose(lambda w, b, x, y: first, params, x, y, l2=L2)
    assert found.cause == "unknown"
    assert any("The same gradient comes back at every point" in line for line in found.findings)


def with_keyword(w, b, x, y, *, lam):
    return right(w, b, x, y)


def of_a_pair(p, X, y):
    return right(*p, X, y)


def of_one_row(w, b, xi, yi):
    return (-yi * xi, -yi) if yi * (np.dot(w, xi) + b) < 1 else (0 * w, 0.0)


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (with_keyword, 'jaxhinge.adapt_arguments(with_keyword, "w b x y", lam=...)'),
        (of_a_pair, "lambda w, b, x, y: of_a_pair((w, b), x, y)"),
        (of_one_row, 'jaxhinge.adapt_arguments(of_one_row, "w b x y", row_by_row=True)'),
    ],
)
def test_the_line_that_adapts_is_shown(function, line):
    params, x, y = params_and_rows("rows", integers=False)
    found = jh.diagnose(function, params, x, y, l2=L2)
    assert found.cause == "raised"
    assert any(line in finding for finding in found.findings)


def test_four_arguments_without_a_bias_are_not_taken_for_one_with():
    def svm_loss(W, X, y, reg):
        return 0.0, np.zeros_like(W)

    (W, _), x, y = params_and_rows("classes", integers=False)
    found = jh.diagnose(svm_loss, W, x, y, l2=L2, fit_intercept=False, loss_fn=WW)
    assert found.cause == "raised"
    assert 'jaxhinge.adapt_arguments(svm_loss, "w x y reg", reg=...)' in found.findings[0]


def test_weights_with_classes_first_are_recognised_by_a_call():
    def classes_first(W, b, X, y):
        scores = X @ W.T + b
        return (scores > 0).T @ X, scores.mean(axis=0)

    (W, b), x, y = params_and_rows("classes", integers=False)
    found = jh.diagnose(classes_first, (W[:, :3], b[:3]), x, y % 3, l2=L2, loss_fn=WW)
    assert found.cause == "raised"
    assert 'jaxhinge.adapt_arguments(classes_first, "w b x y", classes_first=True)' in found.findings[0]


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"x": np.zeros((0, D)), "y": np.zeros(0)}, ValueError, "There must be a row"),
        ({"params": {"w": np.ones(D), "b": 0.0}}, TypeError, "got a dict of w, b"),
        ({"params": (np.ones((D, 2)), np.zeros(2)), "y": np.eye(2)[[0, 1] * 12], "loss_fn": WW}, ValueError, "argmax"),
    ],
    ids=["no_rows", "params_dict", "one_hot"],
)
def test_data_that_does_not_fit_is_refused_with_its_mend(change, error, told):
    params, x, y = params_and_rows("rows", integers=False)
    with pytest.raises(error, match=told):
        jh.diagnose(right, **({"params": params, "x": x, "y": y, "l2": L2} | change))


def test_sparse_rows_are_refused_with_their_mend():
    params, x, y = params_and_rows("rows", integers=False)
    with pytest.raises(TypeError, match=r"x\.toarray\(\)"):
        jh.diagnose(right, params, scipy.sparse.csr_matrix(x), y, l2=L2)
