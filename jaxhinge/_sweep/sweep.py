"""Cross-validation of a whole grid, every problem solved to its own gap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhinge._base.arrays import NDArray, check_within_range, flag
from jaxhinge._base.interrupts import OnInterrupt, check_on_interrupt
from jaxhinge._base.sparse import is_sparse
from jaxhinge._base.values import check_finite, check_number, check_outside_jit, host_integer, host_real
from jaxhinge._methods.sharded import is_sharded, sharded_scores
from jaxhinge._solve.binary import Loss
from jaxhinge._solve.given import caller_dtype, config_of, in_memory
from jaxhinge._sweep.folds import Folds, make_folds
from jaxhinge._sweep.grid import Grid, Options, Solver
from jaxhinge._sweep.results import GridTask, Sweep, grid_task_of, on_device, shaped
from jaxhinge._sweep.scores import Metric, check_held_out, metric_of

Scoring = Literal["accuracy", "balanced_accuracy", "roc_auc", "hinge"] | Callable[[NDArray, NDArray], float]
Select = Literal["mean", "one_standard_error"]


def sweep(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    l2: ArrayLike,
    folds: Any = 5,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool | Literal["regularized"] = True,
    loss: Loss = "hinge",
    scoring: Scoring = "accuracy",
    select: Select = "mean",
    key: int | jax.Array = 0,
    tol: float = 1e-4,
    max_steps: int = 100,
    memory_budget: float = 4e9,
    progress: bool | None = None,
    on_interrupt: OnInterrupt = "raise",
    as_numpy: bool = False,
) -> Sweep:
    r"""Solve a support vector machine for every `l2` and fold, score it on held-out rows, refit the best. Host only.

    Each problem is that of `jaxhinge.solve` over the rows of its fold, the weights normalised among them:

    .. math::
        \min_{w, b}\ \sum_{i \in \mathrm{train}} c_i \max(0, 1 - y_i (x_i \cdot w + b)) + \frac{l2}{2} \|w\|^2

    All of them share the rows in memory. Folds, classes and weights are solved at once, as lanes of one compiled
    function; strengths follow each other from the largest, each from the solution of the one before. `memory_budget`
    and the cache decide how many lanes go together. With several classes, a problem is one class against the rest.

    Rows laid out over a mesh (`jaxhinge.shard_rows`) stay where they are. Memory-mapped files and blocks are refused:
    `path` and `solve` stream them.

    Args:
      x: Features `(n, d)`, dense or sparse.
      y: Targets -1 and +1, `(n,)`; or integer labels `0..k-1`, for one class against the rest; or columns of targets
        `(n, t)`, each a problem of its own.
      l2: The strengths of regularisation `(num_l2,)`, above 0.
      folds: How many, stratified by class and shuffled by `key`; or the fold that holds each row out, `(n,)`, negative
        for none; or a scikit-learn splitter; or pairs (rows that train, rows held out).
      sample_weight: `(n,)`, or `(s, n)` for several sets, each with results and a best strength of its own. Held-out
        rows are weighed too, but not by a callable `scoring`.
      fit_intercept: As for `solve`.
      loss: "hinge" or "squared_hinge".
      scoring: "accuracy", "balanced_accuracy", "roc_auc", "hinge" (minus the mean hinge, so that more is better), or a
        callable `(targets, scores) -> number` of the held-out rows.
      select: "mean": the largest mean score, the strongest `l2` among equals. "one_standard_error": the strongest `l2`
        whose mean is within one standard error of that (Hastie, Tibshirani and Friedman, 2009, section 7.10).
      key: An integer or a JAX key, for the shuffle.
      tol: Each problem stops when `gap <= tol * |primal_value|`.
      max_steps: Each problem stops after this many steps.
      memory_budget: Bytes, about, that the solver may take.
      progress: Whether to draw a bar; None where it takes long and stderr is a terminal.
      on_interrupt: What Ctrl-C does: "raise", or "return" what was reached, if one strength is done.
      as_numpy: Give NumPy arrays, float64 throughout.

    Returns:
      A `Sweep`, in float32 (float64 where x64 is on and `x` is float64).

    Raises:
      ValueError: Before any work starts: what `solve` refuses, fewer rows of a class than folds, a fold that trains on
        one class, a strength that is not above 0, an unknown `scoring`, one problem that does not fit the budget.
      TypeError: Something is not a real number.

    References:
      Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2009, chapter 7; Ferris and Munson,
      Interior-point methods for massive support vector machines, 2002.

    >>> import numpy as np, jaxhinge
    >>> x = np.random.default_rng(0).normal(size=(60, 2))
    >>> y = np.where(x[:, 0] + 0.3 * x[:, 1] > 0, 1, -1)
    >>> result = jaxhinge.sweep(x, y, l2=[1.0, 0.1, 0.01], folds=3)
    >>> result.val_score.shape, bool((result.gap >= 0).all()), float(result.best_l2) < 1
    ((3, 3), True, True)
    """
    check_outside_jit("sweep")
    strengths = checked_strengths(l2)
    task = grid_task_of(in_memory("sweep", x, y), y, sample_weight)
    metric = metric_of(scoring)
    options = _options(tol, max_steps, memory_budget, progress, on_interrupt)
    splits = make_folds(folds, task.problems.x, task.targets, task.weights, key)
    check_select(select, len(splits.train))
    for targets, weight in zip(task.targets, task.weights, strict=True):
        check_held_out(scoring, targets, weight, splits.held_out)
    dtype = jnp.float64 if flag("as_numpy", as_numpy) else caller_dtype(task.problems.x)
    check_within_range("l2", strengths.max(), dtype)
    config = replace(config_of(loss, fit_intercept, "auto"), dtype=dtype)
    solver = Solver(config, task.problems, len(task.problems.sign) * len(splits.train), options)

    grid, interrupted = solver.grid(splits.train, np.repeat(strengths[:, None], len(splits.train), axis=1))
    scores = held_out_scores(task, splits, grid, metric)
    done = (grid.steps > 0).all(axis=(1, 2)) | (not interrupted)
    if not done.any():
        raise KeyboardInterrupt("The sweep was interrupted before one strength was done.")
    chosen = [chosen_strength(strengths[done], group[done], select) for group in scores]
    answer = solver.refit(np.repeat(chosen, task.groups.shape[1]), options.tol)
    result = shaped(task, strengths, grid, scores, np.array(chosen), answer, interrupted)
    return result if as_numpy else on_device(result, dtype)


def held_out_scores(task: GridTask, splits: Folds, grid: Grid, metric: Metric) -> NDArray:
    """`(groups, num_l2, folds)`."""
    num_l2, _, folds = grid.b.shape
    scores = np.empty((len(task.groups), num_l2, folds))
    for fold, rows in enumerate(splits.held_out):
        values = _scores(task.problems.x, rows, grid.w[:, :, fold], grid.b[:, :, fold])
        for number, group in enumerate(task.groups):
            targets, weight = task.targets[number][rows], task.weights[number][rows]
            for row in range(num_l2):
                found = values[row, group].T if task.multiclass else values[row, group[0]]
                scores[number, row, fold] = metric(targets, found, weight)
    return scores


def _scores(x: Any, rows: NDArray, w: NDArray, b: NDArray) -> NDArray:
    """Scores of these rows, `(num_l2, problems, rows)`."""
    if is_sharded(x):
        return sharded_scores(x, w, b)[..., rows]
    if is_sparse(x):
        products = (x[rows] @ w.reshape(-1, w.shape[-1]).T).T.reshape(*w.shape[:2], -1)
    else:
        products = np.einsum("nd,lpd->lpn", x[rows], w, optimize=True)
    scores: NDArray = products + b[..., None]
    return scores


def chosen_strength(l2: NDArray, scores: NDArray, select: str) -> float:
    """The strength to refit with, from scores `(num_l2, folds)`; NaN, which a callable may give, is never chosen."""
    mean = np.mean(scores, axis=1)
    if np.isnan(mean).all():
        raise ValueError("scoring gave NaN for every l2: check the callable.")
    best = int(np.nanargmax(mean))
    bar = mean[best]
    if select == "one_standard_error":
        bar = bar - np.std(scores[best], ddof=1) / np.sqrt(scores.shape[1])
    return float(np.max(l2[mean >= bar]))


def check_select(select: Any, folds: int) -> None:
    """A rule that there is, and folds enough for it."""
    if not isinstance(select, str) or select not in ("mean", "one_standard_error"):
        raise ValueError(f'select must be "mean" or "one_standard_error"; got {select!r}.')
    if select == "one_standard_error" and folds < 2:
        raise ValueError('select="one_standard_error" needs two folds at least; got one. Take "mean".')


def checked_strengths(l2: Any) -> NDArray:
    """A vector of strengths, all above 0."""
    strengths = host_real("l2", l2).astype(np.float64)
    if strengths.ndim != 1 or not strengths.size:
        raise ValueError(
            f"l2 must be a vector of strengths, (num_l2,); got shape {strengths.shape}. For one, use solve."
        )
    check_finite("l2", strengths)
    if np.min(strengths) < np.finfo(float).tiny:
        raise ValueError(f"l2 must be above 0 throughout; got {np.min(strengths):g}.")
    return strengths


def _options(tol: Any, max_steps: Any, memory_budget: Any, progress: bool | None, on_interrupt: OnInterrupt) -> Options:
    return Options(
        check_number("tol", tol, meaning="a number, at least 0", valid=lambda value: value >= 0),
        host_integer("max_steps", max_steps, at_least=1),
        check_number("memory_budget", memory_budget, meaning="bytes, above 0", valid=lambda v: v > 0),
        progress if progress is None else flag("progress", progress),
        check_on_interrupt(on_interrupt),
    )
