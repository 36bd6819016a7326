"""The points that a gradient is judged at, and the checks of the caller's data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxhinge._base.arrays import refuse_masked, refuse_sparse
from jaxhinge._diagnose._objective import Array, Objective, objective_of
from jaxhinge._diagnose._signatures import no_suggestion

__all__ = ["Array", "Objective", "Point", "checked_labels", "checked_point", "objective_of"]

# Larger numbers are refused: their products overflow.
_LARGEST = 1e150


@dataclass(frozen=True)
class Point:
    """One set of arguments.

    Attributes:
      w: `(d,)` or `(d, k)`.
      b: `()` or `(k,)`; zeros for a model without a bias.
      x: `(n, d)`.
      y: `(n,)`: -1 and +1, labels `0..k-1`, or real targets.
      rows: What a mean divides by: the number of rows or the sum of their weights, unless the function counted
        elsewhere.
      weight: `(n,)`, the weights of the rows; None where all are 1.
    """

    w: Array
    b: Array
    x: Array
    y: npt.NDArray[Any]
    rows: float
    weight: Array | None = None
    # What the rows contribute, for the recipes that were tried here.
    tried: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def num_classes(self) -> int:
        """The number of scores of a row, 1 for a binary model."""
        return self.w.shape[1] if self.w.ndim == 2 else 1

    @property
    def size(self) -> int:
        """The number of coordinates of the gradient."""
        return int(self.w.size + self.b.size)

    @property
    def weights(self) -> Array:
        """`(n,)`, the weights of the rows."""
        return np.ones(len(self.x)) if self.weight is None else self.weight

    @cached_property
    def largest_weight(self) -> float:
        """The largest magnitude among the weights."""
        return float(np.max(np.abs(self.w)))

    @cached_property
    def products(self) -> tuple[Array, Array, Array]:
        """`x @ w`; the sum of the magnitudes of its terms and of the bias; `(n, 1)`, the number of terms."""
        terms = np.count_nonzero(self.x, axis=1)[:, None]
        return self.x @ self.w, np.abs(self.x) @ np.abs(self.w) + np.abs(self.b), terms


def checked_point(
    params: Any,
    x: Any,
    y: Any,
    objective: Objective,
    *,
    sample_weight: Any = None,
    labels: Any = None,
    suggest: Callable[..., str] = no_suggestion,
) -> Point:
    """The caller's own point in float64, or a ValueError or TypeError about the caller's data.

    `suggest` gives the line that adapts the caller's function, for messages.
    """
    w, b = _checked_params(params, objective, suggest)
    x = _real("x", x)
    _check_shapes(w, b, x, objective, suggest)
    refuse_masked("y", y)
    given = np.asarray(y)
    if given.shape != (len(x),):
        column = given.shape == (len(x), 1)
        mend = " Drop the last axis: y[:, 0]." if column else ""
        mend += suggest(column_labels=True) if column else ""
        if objective.multiclass and given.shape == (len(x), w.shape[1]):
            mend = " One-hot targets: y.argmax(axis=1). If your function wants them so, encode y in it."
        raise ValueError(f"y has shape {given.shape}, but the rows of x need shape {(len(x),)}.{mend}")
    weight = None if sample_weight is None else _checked_weight(sample_weight, len(x))
    rows = float(len(x)) if weight is None else float(np.sum(weight))
    return Point(w, b, x, _checked_targets(given, w, objective, labels), rows, weight)


def _checked_params(params: Any, objective: Objective, suggest: Callable[..., str]) -> tuple[Array, Array]:
    if objective.intercept == "none":
        return _without_bias(params)
    if isinstance(params, dict):
        raise TypeError(f"params must be a 2-tuple (w, b); got a dict of {', '.join(map(str, params))}.{suggest()}")
    try:
        w, b = params
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"params must be LinearParams or a 2-tuple (w, b); got {type(params).__name__}. Where the bias is folded "
            "into x, use the adapter in the docstring of jaxhinge.diagnose; for a model without a bias, say "
            f"fit_intercept=False.{suggest()}"
        ) from error
    return _real("w", w), _real("b", b)


def _without_bias(params: Any) -> tuple[Array, Array]:
    """`w` and zeros; a tuple may hold a second entry, but that must be 0."""
    if isinstance(params, tuple):
        if len(params) not in (1, 2):
            raise TypeError(f"With fit_intercept=False params is w or (w,); got a tuple of {len(params)}.")
        if len(params) == 2 and params[1] is not None and np.any(_real("b", params[1])):
            raise ValueError(
                f"With fit_intercept=False there is no bias, but params has b = {params[1]}. Pass params=w, or leave "
                "fit_intercept as it is."
            )
        params = params[0]
    w = _real("w", params)
    return w, np.zeros(w.shape[1:])


def _real(name: str, value: Any) -> Array:
    refuse_masked(name, value)
    refuse_sparse(name, value)
    try:
        raw = np.array(value.detach().cpu() if hasattr(value, "detach") else value)
        if raw.dtype.kind in "cSUMm":
            raise TypeError(f"its dtype is {raw.dtype}")
        array = raw.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} must be an array of real numbers; got {type(value).__name__}: {error}") from error
    bad = int(np.sum(~np.isfinite(array)))
    if bad:
        raise ValueError(f"{name} must be finite; {bad} of its {array.size} values are NaN or infinite.")
    if np.max(np.abs(array), initial=0.0) > _LARGEST:
        raise ValueError(f"{name} has numbers above {_LARGEST:g}, whose products overflow: scale them down.")
    return array


def _check_shapes(w: Array, b: Array, x: Array, objective: Objective, suggest: Callable[..., str]) -> None:
    axes = 2 if objective.multiclass else 1
    wanted = "(d,)" if axes == 1 else "(d, k) with k of at least 2"
    if w.ndim != axes or (axes == 2 and w.shape[1] < 2) or w.size == 0:
        mend = ""
        if axes == 1 and w.ndim == 2 and w.shape[1] > 1:
            mend = (
                " Several classes need a multiclass loss_fn: jaxhinge.losses.weston_watkins_loss, the sum over the "
                "wrong classes (as in CS231n), or multiclass_hinge_loss, the largest of them."
            )
        mend = " Drop the last axis: w[:, 0]." if axes == 1 and w.ndim == 2 and w.shape[1] == 1 else mend
        raise ValueError(f"w must have shape {wanted} for this loss_fn; got {w.shape}.{mend}")
    if len(x) == 0 or w.size == 0:
        raise ValueError(f"There must be a row and a feature; x has shape {x.shape} and w has shape {w.shape}.")
    classes_first = axes == 2 and x.ndim == 2 and x.shape[1] == w.shape[1] != w.shape[0]
    if classes_first:
        mend = " w looks like (k, d): pass w.T as params." + suggest(classes_first=True)
        raise ValueError(f"x has shape {x.shape}, but w of shape {w.shape} needs x of shape (n, {w.shape[0]}).{mend}")
    if b.shape != w.shape[1:]:
        mend = " Use a scalar: b[0]." if axes == 1 and b.shape == (1,) else ""
        raise ValueError(f"b has shape {b.shape}, but w of shape {w.shape} needs b of shape {w.shape[1:]}.{mend}")
    if x.ndim != 2 or x.shape[1] != w.shape[0]:
        mend = " x looks transposed: rows are examples." if x.ndim == 2 and x.shape[0] == w.shape[0] else ""
        if x.ndim == 2 and x.shape[1] + 1 == w.shape[0]:
            mend = " Is the bias the last entry of w? Pass params=(w[:-1], w[-1])." + suggest(bias="last")
        raise ValueError(f"x has shape {x.shape}, but w of shape {w.shape} needs x of shape (n, {w.shape[0]}).{mend}")


def checked_labels(labels: Any, objective: Objective, num_classes: int) -> npt.NDArray[Any] | None:
    """What the caller calls the two labels, or the `k` classes, in order; None where they are as usual."""
    if labels is None:
        return None
    if objective.family == "regression":
        raise ValueError("labels= is for classes; the targets of a regression are numbers.")
    names = np.asarray(labels)
    wanted = num_classes if objective.multiclass else 2
    if names.shape != (wanted,) or len(np.unique(names)) != wanted:
        what = f"{wanted} different labels, class by class" if objective.multiclass else "(negative, positive)"
        raise ValueError(f"labels must be {what}, such as (0, 1); got {labels!r}.")
    return names


def _checked_targets(given: npt.NDArray[Any], w: Array, objective: Objective, labels: Any) -> npt.NDArray[Any]:
    names = checked_labels(labels, objective, w.shape[-1])
    if names is not None:
        known = given[:, None] == names
        if not np.all(np.any(known, axis=1)):
            found = ", ".join(str(value) for value in np.unique(given)[:5])
            raise ValueError(f"y must hold the stated labels {tuple(names.tolist())}; got {found}.")
        index = np.argmax(known, axis=1)
        return index.astype(np.int64) if objective.multiclass else np.asarray(2.0 * index - 1.0)
    if objective.family == "regression":
        return _real("y", given)
    return _usual_labels(given, w, objective)


def _usual_labels(labels: npt.NDArray[Any], w: Array, objective: Objective) -> npt.NDArray[Any]:
    if labels.dtype.kind not in "iuf":
        raise ValueError(f"y must hold numbers; got dtype {labels.dtype}. Booleans: np.where(y, 1, -1).")
    if not np.all(np.isfinite(labels)):
        raise ValueError("y must be finite; it holds NaN or infinity.")
    found = ", ".join(str(value) for value in np.unique(labels)[:5])
    if not objective.multiclass:
        if not np.all(np.isin(labels, (-1, 1))):
            mend = ""
            if np.all(np.isin(labels, (0, 1))):
                mend = " From 0 and 1: 2 * y - 1. If your function takes 0 and 1, say labels=(0, 1)."
            raise ValueError(f"y must be -1 and +1; got {found}.{mend}")
        return labels.astype(np.float64)
    if not np.all(np.isin(labels, np.arange(w.shape[1]))):
        mend = f" If your function takes 1..{w.shape[1]}, say labels=range(1, {w.shape[1] + 1})."
        mend = mend if np.all(np.isin(labels, np.arange(1, w.shape[1] + 1))) else ""
        raise ValueError(f"y must be labels 0..{w.shape[1] - 1}, one for each column of w; got {found}.{mend}")
    return labels.astype(np.int64)


def _checked_weight(sample_weight: Any, rows: int) -> Array:
    weight = _real("sample_weight", sample_weight)
    if weight.shape != (rows,):
        raise ValueError(f"sample_weight has shape {weight.shape}, but the {rows} rows of x need shape ({rows},).")
    if np.any(weight < 0.0) or not np.sum(weight) > 0.0:
        raise ValueError("sample_weight must be at least 0, and above 0 for some row.")
    return weight
