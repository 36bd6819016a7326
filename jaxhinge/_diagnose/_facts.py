"""What a diagnosis knows, before it is put in words."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._measured import Curve
from jaxhinge._diagnose._objective import Array


@dataclass(frozen=True)
class Comparison:
    """What was returned at one probe point, beside what is valid there.

    Attributes:
      where: Which point.
      names: The coordinates, `w[0]`, ..., `b`.
      returned: `(p,)`.
      nearest: `(p,)`, the nearest valid gradient.
      low, high: `(p,)`, the least and greatest value that each coordinate may have.
      tolerance: `(p,)`, what rounding explains.
      size: `(n, d)` of the point, as text.
    """

    where: str
    names: tuple[str, ...]
    returned: Array
    nearest: Array
    low: Array
    high: Array
    tolerance: Array
    size: str


@dataclass(frozen=True, eq=False)
class Facts:
    """The fields of a `Diagnosis`, documented there."""

    ok: bool
    cause: str
    findings: tuple[str, ...] = ()
    mends: tuple[str, ...] = ()
    kink_rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    kink_fractions: Array = field(default_factory=lambda: np.zeros(0))
    kink_choice: str = ""
    alternatives: tuple[str, ...] = ()
    comparison: Comparison | None = None
    precision: str = "float64"
    num_calls: int = 0
    num_points: int = 0
    loss_ok: bool | None = None
    curve: Curve | None = None
