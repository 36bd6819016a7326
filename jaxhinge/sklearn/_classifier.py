"""`HingeClassifier`, and what it shares with its cross-validated sibling."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model._base import LinearClassifierMixin, SparseCoefMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import check_sample_weight
from jaxhinge._solve.binary import Loss, Solution, solve
from jaxhinge._solve.polish import Hinges
from jaxhinge.sklearn._common import (
    NO_PROBABILITIES,
    Intercept,
    Signposts,
    check_options,
    check_unmasked,
    is_free,
    l2_of,
    rows_of,
    solve_exactly,
    warn_unless_converged,
)
from jaxhinge.sklearn._multiclass import (
    MultiClass,
    binary_share,
    check_multi_class,
    is_joint,
    signs_of,
    solve_jointly,
)

ClassWeight = dict[Any, float] | Literal["balanced"] | None


class HingeClassifierBase(Signposts, LinearClassifierMixin, SparseCoefMixin, BaseEstimator):  # type: ignore[misc]
    """A linear hinge classifier: its data, and its one or several solves."""

    _not_here: ClassVar[dict[str, str]] = {
        **Signposts._not_here,
        "predict_proba": NO_PROBABILITIES,
        "predict_log_proba": NO_PROBABILITIES,
    }
    # An estimator that was pickled by version 0.1 has no such parameter.
    multi_class: MultiClass = "ovr"
    loss: Loss
    class_weight: ClassWeight
    fit_intercept: Intercept
    tol: float
    max_iter: int
    memory_budget: float | Literal["deprecated"]

    def decision_function(self, X: Any) -> NDArray:
        """The scores of rows of features.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The features.

        Returns
        -------
        scores : ndarray of shape (n_samples,) or (n_samples, n_classes)
            `X @ coef_.T + intercept_`; of two classes the score of the second.
        """
        check_unmasked(X=X)
        return np.asarray(super().decision_function(X))

    def _rows(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, NDArray, NDArray]:
        """Float64 features, in an array or a CSR array, labels 0..k-1 and sample weights, checked; sets `classes_`."""
        check_unmasked(X=X, y=y, sample_weight=sample_weight)
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
        return rows_of(X), labels, weight

    def _class_weighted(self, labels: NDArray, weight: NDArray) -> NDArray:
        """The sample weights times the weights of the classes; "balanced" counts rows by their weights."""
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            of_class = weight.sum() / (len(self.classes_) * np.bincount(labels, weights=weight))
        else:
            of_class = class_weights(self.class_weight, self.classes_)
        return np.asarray(weight * of_class[labels])

    def _solve(self, x: NDArray, labels: NDArray, weight: NDArray, l2: float) -> list[Solution]:
        """Solve for all classes, each class against the rest, or two against each other; set what was fitted."""
        solutions: list[Any]
        if is_joint(self):
            solutions = [solve_jointly(self, x, labels, weight, l2, self.tol)]
            self.coef_, self.intercept_ = np.ascontiguousarray(solutions[0].params.w.T), solutions[0].params.b
        else:
            share = binary_share(self)
            solutions = [self._solve_one(x, y, weight, share * l2) for y in signs_of(self, labels)]
            self.coef_ = np.stack([solution.params.w for solution in solutions])
            self.intercept_ = np.array([solution.params.b for solution in solutions])
        self.n_iter_ = max(int(solution.steps) for solution in solutions)
        self.dual_gap_ = float(sum(solution.gap for solution in solutions))
        self.l2_ = l2
        return solutions

    def _solve_one(self, x: NDArray, y: NDArray, weight: NDArray, l2: float) -> Solution:
        solve_to = partial(
            solve, x, y, l2=l2, sample_weight=weight, fit_intercept=self.fit_intercept, loss=self.loss,
            max_steps=self.max_iter, as_numpy=True,
        )  # fmt: skip
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


def class_weights(class_weight: Any, classes: NDArray) -> NDArray:
    """The weight of each class, 1 for those left out; keys that are no class are refused."""
    if class_weight is None:
        return np.ones(len(classes))
    if not isinstance(class_weight, dict):
        raise TypeError(
            'class_weight must be None, "balanced" or a dictionary from classes to weights, such as '
            f"{{{classes.tolist()[0]!r}: 2.0}}; got {class_weight!r}."
        )
    known = classes.tolist()
    unknown = [key for key in class_weight if key not in known]
    if unknown:
        kinds = " and ".join(sorted({type(key).__name__ for key in class_weight}))
        mend = "Leave those out that are no class."
        if all(isinstance(key, str) for key in unknown) and classes.dtype.kind in "iuf":
            mend = "Keys that come from JSON are strings: {int(key): weight for key, weight in class_weight.items()}."
        raise ValueError(
            f"class_weight has the keys {list(class_weight)} ({kinds}), of which {unknown} are no class: the classes "
            f"are {known} ({type(known[0]).__name__}). {mend}"
        )
    of_class = np.array([class_weight.get(label, 1.0) for label in known], np.float64)
    if not (of_class > 0).all():
        raise ValueError(
            f"class_weight must be above 0 for every class; got {class_weight!r}. Leave out the rows of any class that "
            "should not count."
        )
    return of_class


class HingeClassifier(HingeClassifierBase):
    r"""A linear support vector machine, solved to a certified duality gap.

    .. math::
        \min_{w, b}\ \sum_i c_i \max(0, 1 - y_i (x_i \cdot w + b)) + \frac{l2}{2} \|w\|^2, \qquad
        c_i = \mathrm{weight}_i / \textstyle\sum \mathrm{weight}, \quad l2 = 1 / (C \textstyle\sum \mathrm{weight})

    the minimiser of LIBLINEAR's and LIBSVM's objective for the same `C`, by `jaxhinge.solve`. More than two classes
    are solved one against the rest, or jointly (`multi_class`). A weight of 2 is the same as a row given twice. Where
    a free intercept is not unique, it is the middle of the optimal ones.

    Parameters
    ----------
    C : float, default=None
        The inverse strength of regularisation, above 0. 1.0 where neither `C` nor `l2` is given; it is an error to
        give both.
    l2 : float, default=None
        The strength of regularisation in the units of `jaxhinge.loss`: `l2 = 1 / (C * sum(weights))`.
    loss : {"hinge", "squared_hinge"}, default="hinge"
        The hinge, or its square.
    multi_class : {"ovr", "crammer_singer", "weston_watkins"}, default="ovr"
        With more than two classes: "ovr" for a machine of each class against the rest, or one joint machine with the
        loss `max(0, max_{j != y} 1 + s_j - s_y)` ("crammer_singer") or `sum_{j != y} max(0, 1 + s_j - s_y)`
        ("weston_watkins") of its scores `s_j = x . w_j + b_j`, in place of the hinge, and the norm of all `w_j`. A
        joint machine finds a class that lies between others, which no line divides from the rest. Of two classes,
        `coef_` is `w_1 - w_0`, as in `LinearSVC(multi_class="crammer_singer")`: the binary machine of `l2 / 2`.
    class_weight : dict or "balanced", default=None
        A weight for each class, to multiply the weights of its rows; classes left out have 1. "balanced" gives all
        classes the same total weight.
    fit_intercept : bool or "regularized", default=True
        True for a free intercept, False for none, "regularized" to count it in the norm, as `LinearSVC` does.
    tol : float, default=1e-8
        Stop when the duality gap is at most `tol` times the objective.
    max_iter : int, default=200
        Stop after this many steps.
    memory_budget : "deprecated"
        Does nothing: sparse features are no longer made dense. Version 0.3 drops it.

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
    jaxhinge.solve, jaxhinge.solve_multiclass : The functions behind it.

    References
    ----------
    Boyd and Vandenberghe, Convex Optimization, 2004, chapter 5; Ferris and Munson, Interior-point methods for massive
    support vector machines, 2002; Crammer and Singer, On the algorithmic implementation of multiclass kernel-based
    vector machines, 2001; Weston and Watkins, Support vector machines for multi-class pattern recognition, 1999.

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
        multi_class: MultiClass = "ovr",
        class_weight: ClassWeight = None,
        fit_intercept: Intercept = True,
        tol: float = 1e-8,
        max_iter: int = 200,
        memory_budget: float | Literal["deprecated"] = "deprecated",
    ) -> None:
        self.C = C
        self.l2 = l2
        self.loss = loss
        self.multi_class = multi_class
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
            For what `jaxhinge.solve` refuses, both of `C` and `l2`, a joint machine with `loss="squared_hinge"`, a
            class without weight, and a key of `class_weight` that is no class.
        """
        check_options(self)
        check_multi_class(self.multi_class, self.loss)
        x, labels, weight = self._rows(X, y, sample_weight)
        weight = self._class_weighted(labels, weight)
        solutions = self._solve(x, labels, weight, l2_of(self.C, self.l2, float(np.sum(weight))))
        warn_unless_converged(self, solutions, self.tol)
        return self
