"""No public name or signature changes unnoticed, and what version 0.1 took is still taken."""

import ast
import importlib
import inspect
import warnings
from pathlib import Path

import pytest
from helpers.public_names import public_names

LISTS = Path(__file__).parent / "helpers"
OLD = (LISTS / "public_names_0.1.txt").read_text().splitlines()


def test_public_names_are_those_of_the_list():
    listed = (LISTS / "public_names.txt").read_text().splitlines()
    found = list(public_names())
    changes = [f"- {line}" for line in listed if line not in found] + [
        f"+ {line}" for line in found if line not in listed
    ]
    assert found == listed, "\n".join(
        ["public names have changed; where that is meant, CONTRIBUTING.md says how to write the list again:", *changes]
    )


def taken_apart(line):
    """A dotted name, and the arguments that ast finds in its signature; None where it has none."""
    name, bracket, rest = line.partition("(")
    return name, ast.parse(f"def f({rest}: ...").body[0].args if bracket else None


def lookup(name):
    module, value = name.split("."), None
    while value is None:
        try:
            value, rest = importlib.import_module(".".join(module)), name.split(".")[len(module) :]
        except ImportError:
            module.pop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for attribute in rest:
            value = getattr(value, attribute)
    return value


@pytest.mark.parametrize("line", OLD, ids=lambda line: line.partition("(")[0])
def test_what_the_version_before_took_is_taken(line):
    name, old = taken_apart(line)
    value = lookup(name)
    if old is None:
        return
    new = inspect.signature(value).parameters
    positional = [p.name for p in new.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    before = [argument.arg for argument in old.posonlyargs + old.args]
    assert positional[: len(before)] == before
    by_name = {p.name for p in new.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    assert {argument.arg for argument in old.args + old.kwonlyargs} <= by_name
    assert old.kwarg is None or any(p.kind is p.VAR_KEYWORD for p in new.values())
    mandatory = {p.name for p in new.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    given = {a.arg for a, default in zip(old.kwonlyargs, old.kw_defaults, strict=True) if default is None}
    assert mandatory <= given | set(before[: len(before) - len(old.defaults)])
