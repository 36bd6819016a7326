"""`jax.value_and_grad(jaxhinge.loss)` against the same formula by hand in jnp, NumPy and PyTorch, and against one read.

The mean hinge loss of an affine model plus `l2/2 ||w||^2` on dense float32 rows, its value and its gradient, all in
this process, those in JAX in turn. The unit is the time of one read of the features: their sum by XLA. Then K models
over the same rows (`jax.vmap`), the optax step against a loop by hand, and the times to compile and to import. Every
answer is compared with float64 NumPy before anything is timed. PyTorch takes part if it is there.

    python experiments/bench_loss.py                  # all sizes: some minutes, 2 GB of memory
    python experiments/bench_loss.py --sizes 2000x64 100000x64
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

import jaxhinge as jh

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NDArray = np.ndarray[Any, Any]
SIZES = ("2000x64", "100000x64", "500000x128", "20000x2000")
MODELS = (16, 128)
L2, RATE, STEPS = 1e-3, 0.1, 100
COLOURS = {"jaxhinge": "#0072B2", "jnp by hand": "#E69F00", "NumPy": "#009E73", "PyTorch": "#CC79A7"}


class Data(NamedTuple):
    """Rows, targets and the parameters at which the gradient is taken: `k` columns of weights and biases."""

    x: NDArray
    y: NDArray
    w: NDArray
    b: NDArray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="ROWSxFEATURES", help=f"default: {SIZES}")
    parser.add_argument("--repeats", type=int, default=15, help="rounds, of which medians are taken (default: 15)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("bench_loss.png"), help="picture")
    options = parser.parse_args()
    table = {}
    for size in options.sizes:
        n, d = (int(part) for part in size.split("x"))
        table[size] = one_model(drawn(n, d), options.repeats)
    lanes = {}
    for size in [size for size in options.sizes if size == "500000x128"] or options.sizes[-1:]:
        n, d = (int(part) for part in size.split("x"))
        for models in MODELS:
            lanes[models] = many_models(drawn(n, d, models), max(3, options.repeats // 3))
    steps(drawn(2_000, 64), options.repeats)
    starting(drawn(100_000, 64))
    draw(options.out, table, lanes)


def drawn(n: int, d: int, k: int = 1) -> Data:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((n, d), dtype=np.float32)
    y = np.where(x[:, :8].sum(axis=1) + 2 * generator.standard_normal(n, dtype=np.float32) > 0, 1, -1).astype(np.int32)
    w = 0.1 * generator.standard_normal((d, k), dtype=np.float32)
    return Data(x, y, w[:, 0] if k == 1 else w, np.float32(0.1) if k == 1 else np.full(k, 0.1, np.float32))


def by_hand(w: Any, b: Any, x: Any, y: Any) -> jax.Array:
    return jnp.mean(jax.nn.relu(1 - y * (x @ w + b))) + L2 / 2 * jnp.sum(w**2)


def ours(w: Any, b: Any, x: Any, y: Any) -> jax.Array:
    return jh.loss((w, b), x, y, l2=L2)


def in_numpy(w: Any, b: Any, x: Any, y: Any) -> tuple[Any, tuple[Any, Any]]:
    """The value and the gradient; in the dtype of the arrays."""
    slack = 1 - y * (x @ w + b)
    slope = np.where(slack > 0, -y / np.float32(len(y)), np.float32(0)).astype(w.dtype)
    value = np.maximum(slack, 0).mean() + L2 / 2 * np.sum(w**2)
    return value, (slope @ x + np.asarray(L2, w.dtype) * w, slope.sum())


def in_torch(data: Data) -> Callable[[], Any]:
    import torch

    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y.astype(np.float32))
    w, b = torch.tensor(data.w, requires_grad=True), torch.tensor(data.b, requires_grad=True)

    def run() -> Any:
        value = torch.relu(1 - y * (x @ w + b)).mean() + L2 / 2 * (w**2).sum()
        gradient = torch.autograd.grad(value, (w, b))
        return value.detach().numpy(), tuple(part.numpy() for part in gradient)

    return run


def one_model(data: Data, repeats: int) -> dict[str, float]:
    """Median times in reads of the features; every answer checked."""
    n, d = data.x.shape
    w, b, x, y = (jnp.asarray(part) for part in (data.w, data.b, data.x, data.y))
    gradients = {
        name: jax.jit(jax.value_and_grad(f, (0, 1))) for name, f in (("jaxhinge", ours), ("jnp by hand", by_hand))
    }
    total = jax.jit(jnp.sum)
    # NumPy and PyTorch are given targets of the dtype that they compute in.
    real = data.y.astype(np.float32)
    runs: dict[str, Callable[[], Any]] = {name: _bound(f, w, b, x, y) for name, f in gradients.items()}
    runs["NumPy"] = lambda: in_numpy(data.w, data.b, data.x, real)
    if importlib.util.find_spec("torch"):
        runs["PyTorch"] = in_torch(data)
    exact = in_numpy(*(part.astype(np.float64) for part in (data.w, np.asarray(data.b), data.x, data.y)))
    for name, run in runs.items():
        for found, expected in zip(jax.tree.leaves(run()), jax.tree.leaves(exact), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5, err_msg=name)
    batch = max(1, int(2e6 / (n * d)) * 4)
    # The threads of NumPy's and PyTorch's products spin for a while after each, and would take the cores from XLA's.
    others = {name: runs.pop(name) for name in list(runs) if name not in gradients}
    times = in_turn({"read": lambda: total(x), **runs}, repeats, batch)
    for name, run in others.items():
        times |= in_turn({name: run}, repeats, batch)
    read = times.pop("read")
    print(f"\n{n:,} x {d:,}: one read of the features takes {1e3 * read:.3g} ms, {x.nbytes / read / 1e9:.1f} GB/s")
    for name, seconds in times.items():
        print(
            f"  {name:<12} {1e3 * seconds:8.3g} ms  {seconds / read:5.2f} reads  "
            f"{seconds / times['jaxhinge']:5.2f} times jaxhinge",
            flush=True,
        )
    return {name: seconds / read for name, seconds in times.items()}


def many_models(data: Data, repeats: int) -> dict[str, float]:
    """GFLOP/s over the two products with the features, for jaxhinge and for the formula by hand."""
    (n, d), k = data.x.shape, data.w.shape[1]
    w, b, x, y = jnp.asarray(data.w.T), *(jnp.asarray(part) for part in (data.b, data.x, data.y))
    runs = {}
    for name, f in (("jaxhinge", ours), ("jnp by hand", by_hand)):
        runs[name] = _bound(jax.jit(jax.vmap(jax.value_and_grad(f, (0, 1)), (0, 0, None, None))), w, b, x, y)
    for part, other in zip(*(jax.tree.leaves(run()) for run in runs.values()), strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-3, atol=1e-5)
    times = in_turn(runs, repeats)
    flops = 4 * n * d * k
    print(f"\n{k} models on {n:,} x {d}, jax.vmap")
    for name, seconds in times.items():
        print(f"  {name:<12} {1e3 * seconds:8.1f} ms  {flops / seconds / 1e9:6.1f} GFLOP/s", flush=True)
    return {name: flops / seconds / 1e9 for name, seconds in times.items()}


def steps(data: Data, repeats: int) -> None:
    """`make_train_step` against the loop that one writes with optax, and the barest; jitted, called from Python."""
    x, y, l2 = jnp.asarray(data.x), jnp.asarray(data.y), jnp.float32(L2)
    optimizer = optax.sgd(RATE, momentum=0.9)
    init, step = jh.make_train_step(optimizer)

    def objective(params: Any, x: Any, y: Any, l2: Any) -> jax.Array:
        return jnp.mean(jax.nn.relu(1 - y * (x @ params[0] + params[1]))) + l2 / 2 * jnp.sum(params[0] ** 2)

    def with_optax(state: Any, x: Any, y: Any, l2: Any) -> Any:
        params, opt_state = state
        value, gradient = jax.value_and_grad(objective)(params, x, y, l2)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    def bare(state: Any, x: Any, y: Any, l2: Any) -> Any:
        params, velocity = state
        gradient = jax.grad(objective)(params, x, y, l2)
        velocity = jax.tree.map(lambda old, new: 0.9 * old + new, velocity, gradient)
        return (jax.tree.map(lambda old, new: old - RATE * new, params, velocity), velocity), None

    def zeros() -> Any:
        return jnp.zeros(data.x.shape[1]), jnp.zeros(())

    def loop(step: Callable[..., Any], start: Callable[[], Any]) -> Callable[[], Any]:
        compiled = jax.jit(step, donate_argnums=0)

        def run() -> Any:
            state = start()
            for _ in range(STEPS):
                state, _ = compiled(state, x, y, l2=l2)
            return state[0]

        return run

    def with_opt_state() -> Any:
        return zeros(), optimizer.init(zeros())

    runs = {
        "make_train_step": loop(step, lambda: init(zeros())),
        "optax by hand, with the loss": loop(with_optax, with_opt_state),
        "momentum by hand, no loss": loop(bare, lambda: (zeros(), zeros())),
    }
    for found in zip(*(run() for run in runs.values()), strict=True):
        for other in found[1:]:
            np.testing.assert_allclose(found[0], other, rtol=1e-3, atol=1e-5)
    times = in_turn(runs, 5 * repeats)
    print(f"\n{STEPS} steps of SGD with momentum on {data.x.shape[0]:,} x {data.x.shape[1]}")
    for name, seconds in times.items():
        ratio = times["make_train_step"] / seconds
        print(f"  {name:<28} {1e6 * seconds / STEPS:7.1f} us a step; make_train_step takes {ratio:.2f} times that")


def starting(data: Data) -> None:
    """Time to compile value and gradient, and to import jaxhinge where JAX and optax are imported already."""
    w, b, x, y = (jnp.asarray(part) for part in (data.w, data.b, data.x, data.y))
    print("\nto compile value and gradient, 100,000 x 64, and to import")
    for name, f in (("jaxhinge", ours), ("jnp by hand", by_hand)):
        seconds = []
        for shift in range(3):
            # A function of its own, or the second would find the first one's program.
            fresh = jax.jit(jax.value_and_grad(lambda w, b, x, y, f=f, shift=shift: f(w, b, x, y) + shift, (0, 1)))
            started = time.perf_counter()
            fresh.lower(w, b, x, y).compile()
            seconds.append(time.perf_counter() - started)
        print(f"  {name:<12} {1e3 * float(np.median(seconds)):6.0f} ms to compile")
    code = "import time, jax, optax; t = time.perf_counter(); import jaxhinge; print(time.perf_counter() - t)"
    found = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    print(f"  import jaxhinge after jax and optax: {1e3 * float(np.median(found)):.0f} ms")


def in_turn(runs: dict[str, Callable[[], Any]], repeats: int, batch: int = 1) -> dict[str, float]:
    """Median seconds of each; they take turns, so that whatever else the machine does strikes all."""
    for run in runs.values():
        jax.block_until_ready(run())
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            for _ in range(batch):
                jax.block_until_ready(run())
            times[name].append((time.perf_counter() - started) / batch)
    return {name: float(np.median(seconds)) for name, seconds in times.items()}


def _bound(f: Callable[..., Any], *inputs: Any) -> Callable[[], Any]:
    return lambda: f(*inputs)


def draw(path: Path, table: dict[str, dict[str, float]], lanes: dict[int, dict[str, float]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), width_ratios=(2, 1), layout="constrained")
    width = 0.8 / len(COLOURS)
    for panel, groups in ((left, list(table.values())), (right, list(lanes.values()))):
        for place, (name, colour) in enumerate(COLOURS.items()):
            heights = [group[name] for group in groups if name in group]
            if heights:
                panel.bar(np.arange(len(groups)) + width * (place - 1.5), heights, width, color=colour, label=name)
        panel.set_xticks(range(len(groups)))
    left.set_xticklabels([size.replace("x", " x ") for size in table])
    left.set(ylabel="reads of the features", title="value and gradient, one model")
    left.axhline(1, color="black", linewidth=0.8)
    left.legend()
    right.set_xticklabels([f"{models} models" for models in lanes])
    right.set(ylabel="GFLOP/s", title="models over the same rows")
    figure.suptitle("jaxhinge.loss, float32, 2-core CPU")
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
