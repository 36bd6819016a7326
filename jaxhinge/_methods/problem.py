"""What a solve is given and what it gives back, as arrays, and the program that the rows make."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxhinge._methods.certificate import Program
from jaxhinge._rows.columns import Columns

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
    count. The two sides of a residual may share their features, which are then `(d, n / 2)`. `centre` `(d,)` is taken
    from the features where a free bias absorbs it: any value near their mean will do, and problems that share theirs
    share the centred rows. `valid` is whether the caller's checks passed.
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
    """Where to start: parameters, a dual, and whether they come from an earlier solution of a problem like this one."""

    w: Leaf
    b: Leaf
    dual: Leaf
    warm: Leaf


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
    counts = rows.c > 0
    centre = rows.centre if config.intercept == "free" else jnp.zeros_like(rows.centre)
    features = rows.xt - centre[:, None] if config.intercept == "free" and not config.centred else rows.xt
    penalty = jnp.broadcast_to(rows.l2, centre.shape)
    q = jnp.zeros_like(centre)
    if config.intercept != "none":
        penalty = jnp.append(penalty, rows.l2 if config.intercept == "regularized" else 0)
        # The bias of centred features is b + w . centre.
        q = jnp.append(-rows.q_bias * centre, rows.q_bias)
    mean_weight = jnp.sum(rows.c) / jnp.maximum(jnp.sum(counts), 1)
    return Program(
        # Under a derivative the two sides of a residual are rows of their own.
        rows=Columns(features, config.intercept != "none", pairs=features.shape[1] < len(rows.c)),
        sign=jnp.where(counts, rows.sign, 0),
        r=jnp.where(counts, rows.r, 0),
        c=jnp.where(counts, rows.c, mean_weight),
        penalty=penalty,
        q=q,
        squared=config.squared,
        free_bias=config.intercept == "free",
    ), centre
