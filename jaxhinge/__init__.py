"""Hinge-loss machine learning for JAX, with the subgradient at the kink chosen by name."""

import importlib as _importlib
import types as _types

from jaxhinge import losses, plot
from jaxhinge._base.checkpoint import Checkpoints
from jaxhinge._base.old_names import keep_old_names as _keep_old_names
from jaxhinge._diagnose import (
    Diagnosis,
    adapt_arguments,
    assert_valid_gradient,
    diagnose,
    diagnose_loss,
    module_gradient,
)
from jaxhinge._methods.problem import Status
from jaxhinge._objective.files import load, save
from jaxhinge._objective.objective import LinearParams, decision_function, init_params, loss, predict
from jaxhinge._rows.sharding import ShardedRows, shard_rows
from jaxhinge._solve.binary import Solution, solve
from jaxhinge._solve.gap import duality_gap
from jaxhinge._solve.multiclass import solve_multiclass
from jaxhinge._solve.variants import solve_one_class, solve_quantile, solve_ranking, solve_regression
from jaxhinge._sweep.path import Path, path
from jaxhinge._sweep.results import Sweep
from jaxhinge._sweep.sweep import sweep
from jaxhinge._train.fit import FitResult, fit
from jaxhinge._train.step import make_train_step, train
from jaxhinge.losses._kink import hinge, positive_part

__version__ = "0.2.0"

__all__ = [
    "Checkpoints",
    "Diagnosis",
    "FitResult",
    "LinearParams",
    "Path",
    "ShardedRows",
    "Solution",
    "Status",
    "Sweep",
    "adapt_arguments",
    "assert_valid_gradient",
    "decision_function",
    "diagnose",
    "diagnose_loss",
    "duality_gap",
    "fit",
    "hinge",
    "init_params",
    "load",
    "loss",
    "losses",
    "make_train_step",
    "module_gradient",
    "path",
    "plot",
    "positive_part",
    "predict",
    "save",
    "shard_rows",
    "solve",
    "solve_multiclass",
    "solve_one_class",
    "solve_quantile",
    "solve_ranking",
    "solve_regression",
    "sweep",
    "train",
]

# The public types are pickled by their public names: private modules may move.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
_keep_old_names()


def __getattr__(name: str) -> _types.ModuleType:
    # The estimators are imported on use: their scikit-learn is an extra.
    if name == "sklearn":
        return _importlib.import_module("jaxhinge.sklearn")
    if name in losses.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: it is jaxhinge.losses.{name}.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
