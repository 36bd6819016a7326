"""The scikit-learn estimators: its own suite of checks, LIBLINEAR and LIBSVM as peers, and how they are used."""

import pickle
import re
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, ShuffleSplit, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR
from sklearn.utils.estimator_checks import check_estimator

import jaxhinge
from jaxhinge.sklearn import HingeClassifier, HingeClassifierCV, HingeRegressor

CLASSIFIERS = [HingeClassifier, HingeClassifierCV]
ALL = [*CLASSIFIERS, HingeRegressor]
# LIBSVM and LIBLINEAR stop where the conditions of optimality are violated by this.
PEER_TOL = 1e-10
# LIBSVM keeps single precision in its cache.
PEER_ROUNDING = 1e-4


def data(n=60, classes=2, seed=0):
    """Rows of 4 features, labels 0..k-1 and a real target, all of which overlap."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)) + np.array([0.5, 0.0, 0.0, -0.2])
    hidden = x @ [1.0, -0.5, 1.0, 0.0] + 0.8 * rng.normal(size=n)
    return x, np.digitize(hidden, np.quantile(hidden, np.arange(1, classes) / classes)), hidden


X, Y, REAL = data()
WEIGHT = np.random.default_rng(1).integers(0, 4, len(X)).astype(float)


def target(estimator):
    return REAL if isinstance(estimator, HingeRegressor) else Y


@pytest.mark.parametrize("estimator", ALL)
def test_every_check_of_scikit_learn_passes(estimator):
    with warnings.catch_warnings():
        # One check splits five rows in three.
        warnings.filterwarnings("ignore", "The least populated class in y has only")
        # The checks fit a hundred times, each time all values of C.
        small = estimator(Cs=[0.1, 1.0], cv=3) if estimator is HingeClassifierCV else estimator()
        results = check_estimator(small, on_fail=None, on_skip=None)
    assert [r["check_name"] for r in results if r["status"] not in ("passed", "skipped")] == []
    # This one asks for an environment variable, set before SciPy is imported.
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert len(results) > 50


# What the peers minimise.


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_a_free_intercept_is_that_of_libsvm(C):
    peer = SVC(kernel="linear", C=C, tol=PEER_TOL, class_weight={0: 2.0}).fit(X, Y, WEIGHT)
    ours = HingeClassifier(C=C, class_weight={0: 2.0}).fit(X, Y, WEIGHT)
    np.testing.assert_allclose(ours.coef_, peer.coef_, atol=PEER_ROUNDING)
    np.testing.assert_allclose(ours.intercept_, peer.intercept_, atol=PEER_ROUNDING)


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_a_regularized_intercept_is_that_of_liblinear(loss):
    peer = LinearSVC(C=0.1, loss=loss, dual=True, tol=PEER_TOL, max_iter=1_000_000, random_state=0).fit(X, Y)
    ours = HingeClassifier(C=0.1, loss=loss, fit_intercept="regularized").fit(X, Y)
    np.testing.assert_allclose(ours.coef_, peer.coef_, rtol=1e-6)
    np.testing.assert_allclose(ours.intercept_, peer.intercept_, rtol=1e-6)


def test_without_an_intercept():
    peer = LinearSVC(C=0.1, loss="hinge", fit_intercept=False, tol=PEER_TOL, max_iter=1_000_000, random_state=0)
    ours = HingeClassifier(C=0.1, fit_intercept=False).fit(X, Y)
    np.testing.assert_allclose(ours.coef_, peer.fit(X, Y).coef_, rtol=1e-6)
    np.testing.assert_array_equal(ours.intercept_, [0.0])


def test_several_classes_are_one_against_the_rest():
    x, y, _ = data(classes=3)
    ours = HingeClassifier(C=0.5).fit(x, y)
    for number in range(3):
        alone = HingeClassifier(C=0.5).fit(x, y == number)
        np.testing.assert_array_equal(ours.coef_[number], alone.coef_[0])
        assert ours.intercept_[number] == alone.intercept_[0]
    np.testing.assert_array_equal(ours.predict(x), np.argmax(ours.decision_function(x), axis=1))


@pytest.mark.parametrize("C", [0.01, 10.0])
def test_regression_is_that_of_libsvm(C):
    peer = SVR(kernel="linear", C=C, epsilon=0.3, tol=PEER_TOL).fit(X, REAL, WEIGHT)
    ours = HingeRegressor(C=C, epsilon=0.3).fit(X, REAL, WEIGHT)
    np.testing.assert_allclose(ours.coef_, peer.coef_[0], atol=PEER_ROUNDING)
    assert ours.intercept_ == pytest.approx(peer.intercept_[0], abs=PEER_ROUNDING)
    np.testing.assert_allclose(ours.predict(X), X @ ours.coef_ + ours.intercept_)


def test_squared_regression_is_that_of_liblinear():
    loss = "squared_epsilon_insensitive"
    peer = LinearSVR(C=0.1, epsilon=0.3, loss=loss, tol=PEER_TOL, max_iter=1_000_000, random_state=0).fit(X, REAL)
    ours = HingeRegressor(C=0.1, epsilon=0.3, loss=loss, fit_intercept="regularized").fit(X, REAL)
    np.testing.assert_allclose(ours.coef_, peer.coef_, rtol=1e-6)


def test_the_gap_bounds_the_objective():
    model = HingeClassifier(C=3.0).fit(X, Y, WEIGHT)
    gap = jaxhinge.duality_gap(
        (model.coef_[0], model.intercept_[0]), X, np.where(Y == 1, 1, -1), l2=model.l2_, sample_weight=WEIGHT
    )
    # That bound is improved to 1e-7 of the objective.
    assert model.dual_gap_ <= float(gap) + 1e-12 < 1e-6
    assert model.l2_ == pytest.approx(1 / (3 * WEIGHT.sum()))
    assert model.n_iter_ >= 1


# Weights are rows.


@pytest.mark.parametrize("C", [1e-2, 1.0, 1e4])
@pytest.mark.parametrize(
    "estimator",
    [
        HingeClassifier(class_weight="balanced"),
        HingeClassifier(loss="squared_hinge", fit_intercept="regularized"),
        HingeClassifier(fit_intercept="regularized"),
        HingeRegressor(),
        HingeRegressor(loss="squared_epsilon_insensitive", fit_intercept="regularized"),
    ],
    ids=str,
)
def test_a_weight_of_two_is_a_row_given_twice(estimator, C):
    y, repeats = target(estimator), WEIGHT.astype(int)
    weighted = clone(estimator).set_params(C=C).fit(X, y, WEIGHT)
    repeated = clone(estimator).set_params(C=C).fit(X.repeat(repeats, axis=0), y.repeat(repeats))
    # Rounding, times the condition of the rows on the margin.
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, rtol=1e-9, atol=1e-12)
    assert weighted.dual_gap_ < 1e-12


def test_weights_count_in_the_scores_of_folds_too():
    rng = np.random.default_rng(2)
    fold, repeats = rng.integers(0, 3, len(X)), WEIGHT.astype(int)
    options = {"Cs": [1e-3, 1e-2, 1e-1, 1.0], "scoring": "balanced_accuracy"}
    splits = [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(3)]
    weighted = HingeClassifierCV(cv=splits, **options).fit(X, Y, WEIGHT)
    fold = fold.repeat(repeats)
    splits = [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(3)]
    repeated = HingeClassifierCV(cv=splits, **options).fit(X.repeat(repeats, axis=0), Y.repeat(repeats))
    np.testing.assert_allclose(weighted.scores_, repeated.scores_)
    assert weighted.C_ == repeated.C_
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-9)


@pytest.mark.parametrize("estimator", ALL)
def test_true_of_numpy_is_true(estimator):
    y = target(estimator())
    ours, theirs = estimator().fit(X, y), estimator(fit_intercept=np.True_).fit(X, y)
    np.testing.assert_array_equal(ours.coef_, theirs.coef_)
    np.testing.assert_array_equal(ours.intercept_, theirs.intercept_)


def test_a_free_intercept_is_the_middle_of_the_optimal_ones():
    model = HingeClassifier(C=0.1).fit(np.array([[-2.0], [1.0]]), [0, 1])
    # w = 0.1 * 3 = 0.3: all intercepts from -1 + 0.6 to 1 - 0.3 are optimal.
    np.testing.assert_allclose(model.coef_, [[0.3]])
    np.testing.assert_allclose(model.intercept_, [0.15])


# Cross-validation.


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("scoring", ["accuracy", "hinge", "f1_macro"])
def test_the_scores_are_those_of_a_grid_search(classes, scoring):
    x, y, _ = data(classes=classes)
    Cs, cv = [1e-3, 1e-1, 10.0], StratifiedKFold(3, shuffle=True, random_state=0)
    ours = HingeClassifierCV(Cs=Cs, cv=cv, scoring=scoring).fit(x, y)

    def minus_mean_hinge(model, rows, labels):
        sign = np.where(labels[:, None] == model.classes_, 1, -1)
        scores = model.decision_function(rows)
        scores = np.column_stack([-scores, scores]) / 2 if scores.ndim == 1 else scores
        losses = np.maximum(0, 1 - sign * scores * (2 if len(model.classes_) == 2 else 1)).sum(axis=1)
        return -losses.mean() / (2 if len(model.classes_) == 2 else 1)

    peer = GridSearchCV(
        HingeClassifier(), {"C": Cs}, cv=cv, scoring=minus_mean_hinge if scoring == "hinge" else scoring
    ).fit(x, y)
    for fold in range(3):
        # The folds of the sweep are solved to a gap of 1e-8, not polished.
        np.testing.assert_allclose(ours.scores_[fold], peer.cv_results_[f"split{fold}_test_score"], atol=1e-5)
    assert peer.best_params_["C"] == ours.C_
    assert ours.best_score_ == pytest.approx(peer.best_score_, abs=1e-5)
    np.testing.assert_allclose(ours.coef_, peer.best_estimator_.coef_, rtol=1e-9)
    assert ours.fold_gaps_.shape == ours.scores_.shape == (3, 3)
    assert (ours.fold_gaps_ < 1e-7).all()


def test_callables_score_too_and_are_given_the_weights():
    seen = []

    def scorer(model, rows, labels, sample_weight=None):
        seen.append(sample_weight)
        return roc_auc_score(labels, model.decision_function(rows), sample_weight=sample_weight)

    ours = HingeClassifierCV(Cs=[0.1, 1.0], cv=3, scoring=scorer).fit(X, Y, WEIGHT)
    named = HingeClassifierCV(Cs=[0.1, 1.0], cv=3, scoring="roc_auc").fit(X, Y, WEIGHT)
    np.testing.assert_allclose(ours.scores_, named.scores_)
    assert all(weight is not None for weight in seen)
    seen.clear()
    HingeClassifierCV(Cs=[0.1, 1.0], cv=3, scoring=scorer).fit(X, Y)
    assert seen == [None] * 6
    made = make_scorer(f1_score, pos_label="b")
    HingeClassifierCV(Cs=[0.1, 1.0], cv=3, scoring=made).fit(X, np.array(["a", "b"])[Y])


def test_weights_reach_only_scorers_that_ask_for_them():
    seen = []

    def by_name(model, rows, labels):
        seen.append(model.score(rows, labels))
        return seen[-1]

    def metric(labels, predicted):
        return np.mean(labels == predicted)

    for scoring in (by_name, make_scorer(metric), "adjusted_rand_score"):
        ours = HingeClassifierCV(Cs=[0.1, 1.0], cv=3, scoring=scoring).fit(X, Y, WEIGHT)
        assert ours.scores_.shape == (3, 2)
    assert len(seen) == 6
    unweighted = HingeClassifierCV(Cs=[0.1, 1.0], cv=3, scoring=make_scorer(metric)).fit(X, Y, WEIGHT).scores_
    weighted = HingeClassifierCV(Cs=[0.1, 1.0], cv=3).fit(X, Y, WEIGHT).scores_
    assert np.abs(weighted - unweighted).max() > 1e-3
    with config_context(enable_metadata_routing=True):
        asks = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        asked = HingeClassifierCV(Cs=[0.1, 1.0], cv=3, scoring=asks).fit(X, Y, WEIGHT).scores_
        np.testing.assert_allclose(asked, weighted)
        unasked = HingeClassifierCV(Cs=[0.1, 1.0], cv=3, scoring=make_scorer(accuracy_score)).fit(X, Y, WEIGHT).scores_
        np.testing.assert_allclose(unasked, unweighted)


def test_one_standard_error_takes_the_smallest_C_that_is_good_enough():
    mean = HingeClassifierCV(Cs=7).fit(X, Y)
    rule = HingeClassifierCV(Cs=7, select="one_standard_error").fit(X, Y)
    means = mean.scores_.mean(axis=0)
    assert mean.Cs_[np.argmax(means)] == mean.C_
    error = mean.scores_[:, np.argmax(means)].std(ddof=1) / np.sqrt(5)
    assert rule.C_ == mean.Cs_[means >= means.max() - error].min() < mean.C_
    np.testing.assert_allclose(mean.Cs_, np.logspace(-4, 4, 7))


def test_groups_stay_together():
    groups = np.arange(len(Y)) % 7
    ours = HingeClassifierCV(Cs=[0.1, 1.0], cv=GroupKFold(3)).fit(X, Y, groups=groups)
    pairs = HingeClassifierCV(Cs=[0.1, 1.0], cv=GroupKFold(3).split(X, Y, groups)).fit(X, Y)
    np.testing.assert_array_equal(ours.scores_, pairs.scores_)


def test_a_fold_is_refused_in_the_words_of_the_caller_before_any_work(monkeypatch):
    monkeypatch.setattr("jaxhinge._sweep.grid.solve_batch", lambda *_: pytest.fail("solved"))
    names, half = np.array(["no", "yes"])[Y], np.arange(30)
    with pytest.raises(ValueError, match="none of them of class yes"):
        HingeClassifierCV(cv=[(np.flatnonzero(Y == 0), half)]).fit(X, names)
    with pytest.raises(ValueError, match=r"roc_auc needs .* holds out none of class yes"):
        HingeClassifierCV(cv=[(half + 30, np.flatnonzero(Y == 0))], scoring="roc_auc").fit(X, names)
    with pytest.raises(ValueError, match="needs two folds at least"):
        HingeClassifierCV(cv=[(half + 30, half)], select="one_standard_error").fit(X, names)
    with pytest.raises(TypeError, match="Cs must be a number of strengths, or the strengths"):
        HingeClassifierCV(Cs="auto").fit(X, names)


def test_without_a_refit_the_folds_are_averaged():
    splits = list(StratifiedKFold(3).split(X, Y))
    ours = HingeClassifierCV(Cs=[0.1], cv=splits, refit=False).fit(X, Y)
    models = [HingeClassifier(C=0.1).fit(X[train], Y[train]) for train, _ in splits]
    # Solved to a gap of 1e-8.
    np.testing.assert_allclose(ours.coef_, np.mean([model.coef_ for model in models], axis=0), rtol=1e-3)
    np.testing.assert_allclose(ours.intercept_, np.mean([model.intercept_ for model in models], axis=0), rtol=1e-3)
    best, sign = HingeClassifier(C=0.1).fit(X, Y), np.where(Y == 1, 1, -1)

    def objective(model):
        hinges = np.maximum(0, 1 - sign * model.decision_function(X))
        return hinges.mean() + ours.l2_ / 2 * np.sum(model.coef_**2)

    # The bound of parameters from elsewhere is improved to 1e-7 of the objective.
    assert ours.dual_gap_ == pytest.approx(objective(ours) - objective(best), abs=1e-6)


def test_class_weights_train_but_do_not_score():
    rare = np.where(np.arange(len(Y)) % 3 == 0, Y, 0)
    ours = HingeClassifierCV(Cs=[0.1, 1.0], cv=3, class_weight="balanced").fit(X, rare)
    share = np.mean(rare)
    weight = np.where(rare == 1, 0.5 / share, 0.5 / (1 - share))
    weighted = HingeClassifier(C=ours.C_).fit(X, rare, weight)
    np.testing.assert_allclose(ours.coef_, weighted.coef_, rtol=1e-9)
    for fold, (train, test) in enumerate(StratifiedKFold(3).split(X, rare)):
        model = HingeClassifier(C=0.1).fit(X[train], rare[train], weight[train])
        assert ours.scores_[fold, 0] == pytest.approx(model.score(X[test], rare[test]))


# How they are used.


def test_strings_stay_strings_and_columns_keep_their_names():
    frame, labels = pd.DataFrame(X, columns=list("abcd")), np.array(["no", "yes"])[Y]
    for estimator in CLASSIFIERS:
        model = estimator().fit(frame, pd.Series(labels))
        np.testing.assert_array_equal(model.feature_names_in_, list("abcd"))
        np.testing.assert_array_equal(model.classes_, ["no", "yes"])
        assert set(model.predict(frame)) == {"no", "yes"}
        assert model.score(frame, labels) > 0.7
        assert model.n_features_in_ == 4
    np.testing.assert_array_equal(HingeRegressor().fit(frame, REAL).feature_names_in_, list("abcd"))


@pytest.mark.parametrize("estimator", ALL)
def test_they_clone_and_pickle(estimator):
    model = estimator(tol=1e-6).fit(X, target(estimator()))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert clone(model).get_params() == model.get_params()
    assert not hasattr(clone(model), "coef_")


def test_they_work_in_pipelines_searches_and_calibration():
    search = GridSearchCV(
        make_pipeline(StandardScaler(), HingeClassifier()),
        {"hingeclassifier__C": [0.1, 1.0], "hingeclassifier__class_weight": [None, "balanced"]},
        cv=3,
        scoring=make_scorer(balanced_accuracy_score),
    ).fit(X, Y)
    assert search.best_score_ > 0.7
    assert make_pipeline(StandardScaler(), HingeClassifierCV()).fit(X, Y).score(X, Y) > 0.7
    chances = CalibratedClassifierCV(HingeClassifier(), cv=3).fit(X, Y, sample_weight=1 + WEIGHT).predict_proba(X)
    assert np.mean(np.argmax(chances, axis=1) == Y) > 0.7
    search = GridSearchCV(HingeRegressor(), {"epsilon": [0.0, 0.5]}, cv=ShuffleSplit(2, random_state=0))
    assert search.fit(X, REAL).best_params_["epsilon"] in (0.0, 0.5)


@pytest.mark.parametrize("estimator", CLASSIFIERS)
def test_weights_are_made_sparse_and_dense_again(estimator):
    x, y, _ = data(classes=3)
    model = estimator().fit(x, y)
    scores, coef = model.decision_function(x), model.coef_.copy()
    assert sparse.issparse(model.sparsify().coef_)
    np.testing.assert_allclose(model.decision_function(x), scores)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(model)).decision_function(x), scores)
    np.testing.assert_array_equal(model.densify().coef_, coef)


@pytest.mark.parametrize("estimator", ALL)
def test_what_is_not_there_says_what_there_is_instead(estimator):
    model = estimator().fit(X, target(estimator()))
    for object_ in (estimator(), model):
        assert not hasattr(object_, "partial_fit")
        with pytest.raises(AttributeError, match=rf"{estimator.__name__} is solved .*jaxhinge.fit\(.*make_train_step"):
            object_.partial_fit(X, Y)
        with pytest.raises(AttributeError, match=f"{estimator.__name__}' object has no attribute 'coefs_'"):
            _ = object_.coefs_


@pytest.mark.parametrize("estimator", ALL)
def test_estimators_that_older_versions_pickled_have_the_new_parameters(estimator):
    model = estimator().fit(X, target(estimator()))
    state = {name: value for name, value in vars(model).items() if name not in ("multi_class", "probability")}
    older = estimator.__new__(estimator)
    older.__setstate__(state)
    assert older.get_params() == estimator().get_params()
    np.testing.assert_array_equal(older.predict(X), model.predict(X))


@pytest.mark.parametrize("estimator", ALL)
def test_sparse_features_give_the_answers_of_dense_ones(estimator):
    x = X * (np.abs(X) > 0.5)
    y = target(estimator())
    dense, thin = estimator().fit(x, y), estimator().fit(sparse.csr_array(x), y)
    # Weights are within sqrt(2 gap / l2) of the optimal ones.
    np.testing.assert_allclose(dense.coef_, thin.coef_, atol=2 * np.sqrt(2 * thin.dual_gap_ / thin.l2_) + 1e-9)
    np.testing.assert_allclose(dense.predict(x), thin.predict(sparse.csc_array(x)), rtol=1e-4)
    np.testing.assert_array_equal(thin.coef_, estimator().fit(sparse.coo_matrix(x), y).coef_)


@pytest.mark.parametrize("multi_class", ["ovr", "crammer_singer", "weston_watkins"])
def test_classes_of_sparse_features_are_searched_with_probabilities(multi_class):
    key = np.random.default_rng(3)
    x = sparse.random_array((90, 200), density=0.1, rng=key, format="csr")
    y = np.asarray(x @ key.normal(size=(200, 3))).argmax(axis=1)
    options = {"Cs": [1.0, 100.0], "cv": 3, "multi_class": multi_class, "probability": True}
    thin = HingeClassifierCV(**options).fit(x, y)
    dense = HingeClassifierCV(**options).fit(x.toarray(), y)
    np.testing.assert_allclose(thin.scores_, dense.scores_, atol=2 / 30)
    np.testing.assert_allclose(thin.decision_function(x), dense.decision_function(x.toarray()), atol=2e-3)
    np.testing.assert_allclose(thin.predict_proba(x), dense.predict_proba(x.toarray()), atol=0.02)
    assert thin.C_ == dense.C_
    assert thin.dual_gap_ < 1e-6


def test_text_and_categories_come_through_a_pipeline():
    words = [
        "cheap pills now",
        "meet me at noon",
        "cheap watches",
        "lunch at noon",
        "pills and watches",
        "see you at lunch",
    ]
    y = np.array([1, 0, 1, 0, 1, 0])
    text = make_pipeline(TfidfVectorizer(), HingeClassifier(C=10)).fit(words, y)
    np.testing.assert_array_equal(text.predict(words), y)
    frame = pd.DataFrame({"words": words, "day": list("abacab"), "size": np.arange(6.0)})
    columns = ColumnTransformer(
        [("text", TfidfVectorizer(), "words"), ("day", OneHotEncoder(), ["day"]), ("size", "passthrough", ["size"])],
        sparse_threshold=1.0,
    )
    mixed = make_pipeline(columns, HingeClassifier(C=10)).fit(frame, y)
    assert sparse.issparse(columns.transform(frame))
    np.testing.assert_array_equal(mixed.predict(frame), y)


@pytest.mark.parametrize("estimator", ALL)
def test_memory_budget_is_taken_and_warned_of(estimator):
    with pytest.warns(DeprecationWarning, match=r"memory_budget=1000 does nothing: .*version 0.3 drops it") as seen:
        model = estimator(memory_budget=1000).fit(X, target(estimator()))
    assert [warning.filename for warning in seen] == [__file__]
    np.testing.assert_array_equal(model.coef_, estimator().fit(X, target(estimator())).coef_)


def test_many_small_shapes_compile_once(compilations):
    HingeClassifier().fit(X, Y)
    HingeRegressor().fit(X, REAL)
    with compilations() as names:
        for n in range(20, 60, 7):
            for d in range(1, 5):
                HingeClassifier(C=n).fit(X[:n, :d], Y[:n])
                HingeRegressor(C=d).fit(X[:n, :d], REAL[:n])
    # One solve in float32, and one in float64 where polishing does not settle it, for each estimator.
    assert len(names) <= 2


# What is refused, and what is warned of.


@pytest.mark.parametrize("estimator", ALL)
def test_steps_that_do_not_suffice_are_warned_of_with_numbers(estimator):
    model = estimator(max_iter=1, tol=1e-14)
    with pytest.warns(ConvergenceWarning) as seen:
        model.fit(X, target(model))
    assert {warning.filename for warning in seen} == {__file__}
    *of_folds, of_all = [str(warning.message) for warning in seen]
    assert re.search(r"1 steps \(STEP_LIMIT\) with a duality gap of .* Raise max_iter", of_all)
    assert f"{model.dual_gap_:.2g}" in of_all
    assert len(of_folds) == (estimator is HingeClassifierCV)
    assert all("50 of 50 problems of the folds did not reach tol=1e-14" in message for message in of_folds)
    assert model.n_iter_ == 1


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (HingeClassifier(C=1.0, l2=1.0), "C=1.0 and l2=1.0 were both given.*Leave one of them None"),
        (HingeClassifier(C=0.0), "C must be a number above 0; got 0.0"),
        (HingeClassifier(l2=-1.0), "l2 must be a number above 0; got -1.0"),
        (HingeClassifier(loss="logistic"), 'loss must be "hinge" or "squared_hinge"'),
        (HingeClassifier(fit_intercept="no"), "fit_intercept must be True, False or"),
        (HingeClassifier(tol=-1.0), "tol must be a number, at least 0"),
        (HingeClassifier(max_iter=0), "max_iter must be an integer, at least 1 and at most 2147483647; got 0"),
        (HingeClassifier(class_weight={0: -1.0}), "class_weight must be above 0 for every class"),
        (
            HingeClassifier(class_weight={"0": 2.0, "1": 1.0}),
            r"class_weight has the keys \['0', '1'\] \(str\).* the classes are \[0, 1\] \(int\).*JSON.*int\(key\)",
        ),
        (
            HingeClassifierCV(class_weight={0: 2.0, 2: 1.0}),
            r"keys \[0, 2\] \(int\), of which \[2\] are no class: the classes are \[0, 1\].*Leave those out",
        ),
        (HingeRegressor(C=1.0, l2=1.0), "were both given"),
        (HingeRegressor(loss="hinge"), 'loss must be "epsilon_insensitive" or "squared_epsilon_insensitive"'),
        (HingeRegressor(epsilon=-1.0), "epsilon must be a number, at least 0"),
        (HingeRegressor(max_iter=0), "max_iter must be an integer, at least 1"),
        (HingeClassifierCV(max_iter=2**31), "max_iter must be an integer, at least 1 and at most 2147483647; got 21"),
        (HingeClassifier(tol=float("nan")), "tol must be a number, at least 0; got nan"),
        (HingeClassifierCV(Cs=[1.0, 0.0]), r"Cs\[1\] must be a number above 0; got 0.0"),
        (HingeClassifierCV(Cs=[]), "Cs is empty"),
        (HingeClassifierCV(Cs=0), "Cs must be at least 1"),
        (HingeClassifierCV(select="best"), 'select must be "mean" or "one_standard_error"'),
        (HingeClassifierCV(scoring="best"), "best"),
        (HingeClassifierCV(cv=[(np.flatnonzero(Y == 0), np.flatnonzero(Y == 1))]), "none of them of class 1"),
    ],
    ids=str,
)
def test_refusals_name_the_mend(estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, target(estimator))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (HingeClassifier(tol="small"), "tol must be a number, at least 0; got 'small'"),
        (HingeClassifierCV(max_iter=100.0), "max_iter must be an integer, at least 1; got 100.0"),
        (HingeRegressor(epsilon=[0.1]), r"epsilon must be a number, at least 0; got \[0.1\]"),
        (HingeClassifierCV(refit=None), "refit must be True or False"),
    ],
    ids=str,
)
def test_parameters_of_a_wrong_kind_are_refused_by_their_own_names(estimator, message):
    with pytest.raises(TypeError, match=message):
        estimator.fit(X, target(estimator))


def test_a_class_without_weight_is_refused():
    x, y, _ = data(classes=3)
    with pytest.raises(ValueError, match=r"All rows of the classes \[1\] have weight 0. Leave those rows out"):
        HingeClassifier().fit(x, y, (y != 1).astype(float))
    with pytest.raises(ValueError, match=r"at least two classes.*one class only: \[2\]"):
        HingeClassifier().fit(x, y, (y == 2).astype(float))
    with pytest.raises(ValueError, match="must not be negative"):
        HingeClassifier().fit(x, y, y - 0.5)


def test_a_regression_refuses_weights_of_0_alone():
    with pytest.raises(ValueError, match=r"[Ss]ample.weights? "):
        HingeRegressor().fit(X, REAL, np.zeros(len(X)))


def test_l2_says_the_same_as_C():
    by_l2, by_C = HingeClassifier(l2=0.01).fit(X, Y, WEIGHT), HingeClassifier(C=100 / WEIGHT.sum()).fit(X, Y, WEIGHT)
    assert by_l2.l2_ == 0.01
    np.testing.assert_allclose(by_l2.coef_, by_C.coef_, rtol=1e-9)


# What importing costs.


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_scikit_learn_is_imported_on_use():
    code = "import sys, jaxhinge; print('sklearn' in sys.modules); jaxhinge.sklearn; print('sklearn' in sys.modules)"
    assert python(code).split() == ["False", "True"]


def test_without_scikit_learn_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import jaxhinge\n"
        "try:\n"
        "    import jaxhinge.sklearn\n"
        "except ImportError as error:\n"
        "    print(error)"
    )
    assert "pip install jaxhinge[sklearn]" in python(code)
    with pytest.raises(AttributeError, match="has no attribute 'skl'"):
        _ = jaxhinge.skl
