"""The result of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxhinge._diagnose._facts import Facts
from jaxhinge._diagnose._plot import plot_comparison, plot_curve
from jaxhinge._diagnose._report import report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Diagnosis(Facts):
    """Whether a gradient is right and, if not, why. `str(diagnosis)` is a report to read.

    Attributes:
      ok: Whether every gradient that was returned is valid. `bool(diagnosis)` is the same.
      cause: "none" where `ok`; else the cause, two at once joined by "+", or "unknown".
      findings: What was noticed, a sentence each.
      mends: The lines to change, as code.
      kink_rows: The caller's rows that are on the kink at the caller's params, integers.
      kink_fractions: For each of them the part of its push that the function takes: 0, 1, 1/2, ...;
        NaN where the gradient leaves it open (more rows on the kink than coordinates).
      kink_choice: "0", "1", "1/2" or "mixed", what the function takes on the kink at all probe points;
        "" where that is not known.
      alternatives: Causes that fit equally well, where no probe point told them apart (`cause` is then
        "unknown").
      comparison: Returned and valid gradients at the point that shows the fault best; None where
        no gradient was returned.
      precision: The dtype whose rounding explains the returned numbers.
      num_calls: How often the function was called.
      num_points: At how many points it was judged.
      loss_ok: Whether the losses that came with the gradients (or, for `diagnose_loss`, the values of the loss) are
        those of the objective; None where no loss was returned. `ok` speaks of the gradient alone.
      curve: Where the cause is "unknown", the measured push of one row over its margin, beside the right one; else
        None.
    """

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return report(self)

    def plot(self, ax: Any = None) -> Figure:
        """The returned gradient against the valid interval of each coordinate (needs `jaxhinge[plot]`).

        Where the cause is "unknown", the measured push of one row is drawn instead, beside the right one.

        Args:
          ax: A matplotlib `Axes` to draw in; by default a new figure.

        Returns:
          The matplotlib `Figure`.

        Raises:
          ImportError: matplotlib is not installed.
          ValueError: The function returned nothing that can be drawn.
        """
        if self.curve is not None:
            return plot_curve(self, self.curve, ax)
        if self.comparison is None:
            raise ValueError(f"There is nothing to draw: the function returned no gradient ({self.cause}).")
        return plot_comparison(self, self.comparison, ax)
