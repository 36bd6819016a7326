"""Split an optimizer into its numbers, which may change, and its static parts, which a compiled program is keyed by.

An optax optimizer is a pair of closures, so `optax.adam(0.1)` and `optax.adam(0.2)` are different
static arguments to `jax.jit` and would compile twice. Yet their code is the same and their cells
differ in one float. `split` walks the closures, takes the floats and arrays out, and leaves a
hashable description that is equal for both; `join` puts numbers, or tracers, back in their places.
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np

_LIMIT = 40  # depth to which closures are opened: one that contains itself would never end


class _Number(NamedTuple):
    place: int


class _Frozen:
    """A value with its numbers, as a constant equal to any other of the same structure and numbers."""

    def __init__(self, key: Hashable, value: Any) -> None:
        self.key = key
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class _Constant:
    """A static part. Two are equal where type and value are; a value that does not hash is equal to itself only."""

    def __init__(self, value: Any) -> None:
        self.value = value
        try:
            self._key: Hashable = (type(value), value, hash(value))
        except TypeError:
            self._key = (type(value), id(value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Constant) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class _Node(NamedTuple):
    make: Callable[..., Any]
    code: Hashable
    parts: tuple[Any, ...]


Static = _Number | _Constant | _Frozen | _Node


def split(value: Any) -> tuple[Static, list[Any]]:
    """`(structure, numbers)`: floats and arrays in `numbers`, everything else in the hashable `structure`."""
    numbers: list[Any] = []
    return _split(value, numbers, 0), numbers


def freeze(value: Any) -> Static:
    """A structure with the numbers in it, for code that branches on them and so cannot be traced."""
    structure, numbers = split(value)
    return _Frozen((structure, *((str(np.asarray(n).dtype), np.asarray(n).tobytes()) for n in numbers)), value)


def join(structure: Static, numbers: list[Any]) -> Any:
    """The value with these numbers in it."""
    if isinstance(structure, _Number):
        return numbers[structure.place]
    if isinstance(structure, (_Constant, _Frozen)):
        return structure.value
    return structure.make(structure.code, [join(part, numbers) for part in structure.parts])


def describe(value: Any) -> str:
    """A value in words that are the same in every process: functions by module and name, with the numbers in them."""
    structure, numbers = split(value)
    return _described(structure, numbers)


def _described(structure: Static, numbers: list[Any]) -> str:
    if isinstance(structure, _Number):
        array = np.ascontiguousarray(numbers[structure.place])
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        return repr(array.item()) if array.size == 1 else f"{array.dtype}{array.shape} of SHA-256 {digest}"
    if not isinstance(structure, _Node):
        value = structure.value
        if value is None or isinstance(value, (bool, int, str, bytes)):
            return repr(value)
        named = value if hasattr(value, "__qualname__") else type(value)
        return f"{named.__module__}.{named.__qualname__}"
    parts = ", ".join(_described(part, numbers) for part in structure.parts if part != _Constant(None))
    return f"{_named(structure.code)}({parts})"


def _named(code: Any) -> str:
    if isinstance(code, tuple) and len(code) == 3 and isinstance(code[0], types.CodeType):
        return f"{code[1].value['__name__']}.{code[0].co_qualname}"
    if isinstance(code, tuple):
        return "keys " + " ".join(repr(key.value) for key in code)
    return code.__qualname__ if isinstance(code, type) else ""


def _split(value: Any, numbers: list[Any], depth: int) -> Static:
    if isinstance(value, (float, np.floating, np.ndarray, jax.Array)):
        numbers.append(value)
        return _Number(len(numbers) - 1)
    make, code, parts = _open(value)
    if make is None or depth > _LIMIT:
        return _Constant(value)
    return _Node(make, code, tuple(_split(part, numbers, depth + 1) for part in parts))


def _open(value: Any) -> tuple[Callable[..., Any] | None, Any, list[Any]]:
    """How to make the value again, from what, and which parts may hold numbers."""
    if isinstance(value, types.FunctionType):
        cells = value.__closure__ or ()
        try:
            contents = [cell.cell_contents for cell in cells]
        except ValueError:  # a cell that is still empty
            return None, None, []
        code = (value.__code__, _Constant(value.__globals__), value.__name__)
        return _make_function, code, [value.__defaults__, value.__kwdefaults__, *contents]
    if isinstance(value, functools.partial):
        return _make_partial, None, [value.func, value.args, value.keywords]
    if isinstance(value, dict) and type(value) is dict:
        return _make_dict, tuple(_Constant(key) for key in value), list(value.values())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _make_named, type(value), list(value)
    if type(value) in (tuple, list):
        return _make_sequence, type(value), list(value)
    return None, None, []


def _make_function(code: Any, parts: list[Any]) -> Any:
    body, namespace, name = code
    defaults, keyword_defaults, *contents = parts
    cells = tuple(types.CellType(content) for content in contents)
    function = types.FunctionType(body, namespace.value, name, defaults, cells)
    function.__kwdefaults__ = keyword_defaults
    return function


def _make_partial(_: Any, parts: list[Any]) -> Any:
    function, args, keywords = parts
    return functools.partial(function, *args, **keywords)


def _make_dict(keys: Any, parts: list[Any]) -> Any:
    return {key.value: part for key, part in zip(keys, parts, strict=True)}


def _make_named(kind: Any, parts: list[Any]) -> Any:
    return kind(*parts)


def _make_sequence(kind: Any, parts: list[Any]) -> Any:
    return kind(parts)
