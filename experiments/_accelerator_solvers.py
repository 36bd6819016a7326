"""Checks of `on_accelerator.py` on the solvers, grids and the derivatives of solutions."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _accelerator_references import (
    Machine,
    binary_rows,
    hinge_machine,
    multiclass_values,
    one_class_machine,
    two_sided_machine,
)
from _accelerator_tools import (
    EPS,
    L2,
    Finding,
    Findings,
    Setting,
    bytes_in_use,
    called,
    certified,
    judged,
    lane,
    on_device,
    peak_bytes,
    statuses,
    temporary,
)

import jaxhinge as jh

LOSSES = ("crammer_singer", "weston_watkins", "one_vs_rest")
TOL = 1e-4


def medium(setting: Setting) -> tuple[int, ...]:
    return setting.sized((20_000, 64), (1_500, 8))


# ---- the support vector machine


def check_solve(setting: Setting) -> Findings:
    """`solve` on device arrays, the gap made again in NumPy; memory; float64 inside."""
    n, d = setting.sized((200_000, 64), (3_000, 16))
    host, y = binary_rows(n, d)
    x, targets = on_device(host, y)
    machine = hinge_machine(host, y, L2)
    yield solve_and_memory(setting, x, targets, machine)
    if setting.has_float64:
        # In float32 a gap ends at about 1e-6: below that there is float64 inside, or no certificate.
        yield one_solve("solve, tol=1e-8, as_numpy", machine, x, targets, tol=1e-8, rounding=1e-11, as_numpy=True)
    squared = hinge_machine(host, y, L2, intercept="regularized", squared=True)
    options = {"fit_intercept": "regularized", "loss": "squared_hinge"}
    yield one_solve("solve, squared hinge, bias regularised", squared, x, targets, **options)


def solve_and_memory(setting: Setting, x: Any, targets: Any, machine: Machine) -> Findings:
    before, start = bytes_in_use(setting.device), peak_bytes(setting.device)
    yield from one_solve(f"solve, {x.shape[0]:,} x {x.shape[1]}", machine, x, targets)
    peak = peak_bytes(setting.device)
    if peak is not None:
        note = "not above the peak before, so at most this" if peak == start else "x is counted"
        yield Finding("solve: peak memory", (peak - before + x.nbytes) / x.nbytes, None, "of x", None, note)


def one_solve(
    name: str, machine: Machine, x: Any, targets: Any, tol: float = TOL, rounding: float = 4 * EPS, **options: Any
) -> Findings:
    solution, ms, note = called(partial(jh.solve, x, targets, l2=L2, tol=tol, **options))
    yield certified(name, machine, solution, tol, rounding=rounding, ms=ms, note=note)


def traced_solve(x: Any, y: Any, l2: Any, max_steps: Any, tol: Any) -> Any:
    return jh.solve(x, y, l2=l2, max_steps=max_steps, tol=tol)


def check_jit_solve(setting: Setting) -> Findings:
    """`solve` under `jit`: certified, memory, data that are refused, a step limit, float64 arrays under x64."""
    n, d = setting.sized((100_000, 64), (1_500, 8))
    host, y = binary_rows(n, d, seed=4)
    yield in_float32(setting, host, y)
    if setting.has_float64:
        yield in_float64(host, y)


def in_float32(setting: Setting, host: np.ndarray, y: np.ndarray) -> Findings:
    x, targets = on_device(host, y)
    machine = hinge_machine(host, y, np.float32(L2))
    tol = 1e-6 if setting.has_float64 else TOL
    arguments = jnp.float32(L2), jnp.int32(100), jnp.float32(tol)
    started = time.perf_counter()
    compiled = jax.jit(traced_solve).lower(x, targets, *arguments).compile()
    note = f"compiled in {time.perf_counter() - started:.1f} s"
    solution, ms, _ = called(partial(compiled, x, targets, *arguments))
    yield certified(f"jit(solve), {len(y):,} x {x.shape[1]}, tol={tol:g}", machine, solution, tol, ms=ms, note=note)
    yield Finding("jit(solve): memory beside x", temporary(compiled) / x.nbytes, None, "of x")
    refused = compiled(x.at[5, 2].set(jnp.nan), targets, *arguments)
    right = int(refused.status) == jh.Status.REFUSED and np.isnan(float(refused.gap))
    yield Finding("jit(solve), a NaN in x: not refused", float(not right), 0, "", None, statuses(refused.status))
    limited = compiled(x, targets, arguments[0], jnp.int32(1), arguments[2])
    primal, dual = machine.primal(limited.params), machine.dual(limited.dual)
    error = abs(float(limited.gap) - (primal - dual)) / primal
    told = statuses(limited.status)
    amiss = "" if told == "STEP_LIMIT" else "not the step limit"
    yield Finding("jit(solve), one step: claimed gap off by", error, 4 * EPS, "of primal", None, told, amiss)


def in_float64(host: np.ndarray, y: np.ndarray) -> Findings:
    with jax.enable_x64(True):
        x, targets = jnp.asarray(host, jnp.float64), jnp.asarray(y)
        run = partial(jax.jit(traced_solve), x, targets, L2, 100, 1e-8)
        solution, ms, note = called(run)
    machine = hinge_machine(host, y, L2)
    yield certified("jit(solve), x64, tol=1e-8", machine, solution, 1e-8, rounding=1e-11, ms=ms, note=note)


def check_vmap_solve(setting: Setting) -> Findings:
    """`vmap(solve)` over l2: every lane certified, in both nestings."""
    n, d = setting.sized((50_000, 64), (1_500, 8))
    host, y = binary_rows(n, d, seed=5)
    tol = 1e-6 if setting.has_float64 else TOL

    def one(l2: Any, x: Any, y: Any) -> Any:
        return jh.solve(x, y, l2=l2, tol=tol)

    axes = (0, None, None)
    yield lanes_of("jit(vmap(solve))", jax.jit(jax.vmap(one, axes)), host, y, tol)
    yield lanes_of("vmap(jit(solve))", jax.vmap(jax.jit(one), axes), host, y, tol)


def lanes_of(name: str, run: Any, host: np.ndarray, y: np.ndarray, tol: float) -> Findings:
    l2s = np.logspace(-4, 0, 8).astype(np.float32)
    name = f"{name}, {len(l2s)} l2, {host.shape[0]:,} x {host.shape[1]}"
    solutions, ms, note = called(partial(run, *on_device(l2s, host, y)))
    lanes = [certified(name, hinge_machine(host, y, l2), lane(solutions, i), tol, ms=ms) for i, l2 in enumerate(l2s)]
    yield worst_of(lanes, f"{statuses(solutions.status)}; {note}")


def worst_of(findings: list[Finding], note: str) -> Finding:
    """The lane that is amiss, or has the largest gap."""
    worst = max(findings, key=lambda finding: (bool(finding.amiss), finding.value))
    return worst._replace(note=f"{worst.amiss} {note}".strip())


# ---- the other solvers


def check_variants(setting: Setting) -> Findings:
    """Regression, quantile, ranking and one-class, each with its gap by NumPy."""
    n, d = medium(setting)
    rng = np.random.default_rng(6)
    host = rng.standard_normal((n, d), dtype=np.float32)
    real = (host[:, :4].sum(axis=1) + 0.5 * rng.standard_normal(n) + 1).astype(np.float32)
    pairs = rng.permutation(n)[: n // 2 * 2].reshape(-1, 2)
    # Preferred is the row with the larger noisy target.
    pairs = np.where((real[pairs[:, 0]] > real[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1])
    x, targets, chosen = on_device(host, real, pairs)
    shifted = host + np.float32(1)
    wide = host.astype(np.float64)
    differences = wide[pairs[:, 0]] - wide[pairs[:, 1]]
    m = len(pairs)
    ones = np.ones(m)
    runs = {
        "solve_regression": (
            partial(jh.solve_regression, x, targets, l2=L2, epsilon=0.25),
            two_sided_machine(host, real, L2, 1.0, 1.0, 0.25),
        ),
        "solve_quantile": (
            partial(jh.solve_quantile, x, targets, l2=L2, quantile=0.75),
            two_sided_machine(host, real, L2, 0.75, 0.25, 0.0),
        ),
        "solve_ranking": (
            partial(jh.solve_ranking, x, chosen, l2=L2),
            Machine(differences, ones, ones, ones / m, L2, False),
        ),
        "solve_one_class": (
            partial(jh.solve_one_class, jnp.asarray(shifted), nu=0.25),
            one_class_machine(shifted, 0.25, 1.0),
        ),
    }
    for name, (run, machine) in runs.items():
        yield one_variant(f"{name}, {n:,} x {d}", run, machine)


def one_variant(name: str, run: Any, machine: Machine) -> Findings:
    solution, ms, note = called(partial(run, tol=TOL))
    # Two sides have twice the duals to round, and one-class a small objective to compare with.
    yield certified(name, machine, solution, TOL, rounding=16 * EPS, ms=ms, note=note)


def check_multiclass(setting: Setting) -> Findings:
    """`solve_multiclass` in its three losses, each with its gap by NumPy."""
    n, d, k = setting.sized((20_000, 32, 5), (800, 6, 3))
    rng = np.random.default_rng(7)
    host = rng.standard_normal((n, d), dtype=np.float32)
    labels = (host[:, :k] + rng.standard_normal((n, k)) + 0.2 * np.arange(k)).argmax(axis=1).astype(np.int32)
    for kind in LOSSES:
        yield one_multiclass(kind, host, labels, k)


def one_multiclass(kind: str, host: np.ndarray, labels: np.ndarray, k: int) -> Findings:
    x, targets = on_device(host, labels)
    solution, ms, note = called(partial(jh.solve_multiclass, x, targets, l2=L2, loss=kind, tol=TOL))
    primal, dual = multiclass_values(kind, host, labels, L2, solution.params, solution.dual)
    name = f"solve_multiclass, {kind}, {host.shape[0]:,} x {host.shape[1]}, k = {k}"
    yield judged(name, primal, dual, solution, TOL, rounding=16 * EPS, ms=ms, note=note)


# ---- grids


def check_sweep(setting: Setting) -> Findings:
    """`sweep` on device arrays: scores made again, every problem within its gap of `solve`, the refit certified."""
    n, d = medium(setting)
    host, y = binary_rows(n, d, seed=8)
    x, targets = on_device(host, y)
    l2s, folds = np.logspace(-4, 0, 8), np.random.default_rng(9).integers(0, 3, n)
    grid, ms, note = called(partial(jh.sweep, x, targets, l2=l2s, folds=folds, tol=TOL, progress=False))
    w, b = (np.asarray(leaf, np.float64) for leaf in grid.params)
    wrong, beyond, largest = 0.0, -np.inf, 0.0
    for i, l2 in enumerate(l2s):
        for fold in range(3):
            rows = folds == fold
            scores = host[rows] @ w[i, fold] + b[i, fold]
            accuracy = np.mean(np.where(scores > 0, 1, -1) == y[rows])
            # A score of almost 0 may be on either side.
            unsure = np.mean(np.abs(scores) < 1e-5)
            wrong = max(wrong, abs(float(grid.val_score[i, fold]) - accuracy) - unsure)
            machine = hinge_machine(host[~rows], y[~rows], l2)
            primal = machine.primal((w[i, fold], b[i, fold]))
            largest = max(largest, float(grid.gap[i, fold]) / primal)
            if fold == i % 3 and i % 3 == 0:
                alone = jh.solve(host[~rows], y[~rows], l2=float(l2), tol=1e-6, as_numpy=True)
                bound = machine.dual(alone.dual)
                # The optimum lies above this bound, and the sweep no more than its gap above the optimum.
                beyond = max(beyond, (primal - float(grid.gap[i, fold]) - machine.primal(alone.params)) / primal)
                beyond = max(beyond, (bound - primal) / primal)
    amiss = "" if (np.asarray(grid.status) == jh.Status.CONVERGED).all() else "not converged"
    note = f"{statuses(grid.status)}; {note}"
    yield Finding(
        f"sweep, 8 l2 x 3 folds, {n:,} x {d}: largest gap", largest, TOL + 4 * EPS, "of primal", ms, note, amiss
    )
    yield Finding("sweep: accuracy held out, off by", wrong, 4 * EPS)
    yield Finding("sweep: beyond its gap of solve alone", beyond, 8 * EPS, "of primal")
    refit = hinge_machine(host, y, float(grid.best_l2))
    yield certified("sweep: the refit", refit, grid.best, TOL, rounding=8 * EPS)


def check_path(setting: Setting) -> Findings:
    """`path` on device arrays, and `duality_gap` of given parameters, with a dual and without."""
    n, d = medium(setting)
    host, y = binary_rows(n, d, seed=8)
    x, targets = on_device(host, y)
    l2s = np.logspace(0, -4, 5)
    found, ms, note = called(partial(jh.path, x, targets, l2=l2s, tol=TOL))
    solutions = jh.Solution(*found[1:])
    points = [
        certified(
            f"path, 5 l2, {n:,} x {d}",
            hinge_machine(host, y, float(l2)),
            lane(solutions, i),
            TOL,
            rounding=8 * EPS,
            ms=ms,
        )
        for i, l2 in enumerate(l2s)
    ]
    yield worst_of(points, f"{statuses(found.status)}; {note}")
    machine, point = hinge_machine(host, y, float(l2s[1])), lane(solutions, 1)
    gap, ms, note = called(partial(jh.duality_gap, point.params, x, targets, l2=float(l2s[1]), dual=point.dual))
    expected = machine.primal(point.params) - machine.dual(point.dual)
    yield Finding("duality_gap, dual given: off by", abs(float(gap) - expected), EPS, "", ms, note)
    # Of parameters that are far from optimal the bound is nearly their true excess, and never below it.
    far = jh.LinearParams(0.5 * point.params.w, point.params.b + 0.1)
    gap, ms, note = called(partial(jh.duality_gap, far, x, targets, l2=float(l2s[1])))
    low, high = (machine.primal(far) - value for value in (machine.primal(point.params), machine.dual(point.dual)))
    outside = max(low - float(gap), float(gap) - high)
    yield Finding(
        "duality_gap, none given: outside the true excess", outside, 2 * EPS, "", ms, f"{note}; gap {float(gap):.4g}"
    )


# ---- derivatives


def check_implicit(setting: Setting) -> Findings:
    """`jax.grad` of a validation loss through `solve`, by log l2 and by weights, against central differences."""
    if not setting.has_float64:
        yield Finding("implicit", note="left out: the differences need float64")
        return
    host, y = binary_rows(60, 4, seed=13)
    held_out, signs = binary_rows(200, 4, seed=11)
    weight = np.random.default_rng(12).uniform(0.5, 1.5, 60)
    direction = np.random.default_rng(13).uniform(-1, 1, 60)
    x, targets, x_val, y_val = on_device(host, y, held_out, signs)
    log_l2 = np.log(0.05)

    def validation(log_l2: Any, weight: Any) -> jax.Array:
        params = jh.solve(x, targets, l2=jnp.exp(log_l2), sample_weight=weight, tol=1e-7).params
        with jax.default_matmul_precision("highest"):
            return jh.loss(params, x_val, y_val, loss_fn=jh.losses.squared_hinge_loss)

    run = jax.jit(jax.grad(validation, (0, 1)))
    arguments = jnp.float32(log_l2), jnp.asarray(weight, jnp.float32)
    (by_l2, by_weight), ms, note = called(partial(run, *arguments))

    def exactly(log_l2: float, weight: np.ndarray) -> float:
        solution = jh.solve(host, y, l2=float(np.exp(log_l2)), sample_weight=weight, tol=1e-12, as_numpy=True)
        assert solution.gap <= 1e-11 * solution.primal_value, f"the reference has a gap of {solution.gap:.2g}"
        w, b = solution.params
        return float((np.maximum(0, 1 - signs * (held_out.astype(np.float64) @ w + b)) ** 2).mean())

    def slope(along: np.ndarray | None, step: float) -> float:
        ends = []
        for move in (step, -step):
            moved = (log_l2 + move, weight) if along is None else (log_l2, weight + move * along)
            ends.append(exactly(*moved))
        return (ends[0] - ends[1]) / (2 * step)

    found = float(by_l2), float(np.asarray(by_weight, np.float64) @ direction)
    for name, value, along in zip(("log l2", "sample_weight"), found, (None, direction), strict=True):
        expected, finer = slope(along, 1e-3), slope(along, 5e-4)
        # Where a row changes sides between the two ends, differences say nothing.
        amiss = "" if abs(finer / expected - 1) < 1e-3 else f"differences {expected:.6g} and {finer:.6g} disagree"
        # They are off by the square of the step, and by the accuracy of the solutions over it.
        error = abs(value / finer - 1)
        yield Finding(f"grad through solve, by {name}", error, 1e-3, "relative", ms, f"{finer:.4g}; {note}", amiss)
