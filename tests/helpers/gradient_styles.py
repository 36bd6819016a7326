"""Gradients of the hinge objective as other people write them, right and wrong, each in its own style.

Written after the doctor's hypotheses and in none of their words: `HELD_OUT` lists name, function and
the cause that a reader of the code would give. All are called as `grad_fn(w, b, x, y)`; the strength
of the regulariser that they are meant to have is `L2`.
"""

import importlib.util
import math
from functools import reduce
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

L2 = 0.05
HELD_OUT = []
HAS_TORCH = importlib.util.find_spec("torch") is not None


def held_out(cause, l2=L2):
    def register(function):
        HELD_OUT.append((function.__name__, function, cause, l2))
        return function

    return register


# Right, in many styles.


@held_out("none")
def lists_and_loops(w, b, x, y):
    n, d = len(x), len(w)
    dw, db = [0.0] * d, 0.0
    for xi, yi in zip(x.tolist(), y.tolist(), strict=True):
        score = sum(a * c for a, c in zip(xi, w.tolist(), strict=True)) + float(b)
        if yi * score < 1:
            for j in range(d):
                dw[j] -= yi * xi[j] / n
            db -= yi / n
    return [dw[j] + L2 * w[j] for j in range(d)], db


@held_out("none")
def indicator_times_matrix(w, b, x, y):
    xi = np.maximum(0, 1 - y * (x.dot(w) + b))
    bad = xi > 0
    return {"grad_w": L2 * w - (bad * y) @ x / y.size, "grad_b": -np.mean(bad * y)}


@held_out("none")
def folded_bias_with_slicing(w, b, x, y):
    theta = np.r_[w, b]
    z = np.column_stack((x, np.ones(x.shape[0])))
    active = np.where((z @ theta) * y <= 1)[0]
    grad = -(z[active] * y[active, None]).sum(0) / z.shape[0]
    grad[:-1] += L2 * theta[:-1]
    return grad[:-1], grad[-1:]


@held_out("none")
def half_by_sign(w, b, x, y):
    push = -0.5 * (1 + np.sign(1 - y * (x @ w + b))) * y
    return np.einsum("n,nd->d", push, x) / len(y) + L2 * w, push.mean()


@held_out("none")
def coin_at_the_kink(w, b, x, y):
    m = y * (x @ w + b)
    coin = np.random.default_rng(len(y)).random(len(y))
    theta = np.where(np.isclose(m, 1, rtol=0, atol=1e-12), coin, m < 1)
    return -(x.T * (theta * y)).mean(axis=1) + L2 * w, -(theta * y).mean()


@held_out("none")
def every_other_row_counts_on_the_kink(w, b, x, y):
    total_w, total_b = np.zeros_like(w), 0.0
    for i, (row, label) in enumerate(zip(x, y, strict=True)):
        slack = 1 - label * (row @ w + b)
        if slack > 0 or (slack == 0 and i % 2):
            total_w, total_b = total_w - label * row, total_b - label
    return SimpleNamespace(w=total_w / len(x) + L2 * w, b=total_b / len(x))


@held_out("none")
def single_precision(w, b, x, y):
    w, b, x, y = (np.asarray(a, dtype=np.float32) for a in (w, b, x, y))
    hit = (y * (x @ w + b) < 1).astype(np.float32)
    return -(x.T @ (hit * y)) / np.float32(len(y)) + np.float32(L2) * w, -np.mean(hit * y)


@held_out("none")
def single_precision_hidden_in_double(w, b, x, y):
    dw, db = single_precision(w, b, x, y)
    return dw.astype(np.float64), float(db)


@held_out("none")
def half_precision(w, b, x, y):
    w, b, x, y = (np.asarray(a, dtype=np.float16) for a in (w, b, x, y))
    hit = (y * (x @ w + b) < 1).astype(np.float16)
    return -(x.T @ (hit * y)) / np.float16(len(y)) + np.float16(L2) * w, -np.mean(hit * y)


@held_out("none")
@jax.jit
def jax_automatic(w, b, x, y):
    def objective(w, b):
        return jnp.mean(jnp.maximum(0, 1 - y * (x @ w + b))) + 0.5 * L2 * jnp.vdot(w, w)

    return jax.grad(objective, argnums=(0, 1))(jnp.asarray(w), jnp.asarray(b))


@held_out("none")
@jax.jit
def jax_vmapped_relu_in_bfloat16(w, b, x, y):
    w, b, x, y = (jnp.asarray(a, jnp.bfloat16) for a in (w, b, x, y))

    def row(params, xi, yi):
        return jax.nn.relu(1 - yi * (jnp.dot(params[0], xi) + params[1]))

    gw, gb = jax.vmap(jax.grad(row), (None, 0, 0))((w, b), x, y)
    return gw.mean(0) + jnp.bfloat16(L2) * w, gb.mean()


@held_out("none")
def value_and_gradient(w, b, x, y):
    slack = np.clip(1 - y * (x @ w + b), 0, None)
    g = np.where(slack > 0, -y, 0.0)
    return slack.mean() + L2 / 2 * w @ w, (x.T @ g / len(g) + L2 * w, g.sum() / len(g))


@held_out("none")
def with_a_tiny_tolerance(w, b, x, y):
    v = [i for i in range(len(y)) if y[i] * (x[i] @ w + b) - 1 <= 1e-8]
    return L2 * w - sum((y[i] * x[i] for i in v), np.zeros(w.shape)) / len(y), -math.fsum(y[i] for i in v) / len(y)


@held_out("none")
def spoils_its_inputs(w, b, x, y):
    x *= y[:, None]
    active = x @ w + b * y < 1
    n = len(y)
    w *= L2
    w -= x[active].sum(0) / n
    return w, -y[active].sum() / n


# The causes, in other words than the doctor's.


@held_out("not_averaged")
def reduce_over_rows(w, b, x, y):
    def add(acc, row):
        xi, yi = row
        return (acc[0] - yi * xi, acc[1] - yi) if yi * (xi @ w + b) < 1 else acc

    return reduce(add, zip(x, y, strict=True), (L2 * w, 0.0))


@held_out("averaged_over_active")
def mean_of_the_selected(w, b, x, y):
    sel = y * (x @ w + b) < 1
    if not sel.any():
        return L2 * w, 0.0
    return L2 * w - (y[sel, None] * x[sel]).mean(axis=0), -y[sel].mean()


@held_out("averaged_over_active")
def mean_of_the_selected_without_guard(w, b, x, y):
    sel = y * (x @ w + b) <= 1
    return L2 * w - np.average(y[sel, None] * x[sel], axis=0), -np.mean(y[sel])


@held_out("regularizer_missing")
def no_shrinkage(w, b, x, y):
    c = np.heaviside(1 - y * (x @ w + b), 0.5) * -y / len(y)
    return x.T @ c, c.sum()


@held_out("regularizer_doubled")
def forgot_the_half(w, b, x, y):
    c = np.less(y * (x @ w + b), 1) / -len(y) * y
    return c @ x + 2 * L2 * w, np.add.reduce(c)


@held_out("regularizer_halved")
def kept_the_half(w, b, x, y):
    c = np.less(y * (x @ w + b), 1) / -len(y) * y
    return c @ x + (L2 / 2) * w, np.add.reduce(c)


@held_out("regularizer_averaged")
def divided_everything(w, b, x, y):
    dw = L2 * w
    db = 0
    for i in range(x.shape[0]):
        if 1 - y[i] * (np.inner(w, x[i]) + b) > 0:
            dw = dw - y[i] * x[i]
            db = db - y[i]
    return dw / x.shape[0], db / x.shape[0]


@held_out("bias_regularized")
def shrinks_everything(w, b, x, y):
    theta, z = np.append(w, b), np.insert(x, x.shape[1], 1.0, axis=1)
    g = -(z * y[:, None])[(z @ theta) * y < 1].sum(axis=0) / len(z) + L2 * theta
    return g[:-1], g[-1]


@held_out("bias_gradient_missing")
def returns_only_weights(w, b, x, y):
    return L2 * w - ((y * (x @ w + b) < 1) * y) @ x / len(x)


@held_out("bias_gradient_missing")
def bias_left_at_zero(w, b, x, y):
    dw, db = L2 * w, np.zeros_like(b)
    dw -= np.mean([yi * xi * (yi * (xi @ w + b) < 1) for xi, yi in zip(x, y, strict=True)], axis=0)
    return dw, db


@held_out("bias_not_averaged")
def bias_summed(w, b, x, y):
    t = np.where(y * (x @ w + b) < 1, y, 0)
    return L2 * w - np.tensordot(t, x, 1) / t.size, -t.sum()


@held_out("bias_missing_from_margin")
def forgot_b(w, b, x, y):
    t = np.where(y * np.matmul(x, w) < 1, -y, 0) / len(y)
    return {"dw": x.T @ t + L2 * w, "db": t.sum()}


@held_out("threshold_at_zero")
def perceptron_like(w, b, x, y):
    wrong = np.sign(x @ w + b) != y
    return L2 * w - (x[wrong] * y[wrong][:, None]).sum(0) / len(x), -y[wrong].sum() / len(x)


@held_out("mask_inverted")
def greater_than(w, b, x, y):
    c = -y * np.greater(y * (x @ w + b), 1.0)
    return x.T.dot(c) / len(c) + L2 * w, np.mean(c)


@held_out("mask_missing")
def no_condition(w, b, x, y):
    return (x.T * -y).mean(1) + L2 * w, -(y.mean())


@held_out("label_missing")
def sum_of_active_rows(w, b, x, y):
    hit = y * (x @ w + b) < 1
    return L2 * w - x[hit].sum(0) / len(x), -hit.sum() / len(x)


@held_out("labels_zero_one")
def thinks_labels_are_bits(w, b, x, y):
    bits = (y > 0).astype(float)
    hit = (1 - bits * (x @ w + b)) > 0
    return L2 * w - (hit * bits) @ x / len(x), -(hit * bits).mean()


@held_out("labels_zero_one")
def maps_labels_twice(w, b, x, y):
    signs = 2 * y - 1
    hit = signs * (x @ w + b) < 1
    return L2 * w - (hit * signs) @ x / len(x), -(hit * signs).mean()


@held_out("broadcast_n_by_n")
def column_labels(w, b, x, y):
    column = y.reshape(-1, 1)
    margins = column * (x @ w + b)
    mask = (margins < 1) * -column
    return mask.mean(axis=0) @ x / len(x) + L2 * w, mask.mean()


@held_out("broadcast_n_by_n")
@jax.jit
def jax_column_scores(w, b, x, y):
    def objective(w, b):
        scores = x @ w[:, None] + b
        return jnp.maximum(1 - y * scores, 0).mean() + L2 / 2 * (w**2).sum()

    with jax.numpy_rank_promotion("allow"):
        return jax.grad(objective, (0, 1))(jnp.asarray(w), jnp.asarray(b))


@held_out("kink_tolerance_too_wide")
def generous_support_vectors(w, b, x, y):
    near = y * (x @ w + b) - 1 < 1e-3
    return L2 * w - y[near] @ x[near] / len(x), -np.sum(y[near]) / len(x)


@held_out("kink_tolerance_too_wide")
def allclose_support_vectors(w, b, x, y):
    m = y * (x @ w + b)
    on = (m < 1) | np.isclose(m, 1)
    return L2 * w - (on * y) @ x / len(x), -np.sum(on * y) / len(x)


@held_out("squared_hinge")
def multiplies_by_the_loss(w, b, x, y):
    slack = np.maximum(0, 1 - y * (x @ w + b))
    return -2 * x.T @ (slack * y) / len(y) + L2 * w, -2 * (slack * y).mean()


@held_out("logistic")
def cross_entropy(w, b, x, y):
    p = 1 / (1 + np.exp(y * (x @ w + b)))
    return -(p * y) @ x / len(y) + L2 * w, -(p * y).mean()


@held_out("last_example_only")
def assigns_in_the_loop(w, b, x, y):
    dw, db = np.zeros_like(w), 0.0
    for i in range(len(x)):
        if y[i] * (x[i] @ w + b) < 1:
            dw = -y[i] * x[i]
            db = -y[i]
    return dw / len(x) + L2 * w, db / len(x)


@held_out("sign_flipped")
def ascends(w, b, x, y):
    hit = (y * (x @ w + b) < 1) * y
    return x.T @ hit / len(x) + L2 * w, hit.mean()


@held_out("sign_flipped")
def returns_the_descent_direction(w, b, x, y):
    hit = (y * (x @ w + b) < 1) * y
    return hit @ x / len(x) - L2 * w, hit.mean()


@held_out("regularizer_unexpected", l2=0.0)
def brings_its_own_shrinkage(w, b, x, y):
    hit = (y * (x @ w + b) < 1) * y
    return -hit @ x / len(x) + 0.01 * w, -hit.mean()


@held_out("not_finite")
def divides_by_the_norm_of_zero(w, b, x, y):
    hit = (y * (x @ w + b) < 1) * y
    unit = w / np.sqrt(np.sum(w**2))
    return -hit @ x / len(x) + L2 * unit * np.sqrt(np.sum(w**2)), -hit.mean()


@held_out("wrong_shape")
def column_gradient(w, b, x, y):
    hit = (y * (x @ w + b) < 1) * y
    return (L2 * w - hit @ x / len(x)).reshape(-1, 1), -hit.mean()


@held_out("raised")
def typo(w, b, x, y):
    return w.transposed() @ x, b


# Two at once.


@held_out("not_averaged+regularizer_missing")
def two_lines_forgotten(w, b, x, y):
    hit = [(yi, xi) for yi, xi in zip(y, x, strict=True) if yi * (xi @ w + b) < 1]
    return -sum((yi * xi for yi, xi in hit), 0 * w), -sum(yi for yi, _ in hit)


@held_out("regularizer_doubled+threshold_at_zero")
def two_formulas_wrong(w, b, x, y):
    hit = (y * (x @ w + b) <= 0) * y
    return 2 * L2 * w - hit @ x / len(x), -hit.mean()


@held_out("bias_missing_from_margin+bias_not_averaged")
def bias_wrong_twice(w, b, x, y):
    hit = (y * (x @ w) < 1) * y
    return L2 * w - hit @ x / len(x), -hit.sum()


# Nonsense.


@held_out("unknown")
def constants(w, b, x, y):
    return np.ones_like(w), 1.0


@held_out("gradient_zero")
def nothing(w, b, x, y):
    return np.zeros_like(w), 0.0


_NOISE = np.random.default_rng(17)


@held_out("unknown")
def noise(w, b, x, y):
    return _NOISE.normal(size=w.shape), _NOISE.normal()


@held_out("unknown")
def first_half_of_the_rows(w, b, x, y):
    half = (len(x) + 1) // 2
    return indicator_times_matrix(w, b, x[:half], y[:half])


@held_out("everything_scaled")
def scaled(w, b, x, y):
    dw, db = indicator_times_matrix(w, b, x, y).values()
    return 0.37 * dw, 0.37 * db


@held_out("everything_scaled")
def scaled_by_a_percent(w, b, x, y):
    dw, db = indicator_times_matrix(w, b, x, y).values()
    return 1.01 * dw, 1.01 * db


@held_out("unknown")
def a_feature_left_out(w, b, x, y):
    dw, db = indicator_times_matrix(w, b, x, y).values()
    dw[0] = 0.0
    return dw, db


@held_out("unknown")
def features_in_reverse(w, b, x, y):
    dw, db = indicator_times_matrix(w, b, x, y).values()
    return dw[::-1], db


@held_out("unknown")
def drops_rows_at_random(w, b, x, y):
    kept = _NOISE.random(len(x)) < 0.8
    kept[0] = True
    return indicator_times_matrix(w, b, x[kept], y[kept])


if HAS_TORCH:
    import torch

    def _tensors(w, b, x, y, dtype=torch.float64):
        w, b = (torch.tensor(a, dtype=dtype, requires_grad=True) for a in (w, b))
        return w, b, torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype)

    @held_out("none")
    def torch_relu(w, b, x, y):
        w, b, x, y = _tensors(w, b, x, y)
        objective = torch.relu(1 - y * (x @ w + b)).mean() + L2 / 2 * w.square().sum()
        return torch.autograd.grad(objective, (w, b))

    @held_out("none")
    def torch_clamp_in_single_precision(w, b, x, y):
        w, b, x, y = _tensors(w, b, x, y, torch.float32)
        (torch.clamp(1 - y * (x @ w + b), min=0).mean() + L2 / 2 * w.square().sum()).backward()
        return {"weight": w.grad, "bias": b.grad}

    @held_out("none")
    def torch_bfloat16_by_hand(w, b, x, y):
        w, b, x, y = _tensors(w, b, x, y, torch.bfloat16)
        hit = (y * (x @ w + b) < 1) * y
        return L2 * w - x.T @ hit / len(x), -hit.mean()

    @held_out("regularizer_doubled")
    def torch_norm_without_half(w, b, x, y):
        w, b, x, y = _tensors(w, b, x, y)
        (torch.nn.functional.relu(1 - y * (x @ w + b)).mean() + L2 * (w * w).sum()).backward()
        return w.grad, b.grad

    @held_out("broadcast_n_by_n")
    def torch_linear_layer(w, b, x, y):
        w, b, x, y = _tensors(w, b, x, y)
        out = torch.nn.functional.linear(x, w[None], b[None])
        (torch.clamp(1 - out * y, min=0).mean() + L2 / 2 * (w * w).sum()).backward()
        return w.grad, b.grad

    _KEPT = {}

    @held_out("gradient_accumulated")
    def torch_without_zero_grad(w, b, x, y):
        first = _tensors(w, b, x, y)
        w_leaf, b_leaf = _KEPT.setdefault("leaves", first[:2])
        w_leaf.data, b_leaf.data = first[0].data, first[1].data
        x, y = first[2:]
        (torch.relu(1 - y * (x @ w_leaf + b_leaf)).mean() + L2 / 2 * w_leaf.square().sum()).backward()
        return w_leaf.grad, b_leaf.grad
