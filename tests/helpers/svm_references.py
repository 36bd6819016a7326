"""The support vector machine once more, in plain NumPy float64, from the definitions: slow, too simple to be wrong.

Nothing here comes from the package. A problem is a `Machine`; `x` is `(n, d)`, `y` is -1 and +1, `weight` is
`(n,)`, and `intercept` is True (free), False, or "regularized".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# Most tests share two shapes, for a new shape is a new compilation: rows are padded to 48 and to 240.
N, LARGE, D = 48, 240, 4


def noisy(n=N, seed=0):
    """Rows of two classes that overlap, with a bias that matters."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D)) * [1.0, 2.0, 0.5, 1.0] + [0.5, 0.0, 0.0, -0.2]
    return x, np.where(x @ [1.0, -0.5, 1.0, 0.0] + 0.8 * rng.normal(size=n) > 0.3, 1.0, -1.0)


class Machine(NamedTuple):
    x: Any
    y: Any
    l2: Any
    weight: Any = None
    intercept: Any = True
    squared: bool = False

    def rows(self):
        """Float64 rows, targets and the share of each row in the mean."""
        x, y = np.asarray(self.x, np.float64), np.asarray(self.y, np.float64)
        weight = np.ones(len(x)) if self.weight is None else np.asarray(self.weight, np.float64)
        return x, y, weight / weight.sum()


def primal_value(machine, params):
    x, y, share = machine.rows()
    w, b = (np.asarray(leaf, np.float64) for leaf in params)
    losses = np.maximum(0, 1 - y * (x @ w + b))
    if machine.squared:
        losses = losses**2
    norm = w @ w + (b * b if machine.intercept == "regularized" else 0)
    return share @ losses + float(machine.l2) / 2 * norm


def dual_value(machine, dual):
    """The value of the dual point, put into its box first, and for a free bias on its hyperplane."""
    x, y, share = machine.rows()
    alpha = np.maximum(np.asarray(dual, np.float64), 0)
    alpha = np.where(share > 0, alpha, 0) if machine.squared else np.minimum(alpha, share)
    if machine.intercept is True:
        positive, negative = alpha[y > 0].sum(), alpha[y < 0].sum()
        common = min(positive, negative)
        alpha = alpha * np.where(y > 0, common / (positive or 1), common / (negative or 1))
    pull = (alpha * y) @ x
    bias = (alpha * y).sum() if machine.intercept == "regularized" else 0
    value = alpha.sum() - (pull @ pull + bias**2) / (2 * float(machine.l2))
    return value - (alpha[share > 0] ** 2 / (4 * share[share > 0])).sum() if machine.squared else value


def relative_gap(machine, solution):
    """The gap of a solution, computed without trusting any of its numbers but `params` and `dual`."""
    primal = primal_value(machine, solution.params)
    return (primal - dual_value(machine, solution.dual)) / primal


def plain_solve(machine, sweeps=4000):
    """The dual solved by coordinate descent, or by pairs for a free bias: `(w, b)`."""
    x, y, share = machine.rows()
    if machine.intercept == "regularized":
        x = np.column_stack([x, np.ones(len(x))])
    alpha, w = (_by_pairs if machine.intercept is True else _by_coordinates)(machine, x, y, share, sweeps)
    if machine.intercept == "regularized":
        return w[:-1], w[-1]
    return w, _bias(machine, y - x @ w, y, alpha, share) if machine.intercept is True else 0.0


def _box(machine, share):
    return np.full_like(share, np.inf) if machine.squared else share


def _by_coordinates(machine, x, y, share, sweeps):
    """Hsieh et al., 2008, without shrinking: one dual variable at a time is set to its best value."""
    extra = 1 / (2 * share) if machine.squared else np.zeros_like(share)
    upper = _box(machine, share)
    alpha, w = np.zeros(len(x)), np.zeros(x.shape[1])
    curvature = (x * x).sum(axis=1) / machine.l2 + extra
    for _ in range(sweeps):
        largest = 0.0
        for i in range(len(x)):
            slope = 1 - y[i] * (x[i] @ w) - extra[i] * alpha[i]
            new = min(max(alpha[i] + slope / curvature[i], 0), upper[i])
            w += (new - alpha[i]) * y[i] * x[i] / machine.l2
            largest = max(largest, abs(new - alpha[i]))
            alpha[i] = new
        if largest < 1e-15:
            break
    return alpha, w


def _by_pairs(machine, x, y, share, sweeps):
    """Platt's SMO, always with the pair that violates optimality most."""
    extra = 1 / (2 * share) if machine.squared else np.zeros_like(share)
    upper = _box(machine, share)
    alpha, w = np.zeros(len(x)), np.zeros(x.shape[1])
    for _ in range(sweeps * len(x)):
        pull = y * (1 - extra * alpha) - x @ w
        can_rise = np.where(y > 0, alpha < upper, alpha > 0)
        can_fall = np.where(y > 0, alpha > 0, alpha < upper)
        i = np.argmax(np.where(can_rise, pull, -np.inf))
        j = np.argmin(np.where(can_fall, pull, np.inf))
        if pull[i] - pull[j] < 1e-11:
            break
        difference = x[i] - x[j]
        step = (pull[i] - pull[j]) / (difference @ difference / machine.l2 + extra[i] + extra[j])
        room_i = upper[i] - alpha[i] if y[i] > 0 else alpha[i]
        room_j = alpha[j] if y[j] > 0 else upper[j] - alpha[j]
        step = min(step, room_i, room_j)
        alpha[i], alpha[j] = alpha[i] + y[i] * step, alpha[j] - y[j] * step
        w += step * difference / machine.l2
    return alpha, w


def _bias(machine, residual, y, alpha, share):
    """From the rows on the margin, or for the squared hinge from those inside: there `y_i r_i` is `b + y_i xi_i`."""
    slack = y * alpha / (2 * share) if machine.squared else 0
    inside = alpha > 1e-9 * share
    inside &= alpha < _box(machine, share) * (1 - 1e-9)
    assert inside.any(), "no row holds the bias"
    return np.mean((residual - slack)[inside])


def kkt_violation(machine, params, dual):
    """The largest violation of the conditions of optimality, each written from the definition.

    In the units of the scores for complementarity; the stationarity of `w` is measured after division by `l2`.
    """
    x, y, share = machine.rows()
    w, b = (np.asarray(leaf, np.float64) for leaf in params)
    alpha = np.asarray(dual, np.float64)
    margin = y * (x @ w + b)
    push = alpha * y
    violations = [np.abs(w - push @ x / machine.l2).max(), np.maximum(-alpha / share, 0).max()]
    if machine.intercept is True:
        violations.append(abs(push.sum()))
    if machine.intercept == "regularized":
        violations.append(abs(b - push.sum() / machine.l2))
    if machine.squared:
        violations.append(np.abs(alpha / share - 2 * np.maximum(0, 1 - margin)).max())
        return max(violations)
    fraction = alpha / share
    violations.append(np.maximum(fraction - 1, 0).max())
    # Outside the margin the dual is 0, inside it is at its bound: what is lacking, times how far from the margin.
    violations.append((fraction * np.maximum(margin - 1, 0)).max())
    violations.append(((1 - fraction) * np.maximum(1 - margin, 0)).max())
    return max(violations)
