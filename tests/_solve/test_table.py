"""Every loss on every source of rows: each cell of the table is certified from the definitions, or refused by name.

All cells that NumPy works on are walked. Of those that are compiled there are some for each row and column, in
`test_binary_traced.py`, `test_executors.py` and `test_multiclass.py`; `tests/_rows/on_eight_devices.py` has the meshes.
"""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhinge as jh
from jaxhinge import Status
from jaxhinge._methods import host
from jaxhinge._methods.streamed import blocks as streamed_blocks
from jaxhinge._methods.streamed import stages

RNG = np.random.default_rng(5)
X = RNG.normal(size=(1100, 3)) * [1.0, 2.0, 0.5] + [0.5, 0.0, -1.0]
REAL = X @ [1.0, -0.5, 2.0] + 20.0 + RNG.standard_t(3, 1100)
CLASSES = np.where(np.median(REAL) < REAL, 1, -1)
WEIGHT = RNG.integers(0, 3, 1100).astype(float)
SHARE = WEIGHT / WEIGHT.sum()
L2, TOL, EPSILON, QUANTILE = 0.05, 1e-5, 0.3, 0.8
OPTIONS = {"l2": L2, "tol": TOL, "sample_weight": WEIGHT, "as_numpy": True}


@pytest.fixture(autouse=True)
def two_blocks(monkeypatch):
    monkeypatch.setattr(streamed_blocks, "_BLOCK_BYTES", 1)


# What a loss is: the function that solves it, its targets, whether it is squared, and its sides `(sign, r, weight)`.
def classes_sides(_):
    return [(CLASSES, np.ones(1100), 1.0)]


def residual_sides(epsilon, above, below):
    one = np.ones(1100)
    return lambda y: [(one, y - epsilon, above), (-one, -y - epsilon, below)]


LOSSES = {
    "hinge": (jh.solve, CLASSES, {}, False, classes_sides),
    "squared hinge": (jh.solve, CLASSES, {"loss": "squared_hinge"}, True, classes_sides),
    "tube": (jh.solve_regression, REAL, {"epsilon": EPSILON}, False, residual_sides(EPSILON, 1, 1)),
    "squared tube": (
        jh.solve_regression,
        REAL,
        {"epsilon": EPSILON, "squared": True},
        True,
        residual_sides(EPSILON, 1, 1),
    ),
    "pinball": (jh.solve_quantile, REAL, {"quantile": QUANTILE}, False, residual_sides(0, QUANTILE, 1 - QUANTILE)),
}


def values_of(name, found, intercept=True):
    """The objective, and the value of the dual put into its box and into balance, from the definitions."""
    _, y, _, squared, sides = LOSSES[name]
    w, b = (np.asarray(leaf, np.float64) for leaf in found.params)
    regularized = intercept == "regularized"
    primal = L2 / 2 * (w @ w + regularized * b * b)
    parts = sides(y)
    dual = np.asarray(found.dual, np.float64).reshape(1100, len(parts))
    alphas = []
    for column, (sign, r, weight) in enumerate(parts):
        loss = np.maximum(0, r - sign * (X @ w + b))
        primal += weight * SHARE @ (loss**2 if squared else loss)
        upper = weight * SHARE if not squared else np.where(SHARE > 0, np.inf, 0)
        alphas.append(np.clip(dual[:, column], 0, upper))
    pushes = np.array([alpha * sign for alpha, (sign, _, _) in zip(alphas, parts, strict=True)])
    if intercept is True:
        up, down = pushes[pushes > 0].sum(), -pushes[pushes < 0].sum()
        pushes *= np.where(pushes > 0, min(up, down) / up, min(up, down) / down)
    push = pushes.sum(axis=0)
    value = -(push @ X @ (push @ X) + regularized * push.sum() ** 2) / (2 * L2)
    for alpha, (_, r, weight) in zip(np.abs(pushes), parts, strict=True):
        value += r @ alpha
        if squared:
            value -= (alpha[SHARE > 0] ** 2 / (4 * weight * SHARE[SHARE > 0])).sum()
    return primal, value


def mapped(directory, y):
    np.save(directory / "x.npy", X)
    return np.load(directory / "x.npy", mmap_mode="r"), y, {}


def list_of_blocks(_, y):
    cuts = [slice(0, 1), slice(1, 700), slice(700, 1100)]
    return [(X[cut], y[cut], WEIGHT[cut]) for cut in cuts], None, {"sample_weight": None}


def function_of_blocks(directory, y):
    x, _, _ = mapped(directory, y)
    return (
        (lambda: ((x[i : i + 300], y[i : i + 300], WEIGHT[i : i + 300]) for i in range(0, 1100, 300))),
        None,
        {"sample_weight": None},
    )


SOURCES = {
    "NumPy": lambda _, y: (X, y, {}),
    "JAX on the CPU": lambda _, y: (jnp.asarray(X), y, {}),
    "memory map": mapped,
    "list of blocks": list_of_blocks,
    "function of blocks": function_of_blocks,
}
STREAMS = ["memory map", "list of blocks", "function of blocks"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", LOSSES)
def test_host(name, source, tmp_path, compilations):
    solve, y, options, _, _ = LOSSES[name]
    x, y, more = SOURCES[source](tmp_path, y)
    if source == "JAX on the CPU":
        # Float32, but for x64: only the shape of the call is of interest.
        assert solve(x, y, **OPTIONS, **options).status == Status.CONVERGED
        return
    with compilations() as names:
        for intercept in (True, False, "regularized"):
            found = solve(x, y, **{**OPTIONS, **options, **more}, fit_intercept=intercept)
            primal, dual = values_of(name, found, intercept)
            assert found.status == Status.CONVERGED
            np.testing.assert_allclose((found.primal_value, found.dual_value), (primal, dual), rtol=1e-9)
            assert 0 <= primal - dual <= found.gap <= TOL * primal
            assert (found.dual.reshape(1100, -1)[WEIGHT == 0] == 0).all()
        # A solution is where to start from.
        again = solve(x, y, **{**OPTIONS, **options, **more}, fit_intercept="regularized", init=found)
        assert again.steps == 0
        np.testing.assert_allclose(again.params.w, found.params.w, rtol=1e-12)
    assert names == []


@pytest.mark.parametrize("method", ["interior_point", "newton"])
@pytest.mark.parametrize("name", ["hinge", "tube", "squared tube"])
def test_methods_by_name(name, method, tmp_path):
    solve, y, options, _, _ = LOSSES[name]
    for source in ("NumPy", "memory map"):
        x, y, _ = SOURCES[source](tmp_path, y)
        found = solve(x, y, **{**OPTIONS, "tol": 1e-4}, **options, method=method)
        primal, dual = values_of(name, found)
        assert found.status == Status.CONVERGED
        assert primal - dual <= 1e-4 * primal


@pytest.mark.parametrize("source", SOURCES)
def test_path(source, tmp_path):
    strengths = [0.05, 1.0, 0.2]
    x, y, more = SOURCES[source](tmp_path, CLASSES)
    found = jh.path(x, y, **{**OPTIONS, "l2": strengths, **more})
    for row, l2 in enumerate(strengths):
        exact = jh.solve(X, CLASSES, **{**OPTIONS, "l2": l2, "tol": 1e-8})
        assert exact.dual_value <= found.primal_value[row] <= exact.primal_value * (1 + TOL)
        assert found.gap[row] <= TOL * found.primal_value[row]
    assert found.dual.shape == (3, 1100)
    assert (found.status == Status.CONVERGED).all()


@pytest.mark.parametrize("source", SOURCES)
def test_duality_gap(source, tmp_path):
    x, y, more = SOURCES[source](tmp_path, CLASSES)
    options = {"l2": L2, "sample_weight": WEIGHT, **more}
    exact = jh.solve(X, CLASSES, **{**OPTIONS, "tol": 1e-9})
    for w, b, intercept in ((exact.params.w, exact.params.b, True), (np.ones(3), 0.5, True), (np.ones(3), 0.5, False)):
        optimum = exact if intercept else jh.solve(X, CLASSES, **{**OPTIONS, "tol": 1e-9}, fit_intercept=False)
        losses = np.maximum(0, 1 - CLASSES * (X @ w + b))
        excess = SHARE @ losses + L2 / 2 * (w @ w) - optimum.dual_value
        found = float(jh.duality_gap((w, b), x, y, **options, fit_intercept=intercept))
        # What comes back is float32.
        assert excess - 1e-7 <= found <= excess + 2e-4
    # A dual is taken as it is.
    found = float(jh.duality_gap((np.zeros(3), 0.0), x, y, **options, dual=np.zeros(1100)))
    assert found == pytest.approx(1.0)
    assert float(jh.duality_gap(exact.params, x, y, **options, dual=exact.dual)) <= 1e-7


@pytest.mark.parametrize("source", STREAMS)
def test_what_streams_cannot_do_is_refused_by_name(source, tmp_path):
    x, y, _ = SOURCES[source](tmp_path, CLASSES)
    what = "is a memory-mapped file" if source == "memory map" else "needs all rows in memory, as one array"
    for name, call in {
        "solve_one_class": lambda: jh.solve_one_class(x),
        "solve_ranking": lambda: jh.solve_ranking(x, [[0, 1]], l2=1.0),
        "sweep": lambda: jh.sweep(x, y, l2=[1.0]),
    }.items():
        with pytest.raises(ValueError, match=what) as refused:
            call()
        assert name in str(refused.value)
    for call in (jh.solve, jh.solve_regression, jh.path):
        with pytest.raises(ValueError, match='method="ascent" needs all rows in memory'):
            call(x, y, l2=[1.0] if call is jh.path else 1.0, method="ascent")
    with pytest.raises(TypeError, match="something is traced"):
        jax.jit(lambda l2: jh.solve_regression(list_of_blocks(None, REAL)[0], l2=l2).gap)(0.1)


# ---- Ctrl-C


@pytest.mark.parametrize("source", ["NumPy", "memory map"])
def test_ctrl_c_on_a_path_returns_what_was_reached(source, tmp_path, monkeypatch):
    x, y, _ = SOURCES[source](tmp_path, CLASSES)
    options = {**OPTIONS, "l2": [1.0, 0.3, 0.05]}
    whole = jh.path(x, y, **options)
    where, name = (host, "interior_point_steps") if source == "NumPy" else (stages, "newton_steps")
    genuine, calls = getattr(where, name), []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return genuine(*args)

    monkeypatch.setattr(where, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        jh.path(x, y, **options)
    calls.clear()
    found = jh.path(x, y, **options, on_interrupt="return")
    assert len(calls) == 2
    assert found.status.tolist() == [Status.CONVERGED, Status.STEP_LIMIT, Status.STEP_LIMIT]
    np.testing.assert_array_equal(found.params.w[0], whole.params.w[0])
    for row, l2 in enumerate(options["l2"]):
        w, b = found.params.w[row], found.params.b[row]
        primal = SHARE @ np.maximum(0, 1 - CLASSES * (X @ w + b)) + l2 / 2 * (w @ w)
        assert found.primal_value[row] == pytest.approx(primal, rel=1e-9)
        assert found.gap[row] >= primal - whole.primal_value[row]


# ---- memory


def test_a_memory_map_is_never_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed_blocks, "_BLOCK_BYTES", 1 << 18)
    # So few rows that a sample would be all of them.
    x = np.random.default_rng(0).standard_normal((100_000, 40), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    y = np.asarray(x[:, 0] + x[:, 1] ** 2, np.float64)
    classes, options = np.where(y > 1, 1, -1), {"l2": 0.1, "tol": 0.05}
    del x
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    for call in (
        lambda: jh.solve_regression(x, y, **options),
        lambda: jh.path(x, classes, l2=[0.1, 1.0], tol=0.05),
        lambda: jh.duality_gap((np.zeros(40), 0.0), x, classes, l2=0.1, dual=np.zeros(100_000)),
    ):
        tracemalloc.start()
        try:
            call()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # The file has 16 MB; held are a few blocks of a quarter of one, and a few numbers for each row.
        assert peak < 8e6
