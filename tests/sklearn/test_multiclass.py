"""Joint machines of several classes: LIBLINEAR and the public solver as peers, and the search over `C`."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import LinearSVC

import jaxhinge
from jaxhinge.sklearn import HingeClassifier, HingeClassifierCV

JOINT = ["crammer_singer", "weston_watkins"]


def data(n=45, seed=0):
    """Rows of 3 features whose three classes overlap."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return rng.normal(size=(n, 3)) + np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, -1.0, 0.5]])[y], y


X, Y = data()
WEIGHT = np.random.default_rng(1).integers(0, 4, len(X)).astype(float)


def objective(model, x, y, weight, multi_class):
    """By a plain loop."""
    total = 0.0
    for row, label, share in zip(x, y, weight / weight.sum(), strict=True):
        scores = model.coef_ @ row + model.intercept_
        losses = [max(0.0, 1 + scores[j] - scores[label]) for j in range(len(scores)) if j != label]
        total += share * (max(losses) if multi_class == "crammer_singer" else sum(losses))
    return total + model.l2_ / 2 * np.sum(model.coef_**2)


@pytest.mark.parametrize("multi_class", JOINT)
def test_a_joint_machine_is_that_of_solve_multiclass(multi_class):
    names = np.array(["b", "a", "c"])
    model = HingeClassifier(C=0.5, multi_class=multi_class, class_weight={"c": 2.0}).fit(X, names[Y], WEIGHT)
    labels, weight = np.array([1, 0, 2])[Y], WEIGHT * np.where(Y == 2, 2.0, 1.0)
    peer = jaxhinge.solve_multiclass(
        X, labels, l2=1 / (0.5 * weight.sum()), loss=multi_class, sample_weight=weight, tol=1e-8, as_numpy=True
    )
    np.testing.assert_array_equal(model.classes_, ["a", "b", "c"])
    np.testing.assert_allclose(model.coef_, peer.params.w.T, atol=1e-3)
    value = objective(model, X, labels, weight, multi_class)
    assert 0 <= model.dual_gap_ <= 1e-8 * value
    assert value - model.dual_gap_ <= peer.primal_value + 1e-15
    assert value <= peer.primal_value * (1 + 1e-8)
    assert model.l2_ == pytest.approx(1 / (0.5 * weight.sum()))


@pytest.mark.parametrize("classes", [2, 3])
def test_crammer_and_singer_are_those_of_liblinear(classes):
    rows = classes > Y
    options = {"multi_class": "crammer_singer", "C": 0.1}
    peer = LinearSVC(**options, tol=1e-9, max_iter=100_000, random_state=0).fit(X[rows], Y[rows])
    ours = HingeClassifier(**options, fit_intercept="regularized").fit(X[rows], Y[rows])
    assert ours.coef_.shape == peer.coef_.shape
    np.testing.assert_allclose(ours.coef_, peer.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, peer.intercept_, atol=1e-5)


@pytest.mark.parametrize("multi_class", JOINT)
def test_stripes_that_no_line_divides_from_the_rest(multi_class):
    x = np.random.default_rng(0).uniform(-1, 1, size=(200, 2))
    y = np.digitize(x[:, 0], [-0.5, 0.0, 0.5])
    apart = HingeClassifier(C=100.0).fit(x, y).score(x, y)
    joint = HingeClassifier(C=100.0, multi_class=multi_class).fit(x, y).score(x, y)
    assert apart < 0.8 < 0.95 < joint


@pytest.mark.parametrize("multi_class", JOINT)
def test_a_weight_of_two_is_a_row_given_twice(multi_class):
    repeats = WEIGHT.astype(int)
    weighted = HingeClassifier(multi_class=multi_class).fit(X, Y, WEIGHT)
    repeated = HingeClassifier(multi_class=multi_class).fit(X.repeat(repeats, axis=0), Y.repeat(repeats))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-6)
    np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, atol=1e-6)


@pytest.mark.parametrize("scoring", ["accuracy", "hinge"])
@pytest.mark.parametrize("multi_class", JOINT)
def test_the_search_is_a_grid_search(multi_class, scoring):
    Cs, cv = [1e-3, 1e-1, 10.0], StratifiedKFold(3, shuffle=True, random_state=0)
    ours = HingeClassifierCV(Cs=Cs, cv=cv, scoring=scoring, multi_class=multi_class).fit(X, Y)

    def minus_mean_loss(model, rows, labels):
        losses = objective(model, rows, labels, np.ones(len(rows)), multi_class)
        return -(losses - model.l2_ / 2 * np.sum(model.coef_**2))

    by = minus_mean_loss if scoring == "hinge" else scoring
    peer = GridSearchCV(HingeClassifier(multi_class=multi_class), {"C": Cs}, cv=cv, scoring=by).fit(X, Y)
    for fold in range(3):
        np.testing.assert_allclose(ours.scores_[fold], peer.cv_results_[f"split{fold}_test_score"], atol=1e-5)
    assert peer.best_params_["C"] == ours.C_
    np.testing.assert_array_equal(ours.coef_, peer.best_estimator_.coef_)
    assert ours.fold_gaps_.shape == (3, 3)
    assert (ours.fold_gaps_ >= 0).all()
    assert (ours.fold_gaps_ < 1e-7).all()
    assert ours.dual_gap_ < 1e-7


@pytest.mark.parametrize("multi_class", JOINT)
def test_without_a_refit_the_gap_is_that_of_the_average(multi_class):
    averaged = HingeClassifierCV(Cs=[0.1], cv=3, refit=False, multi_class=multi_class).fit(X, Y)
    best = HingeClassifier(C=0.1, multi_class=multi_class).fit(X, Y)
    ones = np.ones(len(X))
    excess = objective(averaged, X, Y, ones, multi_class) - objective(best, X, Y, ones, multi_class)
    assert averaged.dual_gap_ == pytest.approx(excess, abs=1e-6)
    assert averaged.dual_gap_ > 1e-6


@pytest.mark.parametrize("multi_class", JOINT)
def test_two_classes_of_the_search_share_the_norm(multi_class):
    x, y = X[Y < 2], Y[Y < 2]
    for refit in (True, False):
        ours = HingeClassifierCV(Cs=[0.1, 1.0], cv=3, refit=refit, multi_class=multi_class).fit(x, y)
        # The norm of a machine with weights -u / 2 and u / 2 is half that of u.
        binary = HingeClassifierCV(Cs=[0.2, 2.0], cv=3, refit=refit).fit(x, y)
        np.testing.assert_allclose(ours.scores_, binary.scores_)
        np.testing.assert_allclose(ours.coef_, binary.coef_, rtol=1e-9)
        np.testing.assert_allclose(ours.dual_gap_, binary.dual_gap_, rtol=1e-3, atol=1e-12)
        assert ours.l2_ == pytest.approx(2 * binary.l2_)


def test_steps_that_do_not_suffice_are_warned_of():
    for estimator in (HingeClassifier, HingeClassifierCV):
        with pytest.warns(ConvergenceWarning, match=r"STEP_LIMIT|did not reach tol=1e-08"):
            estimator(multi_class="crammer_singer", max_iter=1).fit(X, Y)


@pytest.mark.parametrize("estimator", [HingeClassifier, HingeClassifierCV])
def test_refusals_name_the_mend(estimator):
    with pytest.raises(
        ValueError, match="multi_class must be one of 'ovr', 'crammer_singer', 'weston_watkins'; got 'o"
    ):
        estimator(multi_class="ovo").fit(X, Y)
    with pytest.raises(ValueError, match=r'has loss="hinge" only; got loss=.squared_hinge'):
        estimator(multi_class="weston_watkins", loss="squared_hinge").fit(X, Y)
