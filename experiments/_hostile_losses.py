"""The losses with hostile input, against their formulas in NumPy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _hostile_common import CLASSES, Arguments, Function, as_jax, canonical, finite, tame
from _hostile_values import Rng

import jaxhinge as jh


def pp(z: Any) -> Any:
    return np.maximum(z, 0)


def hinge(scores: Any, targets: Any, margin: Any = 1.0, **_: Any) -> Any:
    return pp(margin - targets * scores)


def _smooth(scores: Any, targets: Any, width: Any = 1.0, margin: Any = 1.0, **_: Any) -> Any:
    v = pp(margin - targets * scores)
    return np.where(v >= width, v - width / 2, v * v / (2 * width))


def _violations(scores: Any, labels: Any, margin: Any) -> Any:
    labels = np.broadcast_to(labels, scores.shape[:-1])
    own = np.take_along_axis(scores, labels[..., None], -1)
    return np.where(np.arange(scores.shape[-1]) == labels[..., None], -np.inf, margin + scores - own)


def _crammer_singer(scores: Any, labels: Any, margin: Any = 1.0, **_: Any) -> Any:
    return pp(_violations(scores, labels, margin).max(-1))


def weston_watkins(scores: Any, labels: Any, margin: Any = 1.0, p: Any = 1, **options: Any) -> Any:
    labels = np.asarray(labels, np.int64)
    for_label = {name: value[labels][..., None] for name, value in options.items() if name.startswith("class_")}
    losses = (pp(_violations(scores, labels, margin * for_label.get("class_margin", 1.0))) ** p).sum(-1)
    return for_label["class_weight"][..., 0] * losses if "class_weight" in for_label else losses


def _multilabel(scores: Any, targets: Any, margin: Any = 1.0, **_: Any) -> Any:
    found = np.zeros(scores.shape[:-1])
    for row in np.ndindex(found.shape):
        listed = targets[row].tolist()
        right = listed[: listed.index(-1)] if -1 in listed else listed
        wrong = [j for j in range(scores.shape[-1]) if j not in right]
        asked = float(np.broadcast_to(margin, found.shape)[row]) if np.ndim(margin) else margin
        found[row] = sum(max(0.0, asked + scores[row][j] - scores[row][t]) for t in right for j in wrong)
    return found / scores.shape[-1]


def _one_vs_rest(scores: Any, labels: Any, margin: Any = 1.0, **_: Any) -> Any:
    own = np.arange(scores.shape[-1]) == np.broadcast_to(labels, scores.shape[:-1])[..., None]
    return pp(margin - np.where(own, scores, -scores)).sum(-1)


def _triplet(
    anchor: Any, positive: Any, negative: Any, margin: Any = 1.0, p: Any = 2, swap: bool = False, **_: Any
) -> Any:
    def distance(one: Any, other: Any) -> Any:
        return np.linalg.norm(one - other + 1e-6, float(p), axis=-1)

    to_negative = distance(anchor, negative)
    if swap:
        to_negative = np.minimum(to_negative, distance(positive, negative))
    return pp(margin + distance(anchor, positive) - to_negative)


def _tube(predictions: Any, targets: Any, epsilon: Any = 0.1, **_: Any) -> Any:
    r = targets - predictions
    return pp(r - epsilon) + pp(-r - epsilon)


def _pinball(predictions: Any, targets: Any, quantile: Any = 0.5, **_: Any) -> Any:
    r = targets - predictions
    return quantile * pp(r) + (1 - quantile) * pp(-r)


REFERENCES: dict[str, tuple[str, Callable[..., Any]]] = {
    "hinge_loss": ("binary", hinge),
    "squared_hinge_loss": ("binary", lambda *a, **o: hinge(*a, **o) ** 2),
    "smooth_hinge_loss": ("binary", _smooth),
    "perceptron_loss": ("binary", lambda s, t, margin=0.0, **o: hinge(s, t, margin)),
    "multiclass_hinge_loss": ("labels", _crammer_singer),
    "weston_watkins_loss": ("labels", weston_watkins),
    "one_vs_rest_hinge_loss": ("labels", _one_vs_rest),
    "multiclass_perceptron_loss": ("labels", lambda s, t, margin=0.0, **o: _crammer_singer(s, t, margin)),
    "multilabel_margin_loss": ("multilabel", _multilabel),
    "margin_ranking_loss": ("ranking", lambda a, b, t, margin=0.0, **o: hinge(a - b, t, margin)),
    "hinge_embedding_loss": ("distances", lambda s, t, margin=1.0, **o: np.where(t == 1, s, pp(margin - s))),
    "triplet_margin_loss": ("triplet", _triplet),
    "epsilon_insensitive_loss": ("real", _tube),
    "squared_epsilon_insensitive_loss": ("real", lambda *a, **o: _tube(*a, **o) ** 2),
    "pinball_loss": ("real", _pinball),
}
LOSS_SHAPES = ((), (1,), (5,), (5, 3))


def loss_arguments(kind: str, name: str, rng: Rng) -> Arguments:
    shape = LOSS_SHAPES[rng.integers(len(LOSS_SHAPES))]

    def scores(shape: tuple[int, ...] = shape) -> Any:
        return np.asarray(2 * rng.normal(size=shape), np.float32)

    signs = np.asarray(rng.choice((-1, 1), shape))
    found: Arguments = {
        "binary": lambda: {"scores": scores(), "targets": signs},
        "distances": lambda: {"distances": abs(scores()), "targets": signs},
        "real": lambda: {"predictions": scores(), "targets": scores()},
        "ranking": lambda: {"scores1": scores(), "scores2": scores(), "targets": signs},
        "triplet": lambda: {n: scores((*shape, 3)) for n in ("anchor", "positive", "negative")},
        "labels": lambda: {
            "scores": scores((*shape, CLASSES)),
            "labels": np.asarray(rng.integers(0, CLASSES, shape)),
        },
        "multilabel": lambda: {
            "scores": scores((*shape, CLASSES)),
            "targets": np.asarray(rng.integers(-1, CLASSES, (*shape, CLASSES))),
        },
    }[kind]()
    options: Arguments = {"margin": 0.5, "subgradient": 0.5, "kink_tol": 0.1}
    if kind == "real":
        del options["margin"]
        options |= {"quantile": 0.25} if name == "pinball_loss" else {"epsilon": 0.5}
    if name == "smooth_hinge_loss":
        options["width"] = 0.5
    if name == "weston_watkins_loss":
        options |= {"p": 2, "class_weight": rng.uniform(0, 2, CLASSES), "class_margin": rng.uniform(0, 2, CLASSES)}
    if name == "triplet_margin_loss":
        options |= {"p": float(rng.choice((1, 1.5, 3, np.inf))), "swap": True}
    if name in ("multiclass_hinge_loss", "multiclass_perceptron_loss"):
        options["ties"] = "first"
    return found | {key: value for key, value in options.items() if rng.random() < 0.3}


def check_loss(kind: str, name: str, reference: Callable[..., Any], arguments: Arguments, result: Any) -> str:
    options = {n: v for n, v in arguments.items() if n not in ("ties", "swap", "p", "subgradient", "kink_tol")}
    values = {n: canonical(v) for n, v in options.items()}
    scored = next(iter(values))
    values[scored] = first = values[scored].astype(np.float64)  # small integers would wrap in the formulas below
    shape = first.shape[:-1] if kind in ("labels", "multilabel", "triplet") else first.shape
    if result.shape != shape:
        return f"shape {result.shape}, expected {shape}"
    if not jnp.issubdtype(result.dtype, jnp.floating):
        return f"dtype {result.dtype}"
    scores = as_jax(next(iter(arguments.values()))) if kind not in ("ranking", "triplet") else result
    if jnp.issubdtype(scores.dtype, jnp.floating) and result.dtype != scores.dtype:
        return f"dtype {result.dtype} of scores {scores.dtype}"
    got = np.asarray(result).astype(np.float64)
    signed = kind == "distances" or {"epsilon", "quantile", "class_weight"} & arguments.keys()
    if (got < 0).any() and not signed:
        return "a loss below 0"
    if not finite(*values.values()):
        return ""
    outside = _without_a_loss(kind, values, first, shape)
    if kind in ("labels", "multilabel", "distances") and not np.isnan(got[outside]).all():
        return "a label or target outside gives a number"
    if outside.any():
        return ""
    largest = float(jnp.finfo(result.dtype).max)
    if np.isnan(got).any() and tame(min(largest, 3e38) ** 0.5 / 16, *values.values()):
        return "NaN from finite numbers"
    if not tame(1e3 if result.dtype.itemsize > 2 else 16, *values.values(), arguments.get("p", 1)):
        return ""
    return _compare(kind, name, reference, arguments, values, result)


def _without_a_loss(kind: str, values: Arguments, first: Any, shape: tuple[int, ...]) -> Any:
    """Which rows have a label or target that means nothing."""
    if kind == "labels":
        return np.broadcast_to((values["labels"] < 0) | (values["labels"] >= first.shape[-1]), shape)
    if kind == "multilabel":
        targets = values["targets"]
        listed = np.cumsum(targets == -1, axis=-1) == 0
        return (listed & ((targets < 0) | (targets >= first.shape[-1]))).any(-1)
    if kind in ("binary", "ranking", "distances"):
        return ~np.broadcast_to(np.abs(values["targets"]) == 1, shape)
    return np.zeros(shape, bool)


def _compare(
    kind: str, name: str, reference: Callable[..., Any], arguments: Arguments, values: Arguments, result: Any
) -> str:
    """What differs from the formula, for options that are one number for all rows."""
    options = {n: v for n, v in values.items() if n in ("margin", "width", "epsilon", "quantile")}
    if any(value.ndim for value in options.values()):
        return ""
    options |= {n: v for n, v in values.items() if n.startswith("class_")}
    options |= {n: arguments[n] for n in ("p", "swap") if n in arguments}
    size = 1 + max((float(np.abs(v.astype(float)).max(initial=0)) for v in values.values()), default=0)
    scale = size ** (2 if kind in ("binary", "ranking", "labels") else 1)
    scale = scale**2 if name.startswith("squared") or "class_weight" in arguments or "p" in arguments else scale
    scale /= min(1.0, float(values["width"])) if "width" in values else 1.0
    positional = list(values.values())[: 3 if kind in ("ranking", "triplet") else 2]
    with np.errstate(all="ignore"):
        expected = reference(*positional, **options)
    room = 64 * float(jnp.finfo(result.dtype).eps)
    got = np.asarray(result).astype(np.float64)
    if not np.allclose(got, expected, rtol=room, atol=room * scale):
        return f"{got.tolist()}, expected {np.asarray(expected).tolist()}"
    return ""


def losses() -> Iterator[Function]:
    for name, (kind, reference) in REFERENCES.items():
        function = getattr(jh.losses, name)
        draw = functools.partial(loss_arguments, kind, name)
        yield Function(
            f"losses.{name}",
            function,
            draw,
            functools.partial(check_loss, kind, name, reference),
            1.0,
        )

        def gradient(function: Callable[..., Any] = function, **arguments: Any) -> Any:
            first, *rest = arguments
            function(**arguments)
            with np.errstate(over="ignore"):
                start = jnp.asarray(np.asarray(arguments[first], np.float32))
            return jax.grad(lambda s: jnp.sum(function(**{first: s}, **{n: arguments[n] for n in rest})))(start)

        def check_gradient(arguments: Arguments, result: Any, kind: str = kind) -> str:
            if result.shape != np.shape(next(iter(arguments.values()))):
                return f"gradient of shape {result.shape}"
            if "labels" in arguments or "targets" in arguments:
                y = canonical(arguments.get("labels", arguments.get("targets")))
                classes = np.shape(result)[-1] if kind in ("labels", "multilabel") else 0
                good = np.isin(y, np.arange(-1 if kind == "multilabel" else 0, classes) if classes else (-1, 1))
                if kind != "real" and not good.all():
                    return ""
            numbers = (v for n, v in arguments.items() if n not in ("ties", "swap", "p"))
            if tame(1e15, *numbers) and not finite(result):
                return f"gradient {result}"
            return ""

        yield Function(f"losses.{name} gradient", gradient, draw, check_gradient, 0.3)
    for name, reference in (("hinge", lambda z: pp(1 - z)), ("positive_part", pp)):
        argument = {"hinge": "margin", "positive_part": "z"}[name]

        def draw_z(rng: Rng, argument: str = argument) -> Arguments:
            scores = loss_arguments("binary", "hinge_loss", rng)
            return {argument: scores["scores"]} | {n: scores[n] for n in ("subgradient", "kink_tol") if n in scores}

        def check_z(arguments: Arguments, result: Any, reference: Any = reference, argument: str = argument) -> str:
            z = as_jax(arguments[argument])
            if result.shape != z.shape:
                return f"shape {result.shape}"
            z = z if jnp.issubdtype(z.dtype, jnp.floating) else z.astype(float)
            if result.dtype != z.dtype:
                return f"dtype {result.dtype}"
            wide, got = np.asarray(z).astype(np.float64), np.asarray(result).astype(np.float64)
            with np.errstate(all="ignore"):
                expected = np.asarray(jnp.asarray(reference(wide)).astype(z.dtype)).astype(np.float64)
            return "" if np.allclose(got, expected, rtol=0.01, atol=1e-38, equal_nan=True) else f"{got}, not {expected}"

        yield Function(name, getattr(jh, name), draw_z, check_z, 1.0)
