"""Every public function with arguments that it takes, and what its result must be like if it gives one."""

from __future__ import annotations

from _hostile_common import Function
from _hostile_doctor import doctor
from _hostile_estimators import estimators
from _hostile_losses import losses
from _hostile_objective import objective
from _hostile_solvers import solvers

__all__ = ["FUNCTIONS", "Function"]

FUNCTIONS = [*losses(), *objective(), *solvers(), *doctor(), *estimators()]
