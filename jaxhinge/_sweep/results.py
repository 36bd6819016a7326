"""What a sweep is given, as binary problems over the same rows, and its results in the shapes that it promises."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import (
    check_binary_targets,
    check_class_labels,
    check_finite,
    check_rows,
    check_sample_weight,
    host_array,
    host_real,
)
from jaxhinge._methods.problem import Answer, Status
from jaxhinge._methods.sharded import is_sharded, on_host, real_features
from jaxhinge._objective.objective import LinearParams, predict
from jaxhinge._solve.binary import Solution
from jaxhinge._solve.given import host_rows
from jaxhinge._sweep.grid import Grid, Problems


class Sweep(NamedTuple):
    """A grid of solved problems. `...` is empty, or `(sets,)`, `(columns,)` or both, where several were given.

    Attributes:
      l2: `(num_l2,)`, as given.
      params: Of every strength and fold: `w` `(..., num_l2, folds, d)` and `b` `(..., num_l2, folds)`; with k classes
        `(..., num_l2, folds, d, k)` and `(..., num_l2, folds, k)`.
      val_score: `(..., num_l2, folds)`, on the rows held out; the higher the better.
      gap: `(..., num_l2, folds)`, in the units of the objective; the sum over classes.
      status: `(..., num_l2, folds)`, codes of `Status`; the worst over classes.
      steps: `(..., num_l2, folds)`, the sum over classes.
      best_l2: `(...)`, the strength chosen.
      best: The `Solution` on all rows with it; with k classes `dual` is `(..., n, k)` and values and gap are sums.
      interrupted: Whether Ctrl-C ended the sweep. Problems not reached have params 0 and the gap of these.
    """

    l2: Any
    params: LinearParams
    val_score: Any
    gap: Any
    status: Any
    steps: Any
    best_l2: Any
    best: Solution
    interrupted: bool = False

    def __str__(self) -> str:
        """A line for each strength: mean score and its standard error, the largest gap, how many converged."""
        score, gap, status = (np.asarray(leaf) for leaf in (self.val_score, self.gap, self.status))
        lines = [f"{'l2':>9}   mean score   std. error   largest gap   converged"]
        for grid in np.ndindex(score.shape[:-2]):
            lines += [f"[{', '.join(map(str, grid))}]"] if grid else []
            for i, l2 in enumerate(np.asarray(self.l2)):
                of_fold = score[grid][i]
                error = np.std(of_fold, ddof=1) / len(of_fold) ** 0.5 if len(of_fold) > 1 else np.nan
                done = np.count_nonzero(status[grid][i] == Status.CONVERGED)
                best = "   best" if l2 == np.asarray(self.best_l2)[grid] else ""
                lines.append(
                    f"{l2:9.3g}   {np.mean(of_fold):10.4g}   {error:10.2g}   {np.max(gap[grid][i]):11.2g}   "
                    f"{done} of {len(of_fold)}{best}"
                )
        return "\n".join(lines)

    def predict(self, x: ArrayLike) -> jax.Array:
        """Targets or labels by `best`, `(..., n)`."""

        def predicted(params: LinearParams) -> jax.Array:
            return predict(params, x)

        for _ in range(np.ndim(self.best_l2)):
            predicted = jax.vmap(predicted)
        return predicted(self.best.params)


class GridTask(NamedTuple):
    """What is asked: binary problems, the targets that score them, and the axes that lead in the result.

    `groups` `(num_groups, size)` numbers the problems that are scored together: the classes of one set of labels.
    """

    problems: Problems
    targets: NDArray
    weights: NDArray
    groups: NDArray
    leading: tuple[int, ...]
    multiclass: bool


def grid_task_of(x: Any, y: Any, sample_weight: Any) -> GridTask:
    """Checked rows, and the binary problems over them: sets of weights, by columns of targets, by classes."""
    x, ones = _features(x)
    sets = _weight_sets(sample_weight, ones)
    y = on_host(y) if is_sharded(y) else host_array("y", y)
    if y.ndim not in (1, 2) or not y.size:
        check_rows("y", y, x.shape[0])
        raise ValueError(f"y has shape {y.shape}: no column of targets.")
    columns = y.T if y.ndim == 2 else y[None]
    for column in columns:
        check_rows("y", column, x.shape[0])
    # Integers are labels of classes unless all of them are -1 or +1, which are targets.
    multiclass = y.ndim == 1 and not np.isin(y, (-1, 1)).all() and y.dtype.kind in "iu"
    k = 1
    for weight in sets:
        if multiclass:
            k = max(k, check_class_labels("y", y, None, weight))
            found = np.unique(y[weight > 0])
            if len(found) < k:
                first = np.flatnonzero(np.append(found, -1) != np.arange(len(found) + 1))[0]
                raise ValueError(f"y has no row of class {first} (with a weight above 0), but labels up to {k - 1}.")
        else:
            for column in columns:
                check_binary_targets("y", column, weight)
    sign = np.where(y == np.arange(k)[:, None], 1.0, -1.0) if multiclass else columns.astype(np.float64)
    num_groups = len(sets) * len(columns)
    problems = Problems(x, np.tile(sign, (len(sets), 1)), np.repeat(sets, len(sign), axis=0))
    leading = (*([len(sets)] if np.ndim(sample_weight) == 2 else []), *([len(columns)] if y.ndim == 2 else []))
    return GridTask(
        problems=problems,
        targets=np.tile(columns, (len(sets), 1)),
        weights=np.repeat(sets, len(columns), axis=0),
        groups=np.arange(num_groups * k).reshape(num_groups, k),
        leading=leading,
        multiclass=multiclass,
    )


def _features(x: Any) -> tuple[Any, NDArray]:
    """Checked features, and a weight of 1 for each row. Rows that are spread over devices stay there."""
    if not is_sharded(x):
        x, ones = host_rows(x, None)
        check_finite("x", x)
        return x, ones
    if not jnp.isfinite(real_features(x)).all():
        raise ValueError("x has NaN or infinity. Impute them or drop those rows.")
    return x, np.ones(len(x))


def _weight_sets(sample_weight: Any, ones: NDArray) -> NDArray:
    if sample_weight is None:
        return ones[None]
    sample_weight = on_host(sample_weight) if is_sharded(sample_weight) else sample_weight
    sets = host_real("sample_weight", sample_weight).astype(np.float64)
    sets = sets if sets.ndim == 2 else sets[None]
    if not len(sets):
        raise ValueError(f"sample_weight has shape {sets.shape}: no set of weights.")
    for number, weight in enumerate(sets):
        name = f"sample_weight[{number}]" if len(sets) > 1 else "sample_weight"
        check_sample_weight(name, weight, len(ones))
    return sets


def shaped(
    task: GridTask,
    strengths: NDArray,
    grid: Grid,
    scores: NDArray,
    chosen: NDArray,
    answer: Answer,
    interrupted: bool,
) -> Sweep:
    """The results with the axes in the order that `Sweep` promises."""

    def grouped(leaf: Any) -> Any:
        # (problems, ...) to (groups, classes, ...)
        return leaf.reshape(*task.groups.shape, *leaf.shape[1:])

    def of_grid(leaf: Any) -> Any:
        return grouped(np.moveaxis(leaf, 1, 0))

    def led(leaf: Any) -> Any:
        return leaf.reshape((*task.leading, *leaf.shape[1:]))

    def by_class(leaf: Any) -> Any:
        return led(np.moveaxis(leaf, 1, -1) if task.multiclass else leaf[:, 0])

    def total(leaf: Any) -> Any:
        return led(leaf.sum(axis=1))

    answer = Answer(*map(grouped, answer))
    best = Solution(
        params=LinearParams(by_class(answer.w), by_class(answer.b)),
        dual=by_class(answer.dual),
        primal_value=total(answer.primal_value),
        dual_value=total(answer.dual_value),
        gap=total(answer.gap),
        steps=total(answer.steps),
        status=led(answer.status.max(axis=1)),
    )
    return Sweep(
        l2=strengths,
        params=LinearParams(by_class(of_grid(grid.w)), by_class(of_grid(grid.b))),
        val_score=led(scores),
        gap=total(of_grid(grid.gap)),
        status=led(of_grid(grid.status).max(axis=1)),
        steps=total(of_grid(grid.steps)),
        best_l2=led(chosen),
        best=best,
        interrupted=interrupted,
    )


def on_device(result: Sweep, dtype: Any) -> Sweep:
    """The results as JAX arrays, floats in `dtype`."""

    def convert(leaf: Any) -> Any:
        if isinstance(leaf, bool):
            return leaf
        leaf = np.asarray(leaf)
        # A gap beyond the caller's dtype is infinite there.
        with np.errstate(over="ignore"):
            return jax.device_put(leaf.astype(dtype if np.issubdtype(leaf.dtype, np.floating) else np.int32))

    return jax.tree.map(convert, result)  # type: ignore[no-any-return]
