"""What a solve is given and what it gives back, as arrays, and the program that the rows make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._methods.certificate import Program
from jaxhinge._methods.executor import column, namespace
from jaxhinge._rows.columns import Columns
from jaxhinge._rows.stored import StoredRows

Intercept = Literal["free", "regularized", "none"]
Method = Literal["auto", "newton", "interior_point", "ascent"]


class Status(IntEnum):
    """How a solve ended; `Solution.status` holds the code, and `Status(int(code)).advice` says what to do.

    >>> import jaxhinge
    >>> jaxhinge.Status(1).name
    'STEP_LIMIT'
    """

    CONVERGED = 0
    STEP_LIMIT = 1
    STALLED = 2
    REFUSED = 3

    @property
    def advice(self) -> str:
        """What the status means, and what to do about it."""
        return _ADVICE[self]


_ADVICE = {
    Status.CONVERGED: "The gap is within tol.",
    Status.STEP_LIMIT: "max_steps were made before the gap was within tol: raise it, or accept the gap reported.",
    Status.STALLED: 'No smaller gap was reached in this precision: leave method at "auto", raise tol, scale the '
    "features, or pass float64 data (with as_numpy=True, or under jax.enable_x64).",
    Status.REFUSED: "The data hold NaN, infinity, targets other than -1 and +1 or one class only, or l2 <= 0.",
}


@dataclass(frozen=True)
class Config:
    """What is fixed when a solve is compiled.

    `paired` says that every second row mirrors the one before, as the two sides of a residual do; `centred`, that the
    features come without their centre. `dtype` is the caller's.
    """

    squared: bool = False
    intercept: Intercept = "free"
    method: Method = "auto"
    paired: bool = False
    centred: bool = False
    dtype: Any = jnp.float32


# An array of JAX or of NumPy.
Leaf = Any


class Rows(NamedTuple):
    """A problem by its rows: `sum_i c_i loss(r_i - sign_i (x_i . w + b)) + l2/2 |w|^2 + q_bias b`.

    `xt` `(d, n)` holds the features transposed: all products run along it faster. A row with `c_i = 0` does not
    count. The two sides of a residual may share their features, which are then `(d, n / 2)`. Sparse features are CSR on
    the host, transposed, and `StoredRows` under a trace. `centre` `(d,)` is taken from the features where a free bias
    absorbs it: any value near their mean will do, and problems that share theirs share the centred rows. `valid` is
    whether the caller's checks passed.
    """

    xt: Leaf
    sign: Leaf
    r: Leaf
    c: Leaf
    l2: Leaf
    q_bias: Leaf
    centre: Leaf
    valid: Leaf


class Start(NamedTuple):
    """Where to start: parameters, a dual, and whether they come from an earlier solution of a problem like this one.

    With several classes `w` is `(d, k)`, `b` `(k,)` and the dual `(n, k)`.
    """

    w: Leaf
    b: Leaf
    dual: Leaf
    warm: Leaf


def numpy_start(before: Answer | None, *shape: int) -> Start:
    """From an earlier answer, or from 0, for `(n, d)` dual variables and features of one problem or `(count, n, d)` of
    many."""
    *many, n, d = shape
    if before is None:
        return Start(np.zeros((*many, d)), np.zeros(many), np.zeros((*many, n)), np.zeros(many, bool))
    w, b, dual = (np.asarray(leaf, np.float64) for leaf in (before.w, before.b, before.dual))
    return Start(w, b, dual, np.ones(many, bool))


class Answer(NamedTuple):
    """The fields of a `Solution`, by their arrays."""

    w: Leaf
    b: Leaf
    dual: Leaf
    primal_value: Leaf
    dual_value: Leaf
    gap: Leaf
    steps: Leaf
    status: Leaf


def build(config: Config, rows: Rows) -> tuple[Program, jax.Array]:
    """The program of the rows, and what was taken from the features: 0 where no free bias absorbs it."""
    centre = rows.centre if config.intercept == "free" else jnp.zeros_like(rows.centre)
    if isinstance(rows.xt, StoredRows):
        taken, pairs = centre if config.intercept == "free" else None, rows.xt.shape[0] < len(rows.c)
        stored = replace(rows.xt, centre=taken, ones=config.intercept != "none", pairs=pairs)
        return program_of(config, rows, stored, centre), centre
    features = rows.xt - centre[:, None] if config.intercept == "free" and not config.centred else rows.xt
    # Under a derivative the two sides of a residual are rows of their own.
    operator = Columns(features, config.intercept != "none", pairs=features.shape[1] < len(rows.c))
    return program_of(config, rows, operator, centre), centre


def program_of(config: Config, rows: Rows, operator: Any, centre: Leaf) -> Program:
    """The program of the rows, for the operator of their features, from which `centre` was taken; or many programs,
    along a leading axis of `sign`, `c` and `l2`."""
    xp, counts = namespace(rows.c), rows.c > 0
    penalty, q = xp.broadcast_to(column(rows.l2), (*rows.l2.shape, *centre.shape)), xp.zeros_like(centre)
    if config.intercept != "none":
        of_bias = rows.l2 if config.intercept == "regularized" else xp.zeros_like(rows.l2)
        penalty = xp.concatenate([penalty, column(of_bias)], axis=-1)
        # The bias of centred features is b + w . centre.
        q = xp.append(-rows.q_bias * centre, rows.q_bias)
    mean_weight = xp.sum(rows.c, axis=-1) / xp.maximum(xp.sum(counts, axis=-1), 1)
    return Program(
        rows=operator,
        sign=xp.where(counts, rows.sign, 0),
        r=xp.where(counts, rows.r, 0),
        c=xp.where(counts, rows.c, column(mean_weight)),
        penalty=penalty,
        q=xp.broadcast_to(q, penalty.shape),
        squared=config.squared,
        free_bias=config.intercept == "free",
    )
