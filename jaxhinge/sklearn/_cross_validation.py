"""The folds of `HingeClassifierCV`: solved as a batch over the same rows, and scored."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn import get_config
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.threads import one_blas_thread
from jaxhinge._methods.problem import Status
from jaxhinge._solve.given import config_of
from jaxhinge._solve.polish import middle_bias
from jaxhinge._sweep.grid import Grid, Options, Problems, Solver
from jaxhinge._sweep.scores import METRICS, Metric
from jaxhinge.sklearn._classifier import HingeClassifier, HingeClassifierBase
from jaxhinge.sklearn._common import is_free, is_small
from jaxhinge.sklearn._multiclass import binary_share, is_joint, mean_loss, signs_of, solve_folds_jointly

# Folds of all but small problems are solved to this relative gap: their scores do not change beyond it.
_FOLD_TOL = 1e-4

# From the number of a fold, weights `(problems, d)` and biases `(problems,)` to the score on the rows held out.
Scorer = Callable[[int, NDArray, NDArray], float]


def solve_folds(
    model: HingeClassifierBase,
    Cs: NDArray,
    x: NDArray,
    labels: NDArray,
    weight: NDArray,
    train: NDArray,
    *,
    progress: bool,
) -> Grid:
    """Every strength, problem and fold solved; those of one class against the rest with the middle of their biases.

    Args:
      model: What was asked for.
      Cs: The strengths.
      x: `(n, d)`.
      labels: Integers 0..k-1 `(n,)`.
      weight: `(n,)`.
      train: Which rows train `(folds, n)`.
      progress: Whether to draw a bar.
    """
    # C is the same in every fold. So l2 is larger where the fold has less weight.
    l2 = 1 / (Cs[:, None] * (train @ weight))
    if is_joint(model):
        return solve_folds_jointly(model, l2, x, labels, weight, train, _fold_tol(model, x), progress=progress)
    signs = signs_of(model, labels)
    count, folds = len(signs), len(train)
    config = replace(config_of(model.loss, model.fit_intercept, "auto"), dtype=jnp.float64)
    options = Options(_fold_tol(model, x), model.max_iter, None, progress, "raise")
    problems = Problems(x, signs, np.tile(weight, (count, 1)))
    grid, _ = Solver(config, problems, count * folds, options).grid(train, binary_share(model) * l2)
    if is_free(model.fit_intercept) and model.loss == "hinge":
        return grid._replace(b=_middle_biases(grid.w, x, signs, weight, train))
    return grid


@one_blas_thread()
def _middle_biases(w: NDArray, x: NDArray, signs: NDArray, weight: NDArray, train: NDArray) -> NDArray:
    biases, ones = np.empty(w.shape[:-1]), np.ones(x.shape[0])
    masks = [rows & (weight > 0) for rows in train]
    for row, strength in enumerate(w):
        scores = (x @ strength.reshape(-1, x.shape[1]).T).T.reshape(*strength.shape[:-1], -1)
        for problem, fold in np.ndindex(scores.shape[:2]):
            rows = masks[fold]
            biases[row, problem, fold] = middle_bias(
                scores[problem, fold, rows], signs[problem, rows], ones[rows], weight[rows]
            )
    return biases


def _fold_tol(model: HingeClassifierBase, x: NDArray) -> float:
    return model.tol if is_small(x) else max(model.tol, _FOLD_TOL)


def warn_of_folds(model: HingeClassifierBase, grid: Grid, x: NDArray) -> None:
    """A `ConvergenceWarning` where folds ended too soon; what precision ends beyond `_FOLD_TOL` is good enough."""
    lacking = grid.status == Status.STEP_LIMIT
    if not is_small(x):
        lacking |= grid.status == Status.STALLED
    if lacking.any():
        warnings.warn(
            f"{type(model).__name__}: {lacking.sum()} of {lacking.size} problems of the folds did not reach "
            f"tol={_fold_tol(model, x):g}; the largest duality gap is {grid.gap[lacking].max():.2g}, so that their "
            "scores are uncertain. Raise max_iter, scale the features (StandardScaler), or leave out the largest C.",
            ConvergenceWarning,
            # The warning points past this function and `fit` to the caller of `fit`.
            stacklevel=3,
        )


def scorer_of(
    model: HingeClassifierBase,
    scoring: Any,
    x: NDArray,
    labels: NDArray,
    weight: NDArray,
    held_out: NDArray,
    *,
    weighted: bool,
) -> Scorer:
    """The metric of the package of that name, else the scorer of scikit-learn, which is given a fitted classifier."""
    name = "accuracy" if scoring is None else scoring
    classes, rows_of = model.classes_, [np.flatnonzero(rows) for rows in held_out]
    if isinstance(name, str) and name in METRICS:
        metric, targets = _metric(model, name), labels if len(classes) > 2 else 2 * labels - 1

        def by_metric(fold: int, w: NDArray, b: NDArray) -> float:
            rows = rows_of[fold]
            scores = x[rows] @ w.T + b
            return metric(targets[rows], scores if len(w) > 1 else scores[:, 0], weight[rows])

        return by_metric
    scorer = get_scorer(name)
    weighted = weighted and _asks_for_weights(scorer)

    def by_scorer(fold: int, w: NDArray, b: NDArray) -> float:
        rows = rows_of[fold]
        fitted = HingeClassifier()
        fitted.coef_, fitted.intercept_, fitted.classes_, fitted.n_features_in_ = w, b, classes, x.shape[1]
        options = {"sample_weight": weight[rows]} if weighted else {}
        return float(scorer(fitted, x[rows], classes[labels[rows]], **options))

    return by_scorer


def _metric(model: HingeClassifierBase, name: str) -> Metric:
    if name == "hinge" and is_joint(model):
        return lambda labels, scores, weight: -mean_loss(model.multi_class, labels, scores, weight)
    return METRICS[name]


def _asks_for_weights(scorer: Any) -> bool:
    """Whether a scorer, or the metric that scikit-learn made one of, names `sample_weight` among its parameters.

    With metadata routing, a scorer asks by `set_score_request(sample_weight=True)`.
    """
    if get_config()["enable_metadata_routing"] and hasattr(scorer, "get_metadata_routing"):
        return bool(scorer.get_metadata_routing().consumes("score", ["sample_weight"]))
    return "sample_weight" in signature(getattr(scorer, "_score_func", scorer)).parameters
