"""From what users type to rows with class labels: checked on the host, or as far as a trace allows."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import label_array
from jaxhinge._base.options import host_l2
from jaxhinge._base.values import check_class_labels, check_rows, host_array, host_integer
from jaxhinge._solve.given import host_rows, traced_rows


class Classified(NamedTuple):
    """Rows before they are weighed; `valid` is whether the checks that need values passed."""

    x: Any
    labels: Any
    weight: Any
    l2: Any
    num_classes: int
    valid: Any


def classified(
    x: Any, labels: Any, l2: Any, sample_weight: Any, num_classes: int | None, *, traced: bool
) -> Classified:
    """Checked rows. On the host bad labels are errors; under a trace they make the problem invalid."""
    if num_classes is not None:
        host_integer("num_classes", num_classes, at_least=2)
    if not traced:
        x, weight = host_rows(x, sample_weight)
        labels = host_array("labels", labels)
        check_rows("labels", labels, x.shape[0])
        k = check_class_labels("labels", labels, num_classes, weight)
        return Classified(x, labels.astype(np.int32), weight, host_l2(l2), k, True)
    features, weights = traced_rows(x, sample_weight)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(labels)):
        labels = host_array("labels", labels)
        check_rows("labels", labels, features.shape[0])
        num_classes = check_class_labels("labels", labels, num_classes)
    return _with_traced_labels(features, labels, weights, l2, num_classes)


def _with_traced_labels(x: Any, labels: Any, weight: jax.Array, l2: Any, num_classes: int | None) -> Classified:
    if num_classes is None:
        raise ValueError(
            "labels are traced, so that their largest value is not known: give the number of classes, num_classes=."
        )
    labels = label_array("labels", labels)
    n = x.shape[0]
    if labels.shape != (n,):
        advice = " Drop the last axis: labels[:, 0]." if labels.shape == (n, 1) else ""
        raise ValueError(f"labels have shape {labels.shape}, but x has {n} rows: expected ({n},).{advice}")
    counted = weight > 0
    known = jnp.all((labels >= 0) & (labels < num_classes))
    highest, lowest = jnp.where(counted, labels, 0).max(), jnp.where(counted, labels, num_classes).min()
    return Classified(x, labels.astype(jnp.int32), weight, l2, num_classes, known & (highest > lowest))
