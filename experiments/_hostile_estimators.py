"""The scikit-learn estimators with hostile input: fitted, and asked to predict the rows that they were fitted to."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from _hostile_common import CLASSES, Arguments, Function, chosen, perhaps_sparse, tame
from _hostile_losses import pp
from _hostile_values import Rng

from jaxhinge.sklearn import HingeClassifier, HingeClassifierCV, HingeRegressor


def fitted(kind: Any, X: Any, y: Any, sample_weight: Any = None, **parameters: Any) -> Any:
    """The estimator and what it predicts. Of warnings, those by scikit-learn's own classes are meant."""
    with warnings.catch_warnings():
        for category in (UserWarning, FutureWarning):  # ConvergenceWarning and DataConversionWarning are of the first
            warnings.simplefilter("ignore", category)
        model = kind(**parameters).fit(X, y, sample_weight=sample_weight)
        return model, model.predict(X), model.predict_proba(X) if parameters.get("probability") is True else None


def _arguments(rng: Rng, kind: Any) -> Arguments:
    n = 16
    x = rng.normal(size=(n, 3))
    classes = 2 if rng.random() < 0.6 else CLASSES
    labels = np.arange(n) % classes
    found: Arguments = {"X": perhaps_sparse(rng, x), "y": labels}
    if kind is HingeRegressor:
        found["y"] = rng.normal(size=n)
    elif rng.random() < 0.2:
        found["y"] = np.array(["a", "b", "c"])[labels]
    optional: Arguments = {
        "sample_weight": rng.uniform(0.5, 2, n), "fit_intercept": (False, "regularized")[rng.integers(2)], "tol": 1e-3,
        "max_iter": 50, "memory_budget": 1e9, "C": 0.5, "l2": 0.1, "class_weight": "balanced", "epsilon": 0.2,
        "loss": "squared_epsilon_insensitive" if kind is HingeRegressor else "squared_hinge", "Cs": [0.1, 1.0],
        "multi_class": ("crammer_singer", "weston_watkins")[rng.integers(2)], "probability": True, "select": "mean",
        "scoring": "accuracy", "refit": False, "verbose": 0,
    }  # fmt: skip
    known = kind().get_params() | {"sample_weight": None}
    found |= chosen(rng, {name: value for name, value in optional.items() if name in known}, 0.2)
    return found | ({"cv": 2} if "cv" in known else {})


def _check(arguments: Arguments, result: Any) -> str:
    model, predicted, probabilities = result
    if len(predicted) != np.shape(arguments["X"])[0]:
        return f"predictions {predicted}"
    if hasattr(model, "classes_") and not np.isin(predicted, model.classes_).all():
        return f"predictions {predicted} beside {model.classes_}"
    if probabilities is not None and not (
        np.allclose(probabilities.sum(1), 1) and ((probabilities >= 0) & (probabilities <= 1)).all()
    ):
        return f"probabilities {probabilities}"
    if not hasattr(model, "coef_"):
        return ""
    numbers = np.append(model.coef_, model.intercept_)
    if not np.isfinite(numbers).all() or not model.dual_gap_ >= 0:
        return f"coef_ {model.coef_}, intercept_ {model.intercept_}, dual_gap_ {model.dual_gap_}"
    return _check_optimal(arguments, model)


def _check_optimal(arguments: Arguments, model: Any) -> str:
    """Of two classes or a regression: no nearby parameters are better than the gap allows."""
    x, y = np.asarray(arguments["X"], float), arguments["y"]
    multiclass = hasattr(model, "classes_") and len(model.classes_) != 2
    if multiclass or not tame(1e4, x) or isinstance(arguments.get("class_weight"), dict):
        return ""
    if hasattr(model, "classes_"):
        target = np.where(np.asarray(y).ravel() == model.classes_[1], 1.0, -1.0)
    else:
        target = np.asarray(y, float).ravel()
    weight = np.ones(len(x)) if arguments.get("sample_weight") is None else arguments["sample_weight"]
    weight = np.broadcast_to(np.asarray(weight, float), target.shape)
    if arguments.get("class_weight") == "balanced":
        share = np.where(target > 0, weight[target > 0].sum(), weight[target < 0].sum())
        weight = weight * weight.sum() / (2 * share)
    c = weight / weight.sum()

    def objective(w: Any, b: Any) -> Any:
        scores = x @ w + b
        loss = pp(1 - target * scores) if hasattr(model, "classes_") else pp(abs(target - scores) - model.epsilon)
        loss = loss**2 if model.loss.startswith("squared") else loss
        norm = w @ w + (b * b if model.fit_intercept == "regularized" else 0)
        # The joint machine of two classes has weights -w / 2 and w / 2.
        share = 1.0 if getattr(model, "multi_class", "ovr") == "ovr" else 0.5
        return (c * loss).sum() + share * model.l2_ / 2 * norm

    w, b = np.ravel(model.coef_), float(np.ravel(model.intercept_)[0])
    reached = objective(w, b)
    for step in (0.9, 1.1):
        for other in ((w * step, b), (w, b * step), (w * step, b * step)):
            if objective(*other) < reached - model.dual_gap_ - 1e-9 * (1 + reached):
                return f"{other} is better by {reached - objective(*other)} than dual_gap_ {model.dual_gap_} allows"
    return ""


def estimators() -> Iterator[Function]:
    for kind in (HingeClassifier, HingeClassifierCV, HingeRegressor):
        yield Function(
            f"sklearn.{kind.__name__}",
            functools.partial(fitted, kind),
            functools.partial(_arguments, kind=kind),
            _check,
            1.5,
            ("classifier", "classes", "class_weight", "folds", "features"),
            ("sklearn",),
        )
