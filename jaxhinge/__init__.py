"""Hinge-loss machine learning for JAX, with the subgradient at the kink chosen by name."""

import importlib as _importlib
import types as _types

from jaxhinge import losses, plot
from jaxhinge._checkpoint import Checkpoints
from jaxhinge._diagnose import Diagnosis, assert_valid_gradient, diagnose, diagnose_loss
from jaxhinge._files import load, save
from jaxhinge._fit import FitResult, fit
from jaxhinge._gap import duality_gap
from jaxhinge._kink import hinge, positive_part
from jaxhinge._mesh import ShardedRows, shard_rows
from jaxhinge._multiclass_solve import solve_multiclass
from jaxhinge._objective import LinearParams, decision_function, init_params, loss, predict
from jaxhinge._path import Path, path
from jaxhinge._rows import Status
from jaxhinge._solve import Solution, solve
from jaxhinge._solve_variants import solve_one_class, solve_quantile, solve_ranking, solve_regression
from jaxhinge._sweep import sweep
from jaxhinge._sweep_task import Sweep
from jaxhinge._train import make_train_step, train

__version__ = "0.1.0"

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


def __getattr__(name: str) -> _types.ModuleType:
    # The estimators are imported on use: their scikit-learn is an extra.
    if name == "sklearn":
        return _importlib.import_module("jaxhinge.sklearn")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
