"""Gradients and losses in as many hands, written after the doctor's recipes and in none of their words.

`WILD` lists `doctor_cases.Case`s: right functions in odd shapes, and wrong ones as students write them.
"""

import importlib.util
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from helpers.doctor_cases import L2, Case

import jaxhinge as jh

WILD = []
WW, CS = {"loss_fn": jh.losses.weston_watkins_loss}, {"loss_fn": jh.losses.multiclass_hinge_loss}
OVR = {"loss_fn": jh.losses.one_vs_rest_hinge_loss}
C_FORM = {"l2": 0.0, "C": 0.7}


def wild(cause, *, loss=False, **options):
    def register(function):
        WILD.append(Case(function.__name__, function, cause, {"l2": L2} | options, loss))
        return function

    return register


# Right, in odd shapes.


@wild("none")
def running_mean(w, b, x, y):
    gw, gb = np.zeros_like(w), 0.0
    for i, (row, label) in enumerate(zip(x, y, strict=True)):
        hit = 1.0 if label * (row.dot(w) + b) < 1 else 0.0
        gw += (-hit * label * row - gw) / (i + 1)
        gb += (-hit * label - gb) / (i + 1)
    return gw + L2 * w, gb


@wild("none", **C_FORM)
def libsvm_form(w, b, x, y):
    alpha = np.where(1 - y * (x @ w + b) > 0, 0.7, 0.0)
    return w - (alpha * y) @ x, -(alpha * y).sum()


@wild("none")
def loss_first_and_blocks(w, b, x, y):
    loss, gw, gb = L2 / 2 * w @ w, L2 * w, 0.0
    for rows in np.array_split(np.arange(len(y)), 3):
        slack = 1 - y[rows] * (x[rows] @ w + b)
        loss += slack[slack > 0].sum() / len(y)
        gw = gw - (y[rows] * (slack > 0)) @ x[rows] / len(y)
        gb -= (y[rows] * (slack > 0)).sum() / len(y)
    return loss, gw, gb


@wild("none", fit_intercept=False)
def weights_alone(w, x, y):
    return L2 * w - np.mean((y * ((x @ w) * y <= 1))[:, None] * x, axis=0)


@wild("none", fit_intercept=False)
def loss_and_weights(w, x, y):
    s = y * (x @ w)
    return np.clip(1 - s, 0, None).mean() + L2 / 2 * np.dot(w, w), -((s < 1) * y) @ x / len(y) + L2 * w


@wild("none", fit_intercept="regularized")
def folded_and_shrunk(w, b, x, y):
    t, z = np.hstack([w, b]), np.hstack([x, np.ones((len(x), 1))])
    g = L2 * t - z.T @ (y * (y * (z @ t) < 1)) / len(y)
    return g[:-1], g[-1]


@wild("none", **WW)
def loops_over_classes(w, b, x, y):
    dw, db = np.zeros_like(w), np.zeros_like(b)
    for j in range(w.shape[1]):
        for c in range(w.shape[1]):
            rows = np.flatnonzero((y == c) & (x @ (w[:, j] - w[:, c]) + b[j] - b[c] > -1))
            if j != c:
                dw[:, j] += x[rows].sum(0) / len(x)
                dw[:, c] -= x[rows].sum(0) / len(x)
                db[j] += len(rows) / len(x)
                db[c] -= len(rows) / len(x)
    return dw + L2 * w, db


@wild("none", loss=True, **CS)
@jax.jit
def jax_crammer_singer(w, b, x, y):
    s = x @ w + b[None]
    rival = jnp.where(jax.nn.one_hot(y, s.shape[1], dtype=bool), -jnp.inf, s).max(axis=1)
    return jax.nn.relu(1 + rival - s[jnp.arange(len(y)), y]).mean() + L2 / 2 * jnp.vdot(w, w)


@wild("none", **OVR)
def signs_by_identity(w, b, x, y):
    t = 2 * np.eye(w.shape[1])[y] - 1
    g = np.where(t * (x @ w + b) < 1, -t, 0) / len(y)
    return x.T @ g + L2 * w, g.sum(0)


@wild("none", loss_fn=jh.losses.squared_hinge_loss)
def squared_by_hand(w, b, x, y):
    z = (1 - y * (x @ w + b)).clip(0)
    return L2 * w - 2 * (z * y) @ x / len(y), -2 * np.mean(z * y)


# Sizes.


@wild("everything_scaled")
def learning_rate_baked_in(w, b, x, y, rate=0.01):
    hit = y * (y * (x @ w + b) < 1)
    return rate * (L2 * w - hit @ x / len(y)), rate * -hit.mean()


@wild("update_returned")
def one_step_of_descent(w, b, x, y, rate=0.1):
    hit = y * (y * (x @ w + b) < 1)
    return w - rate * (L2 * w - hit @ x / len(y)), b - rate * -hit.mean()


@wild("data_scaled")
def batch_of_64(w, b, x, y, batch=64):
    gw, gb = L2 * w, 0
    for i in range(len(y)):
        if (x[i] @ w + b) * y[i] < 1:
            gw = gw - x[i] * y[i] / batch
            gb -= y[i] / batch
    return gw, gb


@wild("data_scaled", loss=True)
def half_the_hinge(w, b, x, y):
    return 0.5 * np.mean(np.maximum(1 - y * (x @ w + b), 0)) + 0.5 * L2 * np.sum(w**2)


@wild("bias_scaled")
def bias_over_features(w, b, x, y):
    hit = y * (y * (x @ w + b) < 1) / -len(y)
    return hit @ x + L2 * w, hit.sum() / x.shape[1]


@wild("regularizer_scaled")
def tenfold(w, b, x, y):
    hit = y * (y * (x @ w + b) < 1) / -len(y)
    return hit @ x + 10 * L2 * w, hit.sum()


@wild("data_scaled", **C_FORM)
def c_forgotten(w, b, x, y):
    hit = y * (y * (x @ w + b) < 1)
    return w - hit @ x, -hit.sum()


@wild("regularizer_doubled", **C_FORM)
def square_without_half(w, b, x, y):
    hit = 0.7 * y * (y * (x @ w + b) < 1)
    return 2 * w - hit @ x, -hit.sum()


@wild("not_averaged+regularizer_doubled", **WW)
def sum_and_reg_times_w(w, b, x, y):
    s = x @ w + b
    hit = (s - s[range(len(y)), y][:, None] > -1).astype(float)
    hit[range(len(y)), y] -= hit.sum(1)
    return x.T @ hit + 2 * L2 * w, hit.sum(0)


@wild("everything_scaled", loss=True)
def sum_of_everything_per_row(w, b, x, y):
    return sum(max(0.0, 1 - float(t * (r @ w + b))) + L2 / 2 * float(w @ w) for r, t in zip(x, y, strict=True))


# Signs, masks and margins.


@wild("sign_flipped", loss=True)
def maximised(w, b, x, y):
    return -jnp.maximum(0, 1 - y * (x @ w + b)).mean() + L2 / 2 * (w**2).sum()


@wild("score_sign_flipped", loss=True)
@jax.jit
def jax_one_plus(w, b, x, y):
    return jnp.mean(jax.nn.relu(1 + y * (x @ w + b))) + L2 / 2 * (w**2).sum()


@wild("one_minus_missing")
def by_indicator(w, b, x, y):
    wrong = np.sign(x @ w + b) == y
    return np.where(wrong, y, 0) @ x / len(y) + L2 * w, np.where(wrong, y, 0).mean()


@wild("mask_inverted")
def only_the_mask_has_the_other_sign(w, b, x, y):
    hit = np.where(1 + y * (x @ w + b) > 0, -y, 0)
    return hit @ x / len(y) + L2 * w, hit.mean()


@wild("mask_missing", loss=True)
def no_maximum(w, b, x, y):
    return (1 - y * (x @ w + b)).mean() + L2 / 2 * w.dot(w)


@wild("wrong_margin", loss=True)
def half_a_margin(w, b, x, y):
    return jnp.clip(0.5 - y * (x @ w + b), 0).mean() + L2 / 2 * (w**2).sum()


@wild("not_averaged+wrong_margin")
def tight_and_summed(w, b, x, y):
    gw, gb = L2 * w, 0.0
    for k in range(len(y)):
        if y[k] * (np.dot(x[k], w) + b) < 0.25:
            gw, gb = gw - y[k] * x[k], gb - y[k]
    return gw, gb


@wild("kink_tolerance_too_wide")
def margin_of_five(w, b, x, y):
    hit = y * (5 - y * (x @ w + b) > 0)
    return L2 * w - hit @ x / len(y), -hit.mean()


@wild("label_missing_from_bias", loss=True)
@jax.jit
def jax_label_inside(w, b, x, y):
    return jnp.maximum(0.0, 1 - (y * (x @ w) + b)).mean() + L2 / 2 * (w**2).sum()


@wild("label_missing")
def forgot_the_label(w, b, x, y):
    rows = x[y * (x @ w + b) < 1]
    return L2 * w - rows.sum(axis=0) / len(x), -len(rows) / len(x)


@wild("labels_zero_one", labels=(0, 1))
def takes_zeros_for_minus_one(w, b, x, y):
    hit = y * (y * (x @ w + b) < 1)
    return L2 * w - hit @ x / len(y), -hit.mean()


@wild("none", labels=(0, 1))
def turns_zeros_into_minus_one(w, b, x, y):
    t = np.where(y == 1, 1.0, -1.0)
    hit = t * (t * (x @ w + b) < 1)
    return L2 * w - hit @ x / len(y), -hit.mean()


# Aggregates, loops and state.


@wild("margins_summed", loss=True)
def mean_before_the_hinge(w, b, x, y):
    return jnp.maximum(0.0, 1 - jnp.mean(y * (x @ w + b))) + L2 / 2 * (w**2).sum()


@wild("max_over_rows", loss=True)
def worst_row(w, b, x, y):
    return max(0.0, *(1 - float(t * (r @ w + b)) for r, t in zip(x, y, strict=True))) + L2 / 2 * float(w @ w)


@wild("first_example_only")
def return_inside_the_loop(w, b, x, y):
    gw, gb = L2 * w, 0.0
    for r, t in zip(x, y, strict=True):
        if t * (r @ w + b) < 1:
            gw, gb = gw - t * r, gb - t
        return gw, gb


@wild("last_example_only")
def fresh_zeros_in_the_loop(w, b, x, y):
    for r, t in zip(x, y, strict=True):
        gw, gb = np.zeros_like(w), 0.0
        if t * (r @ w + b) < 1:
            gw -= t * r / len(y)
            gb -= t / len(y)
    return gw + L2 * w, gb


@wild("loop_left_too_early")
def takewhile(w, b, x, y):
    bad = list(itertools.takewhile(lambda rt: rt[1] * (rt[0] @ w + b) < 1, zip(x, y, strict=True)))
    return L2 * w - sum((t * r for r, t in bad), 0 * w) / len(y), -sum(t for _, t in bad) / len(y)


@wild("sum_reset_by_satisfied_row")
def push_or_nothing(w, b, x, y):
    acc = np.zeros(len(w) + 1)
    for r, t in zip(x, y, strict=True):
        acc = acc - t * np.append(r, 1) if t * (r @ w + b) < 1 else np.zeros(len(w) + 1)
    return acc[:-1] / len(y) + L2 * w, acc[-1] / len(y)


@wild("regularizer_skipped", loss=True)
def shrinks_only_with_violators(w, b, x, y):
    z = 1 - y * (x @ w + b)
    return z[z > 0].sum() / len(y) + L2 / 2 * w @ w if np.any(z > 0) else 0.0


@wild("value_left_in_slope")
def times_the_margin(w, b, x, y):
    m = y * (x @ w + b)
    hit = -y * m * (m < 1)
    return hit @ x / len(y) + L2 * w, hit.mean()


@wild("broadcast_n_by_n", loss=True)
def column_of_labels(w, b, x, y):
    return np.maximum(0, 1 - y[:, None] * (x @ w + b)).mean() + L2 / 2 * w @ w


# Several classes.


@wild("label_count_forgotten", **WW)
def minus_one_for_the_label(w, b, x, y):
    s, r = x @ w + b, np.arange(len(y))
    on = 1.0 * (s - s[r, y][:, None] + 1 > 0)
    on[r, y] = -1.0 * ((on.sum(1) - 1) > 0)
    return x.T @ on / len(y) + L2 * w, on.mean(0)


@wild("value_left_in_slope", **WW)
def margins_not_binarised(w, b, x, y):
    s, r = x @ w + b, np.arange(len(y))
    z = np.maximum(0, s - s[r, y][:, None] + 1)
    z[r, y] = 0
    z[r, y] = -(z > 0).sum(1)
    return x.T @ z / len(y) + L2 * w, z.mean(0)


@wild("threshold_at_zero", **WW)
def delta_forgotten(w, b, x, y):
    s, r = x @ w + b, np.arange(len(y))
    on = (s > s[r, y][:, None]).astype(float)
    on[r, y] = -on.sum(1)
    return x.T @ on / len(y) + L2 * w, on.mean(0)


@wild("one_vs_rest", loss=True, **CS)
@jax.jit
def jax_one_against_all(w, b, x, y):
    t = 2.0 * jax.nn.one_hot(y, w.shape[1]) - 1
    return jnp.maximum(0, 1 - t * (x @ w + b[None])).sum() / len(y) + L2 / 2 * (w**2).sum()


@wild("label_pushed_by_every_row", **CS)
def label_outside_the_if(w, b, x, y):
    dw, db = np.zeros_like(w), np.zeros_like(b)
    for r, c in zip(x, y, strict=True):
        z = r @ w + b
        z = 1 + z - z[c]
        z[c] = -1e9
        j = z.argmax()
        if z[j] > 0:
            dw[:, j] += r / len(y)
            db[j] += 1 / len(y)
        dw[:, c] -= r / len(y)
        db[c] -= 1 / len(y)
    return dw + L2 * w, db


@wild("rival_floored_at_zero", loss=True, **CS)
@jax.jit
def jax_times_not_label(w, b, x, y):
    s, hot = x @ w + b[None], jax.nn.one_hot(y, w.shape[1])
    return jnp.mean(jax.nn.relu(1 + (s * (1 - hot)).max(1) - (s * hot).sum(1))) + L2 / 2 * (w**2).sum()


@wild("margins_summed", **WW)
def one_hinge_for_a_row(w, b, x, y):
    k, dw, db = w.shape[1], L2 * w, 0 * b
    for r, c in zip(x, y, strict=True):
        s = r @ w + b
        if sum(s[j] - s[c] + 1 for j in range(k) if j != c) > 0:
            g = np.ones(k)
            g[c] = 1 - k
            dw, db = dw + np.outer(r, g) / len(y), db + g / len(y)
    return dw, db


@wild("weights_not_averaged", **OVR)
def only_the_bias_is_a_mean(w, b, x, y):
    t = -np.ones((len(y), w.shape[1]))
    t[np.arange(len(y)), y] = 1
    g = -t * (t * (x @ w + b) <= 1)
    return x.T @ g + L2 * w, g.mean(0)


@wild("hinge", loss_fn=jh.losses.squared_hinge_loss)
def square_forgotten(w, b, x, y):
    hit = y * (y * (x @ w + b) < 1)
    return L2 * w - hit @ x / len(y), -hit.mean()


@wild("data_scaled", loss_fn=jh.losses.squared_hinge_loss)
def two_forgotten(w, b, x, y):
    z = np.maximum(0, 1 - y * (x @ w + b))
    return L2 * w - (z * y) @ x / len(y), -np.mean(z * y)


# What cannot be named stays unknown.


@wild("unknown")
def clipped_to_unit_length(w, b, x, y):
    hit = y * (y * (x @ w + b) < 1)
    g = L2 * w - hit @ x / len(y)
    return g / max(1.0, np.linalg.norm(g)), -hit.mean() * 0.9 + 0.01


@wild("unknown")
def first_batch_only(w, b, x, y):
    x, y = x[:32], y[:32]
    hit = y * (y * (x @ w + b) < 1)
    return L2 * w - hit @ x / len(y), -hit.mean()


@wild("unknown")
def modified_huber(w, b, x, y):
    m = y * (x @ w + b)
    push = -y * np.where(m < -1, 4.0, np.where(m < 1, 2 * (1 - m), 0.0))
    return push @ x / len(y) + L2 * w, push.mean()


if importlib.util.find_spec("torch") is not None:
    import torch

    def _given(*arrays):
        return [torch.tensor(a, dtype=torch.float64, requires_grad=i < 2) for i, a in enumerate(arrays)]

    @wild("gradient_zero")
    def torch_detached_scores(w, b, x, y):
        w, b, x, y = _given(w, b, x, y)
        s = (x @ w + b).detach().requires_grad_()
        torch.relu(1 - y * s).mean().backward()
        return (torch.zeros_like(w), torch.zeros_like(b)) if w.grad is None else (w.grad, b.grad)

    @wild("regularizer_doubled")
    def torch_weight_norm(w, b, x, y):
        w, b, x, y = _given(w, b, x, y)
        (torch.clamp(1 - y * (x @ w + b), min=0).mean() + L2 * w.pow(2).sum()).backward()
        return w.grad, b.grad

    @wild("margins_summed")
    def torch_dot_before_relu(w, b, x, y):
        w, b, x, y = _given(w, b, x, y)
        return torch.autograd.grad(torch.relu(1 - torch.dot(y, x @ w + b)) + L2 / 2 * w @ w, (w, b))

    @wild("none", **WW)
    def torch_multi_margin_times_classes(w, b, x, y):
        w, b, x = (torch.tensor(a, dtype=torch.float64) for a in (w, b, x))
        w.requires_grad_()
        b.requires_grad_()
        loss = torch.nn.functional.multi_margin_loss(x @ w + b, torch.tensor(y)) * w.shape[1]
        (loss + L2 / 2 * (w * w).sum()).backward()
        return w.grad, b.grad

    @wild("averaged_over_classes", **WW)
    def torch_multi_margin(w, b, x, y):
        w, b, x = (torch.tensor(a, dtype=torch.float64) for a in (w, b, x))
        w.requires_grad_()
        b.requires_grad_()
        loss = torch.nn.functional.multi_margin_loss(x @ w + b, torch.tensor(y))
        (loss + L2 / 2 * (w * w).sum()).backward()
        return w.grad, b.grad
