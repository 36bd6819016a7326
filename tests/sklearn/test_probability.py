"""Probabilities from out-of-fold scores: scikit-learn's sigmoids on the scores of a plain loop over the folds."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, PredefinedSplit, ShuffleSplit, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from jaxhinge.sklearn import HingeClassifier, HingeClassifierCV
from jaxhinge.sklearn._probability import fit_sigmoid, log_probabilities

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 3))
Y = np.argmax(X @ [[1.0, 0.0, -1.0], [0.0, 1.0, -1.0], [0.2, 0.2, 0.0]] + 0.7 * RNG.normal(size=(90, 3)), axis=1)
WEIGHT = RNG.integers(0, 4, 90).astype(float)
CV = StratifiedKFold(3, shuffle=True, random_state=1)


def negative_log_likelihood(params, scores, positive, weight):
    """Platt's objective, as the paper writes it."""
    A, B = params
    many, few = weight[positive].sum(), weight[~positive].sum()
    target = np.where(positive, (many + 1) / (many + 2), 1 / (few + 2))
    return np.sum(weight * (np.logaddexp(0, A * scores + B) - (1 - target) * (A * scores + B)))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_sigmoid_has_the_largest_likelihood(scale, divided, weighted):
    scores = scale * (X[:, 0] + 0.3)
    positive = scores > 0 if divided else Y > 0
    weight = WEIGHT if weighted else np.ones(len(X))
    A, B = fit_sigmoid(scores, positive, weight)
    peer = minimize(
        negative_log_likelihood, [-1.0, 0.0], (scores / scale, positive, weight), "Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 10_000},
    )  # fmt: skip
    np.testing.assert_allclose([A * scale, B], peer.x, rtol=1e-5, atol=1e-6)
    assert negative_log_likelihood((A, B), scores, positive, weight) <= peer.fun * (1 + 1e-13)


def test_scores_that_say_nothing_give_the_share_of_the_class():
    positive = np.arange(10) < 3
    A, B = fit_sigmoid(np.full(10, 2.0), positive, np.ones(10))
    target = (3 * 4 / 5 + 7 / 9) / 10
    assert 1 / (1 + np.exp(A * 2 + B)) == pytest.approx(target)


def test_rounding_is_no_information():
    """A middle class against the rest: w = 0 is optimal, and what the solver leaves of it has no slope."""
    x = np.linspace(-1, 1, 90)[:, None]
    y = np.digitize(x[:, 0], [-0.3, 0.3])
    # Every fold holds -x with x.
    folds = PredefinedSplit(np.minimum(np.arange(90), np.arange(90)[::-1]) % 3)
    model = HingeClassifierCV(Cs=[0.01], cv=folds, probability=True).fit(x, y)
    assert model.probA_[1] == 0
    assert (np.abs(model.probA_[[0, 2]]) > 0.1).all()


def test_small_probabilities_have_logarithms():
    found = log_probabilities(np.array([1000.0, -2000.0]), np.array([-1.0]), np.array([0.0]))
    np.testing.assert_allclose(found, [[-1000.0, 0.0], [0.0, -2000.0]])
    found = log_probabilities(np.full((1, 3), -1000.0), np.array([-1.0, -2.0, -1.0]), np.zeros(3))
    np.testing.assert_allclose(found, [[-np.log(2), -1000 - np.log(2), -np.log(2)]])


@pytest.mark.parametrize(
    "options",
    [{}, {"class_weight": "balanced"}, {"loss": "squared_hinge"}, {"refit": False}],
    ids=str,
)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_sigmoids_are_those_of_scikit_learn_on_out_of_fold_scores(classes, options):
    y = np.minimum(Y, classes - 1)
    ours = HingeClassifierCV(Cs=[0.01, 1.0], cv=CV, probability=True, **options).fit(X, y, WEIGHT)
    plain = HingeClassifierCV(Cs=[0.01, 1.0], cv=CV, **options).fit(X, y, WEIGHT)
    np.testing.assert_array_equal(ours.coef_, plain.coef_)
    np.testing.assert_array_equal(ours.predict(X), plain.predict(X))
    # "balanced" counts the rows of a fold in the peer, but all rows here.
    counts = {label: WEIGHT.sum() / (classes * WEIGHT[y == label].sum()) for label in ours.classes_}
    inner = {name: value for name, value in options.items() if name == "loss"}
    inner["class_weight"] = counts if "class_weight" in options else None
    peer = CalibratedClassifierCV(HingeClassifier(C=ours.C_, **inner), cv=CV, ensemble=False).fit(X, y, WEIGHT)
    sigmoids = peer.calibrated_classifiers_[0].calibrators
    # Folds of the search are solved to a gap of 1e-8, not polished; the peer's sigmoid to a gradient of 1e-6.
    np.testing.assert_allclose(ours.probA_, [sigmoid.a_ for sigmoid in sigmoids], rtol=2e-3)
    np.testing.assert_allclose(ours.probB_, [sigmoid.b_ for sigmoid in sigmoids], atol=2e-3)
    if "refit" not in options:
        np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X), atol=1e-3)
    np.testing.assert_allclose(ours.predict_proba(X).sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(ours.predict_log_proba(X)), ours.predict_proba(X))


def test_joint_machines_have_probabilities_too():
    model = HingeClassifierCV(Cs=[0.1], cv=3, probability=True, multi_class="crammer_singer").fit(X, Y)
    found = model.predict_proba(X)
    assert found.shape == (90, 3)
    assert log_loss(Y, found) < np.log(3)


def test_weights_are_rows_and_groups_stay_together():
    groups = np.arange(90) % 10
    repeats = WEIGHT.astype(int)
    weighted = HingeClassifierCV(Cs=[0.1], cv=GroupKFold(3), probability=True).fit(X, Y, WEIGHT, groups=groups)
    folds = [(train, test) for train, test in GroupKFold(3).split(X, Y, groups)]
    fold = np.empty(90, int)
    for number, (_, test) in enumerate(folds):
        fold[test] = number
    x, y, fold = X.repeat(repeats, axis=0), Y.repeat(repeats), fold.repeat(repeats)
    pairs = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(3)]
    repeated = HingeClassifierCV(Cs=[0.1], cv=pairs, probability=True).fit(x, y)
    np.testing.assert_allclose(weighted.probA_, repeated.probA_, rtol=1e-3)
    np.testing.assert_allclose(weighted.probB_, repeated.probB_, atol=1e-3)


def test_a_row_that_several_folds_hold_out_counts_once():
    once = list(CV.split(X, Y))
    ours = HingeClassifierCV(Cs=[0.1], cv=once, probability=True).fit(X, Y)
    twice = HingeClassifierCV(Cs=[0.1], cv=once * 2, probability=True).fit(X, Y)
    np.testing.assert_allclose(ours.probA_, twice.probA_)
    splits = ShuffleSplit(3, random_state=0)
    assert HingeClassifierCV(Cs=[0.1], cv=splits, probability=True).fit(X, Y).predict_proba(X).shape == (90, 3)


@pytest.mark.parametrize("name", ["predict_proba", "predict_log_proba"])
def test_without_probability_the_error_says_where_there_are_some(name):
    for model in (HingeClassifier(), HingeClassifierCV(), HingeClassifierCV(cv=3).fit(X, Y)):
        assert not hasattr(model, name)
        with pytest.raises(
            AttributeError, match=r"HingeClassifierCV\(probability=True\).*CalibratedClassifierCV\(Hinge"
        ):
            getattr(model, name)
    asked = HingeClassifierCV(Cs=[0.1], cv=3, probability=True)
    assert hasattr(asked, name)
    with pytest.raises(NotFittedError, match="not fitted with probability=True"):
        getattr(HingeClassifierCV(Cs=[0.1], cv=3).fit(X, Y).set_params(probability=True), name)(X)
    forgotten = asked.fit(X, Y).set_params(probability=False).fit(X, Y)
    assert not hasattr(forgotten, "probA_")


def test_refusals_come_before_any_work(monkeypatch):
    monkeypatch.setattr("jaxhinge._sweep.grid.solve_batch", lambda *_: pytest.fail("solved"))
    rows = np.argsort(Y, kind="stable")
    with pytest.raises(ValueError, match=r"there are none of \[2\]: change cv"):
        HingeClassifierCV(cv=[(rows, rows[:40])], probability=True).fit(X, Y)
    with pytest.raises(TypeError, match="probability must be True or False"):
        HingeClassifierCV(probability="yes").fit(X, Y)


@pytest.mark.parametrize("load", [load_breast_cancer, load_iris, load_wine], ids=lambda load: load.__name__)
def test_probabilities_are_as_good_as_those_of_more_fits(load):
    x, y = load(return_X_y=True)
    losses = np.zeros(2)
    for seed in range(2):
        train, test, y_train, y_test = train_test_split(x, y, test_size=0.5, stratify=y, random_state=seed)
        models = (
            HingeClassifierCV(Cs=[0.01, 0.1, 1.0], probability=True),
            CalibratedClassifierCV(LinearSVC(random_state=0)),
        )
        losses += [
            log_loss(y_test, make_pipeline(StandardScaler(), model).fit(train, y_train).predict_proba(test))
            for model in models
        ]
    assert losses[0] < losses[1]
