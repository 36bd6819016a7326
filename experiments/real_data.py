"""Twenty real problems, raw and scaled: the gap that `HingeClassifier` proves, its time and score beside its peers.

The data are scikit-learn's own: breast cancer, iris, wine, digits, diabetes, and two photographs; a colon tells what
was taken of one. Raw features are as they come, scaled ones have mean 0 and variance 1. All have C = 1 and else their
defaults: `LinearSVC(loss="hinge")` with its 1,000 iterations, and `SVC(kernel="linear")`, held to 100,000, which of
several classes takes pairs. Scores are the accuracy in five stratified folds; times are of the processor, for a fit on
all rows, the smallest of three. A peer's excess: by how much its objective is above the proven bound, relative to it.
LinearSVC regularises its intercept, and is held against the bound of that problem; SVC has the same objective where
there are two classes.

    python experiments/real_data.py                  # some minutes
    python experiments/real_data.py --only iris      # the problems whose names begin so
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from _real_data import NDArray, real_data
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from jaxhinge.sklearn import HingeClassifier

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS, LIBLINEAR, LIBSVM = "#0072B2", "#E69F00", "#009E73"  # told apart by all common kinds of colour vision
FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)
REPEATS = 3
# LIBSVM, whose own limit is none, takes minutes on raw features.
SVC_STEPS = 100_000


class Found(NamedTuple):
    """A model, the seconds of its fit, whether it warned that it did not converge, and its score in folds."""

    model: Any
    seconds: float
    warned: bool
    score: float


class Row(NamedTuple):
    """One problem, by all three."""

    name: str
    scaled: bool
    gap: float
    excess: tuple[float, float]
    ours: Found
    liblinear: Found
    libsvm: Found


def tried(model: Any, x: NDArray, y: NDArray) -> Found:
    times = []
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ConvergenceWarning)
        for _ in range(REPEATS):
            began = time.process_time()
            model.fit(x, y)
            times.append(time.process_time() - began)
        warned = bool(seen)
        score = float(np.mean(cross_val_score(model, x, y, cv=FOLDS)))
    return Found(model, min(times), warned, score)


def objective(model: Any, x: NDArray, y: NDArray, *, regularized: bool) -> float:
    """The sum over the problems, each class against the rest, in the units of `jaxhinge.loss`, for C = 1."""
    coef, intercept, n = model.coef_, np.ravel(model.intercept_), len(x)
    classes = model.classes_ if len(coef) > 1 else model.classes_[1:]
    total = 0.0
    for w, b, label in zip(coef, intercept, classes, strict=True):
        hinges = np.maximum(0, 1 - np.where(y == label, 1, -1) * (x @ w + b))
        total += float(hinges.mean() + (w @ w + (b * b if regularized else 0)) / (2 * n))
    return total


def row_of(name: str, scaled: bool, x: NDArray, y: NDArray) -> Row:
    x = StandardScaler().fit_transform(x) if scaled else x
    ours = tried(HingeClassifier(), x, y)
    liblinear = tried(LinearSVC(loss="hinge", random_state=0), x, y)
    libsvm = tried(SVC(kernel="linear", max_iter=SVC_STEPS), x, y)
    reached = objective(ours.model, x, y, regularized=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer = HingeClassifier(fit_intercept="regularized").fit(x, y)
    bound = objective(peer, x, y, regularized=True) - peer.dual_gap_
    of_liblinear = objective(liblinear.model, x, y, regularized=True) / bound - 1
    of_libsvm = float("nan")
    if len(ours.model.classes_) == 2:
        of_libsvm = objective(libsvm.model, x, y, regularized=False) / (reached - ours.model.dual_gap_) - 1
    return Row(name, scaled, ours.model.dual_gap_ / reached, (of_liblinear, of_libsvm), ours, liblinear, libsvm)


def line(row: Row, x: NDArray, y: NDArray) -> str:
    def share(value: float) -> str:
        return "-" if np.isnan(value) else f"{max(value, 0):.0e}"

    cells = [
        row.name,
        "scaled" if row.scaled else "raw",
        f"{len(x):,} x {x.shape[1]}, {len(np.unique(y))} classes",
        f"{row.gap:.0e}",
        *(
            f"{1e3 * found.seconds:,.1f}{' !' if found.warned else ''}"
            for found in (row.ours, row.liblinear, row.libsvm)
        ),
        *(f"{found.score:.3f}" for found in (row.ours, row.liblinear, row.libsvm)),
        *map(share, row.excess),
    ]
    return f"| {' | '.join(cells)} |"


def draw(rows: list[Row], path: Path) -> None:
    """Times against those of the peers, and differences of scores."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for colour, label, peers in (
        (LIBLINEAR, "LinearSVC", [row.liblinear for row in rows]),
        (LIBSVM, "SVC", [row.libsvm for row in rows]),
    ):
        for scaled, marker in ((False, "x"), (True, "o")):
            chosen = [i for i, row in enumerate(rows) if row.scaled == scaled]
            left.scatter(
                [1e3 * peers[i].seconds for i in chosen],
                [1e3 * rows[i].ours.seconds for i in chosen],
                color=colour,
                marker=marker,
                label=f"{label}, {'scaled' if scaled else 'raw'}",
            )
        difference = sorted(row.ours.score - peer.score for row, peer in zip(rows, peers, strict=True))
        right.plot(difference, np.arange(len(rows)), ".", color=colour, label=f"less that of {label}")
    ends = [min(left.get_xlim()[0], left.get_ylim()[0], 0.3), max(left.get_xlim()[1], left.get_ylim()[1])]
    ends[0] = 0.3
    left.plot(ends, ends, color="grey", lw=1)
    left.set(xscale="log", yscale="log", xlabel="milliseconds, peer", ylabel="milliseconds, HingeClassifier")
    right.axvline(0, color="grey", lw=1)
    right.set(xlabel="accuracy of HingeClassifier in five folds, less a peer's", ylabel="problems, in order")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)
    print(f"\nsaved {path.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="problems whose names begin so")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    options = parser.parse_args()
    print("ms: milliseconds of a fit, ! where it warned that it did not converge\n")
    print(
        "| data | features | size | gap / objective | ms | LinearSVC ms | SVC ms | score | LinearSVC | SVC | "
        "LinearSVC's excess | SVC's excess |\n" + "|---" * 12 + "|"
    )
    rows = []
    for name, (x, y) in real_data().items():
        if not name.startswith(options.only):
            continue
        for scaled in (False, True):
            rows.append(row_of(name, scaled, x, y))
            print(line(rows[-1], x, y), flush=True)
    draw(rows, options.out)


if __name__ == "__main__":
    main()
