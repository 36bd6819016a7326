"""Pictures: what is drawn, read back from the axes, and what is refused."""

import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import jaxhinge
from jaxhinge import plot

matplotlib.use("Agg")
from matplotlib import pyplot


class Sweep(NamedTuple):
    l2: Any
    val_score: Any
    best_l2: Any


class Path(NamedTuple):
    l2: Any
    params: Any
    gap: Any


class History(NamedTuple):
    loss: Any


class Result(NamedTuple):
    history: Any
    stopped_early: Any = False


SWEEP = Sweep(jnp.array([1.0, 0.01, 0.1]), jnp.array([[0.6, 0.8], [0.7, 0.7], [0.8, 0.9]]), jnp.array(0.1))
W = np.array([[0.1, 0.0, 0.3], [1.0, 0.2, -2.0]])
PATH = Path(np.array([1.0, 0.01]), jaxhinge.LinearParams(W, np.zeros(2)), np.array([1e-6, 1e-4]))
PARAMS = jaxhinge.LinearParams(np.array([1.0, -2.0], np.float32), np.float32(0.5))
X = np.array([[0.5, 0.0], [2.0, 1.0], [-1.0, 0.5], [0.0, 1.0], [3.0, 0.0]], np.float32)
Y = np.array([1, -1, -1, -1, 1])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def labels(ax):
    return [text.get_text() for text in ax.get_legend().texts]


def draw_all(ax=None):
    yield lambda: plot.validation_curve(SWEEP, ax=ax)
    yield lambda: plot.regularization_path(PATH, ax=ax)
    yield lambda: plot.training_history(Result(History(np.array([1.0, 0.5]))), ax=ax)
    yield lambda: plot.margin_histogram(PARAMS, X, Y, ax=ax)
    yield lambda: plot.decision_boundary(PARAMS, X, Y, ax=ax)


def test_each_draws_on_the_axes_given_or_on_new_ones():
    for index, draw in enumerate(draw_all()):
        ax = draw()
        assert isinstance(ax, matplotlib.axes.Axes), index
        assert ax.get_xlabel(), index
        assert ax.get_ylabel(), index
        ax.figure.canvas.draw()  # warnings are errors, so glyphs and limits are in order
    given = pyplot.subplots()[1]
    assert all(draw() is given for draw in draw_all(given))


def test_all_colours_are_of_the_palette():
    palette = {"#000000", "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#555555"}
    for draw in draw_all():
        assert {matplotlib.colors.to_hex(line.get_color()) for line in draw().lines} <= palette


def test_validation_curve():
    ax = plot.validation_curve(SWEEP)
    line, threshold, chosen = ax.lines
    np.testing.assert_allclose(line.get_xdata(), [0.01, 0.1, 1.0], rtol=1e-6)
    np.testing.assert_allclose(line.get_ydata(), [0.7, 0.85, 0.7], rtol=1e-6)
    # Of two scores a and b the standard error is |a - b| / 2.
    band = ax.collections[0].get_paths()[0].vertices
    for l2, low, high in [(0.01, 0.7, 0.7), (0.1, 0.8, 0.9), (1.0, 0.6, 0.8)]:
        at = band[np.isclose(band[:, 0], l2), 1]
        np.testing.assert_allclose([at.min(), at.max()], [low, high], rtol=1e-6)
    np.testing.assert_allclose(threshold.get_ydata(), 0.8, rtol=1e-6)
    np.testing.assert_allclose(chosen.get_xdata(), 0.1, rtol=1e-6)
    assert ax.get_xscale() == "log"
    assert labels(ax)[0] == "mean over 2 folds"


def test_one_fold_has_no_band_and_a_score_of_nan_leaves_a_gap():
    ax = plot.validation_curve(SWEEP._replace(val_score=np.array([[0.5], [np.nan], [0.75]])))
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [np.nan, 0.75, 0.5])
    assert not ax.collections
    assert labels(ax) == ["1 fold", "chosen, l2 = 0.1"]


def test_regularization_path():
    ax = plot.regularization_path(PATH, feature_names=["age", "height", "weight"], most=2)
    drawn = {line.get_label(): line for line in ax.lines}
    assert labels(ax) == ["weight", "age"]
    for name, column in [("age", 0), ("_height", 1), ("weight", 2)]:
        np.testing.assert_array_equal(drawn[name].get_xdata(), [0.01, 1.0])
        np.testing.assert_array_equal(drawn[name].get_ydata(), W[::-1, column])
    right = ax.figure.axes[-1]
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [1e-4, 1e-6])
    assert right.get_yscale() == "log"
    assert "gap" in right.get_ylabel()


def test_a_gap_of_zero_is_drawn_on_a_linear_axis_and_no_names_make_no_legend():
    ax = plot.regularization_path(PATH._replace(gap=np.array([0.0, 1e-4])), most=0)
    assert ax.figure.axes[-1].get_yscale() == "linear"
    assert ax.get_legend() is None


def test_training_history():
    result = jaxhinge.fit(X, Y, l2=0.1, epochs=4)
    ax = plot.training_history(result, label="default")
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), result.history.loss)
    assert ax.lines[0].get_marker() == ""
    assert ax.get_yscale() == "log"
    plot.training_history(Result(History([2.0, -1.0]), stopped_early=True), label="another", ax=ax)
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    assert ax.lines[1].get_marker() == "s"
    assert labels(ax) == ["default", "another"]


def test_training_history_is_linear_where_an_objective_is_not_positive():
    assert plot.training_history(Result(History([2.0, 0.0]))).get_yscale() == "linear"


def test_margin_histogram():
    margin = Y * (X @ PARAMS.w + PARAMS.b)
    assert np.sum(margin == 1) == 1
    ax = plot.margin_histogram(PARAMS, X, Y, bins=9)
    negative, positive = ([bar.get_height() for bar in group] for group in ax.containers)
    assert (sum(negative), sum(positive)) == (3, 2)
    edges = np.array([bar.get_x() for bar in ax.containers[0]])
    width = ax.containers[0][0].get_width()
    np.testing.assert_allclose(np.diff(edges), width)
    for targets, heights in [(-1, negative), (1, positive)]:
        expected = [np.sum((margin >= e) & (margin < e + width) & (targets == Y)) for e in edges]
        np.testing.assert_array_equal(heights, expected)
    assert np.min(np.abs(edges + width / 2 - 1)) < 1e-12 * width + 1e-12
    assert [line.get_xdata()[0] for line in ax.lines] == [1.0, 0.0]
    assert "kink, m = 1 (1 row exactly)" in labels(ax)


def test_margins_all_equal_are_drawn():
    ax = plot.margin_histogram(PARAMS, np.zeros((3, 2), np.float32), np.array([1, 1, 1]), bins=1)
    assert sum(bar.get_height() for group in ax.containers for bar in group) == 3


def test_the_boundary_is_where_the_score_is_zero_and_the_dashes_where_it_is_one():
    ax = plot.decision_boundary(PARAMS, X, Y, resolution=50)
    found = {}
    for contour in ax.collections:
        if not contour.filled:
            for level, path in zip(contour.levels, contour.get_paths(), strict=True):
                scores = path.vertices @ PARAMS.w + PARAMS.b
                np.testing.assert_allclose(scores, level, atol=1e-5)  # float32 scores
                found[float(level)] = len(scores)
    assert found.keys() == {-1.0, 0.0, 1.0}
    points = [line.get_xydata() for line in ax.lines]
    np.testing.assert_array_equal(points[0], X[Y == -1])
    np.testing.assert_array_equal(points[1], X[Y == 1])
    assert labels(ax) == ["y = -1", "y = +1"]


def test_regions_of_several_classes_agree_with_predict():
    rng = np.random.default_rng(0)
    params = jaxhinge.LinearParams(np.array([[1.0, -0.5, -0.5], [0.0, 0.8, -0.8]]), np.array([0.0, 0.2, -0.1]))
    x, y = rng.normal(size=(20, 2)), rng.integers(0, 3, 20)
    ax = plot.decision_boundary(params, x, y, resolution=60)
    fills = [contour for contour in ax.collections if contour.filled]
    assert len(fills) == 3
    predicted = np.asarray(jaxhinge.predict(params, x))
    for c, fill in enumerate(fills):
        inside = fill.get_paths()[0].contains_points(x)
        # Where three classes meet the grid rounds the corner.
        assert np.mean(inside == (predicted == c)) >= 0.9
    assert labels(ax) == ["class 0", "class 1", "class 2"]


def test_a_class_that_is_nowhere_predicted_and_one_feature_without_spread():
    params = jaxhinge.LinearParams(np.array([[0.1, 0.0], [0.0, 0.0]]), np.array([5.0, -5.0]))
    ax = plot.decision_boundary(params, np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([0, 1]), resolution=2)
    assert len([contour for contour in ax.collections if contour.filled]) == 1
    assert labels(ax) == ["class 0", "class 1"]


MULTICLASS = jaxhinge.LinearParams(np.ones((2, 3)), np.zeros(3))


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: plot.validation_curve(PATH), TypeError, "sweep.val_score is needed, but Path has no 'val_score'"),
        (lambda: plot.validation_curve(SWEEP._replace(l2=[0.1, 1.0])), ValueError, r"\(2, folds\); got \(3, 2\)"),
        (lambda: plot.validation_curve(SWEEP._replace(l2=[0.0, 1.0, 2.0])), ValueError, "above 0.*smallest is 0.0"),
        (lambda: plot.validation_curve(SWEEP._replace(best_l2=-1.0)), ValueError, "sweep.best_l2 must be the chosen"),
        (lambda: plot.validation_curve(SWEEP, ax=np.array([1, 2])), TypeError, r"ax must be .* ndarray. Choose one"),
        (lambda: plot.validation_curve(SWEEP, ax=7), TypeError, "ax must be a matplotlib Axes.*got int"),
        (lambda: plot.regularization_path(SWEEP), TypeError, "Sweep has no 'params': pass what jaxhinge.path returns"),
        (
            lambda: plot.regularization_path(PATH._replace(params=MULTICLASS._replace(w=np.ones((2, 3, 4))))),
            ValueError,
            r"\(k, d\) = \(2, d\); got \(2, 3, 4\). Draw one class",
        ),
        (lambda: plot.regularization_path(PATH._replace(gap=[1e-3])), ValueError, r"path.gap must have the shape"),
        (lambda: plot.regularization_path(PATH, feature_names=["a"]), ValueError, "name the 3 features; got 1"),
        (lambda: plot.regularization_path(PATH, most=8), ValueError, "most must be at most 7"),
        (lambda: plot.training_history(History([1.0])), TypeError, "History has no 'history': pass what jaxhinge.fit"),
        (lambda: plot.training_history(Result(History([]))), ValueError, r"shape \(epochs,\); got \(0,\)"),
        (lambda: plot.margin_histogram(PARAMS, X, (1 + Y) // 2), ValueError, r"got \[0, 1\]. Labels 0 and 1 become"),
        (lambda: plot.margin_histogram(MULTICLASS, X, Y), ValueError, "one score per row"),
        (lambda: plot.margin_histogram(PARAMS, X, Y[:3]), ValueError, r"y has shape \(3,\), but x has 5 rows"),
        (lambda: plot.margin_histogram(PARAMS, X * np.nan, Y), ValueError, "x has NaN"),
        (lambda: plot.margin_histogram((PARAMS.w * np.inf, PARAMS.b), X, Y), ValueError, "the scores of params on x"),
        (lambda: plot.margin_histogram(PARAMS, X, Y, bins=0), ValueError, "bins must be at least 1"),
        (lambda: plot.decision_boundary(PARAMS, X[:, :1], Y), ValueError, r"two features; got x of shape \(5, 1\)"),
        (lambda: plot.decision_boundary(MULTICLASS, X, Y), ValueError, r"labels 0..2 .* got values from -1 to 1"),
        (lambda: plot.decision_boundary(PARAMS, X, Y, resolution=1), ValueError, "resolution must be at least 2"),
    ],
)
def test_refused(draw, error, message):
    with pytest.raises(error, match=message):
        draw()


def test_traced_values_are_refused():
    with pytest.raises(TypeError, match="x is traced"):
        jax.jit(lambda x: plot.margin_histogram(PARAMS, x, Y))(X)


def test_without_matplotlib_the_extra_is_named_and_the_import_costs_nothing():
    code = (
        "import sys, jaxhinge\n"
        "assert 'matplotlib' not in sys.modules\n"
        "sys.modules['matplotlib'] = None\n"
        "try: jaxhinge.plot.margin_histogram(([1.0], 0.0), [[1.0]], [1])\n"
        "except ImportError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'jaxhinge[plot]'" in said
