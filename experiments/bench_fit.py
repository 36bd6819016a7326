"""The default `jaxhinge.fit` against scikit-learn's SGDClassifier: objective and time, side by side.

Three standardised data sets, three strengths of regularisation, 10 and 100 passes. Both run in this
process, in turn, warm, and the medians over the repeats are reported. The optimum of each problem comes
from a float64 interior point method in NumPy, below, which proves it with a duality gap; nothing
of jaxhinge takes part in it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler

import jaxhinge

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NDArray = np.ndarray[Any, Any]
STRENGTHS = (1e-2, 1e-3, 1e-4)
PASSES = (10, 100)
FIT, SGD = "#0072B2", "#E69F00"  # told apart by all common kinds of colour vision


class Row(NamedTuple):
    name: str
    passes: int
    l2: float
    fit_excess: float
    fit_worst: float
    sgd_excess: float
    fit_time: float
    sgd_time: float
    ratio: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="runs of each, with seeds 0, 1, ... (default: 7)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("bench_fit.png"), help="picture")
    options = parser.parse_args()
    print(f"{'data':<10} passes   l2      fit excess (worst)    SGD excess    fit ms   SGD ms   ratio of times")
    rows = []
    for name, (x, y) in data_sets().items():
        for l2 in STRENGTHS:
            best = optimum(x, y, l2)
            for passes in PASSES:
                row = compare(name, x, y, l2, passes, best, options.repeats)
                rows.append(row)
                print(
                    f"{name:<10} {passes:5d}  {l2:.0e}  {row.fit_excess:9.3%} ({row.fit_worst:8.3%})  "
                    f"{row.sgd_excess:11.3%}  {1e3 * row.fit_time:8.1f} {1e3 * row.sgd_time:8.1f}   {row.ratio:8.2f}",
                    flush=True,
                )
    draw(options.out, rows)


def data_sets() -> dict[str, tuple[NDArray, NDArray]]:
    synthetic = make_classification(10_000, 64, n_informative=32, n_redundant=16, flip_y=0.05, random_state=0)
    digits, digit = load_digits(return_X_y=True)
    raw = {
        "synthetic": synthetic,
        "cancer": load_breast_cancer(return_X_y=True),
        "digits": (digits, digit % 2),
    }
    return {name: (StandardScaler().fit_transform(x), np.where(y == 1, 1, -1)) for name, (x, y) in raw.items()}


def compare(name: str, x: NDArray, y: NDArray, l2: float, passes: int, best: float, repeats: int) -> Row:
    """Both in turn, so that whatever else the machine does strikes both."""

    def fit(seed: int) -> tuple[Any, Any]:
        params = jaxhinge.fit(x, y, l2=l2, epochs=passes, key=jax.random.key(seed)).params
        return np.asarray(params.w, float), float(params.b)

    def sgd(seed: int) -> tuple[Any, Any]:
        model = SGDClassifier(alpha=l2, max_iter=passes, tol=None, random_state=seed).fit(x, y)
        return model.coef_[0], model.intercept_[0]

    fit(0)  # compiles
    ours, theirs = [], []
    for seed in range(repeats):
        ours.append(timed(fit, seed, x, y, l2))
        theirs.append(timed(sgd, seed, x, y, l2))
    (fit_time, fit_value), (sgd_time, sgd_value) = (np.array(runs).T for runs in (ours, theirs))
    return Row(
        name,
        passes,
        l2,
        float(np.median(fit_value)) / best - 1,
        float(np.max(fit_value)) / best - 1,
        float(np.median(sgd_value)) / best - 1,
        float(np.median(fit_time)),
        float(np.median(sgd_time)),
        float(np.median(fit_time / sgd_time)),
    )


def timed(run: Callable[[int], tuple[Any, Any]], seed: int, x: NDArray, y: NDArray, l2: float) -> tuple[float, float]:
    started = time.perf_counter()
    w, b = run(seed)
    elapsed = time.perf_counter() - started
    return elapsed, primal(w, b, x, y, l2)


def primal(w: NDArray, b: float, x: NDArray, y: NDArray, l2: float) -> float:
    return float(np.maximum(0, 1 - y * (x @ w + b)).mean() + l2 / 2 * w @ w)


def optimum(x: NDArray, y: NDArray, l2: float, tol: float = 1e-7) -> float:
    """The smallest objective, by Mehrotra's predictor and corrector on the dual (SIAM J. Optim., 1992).

    Minimise `|A'a|^2 / (2 l2) - sum(a)` over `0 <= a <= 1/n`, `y'a = 0`, the rows of `A` being `y_i x_i`;
    `w = A'a / l2`, and `b` is the multiplier of the equality. Returns the primal value once its
    distance from the dual value is below `tol` of it.
    """
    n = len(y)
    signed, upper = y[:, None] * x, 1 / n
    a, low, high, b = np.full(n, upper / 2), np.ones(n), np.ones(n), 0.0  # low, high: multipliers of the box
    for _ in range(100):
        w, room = signed.T @ a / l2, upper - a
        value, dual = primal(w, b, x, y, l2), a.sum() - l2 / 2 * w @ w
        if abs(y @ a) < 1e-12 and value - dual < tol * value:
            return value
        residual = signed @ w - 1 + b * y - low + high
        da, dlow, dhigh, _ = direction(signed, y, l2, residual, (a, low, room, high), (0.0, 0.0))
        t = longest((a, da), (room, -da), (low, dlow), (high, dhigh))
        gap = a @ low + room @ high
        after = (a + t * da) @ (low + t * dlow) + (room - t * da) @ (high + t * dhigh)
        target = (after / gap) ** 3 * gap / (2 * n)
        targets = (target - da * dlow, target + da * dhigh)
        da, dlow, dhigh, db = direction(signed, y, l2, residual, (a, low, room, high), targets)
        t = 0.995 * longest((a, da), (room, -da), (low, dlow), (high, dhigh))
        a, low, high, b = a + t * da, low + t * dlow, high + t * dhigh, b + t * db
    raise RuntimeError(f"the reference did not converge: gap {value - dual:.2e} of {value:.4g}")


def direction(
    signed: NDArray, y: NDArray, l2: float, residual: NDArray, point: tuple[NDArray, ...], targets: tuple[Any, Any]
) -> tuple[NDArray, NDArray, NDArray, float]:
    """The Newton step towards `a * low = targets[0]`, `room * high = targets[1]`, by Woodbury's identity."""
    a, low, room, high = point
    weight = low / a + high / room
    scaled = signed / weight[:, None]
    inner = np.eye(signed.shape[1]) * l2 + signed.T @ scaled

    def solve(v: NDArray) -> NDArray:
        return v / weight - scaled @ np.linalg.solve(inner, scaled.T @ v)

    p, q = solve((targets[0] - a * low) / a - (targets[1] - room * high) / room - residual), solve(1.0 * y)
    db = (y @ p + y @ a) / (y @ q)
    da = p - db * q
    return da, (targets[0] - low * (a + da)) / a, (targets[1] - high * (room - da)) / room, float(db)


def longest(*pairs: tuple[NDArray, NDArray]) -> float:
    """The longest step, at most 1, that keeps every value positive."""
    return min(1.0, *(float(np.min(-v[dv < 0] / dv[dv < 0], initial=1.0)) for v, dv in pairs))


def draw(out: Path, rows: list[Row]) -> None:
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, 2, figsize=(12, 7), sharex="col", layout="constrained")
    for column, passes in enumerate(PASSES):
        chosen = [row for row in rows if row.passes == passes]
        place = np.arange(len(chosen))
        top, bottom = axes[:, column]
        top.plot(place, [100 * row.sgd_excess for row in chosen], "s", color=SGD, ms=9, label="SGDClassifier")
        top.plot(place, [100 * row.fit_excess for row in chosen], "o", color=FIT, ms=9, label="jaxhinge.fit")
        top.set(title=f"{passes} passes", yscale="log", ylabel="objective above the optimum, %")
        top.grid(axis="y", alpha=0.3)
        top.legend(frameon=False)
        bottom.bar(place, [row.ratio for row in chosen], color=FIT, width=0.6)
        bottom.axhline(1, color="#555555", lw=1, ls="--")
        bottom.set_ylabel("time, as a multiple of SGDClassifier's")
        bottom.set_xticks(place, [f"{row.name}\n{row.l2:g}" for row in chosen], fontsize=8)
        bottom.set_xlabel("data set and l2")
    figure.savefig(out, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
