"""One-vs-rest: the binary solver on every class against the others, as a batch over the same rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import scalar_like
from jaxhinge._base.values import check_finite
from jaxhinge._methods.batch import Batch, problems_at_once, share, solve_batch
from jaxhinge._methods.problem import Answer, Config, Intercept, Status
from jaxhinge._objective.objective import LinearParams
from jaxhinge._solve.binary import Solution, SolverOptions, solve_problem
from jaxhinge._solve.given import Problem, caller_dtype
from jaxhinge._solve.labels import Classified, check_init, host_limits

_ANY_MEMORY = 1e15


def solve_one_vs_rest(intercept: Intercept, problem: Classified, options: SolverOptions, *, traced: bool) -> Solution:
    """The sum of the binary problems: their objectives, dual values and gaps add up."""
    config = Config(intercept=intercept)
    return (_solve_traced if traced else _solve_host)(config, problem, options)


def _signs(problem: Classified, numpy: Any) -> tuple[Any, Any]:
    """Targets `(k, n)` of the binary problems, and which classes `(k,)` have rows."""
    is_label = problem.labels[None, :] == numpy.arange(problem.num_classes)[:, None]
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
    init = _class_problems_of(options.init, x.shape, k)

    def one_class(sign: jax.Array, init: Solution | None) -> Solution:
        rows = Problem(x, sign, jnp.ones_like(sign), problem.weight, problem.l2, valid=problem.valid)
        return solve_problem(config, rows, options._replace(init=init))

    found = jax.vmap(one_class, in_axes=(0, None if init is None else 0))(jax.lax.stop_gradient(signs), init)
    return _combined(found, known, scalar_like("tol", options.tol, x.dtype), jnp)


def _solve_host(config: Config, problem: Classified, options: SolverOptions) -> Solution:
    tol, max_steps = host_limits(options)
    x, k = problem.x, problem.num_classes
    signs, known = _stand_in(config, *_signs(problem, np), np)
    config = replace(config, dtype=jnp.float64 if options.as_numpy else caller_dtype(x))
    shared = share(x, problem.weight)
    at_once = problems_at_once(k, shared.size, x.shape[1], x.dtype.itemsize, _ANY_MEMORY)
    init = _class_problems_of(options.init, x.shape, k)
    found = []
    for first in range(0, k, at_once):
        # All chunks have one size, so that they are compiled once; the last repeats its last problem.
        chunk = np.minimum(np.arange(first, first + at_once), k - 1)
        batch = Batch(signs[chunk], np.tile(problem.weight, (at_once, 1)), np.full(at_once, problem.l2))
        before = None if init is None else jax.tree.map(lambda leaf: np.asarray(leaf)[chunk], _answer(init))  # noqa: B023
        found.append(solve_batch(config, shared, batch, before, float(tol), int(max_steps)))
    answer: Answer = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:k], *found)
    if (answer.status == Status.REFUSED).any():
        check_finite("x", x)
        raise ValueError("The objective overflows float64: scale the features down, or change l2.")
    solution = _combined(Solution(LinearParams(answer.w, answer.b), *answer[2:]), known, tol, np)
    return solution if options.as_numpy else jax.device_put(solution)


def _class_problems_of(init: Solution | None, shape: tuple[int, int], num_classes: int) -> Solution | None:
    """An earlier solution with the classes along the first axis of its parameters and dual."""
    if init is None:
        return None
    check_init(init, shape, num_classes)
    every = [jnp.broadcast_to(jnp.asarray(leaf), (num_classes,)) for leaf in init[2:]]
    return Solution(LinearParams(init.params.w.T, init.params.b), init.dual.T, *every)


def _answer(solution: Solution) -> Answer:
    return Answer(*solution.params, *solution[1:])


def _combined(batch: Solution, known: Any, tol: Any, numpy: Any) -> Solution:
    """One solution of all classes; where a stand-in was solved, what is known instead."""
    refused = numpy.any(batch.status == Status.REFUSED)
    known = known & ~refused

    def replaced(leaf: Any, value: float) -> Any:
        return numpy.where(known.reshape(-1, *[1] * (leaf.ndim - 1)), numpy.asarray(value, leaf.dtype), leaf)

    (w, b), dual, primal, bound, gap, steps, status = jax.tree.map(lambda leaf: replaced(leaf, 0), batch)
    b = replaced(b, -1)
    primal, bound, gap = numpy.sum(primal), numpy.sum(bound), numpy.sum(gap)
    # The gap of the sum is what was asked for, whatever single problems reached.
    converged = numpy.all(status == Status.CONVERGED) | (gap <= tol * primal)
    limited = numpy.any(status == Status.STEP_LIMIT)
    code = numpy.where(limited, Status.STEP_LIMIT, Status.STALLED)
    code = numpy.where(refused, Status.REFUSED, numpy.where(converged, Status.CONVERGED, code))
    return Solution(LinearParams(w.T, b), dual.T, primal, bound, gap, numpy.max(steps), code.astype(numpy.int32))
