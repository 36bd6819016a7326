"""Checks of `on_accelerator.py` on losses, their gradients, training and memory."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _accelerator_references import LossReference, binary_rows, hinge_machine, loss_reference
from _accelerator_tools import (
    EPS,
    L2,
    Finding,
    Findings,
    Setting,
    called,
    lane,
    milliseconds,
    on_device,
    peak_bytes,
    temporary,
)

import jaxhinge as jh

# By how much a device may round a product: TensorFloat-32 keeps 11 bits of both numbers, and may cut off the rest.
TF32 = 2 * 2.0**-10


def objective(params: Any, x: Any, y: Any) -> jax.Array:
    return jh.loss(params, x, y, l2=L2)


def by_hand(params: Any, x: Any, y: Any) -> jax.Array:
    w, b = params
    return jnp.mean(jax.nn.relu(1 - y * (x @ w + b))) + L2 / 2 * jnp.sum(w**2)


# ---- the loss and its gradient


def check_loss(setting: Setting) -> Findings:
    """Value and gradient of the loss against NumPy, in reads of the features, float32 and bfloat16."""
    n, d = setting.sized((2_000_000, 128), (60_000, 128))
    host, y = binary_rows(n, d)
    w = (0.1 * np.random.default_rng(1).standard_normal(d)).astype(np.float32)
    for dtype in ("float32", "bfloat16"):
        params = jh.LinearParams(jnp.asarray(w, dtype), jnp.asarray(0.1, dtype))
        x, targets = on_device(host, y)
        x = x.astype(dtype)
        yield loss_in(setting, params, x, targets, host, y)
        del x


def loss_in(
    setting: Setting, params: Any, x: jax.Array, targets: jax.Array, host: np.ndarray, y: np.ndarray
) -> Findings:
    dtype = str(x.dtype)
    # Rounded on the device: NumPy is given the very numbers.
    rows = host if dtype == "float32" else np.asarray(x.astype("float32"))
    reference = partial(loss_reference, [np.asarray(leaf.astype("float32")) for leaf in params], rows, y, L2)
    read = milliseconds(partial(jax.jit(lambda x: jnp.sum(x, dtype=jnp.float32)), x))
    yield Finding(
        f"{dtype} {x.shape[0]:,} x {x.shape[1]}: one read", x.nbytes / read / 1e6, None, "GB/s", read, "a sum"
    )
    if dtype == "float32":
        tight = reference()
        # By default JAX lets a GPU or TPU round what it multiplies; the note says whether it did.
        loose = tight if setting.on_cpu else reference(products=TF32, slopes=TF32)
        yield judged_loss(setting, "default", params, x, targets, loose, tight, read)
        yield judged_loss(setting, "highest", params, x, targets, tight, tight, read)
    else:
        # Products of two bfloat16 numbers are exact in float32; the slopes may be rounded, and the gradient is.
        expected = reference(slopes=2.0**-9, out=2.0**-9)
        yield judged_loss(setting, "default", params, x, targets, expected, expected, read)
    ms = milliseconds(partial(jax.jit(jax.value_and_grad(by_hand)), params, x, targets))
    yield Finding(f"{dtype} jnp by hand: value and gradient", ms / read, None, "reads", ms)
    ms = milliseconds(partial(jax.jit(lambda x: x + jnp.ones((), x.dtype)), x))
    yield Finding(f"{dtype}: x read and written", 2 * x.nbytes / ms / 1e6, None, "GB/s", ms)


def judged_loss(
    setting: Setting,
    precision: str,
    params: Any,
    x: jax.Array,
    targets: jax.Array,
    expected: LossReference,
    tight: LossReference,
    read: float,
) -> Findings:
    """Value and gradient at one precision of products, their time and their memory."""
    name = f"{x.dtype} loss, {precision} precision"
    with jax.default_matmul_precision(None if precision == "default" else precision):
        compiled = jax.jit(jax.value_and_grad(objective)).lower(params, x, targets).compile()
    value, (gw, gb) = compiled(params, x, targets)
    error = abs(float(value) - expected.value)
    errors = np.abs(np.append(np.asarray(gw, np.float64), float(gb)) - expected.gradient)
    worst = int(np.argmax(errors / expected.gradient_bound))
    notes = [f"{largest / EPS:.3g} eps of float32" for largest in (error, errors.max())]
    if expected is not tight:
        inside = error <= tight.value_bound, (errors <= tight.gradient_bound).all()
        notes = [
            f"{note}; {'within float32' if ok else 'not within float32: TF32?'}"
            for note, ok in zip(notes, inside, strict=True)
        ]
    yield Finding(f"{name}: value", error, expected.value_bound, "", None, notes[0])
    yield Finding(f"{name}: gradient", errors[worst], expected.gradient_bound[worst], "", None, notes[1])
    ms = milliseconds(partial(compiled, params, x, targets))
    yield Finding(f"{name}: value and gradient", ms / read, None, "reads", ms)
    # A second x would be 1, and in float32 instead of bfloat16 2; XLA on the CPU makes that one.
    bound = None if setting.on_cpu and x.dtype != jnp.float32 else 0.25
    note = f"peak of the process: {peak / x.nbytes:.3g} of x" if (peak := peak_bytes(setting.device)) else ""
    yield Finding(f"{name}: memory beside x", temporary(compiled) / x.nbytes, bound, "of x", None, note)


# ---- the kink


def check_kink(setting: Setting) -> Findings:
    """Values and slopes at, beside and far from the kink, in every dtype, ties, infinity and NaN."""
    for dtype in dtypes(setting):
        yield kink_in(dtype)


def dtypes(setting: Setting) -> tuple[str, ...]:
    return ("float16", "bfloat16", "float32", *(["float64"] if setting.has_float64 else []))


def kink_in(dtype: str) -> Findings:
    with jax.enable_x64(dtype == "float64"):
        cases = kink_cases(jnp.dtype(dtype))
    wrong = [name for name, found in cases.items() if any(found)]
    count, total = sum(map(sum, cases.values())), sum(map(len, cases.values()))
    note = "hinge, positive_part, hinge_loss, kink_tol, ties, infinity, NaN"
    note = "wrong: " + ", ".join(wrong) if wrong else note
    yield Finding(f"{dtype}: the kink, numbers that differ", count, 0, f"of {total}", None, note)


def kink_cases(dtype: Any) -> dict[str, list[bool]]:
    """For each case, number by number, whether it is wrong. All are exact."""
    info = jnp.finfo(dtype)
    beside = [1 - float(info.eps) / 2, 1 + float(info.eps)]  # the neighbours of 1
    margins = np.array([-2, 0.5, 0.75, beside[0], 1, beside[1], 1.25, 2, np.inf, -np.inf, np.nan])
    m = jnp.asarray(margins, dtype)
    slope = jax.jit(jax.vmap(jax.grad(jh.hinge), (0,)))
    banded = jax.jit(lambda m, s: jax.vmap(jax.grad(partial(jh.hinge, subgradient=s, kink_tol=0.25)))(m))
    chosen = jax.jit(lambda m, s: jax.vmap(jax.grad(partial(jh.hinge, subgradient=s)))(m))
    part = jax.jit(lambda z, s: jax.vmap(jax.grad(partial(jh.positive_part, subgradient=s)))(z))
    nan = np.where(np.isnan(margins), np.nan, 0)

    def differs(found: Any, expected: Any) -> list[bool]:
        found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
        return [*(~((found == expected) | (np.isnan(found) & np.isnan(expected)))).ravel()]

    below = -(margins < 1).astype(float) + nan
    cases = {
        "hinge, values": differs(jax.jit(jh.hinge)(m), np.maximum(0, 1 - margins)),
        "hinge, slope by default": differs(slope(m), below),
        "hinge keeps the dtype": [jax.jit(jh.hinge)(m).dtype != dtype, slope(m).dtype != dtype],
    }
    slopes, bands, parts, losses = [], [], [], []
    z = np.array([-1, -float(info.tiny), 0, float(info.tiny), 1, np.inf, -np.inf, np.nan])
    targets = jnp.asarray(np.where(np.arange(len(margins)) % 2, 1, -1))
    total = jax.jit(jax.grad(lambda s, t, g: jh.losses.hinge_loss(s, t, subgradient=g).sum()))
    for s in (0.0, 0.5, 1.0):
        slopes += differs(chosen(m, s), np.where(margins == 1, -s, below))
        bands += differs(banded(m, s), np.where(np.abs(1 - margins) <= 0.25, -s, below))
        parts += differs(
            part(jnp.asarray(z, dtype), s), np.where(z == 0, s, (z > 0) + np.where(np.isnan(z), np.nan, 0))
        )
        expected = np.where(margins == 1, -s, below) * np.asarray(targets)
        losses += differs(total(m * targets.astype(dtype), targets, s), expected)
    cases |= {"hinge, slope by subgradient": slopes, "hinge, slope within kink_tol": bands}
    cases |= {"positive_part, slope": parts, "hinge_loss, gradient": losses}
    return cases | multiclass_cases(dtype, differs)


def multiclass_cases(dtype: Any, differs: Any) -> dict[str, list[bool]]:
    huge = 1e4 if dtype == jnp.float16 else 1e9
    table = [[1.0, 0.5, 0.5], [0, 0, -np.inf], [huge, huge, -huge], [2, 1, 1], [np.nan, 0, 0], [0, 3, 1]]
    scores, labels = jnp.asarray(table, dtype), jnp.zeros(len(table), jnp.int32)
    hinge, weston = jh.losses.multiclass_hinge_loss, jh.losses.weston_watkins_loss

    def gradient(loss: Any, **options: Any) -> jax.Array:
        return jax.jit(jax.grad(lambda scores: loss(scores, labels, **options).sum()))(scores)

    nan = [np.nan] * 3
    kept = [0, 1, 2, 3, 5]  # the NaN row is looked at in the values; of its gradient only that it is NaN
    cases = {
        "multiclass hinge, values": differs(jax.jit(hinge)(scores, labels), [0.5, 1, 1, 0, np.nan, 4]),
        "Weston-Watkins, values": differs(jax.jit(weston)(scores, labels)[jnp.array([0, 1, 2, 3, 5])], [1, 1, 1, 0, 6]),
    }
    tied = {"uniform": [-1, 0.5, 0.5], "first": [-1, 1, 0]}
    for ties, first in tied.items():
        for s in (0.0, 0.5, 1.0):
            found = gradient(hinge, ties=ties, subgradient=s)
            on_kink = [s * part for part in first]
            expected = np.array([first, [-1, 1, 0], [-1, 1, 0], on_kink, nan, [-1, 1, 0]], float)
            wrong = differs(np.asarray(found, np.float64)[kept], expected[kept])
            wrong.append(not np.isnan(np.asarray(found, np.float64)[4]).any())
            cases.setdefault(f"multiclass hinge, ties={ties}", []).extend(wrong)
    found = np.asarray(gradient(weston, subgradient=0.5), np.float64)
    cases["Weston-Watkins, gradient"] = differs(
        found[kept], [[-2, 1, 1], [-1, 1, 0], [-1, 1, 0], [-1, 0.5, 0.5], [-2, 1, 1]]
    )
    return cases


def check_losses(setting: Setting) -> Findings:
    """Every loss of the family on random scores, against its formula in NumPy, in units of its dtype's eps."""
    for dtype in dtypes(setting):
        yield losses_in(dtype)


def losses_in(dtype: str) -> Findings:
    rng = np.random.default_rng(0)
    s, t, r = rng.standard_normal((3, 10_000)) * 3
    t = np.where(t > 0, 1.0, -1.0)
    k, labels = rng.standard_normal((10_000, 5)) * 3, rng.integers(0, 5, 10_000)
    with jax.enable_x64(dtype == "float64"):
        given = [jnp.asarray(array, dtype) for array in (s, r, k)]
        # NumPy is given the very numbers; a wider dtype holds them all.
        exact = [np.asarray(array.astype(jnp.promote_types(dtype, "float32")), np.float64) for array in given]
        errors = {}
        for name, (found, expected) in loss_values(*given, t, labels, *exact).items():
            error = np.abs(np.asarray(found, np.float64) - expected) / (np.abs(expected) + 10)
            errors[name] = error.max() / float(jnp.finfo(dtype).eps)
    worst = max(errors, key=lambda name: (not errors[name] <= 8, errors[name]))
    # A few operations on numbers of about 10, each rounded by half an eps.
    yield Finding(f"{dtype}: values of {len(errors)} losses", errors[worst], 8, "eps", None, f"worst: {worst}")


def loss_values(scores: Any, others: Any, classes: Any, t: Any, labels: Any, s: Any, r: Any, k: Any) -> dict[str, Any]:
    """`(found, expected)` for each loss."""
    losses, relu = jh.losses, partial(np.maximum, 0.0)
    targets = jnp.asarray(t, jnp.int32)
    of_label = k[np.arange(len(k)), labels][:, None]
    wrong = np.arange(k.shape[1]) != labels[:, None]
    rival = np.where(wrong, 1 + k - of_label, -np.inf)
    slack, residual = relu(1 - t * s), r - s
    parabola = np.where(t * s <= 0.5, 1 - t * s - 0.25, slack**2)
    runs = {
        "hinge": (losses.hinge_loss, scores, targets, slack),
        "squared hinge": (losses.squared_hinge_loss, scores, targets, slack**2),
        "smooth hinge": (partial(losses.smooth_hinge_loss, width=0.5), scores, targets, parabola),
        "perceptron": (losses.perceptron_loss, scores, targets, relu(-t * s)),
        "multiclass hinge": (losses.multiclass_hinge_loss, classes, labels, relu(rival.max(axis=1))),
        "Weston-Watkins": (losses.weston_watkins_loss, classes, labels, relu(rival).sum(axis=1)),
        "one-vs-rest": (losses.one_vs_rest_hinge_loss, classes, labels, relu(1 + np.where(wrong, k, -k)).sum(axis=1)),
        "multiclass perceptron": (losses.multiclass_perceptron_loss, classes, labels, relu(rival.max(axis=1) - 1)),
        "epsilon-insensitive": (losses.epsilon_insensitive_loss, scores, others, relu(np.abs(residual) - 0.1)),
        "pinball": (
            partial(losses.pinball_loss, quantile=0.25),
            scores,
            others,
            np.where(residual > 0, 0.25, -0.75) * residual,
        ),
        "hinge embedding": (losses.hinge_embedding_loss, scores, targets, np.where(t > 0, s, relu(1 - s))),
    }
    return {name: (jax.jit(loss)(a, b), expected) for name, (loss, a, b, expected) in runs.items()}


# ---- training


def check_train(setting: Setting) -> Findings:
    """`train` against the same loop in NumPy, and 128 models at once against models alone."""
    n, d, steps = setting.sized((100_000, 64, 200), (4_000, 16, 50))
    host, y = binary_rows(n, d, seed=2)
    x, targets = on_device(host, y)
    yield whole_batches(x[:4_000], targets[:4_000], host[:4_000], y[:4_000])
    # Rounding takes other rows across the kink, and a step then differs by a row of its batch; the objective averages.
    yield many_models("highest", x, targets, host, y, steps, bound=1e-3)
    yield many_models("default", x, targets, host, y, steps, bound=1e-2)


def whole_batches(x: Any, targets: Any, host: np.ndarray, y: np.ndarray) -> Findings:
    """Steps on all rows, which have no order, are those of plain gradient descent."""
    d, rate, steps = host.shape[1], 0.1, 50

    def trained(x: Any, y: Any) -> Any:
        return train_from_zero(x, y, L2, rate, steps, len(host))

    with jax.default_matmul_precision("highest"):
        (params, history), ms, note = called(partial(jax.jit(trained), x, targets))
    rows, w, b, losses = host.astype(np.float64), np.zeros(d), 0.0, []
    for _ in range(steps):
        slack = 1 - y * (rows @ w + b)
        losses.append(np.maximum(slack, 0).mean() + L2 / 2 * w @ w)
        push = np.where(slack > 0, -y / len(y), 0)
        w, b = w - rate * (push @ rows + L2 * w), b - rate * push.sum()
    error = max(np.abs(np.asarray(params.w) - w).max(), abs(float(params.b) - b))
    error = max(error, np.abs(np.asarray(history.loss) - losses).max())
    # A row taken across the kink by rounding moves a step by rate |x| / n, 1e-4.
    yield Finding("train, all rows in a batch, against NumPy", error, 3e-4, "", ms, note)


def many_models(
    precision: str, x: Any, targets: Any, host: np.ndarray, y: np.ndarray, steps: int, bound: float
) -> Findings:
    """128 models of 16 strengths and 8 rates, of which three are trained alone, too."""
    grid = np.meshgrid(np.logspace(-5, -1, 16), np.linspace(0.01, 0.1, 8))
    l2s, rates = (part.ravel().astype(np.float32) for part in grid)

    def one(l2: Any, rate: Any, x: Any, y: Any) -> Any:
        return train_from_zero(x, y, l2, rate, steps, 512)

    arguments = *on_device(l2s, rates), x, targets
    started = time.perf_counter()
    with jax.default_matmul_precision(None if precision == "default" else precision):
        many = jax.jit(jax.vmap(one, (0, 0, None, None))).lower(*arguments).compile()
        alone = jax.jit(one).lower(*lane(arguments[:2], 0), x, targets).compile()
    note = f"both compiled in {time.perf_counter() - started:.1f} s"
    params, history = many(*arguments)
    worst = 0.0
    for i in (0, 61, 127):
        single, _ = alone(*lane(arguments[:2], i), x, targets)
        machine = hinge_machine(host, y, l2s[i])
        worst = max(worst, abs(machine.primal(lane(params, i)) / machine.primal(single) - 1))
    ms = milliseconds(partial(many, *arguments))
    alone_ms = milliseconds(partial(alone, *lane(arguments[:2], 0), x, targets))
    amiss = "" if np.isfinite(np.asarray(history.loss)).all() else "a loss is not finite"
    name = f"train, 128 models, {precision} precision"
    yield Finding(f"{name}: objective", worst, bound, "relative", ms, note, amiss)
    yield Finding(f"{name}: one of them", ms / 128 / alone_ms, None, "of alone", ms / 128, f"{steps} steps of 512 rows")
    yield Finding(f"{name}: memory beside x", temporary(many) / x.nbytes, None, "of x")


def train_from_zero(x: Any, y: Any, l2: Any, rate: Any, steps: int, batch_size: int) -> Any:
    return jh.train(
        jh.init_params(x.shape[1]), x, y, l2=l2, optimizer=optax.sgd(rate), num_steps=steps, batch_size=batch_size,
        key=jax.random.key(0),
    )  # fmt: skip


def check_donation(setting: Setting) -> Findings:
    """A donated training step reuses its state, gives the same numbers, and makes no copy of `x`."""
    n, d = setting.sized((500_000, 256), (20_000, 64))
    host, y = binary_rows(n, d, seed=3)
    x, targets = on_device(host, y)
    init, step = jh.make_train_step(optax.adam(1e-2))
    plain = jax.jit(partial(step, l2=L2))
    donated = jax.jit(partial(step, l2=L2), donate_argnums=0)
    start = init(jh.init_params(d))
    compiled = donated.lower(start, x, targets).compile()
    analysis = compiled.memory_analysis()
    bytes_of_state = sum(leaf.nbytes for leaf in jax.tree.leaves(start))
    expected, _ = plain(start, x, targets)
    state, _ = compiled(start, x, targets)
    left = [leaf for leaf in jax.tree.leaves(start) if not leaf.is_deleted()]
    yield Finding("donated step: arrays of the old state that live on", len(left), 0)
    elsewhere = 1 - analysis.alias_size_in_bytes / bytes_of_state
    yield Finding("donated step: new state not in place of the old", elsewhere, 0.01, "of bytes")
    differences = jax.tree.map(
        lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()), state.params, expected.params
    )
    yield Finding("donated step: difference to a plain one", max(differences), 16 * EPS, "", None, "adam, rate 0.01")
    yield Finding("donated step: memory beside x", temporary(compiled) / x.nbytes, 0.25, "of x")
    amiss = "x was taken" if x.is_deleted() else ""
    holder = [state]

    def again() -> Any:
        holder[0], metrics = compiled(holder[0], x, targets)
        return metrics

    yield Finding("donated step: time", milliseconds(again), None, "ms", None, f"{n:,} x {d}, adam", amiss)
