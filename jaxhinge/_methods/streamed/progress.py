"""The progress bar of a streamed solve: step, gap and the time that is left."""

from __future__ import annotations

import math

from jaxhinge._base.progress import LateBar, relative_gap

# `_STEPS`: a solve is expected to take so many steps before its gaps say more.
_STEPS = 6
# `_FALL`: a step is expected to multiply the gap by this before two gaps are known.
_FALL = 0.2
_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


class Bar(LateBar):
    """Counts blocks; a step says how many more there will be."""

    def __init__(self, progress: bool | None, tol: float) -> None:
        # Without smoothing tqdm takes the speed from all blocks, those before the bar was drawn included.
        super().__init__(progress, unit="block", bar_format=_FORMAT, smoothing=0, miniters=1)
        self._tol = tol
        self._blocks = self._per_pass = 0
        self._total: int | None = None
        self._text = "first pass"
        self._gaps: list[float] = []

    def begin(self, num_blocks: int) -> None:
        """The first pass is over; it had so many blocks."""
        self._per_pass = num_blocks
        self._expect(_STEPS * num_blocks)

    def tick(self) -> None:
        """A block has been worked on."""
        self._blocks += 1
        bar = self.drawn()
        if bar is not None:
            bar.total = self._total
            bar.set_description_str(self._text, refresh=False)
            bar.update(min(self._blocks, self._total or self._blocks) - bar.n)

    def show(self, gap: float, primal: float, steps: int) -> None:
        """A step has been certified: how many more are needed follows from how the gap has fallen."""
        relative = relative_gap(gap, primal)
        self._gaps.append(relative)
        self._text = f"step {steps}, gap {relative:.1e} of {self._tol:.0e}"
        falls = [later / earlier for earlier, later in zip(self._gaps, self._gaps[1:], strict=False)]
        fall = min(max(math.prod(falls[-3:]) ** (1 / len(falls[-3:])), 0.05), 0.7) if falls else _FALL
        missing = max(0.0, math.log(relative / max(self._tol, 1e-15)) / -math.log(fall))
        # A step of Newton's method takes one pass, one of the interior point three.
        per_step = max(self._per_pass, (self._blocks - self._per_pass) / steps)
        self._expect(math.ceil(missing) * per_step)

    def _expect(self, blocks: float) -> None:
        # The last pass certifies what is returned.
        self._total = self._blocks + round(blocks) + self._per_pass
