"""Certified solves of rows that need not fit in memory: time, reading and peak memory against the number of rows.

Each file of float32 rows is written to disk chunk by chunk, then mapped and solved by `jaxhinge.solve` in a process of
its own, whose peak memory is the system's count (VmHWM, the pages of the file included). Before every pass the system
is told to forget the file, so that all passes read it from the disk, as they would if memory were too small to keep it.
What is compiled is compiled on the first rows before the clock starts. The duality gap is computed once more, in NumPy,
from the parameters and the dual that came back. Linux only.

    python experiments/out_of_core.py                    # 1e5, 1e6 and 1e7 rows; 2 GB of disk, half a minute or so
    python experiments/out_of_core.py --rows 1e5 1e6
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import jaxhinge as jh

NDArray = np.ndarray[Any, Any]
CHUNK = 100_000
WARM_UP = 60_000
LIMIT_GB = 4.0
# LIBLINEAR keeps an index and a double for each feature, the bias and the end of a row.
NODE_BYTES = 16
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#777777"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, nargs="+", default=[1e5, 1e6, 1e7], help="(default: 1e5 1e6 1e7)")
    parser.add_argument("--features", type=int, default=50, help="(default: 50)")
    parser.add_argument("--l2", type=float, default=1e-4, help="(default: 1e-4)")
    parser.add_argument("--tol", type=float, default=1e-3, help="the relative gap (default: 1e-3)")
    parser.add_argument("--directory", type=Path, help="where to put the files (default: that of the system)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("out_of_core.png"), help="picture")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(solve(options.child, options.l2, options.tol)))
        return
    print(f"{options.features} float32 features, l2 = {options.l2:g}, to a relative gap of {options.tol:g}\n")
    print("| rows | file | time | steps | passes | read | read per second | peak memory | status | gap | by NumPy |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    found = []
    for rows in sorted(map(int, options.rows)):
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            found.append(measure(Path(directory), rows, options))
        print(line(found[-1]), flush=True)
    draw(found, options)


def measure(directory: Path, rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """Write a file, solve it in a child process, and check what comes back."""
    generate(directory, rows, options.features)
    command = [sys.executable, __file__, "--child", str(directory), "--l2", str(options.l2), "--tol", str(options.tol)]
    child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(child.stdout)
    return found | {"rows": rows, "recomputed": recomputed_gap(directory, options.l2)}


def generate(directory: Path, rows: int, features: int) -> None:
    """Correlated features with a mean, and targets of a noisy linear rule with a bias, a chunk at a time."""
    random = np.random.default_rng(0)
    mix = np.eye(features, dtype=np.float32) + random.normal(0, 1 / 7, (features, features)).astype(np.float32)
    weights = random.normal(size=features).astype(np.float32)
    noise = 0.5 * float(np.linalg.norm(mix @ weights))
    x = np.lib.format.open_memmap(directory / "x.npy", mode="w+", dtype=np.float32, shape=(rows, features))
    y = np.lib.format.open_memmap(directory / "y.npy", mode="w+", dtype=np.int8, shape=(rows,))
    for start in range(0, rows, CHUNK):
        part = random.standard_normal((min(CHUNK, rows - start), features), dtype=np.float32) @ mix
        score = part @ weights + noise * random.standard_normal(len(part), dtype=np.float32) + 1
        x[start : start + CHUNK] = part + 1
        y[start : start + CHUNK] = np.where(score > 0, 1, -1)
    x.flush()
    y.flush()


class Counted(np.memmap):
    """A mapped file that counts what is read of it, and that the system forgets whenever its first rows are read."""

    path: str
    bytes_read = 0

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(key, slice) and key.start == 0:
            forget(Counted.path)
        Counted.bytes_read += part.nbytes
        return part


def forget(path: str) -> None:
    """Have the system drop a file from its cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def solve(directory: Path, l2: float, tol: float) -> dict[str, Any]:
    """What the child does: solve, save the solution, and give the numbers of the table."""
    x, y = np.load(directory / "x.npy", mmap_mode="r"), np.load(directory / "y.npy")
    jh.solve(x[:WARM_UP], y[:WARM_UP], l2=l2, tol=tol)
    Counted.path = str(directory / "x.npy")
    disk, began = disk_bytes(), time.perf_counter()
    solution = jh.solve(x.view(Counted), y, l2=l2, tol=tol)
    seconds = time.perf_counter() - began
    np.savez(directory / "solution.npz", w=solution.params.w, b=solution.params.b, dual=solution.dual)
    return {
        "seconds": seconds,
        "steps": int(solution.steps),
        "passes": Counted.bytes_read / x.nbytes,
        "file": x.nbytes / 1e9,
        "disk": (disk_bytes() - disk) / 1e9,
        "memory": peak_bytes() / 1e9,
        "status": jh.Status(int(solution.status)).name,
        "gap": float(solution.gap / solution.primal_value),
    }


def disk_bytes() -> int:
    """What this process has made the system read from disks."""
    return int(_entry("/proc/self/io", "read_bytes"))


def peak_bytes() -> int:
    """The most memory that this process ever had, in files or not."""
    return 1024 * int(_entry("/proc/self/status", "VmHWM").split()[0])


def _entry(path: str, name: str) -> str:
    entries = (text.split(":", 1) for text in Path(path).read_text().splitlines())
    return next(value.strip() for key, value in entries if key == name)


def recomputed_gap(directory: Path, l2: float) -> float:
    """The relative gap from its definition, in float64."""
    x, y = np.load(directory / "x.npy", mmap_mode="r"), np.load(directory / "y.npy").astype(np.float64)
    with np.load(directory / "solution.npz", allow_pickle=False) as file:
        w, b, dual = (file[name].astype(np.float64) for name in ("w", "b", "dual"))
    dual = np.clip(dual, 0, 1 / len(y))
    # The heavier side of the free bias is scaled down to the lighter one.
    sides = dual[y > 0].sum(), dual[y < 0].sum()
    dual *= np.where(y > 0, *(min(sides) / side for side in sides))
    hinges, pull = 0.0, np.zeros(x.shape[1])
    for start in range(0, len(y), CHUNK):
        rows = slice(start, start + CHUNK)
        part = x[rows].astype(np.float64)
        hinges += np.maximum(0, 1 - y[rows] * (part @ w + b)).sum()
        pull += (dual[rows] * y[rows]) @ part
    primal = hinges / len(y) + l2 / 2 * (w @ w)
    return float((primal - (dual.sum() - pull @ pull / (2 * l2))) / primal)


def line(found: dict[str, Any]) -> str:
    cells = (
        f"{found['rows']:,}", f"{found['file']:.2f} GB", f"{found['seconds']:.2f} s", found["steps"],
        f"{found['passes']:.0f}", f"{found['disk']:.2f} GB", f"{found['disk'] / found['seconds']:.2f} GB",
        f"{found['memory']:.2f} GB", found["status"], f"{found['gap']:.2e}", f"{found['recomputed']:.2e}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def draw(found: list[dict[str, Any]], options: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    rows = np.array([entry["rows"] for entry in found])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    seconds = [entry["seconds"] for entry in found]
    left.loglog(rows, seconds[-1] * rows / rows[-1], ":", color=GREY, label="in proportion to the rows")
    left.loglog(rows, seconds, "o-", color=BLUE, label=f"solve to a relative gap of {options.tol:g}")
    for entry in found:
        note = f"{entry['seconds']:.1f} s, {entry['passes']:.0f} passes"
        left.annotate(
            note, (entry["rows"], entry["seconds"]), (-6, 8), textcoords="offset points", ha="right", fontsize=9
        )
    left.set(xlabel="rows", ylabel="seconds", title="time, the file read from disk in every pass")
    left.set(xlim=(rows[0] / 10, rows[-1] * 2), ylim=(None, 4 * seconds[-1]))
    right.loglog(rows, NODE_BYTES * (options.features + 2) * rows / 1e9, "--", color=ORANGE, label="LIBLINEAR's nodes")
    right.loglog(rows, [entry["file"] for entry in found], "s-", color=GREY, label="the file")
    right.loglog(rows, [entry["memory"] for entry in found], "o-", color=BLUE, label="peak memory of solve")
    right.axhline(LIMIT_GB, color="black", lw=0.8)
    right.annotate(f"{LIMIT_GB:g} GB", (rows[0], LIMIT_GB), (0, 3), textcoords="offset points", fontsize=9)
    right.set(xlabel="rows", ylabel="GB", title="memory")
    for panel in (left, right):
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, loc="lower right", fontsize=9)
    figure.suptitle(f"{options.features} float32 features, certified block by block")
    figure.savefig(options.out, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
