"""`HingeClassifierCV`: the classifier that chooses its `C` by cross-validation."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import check_cv

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import host_integer
from jaxhinge._solve.binary import Loss
from jaxhinge._solve.gap import duality_gap
from jaxhinge._sweep.folds import make_folds
from jaxhinge._sweep.grid import Grid
from jaxhinge._sweep.scores import check_held_out
from jaxhinge._sweep.sweep import Select, check_select, chosen_strength
from jaxhinge.sklearn._classifier import ClassWeight, HingeClassifierBase
from jaxhinge.sklearn._common import Intercept, check_C, warn_unless_converged
from jaxhinge.sklearn._cross_validation import scorer_of, solve_folds, warn_of_folds


class HingeClassifierCV(HingeClassifierBase):
    """A linear support vector machine that chooses its `C` by cross-validation, every fold solved to a duality gap.

    It stands for `GridSearchCV(LinearSVC(loss="hinge"), {"C": Cs})` in the manner of `LogisticRegressionCV`. All
    strengths, folds and classes are solved as batches over the same rows, as in `jaxhinge.sweep`; then the best `C` is
    solved on all rows, as by `HingeClassifier`. `C` means the same in every fold: its `l2` is `1 / (C * sum(weights))`
    of the rows that train.

    Parameters
    ----------
    Cs : int or array-like of floats, default=10
        The inverse strengths of regularisation, above 0; a number means so many from 1e-4 to 1e4, evenly on a
        logarithmic scale.
    cv : int, splitter or iterable, default=None
        How the rows are split: so many stratified folds, a scikit-learn splitter, or pairs of row numbers (train,
        test). None means 5 folds.
    scoring : str or callable, default=None
        None or "accuracy"; "balanced_accuracy"; "roc_auc" (of several classes, the mean of each against the rest);
        "hinge", minus the mean hinge loss; the name of any other scikit-learn scorer, or a callable
        `scorer(estimator, X, y)`, which is also given `sample_weight=` where there are sample weights.
    select : {"mean", "one_standard_error"}, default="mean"
        Choose the best mean score, the smallest `C` among equals; or the smallest `C` whose mean score is within one
        standard error of the best.
    refit : bool, default=True
        Whether to solve once more, on all rows, with the best `C`. Otherwise the weights and intercepts of the folds
        are averaged.
    loss : {"hinge", "squared_hinge"}, default="hinge"
        The hinge, or its square.
    class_weight : dict or "balanced", default=None
        A weight for each class, to multiply the weights of its rows; classes left out have 1. "balanced" gives all
        classes the same total weight, over all rows. Scores are not weighted by it.
    fit_intercept : bool or "regularized", default=True
        True for a free intercept, False for none, "regularized" to count it in the norm, as `LinearSVC` does.
    tol : float, default=1e-8
        Stop when the duality gap is at most `tol` times the objective. In the folds of more than 512 rows or 32
        features, 1e-4 is enough: it changes their scores by less than the choice of the folds.
    max_iter : int, default=200
        Stop each problem after this many steps.
    memory_budget : float, default=4e9
        How many bytes, about, the solver may take; sparse features are made dense.
    verbose : int, default=0
        Whether to draw a progress bar.

    Attributes
    ----------
    C_ : float
        The `C` that was chosen.
    Cs_ : ndarray of shape (n_Cs,)
        Those that were tried.
    scores_ : ndarray of shape (n_folds, n_Cs)
        The scores on the rows held out, weighted where sample weights were given.
    best_score_ : float
        The mean score of `C_`.
    fold_gaps_ : ndarray of shape (n_folds, n_Cs)
        The duality gap of each problem, the sum over classes.
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
        The weights, float64; for two classes those of `classes_[1]`.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        The intercept.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    dual_gap_ : float
        The objective at `coef_` and `intercept_`, on all rows and summed over the problems solved, is at most this far
        above the smallest possible.
    n_iter_ : int
        The steps that were made by the last solve, the most for any class; without a refit, for any fold.
    l2_ : float
        The `l2` of `C_` on all rows.
    n_features_in_ : int
        The number of features.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where `X` had names that are all strings.

    See Also
    --------
    HingeClassifier : For a given `C`.
    jaxhinge.sweep : The same in plain functions.

    References
    ----------
    Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, chapter 7.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from jaxhinge.sklearn import HingeClassifierCV
    >>> x, y = load_iris(return_X_y=True)
    >>> model = HingeClassifierCV(Cs=[0.01, 1, 100], cv=3).fit(x, y)
    >>> model.scores_.shape, bool(model.C_ >= 1), bool(model.score(x, y) > 0.9)
    ((3, 3), True, True)
    """

    def __init__(
        self,
        Cs: Any = 10,
        *,
        cv: Any = None,
        scoring: Any = None,
        select: Select = "mean",
        refit: bool = True,
        loss: Loss = "hinge",
        class_weight: ClassWeight = None,
        fit_intercept: Intercept = True,
        tol: float = 1e-8,
        max_iter: int = 200,
        memory_budget: float = 4e9,
        verbose: int = 0,
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.scoring = scoring
        self.select = select
        self.refit = refit
        self.loss = loss
        self.class_weight = class_weight
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.memory_budget = memory_budget
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> HingeClassifierCV:
        """Choose `C`, then solve for the weights and the intercept.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The features.
        y : array-like of shape (n_samples,)
            Labels of any type, at least two different ones.
        sample_weight : array-like of shape (n_samples,), default=None
            A weight for each row, not negative. The scores are weighted too.
        groups : array-like of shape (n_samples,), default=None
            The group of each row, for a `cv` that keeps groups together.

        Returns
        -------
        self : HingeClassifierCV
            Fitted.

        Raises
        ------
        ValueError
            For what `HingeClassifier` and `jaxhinge.sweep` refuse, before any work starts: a fold that trains without
            a class, a `C` that is not above 0, data beyond `memory_budget`.
        """
        x, labels, score_weight = self._rows(X, y, sample_weight)
        weight = self._class_weighted(labels, score_weight)
        self.Cs_ = self._strengths()
        targets = self.classes_[labels]
        pairs = check_cv(self.cv, targets, classifier=True).split(x, targets, groups)
        splits = make_folds(list(pairs), x, targets, weight, 0)
        check_select(self.select, len(splits.train))
        check_held_out(self.scoring, targets, score_weight, splits.held_out)
        weighted = sample_weight is not None
        scorer = scorer_of(self.scoring, self.classes_, x, labels, score_weight, splits.held_out, weighted=weighted)

        signs, progress = self._signs(labels), bool(self.verbose)
        grid = solve_folds(self, self.Cs_, x, signs, weight, splits.train, progress=progress)
        folds, strengths = range(len(splits.train)), range(len(self.Cs_))
        scores = [[scorer(fold, grid.w[row, :, fold], grid.b[row, :, fold]) for row in strengths] for fold in folds]
        self.scores_, self.fold_gaps_ = np.array(scores), grid.gap.sum(axis=1).T
        warn_of_folds(self, grid, x)
        best = self._best()
        self.C_, self.best_score_ = float(self.Cs_[best]), float(self.scores_[:, best].mean())
        if self.refit:
            warn_unless_converged(self, self._solve(x, labels, weight, 1 / (self.C_ * weight.sum())), self.tol)
        else:
            self._average(x, labels, weight, grid, best)
        return self

    def _strengths(self) -> NDArray:
        if np.ndim(self.Cs) == 0:
            if not isinstance(self.Cs, (int, np.integer)):
                raise TypeError(f"Cs must be a number of strengths, or the strengths, as a vector; got {self.Cs!r}.")
            return np.logspace(-4, 4, host_integer("Cs", self.Cs, at_least=1))
        Cs = np.array([check_C(f"Cs[{i}]", value) for i, value in enumerate(self.Cs)])
        if not len(Cs):
            raise ValueError("Cs is empty: give a number of strengths, or the strengths.")
        return Cs

    def _best(self) -> int:
        """The number of the `C` that is chosen: of those good enough, the smallest."""
        l2 = 1 / self.Cs_
        return int(np.argmax(l2 == chosen_strength(l2, self.scores_.T, self.select)))

    def _average(self, x: NDArray, labels: NDArray, weight: NDArray, grid: Grid, best: int) -> None:
        """The mean over the folds instead of a refit, with its duality gap on all rows."""
        self.coef_, self.intercept_ = grid.w[best].mean(axis=1), grid.b[best].mean(axis=1)
        self.n_iter_ = int(grid.steps[best].max())
        self.l2_ = 1 / (self.C_ * weight.sum())
        self.dual_gap_ = float(
            sum(
                duality_gap(
                    (w, b),
                    x,
                    y,
                    l2=self.l2_,
                    sample_weight=weight,
                    fit_intercept=self.fit_intercept,
                    loss=self.loss,
                )
                for w, b, y in zip(self.coef_, self.intercept_, self._signs(labels), strict=True)
            )
        )
