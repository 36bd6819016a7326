"""What a script that is run once waits for: fresh processes, import included, jaxhinge beside LinearSVC.

Two kinds of process, each started anew for every run and taken in turn with its peer's:

- a script that fits one classifier and a cross-validated grid of 10 values of C on a data set of scikit-learn;
- the first `solve` of a problem, after the import, to a certified relative gap of 1e-4. The objective that both reached
  is evaluated here in NumPy and given as the excess over a lower bound at a gap of 1e-8.

    python experiments/bench_first.py                # some minutes
    python experiments/bench_first.py --repeats 1
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
OURS, PEER = "#0072B2", "#E69F00"  # told apart by all common kinds of colour vision
SCRIPTS = ("iris", "wine", "breast_cancer", "digits")
SOLVES = {"digits odd/even": (1.0,), "10,000 x 64": (0.01, 1.0, 10.0), "100,000 x 50": (0.01, 1.0)}

SCRIPT = """
import sys, warnings
import numpy as np
from sklearn import datasets
from sklearn.preprocessing import StandardScaler
warnings.simplefilter("ignore")
x, y = getattr(datasets, "load_" + sys.argv[1])(return_X_y=True)
x, Cs = StandardScaler().fit_transform(x), np.logspace(-3, 2, 10)
"""
OUR_SCRIPT = f"""{SCRIPT}
from jaxhinge.sklearn import HingeClassifier, HingeClassifierCV
HingeClassifier().fit(x, y)
print(HingeClassifierCV(Cs=Cs, cv=5).fit(x, y).best_score_)
"""
PEER_SCRIPT = f"""{SCRIPT}
from sklearn.model_selection import GridSearchCV
from sklearn.svm import LinearSVC
LinearSVC(loss="hinge", max_iter=1000).fit(x, y)
print(GridSearchCV(LinearSVC(loss="hinge", max_iter=1000), {{"C": Cs}}, cv=5).fit(x, y).best_score_)
"""
SOLVE = """
import json, sys, time, warnings
sys.path.insert(0, sys.argv[1])
import numpy as np
from bench_solve import SETS, objective, run_linear_svc
import jaxhinge as jh
name, cost = sys.argv[2], float(sys.argv[3])
x, y = SETS[name]()
l2, options = 1 / (cost * len(y)), {"fit_intercept": "regularized", "as_numpy": True}
began = time.perf_counter()
found = jh.solve(x, y, l2=l2, tol=1e-4, **options)
ours = time.perf_counter() - began
began = time.perf_counter()
peer = run_linear_svc(x, y, cost, 1e-4, 1000)
theirs = time.perf_counter() - began
bound = float(jh.solve(x, y, l2=l2, tol=1e-8, **options).dual_value)
reached = [objective(w, float(b), x, y, l2) / bound - 1 for w, b in (found.params, peer)]
print(json.dumps({"ours": ours, "theirs": theirs, "excess": reached, "gap": float(found.gap / found.primal_value)}))
"""


def run(code: str, *arguments: Any) -> tuple[float, str]:
    """Seconds of a whole process, and the last line that it printed."""
    began = time.perf_counter()
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE.parent)
    return time.perf_counter() - began, done.stdout.strip().splitlines()[-1]


def scripts(repeats: int) -> list[tuple[str, float, float]]:
    """The table of whole processes."""
    print("| script | jaxhinge | score | LinearSVC | score | difference |\n|---|---|---|---|---|---|")
    rows = []
    for name in SCRIPTS:
        runs = [(run(OUR_SCRIPT, name), run(PEER_SCRIPT, name)) for _ in range(repeats)]
        ours, theirs = (float(np.median([pair[i][0] for pair in runs])) for i in (0, 1))
        scores = [float(one[1]) for one in runs[0]]
        print(
            f"| {name} | {ours:.2f} s | {scores[0]:.4f} | {theirs:.2f} s | {scores[1]:.4f} | {ours - theirs:+.2f} s |",
            flush=True,
        )
        rows.append((name.replace("_", " "), ours, theirs))
    return rows


def solves(repeats: int) -> list[tuple[str, float, float]]:
    """The table of first solves."""
    print("\n| rows | C | first solve | certified gap | excess | LinearSVC | excess | ratio |\n" + "|---" * 8 + "|")
    rows = []
    for name, costs in SOLVES.items():
        for cost in costs:
            found = [json.loads(run(SOLVE, HERE, name, cost)[1]) for _ in range(repeats)]
            ours, theirs = (float(np.median([one[key] for one in found])) for key in ("ours", "theirs"))
            mine, peer = found[0]["excess"]
            print(
                f"| {name} | {cost:g} | {1e3 * ours:.1f} ms | {found[0]['gap']:.0e} | {mine:.0e} | {theirs:.3f} s | "
                f"{peer:.0e} | {theirs / ours:.1f} |",
                flush=True,
            )
            rows.append((f"{name}, C = {cost:g}", ours, theirs))
    return rows


def draw(whole: list[tuple[str, float, float]], first: list[tuple[str, float, float]], path: Path) -> None:
    """Bars side by side: whole processes on the left, first solves on the right."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, rows, title in zip(axes, (whole, first), ("whole script, import included", "first solve"), strict=True):
        place = np.arange(len(rows))
        axis.barh(place - 0.2, [row[1] for row in rows], 0.38, color=OURS, label="jaxhinge")
        axis.barh(place + 0.2, [row[2] for row in rows], 0.38, color=PEER, label="LinearSVC")
        axis.set_yticks(place, [row[0] for row in rows])
        axis.invert_yaxis()
        axis.set(xlabel="seconds", title=title)
        axis.grid(axis="x", alpha=0.3)
    axes[1].set_xscale("log")
    axes[0].legend()
    figure.savefig(path, dpi=120)
    print(f"\nsaved {path.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="processes of each of which the median is taken")
    parser.add_argument("--picture", type=Path, default=Path(__file__).with_suffix(".png"))
    options = parser.parse_args()
    draw(scripts(options.repeats), solves(options.repeats), options.picture)


if __name__ == "__main__":
    main()
