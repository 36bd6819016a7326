"""A program, and the coordinates in which it is worked on.

A free bias takes up a common offset of the features, which are centred. Where there is none, a large offset would leave
float32 few digits for what the rows differ in: the coordinates are turned so that the first holds the mean row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxhinge._base.arrays import Array
from jaxhinge._base.precision import tiny
from jaxhinge._methods.certificate import Certified, Program
from jaxhinge._methods.executor import namespace
from jaxhinge._methods.problem import Config, Rows, build
from jaxhinge._rows.columns import Columns


class Task(NamedTuple):
    """A program in its own coordinates, `centre` `(d,)`, what was taken from the features, and `mean` `(p,)`, their
    mean row or one near it."""

    program: Program
    centre: Array
    mean: Array


def task_of(config: Config, rows: Rows) -> Task:
    """The rows as a program."""
    program, centre = build(config, rows)
    mean = rows.centre - centre
    return Task(program, centre, mean if config.intercept == "none" else jnp.append(mean, 1))


def working_program(task: Task, dtype: DTypeLike) -> Program:
    """The program in the coordinates in which it is worked on, rounded to a precision after it was turned."""
    program, given = task.program, task.program.rows
    if given.by_products:
        return program.astype(dtype)
    rows, last, q = given.features, jnp.ones_like(given.features[:1]), program.q
    if _is_reflected(program):
        normal, scaled = reflection(task.mean)
        change = replace(given, pairs=False).products(scaled)[None, :]
        rows, last = rows - normal[: len(rows), None] * change, last - normal[-1] * change
        q = q - (scaled @ q) * normal
    if given.ones:
        # The parts are rounded before they are joined, or a copy would be written in the wider precision.
        rows = jnp.concatenate([rows.astype(dtype), last.astype(dtype)])
    working = replace(program, rows=Columns(rows, pairs=given.pairs), q=q).astype(dtype)
    # Without the barrier XLA would compute the rows again for every use.
    rows = jax.lax.optimization_barrier(working.rows.features)  # type: ignore[no-untyped-call]
    return replace(working, rows=Columns(rows, pairs=given.pairs))


def reflected(task: Task, found: Certified) -> Certified:
    """From the coordinates of the program to those that it is worked on in; or back, which is the same.

    On the host they are the same: float64 has digits enough.
    """
    if namespace(found.z) is np or not _is_reflected(task.program):
        return found
    normal, scaled = (part.astype(found.z.dtype) for part in reflection(task.mean))
    return found._replace(z=found.z - (scaled @ found.z) * normal)


def _is_reflected(program: Program) -> bool:
    p, n = program.shape
    return not program.free_bias and p <= n and not program.rows.by_products


def reflection(mean: Array) -> tuple[Array, Array]:
    """The normal, and the normal scaled, of the reflection `a - (scaled . a) normal` that takes the direction of the
    mean to the first coordinate (Householder's).

    Where all penalties are equal the program keeps its form.
    """
    xp = namespace(mean)
    direction = mean / xp.maximum(xp.max(abs(mean)), tiny(mean.dtype))
    unit = direction / xp.maximum(xp.sqrt(direction @ direction), tiny(mean.dtype))
    normal = xp.concatenate([unit[:1] + xp.where(unit[:1] < 0, -1, 1), unit[1:]])
    return normal, 2 * normal / (normal @ normal)
