"""Several processes: each has its own rows, both work on one problem, and neither hangs when the other is gone."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "multihost.py"
STEPS, SAVE_EVERY, ROWS = 60, 10, 4003
TOO_LONG = 600  # seconds, on a machine that has much else to do


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("multihost", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


multihost = load_script()


def start(*arguments: Any) -> subprocess.Popen[str]:
    """The script in a session of its own, so that all that it starts can be ended with it."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(SCRIPT), "--steps", STEPS, "--save-every", SAVE_EVERY, *arguments]
    return subprocess.Popen(
        [str(part) for part in command], env=environment, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(run: subprocess.Popen[str]) -> str:
    """What it said, once it has ended well."""
    try:
        output, _ = run.communicate(timeout=TOO_LONG)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        pytest.fail(f"hangs: {run.communicate()[0]}")
    assert run.returncode == 0, output
    return output


def result_of(work: Path) -> dict[str, Any]:
    with np.load(work / "result.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def on_two_machines(directory: Path) -> list[subprocess.Popen[str]]:
    """Two processes that have a file each, in which there is nothing but their own rows."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    runs = []
    for process, others in enumerate((slice(ROWS // 2, None), slice(ROWS // 2))):
        data = directory / f"machine {process}"
        data.mkdir()
        multihost.make_file(data, ROWS)
        x, y = np.load(data / "x.npy"), np.load(data / "y.npy")
        x[others], y[others] = np.nan, 0
        np.save(data / "x.npy", x)
        np.save(data / "y.npy", y)
        who = ["--processes", 2, "--process", process, "--coordinator", address]
        runs.append(start("--work", directory, "--data", data, *who))
    return runs


def assert_same_answer(found: dict[str, Any], alone: dict[str, Any], directory: Path) -> None:
    # Sixty steps whose sums are added in another order.
    np.testing.assert_allclose(found["trained_w"], alone["trained_w"], atol=1e-5)
    np.testing.assert_allclose(found["trained_b"], alone["trained_b"], atol=1e-5)
    assert np.abs(alone["trained_w"]).max() > 0.1

    x, y = np.load(directory / "x.npy").astype(float), np.load(directory / "y.npy").astype(float)

    def objective(found: dict[str, Any]) -> float:
        w, b = found["w"].astype(float), found["b"].astype(float)
        return float(np.mean(np.maximum(0, 1 - y * (x @ w + b))) + multihost.L2 / 2 * w @ w)

    # No parameters are better by more than the gap: nor are those of the other run.
    assert abs(objective(found) - objective(alone)) <= max(found["gap"], alone["gap"])
    assert 0 <= found["gap"] <= 1e-6 * objective(found)
    # The value that comes back is rounded to float32.
    assert found["primal_value"] == pytest.approx(objective(found), rel=1e-6)


def start_with_fault(fault: str, victim: int, directory: Path) -> subprocess.Popen[str]:
    fault_options = ["--fault", fault, "--victim", victim, "--at", SAVE_EVERY]
    return start("--tasks", "train", "--work", directory, "--rows", ROWS, *fault_options)


def assert_went_on(output: str, found: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    """The other process stopped with an error, in time, and the next run went on from a checkpoint to the same bits."""
    stopped = re.search(r"a process stopped ([\d.]+) s after the fault, exit code (-?\d+)", output)
    assert stopped, output
    assert float(stopped[1]) <= multihost.STOPS_WITHIN, output
    assert int(stopped[2]) != 0, output
    resumed = re.search(r"going on from step (\d+)", output)
    assert resumed, output
    assert SAVE_EVERY <= int(resumed[1]) < STEPS, output
    assert found.keys() == {"trained_w", "trained_b"}
    for name, value in found.items():
        assert value.tobytes() == undisturbed[name].tobytes(), name


def test_two_processes_do_the_work_of_one_and_neither_hangs_when_the_other_is_gone(tmp_path: Path) -> None:
    """One test, for its runs are long and compared with each other.

    The other is frozen, not killed: its connections stay open, so that nothing but its silence tells that it is gone.
    """
    places = {name: tmp_path / name for name in ("undisturbed", "alone", "freeze")}
    for place in places.values():
        place.mkdir()
    # The time until a frozen process is missed is spent on something else.
    frozen = start_with_fault("freeze", 0, places["freeze"])
    output = "".join([finish(run) for run in on_two_machines(places["undisturbed"])])
    assert "2 processes, 2 devices: done" in output
    undisturbed = result_of(places["undisturbed"])

    multihost.make_file(places["alone"], ROWS)
    options = {"steps": STEPS, "save_every": SAVE_EVERY, "tasks": ["train", "solve"]}
    multihost.work(argparse.Namespace(work=places["alone"], data=None, **options))
    assert_same_answer(undisturbed, result_of(places["alone"]), places["alone"])

    assert_went_on(finish(frozen), result_of(places["freeze"]), undisturbed)
