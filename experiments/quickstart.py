"""Hinge losses in JAX in half a minute: the kink, a training run, a sweep, and a picture.

Real data (breast cancer, 569 rows of 30 features). Prints what each library answers for the slope
at margin = 1, trains a linear classifier with `jaxhinge.fit`, tests it on rows that it has not
seen, sweeps the regularisation in one vmap, and draws the result.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import jaxhinge

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BATCH = 32
SUBGRADIENTS = (0.0, 0.5, 1.0)
# Okabe and Ito's palette, told apart by all common kinds of colour vision.
COLOURS = {0.0: "#0072B2", 0.5: "#E69F00", 1.0: "#009E73"}
MARKERS = {0.0: "o", 0.5: "s", 1.0: "^"}
GREY = "#555555"


def main() -> None:
    options = arguments()
    started = time.perf_counter()
    print_kink_table()
    x_train, x_test, y_train, y_test = load_data(options.seed)
    history = train_and_test(x_train, x_test, y_train, y_test, options)
    l2s, train_score, test_score = sweep(x_train, x_test, y_train, y_test, options)
    draw(options.out, history, options, l2s, train_score, test_score)
    print(f"\nPicture: {options.out}   ({time.perf_counter() - started:.1f} s in all)")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--l2", type=float, default=1e-2, help="strength of regularisation (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="passes over the data (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the shuffling (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name("quickstart.png"),
        help="where to save the picture (default: next to this file)",
    )
    return parser.parse_args()


# ---- 1. the kink


def print_kink_table() -> None:
    """The slope of the hinge at margin = 1, asked of each library here and now."""
    print("The slope of max(0, 1 - m) at m = 1:\n")
    for label, slope in kink_slopes():
        print(f"  {label:<58} {slope + 0.0:5.1f}")  # + 0.0 turns -0.0 into 0.0


def kink_slopes() -> list[tuple[str, float]]:
    functions: list[tuple[str, Any]] = [
        ("jax.nn.relu(1 - m)", lambda m: jax.nn.relu(1 - m)),
        ("jnp.maximum(0, 1 - m)", lambda m: jnp.maximum(0, 1 - m)),
        ("optax.losses.hinge_loss(m, 1)", lambda m: optax.losses.hinge_loss(m, 1.0)),
    ]
    functions += [(f"jaxhinge.hinge(m, subgradient={s:g})", hinge_with(s)) for s in SUBGRADIENTS]
    rows = [(label, float(jax.grad(function)(1.0))) for label, function in functions]
    return rows[:3] + torch_slopes() + rows[3:]


def hinge_with(subgradient: float) -> Any:
    return lambda m: jaxhinge.hinge(m, subgradient=subgradient)


def torch_slopes() -> list[tuple[str, float]]:
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    def slope(function: Any) -> float:
        m = torch.tensor(1.0, requires_grad=True)
        function(m).backward()
        return float(m.grad)

    return [
        ("torch.relu(1 - m)", slope(lambda m: torch.relu(1 - m))),
        ("torch.clamp(1 - m, min=0)", slope(lambda m: torch.clamp(1 - m, min=0))),
        ("torch.maximum(torch.tensor(0.), 1 - m)", slope(lambda m: torch.maximum(torch.tensor(0.0), 1 - m))),
    ]


# ---- 2. a training run


def load_data(seed: int) -> list[np.ndarray[Any, Any]]:
    x, y = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x, np.where(y == 1, 1, -1), test_size=0.25, random_state=seed, stratify=y
    )
    scaler = StandardScaler().fit(x_train)
    return [scaler.transform(x_train), scaler.transform(x_test), y_train, y_test]


def steps_per_epoch(y: Any) -> int:
    return -(-len(y) // BATCH)


def train_and_test(
    x_train: Any, x_test: Any, y_train: Any, y_test: Any, options: argparse.Namespace
) -> dict[str, np.ndarray[Any, Any]]:
    """The loss curves of the default optimizer and of two from optax."""
    key = jax.random.key(options.seed)
    runs: dict[str, optax.GradientTransformation | None] = {
        "default": None,
        "optax.adam": optax.adam(optax.cosine_decay_schedule(0.05, options.epochs * steps_per_epoch(y_train))),
        "optax.sgd": optax.sgd(0.05),
    }
    curves = {}
    print(f"\nTraining on {len(y_train)} rows, l2 = {options.l2:g}, {options.epochs} epochs:\n")
    for label, optimizer in runs.items():
        result = jaxhinge.fit(
            x_train, y_train, l2=options.l2, optimizer=optimizer, epochs=options.epochs, batch_size=BATCH, key=key
        )
        accuracy = np.mean(jaxhinge.predict(result.params, x_test) == y_test)
        print(f"  {label:<12} objective {result.history.loss[-1]:.4f}   held-out accuracy {accuracy:.1%}")
        curves[label] = result.history.loss
    return curves


# ---- 3. a sweep over l2, all values at once


def sweep(x_train: Any, x_test: Any, y_train: Any, y_test: Any, options: argparse.Namespace) -> tuple[Any, ...]:
    """`jaxhinge.train` is a pure function, so a sweep is a vmap: every value of l2 shares each batch."""
    l2s = jnp.logspace(-4, 0.5, 19)
    num_steps = options.epochs * steps_per_epoch(y_train)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, num_steps))

    def run(l2: jax.Array) -> Any:
        params, _ = jaxhinge.train(
            jaxhinge.init_params(x_train.shape[1]),
            x_train,
            y_train,
            l2=l2,
            optimizer=optimizer,
            num_steps=num_steps,
            batch_size=BATCH,
            key=jax.random.key(options.seed),
        )
        return params

    params = jax.jit(jax.vmap(run))(l2s)

    def accuracy(x: Any, y: Any) -> Any:
        return jnp.mean(jax.vmap(jaxhinge.predict, in_axes=(0, None))(params, x) == jnp.asarray(y)[None, :], axis=1)

    train_score, test_score = accuracy(x_train, y_train), accuracy(x_test, y_test)
    print(f"\nA sweep over {len(l2s)} values of l2 in one vmap:\n\n       l2   training   held out")
    for i in range(0, len(l2s), 3):
        print(f"  {l2s[i]:7.4f}     {train_score[i]:6.1%}     {test_score[i]:6.1%}")
    return l2s, train_score, test_score


# ---- 4. the picture


def draw(
    out: Path, curves: dict[str, Any], options: argparse.Namespace, l2s: Any, train_score: Any, test_score: Any
) -> None:
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    draw_kink(left)
    draw_curves(middle, curves, options)
    draw_sweep(right, l2s, train_score, test_score)
    figure.savefig(out, dpi=150)
    plt.close(figure)


def draw_kink(axes: Any) -> None:
    """Off the kink all choices agree; on it each gives the slope that was asked for."""
    slope = jax.grad(jaxhinge.hinge)
    axes.plot([0.0, 1.0], [-1, -1], color=GREY, lw=2)
    axes.plot([1.0, 2.0], [0, 0], color=GREY, lw=2)
    axes.plot([1.0, 1.0], [-1, 0], color=GREY, lw=1, ls=":")
    for subgradient in SUBGRADIENTS:
        height = float(slope(1.0, subgradient=subgradient))
        axes.plot(1.0, height, MARKERS[subgradient], ms=11, color=COLOURS[subgradient], zorder=3)
        axes.annotate(
            f"subgradient={subgradient:g}", (1.0, height), xytext=(14, 8),
            textcoords="offset points", color=COLOURS[subgradient], fontweight="bold",
        )  # fmt: skip
    axes.set(
        title="The gradient at the kink, chosen by name",
        xlabel="margin  $m = y\\,(w \\cdot x + b)$",
        ylabel="slope of  max(0, 1 - m)",
        xlim=(0, 2),
        ylim=(-1.15, 0.2),
        yticks=[-1, -0.5, 0],
    )


def draw_curves(axes: Any, curves: dict[str, Any], options: argparse.Namespace) -> None:
    styles = dict(zip(curves, [("#0072B2", "-", 2.4), ("#E69F00", "--", 1.8), ("#009E73", "-.", 1.8)], strict=True))
    for label, loss in curves.items():
        colour, line, width = styles[label]
        name = "jaxhinge.fit default" if label == "default" else label
        axes.plot(np.arange(1, len(loss) + 1), loss, line, color=colour, lw=width, label=name)
    axes.set(
        title=f"Training, breast cancer, l2 = {options.l2:g}",
        xlabel="epoch",
        ylabel="objective: mean hinge + l2/2 |w|$^2$",
        xscale="log",
        yscale="log",
    )
    lowest, highest = min(map(np.min, curves.values())), max(map(np.max, curves.values()))
    ticks = [t for t in (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0) if 0.9 * lowest <= t <= 1.1 * highest]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    axes.legend(frameon=False)


def draw_sweep(axes: Any, l2s: Any, train_score: Any, test_score: Any) -> None:
    axes.plot(l2s, 100 * np.asarray(train_score), "--", color=GREY, lw=1.8, label="training rows")
    axes.plot(l2s, 100 * np.asarray(test_score), "o-", color="#D55E00", lw=2, ms=5, label="held-out rows")
    axes.set(
        title=f"{len(l2s)} values of l2, one vmap", xlabel="l2 (regularisation)", ylabel="accuracy, %", xscale="log",
        ylim=(88, 100),
    )  # fmt: skip
    axes.legend(frameon=False, loc="lower left")


if __name__ == "__main__":
    main()
