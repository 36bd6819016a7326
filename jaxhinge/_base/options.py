"""Checks of the numbers that every solver takes."""

from __future__ import annotations

import sys
from typing import Any

from jaxhinge._base.values import check_number

_POSITIVE = "a number above 0 (2.3e-308 at least: processors take smaller ones for 0)"


def host_l2(l2: Any) -> float:
    """The strength of regularisation, above 0."""
    return check_number("l2", l2, meaning=_POSITIVE, valid=lambda l2: l2 >= sys.float_info.min)
