"""A second set of gradients and losses in as many hands: the kinds that strangers' functions showed missing.

`STUDENTS` lists `doctor_cases.Case`s.
"""

import functools

import numpy as np
from helpers.doctor_cases import L2, Case

import jaxhinge as jh

STUDENTS = []
WW, CS = {"loss_fn": jh.losses.weston_watkins_loss}, {"loss_fn": jh.losses.multiclass_hinge_loss}
SQUARED = {"loss_fn": jh.losses.squared_hinge_loss}
SMOOTH = {"loss_fn": functools.partial(jh.losses.smooth_hinge_loss, width=0.5)}
NO_BIAS = {"fit_intercept": False}


def student(cause, *, loss=False, **options):
    def register(function):
        STUDENTS.append(Case(function.__name__, function, cause, {"l2": L2} | options, loss))
        return function

    return register


def pushes(w, b, x, y):
    return -y * (y * (x @ w + b) < 1) / len(y)


# Right, and returned in another order; or right numbers in one array.


@student("none")
def gradients_then_loss(w, b, x, y):
    p = pushes(w, b, x, y)
    return x.T @ p + L2 * w, p.sum(), np.maximum(0, 1 - y * (x @ w + b)).mean() + L2 / 2 * w @ w


@student("none")
def pair_then_loss(w, b, x, y):
    dw, db, loss = gradients_then_loss(w, b, x, y)
    return (dw, db), loss


@student("none")
class WithCache:
    """Forward keeps what backward needs, as courses teach it."""

    def __new__(cls, w, b, x, y):
        net = object.__new__(cls)
        return net.forward(w, b, x, y), *net.backward()

    def forward(self, w, b, x, y):
        self.w, self.x, self.y, self.margin = w, x, y, y * (np.einsum("ij,j->i", x, w) + b)
        return np.clip(1 - self.margin, 0, None).mean() + L2 / 2 * w @ w

    def backward(self):
        slope = np.where(self.margin < 1, -self.y, 0) / len(self.y)
        return np.einsum("i,ij->j", slope, self.x) + L2 * self.w, slope.sum()


@student("wrong_shape")
def one_array(w, b, x, y):
    p = pushes(w, b, x, y)
    return np.append(x.T @ p + L2 * w, p.sum())


@student("not_averaged+wrong_shape")
def one_array_with_the_bias_first(w, b, x, y):
    p = pushes(w, b, x, y) * len(y)
    return np.concatenate([[p.sum()], x.T @ p + L2 * w])


# Regularisers in the loop, and norms.


@student("regularizer_skipped")
def shrinks_with_each_violator(w, b, x, y):
    gw, gb = 0 * w, 0.0
    for row, label in zip(x, y, strict=True):
        if label * (row @ w + b) < 1:
            gw, gb = gw + L2 * w - label * row, gb - label
    return gw / len(y), gb / len(y)


@student("regularizer_skipped")
def shrinks_with_each_satisfied_row(w, b, x, y):
    gw, gb = 0 * w, 0.0
    for row, label in zip(x, y, strict=True):
        if label * (row @ w + b) >= 1:
            gw = gw + L2 * w
        else:
            gw, gb = gw - label * row, gb - label
    return gw / len(y), gb / len(y)


@student("not_averaged+regularizer_skipped")
def shrinks_with_each_violator_and_sums(w, b, x, y):
    gw, gb = shrinks_with_each_violator(w, b, x, y)
    return gw * len(y), gb * len(y)


@student("regularizer_norm_not_squared", loss=True)
def half_a_norm(w, b, x, y):
    return np.maximum(0, 1 - y * (x @ w + b)).mean() + L2 / 2 * np.linalg.norm(w)


@student("regularizer_l1", loss=True)
def half_the_absolute_values(w, b, x, y):
    return np.maximum(0, 1 - y * (x @ w + b)).mean() + L2 / 2 * np.abs(w).sum()


# Kinks far away, and kinks of smooth losses.


@student("wrong_margin", loss=True, **CS)
def margin_of_ten(w, b, x, y):
    label = np.eye(w.shape[1])[y]
    s = x @ w + b
    return np.maximum(0, (s + 10 * (1 - label)).max(axis=1) - (s * label).sum(axis=1)).mean() + L2 / 2 * np.sum(w * w)


@student("wrong_margin", loss=True)
def margin_of_a_hundred(w, b, x, y):
    return np.maximum(0, 100 - y * (x @ w + b)).mean() + L2 / 2 * w @ w


@student("wrong_margin", loss=True, **NO_BIAS)
def margin_of_seven(w, x, y):
    return np.maximum(0, 7 - y * (x @ w)).mean() + L2 / 2 * w @ w


@student("kink_tolerance_too_wide", **WW)
def margin_of_thirty(w, b, x, y):
    rows, s = np.arange(len(y)), x @ w + b
    on = 1.0 * (s - s[rows, y][:, None] + 30 > 0)
    on[rows, y] = 0
    on[rows, y] = -on.sum(axis=1)
    return x.T @ on / len(y) + L2 * w, on.mean(axis=0)


@student("kink_tolerance_too_wide+not_averaged")
def margin_of_a_hundred_and_a_sum(w, b, x, y):
    p = -y * (y * (x @ w + b) < 100)
    return x.T @ p + L2 * w, p.sum()


@student("threshold_at_zero", loss=True, **SQUARED)
def square_of_the_perceptron(w, b, x, y):
    return (np.maximum(0, -y * (x @ w + b)) ** 2).mean() + L2 / 2 * w @ w


@student("wrong_margin", loss=True, **SQUARED)
def square_with_a_margin_of_two(w, b, x, y):
    return (np.maximum(0, 2 - y * (x @ w + b)) ** 2).mean() + L2 / 2 * w @ w


@student("not_averaged+wrong_margin", **SQUARED)
def square_with_half_a_margin_summed(w, b, x, y):
    z = np.maximum(0, 0.5 - y * (x @ w + b))
    return L2 * w - 2 * (y * z) @ x, -2 * (y * z).sum()


@student("one_minus_missing", loss=True, **SQUARED)
def square_of_the_margin(w, b, x, y):
    return (np.maximum(0, y * (x @ w + b)) ** 2).mean() + L2 / 2 * w @ w


@student("wrong_margin", **SMOOTH)
def smooth_with_a_margin_of_two(w, b, x, y):
    p = -y * np.clip((2 - y * (x @ w + b)) / 0.5, 0, 1) / len(y)
    return x.T @ p + L2 * w, p.sum()


# Two that read as two others, and rivals.


@student("mask_inverted+sign_flipped")
def both_the_wrong_way_round(w, b, x, y):
    p = y * (y * (x @ w + b) > 1) / len(y)
    return x.T @ p + L2 * w, p.sum()


@student("margins_summed+threshold_at_zero", loss=True)
def perceptron_of_the_sum(w, b, x, y):
    return max(0.0, -np.sum(y * (x @ w + b))) + L2 / 2 * w @ w


@student("rival_sign_flipped", loss=True, **CS)
def largest_rival_subtracted(w, b, x, y):
    rows, s = np.arange(len(y)), x @ w + b
    others = s.copy()
    others[rows, y] = -1e9
    return np.maximum(0, 1 - others.max(axis=1) - s[rows, y]).mean() + L2 / 2 * np.sum(w * w)


@student("crammer_singer+label_column_overwritten", **WW)
def argmax_of_the_scores_overwrites(w, b, x, y):
    g = np.zeros((len(y), w.shape[1]))
    for i, (row, label) in enumerate(zip(x, y, strict=True)):
        g[i, label] = -1
        g[i, (row @ w + b).argmax()] = 1
    return x.T @ g / len(y) + L2 * w, g.mean(axis=0)
