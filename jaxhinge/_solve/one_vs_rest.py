"""One-vs-rest: the binary solver on every class against the others, as a batch over the same rows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import NDArray, scalar_like
from jaxhinge._base.precision import eps
from jaxhinge._base.progress import step_bar
from jaxhinge._base.values import is_on_accelerator
from jaxhinge._methods.batch import Batch, problems_at_once, share, solve_in_chunks
from jaxhinge._methods.executor import Watch
from jaxhinge._methods.host import solve_on_host
from jaxhinge._methods.problem import Answer, Config, Status, numpy_start
from jaxhinge._objective.objective import LinearParams
from jaxhinge._solve.binary import (
    Solution,
    SolverOptions,
    check_one_program,
    checked_init,
    refuse_overflow,
    solution_of,
    solve_problem,
)
from jaxhinge._solve.given import Problem, caller_dtype, host_limits, weighed_on_host
from jaxhinge._solve.labels import Classified

_ANY_MEMORY = 1e15
# `_QUICK`: smaller features are solved in less time than after which a progress bar is drawn.
_QUICK = 10**6


def solve_one_vs_rest(config: Config, problem: Classified, options: SolverOptions, *, traced: bool) -> Solution:
    """The sum of the binary problems: their objectives, dual values and gaps add up."""
    return (_solve_traced if traced else _solve_host)(config, problem, options)


def _signs(problem: Classified, numpy: Any) -> tuple[Any, Any]:
    """Targets `(k, n)` of the binary problems, and which classes `(k,)` have rows."""
    is_label = problem.labels[None, :] == numpy.arange(problem.num_classes, dtype=np.int32)[:, None]
    return numpy.where(is_label, 1.0, -1.0), numpy.any(is_label & (problem.weight > 0)[None, :], axis=1)


def _stand_in(config: Config, signs: Any, present: Any, numpy: Any) -> tuple[Any, Any]:
    """Signs that every problem can be solved with, and the problems whose solution is known beforehand.

    Against a class without rows a free bias does all: `w = 0`, `b = -1`, no loss. In its place the problem of another
    class is solved.
    """
    known = ~present & (config.intercept == "free")
    return numpy.where(known[:, None], signs[numpy.argmax(present)][None, :], signs), known


def _solve_traced(config: Config, problem: Classified, options: SolverOptions) -> Solution:
    x, k = problem.x, problem.num_classes
    signs, present = _signs(problem, jnp)
    signs, known = _stand_in(config, signs.astype(x.dtype), present, jnp)
    init = _class_problems_of(options.init, x.shape, k, jnp)

    def one_class(sign: jax.Array, init: Solution | None) -> Solution:
        rows = Problem(x, sign, jnp.ones_like(sign), problem.weight, problem.l2, valid=problem.valid)
        return solve_problem(config, rows, options._replace(init=init))

    found = jax.vmap(one_class, in_axes=(0, None if init is None else 0))(jax.lax.stop_gradient(signs), init)
    return combined(found, known, scalar_like("tol", options.tol, x.dtype), jnp)


def _solve_host(config: Config, problem: Classified, options: SolverOptions) -> Solution:
    tol, max_steps = host_limits(options.tol, options.max_steps)
    x = problem.x
    signs, known = _stand_in(config, *_signs(problem, np), np)
    config = replace(config, dtype=np.float64 if options.as_numpy else caller_dtype(x))
    init = _class_problems_of(options.init, x.shape, problem.num_classes, np)
    before = None if init is None else jax.tree.map(np.asarray, _answer(init))
    if is_on_accelerator(x):
        _check_for_accelerator(config, options)
    one_by_one = not is_on_accelerator(x) and (_asks_for_steps(config, options) or x.size > _QUICK)
    solve_all = partial(_one_by_one, options) if one_by_one else _as_a_batch
    answer = solve_all(config, problem, signs, before, tol, max_steps)
    refuse_overflow(answer, x)
    solution = combined(solution_of(answer), known, tol, np)
    return solution if options.as_numpy else jax.device_put(solution)


def _asks_for_steps(config: Config, options: SolverOptions) -> bool:
    """Whether something is asked for that a batch, which makes a step of all problems at once, does not have."""
    return config.method != "auto" or options.on_interrupt == "return" or options.progress is True


def _check_for_accelerator(config: Config, options: SolverOptions) -> None:
    check_one_program(options._replace(progress=None))
    if config.method != "auto":
        raise ValueError(
            f'method={config.method!r} is for the CPU: on an accelerator loss="one_vs_rest" is solved as one batch. '
            'Leave it at "auto".'
        )


def _as_a_batch(
    config: Config, problem: Classified, signs: NDArray, before: Answer | None, tol: float, max_steps: int
) -> Answer:
    x, k = problem.x, problem.num_classes
    shared = share(x, problem.weight)
    batch = Batch(signs, np.tile(problem.weight, (k, 1)), np.full(k, problem.l2))
    at_once = problems_at_once(k, x, shared.size, _ANY_MEMORY)
    return solve_in_chunks(config, shared, batch, before, at_once, tol, max_steps)


def _one_by_one(
    options: SolverOptions,
    config: Config,
    problem: Classified,
    signs: NDArray,
    before: Answer | None,
    tol: float,
    max_steps: int,
) -> Answer:
    """Class by class, watched. After Ctrl-C the other classes stay where they start, which is certified, too."""
    x, found = problem.x, []
    with step_bar(options.progress, tol) as bar:
        watch = Watch(options.on_interrupt == "return", bar)
        for number, sign in enumerate(signs):
            rows = weighed_on_host(config, Problem(x, sign, np.ones(x.shape[0]), problem.weight, problem.l2))
            start = numpy_start(before and Answer(*(leaf[number] for leaf in before)), *x.shape)
            found.append(solve_on_host(config, rows, start, tol, max_steps, watch))
    return Answer(*(np.stack(leaves) for leaves in zip(*found, strict=True)))


def _class_problems_of(init: Solution | None, shape: tuple[int, int], num_classes: int, numpy: Any) -> Solution | None:
    """An earlier solution with the classes along the first axis of its parameters and dual."""
    if init is None:
        return None
    checked_init(init, shape, num_classes)
    every = [numpy.broadcast_to(numpy.asarray(leaf), (num_classes,)) for leaf in init[2:]]
    return Solution(LinearParams(init.params.w.T, init.params.b), init.dual.T, *every)


def _answer(solution: Solution) -> Answer:
    return Answer(*solution.params, *solution[1:])


def combined(batch: Solution, known: Any, tol: Any, numpy: Any) -> Solution:
    """One solution of all classes; where a stand-in was solved, what is known instead."""
    refused = numpy.any(batch.status == Status.REFUSED)
    known = known & ~refused

    def replaced(leaf: Any, value: float) -> Any:
        return numpy.where(known.reshape(-1, *[1] * (leaf.ndim - 1)), numpy.asarray(value, leaf.dtype), leaf)

    (w, b), dual, primal, bound, gap, steps, status = jax.tree.map(lambda leaf: replaced(leaf, 0), batch)
    b = replaced(b, -1)
    # As much as a sum of so many numbers, each of which may be rounded, may lose of the bounds.
    lost = len(gap) * eps(gap.dtype)
    primal, bound, gap = numpy.sum(primal), numpy.sum(bound - lost * abs(bound)), numpy.sum(gap + lost * gap)
    # The gap of the sum is what was asked for, whatever single problems reached.
    converged = numpy.all(status == Status.CONVERGED) | (gap <= tol * primal)
    limited = numpy.any(status == Status.STEP_LIMIT)
    code = numpy.where(limited, Status.STEP_LIMIT, Status.STALLED)
    code = numpy.where(refused, Status.REFUSED, numpy.where(converged, Status.CONVERGED, code))
    return Solution(LinearParams(w.T, b), dual.T, primal, bound, gap, numpy.max(steps), code.astype(numpy.int32))
