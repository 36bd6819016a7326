"""Checkpoints: what is saved comes back to the bit, and a checkpoint that is not this run's own is named, not used."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import jaxhinge as jh

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = np.where(X[:, 0] > 0, 1, -1)
RUN: dict[str, Any] = {"l2": 0.1, "batch_size": 16, "epochs": 60, "average_from": 2}
STATE: dict[str, Any] = {
    "params": jh.LinearParams(jnp.array([1.0, -2.0]), jnp.array(0.5)),
    "key": jax.random.key(3),
    "keys": jax.random.split(jax.random.key(4, impl="rbg"), 2),
    "half": jnp.array([0.1, 0.2], jnp.bfloat16),
    "none": np.zeros((0, 2), np.float32),
    "count": 7,
}
SETTINGS = {"l2": 0.1, "optimizer": "adam", "seed": None}


def assert_same_bits(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            assert leaf.dtype == other.dtype
            leaf, other = jax.random.key_data(leaf), jax.random.key_data(other)
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()


# ---- saving and reading


def test_every_kind_of_leaf_comes_back(tmp_path: Path) -> None:
    checkpoints = jh.Checkpoints(tmp_path / "new" / "directory")
    assert checkpoints.latest(STATE, SETTINGS) is None
    checkpoints.save(5, STATE, SETTINGS)
    number, found = checkpoints.latest(STATE, SETTINGS) or (0, None)
    assert number == 5
    assert_same_bits(found, {**STATE, "count": np.asarray(7)})
    assert isinstance(found["params"].w, jax.Array)
    shapes = jax.eval_shape(lambda: {**STATE, "count": np.int64(7)})
    with pytest.raises(ValueError, match=r"\['count'\]: .*int64.* there, .*int32.* here"):
        checkpoints.latest(shapes, SETTINGS)
    _, found = checkpoints.latest({**shapes, "count": 0}, SETTINGS)  # type: ignore[misc]
    assert_same_bits(found, {**STATE, "count": np.asarray(7)})
    assert isinstance(found["params"].w, np.ndarray)


def test_they_are_kept_by_count_and_never_written_over(tmp_path: Path) -> None:
    checkpoints = jh.Checkpoints(tmp_path, keep=2)
    for step in (1, 5, 9):
        checkpoints.save(step, {"step": jnp.array(step)})
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["5", "9"]
    for step in (4, 9):
        with pytest.raises(ValueError, match=f"has checkpoint 9 already, so {step} cannot be saved"):
            checkpoints.save(step, {"step": jnp.array(step)})


def test_what_does_not_match_is_listed(tmp_path: Path) -> None:
    checkpoints = jh.Checkpoints(tmp_path)
    checkpoints.save(1, STATE, SETTINGS)
    other = {**STATE, "half": jnp.zeros(3, jnp.bfloat16), "more": 1, "key": jax.random.key(3, impl="rbg")}
    del other["keys"]
    with pytest.raises(ValueError, match="belongs to another run") as caught:
        checkpoints.latest(STATE, {"l2": 0.2, "optimizer": "adam", "epochs": 3})
    for line in ("  l2: 0.1 there, 0.2 here", "  epochs: nothing there, 3 here", "  seed: None there, nothing here"):
        assert line in str(caught.value)
    assert "optimizer" not in str(caught.value)
    with pytest.raises(ValueError, match="belongs to another run") as caught:
        checkpoints.latest(other, SETTINGS)
    for line in (
        "  ['half']: ([2], 'bfloat16') there, ([3], 'bfloat16') here",
        "  ['more']: nothing there, ([], 'int64') here",
        "  ['key']: ([], 'key<fry>') there, ([], 'key<rbg>') here",
        "  ['keys']: ([2], 'key<rbg>') there, nothing here",
    ):
        assert line in str(caught.value)


def test_what_cannot_be_kept_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(TypeError, match=r"\['name'\] must be an array or a number to be kept; got str"):
        jh.Checkpoints(tmp_path).save(0, {"name": "a"})
    with pytest.raises(TypeError, match="settings must be strings, numbers, booleans or None"):
        jh.Checkpoints(tmp_path).save(0, {"a": 1}, {"array": np.ones(3)})
    with pytest.raises(ValueError, match="keep must be at least 1; got 0"):
        jh.Checkpoints(tmp_path, keep=0)
    with pytest.raises(ValueError, match="every_seconds must be a number of seconds, at least 0; got -1"):
        jh.Checkpoints(tmp_path, every_seconds=-1)
    with pytest.raises(ValueError, match='damaged must be "refuse" or "skip"'):
        jh.Checkpoints(tmp_path, damaged="ignore")  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is not a directory"):
        jh.Checkpoints(tmp_path / "file")
    with pytest.raises(TypeError, match=r"checkpoint must be a directory, jaxhinge\.Checkpoints or None; got int"):
        jh.fit(X, Y, **RUN, checkpoint=3)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install jaxhinge\[checkpoint\]"):
        jh.Checkpoints(tmp_path)


# ---- damage


@pytest.fixture(scope="module")
def two(tmp_path_factory: Any) -> Path:
    """A directory with checkpoints 1 and 2, to be copied."""
    directory: Path = tmp_path_factory.mktemp("checkpoints")
    for step in (1, 2):
        jh.Checkpoints(directory).save(step, {**STATE, "count": step}, SETTINGS)
    return directory


def damage(directory: Path, file: str, how: str) -> None:
    (path,) = (directory / "2").glob(file)
    data = bytearray(path.read_bytes())
    if how == "removed":
        path.unlink()
        return
    if how == "truncated":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "removed", "flipped"])
@pytest.mark.parametrize("file", ["header/metadata", "state/manifest.ocdbt", "state/d/*"])
def test_a_damaged_checkpoint_is_named_and_refused_or_skipped(two: Path, tmp_path: Path, file: str, how: str) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(two, directory)
    damage(directory, file, how)
    with pytest.raises(ValueError, match=r"copy/2 is .*damaged=\"skip\""):
        jh.Checkpoints(directory).latest(STATE, SETTINGS)
    skipping = jh.Checkpoints(directory, damaged="skip")
    with pytest.warns(UserWarning, match="Skipped: .*copy/2 is"):
        number, found = skipping.latest(STATE, SETTINGS) or (0, None)
    assert number == 1
    assert_same_bits(found, {**STATE, "count": np.asarray(1)})
    assert (directory / "2.damaged").is_dir()  # out of the way, for whoever wants to look
    skipping.save(2, STATE, SETTINGS)
    assert (skipping.latest(STATE, SETTINGS) or (0,))[0] == 2


def test_numbers_that_orbax_reads_but_nobody_wrote_are_found(two: Path, tmp_path: Path) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(two, directory)
    header = json.loads((directory / "2/header/metadata").read_text())
    header["sha256"] = "0" * 64
    (directory / "2/header/metadata").write_text(json.dumps(header))
    with pytest.raises(ValueError, match="copy/2 is corrupted: its arrays are not what was written"):
        jh.Checkpoints(directory).latest(STATE, SETTINGS)


def test_where_no_good_one_is_left_nothing_begins_anew(two: Path, tmp_path: Path) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(two, directory)
    for step in ("1", "2"):
        shutil.rmtree(directory / step / "header")
    with (
        pytest.warns(UserWarning, match="Skipped"),
        pytest.raises(ValueError, match=r"No good checkpoint is left in .*copy: \[2, 1\] are damaged"),
    ):
        jh.Checkpoints(directory, damaged="skip").latest(STATE, SETTINGS)


@pytest.mark.parametrize("header", [{"format": "other"}, {"format": "jaxhinge.checkpoint", "version": 1}, 3, []])
def test_a_foreign_checkpoint_is_refused(tmp_path: Path, header: Any) -> None:
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        items = (
            {"header": ocp.args.JsonSave(header)} if header else {"state": ocp.args.StandardSave({"a": jnp.ones(3)})}
        )
        manager.save(4, args=ocp.args.Composite(**items))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=f"{tmp_path}/4 is (not|corrupted|truncated)"):
        jh.Checkpoints(tmp_path).latest(STATE)


def test_a_newer_version_is_refused_by_name(two: Path, tmp_path: Path) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(two, directory)
    (directory / "2/header/metadata").write_text(json.dumps({"format": "jaxhinge.checkpoint", "version": 2}))
    for damaged in ("refuse", "skip"):  # it is not damaged
        checkpoints = jh.Checkpoints(directory, damaged=damaged)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="copy/2 has format version 2, but this jaxhinge reads up to 1: update it"):
            checkpoints.latest(STATE, SETTINGS)


# ---- fit


def interrupt_once_saved(directory: Path) -> threading.Thread:
    """Ctrl-C as soon as there is a checkpoint."""

    def press() -> None:
        while not any(path.name.isdecimal() for path in directory.glob("*")):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


def test_a_fit_interrupted_and_resumed_has_the_same_bits(tmp_path: Path) -> None:
    expected = jh.fit(X, Y, **RUN)
    often = jh.Checkpoints(tmp_path, every_seconds=0)
    thread = interrupt_once_saved(tmp_path)
    reached = jh.fit(X, Y, **RUN, checkpoint=often, on_interrupt="return")
    thread.join()
    assert reached.interrupted
    assert not reached.stopped_early
    done = len(reached.history.loss)
    assert 0 < done < RUN["epochs"]
    assert_same_bits(reached.history.loss, expected.history.loss[:done])
    for _ in range(2):  # and once more, when there is nothing left to do
        result = jh.fit(X, Y, **RUN, checkpoint=tmp_path)
        assert not result.interrupted
        assert_same_bits((result.params, result.history), (expected.params, expected.history))


def test_ctrl_c_raises_where_nothing_else_was_asked_for(tmp_path: Path) -> None:
    thread = interrupt_once_saved(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        jh.fit(X, Y, **RUN, checkpoint=jh.Checkpoints(tmp_path, every_seconds=0))
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(ValueError, match='on_interrupt must be "raise" or "return"'):
        jh.fit(X, Y, **RUN, on_interrupt="stop")  # type: ignore[arg-type]


def test_a_fit_does_not_go_on_from_another_one(tmp_path: Path) -> None:
    run: dict[str, Any] = {**RUN, "epochs": 4}
    jh.fit(X, Y, **run, optimizer=optax.adam(0.1), checkpoint=tmp_path)
    other = {**run, "l2": 0.2, "epochs": 5, "key": jax.random.key(1), "params": (np.ones(3), 0.0)}
    with pytest.raises(ValueError, match="belongs to another run") as caught:
        jh.fit(2 * X, Y, **other, optimizer=optax.adam(0.2), checkpoint=tmp_path)
    text = str(caught.value)
    for words in (
        "x: float32(40, 3) of SHA-256",
        "l2: 0.1 there, 0.2 here",
        "epochs: 4 there, 5 here",
        "key: ",
        "-0.1",
    ):
        assert words in text
    assert "  params: None there, " in text
    assert "  y: " not in text
    with pytest.raises(ValueError, match=r"  optimizer: .*adam.* there, .*trace.* here"):
        jh.fit(X, Y, **run, optimizer=optax.sgd(0.1, momentum=0.9), checkpoint=tmp_path)
    squared: Any = jh.losses.squared_hinge_loss
    with pytest.raises(ValueError, match=r"  loss_fn: .* there, .*squared_hinge_loss.* here\n  margin: noth"):
        jh.fit(X, Y, **run, optimizer=optax.adam(0.1), loss_fn=squared, margin=2.0, checkpoint=tmp_path)


def test_a_fit_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    stopping: dict[str, Any] = {**RUN, "tol": 0.5, "patience": 2}
    first, again = (jh.fit(X, Y, **stopping, checkpoint=tmp_path) for _ in range(2))
    assert first.stopped_early
    assert again.stopped_early
    assert_same_bits((again.params, again.history), (first.params, first.history))


def test_kill_9_loses_no_bit(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "experiments" / "kill_and_resume.py"
    spec = importlib.util.spec_from_file_location("kill_and_resume", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines = list(module.kill_and_resume(tmp_path, kills=1, seed=0))
    assert lines[-1].startswith("the same bits")
    assert sum("exit code -9" in line for line in lines) == 1


def test_nothing_here_warns_when_all_is_well(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jh.fit(X, Y, **RUN, checkpoint=jh.Checkpoints(tmp_path, damaged="skip"))
