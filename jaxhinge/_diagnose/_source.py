"""The caller's own lines: where an exception came from, and which line a cause points to."""

from __future__ import annotations

import ast
import inspect
import sysconfig
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_PACKAGE = str(Path(__file__).parents[1])
_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_FOREIGN = ("site-packages", "dist-packages", "<frozen", "<__array_function__", "<string>")
# Calls that stand for a comparison with the kink.
_MASKS = ("maximum", "relu", "clamp", "clip", "heaviside", "where", "less", "greater", "less_equal", "max", "sign")
_MASK_CAUSES = {
    "threshold_at_zero", "mask_inverted", "kink_tolerance_too_wide", "wrong_margin", "margin_added_to_correct_class",
    "one_minus_missing", "score_sign_flipped", "rival_sign_flipped",
}  # fmt: skip


def users_line(error: BaseException) -> str:
    """The last line of the caller's that led to the exception, as " in line 12 (...)"; "" where it has no text."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not _is_foreign(frame.filename)]
    if not theirs:
        return ""
    place = theirs[-1]
    return f' in line {place.lineno} ("{place.line}")' if place.line else ""


def _is_foreign(filename: str) -> bool:
    inside = filename.startswith((_PACKAGE, *_LIBRARIES)) and not filename.startswith("<")
    return inside or any(part in filename for part in _FOREIGN)


def quoted_line(function: Callable[..., Any], cause: str) -> str:
    """The caller's line that the cause points to, as a sentence; "" where that cannot be told."""
    tree, source, first = _parsed(function)
    if tree is None:
        return ""
    lines = sorted({node.lineno for node in _candidates(tree, cause) if hasattr(node, "lineno")})
    if len(lines) != 1:
        return ""
    return f"Look at line {first + lines[0] - 1}: {source[lines[0] - 1].strip()}"


def uses_autograd(function: Callable[..., Any]) -> bool:
    """Whether the function seems to differentiate a loss instead of writing the gradient out."""
    tree, _, _ = _parsed(function)
    names = {"backward", "grad", "value_and_grad", "vjp", "jacobian"}
    return tree is not None and any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names
        for node in ast.walk(tree)
    )


def _parsed(function: Callable[..., Any]) -> tuple[ast.AST | None, list[str], int]:
    """The syntax tree of a function that was written with `def`, its lines, and the number of the first."""
    try:
        source, first = inspect.getsourcelines(inspect.unwrap(function))
        tree = ast.parse(textwrap.dedent("".join(source)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None, [], 0
    written = bool(tree.body) and isinstance(tree.body[0], ast.FunctionDef)
    return (tree, source, first) if written else (None, [], 0)


def _candidates(tree: ast.AST, cause: str) -> Iterator[ast.AST]:
    """The nodes that may hold the mistake."""
    for node in ast.walk(tree):
        if cause in _MASK_CAUSES and _is_mask(node):
            yield node
        elif cause == "last_example_only" and isinstance(node, ast.For):
            yield from (inner for inner in ast.walk(node) if isinstance(inner, ast.Assign) and _is_push(inner))
        elif cause.startswith("regularizer_") and cause != "regularizer_missing" and _is_penalty(node):
            yield node


def _is_mask(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare):
        return isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE))
    return (
        isinstance(node, ast.Call)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in _MASKS
    )


def _is_push(node: ast.Assign) -> bool:
    names = [target.id for target in node.targets if isinstance(target, ast.Name)]
    return any(name.lower().startswith(("dw", "gw", "grad", "g_w")) for name in names)


def _is_penalty(node: ast.AST) -> bool:
    """A product of a strength, by one of its usual names, with something."""
    words = ("l2", "reg", "lam", "lambda_", "lmbda", "alpha", "weight_decay", "C")
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, (ast.Mult, ast.Div))
        and any(isinstance(inner, ast.Name) and inner.id in (*words, "L2", "REG", "LAMBDA") for inner in ast.walk(node))
    )
