"""Streamed solves: the answers of plain NumPy whatever the blocks, and everything that can go wrong with a source."""

import functools
import re
import signal

import jax
import numpy as np
import pytest
import scipy.sparse
from helpers.svm_references import Machine, noisy, relative_gap

import jaxhinge as jh
from jaxhinge import Status
from jaxhinge._methods.streamed import blocks as streamed_blocks
from jaxhinge._methods.streamed import rows as streamed_rows
from jaxhinge._methods.streamed import stages as streamed_stages

X, Y = noisy(1300)
X32 = X.astype(np.float32)
WEIGHT = np.random.default_rng(1).integers(0, 3, len(Y)).astype(np.float64)
COARSE = {"l2": 0.01, "tol": 1e-3}


@pytest.fixture(autouse=True)
def two_blocks(monkeypatch):
    """Rows are worked on 1,024 at a time: two blocks, the second of which is padded."""
    monkeypatch.setattr(streamed_blocks, "_BLOCK_BYTES", 1)


@pytest.fixture
def mapped(tmp_path):
    """Write an array to a file, and map that."""

    def write(array, mode="r"):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(path, array)
        return np.load(path, mmap_mode=mode)

    return write


def blocks(*sizes, x=X32, y=Y):
    ends = np.cumsum(sizes)
    assert ends[-1] == len(y)
    return [(x[end - size : end], y[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


@functools.cache
def whole():
    """The answer for one block in a list."""
    return jh.solve([(X32, Y)], **COARSE)


def assert_equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def relative(solution):
    return float(solution.gap / solution.primal_value)


@pytest.mark.parametrize(
    ("options", "machine"),
    [
        ({}, {}),
        ({"sample_weight": WEIGHT}, {"weight": WEIGHT}),
        ({"fit_intercept": False}, {"intercept": False}),
        ({"fit_intercept": "regularized", "loss": "squared_hinge"}, {"intercept": "regularized", "squared": True}),
    ],
    ids=["hinge", "weighted", "no bias", "squared"],
)
def test_the_answer_is_that_of_solve_and_its_gap_that_of_numpy(options, machine, mapped):
    found = jh.solve(mapped(X32), Y, **COARSE, **options)
    assert found.status == Status.CONVERGED
    assert found.gap <= 1e-3 * found.primal_value
    # Both values are float32, of an objective below 1.
    assert relative_gap(Machine(X32, Y, 0.01, **machine), found) == pytest.approx(relative(found), abs=1e-6)
    exact = jh.solve(X32, Y, l2=0.01, tol=1e-5, **options)
    assert found.dual_value - 1e-6 <= exact.primal_value <= found.primal_value + 1e-5 * exact.primal_value
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), exact
    )


def test_float64_goes_further(mapped):
    found = jh.solve(mapped(X), Y, l2=0.01, tol=1e-7, as_numpy=True)
    assert found.status == Status.CONVERGED
    assert relative_gap(Machine(X, Y, 0.01), found) <= 1e-7
    assert all(isinstance(leaf, np.ndarray | np.generic) for leaf in jax.tree.leaves(found))
    assert {leaf.dtype for leaf in jax.tree.leaves(found[:5])} == {np.dtype(np.float64)}


def test_a_start_spares_steps():
    cold = whole()
    near = jh.solve([(X32, Y)], l2=0.011, tol=1e-3)
    warm = jh.solve([(X32, Y)], **COARSE, init=near)
    assert warm.status == Status.CONVERGED
    assert warm.steps < cold.steps
    # A dual of other weights is put into the box.
    weighted = jh.solve([(X32, Y, WEIGHT)], **COARSE, init=cold)
    assert weighted.status == Status.CONVERGED
    assert relative_gap(Machine(X32, Y, 0.01, weight=WEIGHT), weighted) <= 1e-3


def test_a_row_without_weight_has_no_dual():
    found = jh.solve([(X32, Y, WEIGHT)], **COARSE)
    assert (found.dual[WEIGHT == 0] == 0).all()
    assert (found.dual <= (WEIGHT / WEIGHT.sum()).astype(np.float32) * (1 + 1e-6)).all()


def test_large_features_take_float64():
    # A dual of float32 numbers cannot balance features of a million, and neither can features centred in float32.
    x = 1e6 * X32 + np.float32(1e6)
    found = jh.solve([(x, Y)], l2=1e-6, tol=1e-3, fit_intercept=True, loss="squared_hinge", as_numpy=True)
    assert found.status == Status.CONVERGED
    assert relative_gap(Machine(x, Y, 1e-6, squared=True), found) <= 1e-3


def test_the_interior_point_takes_over(monkeypatch):
    # Separable with a margin, hardly regularised: at the solution no row is near the kink but a few on it.
    x = X32 + 0.3 * np.where(X32[:, :1] > 0, 1, -1).astype(np.float32)
    y = np.where(x[:, 0] > 0, 1, -1)
    monkeypatch.setattr(streamed_stages, "_COLD_PASSES", 2)
    found = jh.solve([(x, y)], l2=1e-4, tol=1e-3)
    assert found.status == Status.CONVERGED
    assert relative_gap(Machine(x, y, 1e-4), found) <= 1e-3


def test_the_interior_point_by_name(monkeypatch):
    def refused(*_):
        raise AssertionError("Newton's method was asked")

    monkeypatch.setattr(streamed_stages, "newton_steps", refused)
    found = jh.solve([(X32, Y)], **COARSE, method="interior_point")
    assert found.status == Status.CONVERGED
    assert relative_gap(Machine(X32, Y, 0.01), found) <= 1e-3


def test_a_sample_is_solved_first(monkeypatch):
    cold = whole()
    monkeypatch.setattr(streamed_rows, "_SAMPLE_ROWS", 300)
    warm = jh.solve([(X32, Y)], **COARSE)
    assert warm.steps < cold.steps
    assert warm.status == Status.CONVERGED
    assert relative_gap(Machine(X32, Y, 0.01), warm) <= 1e-3


# ---- sources


def test_blocks_of_any_sizes_are_the_same_rows(mapped):
    x = mapped(X32)
    assert_equal(jh.solve(x, Y, **COARSE), whole())
    assert_equal(jh.solve(mapped(np.asfortranarray(X32)), Y, **COARSE), whole())
    assert_equal(jh.solve(blocks(1, 700, 3, 596), **COARSE), whole())
    assert_equal(jh.solve(lambda: iter(blocks(500, 800)), **COARSE), whole())
    assert_equal(jh.solve([(x[:900], Y[:900]), [x[900:], Y[900:].tolist()]], **COARSE), whole())
    weighted = [(x, y, np.full(len(y), 3)) for x, y in blocks(1000, 300)]
    np.testing.assert_allclose(jh.solve(weighted, **COARSE).params.w, whole().params.w, rtol=1e-6)


def test_integers_are_worked_on_as_they_are(mapped):
    x = np.rint(8 * X).astype(np.int8)
    found = jh.solve(mapped(x), Y.astype(int), **COARSE)
    assert found.status == Status.CONVERGED
    assert relative_gap(Machine(x, Y, 0.01), found) <= 1e-3


@pytest.mark.parametrize("mode", ["r+", "c"])
def test_what_is_mapped_keeps_its_numbers(mode, mapped):
    x = mapped(np.zeros_like(X32), mode)
    x[:] = X32
    y, weight = Y.copy(), np.ones_like(Y)
    assert_equal(jh.solve(x, y, **COARSE), whole())
    jh.solve(x, y, sample_weight=weight, **COARSE)
    np.testing.assert_array_equal(x, X32)
    np.testing.assert_array_equal(y, Y)
    assert (weight == 1).all()


def test_rows_that_change_between_passes_are_noticed():
    rng = np.random.default_rng(0)

    def shuffled():
        order = rng.permutation(len(Y))
        yield X32[order], Y[order]

    with pytest.raises(ValueError, match=r"Block 0 \(rows 0..1299\) has other targets than in the first pass"):
        jh.solve(shuffled, l2=0.01)
    passes = iter([blocks(700, 600), blocks(700, 600), blocks(700, 600)[:1]])
    with pytest.raises(ValueError, match="held 1300 rows in the first pass, but 700 in a later one"):
        jh.solve(lambda: next(passes), l2=0.01)


def refuse(error, message, x, y=None, **options):
    with pytest.raises(error, match=message):
        jh.solve(x, y, **{"l2": 0.1, **options})


def test_bad_values_are_named_with_their_block(mapped):
    bad = X32.copy()
    bad[1100, 2] = np.nan
    refuse(ValueError, r"x has NaN or infinity, the first at \(1100, 2\)", mapped(bad), Y)
    refuse(ValueError, r"x of block 1 has NaN or infinity, the first at \(500, 2\)", blocks(600, 700, x=bad))
    refuse(ValueError, r"y of block 1 must be -1 and \+1; got 0.0", [*blocks(1300), (X32[:5], np.zeros(5))])
    refuse(ValueError, r"y of block 1 has NaN", [*blocks(1300), (X32[:5], np.full(5, np.nan))])
    refuse(ValueError, r"sample_weight of block 0 must not be negative", [(X32, Y, -np.ones(1300))])
    refuse(ValueError, r"x of block 1 has 3 features", [*blocks(1300), (X32[:, :3], Y)])
    refuse(ValueError, r"x of block 1 is empty: shape \(0, 4\)", [*blocks(1300), (X32[:0], Y[:0])])
    refuse(TypeError, r"x of block 1 is float64", [*blocks(1300), (X, Y)])
    refuse(ValueError, r"y of block 1 has shape \(7,\), but x has 5 rows", [*blocks(1300), (X32[:5], Y[:7])])
    refuse(ValueError, r"Block 1 has sample weights, but block 0 none", [*blocks(1300), (X32, Y, WEIGHT)])
    refuse(TypeError, r"Block 0 of x must be \(x, y\)", [X32])


def test_bad_sources(mapped):
    x = mapped(X32)
    refuse(ValueError, "ends after one pass", iter(blocks(1300)))
    refuse(ValueError, "ends after one pass", (block for block in blocks(1300)))
    refuse(ValueError, "yielded no blocks", [])
    refuse(TypeError, "got ndarray and no y", X32)
    refuse(TypeError, "got memmap and no y", x)
    refuse(TypeError, "x of block 0 is sparse", [(scipy.sparse.csr_array(X32), Y)])
    refuse(ValueError, r"y has shape \(1299,\)", x, Y[:-1])
    refuse(ValueError, "one class only", x, np.ones(1300))
    refuse(ValueError, "one class only", x, Y, sample_weight=(Y > 0).astype(float))
    refuse(ValueError, "sample_weight is 0 for every row", x, Y, sample_weight=np.zeros(1300))
    refuse(ValueError, "sample_weight is for arrays", blocks(1300), sample_weight=WEIGHT)
    refuse(ValueError, r"x must have shape \(n, d\)", mapped(X32[:, 0]), Y)
    refuse(TypeError, "must be real numbers", mapped(X32.astype(complex)), Y)


def test_what_cannot_be_asked():
    refuse(ValueError, "l2 must be", blocks(1300), l2=0.0)
    refuse(ValueError, "tol must be", blocks(1300), tol=-1.0)
    refuse(ValueError, "max_steps must be at least 1", blocks(1300), max_steps=0)
    refuse(ValueError, "on_interrupt must be", blocks(1300), on_interrupt="stop")
    refuse(TypeError, "progress must be", blocks(1300), progress="yes")
    refuse(TypeError, "init must be a Solution", blocks(1300), init=whole().params)
    refuse(ValueError, "needs \\(4,\\) and \\(700,\\)", [(X32[:700], Y[:700])], init=whole())
    refuse(ValueError, 'method="ascent" needs all rows in memory', blocks(1300), method="ascent")
    with pytest.raises(TypeError, match="something is traced"):
        jax.jit(lambda l2: jh.solve(blocks(1300), l2=l2).gap)(0.1)


# ---- stopping


def test_a_limit_of_steps_leaves_an_honest_gap():
    found = jh.solve([(X32, Y)], **COARSE, max_steps=3)
    assert found.status == Status.STEP_LIMIT
    assert found.steps == 3
    assert relative_gap(Machine(X32, Y, 0.01), found) == pytest.approx(relative(found), rel=1e-5)


def test_precision_that_does_not_suffice_is_said():
    found = jh.solve([(X32, Y)], l2=0.01, tol=1e-12)
    assert found.status == Status.STALLED
    assert found.steps < 100
    # What the rounding of the parameters to float32 leaves.
    assert 0 <= relative(found) < 1e-6


@pytest.mark.parametrize("passes", [2, 4])
def test_ctrl_c(passes):
    begun = 0

    def interrupted():
        nonlocal begun
        begun += 1
        for number, block in enumerate(blocks(700, 600)):
            if begun == passes + 1 and number == 1:
                signal.raise_signal(signal.SIGINT)
            yield block

    with pytest.raises(KeyboardInterrupt):
        jh.solve(interrupted, **COARSE)
    begun = 0
    found = jh.solve(interrupted, **COARSE, on_interrupt="return")
    assert begun == passes + 2  # one more, for the certificate
    assert found.status == Status.STEP_LIMIT
    assert relative_gap(Machine(X32, Y, 0.01), found) == pytest.approx(relative(found), rel=1e-5)


def test_no_bar_unless_it_is_wanted(capfd):
    jh.solve([(X32, Y)], **COARSE)
    assert capfd.readouterr().err == ""
    found = jh.solve([(X32, Y)], **COARSE, progress=True)
    shown = capfd.readouterr().err
    assert f"step {found.steps}, gap {relative(found):.1e} of 1e-03" in shown
    # It took less than a minute, and there is nothing left.
    assert re.search(r"100%\|█+\| 00:\d\d<00:00\n$", shown)
