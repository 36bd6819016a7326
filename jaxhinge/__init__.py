"""Hinge-loss machine learning for JAX, with the subgradient at the kink chosen by name."""

from jaxhinge import losses
from jaxhinge._diagnose import Diagnosis, assert_valid_gradient, diagnose, diagnose_loss
from jaxhinge._kink import hinge, positive_part
from jaxhinge._objective import LinearParams, decision_function, init_params, loss, predict

__version__ = "0.1.0"

__all__ = [
    "Diagnosis",
    "LinearParams",
    "assert_valid_gradient",
    "decision_function",
    "diagnose",
    "diagnose_loss",
    "hinge",
    "init_params",
    "loss",
    "losses",
    "positive_part",
    "predict",
]
