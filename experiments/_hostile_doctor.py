"""The gradient doctor with hostile input: data, statements of the objective, and functions to judge."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _hostile_common import CLASSES, Arguments, Function, chosen, rows_of, tame
from _hostile_losses import hinge, weston_watkins
from _hostile_values import Rng, junk, strange_array

import jaxhinge as jh

STATEMENT = ("l2", "C", "fit_intercept", "labels", "sample_weight", "loss_fn")


def right(stated: Arguments, wants: str) -> Callable[..., Any]:
    """A right gradient, or loss, of the objective that is stated to the doctor, in NumPy."""
    labels, in_sum = stated.get("labels"), "C" in stated

    def of(w: Any, b: Any, x: Any, y: Any, sample_weight: Any = None) -> Any:
        weight = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight)
        c = stated["C"] * weight if in_sum else weight / weight.sum()
        of_w = 1.0 if in_sum else stated["l2"]
        of_b = of_w if stated.get("fit_intercept") == "regularized" else 0.0
        y = y if labels is None else np.argmax(np.asarray(y)[:, None] == np.asarray(labels), axis=1)
        scores = x @ w + b
        if w.ndim == 1:
            y = y if labels is None else 2 * y - 1
            losses, push = hinge(scores, y), -y * (y * scores < 1)
        else:
            losses, own = weston_watkins(scores, y), np.arange(w.shape[1]) == np.asarray(y)[:, None]
            push = ((scores - scores[own][:, None] + 1 > 0) & ~own).astype(float)
            push[own] = -push.sum(1)
        if wants == "loss":
            return (c * losses).sum() + of_w / 2 * (w**2).sum() + of_b / 2 * np.sum(b * b)
        return x.T @ (c * push.T).T + of_w * w, (c * push.T).T.sum(0) + of_b * b

    def without_bias(w: Any, x: Any, y: Any, sample_weight: Any = None) -> Any:
        found = of(w, np.zeros(w.shape[1:]), x, y, sample_weight)
        return found if wants == "loss" else found[0]

    return without_bias if stated.get("fit_intercept") is False else of


def strange(rng: Rng, good: Callable[..., Any]) -> Callable[..., Any]:
    """A gradient, or something in its place."""

    def raises(*_: Any) -> Any:
        raise RuntimeError("from the caller's function")

    made = [junk(rng), strange_array(rng), (strange_array(rng), strange_array(rng)), (junk(rng), junk(rng))]
    returned = made[rng.integers(len(made))]

    def writes(w: Any, b: Any, x: Any, y: Any) -> Any:
        found = good(w, b, x, y)
        x[...] = np.nan
        w[...] = 0
        return found

    options = (lambda *_: returned, lambda *_: returned, raises, writes, lambda w, b, x, y: (w * np.nan, b))
    return options[rng.integers(len(options))]


def diagnose_arguments(rng: Rng, argument: str) -> Arguments:
    x, y = rows_of(rng, np.float64)
    classes = (CLASSES,) if rng.random() < 0.25 else ()
    w, b = rng.normal(size=(x.shape[1], *classes)), rng.normal(size=classes)
    stated: Arguments = {"C": 0.5} if rng.random() < 0.3 else {"l2": 0.1}
    options = {"fit_intercept": (False, "regularized")[rng.integers(2)], "sample_weight": rng.uniform(0.5, 2, len(x))}
    stated |= chosen(rng, options, 0.2)
    if classes:
        y = rng.integers(0, CLASSES, len(x))
        stated["loss_fn"] = jh.losses.weston_watkins_loss
    if rng.random() < 0.2:
        names = np.array([["a", "b", "c"], [1, 2, 3]][rng.integers(2)][: CLASSES if classes else 2])
        stated["labels"], y = names, names[y if classes else (y + 1) // 2]
    function = right(stated, "gradient" if argument == "grad_fn" else "loss")
    RIGHT[id(function)] = function, stated
    function = strange(rng, function) if rng.random() < 0.3 else function
    params = w if stated.get("fit_intercept") is False else jh.LinearParams(w, np.asarray(b))
    return {argument: function, "params": params, "x": x, "y": y} | stated


# What the functions that are right are right for; kept, or another would have the same id.
RIGHT: dict[int, tuple[Callable[..., Any], Arguments]] = {}


def check_diagnosis(arguments: Arguments, result: Any) -> str:
    if not isinstance(str(result), str) or not result.cause:
        return "no cause"
    function = arguments.get("grad_fn", arguments.get("user_loss"))
    _, stated = RIGHT.get(id(function), (None, None))
    if stated is None:
        return "a wrong gradient is ok" if result.ok and getattr(function, "__name__", "") == "<lambda>" else ""
    same = all(repr(arguments.get(name)) == repr(stated.get(name)) for name in STATEMENT)
    params = arguments["params"] if isinstance(arguments["params"], tuple) else (arguments["params"],)
    if same and tame(1e3, arguments["x"], *params) and not result.ok and result.cause != "unknown":
        return f"a right gradient is {result.cause}"
    return ""


def asserted(**arguments: Any) -> Any:
    try:
        jh.assert_valid_gradient(**arguments)
    except AssertionError as error:
        return str(error)
    return "OK"


def diagnose_loss(user_loss: Any, **arguments: Any) -> Any:
    return jh.diagnose_loss(user_loss, **arguments)


def folded(theta: Any, x: Any, y: Any, reg: Any) -> Any:
    """A gradient whose bias is the last of the weights, and which takes columns of labels, or a row, too."""
    x, y = np.atleast_2d(x), np.ravel(y)
    push = -y * (y * (x @ theta) < 1) / len(x)
    return x.T @ push + reg * np.append(theta[:-1], 0)


def adapted(function: Any, arguments: Any, **options: Any) -> Any:
    rng = np.random.default_rng(0)
    gradient = jh.adapt_arguments(function, arguments, **options)
    return jh.diagnose(gradient, (rng.normal(size=2), 0.5), rng.normal(size=(8, 2)), np.tile([1, -1], 4), l2=0.1)


def adapted_arguments(rng: Rng) -> Arguments:
    found: Arguments = {"function": folded, "arguments": "w x y reg", "bias": "last", "reg": 0.1}
    return found | chosen(rng, {"column_labels": True, "row_by_row": True, "classes_first": False})


def doctor() -> Iterator[Function]:
    names = ("w", "b", "margin")
    for name, call, argument in (
        ("diagnose", jh.diagnose, "grad_fn"),
        ("assert_valid_gradient", asserted, "grad_fn"),
        ("diagnose_loss", diagnose_loss, "user_loss"),
    ):
        check = (lambda a, r: "" if r else "no report") if name == "assert_valid_gradient" else check_diagnosis
        yield Function(name, call, functools.partial(diagnose_arguments, argument=argument), check, 1.5, names)
    yield Function(
        "adapt_arguments", adapted, adapted_arguments, lambda a, r: "" if str(r) else "no report", 0.5, names
    )
