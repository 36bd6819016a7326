"""The one boundary through which float64 work passes, whatever the caller's flags and transforms.

`jax.enable_x64` is a context, and a context does not survive every nesting: under `vmap(jit(f))` the
batching happens outside it and would silently compute in float32. So the computation is wrapped in
a `custom_vmap` whose rule enters the context again for the batched computation, and is itself such a
wrapper, for the next `vmap`. Derivatives must not pass through: callers put a `custom_jvp` outside.
On TPU, which has no float64, the same code is lowered in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.typing import DTypeLike

from jaxhinge._base.arrays import Array

Core = Callable[..., Any]


def eps(dtype: DTypeLike) -> float:
    """The distance from 1 to the next larger number of a floating dtype."""
    return float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def tiny(dtype: DTypeLike) -> float:
    """The smallest normal number of a floating dtype."""
    return float(jnp.finfo(dtype).tiny)  # type: ignore[no-untyped-call]


def rounded_up(values: Array, dtype: DTypeLike) -> Array:
    """Bounds from above, so much larger that rounding them to a narrower `dtype` makes none smaller than it was."""
    return values + _lost(values, dtype)


def rounded_down(values: Array, dtype: DTypeLike) -> Array:
    """Bounds from below, so much smaller that rounding them to a narrower `dtype` makes none larger than it was."""
    return values - _lost(values, dtype)


def _lost(values: Array, dtype: DTypeLike) -> Array:
    rounding = eps(dtype)
    return (rounding if rounding > eps(values.dtype) else 0.0) * abs(values)


def in_float64(core: Core, out_dtype: DTypeLike) -> Core:
    """Evaluate `core` in the widest precision of the platform; its floats come back in `out_dtype`.

    Args:
      core: A pure function of arrays. It must take its precision from its arguments.
      out_dtype: The dtype of the caller's world: a float64 array must not escape into a float32 one.
    """

    @custom_vmap
    def call(*args: Any) -> Any:
        # Without "standard", code that mixes dtypes would be refused where the caller's flag is "strict".
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            return jax.lax.platform_dependent(
                *args,
                tpu=_at_precision(core, jnp.float32, out_dtype),
                default=_at_precision(core, jnp.float64, out_dtype),
            )

    @call.def_vmap
    def _batch(axis_size: int, in_batched: list[Any], *args: Any) -> tuple[Any, Any]:
        in_axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(in_batched))
        out = in_float64(jax.vmap(core, in_axes=in_axes, axis_size=axis_size), out_dtype)(*args)
        return out, jax.tree.map(lambda _: True, out)

    return call


def _at_precision(core: Core, dtype: DTypeLike, out_dtype: DTypeLike) -> Core:
    def at_precision(*args: Any) -> Any:
        # Without "highest", TPU and GPU round the factors of products to bfloat16 or TF32.
        with jax.default_matmul_precision("highest"):
            return _cast(core(*_cast(args, dtype)), out_dtype)

    return at_precision


def _cast(tree: Any, dtype: DTypeLike) -> Any:
    def cast(leaf: Any) -> Any:
        return jax.lax.convert_element_type(leaf, dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)
