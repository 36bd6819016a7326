"""From one device to two: the time of a training step and of a certified solve, with rows laid out over a mesh.

Each device is a CPU core. Strong scaling keeps the rows and doubles the devices, at best half the time; weak scaling
doubles both, at best the same time. Two things are shown for comparison: one device that may use both cores, by the
threads of XLA; and two processes that know nothing of each other, at the same time, each on half of the rows, which is
the most that this machine has to give. Every setting runs in processes of its own, in turns, and its shortest time
counts; objectives are checked to agree within their gaps.

    python experiments/bench_scale.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

# Devices and cores of each process that runs at the same time.
SETTINGS = {
    "1 device, 1 core": [(1, {0})],
    "2 devices, 2 cores": [(2, {0, 1})],
    "1 device, 2 cores": [(1, {0, 1})],
    "2 processes apart": [(1, {0}), (1, {1})],
}
L2 = 1e-4
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#999999"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="on two devices (default: 200,000)")
    parser.add_argument("--features", type=int, default=50, help="(default: 50)")
    parser.add_argument("--repeats", type=int, default=3, help="in each process (default: 3)")
    parser.add_argument("--turns", type=int, default=3, help="processes for each setting (default: 3)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("bench_scale.png"), help="picture")
    parser.add_argument("--child", type=int, metavar="DEVICES", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.rows, options.features, options.repeats)))
        return
    turns = [{name: run(options, setting) for name, setting in SETTINGS.items()} for _ in range(options.turns)]
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, this benchmark included")
    check_same_problem([measured for turn in turns for measured in turn.values()])
    found = {name: shortest([turn[name] for turn in turns]) for name in SETTINGS}
    report(found, options)
    draw(found, options)


def run(options: argparse.Namespace, setting: list[tuple[int, set[int]]]) -> dict[str, Any]:
    """Measure in processes of their own, for XLA counts its devices and threads once; of several, the slowest."""
    children = [start(options, *process) for process in setting]
    said = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise SystemExit("A process failed: see above.")
    found = [json.loads(text) for text in said]
    check_same_problem(found)
    slowest: dict[str, Any] = max(found, key=lambda measured: sum(measured["solve"].values()))
    return slowest


def start(options: argparse.Namespace, devices: int, cores: set[int]) -> subprocess.Popen[str]:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) <= max(cores):
        raise SystemExit(f"{max(cores) + 1} cores are needed; this process may use {len(allowed)}.")
    command = [sys.executable, __file__, "--child", str(devices)]
    for name in ("rows", "features", "repeats"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {allowed[core] for core in cores}),
    )  # fmt: skip


def measure(devices: int, rows: int, features: int, repeats: int) -> dict[str, Any]:
    """Seconds of each task, on half of the rows and on all of them, and what came out."""
    import jax
    import optax

    import jaxhinge

    assert jax.device_count() == devices
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, features)).astype(np.float32)
    y = np.where(x @ random.normal(size=features) + 2 * random.normal(size=rows) > 0, 1, -1)
    init, step = jaxhinge.make_train_step(optax.adam(1e-2))
    compiled_step = jax.jit(step)
    state = init(jaxhinge.init_params(features))
    found: dict[str, Any] = {"step": {}, "solve": {}, "loss": {}, "objective": {}, "gap": {}}
    for count in (rows // 2, rows):
        part = jaxhinge.shard_rows(mesh, x[:count], y[:count])
        options: dict[str, Any] = {"l2": L2, "sample_weight": part.sample_weight}
        one_step = partial(compiled_step, state, part.x, part.y, **options)
        solve = partial(jaxhinge.solve, part.x, part.y, tol=1e-4, **options)
        found["step"][str(count)] = shortest_time(one_step, 4 * repeats)
        found["solve"][str(count)] = shortest_time(solve, repeats)
        # The loss of the step after the first, which has the first one's gradient in it.
        _, metrics = compiled_step(one_step()[0], part.x, part.y, **options)
        solution = solve()
        found["loss"][str(count)] = float(metrics.loss)
        found["objective"][str(count)], found["gap"][str(count)] = float(solution.primal_value), float(solution.gap)
    return found


def shortest_time(task: Callable[[], Any], repeats: int) -> float:
    import jax

    jax.block_until_ready(task())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(task())
        times.append(time.perf_counter() - began)
    return min(times)


def shortest(turns: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The shortest time of each task and number of rows."""
    counts = turns[0]["step"]
    return {task: {count: min(turn[task][count] for turn in turns) for count in counts} for task in ("step", "solve")}


def check_same_problem(measured: list[dict[str, Any]]) -> None:
    """Every process made the same step and found an optimum within its proven gap, or AssertionError."""
    for count in measured[0]["gap"]:
        losses, objectives, gaps = (
            [result[name][count] for result in measured] for name in ("loss", "objective", "gap")
        )
        # Float32 sums in another order.
        assert max(losses) - min(losses) <= 1e-5 * max(losses), losses
        assert max(objectives) - min(objectives) <= max(gaps) <= 1e-4 * max(objectives), (objectives, gaps)


def report(found: dict[str, Any], options: argparse.Namespace) -> None:
    rows, half = str(options.rows), str(options.rows // 2)
    one, two, threads, apart = found.values()
    print("All objectives agree within their gaps, at most 1e-4 of them.\n")
    heads = ["task", "scaling", *list(SETTINGS)[:2], "efficiency", *list(SETTINGS)[2:]]
    print(f"| {' | '.join(heads)} |")
    print("|---|---|---|---|---|---|---|")
    for task in ("step", "solve"):
        strong = one[task][rows] / two[task][rows] / 2
        weak = one[task][half] / two[task][rows]
        for name, before, efficiency in (("strong", rows, strong), ("weak", half, weak)):
            cells = [task, f"{name}, {rows_of(name, options.rows)}", ms(one[task][before]), ms(two[task][rows])]
            cells += [f"{efficiency:.0%}", ms(threads[task][rows]), ms(apart[task][half])]
            print(f"| {' | '.join(cells)} |")


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.{0 if seconds > 0.1 else 1}f} ms"


def rows_of(scaling: str, rows: int) -> str:
    return f"{rows:,} rows" if scaling == "strong" else f"{rows // 2:,} to {rows:,} rows"


def draw(found: dict[str, Any], options: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, half = str(options.rows), str(options.rows // 2)
    one, two, threads, apart = found.values()
    figure, panels = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
    for panel, task, title in zip(panels, ("step", "solve"), ("optax step", "solve to a gap of 1e-4"), strict=True):
        for name, before, colour in (("strong", rows, BLUE), ("weak", half, ORANGE)):
            times = 1e3 * one[task][before], 1e3 * two[task][rows]
            ideal = times[0] / (2 if name == "strong" else 1)
            panel.plot([1, 2], times, "o-", color=colour, label=f"{name}: {rows_of(name, options.rows)}")
            panel.plot([1, 2], [times[0], ideal], ":", color=colour)
        panel.plot([2], [1e3 * threads[task][rows]], "s", color=GREY, label="1 device, 2 cores")
        panel.plot([2], [1e3 * apart[task][half]], "^", color=GREY, label="2 processes apart, half of the rows each")
        panel.set(title=title, xticks=[1, 2], xlabel="devices, a core each", xlim=(0.8, 2.2))
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("ms (dotted: ideal)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"{options.rows:,} x {options.features} float32 rows over a mesh of CPU cores")
    figure.savefig(options.out, dpi=150)


if __name__ == "__main__":
    main()
