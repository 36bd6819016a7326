"""Sparse and wide rows: jaxhinge.solve and sweep against LinearSVC and GridSearchCV, side by side in one process.

Both minimise LIBLINEAR's objective with the bias in the norm: LinearSVC at its tol=1e-3, jaxhinge to a certified
relative gap of 1e-3. How far above the optimum each ended is measured by a lower bound from a solve to 1e-6. The grid
has 8 values of C and 3 folds; GridSearchCV has two jobs. The value and gradient of `loss` on a BCOO under `jit` is
timed against SciPy's two products, and the largest problem is solved in a process of its own, whose peak memory is
read.

    python experiments/bench_sparse.py                       # some minutes
    python experiments/bench_sparse.py --sets "text 1,200 x 5,000" --no-memory
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from _text_data import one_hot, text_like, wide
from bench_solve import objective, run_linear_svc, timed
from jax.experimental.sparse import BCOO
from scipy import sparse
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import LinearSVC

import jaxhinge as jh

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
OURS, PEER = "#0072B2", "#E69F00"  # told apart by all common kinds of colour vision
SETS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "text 1,200 x 5,000": lambda: text_like(1200, 5000, 100),
    "text 20,000 x 50,000": lambda: text_like(20_000, 50_000, 130),
    "text 100,000 x 200,000": lambda: text_like(100_000, 200_000, 100),
    "one-hot 50,000 x 5,000": lambda: one_hot(50_000, 5000, 20),
    "dense 200 x 20,000": lambda: wide(200, 20_000),
    "dense 1,000 x 5,000": lambda: wide(1000, 5000),
}
COSTS, GRID = (0.1, 1.0, 10.0, 100.0), np.logspace(-2, 1.5, 8)
TOLERANCE = 1e-3
BIG = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from _text_data import text_like
import jaxhinge as jh
x, y = text_like(60_000, 400_000, 110)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = jh.solve(x, y, l2=1 / len(y), tol=1e-3, as_numpy=True)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"60,000 x 400,000, {x.nnz / 1e6:.1f} million numbers, C = 1: {jh.Status(int(found.status)).name}, relative gap "
      f"{found.gap / found.primal_value:.1e}; peak memory {peak / 1e6:.2f} GB, {before / 1e6:.2f} GB before the solve")
"""


def solves(name: str, x: Any, y: Any, repeats: int) -> list[dict[str, Any]]:
    rows = []
    for cost in COSTS:
        l2, options = 1 / (cost * len(y)), {"fit_intercept": "regularized", "as_numpy": True}
        peer, theirs = timed(lambda cost=cost: run_linear_svc(x, y, cost, 1e-3, 1000), repeats)
        found, ours = timed(lambda l2=l2, o=options: jh.solve(x, y, l2=l2, tol=TOLERANCE, **o), repeats)
        bound = float(jh.solve(x, y, l2=l2, tol=1e-6, **options).dual_value)
        excess, of_peer = (objective(w, float(b), x, y, l2) / bound - 1 for w, b in (found.params, peer))
        assert -1e-9 <= excess <= found.gap / bound + 1e-9, (excess, found.gap)
        rows.append({"name": name, "C": cost, "ours": ours, "theirs": theirs, "excess": excess, "of_peer": of_peer})
        print(
            f"| {name} | {cost:g} | {ours * 1e3:.0f} ms | {theirs * 1e3:.0f} ms | {ours / theirs:.2f} "
            f"| {excess:.1e} | {of_peer:.1e} |",
            flush=True,
        )
    return rows


def grid(name: str, x: Any, y: Any) -> None:
    folds = list(StratifiedKFold(3).split(np.zeros(len(y)), y))
    size = len(y) * 2 / 3
    options = {"folds": folds, "fit_intercept": "regularized", "tol": TOLERANCE, "as_numpy": True}
    found, ours = timed(lambda: jh.sweep(x, y, l2=1 / (GRID * size), **options), 1)

    def search() -> Any:
        model = LinearSVC(loss="hinge", tol=1e-3, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return GridSearchCV(model, {"C": GRID}, cv=folds, n_jobs=2).fit(x, y)

    search()  # its two workers start once
    peer, theirs = timed(search, 1)
    best = float(np.max(found.val_score.mean(axis=1)))
    print(f"| {name} | {ours:.2f} s | {theirs:.2f} s | {ours / theirs:.2f} | {best:.4f} | {peer.best_score_:.4f} |")


def loss_products(repeats: int) -> None:
    x, y = text_like(20_000, 50_000, 130)
    x = x.astype(np.float32)
    rows = BCOO.from_scipy_sparse(sparse.csr_matrix(x))
    params = jh.LinearParams(jnp.ones(x.shape[1], jnp.float32), jnp.float32(0))
    run = jax.jit(jax.value_and_grad(lambda p, x, y: jh.loss(p, x, y, l2=0.1)))
    targets = jnp.asarray(y, jnp.float32)
    jax.block_until_ready(run(params, rows, targets))
    _, ours = timed(lambda: jax.block_until_ready(run(params, rows, targets)), 10 * repeats)
    w, transposed, push = np.ones(x.shape[1], np.float32), x.T, np.ones(len(y), np.float32)
    _, theirs = timed(lambda: (x @ w, transposed @ push), 10 * repeats)
    print(
        f"\nloss on a BCOO, value and gradient under jit: {ours * 1e3:.1f} ms; SciPy's two products: {theirs * 1e3:.1f}"
    )


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    names = list(dict.fromkeys(row["name"] for row in rows))
    figure, panels = plt.subplots(1, len(names), figsize=(2.6 * len(names) + 1, 3.4), sharey=True, squeeze=False)
    for panel, name in zip(panels[0], names, strict=True):
        own = [row for row in rows if row["name"] == name]
        costs = [row["C"] for row in own]
        panel.loglog(costs, [row["ours"] for row in own], "o-", color=OURS, label="jaxhinge, certified 1e-3")
        panel.loglog(costs, [row["theirs"] for row in own], "s--", color=PEER, label="LinearSVC, tol=1e-3")
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("C")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("seconds for a solve")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(out, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true", help="leave out the process of 60,000 x 400,000")
    parser.add_argument("--out", type=Path, default=HERE / "bench_sparse.png")
    args = parser.parse_args()
    data = {name: SETS[name]() for name in args.sets}
    print("\n| rows | C | ours | LinearSVC | ratio | ours above the optimum | LinearSVC above it |")
    print("|---|---|---|---|---|---|---|")
    rows = [row for name, (x, y) in data.items() for row in solves(name, x, y, args.repeats)]
    print("\n| grid of 8 C x 3 folds | ours | GridSearchCV, 2 jobs | ratio | best score | of the peer |")
    print("|---|---|---|---|---|---|")
    for name, (x, y) in data.items():
        grid(name, x, y)
    loss_products(args.repeats)
    if not args.no_memory:
        done = subprocess.run([sys.executable, "-c", BIG, str(HERE)], capture_output=True, text=True, check=True)
        print(done.stdout)
    draw(rows, args.out)
    print(f"Picture: {args.out}")


if __name__ == "__main__":
    main()
