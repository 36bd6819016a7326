"""What every part of the hostile campaign shares: the description of a function, its rows, and numbers in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _hostile_values import Rng, sparse_of

import jaxhinge as jh

Arguments = dict[str, Any]
ROWS, COLUMNS, CLASSES = (1, 2, 5, 16), (1, 3), 3


class Function(NamedTuple):
    """A public function.

    Attributes:
      name: As users type it.
      call: Takes the arguments by name.
      draw: Arguments that are in order.
      check: From arguments and result, what is wrong with the result, in words; "" where nothing is.
      share: How often it is called, in parts of the whole.
      names: What a refusal may name beside the arguments.
      trusted: Packages whose own refusals are passed on.
    """

    name: str
    call: Callable[..., Any]
    draw: Callable[[Rng], Arguments]
    check: Callable[[Arguments, Any], str]
    share: float
    names: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()


def canonical(value: Any) -> np.ndarray[Any, Any]:
    """What JAX makes of it, in float64 or as the integers they are."""
    array = np.asarray(as_jax(value))
    return array if array.dtype.kind in "biu" else array.astype(np.float64)


def as_jax(value: Any) -> jax.Array:
    return jnp.asarray(value if isinstance(value, (bool, int, float)) else np.asarray(value))


def tame(limit: float, *values: Any) -> bool:
    """Whether all numbers are finite and below a limit."""
    return all(bool((np.abs(np.nan_to_num(canonical(v).astype(float), nan=np.inf)) <= limit).all()) for v in values)


def real(*results: Any) -> bool:
    """Whether all numbers of results are finite, in their own precision."""
    return all(bool(np.isfinite(np.asarray(result).astype(float)).all()) for result in results)


def finite(*values: Any) -> bool:
    return all(bool(np.isfinite(canonical(value).astype(float)).all()) for value in values)


def perhaps_sparse(rng: Rng, x: Any, share: float = 0.25) -> Any:
    """Rows, some of them as a sparse matrix in which most numbers are 0 and some rows are empty."""
    return sparse_of(rng, np.where(rng.random(x.shape) < 0.5, x, 0)) if rng.random() < share else x


def chosen(rng: Rng, options: Arguments, share: float = 0.3) -> Arguments:
    """Some of the options."""
    return {name: value for name, value in options.items() if rng.random() < share}


def rows_of(rng: Rng, dtype: Any = None) -> tuple[Any, Any]:
    n, d = int(rng.choice(ROWS[1:])), int(rng.choice(COLUMNS))
    x = rng.normal(size=(n, d)).astype(dtype or rng.choice(("float32", "float64")))
    y = np.where(np.arange(n) == 0, 1, np.where(np.arange(n) == 1, -1, rng.choice((-1, 1), n)))
    return x, y


def model_arguments(rng: Rng) -> Arguments:
    n, d = rng.choice(ROWS), rng.choice(COLUMNS)
    classes = (CLASSES,) if rng.random() < 0.4 else ()
    x = np.asarray(rng.normal(size=(n, d) if rng.random() < 0.85 else (d,)), np.float32)
    w, b = np.asarray(rng.normal(size=(d, *classes)), np.float32), np.asarray(rng.normal(size=classes), np.float32)
    return {"params": jh.LinearParams(w, b), "x": x}
