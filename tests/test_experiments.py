"""Studies that print a table run, on little data, and what they print is what the arithmetic promises."""

import importlib
import json
import math
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


def test_the_accelerator_check_on_this_machine(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, EXPERIMENTS / "on_accelerator.py", "--quick", "--only", "kink", "--out", report]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(report.read_text())["rows"]
    assert {row["check"] for row in rows} == {"kink"}
    assert {row["verdict"] for row in rows} <= {"ok", "measured"}
    # A row has a verdict of its own exactly where there is a bound to judge by.
    assert all((row["verdict"] == "ok") == (row["bound"] is not None) for row in rows)


def test_the_accelerator_check_tells_what_is_wrong_and_what_broke(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    script = importlib.import_module("on_accelerator")

    def broken():
        yield script.Finding("before", 0.0, 1.0)
        raise RuntimeError("it broke")

    def check(setting):
        yield script.Finding("too large", 2.0, 1.0)
        yield broken()
        yield script.Finding("a NaN", math.nan, 1.0)

    monkeypatch.setattr(script, "CHECKS", {"one": check, "two": check})
    report = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["on_accelerator.py", "--only", "one", "--out", str(report)])
    assert script.main() == 1
    verdicts = [(row["name"], row["verdict"]) for row in json.loads(report.read_text())["rows"]]
    assert verdicts == [("too large", "WRONG"), ("before", "ok"), ("one: broken", "FAILED"), ("a NaN", "WRONG")]
    assert "RuntimeError: it broke" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["on_accelerator.py", "--seconds", "-1", "--out", str(report)])
    assert script.main() == 0
    assert [row["verdict"] for row in json.loads(report.read_text())["rows"]] == ["not run", "not run"]
