"""Rows with class labels in a file, in blocks, or on a mesh: never gathered, never read whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.options import host_l2
from jaxhinge._base.values import check_class_labels, check_rows, check_sample_weight, host_array, host_real
from jaxhinge._methods.multiclass.stages import LARGEST_SYSTEM, Config
from jaxhinge._methods.multiclass.streamed import StreamedClasses, solve_stream
from jaxhinge._methods.problem import Answer
from jaxhinge._methods.streamed.stages import Limits, Source, first_read
from jaxhinge._objective.objective import LinearParams
from jaxhinge._solve.binary import Solution, SolverOptions, checked_init, solve
from jaxhinge._solve.given import host_limits
from jaxhinge._solve.one_vs_rest import combined


def solve_classes_of_stream(
    config: Config, x: Any, labels: Any, l2: Any, sample_weight: Any, num_classes: int | None, options: SolverOptions
) -> Answer:
    """The answer for a memory-mapped `x`, or for blocks where `labels` is None."""
    if config.method != "auto":
        raise ValueError(f'method={config.method!r} needs all rows in memory. For streamed rows, leave it at "auto".')
    l2, limits = host_l2(l2), Limits(*host_limits(options.tol, options.max_steps), options.on_interrupt)
    if labels is not None:
        labels = host_array("labels", labels)
        check_rows("labels", labels, x.shape[0])
        check_class_labels("labels", labels, num_classes)
    with first_read(Source(x, labels, sample_weight), True, options.progress, limits.tol) as (streamed, bar):
        whole = (streamed.y == np.floor(streamed.y)).all()
        as_integers = streamed.y.astype(np.int64) if whole else streamed.y
        k = check_class_labels("labels", as_integers, num_classes, streamed.weight)
        dtype = streamed.caller_dtype(options.as_numpy)
        task = StreamedClasses(replace(config, num_classes=k, dtype=dtype), streamed, l2)
        order = (k - 1) * len(task.frame.penalty)
        if order > LARGEST_SYSTEM:
            raise ValueError(
                f"{k} classes of {len(task.centre)} features make a system of order {order}, above {LARGEST_SYSTEM}: "
                'too large for streamed rows. Take loss="one_vs_rest", or numpy.asarray(x) where it fits in memory.'
            )
        return solve_stream(task, _start_of(options.init, task), limits, dtype, bar)


def _start_of(init: Solution | None, task: StreamedClasses) -> Any:
    """The parameters of an earlier solution, `(k, p)` in centred features; its dual is not needed."""
    if init is None:
        return None
    checked_init(init, (task.streamed.num_rows, len(task.centre)), len(task.present))
    w, b = (np.asarray(leaf, np.float64) for leaf in init.params)
    bias = [] if task.config.intercept == "none" else [b + task.centre @ w]
    z = np.column_stack([w.T, *bias])
    return z if np.isfinite(z).all() else None


def one_vs_rest_elsewhere(
    x: Any, labels: Any, num_classes: int | None, sample_weight: Any, options: SolverOptions, **problem: Any
) -> Solution:
    """One-vs-rest on rows in a file, in blocks, or on a mesh: the binary solver, class by class."""
    if options.on_interrupt == "return":
        raise ValueError(
            'on_interrupt="return" is for rows in memory where loss="one_vs_rest": elsewhere classes are solved one '
            "after the other. Leave it out."
        )
    k = _num_classes(x, labels, num_classes, sample_weight)
    init, found = options.init, []
    for number in range(k):
        before = None
        if init is not None:
            params = LinearParams(init.params.w[:, number], init.params.b[number])
            before = Solution(params, init.dual[:, number], *init[2:])
        rows = (x, _against_the_rest(labels, number)) if labels is not None else (_relabelled(x, number), None)
        found.append(
            solve(*rows, sample_weight=sample_weight, init=before, as_numpy=options.as_numpy, tol=options.tol,
                  max_steps=options.max_steps, progress=options.progress, **problem)
        )  # fmt: skip
    xp: Any = np if options.as_numpy else jnp
    stacked = jax.tree.map(lambda *leaves: xp.stack(leaves), *found)
    return combined(stacked, np.zeros(k, bool), options.tol, xp)


def _num_classes(x: Any, labels: Any, num_classes: int | None, sample_weight: Any) -> int:
    """How many classes there are; each must have rows."""
    if isinstance(labels, jax.Array) and not labels.is_fully_addressable:
        # Several hosts: no one of them has all labels.
        return num_classes or int(jnp.max(labels)) + 1
    weight = None
    if labels is None:
        counts = np.concatenate([host_array("labels", block[1]) for block in (x() if callable(x) else x)])
    else:
        counts = host_array("labels", labels)
        check_rows("labels", counts, x.shape[0])
        if sample_weight is not None and not isinstance(sample_weight, jax.Array):
            weight = host_real("sample_weight", sample_weight)
            check_sample_weight("sample_weight", weight, x.shape[0])
    k = check_class_labels("labels", counts, num_classes, weight)
    missing = np.setdiff1d(np.arange(k), counts if weight is None else counts[weight > 0])
    if len(missing):
        raise ValueError(
            f"Class {missing[0]} of {k} has no rows with a weight above 0, which streamed and sharded rows need for "
            'loss="one_vs_rest". Number the classes that are there: numpy.unique(labels, return_inverse=True).'
        )
    return k


def _against_the_rest(labels: Any, number: int) -> Any:
    """Targets +1 for a class and -1 for the others, where the labels lie."""
    xp: Any = jnp if isinstance(labels, jax.Array) else np
    return xp.where((labels if xp is jnp else np.asarray(labels)) == number, 1, -1)


def _relabelled(blocks: Any, number: int) -> Any:
    """Blocks with such targets, made anew for each pass."""

    def begin() -> Iterator[Any]:
        for x, labels, *weight in blocks() if callable(blocks) else blocks:
            yield (x, _against_the_rest(labels, number), *weight)

    return begin
