"""Tune l2 and one weight per feature group by gradient descent through the exact solver.

Breast cancer data with two groups of pure noise added. The support vector machine is solved exactly on the training
rows, with each group of features scaled by its weight; `jax.grad` of the validation loss goes through the solution.
Prints the loss and the weights as they fall, compares with a grid search over l2 alone, and saves a picture.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import jaxhinge as jh

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Okabe and Ito's palette, told apart by all common kinds of colour vision.
COLOURS = ("#0072B2", "#009E73", "#56B4E9", "#E69F00", "#D55E00")
GROUPS = ("means", "standard errors", "worst values", "noise 1", "noise 2")
PER_GROUP = 10


def main() -> None:
    options = arguments()
    started = time.perf_counter()
    data = load_data(options.seed)
    grid, grid_loss = grid_search(data)
    best = int(np.argmin(grid_loss))
    print(f"grid over l2 alone: validation loss {grid_loss[best]:.4f} at l2 = {grid[best]:.2g}")
    history = descend(data, float(grid[best]), options)
    report(data, history, float(grid[best]))
    draw(options.out, history, grid, grid_loss)
    print(f"\nPicture: {options.out}   ({time.perf_counter() - started:.1f} s in all)")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="steps of gradient descent (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate of Adam (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and of the split (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name("hypergradient.png"),
        help="where to save the picture (default: next to this file)",
    )
    return parser.parse_args()


def load_data(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Training, validation and test rows: 30 real features and 20 that mean nothing."""
    x, labels = load_breast_cancer(return_X_y=True)
    noise = np.random.default_rng(seed).normal(size=(len(x), 2 * PER_GROUP))
    x, y = np.hstack([x, noise]), np.where(labels == 1, 1.0, -1.0)
    x_train, x_rest, y_train, y_rest = train_test_split(x, y, train_size=100, random_state=seed, stratify=y)
    x_val, x_test, y_val, y_test = train_test_split(x_rest, y_rest, train_size=0.5, random_state=seed, stratify=y_rest)
    scaler = StandardScaler().fit(x_train)
    parts = {"train": (x_train, y_train), "validation": (x_val, y_val), "test": (x_test, y_test)}
    return {name: (scaler.transform(x).astype(np.float32), y.astype(np.float32)) for name, (x, y) in parts.items()}


def scaled(x: jax.Array, log_weights: jax.Array) -> jax.Array:
    return x * jnp.repeat(jnp.exp(log_weights), PER_GROUP)[None, :]


def loss_on(data: dict, part: str, log_l2: jax.Array, log_weights: jax.Array) -> jax.Array:
    """The hinge loss on one part of the machine solved on the training rows."""
    x, y = data["train"]
    solution = jh.solve(scaled(x, log_weights), y, l2=jnp.exp(log_l2), tol=1e-6)
    x, y = data[part]
    return jh.loss(solution.params, scaled(x, log_weights), y)


def grid_search(data: dict) -> tuple[np.ndarray, np.ndarray]:
    """Validation loss over a grid of l2, every machine solved in one vmap."""
    grid = np.logspace(-4, 1, 26, dtype=np.float32)
    losses = jax.jit(jax.vmap(lambda log_l2: loss_on(data, "validation", log_l2, jnp.zeros(len(GROUPS)))))
    return grid, np.asarray(losses(np.log(grid)))


def descend(data: dict, l2: float, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Adam on the logarithms of l2 and of the weights, from the best l2 of the grid."""
    value_and_grad = jax.value_and_grad(lambda point: loss_on(data, "validation", *point))
    optimizer = optax.adam(options.rate)

    def step(state: tuple, _: None) -> tuple[tuple, tuple]:
        point, moments = state
        value, gradient = value_and_grad(point)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(point, updates), moments), (value, *point)

    start = (jnp.log(jnp.float32(l2)), jnp.zeros(len(GROUPS)))
    _, (value, log_l2, log_weights) = jax.jit(
        lambda start: jax.lax.scan(step, (start, optimizer.init(start)), length=options.steps)
    )(start)
    return {"loss": np.asarray(value), "log_l2": np.asarray(log_l2), "log_weights": np.asarray(log_weights)}


def report(data: dict, history: dict[str, np.ndarray], grid_l2: float) -> None:
    print(f"\n{'step':>5} {'validation':>10} {'l2':>9}  " + "  ".join(f"{name:>15}" for name in GROUPS))
    steps = len(history["loss"])
    for step in sorted({*range(0, steps, max(1, steps // 6)), steps - 1}):
        weights = "  ".join(f"{value:15.3f}" for value in np.exp(history["log_weights"][step]))
        print(f"{step:5d} {history['loss'][step]:10.4f} {np.exp(history['log_l2'][step]):9.2g}  {weights}")
    best = int(np.argmin(history["loss"]))
    test = jax.jit(lambda log_l2, log_weights: loss_on(data, "test", log_l2, log_weights))
    before = test(np.log(np.float32(grid_l2)), np.zeros(len(GROUPS), np.float32))
    after = test(history["log_l2"][best], history["log_weights"][best])
    print(f"\ntest loss: {before:.4f} with the best l2 of the grid, {after:.4f} with l2 and weights by gradients")


def draw(out: Path, history: dict[str, np.ndarray], grid: np.ndarray, grid_loss: np.ndarray) -> None:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    left.semilogx(grid, grid_loss, "o-", color="#555555", markersize=4)
    left.set(xlabel="l2", ylabel="validation hinge loss", title="Grid search over l2 alone")
    middle.plot(history["loss"], color="#0072B2")
    middle.axhline(grid_loss.min(), color="#555555", linestyle="--")
    middle.text(len(history["loss"]), grid_loss.min(), "best of the grid ", color="#555555", ha="right", va="bottom")
    middle.set(xlabel="step", ylabel="validation hinge loss", title="Gradient descent through the solver")
    for name, colour, weight in zip(GROUPS, COLOURS, np.exp(history["log_weights"]).T, strict=True):
        style = "--" if name.startswith("noise") else "-"
        right.semilogy(weight, style, color=colour, label=name)
    right.set(xlabel="step", ylabel="weight of the group", title="The groups separate")
    right.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    main()
