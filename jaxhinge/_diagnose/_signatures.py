"""How the caller's function takes its arguments, read off their names; and the line that adapts it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

# What people call the arguments, in lower case.
_ROLES = {
    "w": ("w", "weight", "weights", "coef", "coefs", "beta"),
    "theta": ("theta", "params", "parameters", "wb"),
    "b": ("b", "bias", "intercept", "b0", "w0"),
    "x": ("x", "xs", "data", "features", "inputs", "x_train", "x_batch", "xi", "x_i", "x_dev"),
    "y": ("y", "ys", "label", "labels", "target", "targets", "t", "y_train", "y_batch", "yi", "y_i", "y_dev"),
    "sample_weight": ("sample_weight", "sample_weights", "weight_of_row", "sw", "class_weight", "class_weights"),
}
# What people call the pair (w, b), in lower case.
_PAIRS = ("params", "parameters", "p", "wb")


def positional(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """The parameters that can be passed by position; None where there is no signature to read."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one for one in parameters if one.kind in kinds]


def required(function: Callable[..., Any]) -> int | None:
    """How many arguments the function must get; None where there is no signature to read."""
    parameters = positional(function)
    return None if parameters is None else len(_needed(parameters))


def keywords_required(function: Callable[..., Any]) -> list[str]:
    """The parameters without a default that are passed by name alone."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]


def _needed(parameters: list[inspect.Parameter]) -> list[str]:
    return [one.name for one in parameters if one.default is inspect.Parameter.empty]


def roles(function: Callable[..., Any]) -> list[str]:
    """The roles of the arguments that the function must get, in its order."""
    return [role(name) for name in _needed(positional(function) or [])]


def role(name: str) -> str:
    """The role that an argument of this name plays; the name itself where it is not a usual one."""
    lowered = name.lower()
    return next((one for one, names in _ROLES.items() if lowered in names), name)


def takes_weights(function: Callable[..., Any]) -> str | None:
    """The name of the parameter for the weights of the rows, or None."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    named = [one.name for one in parameters if one.name.lower() in ("sample_weight", "sample_weights", "sw")]
    return named[0] if named else None


def original(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that the caller wrote, where it came through an adapter."""
    return getattr(function, "adapted_function", function)


def name_of(function: Callable[..., Any] | None) -> str:
    """The name that the caller gave the function."""
    name = getattr(function, "__name__", None) or type(function).__name__
    return "your_function" if name == "<lambda>" or not str(name).isidentifier() else str(name)


def no_suggestion(**_: Any) -> str:
    """Where there is no function to adapt."""
    return ""


def suggested_call(function: Callable[..., Any], *, door: str = "diagnose", **options: Any) -> str:
    """A sentence with the line that adapts this function, by its own name; "" where no other line is called for."""
    if hasattr(function, "named_parameters"):
        return " Adapt it: jaxhinge.diagnose(jaxhinge.module_gradient(your_module, your_loss), (w, b), X, y, ...)."
    order, values = "w b x y", []
    parameters = positional(function) or []
    needed, played = _needed(parameters), roles(function)
    if len(needed) == 3 and played[1:] == ["x", "y"] and needed[0].lower() in _PAIRS:
        call = f"lambda w, b, x, y: {name_of(function)}((w, b), x, y)"
        return f" Adapt it: jaxhinge.{door}({call}, (w, b), X, y, ...)."
    if {"x", "y"} <= set(played) and {"w", "theta"} & set(played):
        order = " ".join("w" if one == "theta" else one for one in played)
        values = [f"{one}=..." for one in played if one not in ("w", "theta", "b", "x", "y")]
        if "theta" in played and "b" not in played:
            options = {"bias": "last"} | options
        if {"xi", "yi", "x_i", "y_i"} & {name.lower() for name in needed}:
            options = {"row_by_row": True} | options
    values += [f"{name}=..." for name in keywords_required(function)]
    if order == "w b x y" and not options and not values:
        return ""
    separate = "b" in order.split() or options.get("bias") in ("last", "first")
    words = [name_of(function), f'"{order}"'] + [f"{key}={value!r}" for key, value in options.items()] + values
    given, more = ("(w, b)", "") if separate else ("W", ", fit_intercept=False")
    return f" Adapt it: jaxhinge.{door}(jaxhinge.adapt_arguments({', '.join(words)}), {given}, X, y{more}, ...)."
