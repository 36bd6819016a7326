"""The objective that a gradient is judged against, the points it is judged at, and the checks of the caller's data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jaxhinge import losses
from jaxhinge._base.values import check_number

Array = npt.NDArray[np.float64]
Family = Literal["binary", "weston_watkins", "crammer_singer"]

# The required margin, unless `functools.partial(loss_fn, margin=...)` asks for another.
_FAMILIES: dict[Callable[..., Any], tuple[Family, float]] = {
    losses.hinge_loss: ("binary", 1.0),
    losses.perceptron_loss: ("binary", 0.0),
    losses.weston_watkins_loss: ("weston_watkins", 1.0),
    losses.multiclass_hinge_loss: ("crammer_singer", 1.0),
    losses.multiclass_perceptron_loss: ("crammer_singer", 0.0),
}
# Options that choose among the valid gradients; they do not change the set of them.
_CHOICES = {"subgradient", "kink_tol", "ties"}
_LARGEST = 1e150


@dataclass(frozen=True)
class Objective:
    """Mean loss plus `l2/2 ||w||^2`; a row (or a wrong class of it) pushes where its margin is below `margin`."""

    family: Family
    margin: float
    l2: float


@dataclass(frozen=True)
class Point:
    """One set of arguments: `w` `(d,)` or `(d, k)`, `b` `()` or `(k,)`, `x` `(n, d)`, `y` `(n,)`."""

    w: Array
    b: Array
    x: Array
    y: npt.NDArray[Any]
    # The number that the function divides by: its rows, unless it counted them elsewhere.
    rows: int

    @property
    def num_classes(self) -> int:
        """The number of scores of a row, 1 for a binary model."""
        return self.w.shape[1] if self.w.ndim == 2 else 1

    @property
    def size(self) -> int:
        """The number of coordinates of the gradient."""
        return int(self.w.size + self.b.size)

    def arguments(self) -> tuple[Array, Array, Array, npt.NDArray[Any]]:
        """Copies, so that a function that writes into its arguments changes nothing here."""
        return self.w.copy(), self.b.copy(), self.x.copy(), self.y.copy()


def objective_of(loss_fn: Callable[..., Any], l2: Any) -> Objective:
    """The objective that `loss_fn` and `l2` stand for; refuses what the doctor has no valid set for."""
    l2 = check_number("l2", l2, meaning="one real number, at least 0", valid=lambda value: value >= 0.0)
    base, options = loss_fn, dict[str, Any]()
    while isinstance(base, functools.partial):
        options = {**base.keywords, **options}
        base = base.func
    if base not in _FAMILIES or set(options) - _CHOICES - {"margin"}:
        names = ", ".join(f"jaxhinge.losses.{function.__name__}" for function in _FAMILIES)
        raise ValueError(
            f"loss_fn must be one of {names}, or a functools.partial of one that sets margin; got {loss_fn!r}."
        )
    family, margin = _FAMILIES[base]
    margin = float(options.get("margin", margin))
    if not (np.isfinite(margin) and margin >= 0.0):
        raise ValueError(f"margin must be finite and at least 0; got {margin!r}.")
    return Objective(family, margin, l2)


def checked_point(params: Any, x: Any, y: Any, objective: Objective) -> Point:
    """The caller's own point in float64, or a ValueError or TypeError about the caller's data."""
    try:
        w, b = params
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"params must be LinearParams or a 2-tuple (w, b); got {type(params).__name__}. Where the bias is folded "
            "into x, use the adapter in the docstring of jaxhinge.diagnose."
        ) from error
    w, b, x = _real("w", w), _real("b", b), _real("x", x)
    _check_shapes(w, b, x, objective)
    labels = np.asarray(y)
    if labels.shape != (len(x),):
        mend = " Drop the last axis: y[:, 0]." if labels.shape == (len(x), 1) else ""
        raise ValueError(f"y has shape {labels.shape}, but the rows of x need shape {(len(x),)}.{mend}")
    return Point(w, b, x, _checked_labels(labels, w, objective), rows=len(x))


def _real(name: str, value: Any) -> Array:
    try:
        raw = np.array(value.detach().cpu() if hasattr(value, "detach") else value)
        if raw.dtype.kind in "cSUMm":
            raise TypeError(f"its dtype is {raw.dtype}")
        array = raw.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of real numbers; got {type(value).__name__}: {error}") from error
    bad = int(np.sum(~np.isfinite(array)))
    if bad:
        raise ValueError(f"{name} must be finite; {bad} of its {array.size} values are NaN or infinite.")
    if np.max(np.abs(array), initial=0.0) > _LARGEST:
        raise ValueError(f"{name} has numbers above {_LARGEST:g}, whose products overflow: scale them down.")
    return array


def _check_shapes(w: Array, b: Array, x: Array, objective: Objective) -> None:
    axes = 1 if objective.family == "binary" else 2
    wanted = "(d,)" if axes == 1 else "(d, k) with k of at least 2"
    if w.ndim != axes or (axes == 2 and w.shape[1] < 2) or w.size == 0:
        mend = " Several classes need a multiclass loss_fn." if axes == 1 and w.ndim == 2 and w.shape[1] > 1 else ""
        mend = " Drop the last axis: w[:, 0]." if axes == 1 and w.ndim == 2 and w.shape[1] == 1 else mend
        raise ValueError(f"w must have shape {wanted} for this loss_fn; got {w.shape}.{mend}")
    if b.shape != w.shape[1:]:
        mend = " Use a scalar: b[0]." if axes == 1 and b.shape == (1,) else ""
        raise ValueError(f"b has shape {b.shape}, but w of shape {w.shape} needs b of shape {w.shape[1:]}.{mend}")
    if x.ndim != 2 or x.shape[1] != w.shape[0] or len(x) == 0:
        mend = " x looks transposed: rows are examples." if x.ndim == 2 and x.shape[0] == w.shape[0] else ""
        raise ValueError(f"x has shape {x.shape}, but w of shape {w.shape} needs x of shape (n, {w.shape[0]}).{mend}")


def _checked_labels(labels: npt.NDArray[Any], w: Array, objective: Objective) -> npt.NDArray[Any]:
    if labels.dtype.kind not in "iuf":
        raise ValueError(f"y must hold numbers; got dtype {labels.dtype}. Booleans: np.where(y, 1, -1).")
    if not np.all(np.isfinite(labels)):
        raise ValueError("y must be finite; it holds NaN or infinity.")
    found = ", ".join(str(value) for value in np.unique(labels)[:5])
    if objective.family == "binary":
        if not np.all(np.isin(labels, (-1, 1))):
            mend = " From 0 and 1: 2 * y - 1." if np.all(np.isin(labels, (0, 1))) else ""
            raise ValueError(f"y must be -1 and +1; got {found}.{mend}")
        return labels.astype(np.float64)
    if not np.all(np.isin(labels, np.arange(w.shape[1]))):
        raise ValueError(f"y must be labels 0..{w.shape[1] - 1}, one for each column of w; got {found}.")
    return labels.astype(np.int64)
