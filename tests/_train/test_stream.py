"""`fit` on blocks: Ctrl-C, and where the certificate is."""

import signal

import numpy as np
import optax
import pytest

import jaxhinge as jh
from jaxhinge._train import stream

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 3)).astype(np.float32)
Y = np.where(X[:, 0] + 0.3 * RNG.normal(size=64) > 0, 1, -1)
BLOCKS = [(X[:32], Y[:32]), (X[32:], Y[32:])]
OPTIONS = {"l2": 0.1, "optimizer": optax.sgd(0.1), "epochs": 8}


def test_ctrl_c_returns_the_last_step(monkeypatch):
    genuine, steps = stream._step, 0

    def step(*args):
        nonlocal steps
        steps += 1
        # The first call only asks for shapes.
        if steps == 7:
            signal.raise_signal(signal.SIGINT)
        return genuine(*args)

    monkeypatch.setattr(stream, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        jh.fit(BLOCKS, **OPTIONS)
    steps = 0
    found = jh.fit(BLOCKS, **OPTIONS, on_interrupt="return")
    assert found.interrupted
    assert len(found.history.loss) == 2
    monkeypatch.undo()
    # Five steps: two and a half epochs of two blocks.
    whole = jh.fit(BLOCKS, **{**OPTIONS, "epochs": 5}, steps_per_epoch=1)
    np.testing.assert_array_equal(found.params.w, whole.params.w)
    assert not whole.interrupted


def test_the_gap_is_computed_from_the_blocks():
    found = jh.fit(BLOCKS, **OPTIONS)
    with pytest.raises(ValueError, match=r"jaxhinge\.duality_gap\(result\.params, x, y, l2=l2\), or without y"):
        _ = found.gap
    streamed, whole = jh.duality_gap(found.params, BLOCKS, l2=0.1), jh.duality_gap(found.params, X, Y, l2=0.1)
    np.testing.assert_allclose(streamed, whole, atol=1e-4)


def test_blocks_are_the_steps_of_a_plain_loop():
    w, b, losses = np.zeros(3), 0.0, []
    blocks = [(X[:40], Y[:40]), (X[40:], Y[40:])]
    for _ in range(3):
        seen = 0.0
        for x, y in blocks:
            margins = y * (x @ w + b)
            push = y * (margins < 1)
            seen += len(y) * (np.maximum(0, 1 - margins).mean() + 0.05 * w @ w)
            w, b = w - 0.1 * (0.1 * w - push @ x / len(y)), b + 0.1 * push.mean()
        losses.append(seen / len(Y))
    found = jh.fit(lambda: iter(blocks), **{**OPTIONS, "epochs": 3}, params=(np.zeros(3), 0.0))
    np.testing.assert_allclose(found.params.w, w, rtol=1e-5)
    np.testing.assert_allclose(found.params.b, b, rtol=1e-5)
    np.testing.assert_allclose(found.history.loss, losses, rtol=1e-5)


def test_a_stale_run_stops_and_a_memory_map_is_shuffled_rows(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = jh.fit(mapped, Y, **{**OPTIONS, "epochs": 20}, batch_size=16, tol=10.0, patience=3)
    assert found.stopped_early
    assert len(found.history.loss) == 4
    assert jh.loss(found.params, X, Y, l2=0.1) < 0.9
