"""What the estimators share: from scikit-learn's words and arrays to those of the solver, and back."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from jaxhinge._base.arrays import flag, refuse_masked
from jaxhinge._base.values import check_number
from jaxhinge._methods.problem import Status
from jaxhinge._objective.objective import LinearParams
from jaxhinge._solve.binary import Solution
from jaxhinge._solve.polish import Hinges, Polished, polish, with_middle_bias

Intercept = bool | Literal["regularized"]

# `_ROUGH`: the relative gap of the first solve, from which polishing mostly finds the exact solution.
_ROUGH = 1e-4
# `FINE`: where it does not, a second solve aims for this share of the tolerance.
FINE = 1e-2
# Problems of at most so many rows and features are solved to the tolerance of the estimator in every fold, too.
_FEW_ROWS, _FEW_FEATURES = 512, 32
# The `memory_budget` of version 0.1, which unpickled estimators still have.
_OLD_BUDGET = 4e9

_ADVICE = {
    Status.STEP_LIMIT: "Raise max_iter, or accept the gap with a larger tol.",
    Status.STALLED: "No smaller gap was reached in float64: scale the features (StandardScaler), regularise more, "
    "or accept the gap with a larger tol.",
}


# Numbers of the estimators: the smallest and the largest that each may be.
_LIMITS = (
    ("tol", Real, 0, np.inf),
    ("max_iter", Integral, 1, 2**31 - 1),
    ("epsilon", Real, 0, np.inf),
    ("verbose", Integral, 0, np.inf),
)

_NO_PARTIAL_FIT = (
    "{name} is solved on all rows at once, to a proof of how good it is, so that it has no partial_fit. For rows that "
    "come in batches: jaxhinge.fit(batches, l2=...), or jaxhinge.make_train_step in a loop of your own."
)
NO_PROBABILITIES = (
    "{name} has scores (decision_function), and no probabilities. jaxhinge.sklearn.HingeClassifierCV(probability=True) "
    "makes them of its out-of-fold scores; sklearn.calibration.CalibratedClassifierCV({name}(...)) by fits of its own."
)


class Signposts:
    """What scikit-learn asks of an estimator: that it takes sparse features, and attributes that users look for and
    that are not there, of which the error says what there is instead."""

    _not_here: ClassVar[dict[str, str]] = {"partial_fit": _NO_PARTIAL_FIT}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.sparse = True
        return tags

    def __getattr__(self, name: str) -> Any:
        owner = type(self).__name__
        advice = self._not_here.get(name)
        message = f"{owner!r} object has no attribute {name!r}" if advice is None else advice.format(name=owner)
        raise AttributeError(message, name=name, obj=self)


def l2_of(C: float | None, l2: float | None, total_weight: float) -> float:
    """The strength of regularisation that `C` or `l2` stands for: `l2 = 1 / (C * sum(weights))`."""
    if l2 is None:
        strength = check_C("C", 1.0 if C is None else C) * float(total_weight)
        found = 1 / strength if strength else np.inf
        if not sys.float_info.min <= found <= sys.float_info.max:
            raise ValueError(
                f"C={C!r} and a total weight of {total_weight:g} stand for l2 = 1 / (C * sum(weights)) = {found:g}, "
                "which float64 does not hold: take a C nearer to 1."
            )
        return found
    if C is not None:
        raise ValueError(
            f"C={C!r} and l2={l2!r} were both given, and they say the same thing: l2 = 1 / (C * sum(weights)). "
            "Leave one of them None."
        )
    return check_number("l2", l2, meaning="a number above 0", valid=lambda v: v > 0)


def check_C(name: str, value: Any) -> float:
    """The inverse strength of regularisation, above 0."""
    return check_number(name, value, meaning="a number above 0", valid=lambda v: v > 0)


def check_unmasked(**arrays: Any) -> None:
    """Refuse masked entries, which scikit-learn takes for numbers."""
    for name, value in arrays.items():
        refuse_masked(name, value)


def check_options(estimator: Any) -> None:
    """Refuse numbers under the names that they have here; the solver, and NumPy, would name others or none."""
    for name, kind, least, most in _LIMITS:
        value = getattr(estimator, name, least)
        wanted = f"{name} must be {'an integer' if kind is Integral else 'a number'}, at least {least}"
        if not isinstance(value, kind):
            raise TypeError(f"{wanted}; got {value!r}.")
        if not least <= float(value) <= most:
            raise ValueError(f"{wanted}{f' and at most {most}' if most < np.inf else ''}; got {value!r}.")
    for name in ("refit", "probability"):
        flag(name, getattr(estimator, name, False))
    if estimator.memory_budget not in ("deprecated", _OLD_BUDGET):
        warnings.warn(
            f"memory_budget={estimator.memory_budget!r} does nothing: it bounded what sparse features may take when "
            "made dense, and they are solved as they are now. Leave it out: version 0.3 drops it.",
            DeprecationWarning,
            # The warning points past this function and `fit` to the caller of `fit`.
            stacklevel=3,
        )


def is_free(fit_intercept: Intercept) -> bool:
    """Whether the intercept is free; NumPy's True, which grids hold, is True."""
    return isinstance(fit_intercept, (bool, np.bool_)) and bool(fit_intercept)


def rows_of(x: Any) -> Any:
    """Checked features as the solver takes them: an array, or a CSR array where they are sparse."""
    return sparse.csr_array(x) if sparse.issparse(x) else np.asarray(x)


def is_small(x: Any) -> bool:
    """Whether a problem with these rows is so small that more digits cost nothing."""
    n, d = x.shape
    return bool(n <= _FEW_ROWS and d <= _FEW_FEATURES)


def solve_exactly(solve_to: Callable[..., Solution], hinges: Hinges, fit_intercept: Intercept, tol: float) -> Solution:
    """Solve roughly and polish; where that does not settle it, solve finely, from there, and polish again.

    Sparse rows are solved to `tol` at once: the decompositions of the polish would make them dense.

    Args:
      solve_to: From a tolerance `tol` and a solution to start from, `init`, to a solution.
      hinges: The problem.
      fit_intercept: As for `jaxhinge.solve`.
      tol: The relative gap that is wanted.
    """
    if sparse.issparse(hinges.x):
        found = solve_to(tol=tol)
        return with_middle_bias(hinges, found) if is_free(fit_intercept) and not hinges.squared else found
    rough = solve_to(tol=max(tol, _ROUGH))
    polished = _polished(hinges, rough, fit_intercept, tol)
    converged = polished.solution.status == Status.CONVERGED and (polished.active_set_identified or tol >= _ROUGH)
    if converged or polished.solution.status == Status.STEP_LIMIT:
        return polished.solution
    steps = rough.steps
    # A start from the rough solution may end with rows on the margin to the last digit; one from 0 ends inside of it.
    for init in (rough, None):
        fine = solve_to(tol=FINE * tol, init=init)
        steps = steps + fine.steps
        solution = _polished(hinges, fine, fit_intercept, tol).solution
        if solution.status != Status.STALLED:
            break
    return solution._replace(steps=steps)


def _polished(hinges: Hinges, solution: Solution, fit_intercept: Intercept, tol: float) -> Polished:
    """The polished solution, a regularised intercept being the weight of a column of ones."""
    params: Any = solution.params
    if fit_intercept != "regularized":
        return polish(hinges, solution, tol)
    with_ones = hinges._replace(x=np.column_stack([hinges.x, np.ones(len(hinges.x))]))
    params = params._replace(w=np.append(params.w, params.b), b=np.float64(0))
    found = polish(with_ones, solution._replace(params=params), tol)
    w = found.solution.params.w
    return found._replace(solution=found.solution._replace(params=LinearParams(w[:-1], w[-1])))


def warn_unless_converged(estimator: Any, solutions: Sequence[Solution], tol: float) -> None:
    """A `ConvergenceWarning` that tells of the problem with the largest gap, where one has not converged."""
    lacking = [solution for solution in solutions if solution.status != Status.CONVERGED]
    if not lacking:
        return
    worst = max(lacking, key=lambda solution: float(solution.gap))
    status = Status(int(worst.status))
    of = f" for {len(lacking)} of {len(solutions)} problems; the worst" if len(solutions) > 1 else ": it"
    warnings.warn(
        f"{type(estimator).__name__} did not reach tol={tol:g}{of} ended after {int(worst.steps)} steps "
        f"({status.name}) with a duality gap of {float(worst.gap):.2g}, for an objective of "
        f"{float(worst.primal_value):.2g}. {_ADVICE[status]}",
        ConvergenceWarning,
        # The warning points past this function and `fit` to the caller of `fit`.
        stacklevel=3,
    )
