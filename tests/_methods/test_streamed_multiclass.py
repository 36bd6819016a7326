"""Classes of streamed rows: certified from the definition, as in memory, whatever the blocks."""

import itertools

import numpy as np
import pytest

import jaxhinge as jh
from jaxhinge import Status
from jaxhinge._methods.multiclass import streamed
from jaxhinge._methods.streamed import blocks as streamed_blocks

N, D, K = 2_500, 3, 4
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, K, N)
X = RNG.normal(size=(N, D)) + 1.2 * RNG.normal(size=(K, D))[LABELS] + [1.0, 0.0, 3.0]
WEIGHT = RNG.integers(0, 3, N).astype(float)
BOTH = pytest.mark.parametrize("loss", ["crammer_singer", "weston_watkins"])


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    monkeypatch.setattr(streamed_blocks, "_BLOCK_BYTES", 1)


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "x.npy", X)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


def values(found, loss, intercept, l2, weight):
    """The primal value, and the dual value after its constraints were seen to hold."""
    (w, b), dual, share = found.params, np.asarray(found.dual, np.float64), weight / weight.sum()
    own = np.eye(K)[LABELS] > 0
    scores = X @ w + b
    excess = np.where(own, 0, np.maximum(0, 1 + scores - scores[own][:, None]))
    losses = excess.max(axis=1) if loss == "crammer_singer" else excess.sum(axis=1)
    free, counted = intercept is True, intercept == "regularized"
    primal = share @ losses + l2 / 2 * ((w * w).sum() + counted * (b * b).sum())
    used = dual.sum(axis=1) if loss == "crammer_singer" else dual.max(axis=1)
    assert (dual >= 0).all()
    assert (used <= share + 1e-15).all()
    pull = own * dual.sum(axis=1, keepdims=True) - dual
    assert not free or abs(pull.sum(axis=0)).max() < 1e-12
    squares = ((pull.T @ X) ** 2).sum() + counted * (pull.sum(axis=0) ** 2).sum()
    return primal, dual.sum() - squares / (2 * l2)


@BOTH
@pytest.mark.parametrize("intercept", [True, False, "regularized"])
def test_the_certificate_from_the_definition(loss, intercept, mapped):
    options = {"l2": 1e-3, "loss": loss, "fit_intercept": intercept, "sample_weight": WEIGHT, "as_numpy": True}
    found = jh.solve_multiclass(mapped, LABELS, tol=1e-5, **options)
    assert found.status == Status.CONVERGED
    primal, dual = values(found, loss, intercept, 1e-3, WEIGHT)
    assert found.primal_value == pytest.approx(primal, rel=1e-12)
    assert found.dual_value == pytest.approx(dual, rel=1e-9)
    assert 0 <= primal - dual <= found.gap <= 1e-5 * primal
    in_memory = jh.solve_multiclass(X, LABELS, **options)
    assert in_memory.dual_value <= primal
    assert dual <= in_memory.primal_value


@BOTH
def test_blocks_and_starts_are_the_same_rows(loss, mapped):
    options = {"l2": 1e-2, "loss": loss, "as_numpy": True}
    whole = jh.solve_multiclass(mapped, LABELS, **options)
    edges = [0, 7, 1200, N]
    parts = [(X[a:b], LABELS[a:b]) for a, b in itertools.pairwise(edges)]
    for blocks in (parts, lambda: iter(parts)):
        found = jh.solve_multiclass(blocks, **options)
        np.testing.assert_allclose(found.params.w, whole.params.w, rtol=1e-10, atol=1e-12)
    again = jh.solve_multiclass(mapped, LABELS, init=whole, **options)
    assert again.status == Status.CONVERGED
    assert again.steps < whole.steps
    # Started from the solution of a sample: a quarter of the rows at most.
    single = jh.solve_multiclass(mapped, LABELS, l2=1e-2, loss=loss)
    assert single.params.w.dtype == single.dual.dtype == np.float32
    assert whole.dual_value <= single.primal_value <= whole.primal_value + single.gap + 1e-6


def test_a_sample_comes_first(mapped, monkeypatch):
    monkeypatch.setattr("jaxhinge._methods.streamed.rows._SAMPLE_ROWS", 500)
    found = jh.solve_multiclass(mapped, LABELS, l2=1e-2, as_numpy=True)
    assert found.status == Status.CONVERGED
    primal, dual = values(found, "crammer_singer", True, 1e-2, np.ones(N))
    assert 0 <= primal - dual <= found.gap <= 1e-4 * primal


@BOTH
def test_a_class_without_rows_is_kept_out_of_reach(loss, mapped):
    labels = np.where(LABELS == 1, 0, LABELS)
    found = jh.solve_multiclass(mapped, labels, l2=1e-2, loss=loss, as_numpy=True)
    assert found.status == Status.CONVERGED
    assert (found.params.w[:, 1] == 0).all()
    assert not (np.asarray(jh.predict(found.params, X)) == 1).any()
    inside = jh.solve_multiclass(X, labels, l2=1e-2, loss=loss, as_numpy=True)
    assert inside.dual_value <= found.primal_value <= inside.primal_value + found.gap


def test_one_against_the_rest(mapped):
    options = {"l2": 1e-2, "loss": "one_vs_rest", "as_numpy": True}
    inside = jh.solve_multiclass(X, LABELS, **options)
    parts = [(X[:900], LABELS[:900]), (X[900:], LABELS[900:])]
    for rows in ((mapped, LABELS), (parts,), (lambda: iter(parts),)):
        found = jh.solve_multiclass(*rows, **options)
        assert found.status == Status.CONVERGED
        assert found.dual.shape == (N, K)
        assert inside.dual_value <= found.primal_value <= inside.primal_value + found.gap


def test_ctrl_c_returns_what_is_certified(mapped, monkeypatch):
    evaluations, evaluate = [], streamed._evaluate

    def interrupted(*args):
        evaluations.append(args)
        if len(evaluations) == 5:
            raise KeyboardInterrupt
        return evaluate(*args)

    monkeypatch.setattr(streamed, "_evaluate", interrupted)
    found = jh.solve_multiclass(mapped, LABELS, l2=1e-3, as_numpy=True, on_interrupt="return")
    assert (found.status, found.steps) == (Status.STEP_LIMIT, 4)
    primal, dual = values(found, "crammer_singer", True, 1e-3, np.ones(N))
    assert -1e-12 <= primal - dual <= found.gap + 1e-12
    evaluations.clear()
    with pytest.raises(KeyboardInterrupt):
        jh.solve_multiclass(mapped, LABELS, l2=1e-3)


def test_what_streams_refuse(mapped, capsys):
    def refused(match, *rows, error=ValueError, **options):
        with pytest.raises(error, match=match):
            jh.solve_multiclass(*rows, **({"l2": 0.1} | options))

    refused('leave it at "auto"', mapped, LABELS, method="ascent")
    refused("above 8192", mapped, np.arange(N), loss="weston_watkins")
    refused("integer labels", mapped, LABELS + 0.5)
    refused("integer labels", [(X, LABELS + 0.5)])
    refused("2499 rows|2500 rows", mapped, LABELS[1:])
    refused("iterator, which ends", iter([(X, LABELS)]))
    refused('on_interrupt="return"', mapped, LABELS, loss="one_vs_rest", on_interrupt="return")
    refused("Class 1 of 3 has no rows", mapped, 2 * (LABELS > 1), loss="one_vs_rest")
    limited = jh.solve_multiclass(mapped, LABELS, l2=1e-3, max_steps=2, progress=True, as_numpy=True)
    assert (limited.status, limited.steps) == (Status.STEP_LIMIT, 2)
    assert "gap" in capsys.readouterr().err
