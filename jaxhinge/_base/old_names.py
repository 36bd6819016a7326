"""The modules of version 0.1 and their new places, so that pickles written by it can be read."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

MOVED = {
    "jaxhinge._checkpoint": "jaxhinge._base.checkpoint",
    "jaxhinge._files": "jaxhinge._objective.files",
    "jaxhinge._fit": "jaxhinge._train.fit",
    "jaxhinge._gap": "jaxhinge._solve.gap",
    "jaxhinge._kink": "jaxhinge.losses._kink",
    "jaxhinge._mesh": "jaxhinge._rows.sharding",
    "jaxhinge._multiclass_solve": "jaxhinge._solve.multiclass",
    "jaxhinge._objective": "jaxhinge._objective.objective",
    "jaxhinge._optimizer": "jaxhinge._train.optimizer",
    "jaxhinge._path": "jaxhinge._sweep.path",
    "jaxhinge._rows": "jaxhinge._methods.problem",
    "jaxhinge._solve": "jaxhinge._solve.binary",
    "jaxhinge._solve_variants": "jaxhinge._solve.variants",
    "jaxhinge._sweep": "jaxhinge._sweep.sweep",
    "jaxhinge._sweep_task": "jaxhinge._sweep.results",
    "jaxhinge._train": "jaxhinge._train.step",
}


def keep_old_names() -> None:
    """Let `import` find the old modules, so that `pickle` finds the names in them."""
    for old, new in MOVED.items():
        module = sys.modules.setdefault(old, types.ModuleType(old))
        vars(module)["__getattr__"] = _lookup_in(new)


def _lookup_in(module: str) -> Any:
    """A module's `__getattr__` that finds its names in another module. Names of the import system are left alone."""

    def lookup(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(module), name)

    return lookup
