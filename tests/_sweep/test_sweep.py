"""`sweep` and `path` against problems solved one at a time, scikit-learn's metrics and folds, and bad input."""

import itertools
import threading

import jax
import numpy as np
import pandas as pd
import pytest
from helpers.svm_references import Machine, primal_value, relative_gap
from sklearn import metrics
from sklearn.model_selection import GroupKFold, LeaveOneOut, RepeatedStratifiedKFold, StratifiedKFold

import jaxhinge as jh
from jaxhinge._methods.batch import problems_at_once
from jaxhinge._sweep.folds import make_folds
from jaxhinge._sweep.scores import METRICS
from jaxhinge._sweep.sweep import chosen_strength

RNG = np.random.default_rng(0)
N, D = 60, 4
X = RNG.normal(size=(N, D))
Y = np.where(X @ [1.0, -0.5, 0.3, 0.0] + 0.7 * RNG.normal(size=N) > 0.2, 1, -1)
LABELS = np.argmax(X[:, :3] + 0.4 * RNG.normal(size=(N, 3)), axis=1)
L2 = np.array([0.01, 1.0, 0.1])
FOLDS = np.arange(N) % 3


@pytest.fixture(scope="module")
def swept():
    return jh.sweep(X, Y, l2=L2, folds=FOLDS, as_numpy=True)


def problems(y=Y, weight=None):
    """Each (row of l2, fold) with the machine of its training rows."""
    weight = np.ones(N) if weight is None else weight
    for row, fold in itertools.product(range(len(L2)), range(3)):
        train = fold != FOLDS
        yield row, fold, Machine(X[train], y[train], L2[row], weight=weight[train])


def test_every_problem_is_certified_by_its_own_gap(swept):
    assert swept.val_score.shape == swept.gap.shape == swept.status.shape == swept.steps.shape == (3, 3)
    assert swept.params.w.shape == (3, 3, D)
    assert swept.params.b.shape == (3, 3)
    for row, fold, machine in problems():
        w, b = swept.params.w[row, fold], swept.params.b[row, fold]
        exact = jh.solve(machine.x, machine.y, l2=machine.l2, tol=1e-9, as_numpy=True)
        excess = primal_value(machine, (w, b)) - exact.primal_value
        assert -1e-9 <= excess <= swept.gap[row, fold] + 1e-9
        assert swept.gap[row, fold] <= 1e-4 * primal_value(machine, (w, b)) * (1 + 1e-9)
    assert (swept.status == jh.Status.CONVERGED).all()


def test_scores_are_of_the_rows_held_out_alone(swept):
    for row, fold, _ in problems():
        held_out = fold == FOLDS
        scores = X[held_out] @ swept.params.w[row, fold] + swept.params.b[row, fold]
        assert swept.val_score[row, fold] == metrics.accuracy_score(Y[held_out], np.where(scores > 0, 1, -1))


def test_the_best_is_refitted_on_all_rows(swept):
    mean = swept.val_score.mean(axis=1)
    best = L2[mean == mean.max()].max()
    assert swept.best_l2 == best
    alone = jh.solve(X, Y, l2=best, tol=1e-9, as_numpy=True)
    assert relative_gap(Machine(X, Y, best), swept.best) <= 1e-4
    assert swept.best.primal_value == pytest.approx(alone.primal_value, rel=1e-4)
    scores = X @ swept.best.params.w + swept.best.params.b
    np.testing.assert_array_equal(swept.predict(X), np.where(scores > 0, 1, -1))


def test_it_prints_as_a_table(swept):
    heads, *lines = str(swept).splitlines()
    assert heads.split("   ")[-4:] == ["mean score", "std. error", "largest gap", "converged"]
    for i, line in enumerate(lines):
        numbers = [float(part) for part in line.split()[:4]]
        error = swept.val_score[i].std(ddof=1) / np.sqrt(3)
        expected = [L2[i], swept.val_score[i].mean(), error, swept.gap[i].max()]
        np.testing.assert_allclose(numbers, expected, rtol=0.05)
        assert line.split()[4:7] == ["3", "of", "3"]
        assert line.endswith("best") == (L2[i] == swept.best_l2)


def test_weights_go_into_training_and_scores():
    weight = RNG.integers(0, 3, N).astype(float)
    twice = np.repeat(np.arange(N), weight.astype(int))
    weighed = jh.sweep(X, Y, l2=L2, folds=FOLDS, sample_weight=weight, tol=1e-9, as_numpy=True)
    repeated = jh.sweep(X[twice], Y[twice], l2=L2, folds=FOLDS[twice], tol=1e-9, as_numpy=True)
    np.testing.assert_allclose(weighed.val_score, repeated.val_score, rtol=1e-12)
    np.testing.assert_allclose(weighed.params.w, repeated.params.w, atol=1e-5)


def test_classes_are_one_against_the_rest_and_scored_together():
    result = jh.sweep(X, LABELS, l2=L2, folds=FOLDS, as_numpy=True)
    assert result.params.w.shape == (3, 3, D, 3)
    assert result.best.params.w.shape == (D, 3)
    for row, fold in itertools.product(range(3), range(3)):
        held_out = fold == FOLDS
        w, b = result.params.w[row, fold], result.params.b[row, fold]
        predicted = np.argmax(X[held_out] @ w + b, axis=1)
        assert result.val_score[row, fold] == pytest.approx(np.mean(predicted == LABELS[held_out]))
        value = 0
        for label in range(3):
            y = np.where(label == LABELS, 1, -1)[~held_out]
            value += primal_value(Machine(X[~held_out], y, L2[row]), (w[:, label], b[label]))
        assert 0 <= result.gap[row, fold] <= 1e-4 * value
    whole = jh.loss(result.best.params, X, LABELS, l2=result.best_l2, loss_fn=jh.losses.one_vs_rest_hinge_loss)
    assert result.best.primal_value == pytest.approx(float(whole), rel=1e-5)


def test_sets_of_weights_and_columns_of_targets_lead(swept):
    columns = np.stack([Y, -Y, np.where(LABELS == 0, 1, -1)], axis=1)
    sets = np.stack([np.ones(N), RNG.uniform(0.5, 2, N)])
    result = jh.sweep(X, columns, l2=L2, folds=FOLDS, sample_weight=sets, as_numpy=True)
    assert result.val_score.shape == (2, 3, 3, 3)
    assert result.best_l2.shape == result.best.gap.shape == (2, 3)
    assert result.params.w.shape == (2, 3, 3, 3, D)
    np.testing.assert_array_equal(result.val_score[0, 0], swept.val_score)
    for row, fold, machine in problems(columns[:, 2], sets[1]):
        w, b = result.params.w[1, 2, row, fold], result.params.b[1, 2, row, fold]
        assert result.gap[1, 2, row, fold] <= 1e-4 * primal_value(machine, (w, b)) * (1 + 1e-9)


@pytest.mark.parametrize("name", list(METRICS))
def test_metrics_are_those_of_scikit_learn(name):
    rng = np.random.default_rng(1)
    y, weight = np.where(rng.random(50) > 0.7, 1, -1), rng.uniform(0, 2, 50)
    scores = np.round(rng.normal(size=50) + y, 1)
    expected = {
        "accuracy": lambda: metrics.accuracy_score(y, np.where(scores > 0, 1, -1), sample_weight=weight),
        "balanced_accuracy": lambda: metrics.balanced_accuracy_score(
            y, np.where(scores > 0, 1, -1), sample_weight=weight
        ),
        "roc_auc": lambda: metrics.roc_auc_score(y, scores, sample_weight=weight),
        "hinge": lambda: -metrics.hinge_loss(y, scores, sample_weight=weight),
    }
    assert METRICS[name](y, scores, weight) == pytest.approx(expected[name]())


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy"])
def test_metrics_of_several_classes(name):
    scores = RNG.normal(size=(N, 3)) + np.eye(3)[LABELS]
    expected = getattr(metrics, f"{name}_score")(LABELS, scores.argmax(axis=1))
    assert METRICS[name](LABELS, scores, np.ones(N)) == pytest.approx(expected)


def test_folds_are_stratified_disjoint_and_by_key():
    train, held_out = make_folds(4, X, LABELS, np.ones(N, bool), 3)
    assert (held_out.sum(axis=0) == 1).all()
    np.testing.assert_array_equal(train, ~held_out)
    counts = np.array([[np.sum(LABELS[rows] == label) for label in range(3)] for rows in held_out])
    assert np.ptp(counts, axis=0).max() <= 1
    again, other = (make_folds(4, X, LABELS, np.ones(N, bool), key).held_out for key in (3, 4))
    np.testing.assert_array_equal(again, held_out)
    assert (other != held_out).any()
    key = make_folds(4, X, LABELS, np.ones(N, bool), jax.random.key(3)).held_out
    assert (key.sum(axis=0) == 1).all()


def test_splitters_and_pairs_of_rows_hold_out_what_they_say():
    splitter = RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0)
    pairs = list(splitter.split(X, Y))
    for folds in (splitter, pairs):
        train, held_out = make_folds(folds, X, Y, np.ones(N, bool), 0)
        for number, (inside, outside) in enumerate(pairs):
            np.testing.assert_array_equal(np.flatnonzero(train[number]), inside)
            np.testing.assert_array_equal(np.flatnonzero(held_out[number]), outside)
    train, held_out = make_folds(np.where(np.arange(N) < 20, -1, FOLDS), X, Y, np.ones(N, bool), 0)
    assert train[:, :20].all()
    assert not held_out[:, :20].any()


def test_one_standard_error_takes_the_strongest_within_it():
    l2 = np.array([0.1, 1.0, 10.0])
    scores = np.array([[0.8, 0.9, 1.0], [0.80, 0.86, 0.90], [0.5, 0.5, 0.5]])
    error = np.std([0.8, 0.9, 1.0], ddof=1) / np.sqrt(3)
    assert 0.9 - error < np.mean(scores[1]) < 0.9
    assert chosen_strength(l2, scores, "mean") == 0.1
    assert chosen_strength(l2, scores, "one_standard_error") == 1.0


def test_a_callable_scores_rows_held_out():
    seen = []

    def scoring(targets, scores):
        seen.append((targets, scores))
        return len(targets)

    result = jh.sweep(X, Y, l2=L2, folds=FOLDS, scoring=scoring, as_numpy=True)
    assert (result.val_score == N / 3).all()
    assert len(seen) == 9
    # Equal scores: the strongest.
    assert result.best_l2 == 1.0


def test_results_are_in_the_dtype_of_the_caller():
    result = jh.sweep(X.astype(np.float32), Y, l2=L2, folds=FOLDS)
    assert all(leaf.dtype in (np.float32, np.int32) for leaf in jax.tree.leaves(result)[:-1])
    assert isinstance(result.val_score, jax.Array)


def test_a_new_grid_over_other_rows_of_that_shape_does_not_compile_again(compilations):
    jh.sweep(X, Y, l2=L2, folds=FOLDS, tol=1e-12)
    with compilations() as names:
        jh.sweep(-X, Y, l2=3 * L2, folds=FOLDS[::-1].copy(), tol=1e-3)
    assert names == []


def test_a_small_budget_solves_fewer_at_once_and_the_same():
    small = jh.sweep(X, Y, l2=L2[:1], folds=FOLDS, memory_budget=40_000, tol=1e-8, as_numpy=True)
    large = jh.sweep(X, Y, l2=L2[:1], folds=FOLDS, tol=1e-8, as_numpy=True)
    np.testing.assert_allclose(small.params.w, large.params.w, atol=1e-5)


def test_the_budget_counts_what_grows_with_the_square_of_the_features():
    # 60 lanes, each with matrices of 4 * 700^2 bytes: 118 MB for one of each.
    assert problems_at_once(60, np.zeros((1024, 700), np.float32), 1024, memory_budget=118e6) < 60
    assert problems_at_once(60, np.zeros((1024, 7), np.float32), 1024, memory_budget=118e6) == 60
    with pytest.raises(ValueError, match="one problem of 2048 rows and 1500 features needs about"):
        problems_at_once(60, np.zeros((2048, 1500), np.float32), 2048, memory_budget=70e6)


def test_a_path_is_the_solutions_at_its_points():
    l2 = np.logspace(0, -4, 12)
    path = jh.path(X, Y, l2=l2, as_numpy=True)
    assert path.params.w.shape == (12, D)
    for row, strength in enumerate(l2):
        machine = Machine(X, Y, strength)
        value = primal_value(machine, (path.params.w[row], path.params.b[row]))
        assert value == pytest.approx(path.primal_value[row], rel=1e-12)
        assert path.gap[row] <= 1e-4 * value
        assert (
            relative_gap(
                machine,
                jh.Solution(
                    *(leaf[row] if i else jh.LinearParams(*(p[row] for p in leaf)) for i, leaf in enumerate(path[1:]))
                ),
            )
            <= 1e-4
        )
    cold = sum(int(jh.solve(X, Y, l2=strength).steps) for strength in l2)
    assert path.steps.sum() < 0.7 * cold


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"l2": 0.1}, r"l2 must be a vector"),
        ({"l2": [0.1, 0.0]}, r"l2 must be above 0"),
        ({"l2": [0.1, np.nan]}, r"l2 has NaN"),
        ({"l2": []}, r"l2 must be a vector"),
        ({"scoring": "f1"}, r"scoring must be one of 'accuracy'"),
        ({"select": "median"}, r"select must be"),
        ({"folds": 1}, r"folds must be at least 2"),
        ({"folds": 40}, r"class .* has only"),
        ({"folds": np.where(Y > 0, 0, 1)}, r"Fold 0 trains on .* none of them of class 1"),
        ({"folds": FOLDS[:-1]}, r"folds has shape \(59,\)"),
        ({"folds": [(np.arange(30), np.arange(30, 61))]}, r"folds\[0\], rows held out: row numbers"),
        ({"folds": [(np.array([1, 1, 2]), np.arange(3))]}, r"a row is listed twice"),
        ({"folds": []}, r"folds is empty"),
        ({"memory_budget": 1000}, r"memory_budget is 1e-06 GB, but one problem"),
        ({"y": np.where(Y > 0, 1, 0)[:, None]}, r"y must be -1 and \+1"),
        ({"y": np.ones(N)}, r"one class only"),
        ({"y": np.where(LABELS == 1, 3, LABELS)}, r"no row of class 1"),
        ({"x": np.where(X > 1, np.nan, X)}, r"x has NaN"),
        ({"sample_weight": -np.ones(N)}, r"must not be negative"),
        ({"sample_weight": np.ones((2, N - 1))}, r"sample_weight\[0\] has shape"),
        ({"tol": -1}, r"tol must be"),
        ({"on_interrupt": "stop"}, r"on_interrupt must be"),
        ({"scoring": lambda targets, scores: np.nan}, r"scoring gave NaN"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        jh.sweep(**{"x": X, "y": Y, "l2": L2, "folds": FOLDS} | arguments)


ONE_FOLD = [(np.arange(40), np.arange(40, N))]
FEW = np.where((Y > 0) & (np.cumsum(Y > 0) > 2), -1, Y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": LeaveOneOut(), "scoring": "roc_auc"}, r"roc_auc needs rows of both classes.* fold 0 holds out none"),
        ({"folds": ONE_FOLD, "select": "one_standard_error"}, r"needs two folds at least"),
        ({"folds": GroupKFold(3)}, r"GroupKFold does not split .*list\(splitter.split\(x, y, groups\)\)"),
        ({"y": np.stack([Y, FEW], axis=1), "folds": 3}, r"class 1 has only 2 rows"),
        ({"sample_weight": np.stack([np.ones(N), FOLDS != 1])}, r"Fold 1 holds no row with weight out in problem 1"),
        (
            {"sample_weight": np.stack([np.ones(N), (FOLDS == 1) | (Y < 0)])},
            r"Fold 1 trains .* problem 1, none .* class 1",
        ),
        ({"sample_weight": np.ones((0, N))}, r"no set of weights"),
        ({"y": None}, r"y has shape \(\)"),
        ({"scoring": ["accuracy"]}, r"scoring must be one of"),
    ],
)
def test_nothing_is_solved_before_what_is_wrong_is_named(monkeypatch, arguments, message):
    monkeypatch.setattr("jaxhinge._sweep.grid.solve_batch", lambda *_: pytest.fail("solved"))
    with pytest.raises(ValueError, match=message):
        jh.sweep(**{"x": X, "y": Y, "l2": L2, "folds": FOLDS} | arguments)


def test_features_of_mixed_kinds_are_refused_with_the_call_that_mends_them():
    frame = pd.DataFrame(X).assign(dummy=Y > 0)
    with pytest.raises(TypeError, match=r"x must be real numbers.* several types: x\.astype\(float\)"):
        jh.sweep(frame, Y, l2=L2, folds=FOLDS)


def test_a_callable_must_return_a_number():
    with pytest.raises(TypeError, match="scoring must return one number for the rows of a fold; got None"):
        jh.sweep(X, Y, l2=L2, folds=FOLDS, scoring=lambda targets, scores: None)


def test_a_splitter_sees_labels_where_there_are_several_sets_of_weights():
    # As many sets as features: the leading axis of the weights is not that of the features.
    splitter, sets = StratifiedKFold(3), np.stack([np.ones(N), np.where(Y > 0, 3.0, 1.0)] * 2)
    assert len(sets) == D
    result = jh.sweep(X, Y, l2=L2, folds=splitter, sample_weight=sets, as_numpy=True)
    for number, weight in enumerate(sets[:2]):
        alone = jh.sweep(X, Y, l2=L2, folds=splitter, sample_weight=weight, as_numpy=True)
        np.testing.assert_allclose(result.val_score[number], alone.val_score, atol=1e-12)
    predicted = result.predict(X)
    assert predicted.shape == (D, N)
    for row in range(D):
        params = jax.tree.map(lambda leaf: leaf[row], result.best.params)  # noqa: B023
        np.testing.assert_array_equal(predicted[row], jh.predict(params, X))


def test_threads_do_not_wait_for_each_other_for_ever():
    # So many rows, features and lanes, because smaller factorisations are not dealt out to threads.
    x = RNG.normal(size=(500, 32))
    y = np.where(x[:, 0] + RNG.normal(size=500) > 0, 1, -1)
    jh.sweep(x, y, l2=L2, folds=20)

    def work():
        for _ in range(3):
            jh.sweep(x, y, l2=L2, folds=20)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("folds", ["5", 2.5, None, [3.5, 1.0], [(1, 2, 3)], StratifiedKFold])
def test_folds_of_no_kind_are_refused(folds):
    with pytest.raises((TypeError, ValueError), match="folds"):
        jh.sweep(X, Y, l2=L2, folds=folds)


def test_an_interruption_returns_what_was_reached_if_asked(monkeypatch):
    from jaxhinge._sweep import grid as sweep_grid

    solve_batch, calls = sweep_grid.solve_batch, []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return solve_batch(*arguments)

    monkeypatch.setattr(sweep_grid, "solve_batch", interrupted)
    result = jh.sweep(X, Y, l2=L2, folds=FOLDS, on_interrupt="return", as_numpy=True)
    assert result.interrupted
    # From the strongest down: the weakest, first in the grid, was not reached.
    assert (result.steps[0] == 0).all()
    assert (result.gap[0] == 1).all()
    assert result.best_l2 in L2[1:]
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        jh.sweep(X, Y, l2=L2, folds=FOLDS)


def test_stratified_folds_serve_as_those_of_scikit_learn():
    splitter = StratifiedKFold(3, shuffle=True, random_state=1)
    result = jh.sweep(X, Y, l2=L2, folds=splitter, scoring="roc_auc", as_numpy=True)
    for fold, (train, held_out) in enumerate(splitter.split(X, Y)):
        alone = jh.solve(X[train], Y[train], l2=L2[2], tol=1e-8, as_numpy=True)
        expected = metrics.roc_auc_score(Y[held_out], X[held_out] @ alone.params.w + alone.params.b)
        assert result.val_score[2, fold] == pytest.approx(expected, abs=0.01)
