"""The solvers, sweeps and paths with hostile input."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from _hostile_common import CLASSES, Arguments, Function, canonical, chosen, finite, perhaps_sparse, real, rows_of, tame
from _hostile_losses import pp
from _hostile_values import Rng, spoilt

import jaxhinge as jh


def common_options(rng: Rng, rows: int) -> Arguments:
    optional: Arguments = {
        "sample_weight": rng.uniform(0.5, 2, rows), "tol": 1e-4, "max_steps": 100, "as_numpy": True, "init": None,
    }  # fmt: skip
    return chosen(rng, optional) | chosen(rng, {"progress": False, "on_interrupt": "return"}, 0.1)


def solve_arguments(rng: Rng) -> Arguments:
    x, y = rows_of(rng)
    choices: Arguments = {
        "loss": "squared_hinge",
        "fit_intercept": ("regularized", False)[rng.integers(2)],
        "method": ("ascent", "newton", "interior_point")[rng.integers(3)],
    }
    found = {"x": perhaps_sparse(rng, x), "y": y, "l2": 0.1} | common_options(rng, len(x)) | chosen(rng, choices)
    if "init" in found:
        found["init"] = jh.solve(x, y, l2=0.2) if rng.random() < 0.5 else jh.solve(x[:2], y[:2], l2=0.2)
    return found


def check_solution(arguments: Arguments, result: Any) -> str:
    leaves = [*result.params, result.dual, result.primal_value, result.dual_value, result.gap]
    if not real(*leaves):
        return f"not finite: {result}"
    if int(result.status) not in (0, 1, 2):
        return f"status {result.status}"
    primal, gap = float(result.primal_value), float(result.gap)
    if gap < -1e-6 * abs(primal) - 1e-30:
        return f"gap {gap} below 0 at {primal}"
    tol = float(np.asarray(arguments.get("tol", 1e-4)))
    if int(result.status) == 0 and gap > 1.0001 * tol * max(abs(primal), 1e-10) + 1e-30:
        return f"CONVERGED with gap {gap} at {primal}"
    rounding = 1e-12 if result.gap.dtype == np.float64 else 2e-6
    if abs(primal - float(result.dual_value) - gap) > rounding * (abs(primal) + abs(float(result.dual_value))):
        return f"gap {gap}, but {primal} - {float(result.dual_value)}"
    if (np.asarray(result.dual) < 0).any():
        return "a dual below 0"
    return ""


def check_solve(arguments: Arguments, result: Any) -> str:
    complaint = check_solution(arguments, result)
    x, y, w = canonical_rows(arguments)
    if complaint or not tame(1e6, x, *result.params):
        return complaint
    weights = canonical_weights(arguments, len(x))
    v = pp(1 - y * (x @ canonical(result.params.w) + float(result.params.b)))
    squared = arguments.get("loss") == "squared_hinge"
    norm = (canonical(result.params.w) ** 2).sum()
    if arguments.get("fit_intercept") == "regularized":
        norm = norm + float(result.params.b) ** 2
    expected = (weights * (v**2 if squared else v)).sum() + w / 2 * norm
    if abs(expected - float(result.primal_value)) > 1e-5 * (expected + np.abs(x).max() * np.sqrt(norm)) + 1e-7:
        return f"primal_value {float(result.primal_value)}, expected {expected}"
    if not squared and (np.asarray(result.dual) > weights * (1 + 1e-5)).any():
        return "a dual above its bound"
    return ""


def canonical_rows(arguments: Arguments) -> tuple[Any, Any, float]:
    """x, y and l2 in float64, as NumPy has them: the solver takes them in full precision on the host."""

    def wide(value: Any) -> Any:
        return np.asarray(value).astype(np.float64)

    return wide(arguments["x"]), wide(arguments["y"]), float(np.asarray(arguments["l2"]))


def canonical_weights(arguments: Arguments, n: int) -> Any:
    weights = arguments.get("sample_weight")
    weights = np.ones(n) if weights is None else np.asarray(weights).astype(np.float64)
    return weights / weights.sum()


@functools.cache
def compiled_solve() -> Any:
    return jax.jit(lambda x, y, l2, weight: jh.solve(x, y, l2=l2, sample_weight=weight))


def solve_under_jit(x: Any, y: Any, l2: Any, sample_weight: Any) -> Any:
    """Under a trace of one shape: values are not checked, so the status has to say it."""
    arrays = (np.asarray(value, np.float32) for value in (x, y, l2, sample_weight))
    return compiled_solve()(*arrays)


def traced_arguments(rng: Rng) -> Arguments:
    x = rng.normal(size=(5, 3)).astype(np.float32)
    y = np.array([1, -1, 1, -1, 1], np.float32)
    found: Arguments = {"x": x, "y": y, "l2": np.float32(0.1), "sample_weight": np.ones(5, np.float32)}
    name = ("x", "y", "l2", "sample_weight")[rng.integers(4)]
    specials = np.array((np.nan, np.inf, -1.0, 0.0, 1e38, 1e-45, 2.0, 1e-30, 1.0), np.float32)
    if name == "l2":
        return found | {"l2": np.float32(rng.choice(specials))}
    chosen = rng.random(found[name].shape) < rng.choice((0.1, 1.0))
    return found | {name: np.where(chosen, rng.choice(specials, found[name].shape), found[name])}


def check_traced(arguments: Arguments, result: Any) -> str:
    leaves = [*result.params, result.dual, result.primal_value, result.dual_value, result.gap]
    if int(result.status) == jh.Status.REFUSED:
        if not all(np.isnan(np.asarray(leaf)).all() for leaf in leaves):
            return "REFUSED with numbers"
        wide = {n: v.astype(np.float64) for n, v in arguments.items()}
        good = all(np.isfinite(v).all() for v in wide.values()) and wide["l2"] > 0 and np.isin(wide["y"], (-1, 1)).all()
        good = good and (wide["sample_weight"] >= 0).all()
        used = set(wide["y"][wide["sample_weight"] > 0]) if good else set()
        return (
            "REFUSED though in order"
            if good
            and len(used) == 2
            and tame(1e6, *wide.values())
            and wide["l2"] > 1e-20
            and wide["sample_weight"].sum() > 1e-20
            else ""
        )
    if not np.isin(arguments["y"], (-1, 1)).all() or not finite(*arguments.values()) or not arguments["l2"] > 0:
        return "bad data, but no REFUSED"
    return check_solution({}, result)


def variant_arguments(rng: Rng, name: str) -> Arguments:
    x, _ = rows_of(rng, np.float32)
    n = len(x)
    own: Arguments = {"x": perhaps_sparse(rng, x)}
    if name in ("solve_regression", "solve_quantile"):
        own |= {"y": rng.normal(size=n).astype(np.float32), "l2": 0.1}
        own |= {"epsilon": 0.2} if name == "solve_regression" else {"quantile": 0.3}
    elif name == "solve_ranking":
        i = rng.integers(0, n, 5)
        own |= {"pairs": np.stack([i, (i + 1) % n], 1), "l2": 0.1}
        n = 5
    else:
        own |= {"nu": 0.3, "l2": 1.0}
    return own | common_options(rng, n)


def multiclass_arguments(rng: Rng) -> Arguments:
    n = int(rng.choice((5, 16)))
    x = rng.normal(size=(n, 3)).astype(np.float32)
    labels = np.where(np.arange(n) < CLASSES, np.arange(n), rng.integers(0, CLASSES, n))
    choice = ({}, {"loss": "one_vs_rest"}, {"loss": "weston_watkins"})[rng.integers(3)]
    options = common_options(rng, n) | chosen(rng, {"num_classes": CLASSES, "fit_intercept": False}, 0.15)
    return {"x": perhaps_sparse(rng, x), "labels": labels, "l2": 0.1} | choice | options


def gap_arguments(rng: Rng) -> Arguments:
    x, y = rows_of(rng)
    found: Arguments = {
        "params": jh.LinearParams(rng.normal(size=x.shape[1]), np.asarray(rng.normal())), "x": perhaps_sparse(rng, x),
        "y": y, "l2": 0.1,
    }  # fmt: skip
    optional: Arguments = {
        "dual": rng.uniform(0, 1, len(x)), "sample_weight": rng.uniform(0.5, 2, len(x)), "loss": "squared_hinge",
        "fit_intercept": "regularized",
    }  # fmt: skip
    return found | chosen(rng, optional)


def blocks_arguments(rng: Rng) -> Arguments:
    """Blocks of rows, with or without weights, one of them perhaps of another kind."""
    x, y = rng.normal(size=(32, 3)), np.where(rng.random(32) < 0.5, 1, -1)
    parts: tuple[Any, ...] = (x, y, rng.uniform(0.5, 2, 32)) if rng.random() < 0.3 else (x, y)
    blocks = [tuple(part[start : start + 8] for part in parts) for start in range(0, 32, 8)]
    if rng.random() < 0.7:
        place = rng.integers(4)
        block = list(blocks[place])
        block[rng.integers(len(block))] = spoilt(rng, block[rng.integers(len(block))])
        blocks[place] = tuple(block)
    return {"x": blocks, "l2": 0.1, "tol": 1e-3} | chosen(rng, {"loss": "squared_hinge", "max_steps": 3}, 0.2)


def check_gap(arguments: Arguments, result: Any) -> str:
    if result.shape != ():
        return f"shape {result.shape}"
    value = float(result)
    if np.isnan(value):
        return "NaN without a refusal"
    return "" if value >= -1e-6 or value >= -1e-6 * abs(value) else f"gap {value} below 0"


def solvers() -> Iterator[Function]:
    names = ("w", "b", "init", "weights", "pairs")
    yield Function("solve", jh.solve, solve_arguments, check_solve, 4.0, names)
    yield Function("solve under jit", solve_under_jit, traced_arguments, check_traced, 0.8, names)
    for name, share in (
        ("solve_regression", 1.0),
        ("solve_quantile", 1.0),
        ("solve_ranking", 1.0),
        ("solve_one_class", 1.0),
    ):
        draw = functools.partial(variant_arguments, name=name)
        yield Function(name, getattr(jh, name), draw, check_solution, share, names)
    yield Function("solve_multiclass", jh.solve_multiclass, multiclass_arguments, check_solution, 1.5, names)
    yield Function("duality_gap", jh.duality_gap, gap_arguments, check_gap, 1.5, names)
    yield Function("solve on blocks", jh.solve, blocks_arguments, check_solution, 0.3, (*names, "y", "block", "blocks"))
    names = ("w", "b", "fold", "Fold", "tol")
    # A scoring of the caller's own may raise what it likes, as `len` does.
    yield Function("sweep", jh.sweep, sweep_arguments, check_sweep, 1.5, (*names, "len"))
    yield Function("path", jh.path, path_arguments, check_path, 1.0, names)


def sweep_arguments(rng: Rng) -> Arguments:
    n = 16
    x = perhaps_sparse(rng, rng.normal(size=(n, 3)))
    found: Arguments = {"x": x, "y": np.where(np.arange(n) % 2, 1, -1), "l2": np.array([1.0, 0.1]), "folds": 2}
    optional: Arguments = {
        "sample_weight": rng.uniform(0.5, 2, n), "scoring": "hinge", "select": "one_standard_error", "key": 1,
        "tol": 1e-3, "max_steps": 50, "memory_budget": 1e9, "progress": False, "as_numpy": True,
        "on_interrupt": "return", "loss": "squared_hinge", "fit_intercept": False,
    }  # fmt: skip
    if rng.random() < 0.3:
        found["y"] = np.arange(n) % CLASSES
    return found | chosen(rng, optional, 0.2)


def check_sweep(arguments: Arguments, result: Any) -> str:
    if not real(result.gap, result.val_score, result.best.gap, *result.best.params):
        return f"not finite: {result}"
    if not ((np.asarray(result.gap) >= -1e-6).all() and (np.asarray(result.best.gap) >= -1e-6).all()):
        return "a gap below 0"
    shape = (np.size(arguments["l2"]),)
    return "" if np.shape(result.l2) == shape else f"l2 of shape {np.shape(result.l2)}"


def path_arguments(rng: Rng) -> Arguments:
    x, y = rows_of(rng)
    found: Arguments = {"x": perhaps_sparse(rng, x), "y": y, "l2": np.array([1.0, 0.1, 0.01])}
    optional = {"sample_weight": rng.uniform(0.5, 2, len(x)), "tol": 1e-3, "max_steps": 50, "as_numpy": True}
    return found | chosen(rng, optional)


def check_path(arguments: Arguments, result: Any) -> str:
    if not real(result.gap, result.dual, *result.params):
        return f"not finite: {result}"
    return "" if (np.asarray(result.gap) >= -1e-6 * np.abs(result.primal_value)).all() else "a gap below 0"
