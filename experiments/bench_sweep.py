"""Whole grids: jaxhinge.sweep against GridSearchCV(LinearSVC(loss="hinge")) on the same folds, side by side.

Both minimise LIBLINEAR's own objective (the bias in the norm) for every C and fold of standardised rows, in this
process and with two jobs for scikit-learn. jaxhinge solves every problem to a certified relative gap of 1e-4, refits
the best and is timed cold (its compilation counted) and warm; GridSearchCV runs once, with LinearSVC's defaults, and
the share of its fits that ended in a ConvergenceWarning is counted. The scores are mean accuracies on held-out rows.

    python experiments/bench_sweep.py                      # all sets, some minutes
    python experiments/bench_sweep.py --sets "breast cancer"
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import jaxhinge as jh

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NDArray = np.ndarray[Any, Any]
FOLDS, JOBS, TOLERANCE = 5, 2, 1e-4
OURS, PEER = "#0072B2", "#E69F00"  # told apart by all common kinds of colour vision


class Row(NamedTuple):
    name: str
    costs: NDArray
    cold: float
    warm: float
    peer: float
    unconverged: float
    worst_gap: float
    scores: NDArray
    peer_scores: NDArray


def synthetic(n: int, d: int, informative: int, redundant: int) -> tuple[NDArray, NDArray]:
    x, y = make_classification(n, d, n_informative=informative, n_redundant=redundant, flip_y=0.05, random_state=0)
    return x, np.where(y > 0, 1, -1)


def breast_cancer() -> tuple[NDArray, NDArray]:
    x, y = load_breast_cancer(return_X_y=True)
    return x, np.where(y > 0, 1, -1)


# Name: rows, and the grid of C.
SETS: dict[str, tuple[Callable[[], tuple[NDArray, NDArray]], NDArray]] = {
    "10,000 x 64": (lambda: synthetic(10_000, 64, 20, 10), np.logspace(-3, 3, 20)),
    "breast cancer": (breast_cancer, np.logspace(-3, 3, 20)),
    "20,000 x 23": (lambda: synthetic(20_000, 23, 10, 5), np.logspace(-3, 3, 20)),
    "digits, 10 classes": (lambda: load_digits(return_X_y=True), np.logspace(-3, 1.5, 10)),
}


def compare(name: str, repeats: int) -> Row:
    make, costs = SETS[name]
    x, y = make()
    x = StandardScaler().fit_transform(x)
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, y))
    l2 = 1 / (costs * len(x) * (FOLDS - 1) / FOLDS)

    def ours() -> jh.Sweep:
        return jh.sweep(x, y, l2=l2, folds=folds, fit_intercept="regularized", tol=TOLERANCE, as_numpy=True)

    times = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        result = ours()
        times.append(time.perf_counter() - began)
    search = GridSearchCV(LinearSVC(loss="hinge", random_state=0), {"C": costs}, cv=folds, n_jobs=JOBS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        began = time.perf_counter()
        search.fit(x, y)
        peer = time.perf_counter() - began
    assert (result.status == jh.Status.CONVERGED).all()
    return Row(
        name=name,
        costs=costs,
        cold=times[0],
        warm=float(np.median(times[1:])),
        peer=peer,
        unconverged=unconverged(x, y, costs, folds),
        worst_gap=worst_relative_gap(x, y, l2, folds, result),
        scores=result.val_score.mean(axis=1),
        peer_scores=search.cv_results_["mean_test_score"],
    )


def unconverged(x: NDArray, y: NDArray, costs: NDArray, folds: list[Any]) -> float:
    """The share of strengths whose first fit warns, counted on one fold so as not to run the whole grid again."""
    warned = []
    for cost in costs:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            cross_validate(LinearSVC(loss="hinge", C=cost, random_state=0), x, y, cv=folds[:1])
        warned.append(any(issubclass(w.category, ConvergenceWarning) for w in caught))
    return float(np.mean(warned))


def worst_relative_gap(x: NDArray, y: NDArray, l2: NDArray, folds: list[Any], result: jh.Sweep) -> float:
    """The largest reported gap over the objective, the latter evaluated here, in NumPy, from the parameters."""
    classes = np.unique(y)
    sign = np.where(y == 1, 1, -1)[:, None] if len(classes) == 2 else np.where(y[:, None] == classes, 1, -1)
    worst = 0.0
    for row, strength in enumerate(l2):
        for fold, (train, _) in enumerate(folds):
            w, b = (leaf[row, fold].reshape(-1, sign.shape[1]) for leaf in result.params)
            hinges = np.maximum(0, 1 - sign[train] * (x[train] @ w + b)).mean(axis=0).sum()
            value = hinges + strength / 2 * ((w**2).sum() + (b**2).sum())
            worst = max(worst, result.gap[row, fold] / value)
    return worst


def draw(rows: list[Row], path: Path) -> None:
    figure, panels = plt.subplots(1, len(rows), figsize=(4 * len(rows), 3.4), squeeze=False)
    for axes, row in zip(panels[0], rows, strict=True):
        axes.semilogx(row.costs, row.scores, "o-", color=OURS, label=f"jaxhinge.sweep, {row.warm:.2g} s")
        axes.semilogx(row.costs, row.peer_scores, "s--", color=PEER, label=f"GridSearchCV, {row.peer:.3g} s")
        axes.set(title=row.name, xlabel="C", ylabel="mean accuracy on held-out rows")
        axes.legend(loc="lower center")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--repeats", type=int, default=5, help="warm runs of which the median is taken")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="picture")
    options = parser.parse_args()
    head = "rows | problems | GridSearchCV | warned | sweep cold | sweep warm | cold | warm | best score | peer's | gap"
    print(f"| {head} |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for name in options.sets:
        row = compare(name, options.repeats)
        rows.append(row)
        print(
            f"| {row.name} | {len(row.costs) * FOLDS} | {row.peer:.2f} s | {row.unconverged:.0%} | {row.cold:.2f} s | "
            f"{row.warm:.2f} s | {row.peer / row.cold:.1f}x | {row.peer / row.warm:.1f}x | {row.scores.max():.4f} | "
            f"{row.peer_scores.max():.4f} | {row.worst_gap:.0e} |",
            flush=True,
        )
    draw(rows, options.out)


if __name__ == "__main__":
    main()
