"""Every public name with its signature, a line each, in the words of Python.

    python tests/helpers/public_names.py > tests/helpers/public_names.txt

writes the list that `tests/test_public_names.py` compares with, after a change that is meant.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

MODULES = ("jaxhinge", "jaxhinge.losses", "jaxhinge.sklearn", "jaxhinge.plot")


def public_names() -> Iterator[str]:
    """Modules, their functions and classes, and after each class its methods and properties."""
    for module in map(importlib.import_module, MODULES):
        yield module.__name__
        for name in sorted(module.__all__):
            value = getattr(module, name)
            if not inspect.ismodule(value):
                yield f"{module.__name__}.{name}{signature(value)}"
            if inspect.isclass(value):
                yield from sorted(f"{module.__name__}.{name}.{member}" for member in _members(value))


def _members(value: type) -> Iterator[str]:
    """What the class adds to its parameters. What it inherits from another library is that library's to change."""
    found: dict[str, Any] = {}
    for base in reversed(value.__mro__):
        if base.__module__.startswith("jaxhinge"):
            found |= vars(base)
    for name in found.keys() - _parameters(value).keys():
        if not name.startswith("_") and isinstance(found[name], property | int):
            yield name
        elif not name.startswith("_") and inspect.isfunction(found[name]):
            yield name + signature(found[name])


def _parameters(value: Any) -> dict[str, inspect.Parameter]:
    if inspect.isclass(value) and issubclass(value, int):
        return {}  # an enumeration is called by nobody
    return dict(inspect.signature(value).parameters)


def signature(value: Any) -> str:
    """The parameters with their defaults, without their types."""
    plain = [
        parameter.replace(annotation=parameter.empty, default=_Written.of(parameter.default))
        for parameter in _parameters(value).values()
    ]
    return str(inspect.Signature(plain)) if plain else ""


class _Written:
    """A default as Python writes it. A function is otherwise shown with its address."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    @staticmethod
    def of(default: Any) -> Any:
        if default is inspect.Parameter.empty:
            return default
        text = getattr(default, "__qualname__", None) or repr(default)
        return _Written("..." if text.startswith("<") else text)


if __name__ == "__main__":
    print(*public_names(), sep="\n")
