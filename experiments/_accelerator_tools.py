"""What the checks of `on_accelerator.py` share: findings, sizes, clocks, memory, and the judgement of solutions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _accelerator_references import Machine

import jaxhinge as jh

# A float32 number is off by half of this, and so is a gap made again from float32 parameters and duals.
EPS = 2.0**-23
L2 = 1e-3


class Finding(NamedTuple):
    """One row of the table: right where `value <= bound` and nothing is `amiss`; without a bound it only measures."""

    name: str
    value: float | None = None
    bound: float | None = None
    unit: str = ""
    ms: float | None = None
    note: str = ""
    amiss: str = ""

    def verdict(self) -> str:
        # A NaN is not below any bound.
        if self.amiss or (self.bound is not None and not self.value <= self.bound):
            return "WRONG"
        return "measured" if self.bound is None else "ok"


# A check yields findings, and parts: further iterators of them. What breaks in a part leaves the rest.
Findings = Iterator["Finding | Findings"]


class Setting(NamedTuple):
    """Where the checks run, and whether on little data."""

    device: Any
    quick: bool

    @property
    def on_cpu(self) -> bool:
        return self.device.platform == "cpu"

    @property
    def has_float64(self) -> bool:
        return self.device.platform != "tpu"

    def sized(self, full: tuple[int, ...], quick: tuple[int, ...]) -> tuple[int, ...]:
        return quick if self.quick else full


def milliseconds(run: Callable[[], Any], allowed: float = 1.0) -> float:
    """The median of warm calls. Calls that take microseconds are sent off many at a time: the device queues them."""
    jax.block_until_ready(run())
    once = _lap(run, 1)
    batch = max(1, min(200, int(0.02 / once)))
    laps = [_lap(run, batch) for _ in range(max(3, min(11, int(allowed / (once * batch)))))]
    return 1e3 * float(np.median(laps))


def _lap(run: Callable[[], Any], batch: int) -> float:
    started = time.perf_counter()
    for _ in range(batch):
        result = run()
    jax.block_until_ready(result)
    return (time.perf_counter() - started) / batch


def called(run: Callable[[], Any], allowed: float = 1.0) -> tuple[Any, float, str]:
    """The result, the milliseconds of a warm call, and how long the first took, compilation included."""
    started = time.perf_counter()
    result = jax.block_until_ready(run())
    first = time.perf_counter() - started
    return result, milliseconds(run, allowed), f"first call {first:.1f} s"


def peak_bytes(device: Any) -> int | None:
    """The most memory that the process ever had on the device, where the device counts."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use")


def bytes_in_use(device: Any) -> int:
    return (device.memory_stats() or {}).get("bytes_in_use", 0)


def temporary(compiled: Any) -> int:
    """Bytes that a compiled program takes beside its arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes


def statuses(status: Any) -> str:
    """The names of the codes, with how many lanes ended so."""
    codes, counts = np.unique(np.asarray(status), return_counts=True)
    names = [jh.Status(int(code)).name for code in codes]
    if np.ndim(status):
        names = [f"{name} x{count}" for name, count in zip(names, counts, strict=True)]
    return ", ".join(names)


def certified(
    name: str, machine: Machine, solution: Any, tol: float, *, rounding: float = 4 * EPS, ms: Any = None, note: str = ""
) -> Finding:
    """The relative gap by NumPy of what came back, and whether the solution said the truth about itself."""
    primal, dual = machine.primal(solution.params), machine.dual(solution.dual)
    return judged(name, primal, dual, solution, tol, rounding=rounding, ms=ms, note=note)


def judged(
    name: str, primal: float, dual: float, solution: Any, tol: float, *, rounding: float, ms: Any, note: str
) -> Finding:
    size = max(abs(primal), math.ulp(1.0))
    claimed, gap = float(solution.gap) / size, (primal - dual) / size
    off = abs(float(solution.primal_value) - primal) / size
    amiss = []
    if int(solution.status) != jh.Status.CONVERGED:
        amiss.append("not converged")
    if not 0 <= claimed <= tol * (1 + EPS):
        amiss.append(f"claims a gap of {claimed:.2g}")
    if not abs(claimed - gap) <= rounding:
        amiss.append(f"claimed gap off by {abs(claimed - gap):.2g}")
    if not off <= rounding:
        amiss.append(f"primal value off by {off:.2g}")
    if not gap >= -rounding:
        amiss.append("the dual value is above the primal")
    told = [*amiss, f"{statuses(solution.status)}, {int(solution.steps)} steps", *([note] if note else [])]
    return Finding(name, gap, tol + rounding, "of primal", ms, "; ".join(told), "; ".join(amiss))


def on_device(*arrays: Any) -> list[jax.Array]:
    return [jnp.asarray(array) for array in arrays]


def lane(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)
