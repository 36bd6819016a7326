"""What `on_accelerator.py` compares with: NumPy in float64, from the definitions; nothing here is of the package."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

BLOCK = 100_000  # rows that are widened to float64 at a time


def binary_rows(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that overlap, in float32 and int32, with a bias that matters."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d), dtype=np.float32)
    score = x[:, : min(8, d)].sum(axis=1) + 0.5
    return x, np.where(score + 2 * rng.standard_normal(n, dtype=np.float32) > 0, 1, -1).astype(np.int32)


class LossReference(NamedTuple):
    """The objective and its gradient in `(w, b)`, and for each number by how much rounding may move it."""

    value: float
    gradient: np.ndarray  # (d + 1,), the bias last
    value_bound: float
    gradient_bound: np.ndarray


def loss_reference(
    params: Any, x: np.ndarray, y: np.ndarray, l2: float, products: float = 0.0, slopes: float = 0.0, out: float = 0.0
) -> LossReference:
    """The hinge objective, for rows whose numbers are rounded by `products`, relatively, before they are multiplied.

    A score may be off by `(products + d u) sum_j |x_j w_j|`, u = 2^-24: a bound. A sum of n numbers in float32, in an
    unknown order, is allowed sqrt(n) u of the sum of their sizes: what rounding does at random. A row whose margin is
    so near to 1 that the error of its score may take it across the kink may be in the gradient or not. The slopes of
    the rows are rounded by `slopes`, and the gradient by `out` when it is stored.
    """
    (n, d), u = x.shape, 2.0**-24
    w, b = np.asarray(params[0], np.float64), float(params[1])
    value = slack_error = 0.0
    gradient, sizes, flips = np.zeros(d + 1), np.zeros(d + 1), np.zeros(d + 1)
    for begin in range(0, n, BLOCK):
        rows = np.column_stack([x[begin : begin + BLOCK].astype(np.float64), np.ones(len(x[begin : begin + BLOCK]))])
        targets = y[begin : begin + BLOCK]
        slack = 1 - targets * (rows[:, :d] @ w + b)
        size = np.abs(rows)
        error = (products + (d + 2) * u) * (size[:, :d] @ np.abs(w) + abs(b) + 1)
        value += np.maximum(slack, 0).sum()
        slack_error += error[slack > -error].sum()
        active = (slack > 0).astype(np.float64)
        gradient -= (active * targets) @ rows
        sizes += active @ size
        flips += (np.abs(slack) <= error).astype(np.float64) @ size
    data, sums = gradient / n, np.sqrt(n) * u
    penalty = np.append(l2 * w, 0.0)
    return LossReference(
        value / n + l2 / 2 * w @ w,
        data + penalty,
        slack_error / n + sums * value / n + 4 * u,
        (flips + (products + slopes + sums) * sizes) / n + (out + 4 * u) * np.abs(data + penalty) + u,
    )


class Machine(NamedTuple):
    """`sum_i c_i max(0, r_i - sign_i (x_i . w + b))^p + l2/2 |w|^2 + linear b`: all binary solvers are cases of it."""

    x: np.ndarray
    sign: np.ndarray
    r: np.ndarray
    c: np.ndarray
    l2: float
    intercept: Any = True
    squared: bool = False
    linear: float = 0.0

    def primal(self, params: Any) -> float:
        w, b = (np.asarray(leaf, np.float64) for leaf in params)
        losses = np.maximum(0, self.r - self.sign * (self.x @ w + b))
        norm = w @ w + (b * b if self.intercept == "regularized" else 0)
        return float(self.c @ (losses**2 if self.squared else losses) + self.l2 / 2 * norm + self.linear * b)

    def dual(self, alpha: Any) -> float:
        """The value of a dual point, put into its box first and, where the bias is free, on its hyperplane."""
        alpha = np.maximum(np.asarray(alpha, np.float64), 0)
        if not self.squared:
            alpha = np.minimum(alpha, self.c)
        if self.intercept is True and self.linear:
            alpha = alpha * (self.linear / alpha.sum())  # all signs are +1
        elif self.intercept is True:
            positive, negative = alpha[self.sign > 0].sum(), alpha[self.sign < 0].sum()
            common = min(positive, negative)
            alpha = alpha * np.where(self.sign > 0, common / (positive or 1), common / (negative or 1))
        push = alpha * self.sign
        norm = np.sum((push @ self.x) ** 2) + (push.sum() ** 2 if self.intercept == "regularized" else 0)
        value = alpha @ self.r - norm / (2 * self.l2)
        return float(value - (alpha**2 / (4 * self.c)).sum() if self.squared else value)


def hinge_machine(
    x: Any, y: Any, l2: float, weight: Any = None, *, intercept: Any = True, squared: bool = False
) -> Machine:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    weight = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
    return Machine(x, y, np.ones(len(x)), weight / weight.sum(), float(l2), intercept, squared)


def two_sided_machine(x: Any, y: Any, l2: float, above: float, below: float, epsilon: float) -> Machine:
    """`above max(0, r - epsilon) + below max(0, -r - epsilon)`: two rows for each, as the solvers' dual has them."""
    y = np.asarray(y, np.float64)
    n = len(y)
    return Machine(
        x=np.repeat(np.asarray(x, np.float64), 2, axis=0),
        sign=np.tile([1.0, -1.0], n),
        r=np.stack([y - epsilon, -y - epsilon], axis=1).ravel(),
        c=np.tile([above, below], n) / n,
        l2=float(l2),
    )


def one_class_machine(x: Any, nu: float, l2: float) -> Machine:
    n = len(x)
    return Machine(np.asarray(x, np.float64), np.ones(n), np.zeros(n), np.full(n, 1 / (nu * n)), float(l2), linear=1.0)


def multiclass_values(kind: str, x: Any, labels: Any, l2: float, params: Any, dual: Any) -> tuple[float, float]:
    """Primal and dual value of a multiclass machine with free biases.

    The pushes come rounded, so that their sums over the rows are not quite 0. What that may be worth at the biases
    found is taken from the dual value.
    """
    x, n = np.asarray(x, np.float64), len(x)
    w, b, dual = (np.asarray(leaf, np.float64) for leaf in (*params, dual))
    if kind == "one_vs_rest":
        machines = [hinge_machine(x, np.where(labels == j, 1, -1), l2) for j in range(w.shape[1])]
        primal = sum(machine.primal((w[:, j], b[j])) for j, machine in enumerate(machines))
        return primal, sum(machine.dual(dual[:, j]) for j, machine in enumerate(machines))
    label = np.eye(w.shape[1])[labels]
    violations = np.maximum(1 + x @ w + b - ((x @ w + b) * label).sum(axis=1, keepdims=True), 0) * (1 - label)
    losses = violations.max(axis=1) if kind == "crammer_singer" else violations.sum(axis=1)
    dual = np.maximum(dual, 0) * (1 - label)
    of_row = dual.sum(axis=1, keepdims=True) if kind == "crammer_singer" else dual
    dual = dual / np.maximum(1, of_row * n)
    push = label * dual.sum(axis=1, keepdims=True) - dual
    imbalance = np.abs(push.sum(axis=0)) @ np.abs(b)
    value = dual.sum() - np.sum((x.T @ push) ** 2) / (2 * l2) - imbalance
    return float(losses.mean() + l2 / 2 * np.sum(w * w)), float(value)
