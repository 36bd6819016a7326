"""Batches from outside, checked on the host one by one and padded to one shape for one compiled program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import NDArray, at_least_float32
from jaxhinge._base.values import (
    check_class_labels,
    check_features,
    check_real_targets,
    check_rows,
    check_targets_of_block,
    check_weight_of_block,
    host_array,
    host_real,
)
from jaxhinge._train.data import cast
from jaxhinge.losses._families import BINARY, MULTICLASS, unwrapped


class Batch(NamedTuple):
    """Rows of one batch, padded with rows of weight 0.

    Attributes:
      x: `(size, d)`.
      y: `(size,)`.
      weight: `(size,)`, 1 without sample weights.
      real: The number of rows before padding.
    """

    x: NDArray
    y: NDArray
    weight: NDArray
    real: int


class Reader:
    """Checks batches and pads them. It remembers the first batch, and the classes of all."""

    def __init__(self, loss_fn: Callable[..., jax.Array], num_classes: int | None) -> None:
        loss = unwrapped(loss_fn)
        if loss in MULTICLASS and num_classes is None:
            raise ValueError(
                "num_classes is needed where y comes in batches: the first of them may not have every class. "
                "Pass num_classes=k for labels 0..k-1."
            )
        self.num_classes = num_classes
        self.binary = loss in BINARY
        self.first: Batch | None = None
        self.weighted = False
        self.size = 0
        self.classes: set[float] = set()

    def read(self, named: tuple[str, Any]) -> Batch:
        """The checked and padded batch, of a pair `(name, batch)`: error messages begin with the name."""
        name, given = named
        parts = self._parts(name, given)
        x = self._features(f"x of {name}", parts[0])
        weight = np.ones(len(x), x.dtype)
        if len(parts) == 3:
            weight = host_real(f"sample_weight of {name}", parts[2]).astype(x.dtype)
            check_weight_of_block(f"sample_weight of {name}", weight, len(x))
        y = host_array(f"y of {name}", parts[1])
        check_rows(f"y of {name}", y, len(x))
        batch = Batch(x, self._targets(f"y of {name}", y, weight, x.dtype), weight, len(x))
        self.first = self.first or batch
        return self._padded(batch)

    def check_classes(self) -> None:
        """Refuse batches that all had one class, which is known only after the last."""
        if len(self.classes) == 1:
            raise ValueError(
                f"y has one class only in all batches: {self.classes.pop():g}. A classifier needs rows of two classes "
                "(with a weight above 0); check how the rows were selected."
            )

    def _parts(self, name: str, given: Any) -> tuple[Any, ...]:
        if isinstance(given, Mapping) or not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
            what = f"{len(given)} parts" if isinstance(given, (tuple, list)) else type(given).__name__
            raise TypeError(
                f"{name} must be (x, y) or (x, y, sample_weight); got {what}. "
                'For example: lambda: ((batch["x"], batch["y"]) for batch in loader).'
            )
        weighted = len(given) == 3
        if self.first is not None and weighted != self.weighted:
            counts = "sample weights, but the first batch had none"
            raise ValueError(
                f"{name} has {counts if weighted else 'no sample weights, but the first batch had'}. Give all or none."
            )
        self.weighted = weighted
        return tuple(given)

    def _features(self, name: str, value: Any) -> NDArray:
        x = host_real(name, value)
        check_features(name, x)
        x = cast(name, x, x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else np.dtype(float))
        x = x.astype(at_least_float32(x.dtype), copy=False)
        if self.first is None:
            return x
        if x.shape[1] != self.first.x.shape[1]:
            raise ValueError(
                f"{name} has {x.shape[1]} features (shape {x.shape}), but the first batch had "
                f"{self.first.x.shape[1]}. All batches need the same features."
            )
        if x.dtype != self.first.x.dtype:
            raise TypeError(
                f"{name} is {x.dtype}, but the first batch was {self.first.x.dtype}. Convert all batches to one dtype."
            )
        return x

    def _targets(self, name: str, y: NDArray, weight: NDArray, dtype: Any) -> NDArray:
        counted = y[weight > 0]
        if self.num_classes is not None:
            if not jnp.issubdtype(y.dtype, jnp.integer) or y.min() < 0 or y.max() >= self.num_classes:
                check_class_labels(name, y, self.num_classes)
            self.classes.update(np.unique(counted).tolist())
            return y.astype(np.int32)
        if self.binary:
            # A single batch may have one class only: `check_classes` judges all of them together.
            check_targets_of_block(name, y)
            self.classes.update(np.unique(counted).tolist())
        else:
            check_real_targets(name, y)
        return cast(name, y, dtype)

    def _padded(self, batch: Batch) -> Batch:
        """Padded to the size of the first batch; a larger batch raises that size to the next power of two."""
        n = batch.real
        if n > self.size:
            self.size = n if self.size == 0 else 1 << (n - 1).bit_length()
        missing = self.size - n
        if not missing:
            return batch
        # Padding repeats a target that occurs: the loss may not be defined for others.
        y = np.concatenate([batch.y, np.full(missing, batch.y[0])])
        x = np.concatenate([batch.x, np.zeros((missing, batch.x.shape[1]), batch.x.dtype)])
        return Batch(x, y, np.concatenate([batch.weight, np.zeros(missing, batch.weight.dtype)]), n)
