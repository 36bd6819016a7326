"""Sweeps of `jaxhinge.train` with `jax.vmap`: what a model costs among 16 or 128, and alone, side by side.

100,000 x 64 float32 rows, plain SGD, in this process and in turn. The lanes differ in the learning rate, in `l2`, in
both, in the labels (16 or 128 columns of them over the same features) or in the seed. Lanes that share their key share
every batch, so that their scores and gradients are products of matrices. With seeds of their own they draw other rows
each, and a batch of another model's rows is of no use to them. Some lanes of every sweep are run again by themselves
and compared. The ratio is the time of one model alone over the time of one model in the sweep.

    python experiments/bench_train_sweep.py
"""

from __future__ import annotations

import argparse
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

ROWS, FEATURES, MODELS = 100_000, 64, (16, 128)
STEPS = {256: 400, 1024: 200, ROWS: 10}  # by rows in a batch
KINDS = ("rate", "l2", "rate and l2", "labels", "seed")
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#999999")  # told apart by all common kinds of colour vision


class Inputs(NamedTuple):
    rate: Any
    l2: Any
    key: Any
    x: Any
    y: Any


class Row(NamedTuple):
    batch: int
    kind: str
    models: int
    alone: float
    swept: float

    @property
    def ratio(self) -> float:
        return self.alone * self.models / self.swept

    @property
    def flops(self) -> float:
        """Of the products with the features alone: two a step, a multiplication and an addition each."""
        return 4 * self.batch * FEATURES * STEPS[self.batch] * self.models / self.swept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repeats", type=int, default=5, help="runs of each, of which the median is taken (default: 5)"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("bench_train_sweep.png"), help="picture")
    options = parser.parse_args()
    print(
        f"{'rows a step':>11}  {'lanes differ in':<16}{'models':>6}  {'one alone':>10}  {'all':>10}  "
        f"{'ratio':>6}  GFLOP/s"
    )
    rows = []
    for batch in STEPS:
        for models in MODELS:
            # With all rows in every step there is nothing left for a seed to draw.
            for kind in KINDS if batch < ROWS else KINDS[:-1]:
                row = measured(batch, kind, models, options.repeats)
                rows.append(row)
                print(
                    f"{batch:11,d}  {kind:<16}{models:6d}  {1e3 * row.alone:7.1f} ms  {1e3 * row.swept:7.1f} ms  "
                    f"{row.ratio:6.1f}  {1e-9 * row.flops:7.1f}",
                    flush=True,
                )
    draw(options.out, rows)


def measured(batch: int, kind: str, models: int, repeats: int) -> Row:
    """The time of one model and of all, in turn, after both were compiled and found to agree."""
    common = shared_inputs()
    lanes = varied(kind, models)
    axes = Inputs(*(0 if name in lanes else None for name in Inputs._fields))
    swept_inputs = common._replace(**lanes)
    alone = jax.jit(lambda inputs: trained(inputs, batch))
    swept = jax.jit(jax.vmap(lambda inputs: trained(inputs, batch), in_axes=(axes,)))
    found = swept(swept_inputs)
    for lane in (0, models // 2, models - 1):
        single = alone(common._replace(**{name: values[lane] for name, values in lanes.items()}))
        np.testing.assert_allclose(found.w[lane], single.w, rtol=1e-3, atol=1e-4)
    times = [
        (timed(lambda: alone(common)), timed(lambda: swept(swept_inputs)))
        for _ in range(repeats if kind != "seed" else 1)
    ]
    return Row(batch, kind, models, *np.median(times, axis=0))


def trained(inputs: Inputs, batch: int) -> jh.LinearParams:
    params, _ = jh.train(
        jh.init_params(FEATURES), inputs.x, inputs.y, l2=inputs.l2, optimizer=optax.sgd(inputs.rate),
        num_steps=STEPS[batch], batch_size=batch, key=inputs.key,
    )  # fmt: skip
    return params


def shared_inputs() -> Inputs:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((ROWS, FEATURES), dtype=np.float32)
    scores = x @ generator.standard_normal(FEATURES) + 3 * generator.standard_normal(ROWS)
    return Inputs(jnp.float32(0.05), jnp.float32(1e-3), jax.random.key(0), jnp.asarray(x), targets(scores))


def targets(scores: Any) -> jax.Array:
    return jnp.where(jnp.asarray(scores) > 0, 1, -1).astype(jnp.int32)


def varied(kind: str, models: int) -> dict[str, Any]:
    """What each lane has of its own."""
    rates, strengths = jnp.geomspace(0.01, 0.1, models), jnp.geomspace(1e-5, 1e-1, models)
    if kind == "labels":
        generator = np.random.default_rng(1)
        return {"y": targets(generator.standard_normal((models, FEATURES)) @ np.asarray(shared_inputs().x).T)}
    return {
        "rate": {"rate": rates},
        "l2": {"l2": strengths},
        "rate and l2": {"rate": rates, "l2": strengths},
        "seed": {"key": jax.random.split(jax.random.key(1), models)},
    }[kind]


def timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - started


def draw(path: Path, rows: list[Row]) -> None:
    figure, panels = plt.subplots(1, len(STEPS), figsize=(11, 3.6), sharey=True, layout="constrained")
    width = 0.8 / len(KINDS)
    for panel, batch in zip(panels, STEPS, strict=True):
        for place, (kind, colour) in enumerate(zip(KINDS, COLOURS, strict=True)):
            ratios = [row.ratio for row in rows if row.batch == batch and row.kind == kind]
            if ratios:
                panel.bar(np.arange(len(MODELS)) + width * (place - 2), ratios, width, color=colour, label=kind)
        panel.axhline(1, color="black", linewidth=0.8)
        panel.set(yscale="log", ylim=(0.3, 1000), title=f"{batch:,} rows a step", xticks=range(len(MODELS)))
        panel.set_xticklabels([f"{models} models" for models in MODELS])
    panels[0].set_ylabel("times cheaper than a model alone")
    panels[0].legend(title="lanes differ in", fontsize=8, title_fontsize=8, loc="upper left")
    figure.suptitle(f"jax.vmap of jaxhinge.train, {ROWS:,} x {FEATURES}")
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
