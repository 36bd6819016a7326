"""The gradient doctor: right gradients pass, wrong ones are named, and the caller's mistakes are refused."""

import functools
import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from helpers.gradient_styles import HELD_OUT, L2

import jaxhinge as jh

mpl.use("Agg")


def problem(n, d, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    y = np.where(rng.random(n) < 0.4, -1.0, 1.0)
    return (rng.normal(size=d) / np.sqrt(d), 0.4), x, y


def gradient(mask=lambda m: m < 1, l2=L2, divisor=len):
    def grad_fn(w, b, x, y):
        push = -y * mask(y * (x @ w + b)) / divisor(x)
        return x.T @ push + l2 * w, push.sum()

    return grad_fn


@pytest.mark.parametrize(("name", "function", "cause", "l2"), HELD_OUT, ids=[entry[0] for entry in HELD_OUT])
def test_held_out_functions_get_the_cause_a_reader_would_name(name, function, cause, l2):
    diagnosis = jh.diagnose(function, *problem(60, 4), l2=l2)
    assert (diagnosis.cause, diagnosis.ok, bool(diagnosis)) == (cause, cause == "none", cause == "none")


SINGLE = [entry for entry in HELD_OUT if "jax" not in entry[0] and "accumulated" not in entry[2]]
SINGLE = [entry for entry in SINGLE if entry[2] != "unknown" and "+" not in entry[2]]


@pytest.mark.parametrize(("n", "d"), [(1, 2), (9, 1), (300, 40)])
def test_the_cause_does_not_depend_on_the_callers_data(n, d):
    named = {name: jh.diagnose(function, *problem(n, d, seed=n), l2=l2).cause for name, function, _, l2 in SINGLE}
    assert named == {name: cause for name, _, cause, _ in SINGLE}


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("l2", [1e-6, 10.0])
def test_unscaled_features_and_unusual_strengths(scale, l2):
    params, x, y = problem(50, 3, seed=4)
    assert jh.diagnose(gradient(l2=l2), params, scale * x, y, l2=l2).cause == "none"
    assert jh.diagnose(gradient(l2=0.0), params, scale * x, y, l2=l2).cause == "regularizer_missing"
    assert jh.diagnose(gradient(l2=2 * l2), params, scale * x, y, l2=l2).cause == "regularizer_doubled"
    assert jh.diagnose(gradient(l2=l2, divisor=lambda x: 1), params, scale * x, y, l2=l2).cause == "not_averaged"


@pytest.mark.parametrize(
    ("band", "cause"),
    [
        (0.0, "none"),
        (1e-12, "none"),
        (1e-7, "none"),
        (1e-5, "kink_tolerance_too_wide"),
        (1e-3, "kink_tolerance_too_wide"),
        (0.1, "kink_tolerance_too_wide"),
        (0.5, "kink_tolerance_too_wide"),
    ],
)
def test_a_tolerance_is_wrong_once_it_counts_rows_outside_the_kink(band, cause):
    diagnosis = jh.diagnose(gradient(lambda m: m <= 1 + band), *problem(40, 3), l2=L2)
    assert diagnosis.cause == cause
    assert any("tolerance, narrower" in finding for finding in diagnosis.findings) == (band == 1e-7)


def test_a_tolerance_that_drops_violators_is_too_wide_as_well():
    assert jh.diagnose(gradient(lambda m: m < 1 - 1e-3), *problem(40, 3), l2=L2).cause == "kink_tolerance_too_wide"


def test_no_data_hides_the_regulariser():
    params, x, _ = problem(20, 2)
    y = np.ones(20)
    assert jh.diagnose(gradient(l2=0.0), params, 0.0 * x, y, l2=1e-9).cause == "regularizer_missing"
    assert jh.diagnose(gradient(l2=0.3), params, x, y).cause == "regularizer_unexpected"


def test_rows_on_the_kink_and_what_is_taken_there():
    x, y = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [3.0, 0.0]]), np.array([1, 1, -1, 1])
    params = np.array([1.0, 0.5]), 0.0
    taken = {0: lambda m: m < 1, 1: lambda m: m <= 1, 0.5: lambda m: (m < 1) + 0.5 * (m == 1)}
    for fraction, mask in taken.items():
        diagnosis = jh.diagnose(gradient(mask), params, x, y, l2=L2)
        np.testing.assert_array_equal(diagnosis.kink_rows, [0, 1])
        np.testing.assert_allclose(diagnosis.kink_fractions, fraction, atol=1e-9)
        assert diagnosis.kink_choice == {0: "0", 1: "1", 0.5: "1/2"}[fraction]

    def mixed(w, b, x, y):
        margin = y * (x @ w + b)
        push = -y * ((margin < 1) | ((margin == 1) & (x[:, 0] == 1.0))) / len(x)
        return x.T @ push + L2 * w, push.sum()

    diagnosis = jh.diagnose(mixed, params, x, y, l2=L2)
    np.testing.assert_allclose(diagnosis.kink_fractions, [1.0, 0.0], atol=1e-9)
    assert (diagnosis.cause, diagnosis.kink_choice) == ("none", "mixed")


def test_kink_fractions_are_open_where_the_gradient_leaves_them_open():
    x, y = np.ones((5, 1)), np.ones(5)
    diagnosis = jh.diagnose(gradient(lambda m: m <= 1), (np.array([1.0]), 0.0), x, y, l2=L2)
    assert diagnosis.ok
    assert list(diagnosis.kink_rows) == [0, 1, 2, 3, 4]
    assert np.all(np.isnan(diagnosis.kink_fractions))


@pytest.mark.parametrize(
    ("returned", "cause"),
    [
        (lambda dw, db: [list(dw), [db]], "none"),
        (lambda dw, db: {"weights": dw, "intercept": db}, "none"),
        (lambda dw, db: {"grad_W": dw, "grad_b": db}, "none"),
        (lambda dw, db: jh.LinearParams(dw, db), "none"),
        (lambda dw, db: (3.0, dw, db), "none"),
        (lambda dw, db: (dw, db, 3.0), "none"),
        (lambda dw, db: {"loss": 3.0, "dw": dw, "db": db}, "none"),
        (lambda dw, db: (g for g in (dw, db)), "none"),
        (lambda dw, db: (jnp.asarray(dw), jnp.asarray(db)), "none"),
        (lambda dw, db: dw, "bias_gradient_missing"),
        (lambda dw, db: (dw, None), "bias_gradient_missing"),
        (lambda dw, db: {"w": dw}, "bias_gradient_missing"),
        (lambda dw, db: np.roll(dw, 1), "unknown"),
        (lambda dw, db: dw[None, :], "bias_gradient_missing+wrong_shape"),
        (lambda dw, db: (dw[None, :], db), "wrong_shape"),
        (lambda dw, db: (db, dw), "wrong_shape"),
        (lambda dw, db: (dw[:-1], db), "wrong_shape"),
        (lambda dw, db: np.append(dw, db), "wrong_shape"),
        (lambda dw, db: (dw, np.full(7, db)), "wrong_shape"),
        (lambda dw, db: {"x": dw}, "wrong_shape"),
        (lambda dw, db: "dw", "wrong_shape"),
        (lambda dw, db: (dw, "db"), "wrong_shape"),
        (lambda dw, db: (dw, db, dw, db), "wrong_shape"),
        (lambda dw, db: None, "wrong_shape"),
        (lambda dw, db: (dw * np.nan, db), "not_finite"),
    ],
)
def test_whatever_is_returned_is_read_or_described(returned, cause):
    diagnosis = jh.diagnose(lambda *args: returned(*gradient()(*args)), *problem(12, 3), l2=L2)
    assert diagnosis.cause == cause
    assert diagnosis.ok or diagnosis.findings


def test_a_wrong_shape_does_not_hide_another_mistake():
    def column(w, b, x, y):
        dw, db = gradient(l2=0.0)(w, b, x, y)
        return dw[:, None], db

    diagnosis = jh.diagnose(column, *problem(12, 3), l2=L2)
    assert diagnosis.cause == "regularizer_missing+wrong_shape"
    assert "dw.ravel()" in str(diagnosis)


@pytest.mark.parametrize("first", [False, True])
def test_one_array_is_judged_and_the_line_that_splits_it_is_shown(first):
    def both(w, b, x, y):
        dw, db = gradient()(w, b, x, y)
        return np.append(db, dw) if first else np.append(dw, db)

    diagnosis = jh.diagnose(both, *problem(12, 3), l2=L2)
    assert "Its numbers are those of a valid gradient." in diagnosis.findings
    ends = "g[1:], g[0]" if first else "g[:-1], g[-1]"
    assert f"\n    lambda *args: (lambda g: ({ends}))(your_function(*args))\n" in str(diagnosis)
    split = (lambda g: (g[1:], g[0])) if first else (lambda g: (g[:-1], g[-1]))
    assert jh.diagnose(lambda *args: split(both(*args)), *problem(12, 3), l2=L2).ok


def test_the_documented_adapters():
    def columns(w, b, x, y):
        assert y.shape == (len(x), 1)
        return gradient()(w, b, x, y[:, 0])

    def folded(theta, z, y):
        push = -y * (y * (z @ theta) < 1) / len(y)
        return z.T @ push + L2 * np.append(theta[:-1], 0.0)

    def adapted(w, b, x, y):
        g = folded(np.append(w, b), np.c_[x, np.ones(len(x))], y)
        return g[:-1], g[-1]

    assert jh.diagnose(lambda w, b, x, y: columns(w, b, x, y[:, None]), *problem(12, 3), l2=L2).ok
    assert jh.diagnose(adapted, *problem(12, 3), l2=L2).ok


def test_functions_that_take_things_from_outside_are_judged_on_the_callers_rows():
    params, x, y = problem(30, 3)
    fixed_count = jh.diagnose(gradient(divisor=lambda _: 30), params, x, y, l2=L2)
    assert fixed_count.ok
    assert any("n is taken from outside" in finding for finding in fixed_count.findings)
    fixed_data = jh.diagnose(lambda w, b, *_: gradient()(w, b, x, y), params, x, y, l2=L2)
    assert fixed_data.ok
    assert any("ignores the x and y" in finding for finding in fixed_data.findings)
    wrong = jh.diagnose(lambda w, b, *_: gradient(l2=0.0)(w, b, x, y), params, x, y, l2=L2)
    assert wrong.cause == "regularizer_missing"

    def only_thirty_rows(w, b, x, y):
        return gradient()(w, b, x.reshape(30, 3), y)

    assert jh.diagnose(only_thirty_rows, params, x, y, l2=L2).ok


def test_trouble_at_other_points_only():
    def fails_at_zero(w, b, x, y):
        if not np.any(w):
            raise ZeroDivisionError("no direction")
        return gradient()(w, b, x, y)

    diagnosis = jh.diagnose(fails_at_zero, *problem(12, 3), l2=L2)
    assert diagnosis.cause == "raised"
    assert "no direction" in str(diagnosis)

    def refuses_single_rows(w, b, x, y):
        if len(x) == 1:
            raise ValueError("at least two rows")
        return gradient()(w, b, x, y)

    diagnosis = jh.diagnose(refuses_single_rows, *problem(12, 3), l2=L2)
    assert diagnosis.ok
    assert "at least two rows" in str(diagnosis)


def test_inputs_are_copies_and_writing_into_them_is_noted():
    params, x, y = problem(12, 3)
    before = params[0].copy(), x.copy(), y.copy()

    def writes(w, b, x, y):
        result = gradient()(w, b, x, y)
        w[:], x[:], y[:] = 0.0, 0.0, 1.0
        return result

    diagnosis = jh.diagnose(writes, params, x, y, l2=L2)
    for now, then in zip((params[0], x, y), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert diagnosis.ok
    assert any("writes into its argument w and x" in finding for finding in diagnosis.findings)


def test_a_function_of_no_kind_names_what_was_noticed():
    rng = np.random.default_rng(3)
    noisy = jh.diagnose(lambda w, b, x, y: (rng.normal(size=3), 0.0), *problem(12, 3), l2=L2)
    assert any("Two calls with the same arguments differ" in finding for finding in noisy.findings)
    scaled = jh.diagnose(lambda *args: tuple(0.37 * np.asarray(g) for g in gradient()(*args)), *problem(12, 3), l2=L2)
    assert any("0.37 times a valid gradient" in finding for finding in scaled.findings)
    assert "Try next" in str(noisy)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("strict", [True, False])
def test_low_precision_is_not_a_mistake(dtype, strict):
    def grad_fn(w, b, x, y):
        w, b, x, y = (np.asarray(a).astype(jnp.dtype(dtype)) for a in (w, b, x, y))
        margin = y * (x @ w + b)
        push = -y * (margin < 1 if strict else margin <= 1).astype(y.dtype)
        return x.T @ push / np.asarray(len(y), y.dtype) + np.asarray(L2, y.dtype) * w, push.mean()

    for seed in range(3):
        diagnosis = jh.diagnose(grad_fn, *problem(64, 5, seed), l2=L2)
        assert diagnosis.cause == "none", str(diagnosis)
        assert diagnosis.precision == dtype


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": (np.zeros(2), 0.0)}, "x has shape (6, 3), but w of shape (2,)"),
        ({"params": (np.zeros((3, 1)), 0.0)}, "Drop the last axis: w[:, 0]"),
        ({"params": (np.zeros((3, 2)), np.zeros(2))}, "multiclass loss_fn"),
        ({"params": (np.zeros(3), np.zeros(1))}, "Use a scalar: b[0]"),
        ({"params": (np.full(3, np.nan), 0.0)}, "w must be finite; 3 of its 3 values"),
        ({"x": np.full((6, 3), np.inf)}, "x must be finite"),
        ({"x": np.zeros((0, 3)), "y": np.zeros(0)}, "x has shape (0, 3)"),
        ({"y": np.zeros(6)}, "y must be -1 and +1; got 0.0. From 0 and 1: 2 * y - 1."),
        ({"y": np.full(6, np.nan)}, "y must be finite"),
        ({"y": np.ones((6, 1))}, "Drop the last axis: y[:, 0]"),
        ({"y": np.array(["a"] * 6)}, "y must hold numbers"),
        ({"l2": -1.0}, "l2 must be one real number, at least 0"),
        ({"l2": np.nan}, "l2 must be one real number"),
        ({"loss_fn": jh.losses.hinge_embedding_loss}, "loss_fn must be one of jaxhinge.losses.hinge_loss"),
    ],
)
def test_bad_data_is_refused_and_not_diagnosed(change, message):
    calls = []
    arguments = {"params": (np.zeros(3), 0.0), "x": np.ones((6, 3)), "y": np.ones(6), "l2": 0.1} | change
    with pytest.raises(ValueError, match=re.escape(message)):
        jh.diagnose(lambda *args: calls.append(args), **arguments)
    assert not calls


def test_what_cannot_be_used_at_all_is_a_type_error():
    params, x, y = problem(5, 2)
    with pytest.raises(TypeError, match="grad_fn must be a function"):
        jh.diagnose(None, params, x, y)
    with pytest.raises(TypeError, match="adapter in the docstring"):
        jh.diagnose(gradient(), params[0][:1], x, y)
    with pytest.raises(ValueError, match="l2 must be one real number"):
        jh.diagnose(gradient(), params, x, y, l2=[0.1])


def test_another_required_margin():
    loss_fn = functools.partial(jh.losses.hinge_loss, margin=0.3)
    right = jh.diagnose(gradient(lambda m: m < 0.3), *problem(30, 3), l2=L2, loss_fn=loss_fn)
    assert right.ok
    assert jh.diagnose(gradient(), *problem(30, 3), l2=L2, loss_fn=loss_fn).cause != "none"
    perceptron = jh.losses.perceptron_loss
    assert jh.diagnose(gradient(lambda m: m <= 0), *problem(30, 3), l2=L2, loss_fn=perceptron).ok
    assert not jh.diagnose(gradient(), *problem(30, 3), l2=L2, loss_fn=perceptron).ok


def test_the_gradient_of_this_package_is_right_whatever_its_subgradient():
    @jax.jit
    def grad_fn(w, b, x, y, subgradient):
        return jax.grad(jh.loss)((w, b), x, y, l2=L2, subgradient=subgradient)

    for subgradient in (0.0, 0.5, 1.0):
        given = functools.partial(grad_fn, subgradient=subgradient)
        diagnosis = jh.diagnose(given, *problem(12, 3), l2=L2)
        assert (diagnosis.ok, diagnosis.precision) == (True, "float32")


def test_the_report_reads_from_verdict_to_mend():
    diagnosis = jh.diagnose(gradient(divisor=lambda x: 1), *problem(12, 3), l2=L2)
    text = str(diagnosis)
    assert text.startswith("WRONG: not_averaged\n")
    for part in ("sum over the rows", "coordinate", "returned", "expected", "dw_data /= n; db /= n"):
        assert part in text
    assert text.index("expected") < text.index("dw_data /= n")
    assert f"{diagnosis.num_calls} calls" in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_assert_valid_gradient_fails_with_the_report():
    params, x, y = problem(12, 3)
    jh.assert_valid_gradient(gradient(), params, x, y, l2=L2)
    wrong = gradient(l2=0.0)
    with pytest.raises(AssertionError) as failure:
        jh.assert_valid_gradient(wrong, params, x, y, l2=L2)
    assert str(failure.value) == str(jh.diagnose(wrong, params, x, y, l2=L2))


def test_the_plot_draws_every_coordinate_and_says_when_there_is_nothing_to_draw():
    from matplotlib import pyplot

    figure = jh.diagnose(gradient(l2=0.0), *problem(12, 3), l2=L2).plot()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["w[0]", "w[1]", "w[2]", "b"]
    pyplot.close(figure)
    axes = pyplot.subplots()[1]
    assert jh.diagnose(gradient(), *problem(12, 40), l2=L2).plot(ax=axes) is axes.figure
    pyplot.close(axes.figure)
    with pytest.raises(ValueError, match="nothing to draw"):
        jh.diagnose(lambda *_: None, *problem(12, 3), l2=L2).plot()


def test_causes_that_nothing_tells_apart_are_reported_together():
    params, x, _ = problem(20, 3)
    y = np.ones(20)
    # With one label only, and other data out of reach, all pairs are as many times every row.
    diagnosis = jh.diagnose(lambda w, b, *_: gradient(divisor=lambda x: 1)(w, b, x, y), params, x, y, l2=L2)
    assert diagnosis.cause == "unknown"
    assert diagnosis.alternatives == ("broadcast_n_by_n", "not_averaged")
    assert "fit equally well" in str(diagnosis)


@pytest.mark.parametrize(
    ("signs", "cause"), [((-1, -1), "sign_flipped"), ((-1, 1), "weights_sign_flipped"), ((1, -1), "bias_sign_flipped")]
)
def test_signs(signs, cause):
    def grad_fn(w, b, x, y):
        dw, db = gradient(l2=0.0)(w, b, x, y)
        return signs[0] * dw + L2 * w, signs[1] * db

    assert jh.diagnose(grad_fn, *problem(12, 3), l2=L2).cause == cause


@pytest.mark.parametrize(
    ("shrinkage", "cause"),
    [
        (lambda w, n: -L2 * w, "regularizer_sign_flipped"),
        (lambda w, n: L2 * np.sign(w), "regularizer_l1"),
        (lambda w, n: L2 * w * n, "regularizer_times_n"),
        (lambda w, n: 0.37 * w, "regularizer_unexpected"),
    ],
)
def test_other_regularisers(shrinkage, cause):
    def grad_fn(w, b, x, y):
        dw, db = gradient(l2=0.0)(w, b, x, y)
        return dw + shrinkage(w, len(x)), db

    diagnosis = jh.diagnose(grad_fn, *problem(12, 3), l2=L2)
    assert diagnosis.cause == cause
    assert cause != "regularizer_unexpected" or "0.37 * w" in str(diagnosis)


def test_the_other_sign_of_the_bias():
    def grad_fn(w, b, x, y):
        push = -y * (y * (x @ w - b) < 1) / len(x)
        return x.T @ push + L2 * w, -push.sum()

    assert jh.diagnose(grad_fn, *problem(12, 3), l2=L2).cause == "bias_subtracted"


def test_the_worked_example_names_every_mistake():
    path = Path(__file__).parents[2] / "experiments" / "diagnose_gradients.py"
    example = runpy.run_path(str(path))
    params, x, y = example["problem"]()
    functions = dict(example["functions"]())
    found = {name: jh.diagnose(grad_fn, params, x, y, l2=example["L2"]).cause for name, grad_fn in functions.items()}
    found.pop("torch.relu", None)
    assert found == {
        "margin <= 1": "none",
        "margin <= 1 + 1e-7": "none",
        "margin <= 1 + 0.1": "kink_tolerance_too_wide",
        "sum instead of mean": "not_averaged",
        "mean over the violators": "averaged_over_active",
        "no regulariser": "regularizer_missing",
        "regulariser 2 * l2 * w": "regularizer_doubled",
        "everything divided by n": "regularizer_averaged",
        "bias regularised": "bias_regularized",
        "label forgotten": "label_missing",
        "margin < 0": "threshold_at_zero",
        "labels as a column": "broadcast_n_by_n",
        "dw = in the loop": "last_example_only",
    }


def test_a_function_that_ends_the_process_is_a_function_that_raised():
    for judge in (jh.diagnose, jh.diagnose_loss):
        diagnosis = judge(lambda w, b, x, y: exit(3), *problem(5, 2))
        assert diagnosis.cause == "raised"
        assert any("SystemExit: 3" in finding for finding in diagnosis.findings)
