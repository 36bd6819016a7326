"""Every public function with arguments that it takes, and what its result must be like if it gives one."""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _hostile_values import Rng

import jaxhinge as jh

Arguments = dict[str, Any]
ROWS, COLUMNS, CLASSES = (1, 2, 5, 16), (1, 3), 3


class Function(NamedTuple):
    """A public function.

    Attributes:
      name: As users type it.
      call: Takes the arguments by name.
      draw: Arguments that are in order.
      check: From arguments and result, what is wrong with the result, in words; "" where nothing is.
      share: How often it is called, in parts of the whole.
      names: What a refusal may name beside the arguments.
    """

    name: str
    call: Callable[..., Any]
    draw: Callable[[Rng], Arguments]
    check: Callable[[Arguments, Any], str]
    share: float
    names: tuple[str, ...] = ()


def canonical(value: Any) -> np.ndarray[Any, Any]:
    """What JAX makes of it, in float64 or as the integers they are."""
    array = np.asarray(as_jax(value))
    return array if array.dtype.kind in "biu" else array.astype(np.float64)


def as_jax(value: Any) -> jax.Array:
    return jnp.asarray(value if isinstance(value, (bool, int, float)) else np.asarray(value))


def tame(limit: float, *values: Any) -> bool:
    """Whether all numbers are finite and below a limit."""
    return all(bool((np.abs(np.nan_to_num(canonical(v).astype(float), nan=np.inf)) <= limit).all()) for v in values)


def finite(*values: Any) -> bool:
    return all(bool(np.isfinite(canonical(value).astype(float)).all()) for value in values)


# Losses ---------------------------------------------------------------------------------------------------------------


def _pp(z: Any) -> Any:
    return np.maximum(z, 0)


def _hinge(scores: Any, targets: Any, margin: Any = 1.0, **_: Any) -> Any:
    return _pp(margin - targets * scores)


def _smooth(scores: Any, targets: Any, width: Any = 1.0, margin: Any = 1.0, **_: Any) -> Any:
    v = _pp(margin - targets * scores)
    return np.where(v >= width, v - width / 2, v * v / (2 * width))


def _violations(scores: Any, labels: Any, margin: Any) -> Any:
    labels = np.broadcast_to(labels, scores.shape[:-1])
    own = np.take_along_axis(scores, labels[..., None], -1)
    return np.where(np.arange(scores.shape[-1]) == labels[..., None], -np.inf, margin + scores - own)


def _crammer_singer(scores: Any, labels: Any, margin: Any = 1.0, **_: Any) -> Any:
    return _pp(_violations(scores, labels, margin).max(-1))


def _weston_watkins(scores: Any, labels: Any, margin: Any = 1.0, **_: Any) -> Any:
    return _pp(_violations(scores, labels, margin)).sum(-1)


def _one_vs_rest(scores: Any, labels: Any, margin: Any = 1.0, **_: Any) -> Any:
    own = np.arange(scores.shape[-1]) == np.broadcast_to(labels, scores.shape[:-1])[..., None]
    return _pp(margin - np.where(own, scores, -scores)).sum(-1)


def _triplet(anchor: Any, positive: Any, negative: Any, margin: Any = 1.0, **_: Any) -> Any:
    def distance(other: Any) -> Any:
        return np.sqrt(((anchor - other + 1e-6) ** 2).sum(-1))

    return _pp(margin + distance(positive) - distance(negative))


def _tube(predictions: Any, targets: Any, epsilon: Any = 0.1, **_: Any) -> Any:
    r = targets - predictions
    return _pp(r - epsilon) + _pp(-r - epsilon)


def _pinball(predictions: Any, targets: Any, quantile: Any = 0.5, **_: Any) -> Any:
    r = targets - predictions
    return quantile * _pp(r) + (1 - quantile) * _pp(-r)


REFERENCES: dict[str, tuple[str, Callable[..., Any]]] = {
    "hinge_loss": ("binary", _hinge),
    "squared_hinge_loss": ("binary", lambda *a, **o: _hinge(*a, **o) ** 2),
    "smooth_hinge_loss": ("binary", _smooth),
    "perceptron_loss": ("binary", lambda s, t, margin=0.0, **o: _hinge(s, t, margin)),
    "multiclass_hinge_loss": ("labels", _crammer_singer),
    "weston_watkins_loss": ("labels", _weston_watkins),
    "one_vs_rest_hinge_loss": ("labels", _one_vs_rest),
    "multiclass_perceptron_loss": ("labels", lambda s, t, margin=0.0, **o: _crammer_singer(s, t, margin)),
    "margin_ranking_loss": ("ranking", lambda a, b, t, margin=0.0, **o: _hinge(a - b, t, margin)),
    "hinge_embedding_loss": ("distances", lambda s, t, margin=1.0, **o: np.where(t == 1, s, _pp(margin - s))),
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
    }[kind]()
    options = {"margin": 0.5, "subgradient": 0.5, "kink_tol": 0.1}
    if kind == "real":
        del options["margin"]
        options |= {"quantile": 0.25} if name == "pinball_loss" else {"epsilon": 0.5}
    if name == "smooth_hinge_loss":
        options["width"] = 0.5
    return found | {key: value for key, value in options.items() if rng.random() < 0.3}


def check_loss(kind: str, reference: Callable[..., Any], squared: bool, arguments: Arguments, result: Any) -> str:
    values = {name: canonical(value) for name, value in arguments.items() if name != "ties"}
    scored = next(iter(values))
    values[scored] = first = values[scored].astype(np.float64)  # small integers would wrap in the formulas below
    shape = first.shape[:-1] if kind in ("labels", "triplet") else first.shape
    if result.shape != shape:
        return f"shape {result.shape}, expected {shape}"
    if not jnp.issubdtype(result.dtype, jnp.floating):
        return f"dtype {result.dtype}"
    scores = as_jax(next(iter(arguments.values()))) if kind not in ("ranking", "triplet") else result
    if jnp.issubdtype(scores.dtype, jnp.floating) and result.dtype != scores.dtype:
        return f"dtype {result.dtype} of scores {scores.dtype}"
    got = np.asarray(result).astype(np.float64)
    if (got < 0).any() and not (kind == "distances" or "epsilon" in arguments or "quantile" in arguments):
        return "a loss below 0"
    if not finite(*values.values()):
        return ""
    if "labels" in values and not ((values["labels"] >= 0) & (values["labels"] < first.shape[-1])).all():
        outside = np.broadcast_to((values["labels"] < 0) | (values["labels"] >= first.shape[-1]), shape)
        return "" if np.isnan(got[outside]).all() else "a label outside gives a number"
    if kind in ("binary", "ranking", "distances"):
        known = np.broadcast_to(np.abs(values["targets"]) == 1, shape)
        if kind == "distances" and not np.isnan(got[~known]).all():
            return "a target other than -1 and +1 gives a number"
        if not known.all():
            return ""
    largest = float(jnp.finfo(result.dtype).max)
    if np.isnan(got).any() and tame(min(largest, 3e38) ** 0.5 / 16, *values.values()):
        return "NaN from finite numbers"
    if not tame(1e3 if result.dtype.itemsize > 2 else 16, *values.values()):
        return ""
    with np.errstate(all="ignore"):
        expected = (
            reference(
                *list(values.values())[: 3 if kind in ("ranking", "triplet") else 2],
                **{
                    name: value[..., None] if value.ndim and kind == "labels" else value
                    for name, value in values.items()
                    if name in ("margin", "width", "epsilon", "quantile")
                },
            )
            if not any(values[n].ndim for n in ("margin", "width", "epsilon", "quantile") if n in values)
            else got
        )
    size = 1 + max((float(np.abs(v.astype(float)).max(initial=0)) for v in values.values()), default=0)
    if kind == "binary" or kind == "ranking":
        size *= size
    scale = size**2 if squared else size
    scale /= min(1.0, float(values["width"])) if "width" in values and values["width"].ndim == 0 else 1.0
    if not np.allclose(
        got,
        expected,
        rtol=64 * float(jnp.finfo(result.dtype).eps),
        atol=64 * scale * float(jnp.finfo(result.dtype).eps),
    ):
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
            functools.partial(check_loss, kind, reference, name.startswith("squared")),
            2.0,
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
                classes = np.shape(result)[-1] if "labels" in arguments else 0
                good = np.isin(y, (-1, 1) if "targets" in arguments and kind != "real" else np.arange(classes))
                if kind != "real" and not good.all():
                    return ""
            if tame(1e15, *(v for n, v in arguments.items() if n != "ties")) and not finite(result):
                return f"gradient {result}"
            return ""

        yield Function(f"losses.{name}, gradient", gradient, draw, check_gradient, 0.5)
    for name, reference in (("hinge", lambda z: _pp(1 - z)), ("positive_part", _pp)):
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

        yield Function(name, getattr(jh, name), draw_z, check_z, 2.0)


# The objective --------------------------------------------------------------------------------------------------------


def model_arguments(rng: Rng) -> Arguments:
    n, d = rng.choice(ROWS), rng.choice(COLUMNS)
    classes = (CLASSES,) if rng.random() < 0.4 else ()
    x = np.asarray(rng.normal(size=(n, d) if rng.random() < 0.85 else (d,)), np.float32)
    w, b = np.asarray(rng.normal(size=(d, *classes)), np.float32), np.asarray(rng.normal(size=classes), np.float32)
    return {"params": jh.LinearParams(w, b), "x": x}


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
    rows = _hinge(scores, y, margin) if loss_fn is None else _weston_watkins(scores, y, margin)
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
    yield Function("decision_function", jh.decision_function, model_arguments, check_scores, 3.0, names)
    yield Function("predict", jh.predict, model_arguments, check_predict, 3.0, names)
    yield Function("loss", jh.loss, objective_arguments, check_objective, 4.0, names)
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


# Solvers --------------------------------------------------------------------------------------------------------------


def rows_of(rng: Rng, dtype: Any = None) -> tuple[Any, Any]:
    n, d = int(rng.choice(ROWS[1:])), int(rng.choice(COLUMNS))
    x = rng.normal(size=(n, d)).astype(dtype or rng.choice(("float32", "float64")))
    y = np.where(np.arange(n) == 0, 1, np.where(np.arange(n) == 1, -1, rng.choice((-1, 1), n)))
    return x, y


def common_options(rng: Rng, rows: int) -> Arguments:
    optional: Arguments = {
        "sample_weight": rng.uniform(0.5, 2, rows), "tol": 1e-4, "max_steps": 100, "as_numpy": True, "init": None,
    }  # fmt: skip
    return {name: value for name, value in optional.items() if rng.random() < 0.3}


def solve_arguments(rng: Rng) -> Arguments:
    x, y = rows_of(rng)
    choices: tuple[Arguments, ...] = (
        {},
        {},
        {"loss": "squared_hinge"},
        {"fit_intercept": "regularized"},
        {"fit_intercept": False},
        {"method": "ascent"},
    )
    found = {"x": x, "y": y, "l2": 0.1} | common_options(rng, len(x)) | choices[rng.integers(len(choices))]
    if "init" in found:
        found["init"] = jh.solve(x, y, l2=0.2) if rng.random() < 0.5 else jh.solve(x[:2], y[:2], l2=0.2)
    return found


def check_solution(arguments: Arguments, result: Any) -> str:
    leaves = [*result.params, result.dual, result.primal_value, result.dual_value, result.gap]
    if not finite(*leaves):
        return f"not finite: {result}"
    if int(result.status) not in (0, 1, 2):
        return f"status {result.status}"
    primal, gap = float(result.primal_value), float(result.gap)
    if gap < -1e-6 * abs(primal) - 1e-30:
        return f"gap {gap} below 0 at {primal}"
    tol = float(np.asarray(arguments.get("tol", 1e-4)))
    if int(result.status) == 0 and gap > 1.0001 * tol * max(abs(primal), 1e-10) + 1e-30:
        return f"CONVERGED with gap {gap} at {primal}"
    rounding = 1e-12 if result.gap.dtype == np.float64 else 2e-6
    if abs(primal - float(result.dual_value) - gap) > rounding * (abs(primal) + abs(float(result.dual_value))):
        return f"gap {gap}, but {primal} - {float(result.dual_value)}"
    if (np.asarray(result.dual) < 0).any():
        return "a dual below 0"
    return ""


def check_solve(arguments: Arguments, result: Any) -> str:
    complaint = check_solution(arguments, result)
    x, y, w = canonical_rows(arguments)
    if complaint or not tame(1e6, x, *result.params):
        return complaint
    weights = canonical_weights(arguments, len(x))
    v = _pp(1 - y * (x @ canonical(result.params.w) + float(result.params.b)))
    squared = arguments.get("loss") == "squared_hinge"
    norm = (canonical(result.params.w) ** 2).sum()
    if arguments.get("fit_intercept") == "regularized":
        norm = norm + float(result.params.b) ** 2
    expected = (weights * (v**2 if squared else v)).sum() + w / 2 * norm
    if abs(expected - float(result.primal_value)) > 1e-5 * (expected + np.abs(x).max() * np.sqrt(norm)) + 1e-7:
        return f"primal_value {float(result.primal_value)}, expected {expected}"
    if not squared and (np.asarray(result.dual) > weights * (1 + 1e-5)).any():
        return "a dual above its bound"
    return ""


def canonical_rows(arguments: Arguments) -> tuple[Any, Any, float]:
    """x, y and l2 in float64, as NumPy has them: the solver takes them in full precision on the host."""

    def wide(value: Any) -> Any:
        return np.asarray(value).astype(np.float64)

    return wide(arguments["x"]), wide(arguments["y"]), float(np.asarray(arguments["l2"]))


def canonical_weights(arguments: Arguments, n: int) -> Any:
    weights = arguments.get("sample_weight")
    weights = np.ones(n) if weights is None else np.asarray(weights).astype(np.float64)
    return weights / weights.sum()


@functools.cache
def compiled_solve() -> Any:
    return jax.jit(lambda x, y, l2, weight: jh.solve(x, y, l2=l2, sample_weight=weight))


def solve_under_jit(x: Any, y: Any, l2: Any, sample_weight: Any) -> Any:
    """Under a trace of one shape: values are not checked, so the status has to say it."""
    arrays = (np.asarray(value, np.float32) for value in (x, y, l2, sample_weight))
    return compiled_solve()(*arrays)


def traced_arguments(rng: Rng) -> Arguments:
    x = rng.normal(size=(5, 3)).astype(np.float32)
    y = np.array([1, -1, 1, -1, 1], np.float32)
    found: Arguments = {"x": x, "y": y, "l2": np.float32(0.1), "sample_weight": np.ones(5, np.float32)}
    name = ("x", "y", "l2", "sample_weight")[rng.integers(4)]
    specials = np.array((np.nan, np.inf, -1.0, 0.0, 1e38, 1e-45, 2.0, 1e-30, 1.0), np.float32)
    if name == "l2":
        return found | {"l2": np.float32(rng.choice(specials))}
    chosen = rng.random(found[name].shape) < rng.choice((0.1, 1.0))
    return found | {name: np.where(chosen, rng.choice(specials, found[name].shape), found[name])}


def check_traced(arguments: Arguments, result: Any) -> str:
    leaves = [*result.params, result.dual, result.primal_value, result.dual_value, result.gap]
    if int(result.status) == jh.Status.REFUSED:
        if not all(np.isnan(np.asarray(leaf)).all() for leaf in leaves):
            return "REFUSED with numbers"
        wide = {n: v.astype(np.float64) for n, v in arguments.items()}
        good = all(np.isfinite(v).all() for v in wide.values()) and wide["l2"] > 0 and np.isin(wide["y"], (-1, 1)).all()
        good = good and (wide["sample_weight"] >= 0).all()
        used = set(wide["y"][wide["sample_weight"] > 0]) if good else set()
        return (
            "REFUSED though in order"
            if good
            and len(used) == 2
            and tame(1e6, *wide.values())
            and wide["l2"] > 1e-20
            and wide["sample_weight"].sum() > 1e-20
            else ""
        )
    if not np.isin(arguments["y"], (-1, 1)).all() or not finite(*arguments.values()) or not arguments["l2"] > 0:
        return "bad data, but no REFUSED"
    return check_solution({}, result)


def variant_arguments(rng: Rng, name: str) -> Arguments:
    x, _ = rows_of(rng, np.float32)
    n = len(x)
    own: Arguments = {"x": x}
    if name in ("solve_regression", "solve_quantile"):
        own |= {"y": rng.normal(size=n).astype(np.float32), "l2": 0.1}
        own |= {"epsilon": 0.2} if name == "solve_regression" else {"quantile": 0.3}
    elif name == "solve_ranking":
        i = rng.integers(0, n, 5)
        own |= {"pairs": np.stack([i, (i + 1) % n], 1), "l2": 0.1}
        n = 5
    else:
        own |= {"nu": 0.3, "l2": 1.0}
    return own | common_options(rng, n)


def multiclass_arguments(rng: Rng) -> Arguments:
    n = int(rng.choice((5, 16)))
    x = rng.normal(size=(n, 3)).astype(np.float32)
    labels = np.where(np.arange(n) < CLASSES, np.arange(n), rng.integers(0, CLASSES, n))
    choice = ({}, {"loss": "one_vs_rest"}, {"loss": "weston_watkins"})[rng.integers(3)]
    return {"x": x, "labels": labels, "l2": 0.1} | choice | common_options(rng, n)


def gap_arguments(rng: Rng) -> Arguments:
    x, y = rows_of(rng)
    found: Arguments = {
        "params": jh.LinearParams(rng.normal(size=x.shape[1]), np.asarray(rng.normal())), "x": x, "y": y, "l2": 0.1,
    }  # fmt: skip
    optional = {"dual": rng.uniform(0, 1, len(x)), "sample_weight": rng.uniform(0.5, 2, len(x))}
    return found | {name: value for name, value in optional.items() if rng.random() < 0.3}


def check_gap(arguments: Arguments, result: Any) -> str:
    if result.shape != ():
        return f"shape {result.shape}"
    value = float(result)
    if np.isnan(value):
        return "NaN without a refusal"
    return "" if value >= -1e-6 or value >= -1e-6 * abs(value) else f"gap {value} below 0"


def solvers() -> Iterator[Function]:
    names = ("w", "b", "init", "weights", "pairs")
    yield Function("solve", jh.solve, solve_arguments, check_solve, 1.6, names)
    yield Function("solve under jit", solve_under_jit, traced_arguments, check_traced, 0.8, names)
    for name, share in (
        ("solve_regression", 0.3),
        ("solve_quantile", 0.3),
        ("solve_ranking", 0.3),
        ("solve_one_class", 0.3),
    ):
        draw = functools.partial(variant_arguments, name=name)
        yield Function(name, getattr(jh, name), draw, check_solution, share, names)
    if hasattr(jh, "solve_multiclass"):
        yield Function("solve_multiclass", jh.solve_multiclass, multiclass_arguments, check_solution, 0.3, names)
    yield Function("duality_gap", jh.duality_gap, gap_arguments, check_gap, 0.8, names)


# Sweeps, fits, the doctor ---------------------------------------------------------------------------------------------


def sweep_arguments(rng: Rng) -> Arguments:
    n = 16
    x = rng.normal(size=(n, 3))
    found: Arguments = {"x": x, "y": np.where(np.arange(n) % 2, 1, -1), "l2": np.array([1.0, 0.1]), "folds": 2}
    optional: Arguments = {
        "sample_weight": rng.uniform(0.5, 2, n), "scoring": "hinge", "select": "one_standard_error", "key": 1,
        "tol": 1e-3, "max_steps": 50, "memory_budget": 1e9, "progress": False, "as_numpy": True,
        "on_interrupt": "return",
    }  # fmt: skip
    return found | {name: value for name, value in optional.items() if rng.random() < 0.3}


def check_sweep(arguments: Arguments, result: Any) -> str:
    if not finite(result.gap, result.val_score, result.best.gap, *result.best.params):
        return f"not finite: {result}"
    if not ((np.asarray(result.gap) >= -1e-6).all() and (np.asarray(result.best.gap) >= -1e-6).all()):
        return "a gap below 0"
    shape = (np.size(arguments["l2"]),)
    return "" if np.shape(result.l2) == shape else f"l2 of shape {np.shape(result.l2)}"


def path_arguments(rng: Rng) -> Arguments:
    x, y = rows_of(rng)
    found: Arguments = {"x": x, "y": y, "l2": np.array([1.0, 0.1, 0.01])}
    optional = {"sample_weight": rng.uniform(0.5, 2, len(x)), "tol": 1e-3, "max_steps": 50, "as_numpy": True}
    return found | {name: value for name, value in optional.items() if rng.random() < 0.3}


def check_path(arguments: Arguments, result: Any) -> str:
    if not finite(result.gap, result.dual, *result.params):
        return f"not finite: {result}"
    return "" if (np.asarray(result.gap) >= -1e-6 * np.abs(result.primal_value)).all() else "a gap below 0"


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


def right_gradient(w: Any, b: Any, x: Any, y: Any) -> Any:
    push = -y * (y * (x @ w + b) < 1) / len(x)
    return x.T @ push + 0.1 * w, push.sum()


def right_loss(w: Any, b: Any, x: Any, y: Any) -> Any:
    return jnp.mean(jnp.maximum(0, 1 - y * (x @ w + b))) + 0.05 * jnp.sum(w**2)


def strange_gradient(rng: Rng) -> Callable[..., Any]:
    """A gradient, or something in its place."""
    from _hostile_values import junk, strange_array

    def raises(*_: Any) -> Any:
        raise RuntimeError("from the caller's function")

    made = [junk(rng), strange_array(rng), (strange_array(rng), strange_array(rng)), (junk(rng), junk(rng))]
    returned = made[rng.integers(len(made))]

    def writes(w: Any, b: Any, x: Any, y: Any) -> Any:
        found = right_gradient(w, b, x, y)
        x[...] = np.nan
        w[...] = 0
        return found

    options = (lambda *_: returned, lambda *_: returned, raises, writes, lambda w, b, x, y: (w * np.nan, b))
    return options[rng.integers(len(options))]


def diagnose_arguments(rng: Rng, argument: str) -> Arguments:
    x, y = rows_of(rng, np.float64)
    params = jh.LinearParams(rng.normal(size=x.shape[1]), np.asarray(rng.normal()))
    function = right_gradient if argument == "grad_fn" else right_loss
    function = strange_gradient(rng) if rng.random() < 0.3 else function
    return {argument: function, "params": params, "x": x, "y": y, "l2": 0.1}


def check_diagnosis(arguments: Arguments, result: Any) -> str:
    if not isinstance(str(result), str) or not result.cause:
        return "no cause"
    right = arguments.get("grad_fn", arguments.get("user_loss")) in (right_gradient, right_loss)
    # The gradient is right for this strength only, and to the rounding of numbers of one size.
    same = np.asarray(arguments["l2"]).dtype.kind == "f" and float(np.asarray(arguments["l2"])) == 0.1
    if (
        right
        and same
        and tame(1e3, arguments["x"], *arguments["params"])
        and not result.ok
        and result.cause != "unknown"
    ):
        return f"a right gradient is {result.cause}"
    if not right and result.ok and arguments.get("grad_fn", arguments.get("user_loss")).__name__ == "<lambda>":
        return "a wrong gradient is ok"
    return ""


def diagnose_loss(user_loss: Any, **arguments: Any) -> Any:
    return jh.diagnose_loss(user_loss, **arguments)


def asserted(**arguments: Any) -> Any:
    try:
        jh.assert_valid_gradient(**arguments)
    except AssertionError as error:
        return str(error)
    return "OK"


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


def adapters() -> Iterator[Function]:
    names = ("w", "b", "fold", "Fold", "tol", "margin")
    yield Function("sweep", jh.sweep, sweep_arguments, check_sweep, 0.5, names)
    yield Function("path", jh.path, path_arguments, check_path, 0.4, names)
    yield Function("fit", jh.fit, fit_arguments, check_fit, 0.8, names)
    for name, call, argument in (
        ("diagnose", jh.diagnose, "grad_fn"),
        ("assert_valid_gradient", asserted, "grad_fn"),
        ("diagnose_loss", diagnose_loss, "user_loss"),
    ):
        check = (lambda a, r: "" if r else "no report") if name == "assert_valid_gradient" else check_diagnosis
        yield Function(name, call, functools.partial(diagnose_arguments, argument=argument), check, 0.3, names)
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


FUNCTIONS = [*losses(), *objective(), *solvers(), *adapters()]
