"""`HingeClassifierCV`: the classifier that chooses its `C` by cross-validation."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sklearn.model_selection import check_cv
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import host_integer
from jaxhinge._solve.binary import Loss
from jaxhinge._solve.gap import duality_gap
from jaxhinge._sweep.folds import make_folds
from jaxhinge._sweep.grid import Grid
from jaxhinge._sweep.scores import check_held_out
from jaxhinge._sweep.sweep import Select, check_select, chosen_strength
from jaxhinge.sklearn._classifier import ClassWeight, HingeClassifierBase
from jaxhinge.sklearn._common import Intercept, check_C, check_options, warn_unless_converged
from jaxhinge.sklearn._cross_validation import scorer_of, solve_folds, warn_of_folds
from jaxhinge.sklearn._multiclass import (
    MultiClass,
    binary_share,
    check_multi_class,
    gap_of_joint,
    is_joint,
    signs_of,
)
from jaxhinge.sklearn._probability import check_held_out_classes, fit_sigmoids, log_probabilities, score_noise


def _gives_probabilities(model: Any) -> bool:
    return bool(model.probability)


class HingeClassifierCV(HingeClassifierBase):
    """A linear support vector machine that chooses its `C` by cross-validation, every fold solved to a duality gap.

    It stands for `GridSearchCV(LinearSVC(loss="hinge"), {"C": Cs})` in the manner of `LogisticRegressionCV`. All
    strengths, folds and classes are solved as batches over the same rows, as in `jaxhinge.sweep` (joint machines one
    after the other, each from its neighbour in `C`); then the best `C` is solved on all rows, as by `HingeClassifier`.
    `C` means the same in every fold: its `l2` is `1 / (C * sum(weights))` of the rows that train.

    Parameters
    ----------
    Cs : int or array-like of floats, default=10
        The inverse strengths of regularisation, above 0; a number means so many from 1e-4 to 1e4, evenly on a
        logarithmic scale.
    cv : int, splitter or iterable, default=None
        How the rows are split: so many stratified folds, a scikit-learn splitter, or pairs of row numbers (train,
        test). None means 5 folds, or fewer where no class has 5 rows.
    scoring : str or callable, default=None
        None or "accuracy"; "balanced_accuracy"; "roc_auc" (of several classes, the mean of each against the rest);
        "hinge", minus the mean loss of the machine; the name of any other scikit-learn scorer, or a callable
        `scorer(estimator, X, y)`. Sample weights reach those that have a parameter `sample_weight`.
    select : {"mean", "one_standard_error"}, default="mean"
        Choose the best mean score, the smallest `C` among equals; or the smallest `C` whose mean score is within one
        standard error of the best.
    refit : bool, default=True
        Whether to solve once more, on all rows, with the best `C`. Otherwise the weights and intercepts of the folds
        are averaged.
    probability : bool, default=False
        Whether to fit a sigmoid to the scores of the rows held out, with the chosen `C`, for `predict_proba`; with more
        than two classes one for each against the rest, normalised. It takes no further solve.
    loss, multi_class, class_weight, fit_intercept
        As for `HingeClassifier`. "balanced" counts all rows, and scores are not weighted by `class_weight`.
    tol : float, default=1e-8
        Stop when the duality gap is at most `tol` times the objective. In the folds of more than 512 rows or 32
        features, 1e-4 is enough: it changes their scores by less than the choice of the folds.
    max_iter : int, default=200
        Stop each problem after this many steps.
    memory_budget : "deprecated"
        Does nothing. Version 0.3 drops it.
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
        The duality gap of each problem; of one against the rest, the sum over classes.
    coef_, intercept_, classes_, n_features_in_, feature_names_in_
        As those of `HingeClassifier`.
    dual_gap_ : float
        The objective at `coef_` and `intercept_`, on all rows and summed over the problems solved, is at most this far
        above the smallest possible.
    n_iter_ : int
        The steps that were made by the last solve, the most for any class; without a refit, for any fold.
    l2_ : float
        The `l2` of `C_` on all rows.
    probA_, probB_ : ndarrays of shape (1,) or (n_classes,)
        With `probability=True`: the probability of a class is `1 / (1 + exp(probA_ * score + probB_))`, before it is
        normalised.

    See Also
    --------
    HingeClassifier : For a given `C`.
    jaxhinge.sweep : The same in plain functions.

    References
    ----------
    Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, chapter 7; Platt, Probabilistic outputs
    for support vector machines, 1999; Lin, Lin and Weng, A note on Platt's probabilistic outputs for support vector
    machines, 2007.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from jaxhinge.sklearn import HingeClassifierCV
    >>> x, y = load_iris(return_X_y=True)
    >>> model = HingeClassifierCV(Cs=[0.01, 1, 100], cv=3).fit(x, y)
    >>> model.scores_.shape, bool(model.C_ >= 1), bool(model.score(x, y) > 0.9)
    ((3, 3), True, True)
    """

    # An estimator that was pickled by version 0.1 has no such parameter.
    probability: bool = False

    def __init__(
        self,
        Cs: Any = 10,
        *,
        cv: Any = None,
        scoring: Any = None,
        select: Select = "mean",
        refit: bool = True,
        probability: bool = False,
        loss: Loss = "hinge",
        multi_class: MultiClass = "ovr",
        class_weight: ClassWeight = None,
        fit_intercept: Intercept = True,
        tol: float = 1e-8,
        max_iter: int = 200,
        memory_budget: float | Literal["deprecated"] = "deprecated",
        verbose: int = 0,
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.scoring = scoring
        self.select = select
        self.refit = refit
        self.probability = probability
        self.loss = loss
        self.multi_class = multi_class
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
            a class, a `C` that is not above 0; with `probability=True`, folds that never hold a class out.
        """
        check_options(self)
        check_multi_class(self.multi_class, self.loss)
        x, labels, score_weight = self._rows(X, y, sample_weight)
        weight = self._class_weighted(labels, score_weight)
        self.Cs_ = self._strengths()
        targets = self.classes_[labels]
        pairs = check_cv(self._folds(labels), targets, classifier=True).split(x, targets, groups)
        splits = make_folds(list(pairs), x, targets, weight, 0)
        check_select(self.select, len(splits.train))
        check_held_out(self.scoring, targets, score_weight, splits.held_out)
        if self.probability:
            check_held_out_classes(self.classes_, labels, score_weight, splits.held_out)
        weighted = sample_weight is not None
        scorer = scorer_of(self, self.scoring, x, labels, score_weight, splits.held_out, weighted=weighted)

        grid = solve_folds(self, self.Cs_, x, labels, weight, splits.train, progress=bool(self.verbose))
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
        self._fit_sigmoids(x, labels, score_weight, splits.held_out, Grid(*(leaf[best] for leaf in grid)))
        return self

    @available_if(_gives_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> NDArray:
        """The probability of each class, by the sigmoids of the scores.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The features.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Rows with the sum 1, in the order of `classes_`. `predict` goes by the scores: where two probabilities are
            near each other, the larger need not be that of its class.

        Raises
        ------
        AttributeError
            Without `probability=True`.
        """
        return np.asarray(np.exp(self.predict_log_proba(X)))

    @available_if(_gives_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> NDArray:
        """The logarithms of `predict_proba`, finite where a probability is too small for a number.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The features.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.

        Raises
        ------
        AttributeError
            Without `probability=True`.
        """
        check_is_fitted(self, "probA_", msg="This %(name)s was not fitted with probability=True: call fit.")
        return log_probabilities(self.decision_function(X), self.probA_, self.probB_)

    def _fit_sigmoids(self, x: NDArray, labels: NDArray, weight: NDArray, held_out: NDArray, folds: Grid) -> None:
        """The sigmoids, from the scores of the `folds` of one `C` on the rows held out; without `probability`, none.

        A row that several folds hold out counts once in all. Class weights train, but do not count: the probabilities
        are those of the rows as they were given.
        """
        for name in ("probA_", "probB_"):
            self.__dict__.pop(name, None)
        if not self.probability:
            return
        row = np.nonzero(held_out)[1]
        w, b, gap = folds.w, folds.b, folds.gap.max(axis=1)
        scores = np.concatenate([x[rows] @ w[:, i].T + b[:, i] for i, rows in enumerate(held_out)])
        share = weight / np.maximum(held_out.sum(axis=0), 1)
        # The folds have a larger l2 than all rows, so that this is their noise or a little more.
        noise = np.broadcast_to(score_noise(x, gap, binary_share(self) * self.l2_), len(w))
        self.probA_, self.probB_ = fit_sigmoids(scores, labels[row], share[row], noise)

    def _folds(self, labels: NDArray) -> Any:
        """`cv`, and in place of None the number of folds: where no class has 5 rows, as many as the largest has."""
        return min(max(int(np.max(np.bincount(labels))), 2), 5) if self.cv is None else self.cv

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
        if is_joint(self):
            self.dual_gap_ = gap_of_joint(self, x, labels, weight)
            return
        self.dual_gap_ = float(
            sum(
                duality_gap(
                    (w, b),
                    x,
                    y,
                    l2=binary_share(self) * self.l2_,
                    sample_weight=weight,
                    fit_intercept=self.fit_intercept,
                    loss=self.loss,
                )
                for w, b, y in zip(self.coef_, self.intercept_, signs_of(self, labels), strict=True)
            )
        )
