"""Is every answer right on this accelerator, and how long does it take? One command, one table, at most six minutes.

Says which device it found, and there compares with NumPy in float64: the loss and its gradient (timed in reads of the
features from device memory), the kink in every dtype, many models trained at once, every solver with its gap computed
again outside, grids, derivatives of solutions, donation and memory. A check that breaks is written down as FAILED, and
the next one runs. On a CPU, or with `--quick`, everything is small.

    python experiments/on_accelerator.py                      # from the root of the repository, with PYTHONPATH=.
    python experiments/on_accelerator.py --only loss,kink     # some of the checks; --list names them

Each row has a value and the bound that it must not exceed; a row without a bound only measures. `ms` is the median of
warm calls. Ends with 1 where something was wrong or failed. The table is also written as JSON (`--out`) after every
row, so that a run which is stopped loses nothing; checks for which no time was left are listed as "not run".
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import math
import os
import platform
import sys
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
from _accelerator_checks import check_donation, check_kink, check_loss, check_losses, check_train
from _accelerator_solvers import (
    check_implicit,
    check_jit_solve,
    check_multiclass,
    check_path,
    check_solve,
    check_sweep,
    check_variants,
    check_vmap_solve,
)
from _accelerator_tools import Finding, Setting

import jaxhinge as jh

# In this order: what matters most comes first, and `solve` before the large arrays of `loss`, since the peak of the
# memory is that of the whole process and never falls.
CHECKS = {
    "solve": check_solve,
    "loss": check_loss,
    "kink": check_kink,
    "jit_solve": check_jit_solve,
    "vmap_solve": check_vmap_solve,
    "train": check_train,
    "implicit": check_implicit,
    "donation": check_donation,
    "multiclass": check_multiclass,
    "sweep": check_sweep,
    "variants": check_variants,
    "path": check_path,
    "losses": check_losses,
}
COLUMNS = (("check", 53), ("verdict", 8), ("value", 10), ("bound", 9), ("unit", 10), ("ms", 9))
GRACE = 60  # seconds beyond the budget after which a check that hangs is ended


def main() -> int:
    options = arguments()
    device = jax.devices()[0]
    quick = device.platform == "cpu" if options.quick is None else options.quick
    setting = Setting(device, quick)
    report = Report(options.out, about(device, quick))
    # Compiled code cannot be interrupted from Python: this says where it was, and ends the process.
    faulthandler.dump_traceback_later(options.seconds + GRACE, exit=True, file=sys.__stderr__)
    for name in options.only or CHECKS:
        if report.seconds() > options.seconds:
            report.add(name, Finding(name, note="no time was left"), "not run")
            continue
        run(name, CHECKS[name](setting), report)
    faulthandler.cancel_dump_traceback_later()
    return report.end()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action=argparse.BooleanOptionalAction, help="little data (default: only on a CPU)")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,NAME", help="some of the checks")
    parser.add_argument("--list", action="store_true", help="name the checks and end")
    parser.add_argument("--seconds", type=float, default=300, help="start no check after this time (default: 300)")
    parser.add_argument("--out", type=Path, default=Path("on_accelerator.json"), help="the table as JSON")
    options = parser.parse_args()
    if options.list:
        for name, check in CHECKS.items():
            print(f"{name:<20} {(check.__doc__ or '').splitlines()[0]}")
        sys.exit(0)
    unknown = [name for name in options.only or () if name not in CHECKS]
    if unknown:
        parser.error(f"no such check: {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    return options


def about(device: Any, quick: bool) -> dict[str, Any]:
    """The device and the versions, for the report."""

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "none"

    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "backend": getattr(device.client, "platform_version", "").split("\n")[0],
        "quick": quick,
        "jaxhinge": jh.__version__,
        "python": platform.python_version(),
        **{name: installed(name) for name in ("jax", "jaxlib", "optax", "numpy")},
    }


def run(name: str, part: Any, report: Report) -> None:
    """A check, or a part of one. What it found before it broke stays, and the next part runs."""
    try:
        for found in part:
            if isinstance(found, Finding):
                report.add(name, found)
            else:
                run(name, found, report)
    except Exception as error:
        lines = traceback.format_exc().strip().splitlines()
        finding = Finding(f"{name}: {part.__name__}", note=f"{type(error).__name__}: {error}")
        report.add(name, finding, "FAILED", lines[-12:])
    # The arrays of one part are no part of the memory of the next.
    gc.collect()


class Report:
    """The table: printed row by row, and written as JSON after each."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.about, self.rows = path, about, []
        self.started = time.perf_counter()
        print(", ".join(f"{name} {value}" for name, value in about.items()), end="\n\n")
        self._line({name: name for name, _ in COLUMNS} | {"note": "note"})
        print("|" + "---|" * (len(COLUMNS) + 1), flush=True)

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def add(self, check: str, finding: Finding, verdict: str = "", trace: list[str] | None = None) -> None:
        verdict = verdict or finding.verdict()
        row = {**finding._asdict(), "check": check, "verdict": verdict, "at": round(self.seconds(), 2)}
        row |= {key: plain(row[key]) for key in ("value", "bound", "ms")}
        self.rows.append(row | ({"traceback": trace} if trace else {}))
        cells = {"check": finding.name, "verdict": verdict, "unit": finding.unit, "note": shortened(finding.note)}
        self._line(cells | {key: shown(row[key]) for key in ("value", "bound", "ms")})
        self._write()

    def end(self) -> int:
        """Say how it went: the exit code."""
        verdicts = [row["verdict"] for row in self.rows]
        counts = {verdict: verdicts.count(verdict) for verdict in ("ok", "measured", "WRONG", "FAILED", "not run")}
        print("\n" + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + f"; {self.seconds():.0f} s")
        for row in self.rows:
            if "traceback" in row:
                print(f"\n{row['name']}:", *row["traceback"], sep="\n    ")
        print(f"\nwritten to {self.path}", flush=True)
        return 1 if counts["WRONG"] or counts["FAILED"] else 0

    def _line(self, cells: dict[str, str]) -> None:
        print(
            "| " + " | ".join(f"{cells[name]:<{width}}" for name, width in COLUMNS) + f" | {cells['note']} |",
            flush=True,
        )

    def _write(self) -> None:
        # Replaced as a whole, so that there is never half a file.
        draft = self.path.with_suffix(".part")
        whole = {"about": self.about, "seconds": self.seconds(), "rows": self.rows}
        draft.write_text(json.dumps(whole, allow_nan=False, indent=1))
        os.replace(draft, self.path)


def plain(value: Any) -> Any:
    """What JSON can hold of a number of Python, NumPy or JAX: it knows no NaN and no infinity."""
    value = value if value is None else float(value)
    return value if value is None or math.isfinite(value) else str(value)


def shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else value


def shortened(note: str) -> str:
    note = " ".join(note.split()).replace("|", "/")
    return note if len(note) < 160 else note[:157] + "..."


if __name__ == "__main__":
    sys.exit(main())
