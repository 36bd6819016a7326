"""What people put estimators into: scikit-learn's own tools take all of them, and find what there is to find."""

import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFE, RFECV, SelectFromModel
from sklearn.inspection import permutation_importance
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler

from jaxhinge.sklearn import HingeClassifier, HingeClassifierCV, HingeRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 4))
# Three classes and a real target that depend on the first two features.
LABELS = np.array(["a", "b", "c"])[np.argmax(X[:, :2] @ [[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]] + 0.2, axis=1)]
REAL = X[:, 0] - 2 * X[:, 1] + 0.1 * RNG.normal(size=80)
PAIR = np.column_stack([X[:, 0] > 0, X[:, 1] > 0]).astype(int)

ESTIMATORS = {
    "HingeClassifier": HingeClassifier(),
    "HingeClassifierCV": HingeClassifierCV(Cs=[0.1, 1.0], cv=2, probability=True),
    "HingeRegressor": HingeRegressor(),
    "crammer_singer": HingeClassifier(multi_class="crammer_singer"),
}


def target(model):
    return LABELS if is_classifier(model) else REAL


def scored(wrap):
    """The score of the model that `wrap` makes of an estimator."""

    def score(model):
        wrapped = wrap(model)
        return wrapped.fit(X, target(model)).score(X, target(model))

    return score


def of_two_outputs(wrap):
    def score(model):
        y = PAIR if is_classifier(model) else np.column_stack([REAL, -REAL])
        return (
            np.mean(wrap(model).fit(X, y).predict(X) == PAIR)
            if is_classifier(model)
            else wrap(model).fit(X, y).score(X, y)
        )

    return score


def grid(model):
    return {"cv": [2, 3]} if isinstance(model, HingeClassifierCV) else {"C": [0.1, 1.0]}


def finds_the_features(selector):
    """1 where the first two features are among those kept."""
    return float(selector.get_support()[:2].all())


def again(load):
    def score(model):
        model = model.fit(X, target(model))
        loaded = load(model)
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
        assert loaded.get_params() == model.get_params()
        return loaded.score(X, target(model))

    return score


def refitted_clone(model):
    fitted = model.fit(X, target(model))
    other = clone(fitted)
    assert not hasattr(other, "coef_")
    np.testing.assert_array_equal(other.fit(X, target(model)).coef_, fitted.coef_)
    return other.score(X, target(model))


def by_joblib(model):
    jobs = (joblib.delayed(clone(model).fit)(X, target(model)) for _ in range(2))
    first, second = joblib.Parallel(n_jobs=2, prefer="threads")(jobs)
    np.testing.assert_array_equal(first.coef_, second.coef_)
    return first.score(X, target(model))


BOTH = {
    "pipeline": scored(lambda model: make_pipeline(StandardScaler(), model)),
    "columns": scored(lambda model: make_pipeline(ColumnTransformer([("one", MinMaxScaler(), [0, 1])]), model)),
    "union": scored(lambda m: make_pipeline(FeatureUnion([("a", StandardScaler()), ("b", PolynomialFeatures(1))]), m)),
    "grid search": scored(lambda model: GridSearchCV(model, grid(model), cv=3)),
    "random search": scored(lambda model: RandomizedSearchCV(model, grid(model), n_iter=2, cv=3, random_state=0)),
    "halving": scored(lambda model: HalvingGridSearchCV(model, grid(model), cv=3, min_resources=40, random_state=0)),
    "cross_validate": lambda model: cross_validate(model, X, target(model), cv=3)["test_score"].mean(),
    "cross_val_predict": lambda model: len(cross_val_predict(model, X, target(model), cv=3)) / len(X),
    "RFE": lambda model: finds_the_features(RFE(model, n_features_to_select=2).fit(X, target(model))),
    "RFECV": lambda model: finds_the_features(RFECV(model, cv=3, min_features_to_select=2).fit(X, target(model))),
    "SelectFromModel": lambda m: finds_the_features(SelectFromModel(m, max_features=2).fit(X, target(m))),
    "learning curve": lambda m: learning_curve(m, X, target(m), train_sizes=[0.6, 1.0], cv=3)[2][-1].mean(),
    "validation curve": lambda m: validation_curve(
        m, X, target(m), param_name="tol", param_range=[1e-4, 1e-8], cv=3
    )[1].mean(),
    "permutation importance": lambda m: float(
        set(np.argsort(permutation_importance(m.fit(X, target(m)), X, target(m), random_state=0).importances_mean)[-2:])
        == {0, 1}
    ),
    "clone": refitted_clone,
    "pickle": again(lambda model: pickle.loads(pickle.dumps(model))),
    "joblib": by_joblib,
}  # fmt: skip
CLASSIFIER = {
    "calibration": scored(lambda model: CalibratedClassifierCV(model, cv=3)),
    "bagging": scored(lambda model: BaggingClassifier(model, n_estimators=3, random_state=0)),
    "boosting": scored(lambda model: AdaBoostClassifier(model, n_estimators=3, random_state=0)),
    "stacking": scored(lambda model: StackingClassifier([("one", model)], cv=3)),
    "voting": scored(lambda model: VotingClassifier([("one", model), ("two", model)])),
    "one vs rest": scored(OneVsRestClassifier),
    "one vs one": scored(OneVsOneClassifier),
    "output code": scored(lambda model: OutputCodeClassifier(model, random_state=0)),
    "multi-output": of_two_outputs(MultiOutputClassifier),
    "chain": of_two_outputs(ClassifierChain),
}
REGRESSOR = {
    "bagging": scored(lambda model: BaggingRegressor(model, n_estimators=3, random_state=0)),
    "stacking": scored(lambda model: StackingRegressor([("one", model)], cv=3)),
    "transformed target": scored(lambda m: TransformedTargetRegressor(m, func=np.negative, inverse_func=np.negative)),
    "multi-output": of_two_outputs(MultiOutputRegressor),
}
CASES = [
    (name, use, works)
    for name, model in ESTIMATORS.items()
    for use, works in {**BOTH, **(CLASSIFIER if is_classifier(model) else REGRESSOR)}.items()
]


@pytest.mark.parametrize(("name", "use", "works"), CASES, ids=[f"{name}-{use}" for name, use, _ in CASES])
def test_tools_of_scikit_learn_take_them(name, use, works):
    assert works(clone(ESTIMATORS[name])) > 0.75
