"""Pictures over a grid of `l2` or over epochs: sweeps, paths and runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import check_number, host_integer
from jaxhinge.plot._style import COLOURS, GREY, ascending, axes_or_new, plain, values_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_L2 = "l2 (strength of regularisation)"


def validation_curve(sweep: Any, *, ax: Any = None) -> Axes:
    r"""The held-out score over `l2`, with its one-standard-error band and the `l2` that was chosen.

    The line is the mean over the folds, the band `mean ± std / sqrt(folds)` (`std` with `folds - 1`). The
    dotted line is the best mean less its own standard error: the one-standard-error rule takes the
    largest `l2` whose mean reaches it.

    Args:
      sweep: What `jaxhinge.sweep` returns; of it `l2` `(num_l2,)`, `val_score` `(num_l2, folds)` and
        `best_l2`. A score of NaN leaves a gap in the line. With one fold there is no band.
      ax: A matplotlib `Axes`; None makes a new one.

    Returns:
      The `Axes`.

    Raises:
      TypeError: `sweep` lacks one of the three, or `ax` is not an `Axes`.
      ValueError: Shapes do not fit, or an `l2` is not positive.
      ImportError: There is no matplotlib.

    References:
      Breiman, Friedman, Olshen and Stone, Classification and regression trees, 1984, section 3.4.3.

    >>> import types, jaxhinge.plot
    >>> sweep = types.SimpleNamespace(l2=[0.01, 0.1], val_score=[[0.8, 0.9], [0.7, 0.8]], best_l2=0.01)
    >>> ax = jaxhinge.plot.validation_curve(sweep)
    >>> print(ax.lines[0].get_ydata().round(2))
    [0.85 0.75]
    """
    l2, score, best = (values_at(sweep, f"sweep.{name}", "jaxhinge.sweep") for name in ("l2", "val_score", "best_l2"))
    order = ascending("sweep.l2", l2)
    if score.ndim != 2 or score.shape[0] != len(l2) or score.shape[1] == 0:
        raise ValueError(f"sweep.val_score must have shape (num_l2, folds) = ({len(l2)}, folds); got {score.shape}.")
    check_number("sweep.best_l2", best, meaning="the chosen l2, above 0", valid=lambda value: value > 0)
    l2, score, folds = l2[order], score[order], score.shape[1]
    mean = score.mean(axis=1)
    ax = axes_or_new(ax)
    ax.plot(l2, mean, "o-", color=COLOURS[0], ms=4, label=f"mean over {folds} folds" if folds > 1 else "1 fold")
    if folds > 1:
        error = score.std(axis=1, ddof=1) / np.sqrt(folds)
        ax.fill_between(l2, mean - error, mean + error, color=COLOURS[0], alpha=0.2, lw=0, label="± 1 standard error")
        if not np.all(np.isnan(mean)):
            top = int(np.nanargmax(mean))
            ax.axhline(mean[top] - error[top], color=GREY, ls=":", lw=1.2, label="best mean - 1 standard error")
    ax.axvline(float(best), color=COLOURS[3], ls="--", lw=1.5, label=f"chosen, l2 = {float(best):.3g}")
    ax.set(xscale="log", xlabel=_L2, ylabel="score on held-out rows")
    ax.legend(fontsize=8)
    return plain(ax)


def regularization_path(
    path: Any, *, feature_names: Sequence[str] | None = None, most: int = 7, ax: Any = None
) -> Axes:
    """Every weight over `l2`, and the certified gap at every point.

    The weights that grow largest are coloured and named, the others grey. The gap is drawn in grey dots on an
    axis of its own, to the right, which is `ax.figure.axes[-1]`; it is logarithmic where all gaps are above 0.

    Args:
      path: What `jaxhinge.path` returns; of it `l2` `(k,)`, `params.w` `(k, d)` and `gap` `(k,)`.
      feature_names: `d` names; None calls them `w[0]`, `w[1]`, ...
      most: The largest number of weights that are named, 0 to 7 (there are seven colours).
      ax: A matplotlib `Axes`; None makes a new one.

    Returns:
      The `Axes` of the weights.

    Raises:
      TypeError: `path` lacks one of the three, or `ax` is not an `Axes`.
      ValueError: Shapes do not fit, an `l2` is not positive, or `most` is out of range.
      ImportError: There is no matplotlib.

    References:
      Hastie, Rosset, Tibshirani and Zhu, The entire regularization path for the support vector machine, 2004.

    >>> import types, jaxhinge, jaxhinge.plot
    >>> params = jaxhinge.LinearParams(w=[[0.5, 0.1], [0.2, 0.0]], b=[0.0, 0.0])
    >>> path = types.SimpleNamespace(l2=[0.1, 1.0], params=params, gap=[1e-6, 1e-7])
    >>> ax = jaxhinge.plot.regularization_path(path)
    >>> [text.get_text() for text in ax.get_legend().texts]
    ['w[0]', 'w[1]']
    """
    l2, w, gap = (values_at(path, f"path.{name}", "jaxhinge.path") for name in ("l2", "params.w", "gap"))
    order = ascending("path.l2", l2)
    if w.ndim != 2 or w.shape[0] != len(l2):
        advice = " Draw one class at a time: its column of w." if w.ndim == 3 else ""
        raise ValueError(f"path.params.w must have shape (k, d) = ({len(l2)}, d); got {w.shape}.{advice}")
    if gap.shape != l2.shape:
        raise ValueError(f"path.gap must have the shape of path.l2, {l2.shape}; got {gap.shape}.")
    names = [f"w[{j}]" for j in range(w.shape[1])] if feature_names is None else [str(name) for name in feature_names]
    if len(names) != w.shape[1]:
        raise ValueError(f"feature_names must name the {w.shape[1]} features; got {len(names)} names.")
    if host_integer("most", most, at_least=0) > len(COLOURS):
        raise ValueError(f"most must be at most {len(COLOURS)}, the number of colours; got {most}.")
    l2, w, gap = l2[order], w[order], gap[order]
    named = np.argsort(-np.abs(w).max(axis=0), kind="stable")[:most]
    ax = axes_or_new(ax, width=7.6)
    for j in np.setdiff1d(np.arange(len(names)), named):
        ax.plot(l2, w[:, j], color=GREY, lw=0.7, alpha=0.5, label=f"_{names[j]}")
    for j, colour in zip(named, COLOURS, strict=False):
        ax.plot(l2, w[:, j], color=colour, lw=1.8, label=names[j])
    ax.axhline(0.0, color=GREY, lw=0.6, label="_zero", zorder=0)
    ax.set(xscale="log", xlabel=_L2, ylabel="weight")
    if len(named):
        # Inside the axes the legend would hide dots of the gap.
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.18, 1.0), frameon=False)
    return _draw_gap(ax, l2, gap)


def training_history(result: Any, *, label: str | None = None, ax: Any = None) -> Axes:
    """The objective on all rows after every epoch.

    Args:
      result: What `jaxhinge.fit` returns; of it `history.loss` `(epochs,)` and `stopped_early`. A run that
        `tol` ended has a square at its end.
      label: The name of the run, where several share one `Axes`; None makes no legend.
      ax: A matplotlib `Axes`; None makes a new one.

    Returns:
      The `Axes`. Its scale is logarithmic where every objective is above 0.

    Raises:
      TypeError: `result` lacks one of the two, or `ax` is not an `Axes`.
      ValueError: `history.loss` is not one number for each epoch.
      ImportError: There is no matplotlib.

    >>> import jaxhinge, jaxhinge.plot, numpy as np
    >>> result = jaxhinge.fit(np.array([[2.0], [1.0], [-1.0]]), np.array([1, 1, -1]), l2=0.1, epochs=5)
    >>> ax = jaxhinge.plot.training_history(result)
    >>> print(ax.lines[0].get_xdata())
    [1 2 3 4 5]
    """
    loss = values_at(result, "result.history.loss", "jaxhinge.fit")
    stopped = bool(values_at(result, "result.stopped_early", "jaxhinge.fit"))
    if loss.ndim != 1 or not len(loss):
        raise ValueError(f"result.history.loss must have shape (epochs,); got {loss.shape}.")
    ax = axes_or_new(ax)
    colour = COLOURS[len(ax.lines) % len(COLOURS)]
    # A line through one epoch is invisible without a marker.
    marker = "s" if stopped else "o" if len(loss) == 1 else ""
    epochs = np.arange(1, len(loss) + 1)
    ax.plot(epochs, loss, color=colour, lw=1.8, marker=marker, markevery=[len(loss) - 1], label=label)
    ax.set(xlabel="epoch", ylabel="objective: mean loss + l2/2 ‖w‖²")
    if all(np.all(np.asarray(line.get_ydata()) > 0) for line in ax.lines):
        ax.set_yscale("log")
    if label is not None:
        ax.legend(fontsize=8)
    return plain(ax)


def _draw_gap(ax: Axes, l2: NDArray, gap: NDArray) -> Axes:
    right = ax.twinx()
    right.plot(l2, gap, "o:", color=GREY, ms=2.5, lw=0.6, alpha=0.7)
    if np.all(gap > 0):
        right.set_yscale("log")
    right.set_ylabel("certified duality gap (dots)", color=GREY)
    right.tick_params(axis="y", colors=GREY)
    # The weights and their legend stay in front of the dots.
    ax.set_zorder(right.get_zorder() + 1)
    ax.patch.set_visible(False)
    for side in (ax, right):
        side.spines["top"].set_visible(False)
    return ax
