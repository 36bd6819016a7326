"""`HingeRegressor`: support vector regression."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import check_real_targets, check_sample_weight
from jaxhinge._solve.binary import Solution
from jaxhinge._solve.polish import Hinges
from jaxhinge._solve.variants import solve_regression
from jaxhinge.sklearn._common import (
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

_LOSSES = ("epsilon_insensitive", "squared_epsilon_insensitive")


class HingeRegressor(Signposts, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    r"""Linear support vector regression, solved to a certified duality gap.

    .. math::
        \min_{w, b}\ \sum_i c_i \max(0, |y_i - x_i \cdot w - b| - \epsilon) + \frac{l2}{2} \|w\|^2, \qquad
        c_i = \mathrm{weight}_i / \textstyle\sum \mathrm{weight}, \quad l2 = 1 / (C \textstyle\sum \mathrm{weight})

    the minimiser of LIBLINEAR's and LIBSVM's objective for the same `C`, by `jaxhinge.solve_regression`. A weight of 2
    is the same as a row given twice. Where a free intercept is not unique, it is the middle of the optimal ones.

    Parameters
    ----------
    C, l2, fit_intercept, tol, max_iter, memory_budget
        As for `HingeClassifier`.
    epsilon : float, default=0.1
        Half the width of the tube in which a residual costs nothing, in the units of `y`.
    loss : {"epsilon_insensitive", "squared_epsilon_insensitive"}, default="epsilon_insensitive"
        The loss above, or its square.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,)
        The weights, float64.
    intercept_ : float
        The intercept.
    dual_gap_ : float
        The objective at `coef_` and `intercept_` is at most this far above the smallest possible.
    n_iter_ : int
        The steps that were made.
    l2_, n_features_in_, feature_names_in_
        As those of `HingeClassifier`.

    See Also
    --------
    HingeClassifier, jaxhinge.solve_regression : The classifier, and the function behind this estimator.

    References
    ----------
    Smola and Schoelkopf, A tutorial on support vector regression, 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from jaxhinge.sklearn import HingeRegressor
    >>> x = np.linspace(-1, 1, 21)[:, None]
    >>> model = HingeRegressor(C=100, epsilon=0.01).fit(x, 2 * x[:, 0] + 1)
    >>> print(np.round(model.coef_, 2), round(model.intercept_, 2), bool(model.score(x, 2 * x[:, 0] + 1) > 0.99))
    [1.99] 1.0 True
    """

    def __init__(
        self,
        C: float | None = None,
        *,
        l2: float | None = None,
        epsilon: float = 0.1,
        loss: Literal["epsilon_insensitive", "squared_epsilon_insensitive"] = "epsilon_insensitive",
        fit_intercept: Intercept = True,
        tol: float = 1e-8,
        max_iter: int = 200,
        memory_budget: float | Literal["deprecated"] = "deprecated",
    ) -> None:
        self.C = C
        self.l2 = l2
        self.epsilon = epsilon
        self.loss = loss
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.memory_budget = memory_budget

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> HingeRegressor:
        """Solve for the weights and the intercept.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The features.
        y : array-like of shape (n_samples,)
            The targets.
        sample_weight : array-like of shape (n_samples,), default=None
            A weight for each row, not negative.

        Returns
        -------
        self : HingeRegressor
            Fitted.

        Raises
        ------
        ValueError
            For what `jaxhinge.solve_regression` refuses, and both of `C` and `l2`.
        """
        if self.loss not in _LOSSES:
            raise ValueError(f'loss must be "{_LOSSES[0]}" or "{_LOSSES[1]}"; got {self.loss!r}.')
        check_options(self)
        check_unmasked(X=X, y=y, sample_weight=sample_weight)
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64, y_numeric=True)
        check_real_targets("y", y)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        check_sample_weight("sample_weight", weight, len(weight))
        l2 = l2_of(self.C, self.l2, weight.sum())
        solution = self._solve(rows_of(X), np.asarray(y, np.float64), weight, l2)
        self.coef_, self.intercept_ = solution.params.w, float(solution.params.b)
        self.n_iter_, self.dual_gap_, self.l2_ = int(solution.steps), float(solution.gap), l2
        warn_unless_converged(self, [solution], self.tol)
        return self

    def predict(self, X: Any) -> NDArray:
        """The targets expected for rows of features.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The features.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            `X @ coef_ + intercept_`.
        """
        check_is_fitted(self)
        check_unmasked(X=X)
        X = validate_data(self, X, accept_sparse="csr", reset=False)
        return np.asarray(safe_sparse_dot(X, self.coef_, dense_output=True) + self.intercept_)

    def _solve(self, x: Any, y: NDArray, weight: NDArray, l2: float) -> Solution:
        squared = self.loss == _LOSSES[1]
        solve_to = partial(
            solve_regression, x, y, l2=l2, epsilon=self.epsilon, sample_weight=weight,
            fit_intercept=self.fit_intercept, squared=squared, max_steps=self.max_iter, as_numpy=True,
        )  # fmt: skip
        # Each row has two hinges: one for a target above the tube and one for a target below it.
        sign = np.tile([1.0, -1.0], len(y))
        hinges = Hinges(
            x=x[np.repeat(np.arange(len(y)), 2)],
            sign=sign,
            required=sign * np.repeat(y, 2) - self.epsilon,
            c=np.repeat(weight / weight.sum(), 2),
            l2=l2,
            squared=squared,
            free_bias=is_free(self.fit_intercept),
        )
        return solve_exactly(solve_to, hinges, self.fit_intercept, self.tol)
