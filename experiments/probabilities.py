"""Probabilities of `HingeClassifierCV(probability=True)` beside those of `CalibratedClassifierCV(LinearSVC())`.

Each data set is halved at random ten times; half trains, the probabilities of the other half are judged: by log loss,
and by reliability, the mean distance between the probability given to a class and its frequency, in ten bins of equal
count over all classes and halves. The peers: `CalibratedClassifierCV(LinearSVC())` as it is, and with a grid search
over the same ten values of C inside. Seconds are of the processor, for one fit.

    python experiments/probabilities.py              # a minute or two
    python experiments/probabilities.py --halves 2
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from jaxhinge.sklearn import HingeClassifierCV

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NDArray = np.ndarray[Any, Any]
CS = np.logspace(-3, 2, 10)
SETS: dict[str, Callable[..., Any]] = {"breast cancer": load_breast_cancer, "iris": load_iris, "wine": load_wine}
MODELS: dict[str, Callable[[], Any]] = {
    "HingeClassifierCV": lambda: HingeClassifierCV(Cs=CS, probability=True),
    "calibrated LinearSVC": lambda: CalibratedClassifierCV(LinearSVC(random_state=0)),
    "calibrated grid search": lambda: CalibratedClassifierCV(GridSearchCV(LinearSVC(random_state=0), {"C": CS})),
}
COLOURS = ("#0072B2", "#E69F00", "#009E73")  # told apart by all common kinds of colour vision
BINS = 10


def judged(make: Callable[[], Any], x: NDArray, y: NDArray, halves: int) -> tuple[float, float, NDArray, NDArray]:
    """The mean log loss, the seconds of a fit, and over all halves and classes the probabilities and what came."""
    losses, seconds, given, came = [], [], [], []
    for seed in range(halves):
        train, test, y_train, y_test = train_test_split(x, y, test_size=0.5, stratify=y, random_state=seed)
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = make_pipeline(StandardScaler(), make()).fit(train, y_train)
        seconds.append(time.process_time() - began)
        chances = model.predict_proba(test)
        losses.append(log_loss(y_test, chances))
        given.append(chances.ravel())
        came.append((y_test[:, None] == model.classes_).ravel())
    return float(np.mean(losses)), float(np.median(seconds)), np.concatenate(given), np.concatenate(came)


def reliability(given: NDArray, came: NDArray) -> tuple[NDArray, NDArray]:
    """The mean probability and the frequency of each bin."""
    bins = np.array_split(np.argsort(given, kind="stable"), BINS)
    return np.array([given[rows].mean() for rows in bins]), np.array([came[rows].mean() for rows in bins])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--halves", type=int, default=10, help="random halves of each data set")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    options = parser.parse_args()
    print("log loss and distance from the frequencies: the smaller the better\n")
    print("| data | model | log loss | distance | seconds |\n|---|---|---|---|---|")
    figure, axes = plt.subplots(1, len(SETS), figsize=(12, 4), layout="constrained", sharey=True)
    for axis, (name, load) in zip(axes, SETS.items(), strict=True):
        x, y = load(return_X_y=True)
        for (label, make), colour in zip(MODELS.items(), COLOURS, strict=True):
            loss, seconds, given, came = judged(make, x, y, options.halves)
            mean, frequency = reliability(given, came)
            print(
                f"| {name} | {label} | {loss:.4f} | {np.abs(mean - frequency).mean():.4f} | {seconds:.2f} |", flush=True
            )
            axis.plot(mean, frequency, "o-", color=colour, label=label, ms=4)
        axis.plot([0, 1], [0, 1], color="grey", lw=1)
        axis.set(title=name, xlabel="probability given to a class")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("its frequency")
    axes[0].legend()
    figure.savefig(options.out, dpi=120)
    print(f"\nsaved {options.out.name}")


if __name__ == "__main__":
    main()
