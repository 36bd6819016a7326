"""Images in k classes: exact and stochastic hinge machines beside LinearSVC and softmax regression.

One-vs-rest, Weston-Watkins and Crammer-Singer, each solved to a duality gap and trained with optax, next to
scikit-learn's LinearSVC and LogisticRegression. All choose their l2 from one grid by the accuracy on the same folds;
features are standardised by the rows that train. Every hinge machine minimises the objective of its loss with the bias
in the norm, as LIBLINEAR has it, so a certified lower bound, from the exact solution, says how far above the optimum
any of them ended.

    python experiments/image_classification.py                 # scikit-learn's digits
    python experiments/image_classification.py images.npz      # arrays x (n, height, width) or (n, d), and y (n,)
    python experiments/image_classification.py data.svm        # svmlight / LIBSVM

Nothing in a file is unpickled.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from _image_data import Data, prepare, read
from joblib import Parallel, delayed
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

import jaxhinge as jh

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NDArray = np.ndarray[Any, Any]
Loss = Literal["one_vs_rest", "weston_watkins", "crammer_singer"]
LOSSES: dict[Loss, Callable[..., jax.Array]] = {
    "one_vs_rest": jh.losses.one_vs_rest_hinge_loss,
    "weston_watkins": jh.losses.weston_watkins_loss,
    "crammer_singer": jh.losses.multiclass_hinge_loss,
}
PEERS: dict[Loss, str] = {"one_vs_rest": "ovr", "crammer_singer": "crammer_singer"}  # LinearSVC has these
# Okabe and Ito's palette, told apart by all common kinds of colour vision; a colour for a loss.
COLOURS = {"one_vs_rest": "#0072B2", "weston_watkins": "#E69F00", "crammer_singer": "#009E73", "softmax": "#CC79A7"}
STYLES = {"exact": ("-", "o"), "optax": (":", "^"), "scikit-learn": ("--", "s")}


class Outcome(NamedTuple):
    loss: str
    solver: str
    scores: NDArray  # (num_l2, folds)
    l2: float
    w: NDArray  # (d, k)
    b: NDArray
    seconds: float  # grid and last fit, compilation counted
    again: float  # the last fit once more
    unconverged: int
    accuracy: float = np.nan
    gap: float = np.nan  # relative, certified


def main() -> None:
    options = arguments()
    started = time.perf_counter()
    data = prepare(
        *read(options.file), rows=options.rows, folds=options.folds, strengths=options.strengths, seed=options.seed
    )
    num_rows, num_features = data.x.shape
    print(
        f"{data.name}: {num_rows} rows to train, {len(data.x_test)} to test, {num_features} features, "
        f"{len(data.classes)} classes; {len(data.l2)} values of l2, {options.folds} folds\n"
    )
    outcomes = [judged(method(data), data) for method in methods(options)]
    print_table(outcomes, data)
    draw(options.out, outcomes, data)
    print(f"\nPicture: {options.out}   ({time.perf_counter() - started:.0f} s in all)")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help=".npz with x and y, or svmlight (default: digits)")
    parser.add_argument("--rows", type=int, help="use this many rows only, drawn by class")
    parser.add_argument("--folds", type=int, default=5, help="of the cross-validation (default: %(default)s)")
    parser.add_argument("--strengths", type=int, default=8, help="values of l2, 1 to 1e-4 (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="passes of optax over the rows (default: %(default)s)")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), help="which (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="processes for scikit-learn (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of split, folds and batches (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="picture")
    return parser.parse_args()


# ---- the methods


def methods(options: argparse.Namespace) -> list[Callable[[Data], Outcome]]:
    chosen: list[Callable[[Data], Outcome]] = []
    for loss in options.losses:
        chosen += [partial(exact, loss=loss), partial(by_optax, loss=loss, epochs=options.epochs, seed=options.seed)]
        chosen += [partial(by_sklearn, loss=loss, jobs=options.jobs)] if loss in PEERS else []
    return [*chosen, partial(by_sklearn, loss="softmax", jobs=options.jobs)]


def solve(data: Data, loss: Loss, l2: float, rows: Any = slice(None), tol: float = 1e-4, init: Any = None) -> Any:
    return jh.solve_multiclass(
        data.x[rows], data.labels[rows], l2=l2, loss=loss, fit_intercept="regularized", tol=tol, init=init,
        num_classes=len(data.classes), as_numpy=True,
    )  # fmt: skip


def exact(data: Data, *, loss: Loss) -> Outcome:
    started = time.perf_counter()
    if loss == "one_vs_rest":  # a sweep solves all classes, folds and strengths over the same rows in memory
        grid = jh.sweep(data.x, data.labels, l2=data.l2, folds=data.fold, fit_intercept="regularized", as_numpy=True)
        scores = grid.val_score
    else:
        scores = np.stack(
            [exact_fold(data, loss, data.fold == number) for number in range(data.fold.max() + 1)], axis=1
        )
    l2 = best_l2(data, scores)
    solution = solve(data, loss, l2)
    seconds = time.perf_counter() - started
    again = clock(lambda: solve(data, loss, l2))
    return Outcome(loss, "exact", scores, l2, *solution.params, seconds, again, int(solution.status != 0))


def exact_fold(data: Data, loss: Loss, held_out: NDArray) -> NDArray:
    """Held-out accuracy for every strength, each solved from the solution of the one before."""
    scores, solution = [], None
    for l2 in data.l2:
        solution = solve(data, loss, l2, ~held_out, init=solution)
        scores.append(np.mean(labels_of(data.x[held_out], *solution.params) == data.labels[held_out]))
    return np.array(scores)


def by_optax(data: Data, *, loss: Loss, epochs: int, seed: int, batch_size: int = 64, rate: float = 0.02) -> Outcome:
    """Adam on minibatches; all strengths and folds are one vmap, in which a fold is a set of weights 0 and 1."""
    num_steps = epochs * -(-len(data.x) // batch_size)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, num_steps))

    def run(l2: jax.Array, weight: jax.Array) -> jh.LinearParams:
        params, _ = jh.train(
            jh.init_params(data.x.shape[1], len(data.classes)), data.x, data.labels, l2=l2, optimizer=optimizer,
            num_steps=num_steps, batch_size=batch_size, key=jax.random.key(seed), sample_weight=weight,
            loss_fn=LOSSES[loss], regularize_bias=True,
        )  # fmt: skip
        return params

    started = time.perf_counter()
    trains = (data.fold[None, :] != np.arange(data.fold.max() + 1)[:, None]).astype(np.float32)
    lanes = jax.jit(jax.vmap(jax.vmap(run, in_axes=(None, 0)), in_axes=(0, None)))
    params = jax.tree.map(np.asarray, lanes(jnp.asarray(data.l2, jnp.float32), trains))
    right = np.argmax(data.x @ params.w + params.b[:, :, None, :], axis=-1) == data.labels
    scores = np.array([[right[i, f, trains[f] == 0].mean() for f in range(len(trains))] for i in range(len(data.l2))])
    l2 = best_l2(data, scores)
    last = jax.jit(run)
    ones = np.ones(len(data.x), np.float32)
    w, b = map(np.asarray, last(np.float32(l2), ones))
    seconds = time.perf_counter() - started
    again = clock(lambda: jax.block_until_ready(last(np.float32(l2), ones)))
    return Outcome(loss, "optax", scores, l2, w, b, seconds, again, 0)


def by_sklearn(data: Data, *, loss: str, jobs: int) -> Outcome:
    folds = range(data.fold.max() + 1)
    started = time.perf_counter()
    pairs = [(l2, data.fold != number) for l2 in data.l2 for number in folds]
    fits = Parallel(n_jobs=jobs)(delayed(fit_sklearn)(data.x[rows], data.labels[rows], l2, loss) for l2, rows in pairs)
    held_out = zip(fits, (~rows for _, rows in pairs), strict=True)
    scores = np.array([np.mean(labels_of(data.x[rows], *fit[:2]) == data.labels[rows]) for fit, rows in held_out])
    scores = scores.reshape(len(data.l2), len(folds))
    l2 = best_l2(data, scores)
    last = fit_sklearn(data.x, data.labels, l2, loss)
    seconds = time.perf_counter() - started
    again = clock(lambda: fit_sklearn(data.x, data.labels, l2, loss))
    return Outcome(loss, "scikit-learn", scores, l2, *last[:2], seconds, again, sum(fit[2] for fit in [*fits, last]))


def fit_sklearn(x: NDArray, labels: NDArray, l2: float, loss: str) -> tuple[NDArray, NDArray, bool]:
    """`w` (d, k), `b` (k,), and whether it warned that it did not converge; with the defaults of each."""
    cost = 1 / (l2 * len(x))
    model: Any = LogisticRegression(C=cost, max_iter=1000)
    if loss != "softmax":
        model = LinearSVC(C=cost, loss="hinge", multi_class=PEERS[loss], random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, labels)
    w, b = model.coef_.T, model.intercept_
    if w.shape[1] == 1:  # two classes have one column
        w, b = np.hstack([-w, w]), np.concatenate([-b, b])
    return w, b, any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def labels_of(x: NDArray, w: NDArray, b: NDArray) -> NDArray:
    return np.argmax(x @ w + b, axis=1)


def best_l2(data: Data, scores: NDArray) -> float:
    """The strongest of those whose mean is the largest."""
    return float(data.l2[np.argmax(scores.mean(axis=1))])


def clock(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


# ---- what they say


def judged(outcome: Outcome, data: Data) -> Outcome:
    """With the accuracy on the test rows and, for a hinge, how far its objective is above a certified lower bound."""
    accuracy = float(np.mean(labels_of(data.x_test, outcome.w, outcome.b) == data.labels_test))
    if outcome.loss == "softmax":
        return outcome._replace(accuracy=accuracy)
    bound = float(solve(data, outcome.loss, outcome.l2, tol=1e-6).dual_value)
    with jax.enable_x64(True):
        params = jh.LinearParams(np.asarray(outcome.w, np.float64), np.asarray(outcome.b, np.float64))
        options: Any = {"l2": outcome.l2, "loss_fn": LOSSES[outcome.loss], "regularize_bias": True}
        value = jh.loss(params, data.x.astype(np.float64), data.labels, **options)
    return outcome._replace(accuracy=accuracy, gap=float(value) / bound - 1)


def print_table(outcomes: list[Outcome], data: Data) -> None:
    n = len(data.x_test)
    heads = (
        "loss",
        "solver",
        "l2",
        "cross-validated",
        "test accuracy",
        "certified gap",
        "grid and fit",
        "fit again",
        "warned",
    )
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in outcomes:
        score, fits = row.scores[np.flatnonzero(data.l2 == row.l2)[0]], row.scores.size + 1
        cells = [row.loss, row.solver, f"{row.l2:.1e}"]
        cells += [f"{score.mean():.1%} ± {score.std(ddof=1) / len(score) ** 0.5:.1%}", f"{row.accuracy:.1%}"]
        cells += ["" if np.isnan(row.gap) else f"{row.gap:.1e}", f"{row.seconds:.1f} s", f"{1e3 * row.again:.0f} ms"]
        cells += [f"{row.unconverged} of {fits}" if row.unconverged else ""]
        print("| " + " | ".join(cells) + " |")
    best = max(row.accuracy for row in outcomes)
    low, high = stats.binomtest(round(best * n), n).proportion_ci(method="wilson")
    print(
        f"\nThe 95% interval of the best test accuracy, {best:.1%}, is {low:.1%} to {high:.1%} (Wilson, {n} rows): "
        "differences within it mean little. The certified gap is relative, above the dual value of an exact solution; "
        "± is one standard error over the folds."
    )


# ---- the picture


def draw(out: Path, outcomes: list[Outcome], data: Data) -> None:
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    shown = [row for row in outcomes if row.solver == "exact" or row.loss == "softmax"]
    columns = min(len(data.classes), 10)
    figure = plt.figure(figsize=(13, 5 + 1.25 * len(shown)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(4.6, 1.25 * len(shown)))
    left, middle, right = top.subplots(1, 3, width_ratios=(1.25, 1, 1))
    draw_curves(left, outcomes, data)
    draw_times(middle, outcomes)
    exact_rows = [row for row in outcomes if row.solver == "exact"]
    draw_confusion(right, max(exact_rows, key=lambda row: row.scores.mean(axis=1).max()), data)
    draw_weights(bottom, bottom.subplots(len(shown), columns, squeeze=False), shown, data)
    figure.savefig(out, dpi=130)
    plt.close(figure)


def draw_curves(axes: Any, outcomes: list[Outcome], data: Data) -> None:
    for row in outcomes:
        line, marker = STYLES[row.solver]
        label = f"{row.loss}, {row.solver}"
        mean = 100 * row.scores.mean(axis=1)
        axes.plot(data.l2, mean, line, marker=marker, ms=4, lw=1.6, color=COLOURS[row.loss], label=label)
    axes.set(xscale="log", xlabel="l2 (strength of regularisation)", ylabel="accuracy on held-out folds, %")
    axes.set_title(f"{data.name}: cross-validation")
    axes.legend(frameon=False, fontsize=7.5)


def draw_times(axes: Any, outcomes: list[Outcome]) -> None:
    """What the last fit took, warm, and where it ended."""
    for row in outcomes:
        if row.loss != "softmax":
            axes.plot(row.again, max(row.gap, 1e-9), STYLES[row.solver][1], color=COLOURS[row.loss], ms=9)
    axes.set(
        xscale="log", yscale="log", xlim=(0.01, 10), xlabel="seconds for one more fit", ylabel="certified gap, relative"
    )
    axes.set_title("One fit at the chosen l2")
    solvers = {row.solver for row in outcomes}
    marks = [
        plt.Line2D([], [], marker=STYLES[name][1], ls="", color="#555555", label=name)
        for name in STYLES
        if name in solvers
    ]
    axes.legend(handles=marks, frameon=False, fontsize=8)


def draw_confusion(axes: Any, row: Outcome, data: Data) -> None:
    k = len(data.classes)
    counts = np.zeros((k, k), int)
    np.add.at(counts, (data.labels_test, labels_of(data.x_test, row.w, row.b)), 1)
    axes.imshow(np.sqrt(counts / counts.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    if k <= 12:
        for i, j in zip(*np.nonzero(counts), strict=True):
            axes.text(j, i, counts[i, j], ha="center", va="center", fontsize=8, color="white" if i == j else "black")
        names = [name_of(value) for value in data.classes]
        axes.set_xticks(range(k), names)
        axes.set_yticks(range(k), names)
    axes.set(xlabel="predicted", ylabel="true class")
    axes.set_title(f"Test rows: {row.loss}, {row.solver}, {row.accuracy:.1%}")


def name_of(label: Any) -> str:
    return f"{label:g}" if isinstance(label, np.floating) else str(label)


def draw_weights(figure: Any, axes: Any, shown: list[Outcome], data: Data) -> None:
    """The weights of every class as an image: orange pixels speak for it, purple ones against."""
    for line, row in zip(axes, shown, strict=True):
        largest = np.abs(row.w).max() or 1.0
        for c, ax in enumerate(line):
            image = row.w[:, c].reshape(data.shape)
            image = image.mean(axis=-1) if image.ndim == 3 else np.atleast_2d(image)
            ax.imshow(
                image, cmap="PuOr_r", vmin=-largest, vmax=largest, aspect="equal" if len(data.shape) > 1 else "auto"
            )
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if line is axes[0]:
                ax.set_title(name_of(data.classes[c]), fontsize=9)
        line[0].set_ylabel(row.loss.replace("_", "-\n"), fontsize=9, color=COLOURS[row.loss])
    figure.suptitle("Weights of every class: orange speaks for it, purple against it", fontsize=11)


if __name__ == "__main__":
    main()
