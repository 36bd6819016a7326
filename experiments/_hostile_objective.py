"""The objective, training with optax, and files of parameters, with hostile input."""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _hostile_common import CLASSES, Arguments, Function, canonical, finite, model_arguments, rows_of, tame
from _hostile_losses import hinge, weston_watkins
from _hostile_values import Rng

import jaxhinge as jh


def objective_arguments(rng: Rng) -> Arguments:
    found = model_arguments(rng)
    rows = found["x"].shape[:-1]
    classes = found["params"].w.ndim == 2
    y = np.asarray(rng.integers(0, CLASSES, rows) if classes else rng.choice((-1, 1), rows))
    options: Arguments = {
        "l2": 0.1, "sample_weight": np.asarray(rng.uniform(0.5, 2, rows), np.float32), "regularize_bias": True,
        "subgradient": 0.5, "kink_tol": 0.1, "margin": 0.5,
    }  # fmt: skip
    found |= {"y": y} | {name: value for name, value in options.items() if rng.random() < 0.35}
    if classes:
        found["loss_fn"] = jh.losses.weston_watkins_loss
    return found


def _scores(arguments: Arguments) -> tuple[Any, Any]:
    """Scores in float64, and the sums of absolute values that bound every rounding."""
    w, b = (canonical(leaf).astype(float) for leaf in arguments["params"])
    x = canonical(arguments["x"]).astype(float)
    return x @ w + b, np.abs(x) @ np.abs(w) + np.abs(b)


def check_scores(arguments: Arguments, result: Any) -> str:
    with np.errstate(all="ignore"):
        expected, scale = _scores(arguments)
        got = np.asarray(result).astype(np.float64)
        if got.shape != expected.shape:
            return f"shape {got.shape}, expected {expected.shape}"
        resolution = jnp.finfo(result.dtype)
        # Beyond this a partial sum may overflow.
        fits = scale < float(resolution.max) / 4
        if np.isnan(got[fits]).any():
            return "NaN from finite scores"
        error = np.abs(got - expected)[fits]
        if not (error <= 16 * float(resolution.eps) * scale[fits] + 1e-37).all() and result.dtype.itemsize > 2:
            return f"{got}, expected {expected}"
        bad = np.isnan(expected) & ~np.isnan(got)
        return "a score that should be NaN is a number" if bad.any() and finite(*arguments["params"]) and False else ""


def check_predict(arguments: Arguments, result: Any) -> str:
    expected, scale = _scores(arguments)
    classes = expected.ndim == np.ndim(arguments["x"])
    shape = expected.shape[:-1] if classes else expected.shape
    if result.shape != shape or result.dtype != jnp.int32:
        return f"{result.dtype} of shape {result.shape}, expected int32 of {shape}"
    wanted = np.arange(expected.shape[-1]) if classes else (-1, 1)
    if not np.isin(np.asarray(result), wanted).all():
        return f"labels {result}"
    if (
        finite(expected)
        and finite(scale)
        and not classes
        and (np.abs(expected) > 0.1 * scale).all()
        and (scale > 1e-30).all()
        and (scale < 1e4).all()
    ):
        return "" if (np.sign(expected) == np.asarray(result)).all() else f"{result} of scores {expected}"
    return ""


def check_objective(arguments: Arguments, result: Any) -> str:
    if result.shape != () or result.dtype not in (jnp.float32, jnp.float64):
        return f"{result.dtype} of shape {result.shape}"
    numeric = {n: v for n, v in arguments.items() if n not in ("params", "loss_fn", "regularize_bias")}
    inputs = [*arguments["params"], *numeric.values()]
    if not finite(*inputs):
        return ""
    y, loss_fn = canonical(arguments["y"]), arguments.get("loss_fn")
    if not np.isin(y, (-1, 1) if loss_fn is None else np.arange(CLASSES)).all() or not tame(1e6, *inputs):
        return ""
    weight = canonical(arguments.get("sample_weight", np.ones(y.shape))).astype(float)
    if not weight.sum() > 1e-6 or (weight < 0).any():
        return ""
    if np.isnan(result):
        return "NaN from finite numbers"
    scores, scale = _scores(arguments)
    if np.ndim(canonical(arguments.get("margin", 1.0))):
        return ""
    margin = float(canonical(arguments.get("margin", 1.0)))
    rows = hinge(scores, y, margin) if loss_fn is None else weston_watkins(scores, y, margin)
    w, b = (canonical(leaf).astype(float) for leaf in arguments["params"])
    norm = (w**2).sum() + ((b**2).sum() if arguments.get("regularize_bias") else 0)
    l2 = float(canonical(arguments.get("l2", 0.0)))
    expected = (weight * rows).sum() / weight.sum() + l2 / 2 * norm
    room = 1e-5 * (4 * scale.max() + abs(margin) + l2 * norm + 1e-30)
    return "" if abs(float(result) - expected) <= room else f"{float(result)}, expected {expected}"


def check_step(arguments: Arguments, result: Any) -> str:
    params, metrics = result
    for leaf, own in zip(params, arguments["params"], strict=True):
        if leaf.shape != np.shape(own):
            return f"parameters of shape {leaf.shape}"
    if (
        not finite(*params)
        and np.isfinite(np.asarray(metrics.loss)).all()
        and np.isfinite(np.asarray(metrics.grad_norm)).all()
    ):
        inputs = [v for n, v in arguments.items() if n in ("x", "y", "l2")] + list(arguments["params"])
        return "parameters that are not finite, without a sign of it" if tame(1e6, *inputs) else ""
    return ""


def train_step(params: Any, x: Any, y: Any, **options: Any) -> Any:
    init, step = jh.make_train_step(optax.sgd(0.1))
    state, metrics = step(init(params), x, y, **options)
    return state.params, metrics


def train(params: Any, x: Any, y: Any, **options: Any) -> Any:
    return jh.train(params, x, y, optimizer=SGD, **options)


SGD = optax.sgd(0.1)


def train_arguments(rng: Rng) -> Arguments:
    x, y = rows_of(rng, np.float32)
    d = x.shape[1]
    found: Arguments = {
        "params": jh.LinearParams(np.zeros(d, np.float32), np.zeros((), np.float32)), "x": x, "y": y,
        "num_steps": 3, "batch_size": 2, "key": jax.random.key(0), "l2": 0.1,
    }  # fmt: skip
    optional = {"sample_weight": np.ones(len(x), np.float32), "average_from": 1, "blocks": 1}
    return found | {name: value for name, value in optional.items() if rng.random() < 0.3}


def objective() -> Iterator[Function]:
    names = ("w", "b", "labels", "targets", "scores")
    yield Function("decision_function", jh.decision_function, model_arguments, check_scores, 1.5, names)
    yield Function("predict", jh.predict, model_arguments, check_predict, 1.5, names)
    yield Function("loss", jh.loss, objective_arguments, check_objective, 2.0, names)
    yield Function("make_train_step", train_step, objective_arguments, check_step, 1.0, names)
    yield Function(
        "train",
        train,
        train_arguments,
        lambda a, r: "" if r[1].loss.shape == (a["num_steps"],) else "history",
        0.3,
        (*names, "optimizer"),
    )
    yield Function(
        "init_params",
        jh.init_params,
        lambda rng: {"num_features": int(rng.integers(1, 4)), "num_classes": 3, "dtype": "float32"},
        lambda a, r: "" if all((np.asarray(leaf) == 0).all() for leaf in r) else "not zeros",
        1.0,
    )
    yield Function("fit", jh.fit, fit_arguments, check_fit, 0.8, ("w", "b", "margin"))
    yield Function(
        "save",
        saved,
        lambda rng: {"params": model_arguments(rng)["params"], "scale": rng.normal(size=3)},
        check_saved,
        0.6,
        names,
    )
    yield Function("load", loaded, damaged, lambda a, r: "" if r[0].w.shape[0] >= 0 else "shape", 0.6, ("path.npz",))
    yield Function(
        "shard_rows", jh.shard_rows, shard_arguments,
        lambda a, r: "" if r.x.shape == np.shape(a["x"]) else "shape", 0.4, names,
    )  # fmt: skip


def fit_arguments(rng: Rng) -> Arguments:
    x, y = rows_of(rng, np.float32)
    found: Arguments = {"x": x, "y": y, "l2": 0.1, "epochs": 2}
    if rng.random() < 0.3:
        found |= {"loss_fn": jh.losses.epsilon_insensitive_loss, "y": rng.normal(size=len(x)).astype(np.float32)}
    optional: Arguments = {
        "batch_size": 2, "sample_weight": rng.uniform(0.5, 2, len(x)), "regularize_bias": True, "average_from": 1,
        "tol": 1e-3, "patience": 2, "progress": False, "key": jax.random.key(1), "subgradient": 0.5,
        "params": jh.LinearParams(np.zeros(x.shape[1]), np.zeros(())), "num_classes": None, "optimizer": SGD,
        "checkpoint": None, "steps_per_epoch": None, "on_interrupt": "raise",
    }  # fmt: skip
    return found | {name: value for name, value in optional.items() if rng.random() < 0.12}


def check_fit(arguments: Arguments, result: Any) -> str:
    if not finite(*result.params) and np.isfinite(result.history.loss).all():
        return f"not finite: {result.params}"
    if not finite(*result.params) and tame(1e3, arguments["x"], arguments["l2"]) and "optimizer" not in arguments:
        return f"not finite: {result.params}"
    return ""


def saved(params: Any, scale: Any) -> Any:
    with tempfile.TemporaryDirectory() as directory:
        jh.save(f"{directory}/model.npz", params, scale=scale)
        left = [path.name for path in Path(directory).iterdir()]
        return jh.load(f"{directory}/model.npz"), left


def check_saved(arguments: Arguments, result: Any) -> str:
    (params, extras), left = result
    if left != ["model.npz"]:
        return f"files {left}"
    for name, own, again in [
        *zip("wb", arguments["params"], params, strict=True),
        ("scale", arguments["scale"], extras["scale"]),
    ]:
        if np.asarray(own).astype(again.dtype).tobytes() != np.asarray(again).tobytes():
            return f"{name} came back as {again}"
    return ""


@functools.cache
def good_file() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        jh.save(f"{directory}/model.npz", (np.ones(3), np.float64(0)), classes=["a", "b"])
        return Path(directory, "model.npz").read_bytes()


def loaded(path: Any) -> Any:
    """`path` holds the bytes of the file."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "path.npz").write_bytes(path)
        return jh.load(f"{directory}/path.npz")


def damaged(rng: Rng) -> Arguments:
    content = bytearray(good_file())
    kind = rng.integers(4)
    if kind == 0:
        content = content[: rng.integers(len(content))]
    elif kind == 1:
        for place in rng.integers(0, len(content), 3):
            content[place] = rng.integers(256)
    elif kind == 2:
        content = bytearray(rng.bytes(200))
    else:
        buffer = io.BytesIO()
        np.savez(buffer, w=np.ones(3), b=rng.normal(size=rng.integers(3)))
        content = bytearray(buffer.getvalue())
    return {"path": bytes(content)}


def shard_arguments(rng: Rng) -> Arguments:
    x, y = rows_of(rng, np.float32)
    return {
        "mesh": jax.sharding.Mesh(jax.devices()[:1], ("data",)),
        "x": x,
        "y": y,
        "sample_weight": None,
        "axis": None,
    }
