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


class LateBar:
    """A line on stderr: at once where it is asked for, or on a terminal where the run is long. `look` is for tqdm."""

    def __init__(self, progress: bool | None, **look: Any) -> None:
        self._possible = sys.stderr.isatty() if progress is None else progress
        self._patience = 0.0 if progress else LONG_RUN
        self._began = time.perf_counter()
        self._look = look
        self._bar: Any = None

    def drawn(self) -> Any:
        """The bar, which is drawn when it is due; None before."""
        waited = time.perf_counter() - self._began
        if self._bar is None and self._possible and waited >= self._patience:
            self._bar = tqdm(file=sys.stderr, **self._look)
            # The time and the pace are those of the whole run.
            self._bar.start_t -= waited
        return self._bar

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()


def relative_gap(gap: float, primal: float) -> float:
    """The gap relative to the objective, for eyes and logarithms."""
    return max(gap / max(abs(primal), 1e-300), 1e-300)


class StepBar(LateBar):
    """How far the gap has fallen on its way to the tolerance, in decades."""

    def __init__(self, progress: bool | None, tol: float) -> None:
        self._tol, self._goal = tol, -math.log10(max(tol, 1e-15))
        super().__init__(progress, total=self._goal, bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}")

    def show(self, gap: float, primal: float, steps: int) -> None:
        """A step has been certified."""
        bar, relative = self.drawn(), relative_gap(gap, primal)
        if bar is not None:
            bar.set_description_str(f"step {steps}, gap {relative:.1e} of {self._tol:.0e}", refresh=False)
            bar.n = min(max(-math.log10(relative), 0.0), self._goal)
            bar.refresh()


@contextlib.contextmanager
def step_bar(progress: bool | None, tol: float) -> Iterator[StepBar]:
    """A bar that is closed at the end."""
    bar = StepBar(progress, tol)
    try:
        yield bar
    finally:
        bar.close()
