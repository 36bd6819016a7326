"""Several classes in one problem: the machines of Crammer and Singer, and of Weston and Watkins."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._methods.problem import Status
from jaxhinge._solve.binary import Solution
from jaxhinge._solve.multiclass import solve_multiclass
from jaxhinge._sweep.grid import Grid, grid_bar, unsolved_grid
from jaxhinge.sklearn._common import FINE

MultiClass = Literal["ovr", "crammer_singer", "weston_watkins"]
_CHOICES = ("ovr", "crammer_singer", "weston_watkins")
# `_BOUND_TOL`: relative gap of the solve that bounds the optimum for parameters from elsewhere; as `duality_gap`.
_BOUND_TOL = 1e-7


def check_multi_class(multi_class: Any, loss: Any) -> None:
    """A machine that there is, with a loss that it has."""
    if not isinstance(multi_class, str) or multi_class not in _CHOICES:
        raise ValueError(f"multi_class must be one of {', '.join(map(repr, _CHOICES))}; got {multi_class!r}.")
    if multi_class != "ovr" and loss != "hinge":
        raise ValueError(
            f'multi_class={multi_class!r} has loss="hinge" only; got loss={loss!r}. With multi_class="ovr" there is '
            '"squared_hinge", too.'
        )


def is_joint(model: Any) -> bool:
    """Whether all classes are in one problem; two classes are a binary machine, whatever it is called."""
    return bool(model.multi_class != "ovr" and len(model.classes_) > 2)


def binary_share(model: Any) -> float:
    """The share of `l2` that a binary machine has.

    The joint machine of two classes has weights -u / 2 and u / 2 for the binary machine's u, and so half its norm.
    """
    return 1.0 if model.multi_class == "ovr" else 0.5


def signs_of(model: Any, labels: NDArray) -> NDArray:
    """Targets -1 and +1 `(1, n)` of the second of two classes, or `(k, n)` of each class against the rest."""
    positive = np.arange(len(model.classes_)) if len(model.classes_) > 2 else np.array([1])
    return np.where(labels == positive[:, None], 1.0, -1.0)


def solve_jointly(
    model: Any, x: NDArray, labels: NDArray, weight: NDArray, l2: float, tol: float, init: Solution | None = None
) -> Solution:
    """The machine that `model` asks for, of more than two classes.

    Two solutions with this gap may lie apart by its square root, so that the gap aimed for is smaller than the one that
    is asked for: it is a step or two more.
    """
    found = solve_multiclass(
        x,
        labels,
        l2=l2,
        loss=model.multi_class,
        sample_weight=weight,
        fit_intercept=model.fit_intercept,
        tol=FINE * tol,
        max_steps=model.max_iter,
        init=init,
        as_numpy=True,
    )
    if found.gap <= tol * found.primal_value:
        reached: Any = {"status": np.int32(Status.CONVERGED)}
        return found._replace(**reached)
    return found


def solve_folds_jointly(
    model: Any, l2: NDArray, x: NDArray, labels: NDArray, weight: NDArray, train: NDArray, tol: float, *, progress: bool
) -> Grid:
    """Every strength and fold, each strength from the solution of the one before; all classes share a gap.

    Args:
      model: What is asked for.
      l2: `(num_l2, folds)`.
      x: `(n, d)`.
      labels: Integers 0..k-1 `(n,)`.
      weight: `(n,)`.
      train: Which rows train `(folds, n)`.
      tol: The relative gap.
      progress: Whether to draw a bar.
    """
    grid = unsolved_grid(len(l2), (int(labels.max()) + 1, len(train)), x.shape[1])
    grid = grid._replace(gap=grid.gap[:, :1], steps=grid.steps[:, :1], status=grid.status[:, :1])
    with grid_bar(l2.size, progress) as bar:
        for fold, mask in enumerate(train):
            rows, before = np.flatnonzero(mask & (weight > 0)), None
            for number in np.argsort(-l2[:, fold], kind="stable"):
                before = solve_jointly(model, x[rows], labels[rows], weight[rows], l2[number, fold], tol, before)
                place = number, slice(None), fold
                params: Any = before.params
                for target, values in zip(
                    grid, (params.w.T, params.b, before.gap, before.steps, before.status), strict=True
                ):
                    target[place] = values
                bar.update()
    return grid


def mean_loss(multi_class: MultiClass, labels: NDArray, scores: NDArray, weight: NDArray) -> float:
    """The weighted mean of the loss of such a machine, from scores `(n, k)` and labels `(n,)`."""
    own = np.arange(len(labels)), labels
    excess = np.maximum(0, 1 + scores - scores[own][:, None])
    excess[own] = 0
    losses = excess.max(axis=1) if multi_class == "crammer_singer" else excess.sum(axis=1)
    return float(np.average(losses, weights=weight))


def gap_of_joint(model: Any, x: NDArray, labels: NDArray, weight: NDArray) -> float:
    """How far the fitted weights and intercepts of a joint machine can be from optimal.

    The bound on the optimum is the dual value of a solution, which costs a solve.
    """
    bound = solve_jointly(model, x, labels, weight, model.l2_, _BOUND_TOL)
    norm = np.sum(model.coef_**2)
    if model.fit_intercept == "regularized":
        norm += np.sum(model.intercept_**2)
    scores = x @ model.coef_.T + model.intercept_
    value = mean_loss(model.multi_class, labels, scores, weight) + float(model.l2_ * norm) / 2
    return max(0.0, value - float(bound.dual_value))
