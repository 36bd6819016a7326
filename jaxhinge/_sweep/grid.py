"""Every problem of a grid over `l2` and folds, a strength at a time, each from the solution of the one before."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.interrupts import OnInterrupt
from jaxhinge._base.progress import LONG_RUN
from jaxhinge._methods.batch import Batch, chunks_of, problems_at_once, share, solve_batch, solve_in_chunks
from jaxhinge._methods.problem import Answer, Config, Status


class Problems(NamedTuple):
    """Binary problems over the rows `x`: their signs and weights, `(problems, n)`."""

    x: NDArray
    sign: NDArray
    weight: NDArray


class Options(NamedTuple):
    """How a grid is solved; `progress` None draws a bar where it takes long and stderr is a terminal."""

    tol: float
    max_steps: int
    memory_budget: float | None
    progress: bool | None
    on_interrupt: OnInterrupt


class Grid(NamedTuple):
    """Solutions of every strength, problem and fold: `w` `(num_l2, problems, folds, d)`, the others without `d`.

    One that was not reached before an interruption is 0, with the gap of 0 and no steps.
    """

    w: NDArray
    b: NDArray
    gap: NDArray
    steps: NDArray
    status: NDArray


class Solver:
    """The shared rows on the device, and how many problems over them are solved at once."""

    def __init__(self, config: Config, problems: Problems, batch: int, options: Options) -> None:
        self.config, self.problems, self.options = config, problems, options
        self.shared = share(problems.x, problems.weight.sum(axis=0))
        self.at_once = problems_at_once(batch, problems.x, self.shared.size, options.memory_budget)

    def grid(self, train: NDArray, l2: NDArray) -> tuple[Grid, bool]:
        """All of `l2` `(num_l2, folds)`, from the strongest down; and whether Ctrl-C ended it."""
        count, folds = len(self.problems.sign), len(train)
        grid = unsolved_grid(len(l2), (count * folds,), self.problems.x.shape[1])
        order = np.argsort(-l2.max(axis=1), kind="stable")
        problem, fold = np.divmod(np.arange(count * folds), folds)
        with grid_bar(len(l2) * count * folds, self.options.progress) as bar:
            try:
                for chunk in chunks_of(count * folds, self.at_once):
                    sign = self.problems.sign[problem[chunk]]
                    weight = self.problems.weight[problem[chunk]] * train[fold[chunk]]
                    before = None
                    for row in order:
                        before = self.solve(Batch(sign, weight, l2[row, fold[chunk]]), before, self.options.tol)
                        for target, values in zip(grid, _fields(before), strict=True):
                            target[row, chunk] = values
                        bar.update(len(set(chunk.tolist())))
            except KeyboardInterrupt:
                if self.options.on_interrupt == "raise":
                    raise
                return _by_fold(grid, count, folds), True
        return _by_fold(grid, count, folds), False

    def solve(self, batch: Batch, before: Answer | None, tol: float) -> Answer:
        """A batch of at most `at_once` problems solved."""
        return solve_batch(self.config, self.shared, batch, before, tol, self.options.max_steps)

    def refit(self, l2: NDArray, tol: float) -> Answer:
        """Every problem on all its rows, each at its own strength, through the function that is compiled already."""
        batch = Batch(self.problems.sign, self.problems.weight, l2)
        return solve_in_chunks(self.config, self.shared, batch, None, self.at_once, tol, self.options.max_steps)


def unsolved_grid(strengths: int, problems: tuple[int, ...], num_features: int) -> Grid:
    """The grid before its first problem is solved."""
    shape = strengths, *problems
    return Grid(
        w=np.zeros((*shape, num_features)),
        b=np.zeros(shape),
        gap=np.ones(shape),
        steps=np.zeros(shape, np.int32),
        status=np.full(shape, Status.STEP_LIMIT, np.int32),
    )


def grid_bar(total: int, progress: bool | None) -> Any:
    """A bar that counts solved problems; None draws it where it takes long and stderr is a terminal."""
    disable = None if progress is None else not progress
    return tqdm(total=total, desc="sweep", unit="problem", delay=LONG_RUN, disable=disable)


def _fields(answer: Answer) -> tuple[Any, ...]:
    return answer.w, answer.b, answer.gap, answer.steps, answer.status


def _by_fold(grid: Grid, count: int, folds: int) -> Grid:
    return Grid(*(leaf.reshape(len(leaf), count, folds, *leaf.shape[2:]) for leaf in grid))
