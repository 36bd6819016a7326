"""Axes, colours and checks that all pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import host_real

if TYPE_CHECKING:
    from matplotlib.axes import Axes


COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
MARKERS = "os^DvPX"
GREY = "#555555"


def axes_or_new(ax: Any, *, width: float = 5.6) -> Axes:
    """The `ax` of the caller, or one of a new figure."""
    try:
        from matplotlib import axes, pyplot
    except ImportError as error:
        raise ImportError("jaxhinge.plot needs matplotlib: pip install 'jaxhinge[plot]'.") from error
    if ax is None:
        new: Axes = pyplot.subplots(figsize=(width, 3.8), layout="constrained")[1]
        return new
    if not isinstance(ax, axes.Axes):
        advice = " Choose one: ax[0]." if isinstance(ax, np.ndarray) else " Use matplotlib.pyplot.subplots()[1]."
        raise TypeError(f"ax must be a matplotlib Axes, or None for a new one; got {type(ax).__name__}.{advice}")
    return ax


def plain(ax: Axes) -> Axes:
    """Hide the frame above and to the right."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def values_at(result: Any, name: str, source: str) -> NDArray:
    """The numbers at `name`, such as "path.params.w", of what `source` returned; float64."""
    value = result
    for part in name.split(".")[1:]:
        if not hasattr(value, part):
            raise TypeError(
                f"{name} is needed, but {type(value).__name__} has no {part!r}: pass what {source} returns."
            )
        value = getattr(value, part)
    return host_real(name, value).astype(np.float64)


def ascending(name: str, l2: NDArray) -> NDArray:
    """The indices that sort a grid of `l2`, which must be positive: its axis is logarithmic."""
    if l2.ndim != 1 or not len(l2):
        raise ValueError(f"{name} must have shape (k,), k at least 1; got {l2.shape}.")
    if not (np.isfinite(l2) & (l2 > 0)).all():
        raise ValueError(f"{name} must be finite and above 0, for its axis is logarithmic; the smallest is {l2.min()}.")
    return np.argsort(l2, kind="stable")
