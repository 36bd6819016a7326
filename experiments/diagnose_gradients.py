"""The gradient doctor on the classic ways to write the hinge gradient, and on ten common mistakes.

    python experiments/diagnose_gradients.py [--picture diagnose_gradients.png]

Prints one line for each function and saves a picture of the gradients that were returned beside
those that are valid. Runs in a few seconds.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np

import jaxhinge as jh

L2 = 0.1
GradFn = Callable[..., Any]


def textbook(active: Callable[[Any], Any]) -> GradFn:
    """The gradient with the rows that `active` picks by their margin."""

    def grad_fn(w: Any, b: Any, x: Any, y: Any) -> Any:
        push = -y * active(y * (x @ w + b))
        return x.T @ push / len(x) + L2 * w, push.mean()

    return grad_fn


def summed(w: Any, b: Any, x: Any, y: Any) -> Any:
    push = -y * (y * (x @ w + b) < 1)
    return x.T @ push + L2 * w, push.sum()


def mean_of_the_active(w: Any, b: Any, x: Any, y: Any) -> Any:
    active = y * (x @ w + b) < 1
    return -(y[active, None] * x[active]).mean(axis=0) + L2 * w, -y[active].mean()


def without_regulariser(w: Any, b: Any, x: Any, y: Any) -> Any:
    push = -y * (y * (x @ w + b) < 1)
    return x.T @ push / len(x), push.mean()


def regulariser_without_half(w: Any, b: Any, x: Any, y: Any) -> Any:
    push = -y * (y * (x @ w + b) < 1)
    return x.T @ push / len(x) + 2 * L2 * w, push.mean()


def regulariser_divided(w: Any, b: Any, x: Any, y: Any) -> Any:
    push = -y * (y * (x @ w + b) < 1)
    return (x.T @ push + L2 * w) / len(x), push.mean()


def bias_folded_into_the_weights(w: Any, b: Any, x: Any, y: Any) -> Any:
    theta, z = np.append(w, b), np.c_[x, np.ones(len(x))]
    push = -y * (y * (z @ theta) < 1)
    g = z.T @ push / len(x) + L2 * theta
    return g[:-1], g[-1]


def label_forgotten(w: Any, b: Any, x: Any, y: Any) -> Any:
    push = -1.0 * (y * (x @ w + b) < 1)
    return x.T @ push / len(x) + L2 * w, push.mean()


def labels_as_a_column(w: Any, b: Any, x: Any, y: Any) -> Any:
    margin = y[:, None] * (x @ w + b)
    push = (-y[:, None] * (margin < 1)).mean(axis=0)
    return x.T @ push / len(x) + L2 * w, push.mean()


def assigned_in_the_loop(w: Any, b: Any, x: Any, y: Any) -> Any:
    dw, db = 0 * w, 0.0
    for xi, yi in zip(x, y, strict=True):
        if yi * (xi @ w + b) < 1:
            dw, db = -yi * xi, -yi
    return dw / len(x) + L2 * w, db / len(x)


def torch_relu(w: Any, b: Any, x: Any, y: Any) -> Any:
    import torch

    w, b = (torch.tensor(value, requires_grad=True) for value in (w, b))
    slack = 1 - torch.tensor(y) * (torch.tensor(x) @ w + b)
    (torch.relu(slack).mean() + L2 / 2 * w.square().sum()).backward()
    return w.grad, b.grad


def functions() -> list[tuple[str, GradFn]]:
    """Names and functions: the classic ways first, then the mistakes."""
    classic: list[tuple[str, GradFn]] = [
        ("margin <= 1", textbook(lambda margin: margin <= 1)),
        ("margin <= 1 + 1e-7", textbook(lambda margin: margin <= 1 + 1e-7)),
        ("margin <= 1 + 0.1", textbook(lambda margin: margin <= 1 + 0.1)),
    ]
    if importlib.util.find_spec("torch") is not None:
        classic.append(("torch.relu", torch_relu))
    return [
        *classic,
        ("sum instead of mean", summed),
        ("mean over the violators", mean_of_the_active),
        ("no regulariser", without_regulariser),
        ("regulariser 2 * l2 * w", regulariser_without_half),
        ("everything divided by n", regulariser_divided),
        ("bias regularised", bias_folded_into_the_weights),
        ("label forgotten", label_forgotten),
        ("margin < 0", textbook(lambda margin: margin < 0)),
        ("labels as a column", labels_as_a_column),
        ("dw = in the loop", assigned_in_the_loop),
    ]


def problem() -> tuple[tuple[Any, float], Any, Any]:
    """Two overlapping clouds; rows 0 and 1 are on the kink, row 2 is a little outside."""
    rng = np.random.default_rng(0)
    y = np.where(np.arange(12) % 2 == 0, 1.0, -1.0)
    x = rng.normal(size=(12, 3)) + 0.5 * y[:, None]
    x[:3] = [[1.0, 0.0, 0.5], [-1.25, 0.0, 1.0], [1.0, 0.0, 0.625]]
    return (np.array([1.0, -0.5, 0.5]), -0.25), x, y


def main() -> None:
    """Print the table and save the picture."""
    parser = argparse.ArgumentParser(description="The gradient doctor on fourteen functions.")
    parser.add_argument("--picture", default="diagnose_gradients.png", help="where to save the picture")
    options = parser.parse_args()
    mpl.use("Agg")
    from matplotlib import pyplot

    params, x, y = problem()
    found = [(name, jh.diagnose(grad_fn, params, x, y, l2=L2)) for name, grad_fn in functions()]
    print(f"{'function':<26}{'verdict':<8}{'cause':<26}{'on the kink':<13}{'calls':>5}")
    for name, diagnosis in found:
        verdict = "right" if diagnosis.ok else "wrong"
        print(f"{name:<26}{verdict:<8}{diagnosis.cause:<26}{diagnosis.kink_choice:<13}{diagnosis.num_calls:>5}")
    print("\nThe report on the third:\n")
    print(found[2][1])
    columns = 4
    figure, axes = pyplot.subplots(
        -(-len(found) // columns), columns, figsize=(14, 11), layout="constrained", squeeze=False
    )
    known: dict[str, Any] = {}
    for ax, (name, diagnosis) in zip(axes.flat, found, strict=False):
        diagnosis.plot(ax=ax)
        handles = ax.get_legend_handles_labels()
        known |= dict(zip(handles[1], handles[0], strict=True))
        ax.get_legend().remove()
        ax.set_title(f"{name}\n{'valid' if diagnosis.ok else diagnosis.cause}", fontsize=10)
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    figure.legend(list(known.values()), list(known), loc="lower right", fontsize=11)
    figure.savefig(options.picture, dpi=110)
    print(f"\nSaved {options.picture}.")


if __name__ == "__main__":
    main()
