"""A progress bar for the steps of a solve: drawn where it is asked for, or on a terminal where it takes long."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

LONG_RUN = 2.0  # seconds, beyond which a progress bar is worth its line


class StepBar:
    """How far the gap has fallen on its way to the tolerance, in decades."""

    def __init__(self, progress: bool | None, tol: float) -> None:
        self._possible = sys.stderr.isatty() if progress is None else progress
        self._patience = 0.0 if progress else LONG_RUN
        self._goal = -math.log10(max(tol, 1e-15))
        self._tol, self._began = tol, time.perf_counter()
        self._bar: Any = None

    def show(self, gap: float, primal: float, steps: int) -> None:
        """A step has been certified."""
        if not self._possible or time.perf_counter() - self._began < self._patience:
            return
        if self._bar is None:
            text = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"
            self._bar = tqdm(total=self._goal, file=sys.stderr, bar_format=text)
        relative = max(gap / max(abs(primal), 1e-300), 1e-300)
        self._bar.set_description_str(f"step {steps}, gap {relative:.1e} of {self._tol:.0e}", refresh=False)
        self._bar.n = min(max(-math.log10(relative), 0.0), self._goal)
        self._bar.refresh()

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def step_bar(progress: bool | None, tol: float) -> Iterator[StepBar]:
    """A bar that is closed at the end."""
    bar = StepBar(progress, tol)
    try:
        yield bar
    finally:
        bar.close()
