"""Ctrl-C while something is solved: raised at once or, where that was asked for, what was reached, with its proof."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import jax
import numpy as np
import pytest
from helpers.svm_references import noisy

import jaxhinge as jh
from jaxhinge._methods import interior_point, interior_rows

X, Y = noisy()
EXACT: dict[str, Any] = {"l2": 0.01, "tol": 1e-9, "as_numpy": True}
PROMPT = 10  # seconds, on a machine that has much else to do; it is a tenth of a second otherwise

CHILD = """
import json, os, sys
import numpy as np
import jaxhinge as jh

random = np.random.default_rng(0)
x = random.normal(size=(300, 4)).astype(np.float32)
y = np.where(x[:, 0] + random.normal(size=300) > 0, 1, -1)
endless = {"l2": 1e-4, "tol": 0.0, "method": "ascent"}
grid = {"folds": 3, "tol": 1e-6, "on_interrupt": "return", "as_numpy": True}

def go(name):
    print(json.dumps({"go": name}), flush=True)

# Compiled first, for the compiler is deaf.
for mode in ("return", "raise"):
    jh.solve(x, y, max_steps=12, on_interrupt=mode, **endless)
jh.sweep(x, y, l2=[1.0, 0.1], **grid)

go("solve")
found = jh.solve(x, y, max_steps=10**9, on_interrupt="return", **endless)
print(json.dumps({
    "status": int(found.status), "steps": int(found.steps), "gap": float(found.gap),
    "w": np.asarray(found.params.w).tolist(), "b": float(found.params.b),
}), flush=True)
go("sweep")
found = jh.sweep(x, y, l2=np.geomspace(1, 1e-3, 20_000), **grid)
print(json.dumps({"interrupted": bool(found.interrupted), "done": (found.steps > 0).all(axis=1).tolist(),
                  "gap": found.gap[(found.steps > 0).all(axis=1)].tolist()}), flush=True)
go("raise")
try:
    jh.solve(x, y, max_steps=10**9, **endless)
except KeyboardInterrupt:
    print(json.dumps({"raised": True}), flush=True)
# In good order Python would wait for the program that runs.
os._exit(0)
"""


@pytest.fixture(scope="module")
def heard() -> dict[str, Any]:
    """What a process of its own did on Ctrl-C, and how many seconds after."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    found = {}
    with subprocess.Popen([sys.executable, "-c", CHILD], env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        # One that hears nothing would hold up the suite for ever.
        watchdog = threading.Timer(300, child.kill)
        watchdog.start()
        for line in child.stdout:
            name = json.loads(line)["go"]
            time.sleep(0.7)
            pressed = time.perf_counter()
            child.send_signal(signal.SIGINT)
            found[name] = {**json.loads(child.stdout.readline()), "seconds": time.perf_counter() - pressed}
        watchdog.cancel()
    assert found.keys() == {"solve", "sweep", "raise"}
    return found


def test_a_solve_returns_what_it_reached(heard: dict[str, Any]) -> None:
    found = heard["solve"]
    assert found["seconds"] < PROMPT
    assert found["status"] == jh.Status.STEP_LIMIT
    assert found["steps"] > 0
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 4)).astype(np.float32)
    y = np.where(x[:, 0] + random.normal(size=300) > 0, 1, -1)
    w = np.array(found["w"])
    primal = np.mean(np.maximum(0, 1 - y * (x @ w + found["b"]))) + 1e-4 / 2 * w @ w
    # The optimum, up to what float32 parameters can tell.
    optimum = jh.solve(x, y, l2=1e-4).dual_value
    assert optimum - 1e-6 <= primal <= optimum + 1e-4 * primal + found["gap"]


def test_a_sweep_returns_the_strengths_that_are_done(heard: dict[str, Any]) -> None:
    found = heard["sweep"]
    assert found["seconds"] < PROMPT
    assert found["interrupted"]
    done = np.array(found["done"])
    # From the strongest down.
    assert 0 < done.sum() < len(done)
    assert done[: done.sum()].all()
    assert (np.array(found["gap"]) < 1e-5).all()


def test_otherwise_it_is_raised(heard: dict[str, Any]) -> None:
    assert heard["raise"]["raised"]
    assert heard["raise"]["seconds"] < PROMPT


def test_the_same_steps_are_made_whether_or_not_ctrl_c_would_return() -> None:
    whole, watched = jh.solve(X, Y, **EXACT), jh.solve(X, Y, **EXACT, on_interrupt="return")
    assert watched.status == whole.status == jh.Status.CONVERGED
    assert watched.steps == whole.steps
    np.testing.assert_array_equal(watched.params.w, whole.params.w)
    few = jh.solve(X, Y, **EXACT, on_interrupt="return", max_steps=3)
    assert (int(few.steps), int(few.status)) == (3, jh.Status.STEP_LIMIT)


def interrupted_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[jh.Solution, bool]:
    """The solution where Ctrl-C is pressed during the next step, and whether it was."""
    calls = []

    def inverse_of(point: Any) -> Any:
        calls.append(point)
        if len(calls) == steps + 1:
            raise KeyboardInterrupt
        return interior_rows.inverse_of(point)

    monkeypatch.setattr(interior_point, "inverse_of", inverse_of)
    return jh.solve(X, Y, **EXACT, on_interrupt="return"), len(calls) > steps


def test_whatever_is_reached_is_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    best = jh.solve(X, Y, **EXACT)
    for steps in itertools.count():
        found, was_interrupted = interrupted_after(steps, monkeypatch)
        if not was_interrupted:
            break
        within = found.gap <= EXACT["tol"] * found.primal_value
        assert found.status == (jh.Status.CONVERGED if within else jh.Status.STEP_LIMIT)
        assert best.dual_value <= found.primal_value <= best.primal_value + found.gap
        assert found.gap == pytest.approx(found.primal_value - found.dual_value)
        assert (found.dual >= 0).all()
    assert steps > 5
    assert found.status == jh.Status.CONVERGED


def test_what_cannot_be_interrupted_says_so() -> None:
    with pytest.raises(ValueError, match='on_interrupt must be "raise" or "return"'):
        jh.solve(X, Y, l2=0.1, on_interrupt="stop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='on_interrupt="return" and progress=True are for the host'):
        jax.jit(lambda x: jh.solve(x, Y, l2=0.1, on_interrupt="return"))(X)
