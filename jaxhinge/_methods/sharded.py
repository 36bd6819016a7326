"""Solving on rows that lie spread over the devices of a mesh: they stay there, and only sums over them travel.

The rows are weighed and checked where they are, in float64 as on the host, and one program solves them. What makes it
parallel is XLA, which splits each sum over rows into one on each device and a sum over the devices.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxhinge._base.arrays import NDArray, check_feature_shape
from jaxhinge._base.interrupts import computed
from jaxhinge._base.precision import in_float64
from jaxhinge._base.values import check_rows, host_real
from jaxhinge._methods.problem import Answer, Config, Rows, Start, Status
from jaxhinge._methods.stages import gap_of_rows, solve_rows


class Layout(NamedTuple):
    """How rows `(n, d)` lie on the devices, their transpose, a number for each row, and what each device has whole."""

    rows: NamedSharding
    columns: NamedSharding
    vector: NamedSharding
    whole: NamedSharding


class _ValueChecks(NamedTuple):
    """What is right about the values of a problem."""

    finite: jax.Array
    targets: jax.Array
    both: jax.Array
    weights: jax.Array


def is_sharded(x: Any) -> bool:
    """Whether the rows of a concrete array lie on several devices."""
    if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer) or not isinstance(x.sharding, NamedSharding):
        return False
    spec = x.sharding.spec
    return len(spec) > 0 and spec[0] is not None and len(x.sharding.device_set) > 1


def on_host(values: Any) -> NDArray:
    """A NumPy array of all there is, wherever it lies; every process of several must ask."""
    if isinstance(values, jax.Array) and not (values.is_fully_addressable or values.is_fully_replicated):
        values = multihost_utils.process_allgather(values, tiled=True)
    return np.array(values)


def real_features(x: jax.Array) -> jax.Array:
    """Sharded features of a shape and dtype that can be solved."""
    check_feature_shape("x", x)
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise TypeError(f"x must be real numbers; got dtype {x.dtype}.")
    return x


class MeshLoss(NamedTuple):
    """The loss of rows on a mesh: "classes", without numbers; "sides" of a residual, with `epsilon`, and the weights
    of the two; "one_class", with `nu`."""

    kind: Literal["classes", "sides", "one_class"] = "classes"
    numbers: tuple[float, ...] = ()


class MeshRows:
    """Rows on a mesh, weighed and checked where they lie, for any number of problems on them.

    Attributes:
      dtype: What comes back in. As on the host it is float64 only where that is asked for or x64 is on.
    """

    def __init__(
        self, config: Config, as_numpy: bool, x: Any, y: Any, sample_weight: Any, loss: MeshLoss | None = None
    ) -> None:
        loss, self._as_numpy = loss or MeshLoss(), as_numpy
        self._layout = layout = layout_of(real_features(x))
        self.dtype = jnp.float64 if as_numpy or x.dtype == jnp.float64 else jnp.float32
        self._config = replace(config, dtype=self.dtype, paired=loss.kind == "sides")
        x = jax.device_put(x, layout.rows)
        y, weight = _placed("y", y, x, layout), _placed("sample_weight", sample_weight, x, layout)
        with jax.enable_x64(True):
            self._rows, found = _weighed(layout, loss.kind)(x, y, weight, tuple(map(np.float64, loss.numbers)))
            _check_values(loss.kind, found)

    @property
    def shape(self) -> tuple[int, int]:
        """Dual variables and features, `(n, d)`."""
        return self._rows.c.shape[0], self._rows.xt.shape[0]

    def solve(self, l2: float, init: Any, tol: float, max_steps: int) -> Answer:
        """The answer, whose dual lies as the rows do; `init` is a pair `(params, dual)` or None."""
        layout, given = self._layout, self._given(init)
        with jax.enable_x64(True):
            rows = self._rows._replace(l2=np.float64(l2))
            start = _started(layout)(given, rows)
            core = _compiled_sharded(self._config, layout)
            answer: Answer = computed(core(rows, start, np.float64(tol), np.int32(max_steps)))
        if int(answer.status) == Status.REFUSED:
            raise ValueError("The objective overflows float64: scale the features down, or change l2.")
        return jax.tree.map(on_host, answer) if self._as_numpy else answer

    def gap(self, l2: float, params: Any, dual: Any, tol: float, max_steps: int) -> jax.Array:
        """The objective at the parameters minus a dual value: that of a dual as it is, or of one solved for (None)."""
        given = self._given((params, dual))
        with jax.enable_x64(True):
            rows = self._rows._replace(l2=np.float64(l2))
            start = _started(self._layout)(given, rows)
            core = _compiled_gap(self._config, self._layout, dual is None)
            gap: jax.Array = computed(core(rows, start, np.float64(tol), np.int32(max_steps)))
        return gap

    def stacked(self, leaves: tuple[Any, ...]) -> Any:
        """The arrays of several answers as one, laid out as they are."""
        if self._as_numpy:
            return np.stack(leaves)
        with jax.enable_x64(True):
            return _stacked(self._layout, leaves[0].ndim == 1 and len(leaves[0]) == self.shape[0])(leaves)

    def _given(self, init: Any) -> Any:
        """Parameters and dual of an earlier solution, or None; the dual goes to where the rows are."""
        if init is None:
            return None
        (w, b), dual = init
        return w, b, None if dual is None else jax.device_put(dual, self._layout.vector)


def layout_of(x: jax.Array) -> Layout:
    """On the same devices as `x`, with automatic axes."""
    sharding: Any = x.sharding
    spec = tuple(sharding.spec)
    if any(part is not None for part in spec[1:]):
        raise ValueError(f"x lies along its features, too: {sharding.spec}. Lay out its rows only: P({spec[0]!r}).")
    mesh = Mesh(sharding.mesh.devices, sharding.mesh.axis_names)
    specs = [(spec[0], None), (None, spec[0]), (spec[0],), ()]
    return Layout(*(NamedSharding(mesh, PartitionSpec(*parts)) for parts in specs))  # type: ignore[no-untyped-call]


def _placed(name: str, values: Any, x: jax.Array, layout: Layout) -> Any:
    """One number for each row, on the device of its row."""
    if values is None:
        return None
    values = values if isinstance(values, jax.Array) else host_real(name, values)
    check_rows(name, values, x.shape[0])
    return jax.device_put(values, layout.vector)


@lru_cache
def _weighed(layout: Layout, kind: str) -> Any:
    out = Rows(xt=layout.columns, sign=layout.vector, r=layout.vector, c=layout.vector, l2=layout.whole,
               q_bias=layout.whole, centre=layout.whole, valid=layout.whole)  # fmt: skip
    return jax.jit(partial(_weigh, kind), out_shardings=(out, layout.whole))


def sharded_features(x: jax.Array, weight: NDArray) -> tuple[jax.Array, jax.Array]:
    """Sharded rows transposed, and their weighted mean."""
    layout = layout_of(x)
    found: tuple[jax.Array, jax.Array] = _features(layout)(
        jax.device_put(x, layout.rows), jax.device_put(weight, layout.vector)
    )
    return found


@lru_cache
def _features(layout: Layout) -> Any:
    def features(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = _floating(x)
        return x.T, _centre(x, weight)

    return jax.jit(features, out_shardings=(layout.columns, layout.whole))


def sharded_scores(x: jax.Array, w: NDArray, b: NDArray) -> NDArray:
    """`x @ w + b` of sharded rows and many `w` `(..., d)` and `b` `(...)`, on the host: `(..., n)`."""
    return on_host(_scores(jax.device_put(x, layout_of(x).rows), w.astype(x.dtype), b.astype(x.dtype)))


@jax.jit
def _scores(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum("nd,...d->...n", x, w, precision="highest") + b[..., None]


def _floating(x: jax.Array) -> jax.Array:
    if x.dtype in (jnp.float32, jnp.float64):
        return x
    return x.astype(jnp.float32 if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float64)


def _centre(x: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.matmul(weight.astype(x.dtype), x, precision="highest") / jnp.sum(weight)


def _weigh(
    kind: str, x: jax.Array, y: Any, weight: jax.Array | None, numbers: tuple[jax.Array, ...]
) -> tuple[Rows, _ValueChecks]:
    x = _floating(x)
    weight = jnp.ones(len(x)) if weight is None else weight.astype(jnp.float64)
    total, counted = jnp.sum(weight), weight > 0
    c = weight / total
    sign, r, q_bias = jnp.ones_like(c), jnp.ones_like(c), jnp.zeros(())
    both = targets = jnp.asarray(True)
    if kind == "classes":
        sign = y.astype(jnp.float64)
        both, targets = jnp.any(counted & (y == 1)) & jnp.any(counted & (y == -1)), jnp.all((y == 1) | (y == -1))
    elif kind == "sides":
        epsilon, above, below = numbers
        y = y.astype(jnp.float64)
        targets = jnp.all(jnp.isfinite(y))
        sides = ((sign, -sign), (y - epsilon, -y - epsilon), (above * c, below * c))
        sign, r, c = (jnp.stack(two, axis=1).ravel() for two in sides)
    else:
        r, c, q_bias = jnp.zeros_like(c), c / numbers[0], jnp.ones(())
    found = _ValueChecks(
        finite=jnp.all(jnp.isfinite(x)),
        targets=targets,
        both=both,
        weights=jnp.all(weight >= 0) & (total > 0) & jnp.isfinite(total),
    )
    return Rows(x.T, sign, r, c, jnp.ones(()), q_bias, _centre(x, weight), jnp.asarray(True)), found


def _check_values(kind: str, found: _ValueChecks) -> None:
    if not found.finite:
        raise ValueError("x has NaN or infinity. Impute them or drop those rows.")
    if not found.weights:
        raise ValueError("sample_weight must be finite, not negative, and above 0 for at least one row.")
    if not found.targets and kind == "sides":
        raise ValueError("y has NaN or infinity. Impute them or drop those rows.")
    if not found.targets:
        raise ValueError("y must be -1 and +1. Labels 0 and 1 become targets with 2 * y - 1.")
    if not found.both:
        raise ValueError("y has one class only among the rows with a weight above 0. A classifier needs both.")


@lru_cache
def _started(layout: Layout) -> Any:
    whole = layout.whole
    return jax.jit(_placed_start, out_shardings=Start(w=whole, b=whole, dual=layout.vector, warm=whole))


def _placed_start(init: tuple[jax.Array, jax.Array, jax.Array | None] | None, rows: Rows) -> Start:
    zeros = jnp.zeros_like(rows.c)
    if init is None:
        return Start(jnp.zeros(rows.xt.shape[0]), jnp.zeros(()), zeros, jnp.asarray(False))
    w, b, dual = init
    dual = zeros if dual is None else dual
    return Start(w.astype(zeros.dtype), b.astype(zeros.dtype), dual.astype(zeros.dtype), jnp.asarray(True))


@lru_cache
def _compiled_sharded(config: Config, layout: Layout) -> Any:
    out = Answer(*[layout.whole] * len(Answer._fields))._replace(dual=layout.vector)
    return jax.jit(in_float64(partial(solve_rows, config), config.dtype), out_shardings=out)


@lru_cache
def _compiled_gap(config: Config, layout: Layout, improve: bool) -> Any:
    core = partial(gap_of_rows, config, improve)
    return jax.jit(in_float64(core, config.dtype), out_shardings=layout.whole)


@lru_cache
def _stacked(layout: Layout, of_rows: bool) -> Any:
    return jax.jit(jnp.stack, out_shardings=layout.columns if of_rows else layout.whole)
