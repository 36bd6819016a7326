"""The picture of a diagnosis; matplotlib is imported on use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jaxhinge._diagnose._facts import Comparison, Facts
from jaxhinge._diagnose._measured import Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_COORDINATES = 24


def plot_comparison(diagnosis: Facts, shown: Comparison, ax: Any = None) -> Figure:
    """Bars for the valid interval of each coordinate, a mark for what was returned."""
    pyplot = _pyplot()
    off = np.abs(shown.returned - shown.nearest)
    kept = np.sort(np.argsort(-off, kind="stable")[:_MOST_COORDINATES])
    if ax is None:
        ax = pyplot.subplots(figsize=(max(4.0, 0.5 * len(kept) + 2.0), 3.6), layout="constrained")[1]
    places = np.arange(len(kept))
    low, high = shown.low[kept], shown.high[kept]
    # An interval without length would be invisible: every bar gets caps.
    ax.errorbar(
        places,
        (low + high) / 2.0,
        yerr=(high - low) / 2.0,
        fmt="none",
        ecolor="tab:gray",
        elinewidth=7.0,
        capsize=7.0,
        capthick=2.0,
        label="valid",
    )
    slack = shown.tolerance[kept]
    outside = (shown.returned[kept] < low - slack) | (shown.returned[kept] > high + slack)
    whole = bool(np.all(off <= shown.tolerance))
    states = [
        (~outside & whole, "tab:green", "returned, valid"),
        (~outside & (not whole), "tab:orange", "returned, valid alone but not with the others"),
        (outside, "tab:red", "returned, not valid"),
    ]
    for chosen, color, label in states:
        if np.any(chosen):
            ax.plot(places[chosen], shown.returned[kept][chosen], "o", color=color, markersize=5, label=label)
    ax.set_xticks(places, [shown.names[index] for index in kept], rotation=45 if len(kept) > 6 else 0)
    ax.set_ylabel("gradient")
    ax.set_title(f"{diagnosis.cause if not diagnosis.ok else 'valid'}, at {shown.where}", fontsize=10)
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12 if len(kept) <= 6 else -0.25), ncols=2)
    return cast("Figure", ax.figure)


def plot_curve(diagnosis: Facts, curve: Curve, ax: Any = None) -> Figure:
    """The measured push of one row over its margin, beside that of the stated loss."""
    if ax is None:
        ax = _pyplot().subplots(figsize=(5.0, 3.6), layout="constrained")[1]
    ax.plot(curve.places, curve.right, color="tab:gray", linewidth=5.0, alpha=0.5, label="right")
    ax.plot(curve.places, curve.returned, color="tab:red", label="your function")
    if np.any(curve.other != curve.returned):
        ax.plot(curve.places, curve.other, color="tab:orange", linestyle="--", label="your function, label -1")
    ax.set_xlabel(curve.variable)
    ax.set_ylabel("push of one row")
    ax.set_title(f"{diagnosis.cause}: one row alone", fontsize=10)
    ax.legend(fontsize=8)
    return cast("Figure", ax.figure)


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("diagnosis.plot() needs matplotlib: pip install 'jaxhinge[plot]'.") from error
    return pyplot
