"""A call as one program: outside jit, each operation around a loop is compiled alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def compiled(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return jax.jit(lambda: function(*arguments, **options))()
