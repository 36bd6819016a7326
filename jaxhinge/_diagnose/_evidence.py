"""What the function returned at each probe point, and what explains it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._probes import Probe
from jaxhinge._diagnose._recipe import Recipe
from jaxhinge._diagnose._returned import Returned

# How the function takes its arguments: as they are given; dividing by the caller's number of rows
# whatever x it gets; or computing with the caller's x and y whatever it gets.
Reading = Literal["as_given", "rows_outside", "data_outside"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """A probe point and what the function returned there."""

    probe: Probe
    returned: Returned


@dataclass(frozen=True)
class Explanation:
    """A recipe that fits, the causes it stands for (empty for the right recipe), and how closely it fits."""

    causes: tuple[str, ...]
    recipe: Recipe
    precision: str
    reading: Reading

    @property
    def cause(self) -> str:
        """The name of the explanation."""
        return "+".join(self.causes) or "none"


def read_point(probe: Probe, own: Point, reading: Reading) -> Point:
    """The point that the function is taken to compute at."""
    if reading == "data_outside":
        return replace(probe.point, x=own.x, y=own.y, rows=own.rows, weight=own.weight)
    return replace(probe.point, rows=own.rows) if reading == "rows_outside" else probe.point
