"""The solver's other problems: regression, quantiles, ranking and one class, each a few rows of the same program."""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxhinge._base.arrays import flag, float_array, label_array, same_shape
from jaxhinge._base.interrupts import OnInterrupt
from jaxhinge._base.options import host_l2
from jaxhinge._base.values import check_finite, check_number, check_real_targets, check_rows, host_array, host_real
from jaxhinge._methods.problem import Config, Method
from jaxhinge._methods.sharded import MeshLoss
from jaxhinge._methods.streamed.kernels import Sides
from jaxhinge._methods.streamed.stages import Source
from jaxhinge._rows.sharding import explicit_mesh, with_automatic_axes
from jaxhinge._rows.stored import StoredRows
from jaxhinge._solve.binary import (
    Solution,
    SolverOptions,
    sharding_of,
    solve_on_mesh,
    solve_problem,
    solve_streamed,
    solver_options,
)
from jaxhinge._solve.given import (
    Problem,
    config_of,
    host_rows,
    in_memory,
    is_traced,
    one_column,
    place_of,
    refuse_stored,
    traced_rows,
)

_IN_0_1 = "a number strictly between 0 and 1"


def solve_regression(
    x: Any,
    y: ArrayLike | None = None,
    *,
    l2: ArrayLike,
    epsilon: ArrayLike = 0.1,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool | Literal["regularized"] = True,
    squared: bool = False,
    tol: ArrayLike = 1e-4,
    max_steps: ArrayLike = 100,
    init: Solution | None = None,
    method: Method = "auto",
    as_numpy: bool = False,
    progress: bool | None = None,
    on_interrupt: OnInterrupt = "raise",
) -> Solution:
    r"""Support vector regression solved exactly, with a duality gap.

    .. math::
        \min_{w, b}\ \sum_i c_i \max(0, |y_i - x_i \cdot w - b| - \epsilon) + \frac{l2}{2} \|w\|^2

    (the loss squared with `squared=True`): `jaxhinge.loss` with `loss_fn=losses.epsilon_insensitive_loss`.

    Args:
      x: Features `(n, d)`, dense or sparse, and differentiable as for `solve`, and so are `y`, `epsilon`, `l2` and
        `sample_weight`. A memory-mapped file, or blocks `(x, y)` or `(x, y, sample_weight)` without `y`, are streamed
        as for `solve`.
      y: Real targets `(n,)`. None where `x` is blocks.
      l2: The strength of regularisation, above 0.
      epsilon: Half the width of the tube, at least 0.
      sample_weight, fit_intercept: As for `solve`.
      squared: Whether the loss is squared.
      tol, max_steps, init, method, as_numpy, progress, on_interrupt: As for `solve`.

    Returns:
      A `Solution`. Its `dual` `(2n,)` has two entries for each row, for a target above the tube and for one below
      it, each in `[0, c_i]` (no upper bound when squared); `dual[0::2] - dual[1::2]` is the usual one.

    Raises:
      ValueError, TypeError: As `solve` does; NaN or infinity in `y`; a negative `epsilon`.

    References:
      Smola and Schoelkopf, A tutorial on support vector regression, 2004; Ho and Lin, Large-scale linear support
      vector regression, 2012.

    >>> import numpy as np, jaxhinge
    >>> x = np.linspace(-1, 1, 21)[:, None]
    >>> solution = jaxhinge.solve_regression(x, 2 * x[:, 0] + 1, l2=1e-6, epsilon=0.0)
    >>> print(np.round(solution.params.w, 2), np.round(solution.params.b, 2))
    [2.] 1.0
    """
    config = config_of("squared_hinge" if flag("squared", squared) else "hinge", fit_intercept, method)
    options = solver_options(tol, max_steps, init, as_numpy, progress, on_interrupt)
    traced = is_traced(x, y, l2, epsilon, sample_weight, tol, max_steps, init)
    if not traced:
        epsilon = check_number("epsilon", epsilon, meaning="a number, at least 0", valid=lambda v: v >= 0)
    return _two_sided(config, options, x, y, l2, sample_weight, epsilon, (1.0, 1.0), traced)


def solve_quantile(
    x: Any,
    y: ArrayLike | None = None,
    *,
    l2: ArrayLike,
    quantile: ArrayLike = 0.5,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool | Literal["regularized"] = True,
    tol: ArrayLike = 1e-4,
    max_steps: ArrayLike = 100,
    init: Solution | None = None,
    method: Method = "auto",
    as_numpy: bool = False,
    progress: bool | None = None,
    on_interrupt: OnInterrupt = "raise",
) -> Solution:
    r"""Regularised quantile regression solved exactly, with a duality gap.

    .. math::
        \min_{w, b}\ \sum_i c_i \left(q \max(0, r_i) + (1 - q) \max(0, -r_i)\right) + \frac{l2}{2} \|w\|^2,
        \qquad r_i = y_i - x_i \cdot w - b

    which is `jaxhinge.loss` with `loss_fn=losses.pinball_loss`.

    Args:
      x: Features `(n, d)`, dense or sparse, and differentiable as for `solve`, and so are `y`, `quantile`, `l2` and
        `sample_weight`. A memory-mapped file, or blocks `(x, y)` or `(x, y, sample_weight)` without `y`, are streamed
        as for `solve`.
      y: Real targets `(n,)`. None where `x` is blocks.
      l2: The strength of regularisation, above 0.
      quantile: `q`, strictly between 0 and 1.
      sample_weight, fit_intercept: As for `solve`.
      tol, max_steps, init, method, as_numpy, progress, on_interrupt: As for `solve`.

    Returns:
      A `Solution`. Its `dual` `(2n,)` has two entries for each row, for a target above the quantile, in
      `[0, q c_i]`, and for one below it, in `[0, (1 - q) c_i]`.

    Raises:
      ValueError, TypeError: As `solve` does; NaN or infinity in `y`; a `quantile` outside (0, 1).

    References:
      Koenker, Quantile Regression, 2005.

    >>> import numpy as np, jaxhinge
    >>> y = np.arange(101.0)
    >>> solution = jaxhinge.solve_quantile(np.zeros((101, 1)), y, l2=1.0, quantile=0.9, tol=1e-6)
    >>> print(round(float(solution.params.b)))
    90
    """
    config = config_of("hinge", fit_intercept, method)
    options = solver_options(tol, max_steps, init, as_numpy, progress, on_interrupt)
    traced = is_traced(x, y, l2, quantile, sample_weight, tol, max_steps, init)
    if not traced:
        quantile = check_number("quantile", quantile, meaning=_IN_0_1, valid=lambda v: 0 < v < 1)
    sides = (quantile, 1 - jnp.asarray(quantile) if traced else 1 - quantile)
    return _two_sided(config, options, x, y, l2, sample_weight, 0.0, sides, traced)


def solve_ranking(
    x: ArrayLike,
    pairs: ArrayLike,
    *,
    l2: ArrayLike,
    sample_weight: ArrayLike | None = None,
    tol: ArrayLike = 1e-4,
    max_steps: ArrayLike = 100,
    init: Solution | None = None,
    method: Method = "auto",
    as_numpy: bool = False,
    progress: bool | None = None,
    on_interrupt: OnInterrupt = "raise",
) -> Solution:
    r"""A linear ranking learned exactly from preferences, with a duality gap.

    .. math::
        \min_w\ \sum_m c_m \max\left(0, 1 - (x_{i_m} - x_{j_m}) \cdot w\right) + \frac{l2}{2} \|w\|^2

    for pairs in which row `i_m` is preferred to row `j_m`. A bias would cancel; `params.b` is 0.

    Args:
      x: Features `(n, d)`, dense or, on the host, sparse; differentiable as for `solve`, and so are `l2` and
        `sample_weight`.
      pairs: Integers `(m, 2)`: the preferred row, the other row.
      l2: The strength of regularisation, above 0.
      sample_weight: `(m,)`, one for each pair, not negative, not all 0.
      tol, max_steps, init, method, as_numpy, progress, on_interrupt: As for `solve`.

    Returns:
      A `Solution`; its `dual` has shape `(m,)`.

    Raises:
      ValueError: Pairs are not `(m, 2)`, name a row that is not there, or one twice; and as `solve` does.
      TypeError: Pairs are not integers; and as `solve` does.

    References:
      Joachims, Optimizing search engines using clickthrough data, 2002.

    >>> import numpy as np, jaxhinge
    >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [3.0, 1.0]])
    >>> solution = jaxhinge.solve_ranking(x, np.array([[2, 1], [1, 0]]), l2=0.01)
    >>> print(np.argsort(x @ np.asarray(solution.params.w)))
    [0 1 2]
    """
    config = config_of("hinge", False, method)
    options = solver_options(tol, max_steps, init, as_numpy, progress, on_interrupt)
    traced = is_traced(x, pairs, l2, sample_weight, tol, max_steps, init)
    if place_of(in_memory("solve_ranking", x), (), traced) == "mesh":
        raise ValueError(
            "x lies on several devices, but solve_ranking compares rows that lie on different ones. Where they fit on "
            "one, say so: numpy.asarray(x)."
        )
    rows, _ = _rows(x, None, traced)
    refuse_stored("solve_ranking", rows)
    chosen: Any = label_array("pairs", pairs) if traced else _host_pairs(pairs, rows.shape[0])
    if chosen.ndim != 2 or chosen.shape[1] != 2 or chosen.shape[0] == 0:
        raise ValueError(
            f"pairs must have shape (m, 2) with m at least 1: preferred row, other row; got {chosen.shape}."
        )
    # NumPy is not to warn of NaN and infinity: the check below names them.
    with np.errstate(invalid="ignore", over="ignore"):
        differences = rows[chosen[:, 0]] - rows[chosen[:, 1]]
    differences, weight = _rows(differences, sample_weight, traced)
    ones = (jnp if traced else np).ones_like(weight)
    valid = _are_pairs(chosen, rows.shape[0]) if traced else True
    problem = Problem(differences, ones, ones, weight, l2 if traced else host_l2(l2), valid=valid, origin=x)
    return solve_problem(config, problem, options)


def solve_one_class(
    x: ArrayLike,
    *,
    nu: ArrayLike = 0.5,
    l2: ArrayLike = 1.0,
    sample_weight: ArrayLike | None = None,
    tol: ArrayLike = 1e-4,
    max_steps: ArrayLike = 100,
    init: Solution | None = None,
    method: Method = "auto",
    as_numpy: bool = False,
    progress: bool | None = None,
    on_interrupt: OnInterrupt = "raise",
) -> Solution:
    r"""The linear one-class support vector machine solved exactly, with a duality gap.

    .. math::
        \min_{w, \rho}\ \frac{l2}{2} \|w\|^2 - \rho + \frac{1}{\nu} \sum_i c_i \max(0, \rho - x_i \cdot w)

    At most a fraction `nu` of the weight has a score below `rho`. The parameters come back with `b = -rho`, so that
    `predict` is +1 for what resembles `x`.

    Args:
      x: Features `(n, d)`, dense or sparse, and differentiable as for `solve`, and so are `l2`, `nu` and
        `sample_weight`.
      nu: The fraction of outliers, strictly between 0 and 1.
      l2: The strength of regularisation, above 0. It only scales the solution, by `1 / l2`.
      sample_weight: `(n,)`, not negative, not all 0.
      tol: Stop when `gap <= tol * |primal_value|`; the objective is negative where the data keep off the origin.
      max_steps, init, method, as_numpy, progress, on_interrupt: As for `solve`.

    Returns:
      A `Solution`; its `dual` `(n,)` has `0 <= dual_i <= c_i / nu` and the sum 1.

    Raises:
      ValueError, TypeError: As `solve` does; a `nu` outside (0, 1).

    References:
      Schoelkopf et al., Estimating the support of a high-dimensional distribution, 2001.

    >>> import numpy as np, jaxhinge
    >>> x = np.random.default_rng(0).normal(loc=3.0, size=(100, 2))
    >>> solution = jaxhinge.solve_one_class(x, nu=0.1)
    >>> print(int((jaxhinge.decision_function(solution.params, x) < -1e-4).sum()) <= 10)
    True
    """
    config = config_of("hinge", True, method)
    options = solver_options(tol, max_steps, init, as_numpy, progress, on_interrupt)
    traced = is_traced(x, nu, l2, sample_weight, tol, max_steps, init)
    place = place_of(in_memory("solve_one_class", x), (), traced)
    if not traced:
        nu = fraction = check_number("nu", nu, meaning=_IN_0_1, valid=lambda value: 0 < value < 1)
        if place == "mesh":
            return solve_on_mesh(config, x, None, l2, sample_weight, MeshLoss("one_class", (fraction,)), options)
        l2 = host_l2(l2)
    mesh = explicit_mesh(x, sample_weight) if traced else None
    if mesh is not None:
        return with_automatic_axes(  # type: ignore[no-any-return]
            mesh, sharding_of(x), solve_one_class, x, nu=nu, l2=l2, sample_weight=sample_weight, tol=tol,
            max_steps=max_steps, init=init, method=method, as_numpy=as_numpy,
        )  # fmt: skip
    rows, weight = _rows(x, sample_weight, traced)
    valid = jnp.all((jnp.asarray(nu) > 0) & (jnp.asarray(nu) < 1)) if traced else True
    ones = (jnp if traced else np).ones_like(weight)
    problem = Problem(rows, ones, 0 * ones, weight, l2, scale=1 / nu, q_bias=1.0, valid=valid, origin=x)
    return solve_problem(config, problem, options)


def _two_sided(
    config: Config,
    options: SolverOptions,
    x: Any,
    y: Any,
    l2: Any,
    sample_weight: Any,
    epsilon: Any,
    sides: tuple[Any, Any],
    traced: bool,
) -> Solution:
    """Rows for `sides[0] max(0, r - epsilon) + sides[1] max(0, -r - epsilon)`, the two sides next to each other."""
    place = place_of(x, y, traced)
    if place != "memory":
        numbers = Sides(float(epsilon), *(float(side) for side in sides))
        if place == "stream":
            return solve_streamed(config, Source(x, y, sample_weight, numbers), l2, options)
        return solve_on_mesh(config, x, y, l2, sample_weight, MeshLoss("sides", numbers), options)
    mesh = explicit_mesh(x, y, sample_weight) if traced else None
    if mesh is not None:
        arguments = config, options, x, y, l2, sample_weight, epsilon, sides, traced
        return with_automatic_axes(mesh, sharding_of(x), _two_sided, *arguments)  # type: ignore[no-any-return]
    rows, weight = _rows(x, sample_weight, traced)
    module: Any = jnp if traced else np
    if traced:
        y = same_shape("y", float_array("y", y).astype(rows.dtype), "the column x[:, 0]", one_column(rows))
    else:
        y = host_real("y", y)
        check_rows("y", y, rows.shape[0])
        check_real_targets("y", y)
        y, l2 = y.astype(np.float64), host_l2(l2)
    ones = module.ones_like(weight)
    problem = Problem(
        # On the host, and where they are sparse, the rows are not repeated: the operator reads each for both sides.
        x=rows if not traced or isinstance(rows, StoredRows) else module.repeat(rows, 2, axis=0),
        sign=module.stack([ones, -ones], axis=1).ravel(),
        r=module.stack([y - epsilon, -y - epsilon], axis=1).ravel(),
        weight=module.stack([sides[0] * weight, sides[1] * weight], axis=1).ravel(),
        l2=l2,
        # The weights of both sides sum to more than those of the rows.
        scale=sides[0] + sides[1],
        valid=(epsilon >= 0) & (sides[0] > 0) & (sides[1] > 0),
        origin=x,
    )
    return solve_problem(Config(config.squared, config.intercept, config.method, paired=True), problem, options)


def _rows(x: Any, sample_weight: Any, traced: bool) -> tuple[Any, Any]:
    if traced:
        return traced_rows(x, sample_weight)
    rows, weight = host_rows(x, sample_weight)
    # Checked here: the solver sees other rows than the user gave, so that its message would name the wrong ones.
    check_finite("x", rows)
    return rows, weight


def _are_pairs(chosen: Any, num_rows: int) -> Any:
    """What `_host_pairs` asks, under a trace, where a row that is not there would be taken for the last one."""
    rows = chosen.astype(int)
    return jnp.all((rows >= 0) & (rows < num_rows)) & jnp.all(rows[:, 0] != rows[:, 1])


def _host_pairs(pairs: Any, num_rows: int) -> np.ndarray[Any, Any]:
    array = host_array("pairs", pairs)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"pairs must be integers, row numbers of x; got dtype {array.dtype}.")
    if array.size and (array.min() < 0 or array.max() >= num_rows):
        raise ValueError(f"pairs must name rows 0..{num_rows - 1}; got rows from {array.min()} to {array.max()}.")
    if array.ndim == 2 and array.shape[1] == 2 and (array[:, 0] == array[:, 1]).any():
        raise ValueError("pairs must compare two different rows; at least one compares a row with itself.")
    return array.astype(np.int64)
