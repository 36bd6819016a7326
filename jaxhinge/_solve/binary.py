"""The exact solver: minimisers that come with a duality gap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from jaxhinge._base.arrays import flag, float_array, scalar_like
from jaxhinge._base.interrupts import OnInterrupt, check_on_interrupt
from jaxhinge._base.options import host_l2
from jaxhinge._base.progress import step_bar
from jaxhinge._base.values import check_finite, host_real, is_on_accelerator
from jaxhinge._methods.executor import Watch
from jaxhinge._methods.host import solve_on_host
from jaxhinge._methods.implicit import differentiable
from jaxhinge._methods.padded import solve_padded
from jaxhinge._methods.problem import Answer, Config, Method, Start, Status
from jaxhinge._methods.sharded import MeshLoss, MeshRows
from jaxhinge._methods.streamed.stages import Limits, Source, opened
from jaxhinge._objective.objective import LinearParams
from jaxhinge._rows.sharding import explicit_mesh, with_automatic_axes
from jaxhinge._solve.given import (
    Problem,
    binary_problem,
    caller_dtype,
    config_of,
    host_limits,
    is_traced,
    place_of,
    refuse_stored,
    weighed,
    weighed_on_host,
)

Loss = Literal["hinge", "squared_hinge"]


class Solution(NamedTuple):
    """A minimiser with the proof of how good it is.

    Attributes:
      params: `LinearParams`.
      dual: `(n,)`, the dual variables.
      primal_value: The objective at `params`, in the units of `jaxhinge.loss`.
      dual_value: A lower bound on the objective at any parameters, from `dual` made feasible.
      gap: `primal_value - dual_value`: no parameters are better than `params` by more than this.
      steps: How many steps the solver made.
      status: A code of `Status`.
    """

    params: LinearParams
    dual: jax.Array
    primal_value: jax.Array
    dual_value: jax.Array
    gap: jax.Array
    steps: jax.Array
    status: jax.Array


class SolverOptions(NamedTuple):
    """What every solver takes beside its problem."""

    tol: ArrayLike
    max_steps: ArrayLike
    init: Solution | None
    as_numpy: bool
    on_interrupt: OnInterrupt = "raise"
    progress: bool | None = None


def solver_options(
    tol: Any, max_steps: Any, init: Any, as_numpy: Any, progress: Any, on_interrupt: Any
) -> SolverOptions:
    """The options, the words among them checked."""
    if progress is not None:
        flag("progress", progress)
    return SolverOptions(tol, max_steps, init, flag("as_numpy", as_numpy), check_on_interrupt(on_interrupt), progress)


def solve(
    x: Any,
    y: ArrayLike | None = None,
    *,
    l2: ArrayLike,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool | Literal["regularized"] = True,
    loss: Loss = "hinge",
    tol: ArrayLike = 1e-4,
    max_steps: ArrayLike = 100,
    init: Solution | None = None,
    method: Method = "auto",
    as_numpy: bool = False,
    progress: bool | None = None,
    on_interrupt: OnInterrupt = "raise",
) -> Solution:
    r"""The support vector machine solved exactly: the minimiser of `jaxhinge.loss`, with a duality gap.

    .. math::
        \min_{w, b}\ \sum_i c_i \max(0, 1 - y_i (x_i \cdot w + b)) + \frac{l2}{2} \|w\|^2, \qquad
        c_i = \mathrm{weight}_i / \textstyle\sum \mathrm{weight}

    (the hinge squared with `loss="squared_hinge"`). `l2 = 1 / (C * sum(weight))` in terms of LIBLINEAR's `C`. The
    dual that certifies it has `0 <= dual_i <= c_i` (no upper bound when squared), `sum(dual_i y_i) = 0` when the
    bias is free, and the value `sum(dual) - |sum_i dual_i y_i x_i|^2 / (2 l2)`, less `sum(dual_i^2 / (4 c_i))` when
    squared.

    It is pure: it works under `jit`, `vmap` and `shard_map`; a new number does not recompile. Rows laid out over a mesh
    (`jaxhinge.shard_rows`) stay where they are, unless there are more features than rows. What is not traced and lies
    on a CPU is solved in NumPy, on the host, where nothing is compiled; arrays on an accelerator, and NumPy input where
    the default device is one, in JAX. The work is done in float64 on CPU and GPU, whatever the flags and the input's
    dtype. (After a fork JAX cannot make arrays reliably: ask for `as_numpy=True` in such a process.)

    Rows need not fit in memory. A memory-mapped `x`, of any size, and blocks of rows are streamed: read again in every
    pass over them, a block at a time. Newton's method on a smoothed hinge, started from the solution of 100,000 rows
    drawn at random, makes one pass for each step; where that leads nowhere an interior point takes over, with three.
    Rows that are not heaped on the kink take 5 to 8 passes to a relative gap of 1e-3. Kept are two float32 numbers for
    each row (seven with the interior point), its target and weight, and the d x d system. The proof is the same: the
    dual point is computed for every row, and both values in float64, for exactly what is returned.

    Args:
      x: Features `(n, d)`. Sparse ones, of SciPy or a BCOO, stay sparse; under a trace their solution has no
        derivative. Dense ones are differentiable, and so are `l2` and `sample_weight`: `params` by implicit
        differentiation (valid where no row changes sides: rows on the margin have `0 < dual_i < c_i`, and a free bias
        has such a row; elsewhere the limit along the central path comes back), the two values by the envelope theorem,
        and the same again for derivatives of higher order. `dual`, `gap`, `steps` and `status` carry no derivative, nor
        does `y`. What is not linear in the solution has the derivative at the solution that `tol` allows.
        To be streamed: a memory-mapped file (`numpy.load(..., mmap_mode="r")`; `numpy.asarray` of it is solved in
        memory). Or, without `y`, blocks: a list, or anything else that can be iterated over again and again, of
        `(x, y)` or `(x, y, sample_weight)`, or a function that makes such an iterator for each pass; the same rows in
        the same order each time, in blocks of any sizes, which may be memory-mapped themselves.
      y: Targets -1 and +1, `(n,)`. None where `x` is blocks.
      l2: The strength of regularisation, above 0.
      sample_weight: `(n,)`, not negative, not all 0.
      fit_intercept: True for a free bias, False for none, "regularized" to count it in the norm as LIBLINEAR does.
      loss: "hinge" or "squared_hinge".
      tol: Stop when `gap <= tol * |primal_value|`.
      max_steps: Stop after this many steps.
      init: A solution of a nearby problem to start from: another `l2`, other weights.
      method: "interior_point"; "newton", a semismooth Newton method on the augmented Lagrangian; "ascent", accelerated
        gradient ascent on the dual; "auto" takes on the host Newton's method first where there are 50 rows for each
        feature, and under a trace ascents first where there are more features than rows or than 1,000; it goes on with
        the interior point where that is not enough. Sparse rows are solved by Newton's method, with products alone;
        under a trace they have no interior point. Streamed rows have no "ascent"; their Newton's method is that on a
        smoothed hinge.
      as_numpy: Give NumPy arrays, float64 throughout. Host only.
      progress: Whether to draw a progress bar with step and gap; None draws one on a terminal where the solve takes
        more than two seconds. Host only.
      on_interrupt: What Ctrl-C does: "raise" KeyboardInterrupt, or "return" what was reached, certified, with the
        status STEP_LIMIT. Before rows are read for the first time there is nothing to return. Host only, and "return"
        is not for rows on a mesh or on an accelerator.

    Returns:
      A `Solution`, float32 (float64 where x64 is on and `x` is float64). `gap` holds for the rounded `params`.

    Raises:
      ValueError: On concrete arrays: NaN or infinity, targets other than -1 and +1, one class only, `l2 <= 0`,
        negative or all-zero weights; under a trace those give the status `REFUSED` and NaN. Shapes that do not fit
        are refused anywhere. Blocks that come from a generator, which ends after one pass, or change from pass to pass.
      TypeError: Something is not a real number, or blocks come with something traced.

    References:
      Ferris and Munson, Interior-point methods for massive support vector machines, 2002; Boyd and Vandenberghe,
      Convex Optimization, 2004, chapters 5 and 11; Amos and Kolter, OptNet, 2017; streamed rows: Keerthi and DeCoste,
      A modified finite Newton method for fast solution of large scale linear SVMs, 2005; Nesterov, Smooth minimization
      of non-smooth functions, 2005.

    >>> import jax.numpy as jnp, jaxhinge
    >>> x, y = jnp.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), jnp.array([1, 1, -1])
    >>> solution = jaxhinge.solve(x, y, l2=0.1)
    >>> jaxhinge.Status(int(solution.status)).name, bool(solution.gap <= 1e-4 * solution.primal_value)
    ('CONVERGED', True)
    >>> print(jaxhinge.predict(solution.params, x))
    [ 1  1 -1]
    >>> blocks = [(x[:2], y[:2]), (x[2:], y[2:])]
    >>> streamed = jaxhinge.solve(blocks, l2=0.1)
    >>> bool(abs(streamed.primal_value - solution.primal_value) <= 1e-4 * solution.primal_value)
    True
    """
    config = config_of(loss, fit_intercept, method)
    options = solver_options(tol, max_steps, init, as_numpy, progress, on_interrupt)
    traced = is_traced(x, y, l2, sample_weight, tol, max_steps, init)
    place = place_of(x, y, traced)
    if place == "stream":
        return solve_streamed(config, Source(x, y, sample_weight), l2, options)
    if place == "mesh":
        return solve_on_mesh(config, x, y, l2, sample_weight, MeshLoss(), options)
    mesh = explicit_mesh(x, y, sample_weight) if traced else None
    if mesh is not None:
        return with_automatic_axes(  # type: ignore[no-any-return]
            mesh, sharding_of(x), solve, x, y, l2=l2, sample_weight=sample_weight, fit_intercept=fit_intercept,
            loss=loss, tol=tol, max_steps=max_steps, init=init, method=method, as_numpy=as_numpy,
        )  # fmt: skip
    return solve_problem(config, binary_problem(x, y, l2, sample_weight, traced=traced), options)


def solve_streamed(config: Config, source: Source, l2: Any, options: SolverOptions) -> Solution:
    """The solution of rows that are read block by block."""
    check_streamable(config)
    l2, limits = host_l2(l2), Limits(*host_limits(options.tol, options.max_steps), options.on_interrupt)
    with opened(source, options.as_numpy, options.progress, limits.tol) as stream:
        answer = stream.solve(config, l2, start_of(options.init, stream.shape, np, np.float64), limits)
    return solution_of(answer if options.as_numpy else jax.device_put(answer))


def solve_on_mesh(
    config: Config, x: Any, y: Any, l2: Any, sample_weight: Any, loss: MeshLoss, options: SolverOptions
) -> Solution:
    """The solution of rows that stay on their devices."""
    check_one_program(options)
    l2, (tol, max_steps) = host_l2(l2), host_limits(options.tol, options.max_steps)
    rows = MeshRows(config, options.as_numpy, x, y, sample_weight, loss)
    init = None if options.init is None else checked_init(options.init, rows.shape)
    return solution_of(rows.solve(l2, init and (init.params, init.dual), tol, max_steps))


def check_one_program(options: SolverOptions) -> None:
    """Refuse what a solve on a mesh or on an accelerator, which is one compiled program, cannot do."""
    if options.on_interrupt == "return" or options.progress:
        what = 'on_interrupt="return"' if options.on_interrupt == "return" else "progress=True"
        raise ValueError(f"{what} is for the CPU: on a mesh or an accelerator a solve is one compiled program.")


def check_streamable(config: Config) -> None:
    """Refuse the method that streamed rows do not have."""
    if config.method == "ascent":
        raise ValueError('method="ascent" needs all rows in memory. For streamed rows, leave it at "auto".')


def sharding_of(x: Any) -> Solution:
    """How a solution lies on a mesh: the dual as the rows do, the rest whole on every device."""
    whole: Any = PartitionSpec()  # type: ignore[no-untyped-call]
    rows: Any = PartitionSpec(*jax.typeof(x).sharding.spec[:1])  # type: ignore[no-untyped-call]
    return Solution(LinearParams(whole, whole), rows, whole, whole, whole, whole, whole)


def solve_problem(config: Config, problem: Problem, options: SolverOptions) -> Solution:
    """Solve on the host, or inside a transformation."""
    traced = is_traced(problem[:-1], options.tol, options.max_steps, options.init)
    return (_solve_traced if traced else solve_host)(config, problem, options)


def check_for_trace(options: SolverOptions) -> None:
    """Refuse what only a solve on the host can do."""
    if options.as_numpy:
        raise ValueError(
            "as_numpy=True gives NumPy arrays, so it is for the host only; leave it out under jit and vmap."
        )
    if options.on_interrupt == "return" or options.progress:
        raise ValueError('on_interrupt="return" and progress=True are for the host: leave them out under jit and vmap.')


def _solve_traced(config: Config, problem: Problem, options: SolverOptions) -> Solution:
    check_for_trace(options)
    dtype = problem.x.dtype
    if config.method == "interior_point":
        refuse_stored('method="interior_point"', problem.x)
    tol = scalar_like("tol", options.tol, dtype)
    shape = problem.sign.shape[0], problem.x.shape[1]
    start = jax.lax.stop_gradient(start_of(options.init, shape, jnp, dtype))
    max_steps = jnp.asarray(options.max_steps, jnp.int32)
    return solution_of(differentiable(replace(config, dtype=dtype))(weighed(problem), start, tol, max_steps))


def solve_host(config: Config, problem: Problem, options: SolverOptions) -> Solution:
    """Solve what is not traced: in NumPy, or in JAX where the data are on an accelerator."""
    on_accelerator = is_on_accelerator(problem.origin)
    dtype = np.float64 if options.as_numpy else caller_dtype(problem.x)
    config, rows = replace(config, dtype=dtype), weighed_on_host(config, problem)
    start = start_of(options.init, (len(rows.c), problem.x.shape[1]), np, np.float64)
    if on_accelerator:
        check_one_program(options)
        rows = rows._replace(xt=np.repeat(rows.xt, 2, axis=1)) if config.paired else rows
    solver = solve_padded if on_accelerator else solve_on_host
    return solved_on_host(partial(solver, config, rows, start), problem.x, on_accelerator, options)


def solved_on_host(solver: Callable[..., Answer], x: Any, on_accelerator: bool, options: SolverOptions) -> Solution:
    """The solution by `solver(tol, max_steps)`, a compiled program, or by `solver(tol, max_steps, watch)` in NumPy."""
    tol, max_steps = host_limits(options.tol, options.max_steps)
    if on_accelerator:
        answer = solver(tol, max_steps)
    else:
        with step_bar(options.progress, tol) as bar:
            answer = solver(tol, max_steps, Watch(options.on_interrupt == "return", bar))
    refuse_overflow(answer, x)
    return solution_of(answer if options.as_numpy else jax.device_put(answer))


def refuse_overflow(answer: Answer, x: Any) -> None:
    """Say what is wrong where checked data were refused: a number in `x`, or the sizes of numbers."""
    if (np.asarray(answer.status) == Status.REFUSED).any():
        check_finite("x", x)
        raise ValueError("The objective overflows float64: scale the features down, or change l2.")


def start_of(init: Solution | None, shape: tuple[int, int], numpy: Any, dtype: Any, *classes: int) -> Start:
    """The start that `init` asks for, or zeros; with a column for each of so many `classes`."""
    n, d = shape
    if init is None:
        zeros = numpy.zeros
        w, b, dual = zeros((d, *classes), dtype), zeros(classes, dtype), zeros((n, *classes), dtype)
        return Start(w, b, dual, numpy.asarray(False))
    checked_init(init, shape, *classes)
    named = {"init.params.w": init.params[0], "init.params.b": init.params[1], "init.dual": init.dual}
    checked = host_real if numpy is np else float_array
    w, b, dual = (checked(name, leaf).astype(dtype) for name, leaf in named.items())
    return Start(w, b, dual, numpy.asarray(True))


def checked_init(init: Any, shape: tuple[int, int], *classes: int) -> Solution:
    """A solution to start from, of a problem of the same dual variables, features and classes."""
    if not isinstance(init, Solution):
        raise TypeError(f"init must be a Solution of an earlier solve; got {type(init).__name__}.")
    if not isinstance(init.params, tuple) or len(init.params) != 2:
        raise TypeError(f"init.params must be LinearParams or a 2-tuple (w, b); got {type(init.params).__name__}.")
    named = {"init.params.w": init.params[0], "init.dual": init.dual}
    w, dual = (np.shape(leaf if hasattr(leaf, "shape") else host_real(name, leaf)) for name, leaf in named.items())
    n, d = shape
    if w != (d, *classes) or dual != (n, *classes):
        raise ValueError(
            f"init has params.w of shape {w} and dual of shape {dual}, but this problem needs {(d, *classes)} and "
            f"{(n, *classes)}. Start from a solution with the same rows, features and classes, or leave init out."
        )
    return init


def solution_of(answer: Answer) -> Solution:
    """The answer under the names that users see."""
    return Solution(LinearParams(answer.w, answer.b), *answer[2:])
