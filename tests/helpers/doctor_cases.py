"""Wrong gradients and losses that people really wrote, re-written small, and what the doctor should call them.

Every entry is a `Case`; `PROBLEMS` are the two kinds of data: Gaussian, and integers with a quarter of the rows on the
kink.
"""

from typing import Any, NamedTuple

import numpy as np

import jaxhinge as jh

L2 = 0.05
CASES = []
MULTICLASS = (jh.losses.weston_watkins_loss, jh.losses.multiclass_hinge_loss, jh.losses.one_vs_rest_hinge_loss)


class Case(NamedTuple):
    """A function, the cause that a reader would name, and what is stated to the doctor."""

    name: str
    function: Any
    cause: str
    options: dict[str, Any]
    is_loss: bool


def case(cause, *, loss=False, **options):
    def register(function):
        CASES.append(Case(function.__name__, function, cause, {"l2": L2} | options, loss))
        return function

    return register


def gaussian(n=40, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=d) / np.sqrt(d), 0.4), rng.normal(size=(n, d)), np.where(rng.random(n) < 0.4, -1.0, 1.0)


def integers(n=40, d=3, seed=0):
    """Whole numbers; a quarter of the rows is moved onto the kink by its first feature, whose weight is 1."""
    rng = np.random.default_rng(seed)
    w, b = np.array([1.0, *rng.integers(-1, 2, size=d - 1)]), 1.0
    x, y = rng.integers(-3, 4, size=(n, d)).astype(float), np.where(rng.random(n) < 0.4, -1.0, 1.0)
    x[: n // 4, 0] += (y - (x @ w + b))[: n // 4]
    return (w, b), x, y


def gaussian_classes(n=40, d=3, k=4, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.integers(k, size=n)
    return (rng.normal(size=(d, k)) / np.sqrt(d), 0.3 * rng.normal(size=k)), x, y


def integer_classes(n=40, d=3, k=4, seed=0):
    """Whole numbers, so that many margins between classes are exactly 0 or 1."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-2, 3, size=(n, d)).astype(float), rng.integers(k, size=n)
    return (rng.integers(-1, 2, size=(d, k)).astype(float), np.zeros(k)), x, y


def problems(one):
    """The two kinds of data for this case, in the form that it takes them."""
    if one.options.get("loss_fn") in MULTICLASS:
        return gaussian_classes(), integer_classes()
    found = []
    for (w, b), x, y in (gaussian(), integers()):
        params = w if one.options.get("fit_intercept") is False else (w, b)
        found.append((params, x, (y > 0).astype(int) if "labels" in one.options else y))
    return found


WW, CS = {"loss_fn": jh.losses.weston_watkins_loss}, {"loss_fn": jh.losses.multiclass_hinge_loss}


def parts(w, b, x, y):
    m = y * (x @ w + b)
    act = m < 1
    return m, act, -y * act, len(y)


# Scales.


@case("everything_scaled")
def form_with_c(w, b, x, y):
    _, _, p, n = parts(w, b, x, y)
    C = 1 / (L2 * n)
    return w + C * (x.T @ p), C * p.sum()


@case("everything_scaled")
def form_with_a_fixed_c(w, b, x, y, C=1 / (L2 * 40)):
    _, _, p, _ = parts(w, b, x, y)
    return w + C * (x.T @ p), C * p.sum()


@case("bias_scaled")
def bias_twice(w, b, x, y):
    _, _, p, n = parts(w, b, x, y)
    return x.T @ p / n + L2 * w, 2 * p.mean()


@case("data_scaled")
def batch_size_fixed(w, b, x, y):
    _, _, p, _ = parts(w, b, x, y)
    return x.T @ p / 32 + L2 * w, p.sum() / 32


@case("regularizer_scaled")
def penalty_of_the_mean_square(w, b, x, y):
    _, _, p, n = parts(w, b, x, y)
    return x.T @ p / n + L2 * 2 * w / len(w), p.mean()


@case("regularizer_scaled", loss=True)
def loss_with_the_mean_square(w, b, x, y):
    return np.maximum(0, 1 - y * (x @ w + b)).mean() + L2 * np.mean(w**2)


# Signs.


@case("score_sign_flipped")
def one_plus_margin(w, b, x, y):
    m, _, _, n = parts(w, b, x, y)
    push = y * (1 + m > 0)
    return x.T @ push / n + L2 * w, push.mean()


@case("one_minus_missing", loss=True)
def bare_margin(w, b, x, y):
    return np.mean(np.maximum(0, y * (x @ w + b))) + L2 / 2 * w @ w


@case("rival_sign_flipped", **WW)
def minus_both(w, b, x, y):
    s, rows = x @ w + b, np.arange(len(y))
    z = 1 - s[rows, y][:, None] - s
    push = -1.0 * (z > 0)
    push[rows, y] = 0
    push[rows, y] = push.sum(axis=1)
    return x.T @ push / len(y) + L2 * w, push.mean(axis=0)


@case("rival_sign_flipped", loss=True, **WW)
def loss_minus_both(w, b, x, y):
    s, rows = x @ w + b, np.arange(len(y))
    z = np.maximum(0, 1 - s[rows, y][:, None] - s)
    z[rows, y] = 0
    return z.sum() / len(y) + L2 / 2 * np.sum(w * w)


# Aggregates.


@case("margins_summed", loss=True)
def hinge_of_the_dot_product(w, b, x, y):
    return max(0.0, 1 - y @ (x @ w + b)) + L2 / 2 * w @ w


@case("margins_summed")
def one_mask_for_all(w, b, x, y):
    on = 1 - y @ (x @ w + b) > 0
    return -(y @ x) * on + L2 * w, -y.sum() * on


@case("max_over_rows", loss=True)
def max_with_axis_zero(w, b, x, y):
    return np.max(1 - y * (x @ w + b), 0) + L2 / 2 * w @ w


# The chain rule, and the margin.


@case("value_left_in_slope")
def score_left(w, b, x, y):
    _, act, _, n = parts(w, b, x, y)
    push = -((x @ w + b) * y) * act
    return x.T @ push / n + L2 * w, push.mean()


@case("label_missing_from_bias")
def label_on_the_rows_only(w, b, x, y):
    p = -y * ((y[:, None] * x) @ w + b < 1)
    return x.T @ p / len(y) + L2 * w, p.mean()


@case("label_missing_from_bias", loss=True)
def loss_with_the_label_on_the_rows_only(w, b, x, y):
    return np.maximum(0, 1 - ((y[:, None] * x) @ w + b)).mean() + L2 / 2 * w @ w


# Another loss, and the column of the label.


@case("one_vs_rest", **WW)
def a_hinge_for_each_class(w, b, x, y):
    s = x @ w + b
    t = -np.ones_like(s)
    t[np.arange(len(y)), y] = 1
    push = -t * (t * s < 1)
    return x.T @ push / len(y) + L2 * w, push.mean(axis=0)


@case("label_column_overwritten", **CS)
def argmax_overwrites_the_label(w, b, x, y):
    dw, db = L2 * w, np.zeros_like(b)
    for xi, yi in zip(x, y, strict=True):
        s = xi @ w + b
        g = np.zeros_like(s)
        g[yi] = -1
        g[s.argmax()] = 1
        dw = dw + np.outer(xi, g) / len(y)
        db += g / len(y)
    return dw, db


@case("label_pushed_by_every_row", **WW)
def label_gets_minus_one(w, b, x, y):
    s, rows = x @ w + b, np.arange(len(y))
    push = (s - s[rows, y][:, None] + 1 > 0) * 1.0
    push[rows, y] = -1
    return x.T @ push / len(y) + L2 * w, push.mean(axis=0)


@case("rival_floored_at_zero", loss=True, **CS)
def label_masked_with_zero(w, b, x, y):
    s, rows = x @ w + b, np.arange(len(y))
    others = s.copy()
    others[rows, y] = 0
    return np.maximum(0, 1 + others.max(axis=1) - s[rows, y]).mean() + L2 / 2 * np.sum(w * w)


# State.


@case("regularizer_skipped")
def nothing_to_do(w, b, x, y):
    _, act, p, n = parts(w, b, x, y)
    if not act.any():
        return 0 * w, 0.0
    return x.T @ p / n + L2 * w, p.mean()


@case("sum_reset_by_satisfied_row")
def else_zero(w, b, x, y):
    gw, gb = 0 * w, 0.0
    for xi, yi in zip(x, y, strict=True):
        if yi * (xi @ w + b) < 1:
            gw, gb = gw - yi * xi, gb - yi
        else:
            gw = 0 * w
            gb = 0.0
    return gw / len(y) + L2 * w, gb / len(y)


# Not finite at one point, and wrong at the others.


@case("not_averaged+not_finite+regularizer_norm_not_squared")
def norm_of_zero(w, b, x, y):
    _, _, p, _ = parts(w, b, x, y)
    return x.T @ p + L2 * w / np.linalg.norm(w), p.sum()


@case("not_finite+threshold_at_zero")
def norm_that_cancels(w, b, x, y):
    p = -y * (y * (x @ w + b) < 0)
    return x.T @ p / len(y) + L2 * w / np.linalg.norm(w) * np.linalg.norm(w), p.mean()


# Kinks at another margin, and zeros.


@case("wrong_margin", loss=True)
def margin_of_two(w, b, x, y):
    return np.maximum(0, 2 - y * (x @ w + b)).mean() + L2 / 2 * w @ w


@case("wrong_margin")
def margin_of_a_half(w, b, x, y):
    p = -y * (y * (x @ w + b) < 0.5)
    return x.T @ p / len(y) + L2 * w, p.mean()


@case("kink_tolerance_too_wide")
def gradient_with_a_margin_of_two(w, b, x, y):
    p = -y * (y * (x @ w + b) < 2)
    return x.T @ p / len(y) + L2 * w, p.mean()


@case("gradient_zero")
def zeros(w, b, x, y):
    return np.zeros_like(w), 0.0


@case("gradient_zero", loss=True)
def loss_of_other_params(w, b, x, y):
    w, b = np.ones(x.shape[1]), 0.5
    return np.maximum(0, 1 - y * (x @ w + b)).mean() + L2 / 2 * w @ w
