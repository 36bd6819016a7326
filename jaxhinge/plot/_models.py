"""Pictures of one model and rows of data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import check_features, check_finite, check_rows, host_integer, host_real
from jaxhinge._objective.objective import decision_function
from jaxhinge.plot._style import COLOURS, GREY, MARKERS, axes_or_new, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def margin_histogram(params: Any, x: Any, y: Any, *, bins: int = 40, ax: Any = None) -> Axes:
    """How many rows have which margin `m = y * score`, by class, with the kink at 1 and the boundary at 0 marked.

    One bin is centred on the kink, where an exact solution puts its support vectors.

    Args:
      params: `(w, b)` of a binary model: `w` `(d,)`, `b` `()`.
      x: Features `(n, d)`.
      y: Targets -1 and +1, `(n,)`.
      bins: The number of bins between the smallest and the largest of the margins, 0 and 1; at least 1. One bin is
        centred on 1, so the outer ones may reach beyond.
      ax: A matplotlib `Axes`; None makes a new one.

    Returns:
      The `Axes`. The legend says how many rows are on the kink exactly, in the precision of the scores.

    Raises:
      TypeError: Something is not a real number or is traced, or `ax` is not an `Axes`.
      ValueError: Shapes do not fit, `y` is not -1 and +1, or a score is not finite.
      ImportError: There is no matplotlib.

    >>> import jaxhinge, jaxhinge.plot, numpy as np
    >>> params = jaxhinge.LinearParams(w=np.array([1.0]), b=np.array(0.0))
    >>> ax = jaxhinge.plot.margin_histogram(params, np.array([[2.0], [1.0], [0.5]]), np.array([1, 1, -1]))
    >>> [text.get_text() for text in ax.get_legend().texts]
    ['y = -1', 'y = +1', 'kink, m = 1 (1 row exactly)', 'boundary, m = 0']
    """
    x, y = _rows(x, y)
    scores = _scores(params, x)
    if scores.ndim != 1:
        raise ValueError(f"A margin needs one score per row, w of shape (d,); got scores of shape {scores.shape}.")
    _check_targets(y)
    margin = y * scores
    low, high = min(float(margin.min()), 0.0), max(float(margin.max()), 1.0)
    width = (high - low) / host_integer("bins", bins, at_least=1)
    below, above = np.ceil((1.0 - low) / width - 0.5), np.ceil((high - 1.0) / width - 0.5)
    edges = 1.0 + width * (np.arange(-below, above + 2) - 0.5)
    ax = axes_or_new(ax)
    parts, colours = [margin[y < 0], margin[y > 0]], list(COLOURS[:2])
    ax.hist(parts, bins=edges, stacked=True, color=colours, label=["y = -1", "y = +1"])
    exact = int(np.sum(margin == 1))
    ax.axvline(1.0, color=COLOURS[3], lw=1.8, label=f"kink, m = 1 ({exact} row{'s' * (exact != 1)} exactly)")
    ax.axvline(0.0, color=GREY, ls="--", lw=1.5, label="boundary, m = 0")
    ax.set(xlabel="margin  m = y (w · x + b)", ylabel="rows")
    ax.legend(fontsize=8)
    return plain(ax)


def decision_boundary(params: Any, x: Any, y: Any, *, resolution: int = 200, ax: Any = None) -> Axes:
    """What a model of two features predicts, around the given rows.

    The plane is coloured by the predicted class and the boundary is solid. For a binary model the lines
    where the score is -1 and +1, the kinks of the hinge, are dashed.

    Args:
      params: `(w, b)`: `w` `(2,)` and `b` `()`, or `w` `(2, k)` and `b` `(k,)`.
      x: Features `(n, 2)`.
      y: Targets -1 and +1, or labels `0..k-1`; `(n,)`.
      resolution: Points of the grid along each axis, at least 2.
      ax: A matplotlib `Axes`; None makes a new one.

    Returns:
      The `Axes`.

    Raises:
      TypeError: Something is not a real number or is traced, or `ax` is not an `Axes`.
      ValueError: Shapes do not fit, there are not two features, or targets are not what the model predicts.
      ImportError: There is no matplotlib.

    >>> import jaxhinge, jaxhinge.plot, numpy as np
    >>> params = jaxhinge.LinearParams(w=np.array([1.0, 1.0]), b=np.array(0.0))
    >>> ax = jaxhinge.plot.decision_boundary(params, np.array([[1.0, 0.5], [-1.0, 0.0]]), np.array([1, -1]))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('x[:, 0]', 'x[:, 1]')
    """
    x, y = _rows(x, y)
    if x.shape[1] != 2:
        raise ValueError(
            f"A decision boundary is drawn for two features; got x of shape {x.shape}. Choose x[:, [i, j]]."
        )
    scores = _scores(params, x)
    if scores.ndim == 1:
        _check_targets(y)
        names = {-1: "y = -1", 1: "y = +1"}
    else:
        _check_labels(y, scores.shape[1])
        names = {c: f"class {c}" for c in range(scores.shape[1])}
    sides = [_padded(column, host_integer("resolution", resolution, at_least=2)) for column in x.T]
    plane = np.stack(np.meshgrid(*sides), axis=-1)
    scores = _scores(params, plane.reshape(-1, 2)).reshape(*plane.shape[:2], -1)
    ax = axes_or_new(ax, width=4.8)
    _draw_regions(ax, sides, scores)
    for c, (value, name) in enumerate(names.items()):
        ax.plot(*x[y == value].T, MARKERS[c % 7], color=COLOURS[c % 7], mec="white", mew=0.5, ms=5, label=name)
    ax.set(xlabel="x[:, 0]", ylabel="x[:, 1]")
    ax.legend(fontsize=8)
    return plain(ax)


def _draw_regions(ax: Axes, sides: list[NDArray], scores: NDArray) -> None:
    """Colour where each class has the largest score; for a binary model, where the score is negative and positive."""
    if scores.shape[-1] == 1:
        leads = np.concatenate([-scores, scores], axis=-1)
        _draw_level(ax, sides, scores[..., 0], [-1.0, 1.0], "--")
    else:
        leads = np.empty_like(scores)
        for c in range(scores.shape[-1]):
            leads[..., c] = scores[..., c] - np.delete(scores, c, axis=-1).max(axis=-1)
    for c in range(leads.shape[-1]):
        lead = leads[..., c]
        if lead.max() > 0:
            ax.contourf(*sides, lead, levels=[0.0, np.inf], colors=[COLOURS[c % 7]], alpha=0.18)
        if c > 0:  # each boundary of the first class is also that of another class
            _draw_level(ax, sides, lead, [0.0], "-")


def _draw_level(ax: Axes, sides: list[NDArray], values: NDArray, levels: list[float], style: str) -> None:
    # matplotlib warns of levels outside the range of the values.
    met = [level for level in levels if values.min() < level < values.max()]
    if met:
        ax.contour(*sides, values, levels=met, colors=GREY, linestyles=style, linewidths=1.2)


def _padded(column: NDArray, points: int) -> NDArray:
    low, high = float(column.min()), float(column.max())
    pad = 0.08 * (high - low) or 1.0
    return np.linspace(low - pad, high + pad, points)


def _rows(x: Any, y: Any) -> tuple[NDArray, NDArray]:
    x, y = host_real("x", x), host_real("y", y)
    check_features("x", x)
    check_rows("y", y, len(x))
    return x, y


def _scores(params: Any, x: NDArray) -> NDArray:
    scores = np.asarray(decision_function(params, x)).astype(np.float64)
    check_finite("the scores of params on x", scores)
    return scores


def _check_targets(y: NDArray) -> None:
    if not np.isin(y, (-1, 1)).all():
        advice = " Labels 0 and 1 become targets with 2 * y - 1." if np.isin(y, (0, 1)).all() else ""
        raise ValueError(f"y must be -1 and +1 for a model of one score; got {np.unique(y)[:4].tolist()}.{advice}")


def _check_labels(y: NDArray, num_classes: int) -> None:
    if not np.isin(y, np.arange(num_classes)).all():
        raise ValueError(
            f"y must be labels 0..{num_classes - 1} for w of shape (2, {num_classes}); "
            f"got values from {y.min()} to {y.max()}."
        )
