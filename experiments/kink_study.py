"""How often is a margin exactly on the kink while a hinge loss is trained, and does the choice made there matter?

Found in 108 conditions (model, precision, data, optimizer), each with 48 seeds and 10 passes over the rows:

- How often is decided by the precision of the scores. In bfloat16 one margin in 290 to 1,800 was on the kink, in
  float16 one in 1,100 to 13,000. Rounding explains it: the density of margins around 1, times the width of the
  interval that rounds to 1, is the share that was counted, to a factor of 0.97 in float16 and 1.07 in bfloat16.
  Model, data and optimizer matter through that density alone. For float32 it predicts one in 30 to 46 million, for
  float64 one in 2e16: there none was met in 13 million margins of each, the grid below aside.
- One exception needs no rounding. From zeros, by SGD at a rate that is a power of two and without l2, the weights of
  a linear model on 0/1 data stay on a grid that holds 1: one margin in 1,130, the same ones in float64, float32 and
  float16. On data in steps of 1/16 the grid is finer, one in 610,000. With l2 and a rate of 0.06, with momentum, with
  Adam, or in the network: none.
- Scores in float32 of bfloat16 data, which is what `jaxhinge.loss` computes, all but empty the kink: from one in 610
  to none on continuous data, from one in 390 to one in 370,000 on quantised, from one in 400 to one in 31,000 on 0/1
  data.
- Hidden units are on theirs less often, for numbers are densest around 0: one in 150,000 in bfloat16, one in 1.2
  million in float16, once in 118 million in float32, never in float64.
- The gradient: where a batch of 32 has a margin on the kink, choice 1 in place of 0 changes its gradient by a third
  (the median). That is 5% to 7% of the batches in bfloat16, 0.6% to 1% in float16 and, off the grid, none in float32
  and 64.
- The path: in bfloat16 every run ends elsewhere, in float16 nine of ten; by 0.5% to 3% of the weights, for the
  network with Adam by 9% to 19%. One rounding error at the start moves them as far or farther. In float32 and
  float64, off the grid, choices 0, 1/2 and 1 agree in every bit.
- The test accuracy: nothing was found. Of 216 comparisons with choice 0, 111 are distinct and not the same for every
  seed; 6 of their 95% intervals exclude 0, where chance gives 6, and none does after Bonferroni. Averaged over data
  and optimizers, every effect is within 0.02 points of 0, give or take 0.04. Neither SGD nor Adam was seen to prefer
  one.

The runs are of scikit-learn's digits, odd against even: 1,280 rows to train on and 517 to test, drawn anew for every
seed. Weights are kept in float32 (float64 for float64) and everything they enter is rounded to the precision named, as
in mixed-precision training. The images come as real numbers (a uniform fraction is added, and all standardised), in
steps of 1/16, and as 0 and 1. The network has one hidden layer of 32 hinges, and the choice holds for those, too. The
placebo is choice 0 from a start that one rounding error was added to. Accuracies (88% to 97%) are compared with the
same seed, in points; their intervals are Student's over the seeds.

The question is that of Bertoin, Bolte, Gerchinovitz and Pauwels, Numerical influence of ReLU'(0) on backpropagation,
NeurIPS 2021. They found choice 0 to be better for SGD, in networks larger by far; that is not contradicted here.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from _kink_runs import (
    BATCH,
    CHOICES,
    DATA,
    HIDDEN,
    NEAR,
    OPTIMIZERS,
    PLACEBO,
    PRECISIONS,
    Precision,
    Runs,
    linear_start,
    network_start,
    train_all,
)
from scipy import stats

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Array = Any
GRID = 0  # the optimizer whose weights stay on a grid where the data are
# Okabe and Ito's palette, told apart by all common kinds of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7")
GREY = "#777777"


def main() -> None:
    options = arguments()
    started = time.perf_counter()
    results: dict[tuple[str, Precision], Runs] = {}
    for model, start in {"linear": linear_start, "network": network_start}.items():
        for precision in PRECISIONS:
            if model == "network" and precision.scores != precision.compute:
                continue  # its hidden units would still be bfloat16
            if options.quick and precision.name not in ("float32", "bfloat16"):
                continue
            results[model, precision] = train_all(start, precision, options.seeds, options.epochs)
            print(f"trained: {model}, {precision.name} ({time.perf_counter() - started:.0f} s)", flush=True)
    print_table(results)
    print_statement(results)
    if options.all:
        print_conditions(results)
    draw(options.out, results)
    print(f"\nPicture: {options.out}   ({time.perf_counter() - started:.0f} s in all)")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, help="splits, starts and orders of batches (default: 48; 4 if quick)")
    parser.add_argument("--epochs", type=int, help="passes over the rows (default: 10; 1 if quick)")
    parser.add_argument("--quick", action="store_true", help="two precisions, few seeds: to see that it runs")
    parser.add_argument("--all", action="store_true", help="print every condition, too")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("kink_study.png"), help="picture")
    options = parser.parse_args()
    options.seeds = options.seeds or (4 if options.quick else 48)
    options.epochs = options.epochs or (1 if options.quick else 10)
    if options.seeds < 2 or options.epochs < 1:
        parser.error("an interval needs --seeds of at least 2, and training --epochs of at least 1")
    return options


# ---- what they say


def share_on_kink(runs: Runs, data: Any, optimizers: Any) -> tuple[int, int]:
    """Margins on the kink and all margins, of choice 0 alone: where paths agree the others have the same ones."""
    counts = runs.on_kink[data][..., 0, :][..., optimizers]
    return int(counts.sum()), counts.size * BATCH


def predicted(runs: Runs, precision: Precision) -> Array:
    """The share that rounding alone would put on the kink, (data, optimizer): density there times width of the cell."""
    return runs.near_kink[..., 0, :].mean(axis=(1, 2)) / BATCH / (2 * NEAR) * precision.cell


def one_in(count: int, total: int) -> str:
    return rarity(count / total) if count else f"none of {total / 1e6:.1f}M"


def rarity(share: float) -> str:
    return f"1 in {float(f'{1 / share:.3g}'):,.0f}" if share > 1e-9 else f"1 in {1 / share:.0e}"


def interval(differences: Array) -> tuple[float, float]:
    """The mean over the seeds (the first axis), and half the length of its 95% interval."""
    n = len(differences)
    return differences.mean(), stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / n**0.5


def points(values: Array) -> str:
    return "{:+.2f} ± {:.2f}".format(*interval(values))


def paired(runs: Runs, choice: int) -> Array:
    """Test accuracy less that of choice 0, in points; (seed, data, optimizer)."""
    return 100 * np.moveaxis(runs.accuracy[:, :, choice] - runs.accuracy[:, :, 0], 0, 1)


def print_table(results: dict[tuple[str, Precision], Runs]) -> None:
    heads = ["model", "precision", "on the kink: continuous", "quantised", "on/off", "quantised, SGD 1/16"]
    heads += ["on/off, SGD 1/16", "rounding predicts", "hidden units", "batches with another gradient"]
    heads += ["runs that part", "distance, choice 1 / placebo"]
    heads += [f"accuracy, {name} - 0" for name in list(CHOICES)[1:]]
    print("\n| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    others = [index for index in range(len(OPTIMIZERS)) if index != GRID]
    for (model, precision), runs in results.items():
        cells = [model, precision.name, one_in(*share_on_kink(runs, 0, slice(None)))]
        cells += [one_in(*share_on_kink(runs, data, others)) for data in (1, 2)]
        cells += [one_in(*share_on_kink(runs, data, [GRID])) for data in (1, 2)]
        cells += [rarity(predicted(runs, precision).mean())]
        hidden = runs.hidden_on_kink[..., 0, :]
        cells += [one_in(int(hidden.sum()), hidden.size * BATCH * HIDDEN) if model == "network" else ""]
        changed = runs.change[runs.change > 0]
        by = f", by {np.median(changed):.0%}" if len(changed) else ""
        cells += [f"{len(changed) / runs.change.size:.1%}{by}", *paths(runs.distance)]
        cells += [points(paired(runs, c).mean(axis=(1, 2))) for c in (1, 2, PLACEBO)]
        print("| " + " | ".join(cells) + " |")


def print_statement(results: dict[tuple[str, Precision], Runs]) -> None:
    """How well rounding predicts the kinks; how many comparisons were made, and how many of them came out."""
    print()
    off_grid = np.ones((len(DATA), len(OPTIMIZERS)), bool)
    off_grid[DATA.index("on/off"), GRID] = False
    for name in dict.fromkeys(precision.name for _, precision in results if precision.name in ("float16", "bfloat16")):
        shown = [(runs, precision) for (_, precision), runs in results.items() if precision.name == name]
        counted = sum(runs.on_kink[..., 0, :].mean(axis=(1, 2))[off_grid].sum() / BATCH for runs, _ in shown)
        ratio = counted / sum(predicted(*pair)[off_grid].sum() for pair in shown)
        print(f"On the kink in {name}: {ratio:.2f} times what rounding predicts (without on/off data and SGD 1/16).")
    for title, choices in {"choices 1/2 and 1 against 0": (1, 2), "the placebo against 0": (PLACEBO,)}.items():
        compared = differences(results, choices)
        moved = apart(compared)
        p = stats.ttest_1samp(moved, 0, axis=1).pvalue
        print(
            f"\nAccuracy, {title}: {len(compared)} comparisons, {len(moved)} of them distinct and not the same "
            f"for every seed. Of these {np.sum(p < 0.05)} intervals exclude 0, where chance gives "
            f"{0.05 * len(moved):.0f}; the smallest p is {p.min():.2g}, {min(1, p.min() * len(moved)):.2g} after "
            f"Bonferroni. Half an interval is {np.median([interval(row)[1] for row in moved]):.2f} points (median)."
        )


def differences(results: dict[tuple[str, Precision], Runs], choices: tuple[int, ...]) -> Array:
    """Paired differences of accuracy, (condition, seed)."""
    return np.concatenate([paired(r, c).reshape(len(r.accuracy[0]), -1).T for c in choices for r in results.values()])


def apart(compared: Array) -> Array:
    """Conditions that moved at all, each once: weights on a grid take one path in several precisions."""
    return np.unique(compared[compared.std(axis=1) > 0], axis=0)


def paths(distance: Array) -> list[str]:
    """The share of runs whose weights end elsewhere, and how far, in the median over (data,) seeds (and optimizers)."""
    last = np.moveaxis(distance[..., -1, :, :], -2, 0)
    return [f"{np.mean(last[2] > 0):.0%}", " / ".join(f"{np.median(last[c]):.1e}" for c in (2, PLACEBO))]


def print_conditions(results: dict[tuple[str, Precision], Runs]) -> None:
    heads = ["model", "precision", "data", "optimizer", "on the kink", "rounding predicts", "runs that part"]
    heads += ["distance, choice 1 / placebo", *(f"accuracy, {name} - 0" for name in list(CHOICES)[1:])]
    print("\n| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for (model, precision), runs in results.items():
        for d, o in np.ndindex(len(DATA), len(OPTIMIZERS)):
            cells = [model, precision.name, DATA[d], list(OPTIMIZERS)[o], one_in(*share_on_kink(runs, d, [o]))]
            cells += [rarity(predicted(runs, precision)[d, o]), *paths(runs.distance[d][..., [o]])]
            cells += [points(paired(runs, c)[:, d, o]) for c in (1, 2, PLACEBO)]
            print("| " + " | ".join(cells) + " |")


# ---- the picture


def draw(out: Path, results: dict[tuple[str, Precision], Runs]) -> None:
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 3, figsize=(16, 4.8), layout="constrained", width_ratios=(1.25, 1, 1.1))
    draw_shares(axes[0], results)
    draw_paths(axes[1], results)
    draw_accuracy(axes[2], results)
    figure.savefig(out, dpi=130)
    plt.close(figure)


def draw_shares(axes: Any, results: dict[tuple[str, Precision], Runs]) -> None:
    """One mark for each condition; those without a margin on the kink lie on a line of their own."""
    names = list(dict.fromkeys(precision.name for _, precision in results))
    none = 1e-9
    for (model, precision), runs in results.items():
        place = names.index(precision.name) + (-0.2 if model == "linear" else 0.2)
        expected = predicted(runs, precision)
        if expected.max() > none:
            axes.fill_between(
                [place - 0.17, place + 0.17], expected.min(), expected.max(), color=GREY, alpha=0.35, lw=0
            )
        for d, o in np.ndindex(len(DATA), len(OPTIMIZERS)):
            count, total = share_on_kink(runs, d, [o])
            at = place + 0.09 * (d - 1) + 0.02 * (o - 1.5)
            style = {"color": COLOURS[d], "ms": 5, "mfc": COLOURS[d] if count else "none"}
            axes.plot(at, count / total if count else none, "o" if model == "linear" else "^", **style)
    axes.set(yscale="log", ylim=(0.25 * none, 2e-2), ylabel="share of margins that are exactly 1")
    axes.set_title("How often a margin is on the kink")
    axes.set_xticks(range(len(names)), [name.replace(", ", ",\n") for name in names])
    axes.axhline(none, color=GREY, lw=0.6, zorder=0)
    axes.text(len(names) / 2, 1.2 * none, f"none of {total / 1e6:.1f} million", color=GREY, fontsize=8, ha="center")
    marks = [plt.Line2D([], [], marker="o", ls="", color=COLOURS[d], label=name) for d, name in enumerate(DATA)]
    marks += [plt.Line2D([], [], marker=m, ls="", color=GREY, label=k) for k, m in (("linear", "o"), ("network", "^"))]
    marks += [plt.Rectangle((0, 0), 1, 1, color=GREY, alpha=0.35, label="rounding predicts")]
    axes.legend(handles=marks, frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(0.83, 0.12))


def draw_paths(axes: Any, results: dict[tuple[str, Precision], Runs]) -> None:
    """How far the weights of the network are from those of choice 0, in the median over seeds and data."""
    adam = list(OPTIMIZERS).index("Adam")
    shown = [(precision, runs) for (model, precision), runs in results.items() if model == "network"]
    for colour, (precision, runs) in zip(COLOURS, shown, strict=False):
        steps = 1 + np.arange(runs.distance.shape[2])
        for choice, style in ((2, "-"), (PLACEBO, ":")):
            median = np.median(runs.distance[..., choice, adam], axis=(0, 1))
            if median.max() > 0:
                axes.plot(steps, np.where(median > 0, median, np.nan), style, color=colour, lw=1.8)
        same = "" if np.any(runs.distance[..., 2, adam] > 0) else ": choices 0 and 1 agree in every bit"
        axes.plot([], [], color=colour, label=precision.name + same)
    axes.plot([], [], "-", color=GREY, label="choice 1")
    axes.plot([], [], ":", color=GREY, label="placebo: one rounding error at the start")
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="relative distance from choice 0, median")
    axes.set(title="Paths: the network with Adam")
    axes.legend(frameon=False, fontsize=8, loc="center", bbox_to_anchor=(0.5, 0.4))


def draw_accuracy(axes: Any, results: dict[tuple[str, Precision], Runs]) -> None:
    """Paired differences, sorted within their group."""
    position, ticks = 0, []
    for choice, name in ((1, "1/2 - 0"), (2, "1 - 0"), (PLACEBO, "placebo - 0")):
        values = sorted(interval(row) for row in apart(differences(results, (choice,))))
        for mean, half in values:
            out = abs(mean) > half
            axes.plot([position] * 2, [mean - half, mean + half], color=COLOURS[3] if out else GREY, lw=1.2)
            axes.plot(position, mean, "o", ms=2.5, color=COLOURS[3] if out else COLOURS[0])
            position += 1
        missed = sum(abs(mean) > half for mean, half in values)
        ticks.append((position - len(values) / 2, f"{name}\n{missed} of {len(values)}\nexclude 0"))
        position += 8
    axes.axhline(0, color="black", lw=0.8)
    axes.set_xticks(*zip(*ticks, strict=True))
    axes.set(ylabel="test accuracy, points, 95% interval", title="What the choice does to accuracy")


if __name__ == "__main__":
    main()
