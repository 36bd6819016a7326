"""Studies that print a table run, on little data, and what they print is what the arithmetic promises."""

import subprocess
import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def table(script, *options):
    """The rows of the first Markdown table that a script prints, as dictionaries."""
    command = [sys.executable, str(EXPERIMENTS / script), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.split("\n\n")[1].splitlines() if line.startswith("| ")]
    heads, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(heads, row, strict=True)) for row in rows]


def test_the_kink_study(tmp_path):
    rows = table("kink_study.py", "--quick", "--out", tmp_path / "kink.png")
    assert (tmp_path / "kink.png").stat().st_size > 0
    found = {(row["model"], row["precision"]): row for row in rows}
    assert found.keys() == {(model, dtype) for model in ("linear", "network") for dtype in ("float32", "bfloat16")}
    for (_, dtype), row in found.items():
        on_kink = row["on the kink: continuous"]
        assert on_kink.startswith("none" if dtype == "float32" else "1 in ")
    # A grid of multiples of 1/512 holds 1 whatever the precision; all other float32 runs agree in every bit.
    assert found["linear", "float32"]["on/off, SGD 1/16"].startswith("1 in ")
    assert found["network", "float32"]["runs that part"] == "0%"


def test_rows_on_disk(tmp_path):
    (row,) = table("out_of_core.py", "--rows", 3000, "--directory", tmp_path, "--out", tmp_path / "rows.png")
    assert (tmp_path / "rows.png").stat().st_size > 0
    assert list(tmp_path.iterdir()) == [tmp_path / "rows.png"]
    assert row["status"] == "CONVERGED"
    # The gap of what came back, by NumPy and by the solver: both in float64, from float32 numbers.
    assert float(row["by NumPy"]) <= 1e-3
    assert abs(float(row["by NumPy"]) - float(row["gap"])) < 1e-5
