"""The gradient doctor on Weston-Watkins and Crammer-Singer gradients, in several people's styles."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhinge as jh
from jaxhinge._diagnose._point import checked_point, objective_of
from jaxhinge._diagnose._probes import LADDER, synthetic_probes
from jaxhinge._diagnose._violations import violations

L2 = 0.05
WESTON_WATKINS, CRAMMER_SINGER = jh.losses.weston_watkins_loss, jh.losses.multiclass_hinge_loss


def problem(n, d, k, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.integers(k, size=n)
    return (rng.normal(size=(d, k)) / np.sqrt(d), 0.3 * rng.normal(size=k)), x, y


def course_notes(w, b, x, y):
    """The loop that everybody writes first."""
    dw, db = np.zeros(w.shape), np.zeros(b.shape)
    for i in range(x.shape[0]):
        scores = x[i].dot(w) + b
        for j in range(w.shape[1]):
            if j == y[i]:
                continue
            if scores[j] - scores[y[i]] + 1 > 0:
                dw[:, j] += x[i]
                dw[:, y[i]] -= x[i]
                db[j] += 1
                db[y[i]] -= 1
    return dw / x.shape[0] + L2 * w, db / x.shape[0]


def vectorised(edit=lambda push, z, y: None, *, margin=1.0, at_least=False, divisor=len, l2=L2):
    """The matrix form; `edit` changes the pushes after the label has got minus their number."""

    def grad_fn(w, b, x, y):
        rows = np.arange(len(x))
        scores = x @ w + b
        z = scores - scores[rows, y][:, None] + margin
        push = (z >= 0 if at_least else z > 0).astype(float)
        push[rows, y] = 0.0
        push[rows, y] = -push.sum(axis=1)
        edit(push, z, y)
        return x.T @ push / divisor(x) + l2 * w, push.sum(axis=0) / divisor(x)

    return grad_fn


def without_the_count(push, z, y):
    push[np.arange(len(y)), y] = 0.0


def counted_once(push, z, y):
    rows = np.arange(len(y))
    push[rows, y] = -np.sign(-push[rows, y])


def label_among_the_violators(push, z, y):
    push[np.arange(len(y)), y] -= 1.0


def label_pushed_as_a_rival(push, z, y):
    push[np.arange(len(y)), y] += 1.0


def transposed(w, b, x, y):
    dw, db = course_notes(w, b, x, y)
    return dw.T, db


def largest_rival(*, exclude=True, label=True, last=False, at_least=False):
    def grad_fn(w, b, x, y):
        dw, db = np.zeros_like(w), np.zeros_like(b)
        for row, c in zip(x, y, strict=True):
            z = row @ w + b - row @ w[:, c] - b[c] + 1
            if exclude:
                z[c] = -np.inf
            j = np.flatnonzero(z == z.max())[-1 if last else 0]
            if z[j] > 0 or (at_least and z[j] == 0):
                dw[:, j] += row / len(x)
                db[j] += 1 / len(x)
                if label:
                    dw[:, c] -= row / len(x)
                    db[c] -= 1 / len(x)
        return dw + L2 * w, db

    return grad_fn


@jax.jit
def softmax(w, b, x, y):
    return jax.grad(
        lambda w, b: -jnp.mean(jax.nn.log_softmax(x @ w + b[None])[np.arange(len(y)), y]) + L2 / 2 * jnp.sum(w**2),
        (0, 1),
    )(jnp.asarray(w), jnp.asarray(b))


def bias_summed(w, b, x, y):
    dw, db = course_notes(w, b, x, y)
    return dw, db * len(x)


def no_bias_and_no_count(w, b, x, y):
    """The first loop of the course without its second line, for weights alone."""
    return vectorised(without_the_count)(w, np.zeros_like(b), x, y)[0]


FUNCTIONS = [
    ("loop", course_notes, WESTON_WATKINS, "none"),
    ("matrix", vectorised(at_least=True), WESTON_WATKINS, "none"),
    ("largest", largest_rival(), CRAMMER_SINGER, "none"),
    ("largest, last of a tie, on the kink too", largest_rival(last=True, at_least=True), CRAMMER_SINGER, "none"),
    ("sum", vectorised(divisor=lambda x: 1), WESTON_WATKINS, "not_averaged"),
    ("no shrinkage", vectorised(l2=0.0), WESTON_WATKINS, "regularizer_missing"),
    ("reg * W", vectorised(l2=2 * L2), WESTON_WATKINS, "regularizer_doubled"),
    ("no count", vectorised(without_the_count), WESTON_WATKINS, "label_count_forgotten"),
    ("count of one", vectorised(counted_once), WESTON_WATKINS, "label_count_forgotten"),
    ("label counted", vectorised(label_among_the_violators), WESTON_WATKINS, "correct_class_not_excluded"),
    ("label pushed", vectorised(label_pushed_as_a_rival), WESTON_WATKINS, "correct_class_not_excluded"),
    ("mean of everything", vectorised(divisor=lambda x: 4 * len(x)), WESTON_WATKINS, "averaged_over_classes"),
    ("minus margin", vectorised(margin=-1.0), WESTON_WATKINS, "margin_added_to_correct_class"),
    ("no margin", vectorised(margin=0.0), WESTON_WATKINS, "threshold_at_zero"),
    ("band", vectorised(margin=1.01), WESTON_WATKINS, "kink_tolerance_too_wide"),
    ("transposed", transposed, WESTON_WATKINS, "weights_transposed"),
    ("bias summed", bias_summed, WESTON_WATKINS, "bias_not_averaged"),
    ("the other loss", largest_rival(), WESTON_WATKINS, "crammer_singer"),
    ("softmax", softmax, WESTON_WATKINS, "logistic"),
    ("label wins the maximum", largest_rival(exclude=False), CRAMMER_SINGER, "correct_class_not_excluded"),
    ("no label", largest_rival(label=False), CRAMMER_SINGER, "label_count_forgotten"),
    ("every rival", course_notes, CRAMMER_SINGER, "weston_watkins"),
    ("two", vectorised(divisor=lambda x: 1, l2=0.0), WESTON_WATKINS, "not_averaged+regularizer_missing"),
    (
        "weights alone",
        no_bias_and_no_count,
        WESTON_WATKINS,
        "bias_gradient_missing+bias_missing_from_margin+label_count_forgotten",
    ),
    ("zeros", lambda w, b, x, y: (0 * w, 0 * b), WESTON_WATKINS, "gradient_zero"),
    ("classes swapped", lambda *a: tuple(g[..., ::-1] for g in course_notes(*a)), CRAMMER_SINGER, "unknown"),
]


@pytest.mark.parametrize(("name", "function", "loss_fn", "cause"), FUNCTIONS, ids=[entry[0] for entry in FUNCTIONS])
def test_causes(name, function, loss_fn, cause):
    diagnosis = jh.diagnose(function, *problem(20, 3, 4), l2=L2, loss_fn=loss_fn)
    assert diagnosis.cause == cause
    if "+" not in cause and cause != "unknown" and name != "mean of everything":
        # As many classes as features, and more than rows.
        assert jh.diagnose(function, *problem(2, 4, 4), l2=L2, loss_fn=loss_fn).cause == cause


@pytest.mark.parametrize("loss_fn", [WESTON_WATKINS, CRAMMER_SINGER])
def test_the_gradients_of_this_package(loss_fn):
    @jax.jit
    def grad_fn(w, b, x, y, subgradient):
        return jax.grad(jh.loss)((w, b), x, y, l2=L2, loss_fn=loss_fn, subgradient=subgradient)

    for subgradient, choice in ((0.0, "0"), (0.5, "1/2"), (1.0, "1")):
        given = functools.partial(grad_fn, subgradient=subgradient)
        diagnosis = jh.diagnose(given, *problem(8, 3, 4), l2=L2, loss_fn=loss_fn)
        assert (diagnosis.ok, diagnosis.kink_choice) == (True, choice)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_low_precision_is_not_a_mistake(dtype):
    def grad_fn(w, b, x, y):
        narrow = (np.asarray(a).astype(jnp.dtype(dtype)) for a in (w, b, x))
        dw, db = vectorised(l2=0.0)(*narrow, y)
        return (dw + L2 * w).astype(jnp.dtype(dtype)), db.astype(jnp.dtype(dtype))

    for seed in range(3):
        diagnosis = jh.diagnose(grad_fn, *problem(30, 5, 4, seed), l2=L2, loss_fn=WESTON_WATKINS)
        assert diagnosis.cause == "none", str(diagnosis)


@pytest.mark.parametrize("loss_fn", [jh.losses.hinge_loss, WESTON_WATKINS, CRAMMER_SINGER])
@pytest.mark.parametrize(("d", "k"), [(1, 2), (2, 2), (1, 3), (2, 7), (1, 10), (30, 10), (100, 2)])
def test_probe_points_put_rows_on_the_kink_and_beside_it(loss_fn, d, k):
    params, x, y = problem(5, d, k)
    if loss_fn is jh.losses.hinge_loss:
        params, y = (params[0][:, 0], params[1][0]), np.sign(y - 0.5)
    objective = objective_of(loss_fn, L2)
    wanted = {"rows on the kink": 5, "every row on the kink": 5}
    wanted |= {f"rows just {side} the kink": len(LADDER) for side in ("outside", "inside")}
    for probe in synthetic_probes(checked_point(params, x, y, objective), objective):
        if probe.name in wanted:
            z = np.max(violations(probe.point, objective)[0], axis=1)
            sign = {"out": -1.0, "ins": 1.0}.get(probe.name[10:13], 0.0)
            targets = sign * np.array(LADDER) if sign else np.zeros(5)
            found = sum(np.any(np.abs(z - target) <= 1e-12) for target in targets)
            assert found >= 0.7 * wanted[probe.name], (probe.name, z)


def test_ties_among_classes_are_a_choice():
    params = np.zeros((2, 3)), np.zeros(3)
    x, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 2])
    for weight in (0.0, 0.25, 1.0):

        def grad_fn(w, b, x, y, weight=weight):
            dw1, db1 = largest_rival()(w, b, x, y)
            dw2, db2 = largest_rival(last=True)(w, b, x, y)
            return (1 - weight) * dw1 + weight * dw2, (1 - weight) * db1 + weight * db2

        diagnosis = jh.diagnose(grad_fn, params, x, y, l2=L2, loss_fn=CRAMMER_SINGER)
        assert diagnosis.ok
        np.testing.assert_array_equal(diagnosis.kink_rows, [0, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.array([0, 3])}, "y must be labels 0..2, one for each column of w; got 0, 3."),
        ({"params": (np.zeros(2), 0.0)}, "w must have shape (d, k)"),
        ({"params": (np.zeros((2, 3)), np.zeros(2))}, "needs b of shape (3,)"),
        ({"x": np.zeros((2, 5))}, "x has shape (2, 5)"),
    ],
)
def test_bad_data_is_refused(change, message):
    arguments = {"params": (np.zeros((2, 3)), np.zeros(3)), "x": np.ones((2, 2)), "y": np.array([0, 1])} | change
    with pytest.raises(ValueError, match=re.escape(message)):
        jh.diagnose(course_notes, **arguments, loss_fn=WESTON_WATKINS)
