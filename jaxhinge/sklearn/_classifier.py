"""`HingeClassifier`, and what it shares with its cross-validated sibling."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import check_sample_weight
from jaxhinge._solve.binary import Loss, Solution, solve
from jaxhinge._solve.polish import Hinges
from jaxhinge.sklearn._common import Intercept, dense, is_free, l2_of, solve_exactly, warn_unless_converged

ClassWeight = dict[Any, float] | Literal["balanced"] | None


class HingeClassifierBase(LinearClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear hinge classifier: its data, and its one or several solves."""

    loss: Loss
    class_weight: ClassWeight
    fit_intercept: Intercept
    tol: float
    max_iter: int
    memory_budget: float

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _rows(self, X: Any, y: Any, sample_weight: Any) -> tuple[NDArray, NDArray, NDArray]:
        """Dense float64 features, labels 0..k-1 and sample weights, checked; sets `classes_`."""
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64)
        check_classification_targets(y)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        check_sample_weight("sample_weight", weight, len(weight))
        self.classes_, labels = np.unique(y, return_inverse=True)
        counted = np.bincount(labels, weights=weight) != 0
        if np.count_nonzero(counted) < 2:
            raise ValueError(
                "A classifier needs rows of at least two classes, with a weight above 0; got one class only: "
                f"{self.classes_[counted].tolist()}."
            )
        if not counted.all():
            raise ValueError(
                f"All rows of the classes {self.classes_[~counted].tolist()} have weight 0. Leave those rows out."
            )
        return dense(X, self.memory_budget), labels, weight

    def _class_weighted(self, labels: NDArray, weight: NDArray) -> NDArray:
        """The sample weights times the weights of the classes; "balanced" counts rows by their weights."""
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            of_class = weight.sum() / (len(self.classes_) * np.bincount(labels, weights=weight))
        else:
            of_class = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[labels])
        if not (of_class > 0).all():
            raise ValueError(
                f"class_weight must be above 0 for every class; got {self.class_weight!r}. Leave out the rows of any "
                "class that should not count."
            )
        return np.asarray(weight * of_class[labels])

    def _signs(self, labels: NDArray) -> NDArray:
        """Targets -1 and +1 `(1, n)` of the second of two classes, or `(k, n)` of each class against the rest."""
        positive = np.arange(len(self.classes_)) if len(self.classes_) > 2 else np.array([1])
        return np.where(labels == positive[:, None], 1.0, -1.0)

    def _solve(self, x: NDArray, labels: NDArray, weight: NDArray, l2: float) -> list[Solution]:
        """Solve for each class against the rest, or the two classes against each other; set what was fitted."""
        solutions = [self._solve_one(x, y, weight, l2) for y in self._signs(labels)]
        self.coef_ = np.stack([solution.params.w for solution in solutions])
        self.intercept_ = np.array([solution.params.b for solution in solutions])
        self.n_iter_ = max(int(solution.steps) for solution in solutions)
        self.dual_gap_ = float(sum(solution.gap for solution in solutions))
        self.l2_ = l2
        return solutions

    def _solve_one(self, x: NDArray, y: NDArray, weight: NDArray, l2: float) -> Solution:
        def solve_to(tol: float, init: Solution | None) -> Solution:
            return solve(
                x,
                y,
                l2=l2,
                sample_weight=weight,
                fit_intercept=self.fit_intercept,
                loss=self.loss,
                tol=tol,
                max_steps=self.max_iter,
                init=init,
                as_numpy=True,
            )

        hinges = Hinges(
            x=x,
            sign=y,
            required=np.ones_like(y),
            c=weight / weight.sum(),
            l2=l2,
            squared=self.loss == "squared_hinge",
            free_bias=is_free(self.fit_intercept),
        )
        return solve_exactly(solve_to, hinges, self.fit_intercept, self.tol)


class HingeClassifier(HingeClassifierBase):
    r"""A linear support vector machine, solved to a certified duality gap.

    .. math::
        \min_{w, b}\ \sum_i c_i \max(0, 1 - y_i (x_i \cdot w + b)) + \frac{l2}{2} \|w\|^2, \qquad
        c_i = \mathrm{weight}_i / \textstyle\sum \mathrm{weight}, \quad l2 = 1 / (C \textstyle\sum \mathrm{weight})

    the minimiser of LIBLINEAR's and LIBSVM's objective for the same `C`, by `jaxhinge.solve`. More than two classes
    are solved one against the rest. A weight of 2 is the same as a row given twice. Where a free intercept is not
    unique, it is the middle of the optimal ones.

    Parameters
    ----------
    C : float, default=None
        The inverse strength of regularisation, above 0. 1.0 where neither `C` nor `l2` is given; it is an error to
        give both.
    l2 : float, default=None
        The strength of regularisation in the units of `jaxhinge.loss`: `l2 = 1 / (C * sum(weights))`.
    loss : {"hinge", "squared_hinge"}, default="hinge"
        The hinge, or its square.
    class_weight : dict or "balanced", default=None
        A weight for each class, to multiply the weights of its rows; classes left out have 1. "balanced" gives all
        classes the same total weight.
    fit_intercept : bool or "regularized", default=True
        True for a free intercept, False for none, "regularized" to count it in the norm, as `LinearSVC` does.
    tol : float, default=1e-8
        Stop when the duality gap is at most `tol` times the objective.
    max_iter : int, default=200
        Stop after this many steps.
    memory_budget : float, default=4e9
        How many bytes, about, the solver may take for sparse features, which are made dense.

    Attributes
    ----------
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
        The weights, float64; for two classes those of `classes_[1]`.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        The intercept.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    dual_gap_ : float
        The objective at `coef_` and `intercept_`, summed over the problems solved, is at most this far above the
        smallest possible.
    n_iter_ : int
        The steps that were made, the most for any class.
    l2_ : float
        The `l2` that was used.
    n_features_in_ : int
        The number of features.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where `X` had names that are all strings.

    See Also
    --------
    HingeClassifierCV : Chooses `C` by cross-validation.
    jaxhinge.solve : The function behind it.

    References
    ----------
    Boyd and Vandenberghe, Convex Optimization, 2004, chapter 5; Ferris and Munson, Interior-point methods for massive
    support vector machines, 2002.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from jaxhinge.sklearn import HingeClassifier
    >>> x, y = load_iris(return_X_y=True)
    >>> model = HingeClassifier(C=10).fit(x, y)
    >>> model.coef_.shape, bool(model.dual_gap_ < 1e-8), bool(model.score(x, y) > 0.9)
    ((3, 4), True, True)
    """

    def __init__(
        self,
        C: float | None = None,
        *,
        l2: float | None = None,
        loss: Loss = "hinge",
        class_weight: ClassWeight = None,
        fit_intercept: Intercept = True,
        tol: float = 1e-8,
        max_iter: int = 200,
        memory_budget: float = 4e9,
    ) -> None:
        self.C = C
        self.l2 = l2
        self.loss = loss
        self.class_weight = class_weight
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.memory_budget = memory_budget

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> HingeClassifier:
        """Solve for the weights and the intercept.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The features.
        y : array-like of shape (n_samples,)
            Labels of any type, at least two different ones.
        sample_weight : array-like of shape (n_samples,), default=None
            A weight for each row, not negative.

        Returns
        -------
        self : HingeClassifier
            Fitted.

        Raises
        ------
        ValueError
            For what `jaxhinge.solve` refuses, both of `C` and `l2`, a class without weight, and sparse features beyond
            `memory_budget`.
        """
        x, labels, weight = self._rows(X, y, sample_weight)
        weight = self._class_weighted(labels, weight)
        solutions = self._solve(x, labels, weight, l2_of(self.C, self.l2, float(np.sum(weight))))
        warn_unless_converged(self, solutions, self.tol)
        return self
