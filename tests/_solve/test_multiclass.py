"""`solve_multiclass`: every number is derived once more in NumPy from the definition, and agrees with other solvers."""

from fractions import Fraction
from functools import partial

import jax
import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.svm import LinearSVC

import jaxhinge as jh
from jaxhinge import Status
from jaxhinge._methods import interior_point as binary_interior_point
from jaxhinge._methods.interior_point import step as binary_step
from jaxhinge._methods.multiclass import host as multiclass_host
from jaxhinge._methods.multiclass import interior_point as multiclass_interior_point
from jaxhinge._methods.multiclass import stages as multiclass_stages
from jaxhinge._methods.multiclass.interior_point import _newton as multiclass_interior_point_newton

N, D, K = 60, 3, 3
LOSSES = {
    "crammer_singer": jh.losses.multiclass_hinge_loss,
    "weston_watkins": jh.losses.weston_watkins_loss,
    "one_vs_rest": jh.losses.one_vs_rest_hinge_loss,
}
CASES = [
    ("crammer_singer", True),
    ("crammer_singer", "regularized"),
    ("weston_watkins", True),
    ("weston_watkins", False),
    ("one_vs_rest", True),
    ("one_vs_rest", "regularized"),
]


def blobs(seed=0, n=N, classes=K):
    """Classes that overlap, with different numbers of rows and an offset that the bias must take up."""
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, classes, n)) if seed else np.repeat(np.arange(3), [30, 20, 10])
    centres = 1.2 * rng.normal(size=(classes, D))
    return centres[labels] + rng.normal(size=(n, D)) + [0.5, 0.0, 2.0], labels


X, LABELS = blobs()


def solved(x=X, labels=LABELS, *, loss, intercept, l2=0.02, **options):
    return jh.solve_multiclass(x, labels, l2=l2, loss=loss, fit_intercept=intercept, as_numpy=True, **options)


def shares(n, weight):
    weight = np.ones(n) if weight is None else np.asarray(weight, np.float64)
    return weight / weight.sum()


def violations(params, x, labels):
    """`1 + s_j - s_label`, and 0 for the label itself, row by row."""
    w, b = (np.asarray(leaf, np.float64) for leaf in params)
    rows = []
    for features, label in zip(np.asarray(x, np.float64), labels, strict=True):
        scores = features @ w + b
        row = 1 + scores - scores[label]
        row[label] = 0
        rows.append(row)
    return np.array(rows)


def primal_value(params, x, labels, *, l2, loss, intercept, weight=None):
    w, b = (np.asarray(leaf, np.float64) for leaf in params)
    if loss == "one_vs_rest":
        margins = np.where(np.eye(w.shape[1])[labels] > 0, 1, -1) * (np.asarray(x, np.float64) @ w + b)
        losses = np.maximum(0, 1 - margins).sum(axis=1)
    else:
        excess = np.maximum(0, violations(params, x, labels))
        losses = excess.max(axis=1) if loss == "crammer_singer" else excess.sum(axis=1)
    norm = (w * w).sum() + ((b * b).sum() if intercept == "regularized" else 0)
    return shares(len(x), weight) @ losses + l2 / 2 * norm


def pulls(dual, labels, loss):
    """What every row does to every score: `sum_i pull_ij x_i = l2 w_j` at the solution."""
    own = np.eye(dual.shape[1])[labels]
    if loss == "one_vs_rest":
        return np.where(own > 0, dual, -dual)
    assert (dual[own > 0] == 0).all()
    return own * dual.sum(axis=1, keepdims=True) - dual


def dual_value(dual, x, labels, *, l2, loss, intercept, weight=None, slack=1e-12):
    """The dual objective, after the constraints were seen to hold."""
    share = shares(len(x), weight)
    used = dual.sum(axis=1, keepdims=True) if loss == "crammer_singer" else dual
    assert (dual >= 0).all()
    assert (used <= share[:, None] + slack).all()
    pull = pulls(dual, labels, loss)
    if intercept is True:
        assert np.abs(pull.sum(axis=0)).max() <= slack
    adjoint = pull.T @ x
    squares = (adjoint**2).sum() + ((pull.sum(axis=0) ** 2).sum() if intercept == "regularized" else 0)
    return dual.sum() - squares / (2 * l2)


def check_certificate(solution, x, labels, **problem):
    primal = primal_value(solution.params, x, labels, **problem)
    bound = dual_value(solution.dual, x, labels, **problem)
    assert solution.primal_value == pytest.approx(primal, rel=1e-12)
    assert solution.dual_value == pytest.approx(bound, rel=1e-9)
    assert solution.gap == pytest.approx(primal - bound, abs=1e-9 * primal)
    return (primal - bound) / primal


@pytest.mark.parametrize(("loss", "intercept"), CASES)
def test_the_certificate_from_the_definition(loss, intercept):
    for seed in range(3):
        x, labels = blobs(seed)
        for l2 in (1.0, 1e-2, 1e-4):
            solution = solved(x, labels, loss=loss, intercept=intercept, l2=l2)
            assert check_certificate(solution, x, labels, l2=l2, loss=loss, intercept=intercept) <= 1e-4
            assert solution.status == Status.CONVERGED
            with jax.enable_x64(True):
                own = jh.loss(
                    solution.params,
                    x,
                    labels,
                    l2=l2,
                    loss_fn=LOSSES[loss],
                    regularize_bias=intercept == "regularized",
                )
            assert solution.primal_value == pytest.approx(float(own), rel=1e-12)


@pytest.mark.parametrize(("loss", "intercept"), [("crammer_singer", True), ("weston_watkins", False)])
def test_the_conditions_of_optimality(loss, intercept):
    l2, share = 0.02, 1 / N
    solution = solved(loss=loss, intercept=intercept, tol=1e-11)
    (w, b), dual = solution.params, solution.dual
    pull, v = pulls(dual, LABELS, loss), violations(solution.params, X, LABELS)
    assert np.abs(w - X.T @ pull / l2).max() < 1e-5
    assert np.abs(b if intercept is False else pull.sum(axis=0)).max() < 1e-12
    if loss == "crammer_singer":
        # Pushed are the worst classes only, and with all its weight a row whose loss is positive.
        worst = np.maximum(v.max(axis=1), 0)
        assert (dual / share * (worst[:, None] - v)).max() < 1e-5
        assert ((1 - dual.sum(axis=1) / share) * worst).max() < 1e-5
    else:
        wrong = np.eye(K)[LABELS] == 0
        assert (dual / share * np.maximum(-v, 0))[wrong].max() < 1e-5
        assert ((1 - dual / share) * np.maximum(v, 0))[wrong].max() < 1e-5
    if intercept is True:
        assert abs(b.sum()) < 1e-12


def row_by_row(x, labels, l2, loss, sweeps=400):
    """The dual of the problem without a bias, a row at a time: Crammer-Singer as Keerthi et al. do, by a projection."""
    share = 1 / len(x)
    kept = share * np.eye(K)[labels] if loss == "crammer_singer" else np.zeros((len(x), K))
    w = np.zeros((x.shape[1], K))
    for _ in range(sweeps):
        before = kept.copy()
        for i, (features, label) in enumerate(zip(x, labels, strict=True)):
            scores, norm = features @ w, features @ features / l2
            v = 1 + scores - scores[label]
            v[label] = 0
            if loss == "crammer_singer":
                point = np.sort(kept[i] + v / norm)[::-1]
                thresholds = (np.cumsum(point) - share) / np.arange(1, K + 1)
                new = np.maximum(kept[i] + v / norm - thresholds[(point > thresholds).nonzero()[0][-1]], 0)
                w -= np.outer(features, new - kept[i]) / l2
                kept[i] = new
                continue
            for j in set(range(K)) - {label}:
                excess = 1 + features @ (w[:, j] - w[:, label])
                new = np.clip(kept[i, j] + excess / (2 * norm), 0, share)
                w[:, label] += (new - kept[i, j]) * features / l2
                w[:, j] -= (new - kept[i, j]) * features / l2
                kept[i, j] = new
        if np.abs(kept - before).max() < 1e-9:
            break
    return w


@pytest.mark.parametrize(("loss", "intercept"), [("crammer_singer", "regularized"), ("weston_watkins", False)])
def test_agrees_with_a_plain_dual_coordinate_descent(loss, intercept):
    for seed in range(2):
        x, labels = blobs(seed)
        problem = {"l2": 0.05, "loss": loss, "intercept": intercept}
        # A column of ones is a bias that counts in the norm.
        extra = np.full((N, 1), float(intercept == "regularized"))
        w = row_by_row(np.column_stack([x, extra]), labels, 0.05, loss)
        solution = solved(x, labels, **problem)
        reference = primal_value((w[:D], w[D]), x, labels, **problem)
        assert solution.dual_value <= reference * (1 + 1e-9)
        assert solution.primal_value == pytest.approx(reference, rel=1e-4)


@pytest.mark.parametrize("loss", ["crammer_singer", "weston_watkins"])
def test_agrees_with_a_general_solver_with_a_free_bias(loss):
    """SLSQP on the primal with slacks, for every fourth row; the others are there without weight."""
    weight = (np.arange(N) % 4 == 0).astype(float)
    x, labels = X[weight > 0], LABELS[weight > 0]
    n, size = len(x), (D + 1) * K
    wrong = [(i, j) for i in range(n) for j in range(K) if j != labels[i]]
    cells = [i for i, _ in wrong] if loss == "crammer_singer" else range(len(wrong))
    matrix = np.zeros((len(wrong), size + max(cells) + 1))
    for row, ((i, j), cell) in enumerate(zip(wrong, cells, strict=True)):
        features = np.append(x[i], 1.0)
        matrix[row, :size].reshape(D + 1, K)[:, labels[i]] += features
        matrix[row, :size].reshape(D + 1, K)[:, j] -= features
        matrix[row, size + cell] = 1
    penalty = np.concatenate([np.full(D * K, 0.05), np.zeros(matrix.shape[1] - D * K)])
    slacks = np.concatenate([np.zeros(size), np.full(matrix.shape[1] - size, 1 / n)])
    found = minimize(
        lambda z: z @ (penalty * z) / 2 + slacks @ z,
        np.concatenate([np.zeros(size), np.ones(matrix.shape[1] - size)]),
        jac=lambda z: penalty * z + slacks,
        bounds=[(None, None)] * size + [(0, None)] * (matrix.shape[1] - size),
        constraints={"type": "ineq", "fun": lambda z: matrix @ z - 1, "jac": lambda z: matrix},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-10},
    )
    assert found.success
    solution = solved(loss=loss, intercept=True, l2=0.05, sample_weight=weight)
    assert found.fun == pytest.approx(float(solution.primal_value), rel=1e-4)


def test_agrees_with_liblinear():
    for seed in range(3):
        x, labels = blobs(seed)
        model = LinearSVC(C=1.0, multi_class="crammer_singer", tol=1e-8, max_iter=100_000, random_state=0)
        model.fit(x, labels)
        problem = {"l2": 1 / N, "loss": "crammer_singer", "intercept": "regularized"}
        reference = primal_value((model.coef_.T, model.intercept_), x, labels, **problem)
        solution = solved(x, labels, **problem)
        assert reference == pytest.approx(float(solution.primal_value), rel=1e-4)
        assert reference >= solution.dual_value * (1 - 1e-9)
        assert (np.asarray(jh.predict(solution.params, x)) == model.predict(x)).mean() > 0.98


@pytest.mark.parametrize(("loss", "intercept"), [("crammer_singer", True), ("weston_watkins", False)])
def test_a_weight_of_two_is_a_row_given_twice(loss, intercept):
    weight = np.tile([0.0, 2.0, 1.0, 1.0, 1.0, 1.0], N // 6)
    twice = np.repeat(np.arange(N), weight.astype(int))
    weighed = solved(loss=loss, intercept=intercept, sample_weight=weight)
    repeated = solved(X[twice], LABELS[twice], loss=loss, intercept=intercept)
    assert weighed.dual_value <= repeated.primal_value
    assert repeated.dual_value <= weighed.primal_value
    assert (weighed.dual[weight == 0] == 0).all()
    problem = {"l2": 0.02, "loss": loss, "intercept": intercept, "weight": weight}
    assert check_certificate(weighed, X, LABELS, **problem) <= 1e-4


def test_two_classes_are_a_binary_machine():
    """With scores -s/2 and s/2 both multiclass losses are the hinge of s, and the norm is half of that of s."""
    labels = np.minimum(LABELS, 1)
    # One-vs-rest is that machine once for each side, and here once more for a class that has no rows.
    both = solved(X, labels, loss="one_vs_rest", intercept=True, l2=0.01, num_classes=3)
    binary, w = both.primal_value / 2, both.params.w[:, 1]
    two = solved(X, labels, loss="crammer_singer", intercept=True, l2=0.02)
    assert two.primal_value == pytest.approx(float(binary), rel=2e-4)
    difference = two.params.w[:, 1] - two.params.w[:, 0]
    assert np.abs(difference - w).max() < 0.05
    assert two.params.w[:, 1] == pytest.approx(-two.params.w[:, 0], abs=1e-12)
    # A third class that has no rows changes nothing where biases are free.
    three = solved(X, labels, loss="weston_watkins", intercept=True, l2=0.02, num_classes=3)
    assert three.primal_value == pytest.approx(float(binary), rel=2e-4)


@pytest.mark.parametrize(("loss", "intercept"), CASES)
def test_a_class_without_rows(loss, intercept):
    labels = np.where(LABELS == 1, 0, LABELS)
    solution = solved(X, labels, loss=loss, intercept=intercept)
    assert solution.status == Status.CONVERGED
    assert check_certificate(solution, X, labels, l2=0.02, loss=loss, intercept=intercept) <= 1e-4
    assert not (np.asarray(jh.predict(solution.params, X)) == 1).any()
    if intercept is True:
        assert (solution.params.w[:, 1] == 0).all()
        assert (solution.dual[:, 1] == 0).all()
    # Classes beyond the largest label, and one whose rows have no weight.
    weight = (LABELS != 1).astype(float)
    unweighted = solved(X, LABELS, loss=loss, intercept=intercept, sample_weight=weight, num_classes=K)
    assert unweighted.status == Status.CONVERGED


def test_separable_data_and_a_gap_that_floats_cannot_close():
    x, labels = 10 * np.eye(K)[LABELS] + X, LABELS
    for loss in ("crammer_singer", "one_vs_rest"):
        solution = solved(x, labels, loss=loss, intercept=True, l2=1e-6)
        assert solution.status == Status.CONVERGED
        assert (np.asarray(jh.predict(solution.params, x)) == labels).all()
    stalled = solved(loss="crammer_singer", intercept=True, tol=0.0)
    assert stalled.status == Status.STALLED
    assert abs(stalled.gap) < 1e-9


def test_slow_steps_are_no_stall():
    """Here complementarity falls by less than a tenth in each of many steps on end."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 20_000)
    x = rng.normal(size=(20_000, 6)) + 1.2 * rng.normal(size=(4, 6))[labels] + [1, 0, 0, 3, 0, 0]
    problem = {"l2": 1e-4, "loss": "weston_watkins", "intercept": "regularized"}
    solution = solved(x.astype(np.float32), labels, **problem)
    assert solution.status == Status.CONVERGED


def test_limits_warm_starts_and_dtypes():
    limited = solved(loss="crammer_singer", intercept=True, max_steps=2)
    assert (limited.steps, limited.status) == (2, Status.STEP_LIMIT)
    problem = {"l2": 0.02, "loss": "crammer_singer", "intercept": True}
    assert check_certificate(limited, X, LABELS, **problem) > 1e-4
    cold = solved(loss="crammer_singer", intercept=True)
    warm = solved(loss="crammer_singer", intercept=True, l2=0.021, init=cold)
    assert warm.steps < cold.steps
    assert warm.status == Status.CONVERGED

    single = jh.solve_multiclass(X.astype(np.float32), LABELS, l2=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(single[:5])} == {np.dtype(np.float32)}
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(single))
    # The objective of the rounded parameters, not of what they were before.
    value = primal_value(single.params, X.astype(np.float32), LABELS, **problem)
    assert single.primal_value == pytest.approx(value, rel=1e-7)
    assert single.dual_value <= cold.primal_value <= value + cold.gap
    with jax.enable_x64(True):
        double = jh.solve_multiclass(X, LABELS, l2=0.02)
    assert double.params.w.dtype == np.float64
    assert double.primal_value == pytest.approx(float(cold.primal_value), rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "intercept", "num_features"), [("crammer_singer", True, D), ("weston_watkins", False, 70)]
)
def test_ascents_alone(loss, intercept, num_features):
    # More features than rows among them.
    x, labels = blobs(4, classes=K + 1)
    x = np.column_stack([x, np.random.default_rng(5).normal(size=(N, num_features - D))])
    solution = solved(x, labels, loss=loss, intercept=intercept, l2=0.3, method="ascent")
    assert solution.status == Status.CONVERGED
    assert check_certificate(solution, x, labels, l2=0.3, loss=loss, intercept=intercept) <= 1e-4


@pytest.mark.parametrize("loss", ["crammer_singer", "weston_watkins"])
def test_ascents_before_the_interior_point_where_the_system_is_large(monkeypatch, loss):
    monkeypatch.setattr(multiclass_stages, "LARGE_SYSTEM", 0)
    monkeypatch.setattr(multiclass_host, "ASCENT_STEPS", 1)
    x = np.column_stack([X, np.random.default_rng(6).normal(size=(N, 70))])
    solution = solved(x, loss=loss, intercept=True, l2=1e-2)
    assert solution.status == Status.CONVERGED
    assert check_certificate(solution, x, LABELS, l2=1e-2, loss=loss, intercept=True) <= 1e-4
    monkeypatch.setattr(multiclass_stages, "LARGEST_SYSTEM", 0)
    few = solved(x, loss=loss, intercept=True, l2=1e-2, max_steps=2)
    assert (few.steps, few.status) == (2, Status.STEP_LIMIT)


def interrupted_after(steps, monkeypatch, **problem):
    """The solution where Ctrl-C is pressed during the next step, and whether it was."""
    calls = []

    def newton(*args):
        calls.append(args)
        if len(calls) == steps + 1:
            raise KeyboardInterrupt
        return multiclass_interior_point_newton(*args)

    monkeypatch.setattr(multiclass_interior_point, "_newton", newton)
    return solved(**problem, on_interrupt="return"), len(calls) > steps


@pytest.mark.parametrize(("loss", "intercept"), [("crammer_singer", True), ("weston_watkins", False)])
def test_whatever_is_reached_when_ctrl_c_is_pressed_is_certified(monkeypatch, loss, intercept):
    problem = {"loss": loss, "intercept": intercept}
    best = solved(**problem)
    for steps in (0, 1, 4, 100):
        found, was_interrupted = interrupted_after(steps, monkeypatch, **problem)
        assert found.status == (Status.STEP_LIMIT if was_interrupted else Status.CONVERGED)
        check_certificate(found, X, LABELS, l2=0.02, **problem)
        assert found.steps == min(steps, int(best.steps))
    assert not was_interrupted
    monkeypatch.setattr(multiclass_interior_point, "_newton", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        solved(**problem)


def test_ctrl_c_leaves_the_classes_of_one_vs_rest_that_are_solved(monkeypatch):
    steps = []

    def step(*args):
        steps.append(args)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return binary_step(*args)

    monkeypatch.setattr(binary_interior_point, "step", step)
    problem = {"loss": "one_vs_rest", "intercept": True}
    found = solved(**problem, on_interrupt="return")
    assert found.status == Status.STEP_LIMIT
    assert (found.params.w[:, 0] != 0).all()
    assert (found.params.w[:, -1] == 0).all()
    check_certificate(found, X, LABELS, l2=0.02, **problem)


@pytest.mark.parametrize("method", ["newton", "interior_point", "ascent"])
def test_methods_of_one_vs_rest(method):
    problem = {"loss": "one_vs_rest", "intercept": "regularized"}
    found, other = solved(**problem, method=method), solved(**problem)
    assert found.status == Status.CONVERGED
    assert check_certificate(found, X, LABELS, l2=0.02, **problem) <= 1e-4
    assert found.dual_value <= other.primal_value
    assert other.dual_value <= found.primal_value


def test_a_progress_bar_is_drawn_where_it_is_asked_for(capsys):
    for loss in LOSSES:
        solved(loss=loss, intercept=True, progress=True)
        assert "gap" in capsys.readouterr().err
        solved(loss=loss, intercept=True, progress=False)
        assert capsys.readouterr().err == ""


# The gap in exact arithmetic.


def exactly_feasible(dual, labels, share, *, loss, balanced):
    """The pushes as fractions, made feasible exactly: bounded, balanced by factors of the flow between classes, and
    bounded as a whole."""
    pushes = [[max(Fraction(value), Fraction(0)) for value in row] for row in dual]

    def used(row):
        return sum(row) / share if loss == "crammer_singer" else max(row) / share

    pushes = [[value / max(used(row), Fraction(1)) for value in row] for row in pushes]
    if balanced:
        flow = [
            [sum(row[j] for row, own in zip(pushes, labels, strict=True) if own == i) for j in range(K)]
            for i in range(K)
        ]
        # Of three classes the last has the potential 0.
        (a, b), (c, d) = [
            [sum(flow[i][j] + flow[j][i] for j in range(K)) if i == m else -flow[i][m] - flow[m][i] for m in range(2)]
            for i in range(2)
        ]
        e, f = (sum(flow[i]) - sum(flow[j][i] for j in range(K)) for i in range(2))
        potential = [(e * d - b * f) / (a * d - b * c), (a * f - e * c) / (a * d - b * c), Fraction(0)]
        pushes = [
            [value * (1 - potential[own] + potential[j]) for j, value in enumerate(row)]
            for row, own in zip(pushes, labels, strict=True)
        ]
        excess = max(max(used(row) for row in pushes), Fraction(1))
        pushes = [[value / excess for value in row] for row in pushes]
    return pushes


@pytest.mark.parametrize("intercept", [True, False, "regularized"])
@pytest.mark.parametrize("loss", ["crammer_singer", "weston_watkins"])
def test_the_gap_is_a_bound_in_exact_arithmetic(loss, intercept):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        labels = np.arange(9) % K
        x = rng.normal(size=(9, 2)) + (seed % 2) * np.eye(K)[labels][:, :2] * 4
        solution = solved(x, labels, loss=loss, intercept=intercept, l2=0.125, tol=(1e-12, 1e-3)[seed % 2])
        assert solution.gap >= 0
        bias = [[Fraction(float(value))] for value in solution.params.b]
        z = [[*map(Fraction, w), *b] for w, b in zip(solution.params.w.T, bias, strict=True)]
        rows = [[*map(Fraction, row), Fraction(int(intercept is not False))] for row in x]
        share, l2 = Fraction(1, 9), Fraction(0.125)
        scores = [[sum(a * b for a, b in zip(row, w, strict=True)) for w in z] for row in rows]
        excess = [
            [max(Fraction(0), 1 + s - row[own]) for j, s in enumerate(row) if j != own]
            for row, own in zip(scores, labels, strict=True)
        ]
        norm = sum(value**2 for w in z for value in (w if intercept == "regularized" else w[:-1]))
        primal = share * sum(max(row) if loss == "crammer_singer" else sum(row) for row in excess) + l2 / 2 * norm
        pushes = exactly_feasible(solution.dual, labels, share, loss=loss, balanced=intercept is True)
        bound = sum(map(sum, pushes))
        for j in range(K):
            pulls_of = [sum(row) if own == j else -row[j] for row, own in zip(pushes, labels, strict=True)]
            adjoint = [sum(pull * row[m] for pull, row in zip(pulls_of, rows, strict=True)) for m in range(3)]
            assert intercept is not True or adjoint[-1] == 0
            bound -= sum(value**2 for value in adjoint) / (2 * l2)
        assert 0 <= primal - bound <= Fraction(float(solution.gap))


# Compiled are two of the three problems for each loss, and each problem; NumPy solves all.
COMPILED = {
    "crammer_singer": [("narrow", "auto"), ("narrow", "ascent")],
    "weston_watkins": [("narrow", "auto"), ("wide", "auto")],
}


@pytest.mark.parametrize(("loss", "intercept"), [("crammer_singer", "regularized"), ("weston_watkins", True)])
def test_both_executors_reach_the_same_optimum(loss, intercept):
    options = {"loss": loss, "fit_intercept": intercept, "l2": 0.02}
    shapes = {"narrow": X, "wide": np.column_stack([X, np.random.default_rng(7).normal(size=(N, 70))])}
    for shape, method in (("narrow", "auto"), ("narrow", "ascent"), ("wide", "auto")):
        rows = shapes[shape]
        solve = partial(jh.solve_multiclass, **options, method=method)
        found = [solve(rows, LABELS)]
        if (shape, method) in COMPILED[loss]:
            found.append(jax.jit(lambda x, solve=solve: solve(x, LABELS))(rows))
        values = [primal_value(s.params, rows, LABELS, l2=0.02, loss=loss, intercept=intercept) for s in found]
        for solution, value in zip(found, values, strict=True):
            assert solution.status == Status.CONVERGED
            # The values come back as float32.
            assert solution.primal_value == pytest.approx(value, rel=3e-7)
            assert solution.dual_value <= min(values) * (1 + 3e-7)
            assert 0 <= solution.gap <= 1e-4 * value


# Under transformations.


@jax.jit
@jax.vmap
def lanes(l2, x, labels, max_steps):
    """Everything in lanes, compiled once for several tests."""
    return jh.solve_multiclass(x, labels, l2=l2, max_steps=max_steps, num_classes=K)


FOUR = {
    "l2": np.array([1e-4, 1e-2, 1.0, 100.0], np.float32),
    "x": np.stack([X.astype(np.float32)] * 4),
    "labels": np.stack([LABELS] * 4),
    "max_steps": np.full(4, 100, np.int32),
}


def in_lanes(**changes):
    return lanes(*(FOUR | changes).values())


def check_lane(found, index, x, labels, l2, loss="crammer_singer", intercept=True):
    w, b = (np.asarray(leaf[index]) for leaf in found.params)
    problem = {"l2": float(l2), "loss": loss, "intercept": intercept}
    value = primal_value((w, b), x, labels, **problem)
    best = solved(np.asarray(x, np.float64), labels, **problem)
    assert found.status[index] == Status.CONVERGED
    assert found.primal_value[index] == pytest.approx(value, rel=1e-6)
    # In float32 alone the gap would be wrong by about 1e-6 of the objective.
    assert found.dual_value[index] <= best.primal_value * (1 + 1e-6)
    assert value - best.dual_value <= 2.1e-4 * value


def test_every_lane_is_certified():
    found = in_lanes()
    for index, l2 in enumerate(FOUR["l2"]):
        check_lane(found, index, FOUR["x"][index], LABELS, l2)
    assert len(set(found.steps.tolist())) > 1
    assert found.params.w.dtype == np.float32


def test_lanes_that_are_refused_or_limited_do_not_spoil_the_others():
    nan = FOUR["x"].copy()
    nan[1, 5, 2] = np.nan
    labels = FOUR["labels"].copy()
    labels[2] = 1
    labels[3, 0] = K
    found = in_lanes(x=nan, labels=labels)
    assert found.status.tolist() == [Status.CONVERGED, *[Status.REFUSED] * 3]
    assert np.isnan(found.gap).tolist() == [False, True, True, True]
    check_lane(found, 0, FOUR["x"][0], LABELS, FOUR["l2"][0])
    found = in_lanes(l2=np.array([-1.0, 1e-4, 1e-4, 0.0], np.float32), max_steps=np.array([9, 2, 100, 9], np.int32))
    assert found.status.tolist() == [Status.REFUSED, Status.STEP_LIMIT, Status.CONVERGED, Status.REFUSED]


@pytest.mark.parametrize(("loss", "intercept"), [("weston_watkins", False), ("one_vs_rest", True)])
def test_a_grid_of_strengths_outside_jit(loss, intercept):
    x = X.astype(np.float32)

    def one(l2):
        return jh.solve_multiclass(x, LABELS, l2=l2, loss=loss, fit_intercept=intercept)

    found = jax.vmap(jax.jit(one))(np.array([1e-2, 1.0, -1.0], np.float32))
    for index, l2 in enumerate(FOUR["l2"][1:3]):
        check_lane(found, index, x, LABELS, l2, loss, intercept)
    assert found.status[2] == Status.REFUSED
    assert np.isnan(found.gap[2])
    assert np.isnan(found.params.w[2]).all()


# Refusals.


def test_labels_that_are_none():
    def refused(labels, match, error=ValueError, **options):
        with pytest.raises(error, match=match):
            jh.solve_multiclass(X, labels, l2=0.1, **options)

    refused(np.where(LABELS == 0, -1, 1), r"labels from -1 to 1.*return_inverse")
    refused(LABELS + 0.5, "integer labels")
    refused(np.array(["a", "b", "c"])[LABELS], "integer labels")
    refused(np.zeros(N, int), "one class only")
    refused(LABELS, "num_classes=2", num_classes=2)
    refused(LABELS, "at least 2", num_classes=1)
    refused(LABELS[:, None], r"labels\[:, 0\]")
    refused(LABELS[:-1], "60 rows")
    refused(np.where(LABELS == 1, 1, 0), "one class only", sample_weight=(LABELS == 1).astype(float))


def test_values_and_options_that_are_refused():
    def refused(match, error=ValueError, **options):
        with pytest.raises(error, match=match):
            jh.solve_multiclass(**({"x": X, "labels": LABELS, "l2": 0.1} | options))

    refused(r"NaN or infinity in 1 of 180 places, the first at \(5, 2\)", x=np.where(X[5, 2] == X, np.nan, X))
    refused("above 0", l2=0.0)
    refused("must not be negative", sample_weight=-np.ones(N))
    refused("crammer_singer, weston_watkins, one_vs_rest; got 'hinge'", loss="hinge")
    refused('True, False or "regularized"', fit_intercept="free")
    binary = jh.Solution(jh.LinearParams(np.zeros(D), np.zeros(())), np.zeros(N), *np.zeros(5))
    refused(r"this problem needs \(3, 3\) and \(60, 3\)", init=binary)
    refused("init must be a Solution", TypeError, init=(X, LABELS))
    refused('method="newton" is for loss="one_vs_rest"', method="newton")
    refused("method must be", method="simplex")
    refused("on_interrupt must be", on_interrupt="stop")
    wide = np.random.default_rng(8).normal(size=(9_000, 1))
    refused('order 8202.*"ascent"', x=wide, labels=np.arange(9_000) % 4102, method="interior_point")
    with pytest.raises(ValueError, match="num_classes="):
        jax.jit(lambda labels: jh.solve_multiclass(X, labels, l2=0.1))(LABELS)
    with pytest.raises(ValueError, match="host only"):
        jax.jit(lambda l2: jh.solve_multiclass(X, LABELS, l2=l2, as_numpy=True))(0.1)
    with pytest.raises(ValueError, match="are for the host"):
        jax.jit(lambda l2: jh.solve_multiclass(X, LABELS, l2=l2, on_interrupt="return"))(0.1)
