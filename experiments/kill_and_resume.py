"""A fit killed with `kill -9` again and again, and resumed: the same bits as one that was never killed.

A child process runs `jaxhinge.fit` with a checkpoint after every epoch and is killed at a random moment, which most
often is in the middle of writing. Each child goes on from what the one before left.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxhinge

EPOCHS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="how often the run is killed (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--child", type=Path, nargs=2, metavar=("DIRECTORY", "RESULT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run(*options.child)
        return
    with tempfile.TemporaryDirectory() as directory:
        for line in kill_and_resume(Path(directory), options.kills, options.seed):
            print(line, flush=True)


def kill_and_resume(directory: Path, kills: int, seed: int) -> Iterator[str]:
    """Yield what happened, line by line; AssertionError where a bit was lost."""
    undisturbed, disturbed = directory / "undisturbed", directory / "disturbed"
    spawn(undisturbed).wait()
    random = np.random.default_rng(seed)
    # At a random epoch, and there at a random moment; sometimes before anything is done.
    for number, epoch in enumerate(np.sort(random.integers(0, EPOCHS, kills))):
        child, before, delay = spawn(disturbed), saved(disturbed), random.uniform(0, 0.1)
        while saved(disturbed) < epoch and child.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        child.kill()
        code, after = child.wait(), saved(disturbed)
        torn = len(list(disturbed.glob("*tmp*")))
        yield f"kill {number + 1} (exit code {code}): epoch {before} -> {after}, {torn} half-written"
    spawn(disturbed).wait()
    first, second = (np.load(result_of(d), allow_pickle=False) for d in (undisturbed, disturbed))
    for name in first.files:
        assert first[name].tobytes() == second[name].tobytes(), f"{name} differs"
    yield f"the same bits: {', '.join(first.files)}"


def run(directory: Path, result: Path) -> None:
    """One fit, from the last checkpoint in the directory to its end."""
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 20)).astype(np.float32)
    y = np.where(x @ random.normal(size=20) + random.normal(size=500) > 0, 1, -1)
    checkpoints = jaxhinge.Checkpoints(directory, every_seconds=0)
    options: dict[str, Any] = {"l2": 1e-3, "epochs": EPOCHS, "average_from": 3, "key": jax.random.key(7)}
    fitted = jaxhinge.fit(x, y, checkpoint=checkpoints, **options)
    np.savez(result, w=fitted.params.w, b=fitted.params.b, loss=fitted.history.loss)


def spawn(directory: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--child", str(directory), str(result_of(directory))]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "JAX_PLATFORMS": "cpu"})


def result_of(directory: Path) -> Path:
    return directory.with_suffix(".npz")


def saved(directory: Path) -> int:
    """The last epoch that is safe on disk."""
    return max((int(path.name) for path in directory.glob("*") if path.name.isdecimal()), default=0)


if __name__ == "__main__":
    main()
