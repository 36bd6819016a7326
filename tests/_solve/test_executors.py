"""The same problems by both executors, NumPy on the host and one compiled program: one answer, the same refusals."""

import jax
import numpy as np
import pytest

import jaxhinge as jh
from jaxhinge import Status

N, D = 32, 3
RNG = np.random.default_rng(17)
X = RNG.normal(size=(N, D)).astype(np.float32) + np.float32([0.5, 1.0, 2.0])
CLASSES = np.where(X[:, 0] + RNG.normal(size=N) > 0.5, 1, -1).astype(np.float32)
REAL = (X @ [1.0, -2.0, 0.5] + RNG.standard_t(3, N)).astype(np.float32)
WEIGHT = RNG.integers(0, 4, N).astype(np.float32)
PAIRS = np.stack([np.arange(N - 1), np.arange(1, N)], axis=1)
NOTHING = (np.zeros(D, np.float32), np.float32(0.5))


def spoilt(values, value):
    return np.where(np.arange(values.size).reshape(values.shape) == 7, np.float32(value), values)


# Objectives from the definitions, in float64, of a weight for each row that sums to 1.
def residual(params, x, y):
    return y - x @ params.w - params.b


def of_regression(params, share, *, x, y, l2, epsilon, **_):
    return share @ np.maximum(0, np.abs(residual(params, x, y)) - epsilon) + l2 / 2 * params.w @ params.w


def of_quantile(params, share, *, x, y, l2, quantile, **_):
    r = residual(params, x, y)
    return share @ np.maximum(quantile * r, (quantile - 1) * r) + l2 / 2 * params.w @ params.w


def of_ranking(params, share, *, x, pairs, l2, **_):
    margins = (x[pairs[:, 0]] - x[pairs[:, 1]]) @ params.w
    return share @ np.maximum(0, 1 - margins) + l2 / 2 * params.w @ params.w


def of_one_class(params, share, *, x, nu, l2, **_):
    return share @ np.maximum(0, -x @ params.w - params.b) / nu + params.b + l2 / 2 * params.w @ params.w


WITH_TARGETS = {"x": X, "y": REAL, "l2": np.float32(0.05), "sample_weight": WEIGHT}
OF_PAIRS = {"x": X, "pairs": PAIRS, "l2": np.float32(0.05), "sample_weight": WEIGHT[1:] + 1}
ONE_CLASS = {"x": X, "nu": np.float32(0.3), "l2": np.float32(0.5), "sample_weight": WEIGHT}
SOLVERS = {
    "solve_regression": (of_regression, WITH_TARGETS | {"epsilon": np.float32(0.2)}),
    "solve_quantile": (of_quantile, WITH_TARGETS | {"quantile": np.float32(0.2)}),
    "solve_ranking": (of_ranking, OF_PAIRS),
    "solve_one_class": (of_one_class, ONE_CLASS),
}

# What is wrong with one argument, by its name, and what the host calls it.
EVERYWHERE = [
    ("x", spoilt(X, np.nan), r"x has NaN or infinity in 1 of 96 places, the first at \(2, 1\)"),
    ("x", spoilt(X, np.inf), "x has NaN or infinity"),
    ("l2", 0.0, "l2 must be a number above 0"),
    ("l2", -1.0, "l2 must be a number above 0"),
    ("l2", np.nan, "l2 must be a number above 0"),
    ("l2", np.inf, "l2 must be a number above 0"),
    ("sample_weight", -1.0, "must not be negative"),
    ("sample_weight", np.nan, "sample_weight"),
    ("sample_weight", np.inf, "sample_weight"),
    ("sample_weight", 0.0, "sample_weight is 0 for every row"),
]
IN_TARGETS = [("y", spoilt(REAL, np.nan), "y has NaN"), ("y", spoilt(REAL, np.inf), "y has NaN")]
BAD = {
    "solve_regression": [*IN_TARGETS, ("epsilon", -1.0, "epsilon"), ("epsilon", np.nan, "epsilon")],
    "solve_quantile": [*IN_TARGETS, *(("quantile", q, "quantile") for q in (0.0, 1.0, 1.5, np.nan))],
    "solve_ranking": [
        ("pairs", np.where(PAIRS == 3, N, PAIRS), "pairs"),
        ("pairs", np.where(PAIRS == 3, -1, PAIRS), "pairs"),
        ("pairs", np.where(PAIRS == 3, 4, PAIRS), "pairs"),
    ],
    "solve_one_class": [("nu", nu, "nu") for nu in (0.0, 1.0, -0.5, np.nan)],
}


def spread(value, like):
    """In the shape and the dtype of what it stands for; a number that stands for many is that of each."""
    return np.broadcast_to(value, np.shape(like)).astype(np.asarray(like).dtype)


@pytest.mark.parametrize("name", SOLVERS)
def test_answers_and_refusals_of_both_executors(name):
    objective, given = SOLVERS[name]
    solver, bad = getattr(jh, name), EVERYWHERE + BAD[name]
    problems = [given, given | {"l2": np.float32(2.0), "x": X[::-1] + 1}]
    problems += [given | {argument: spread(value, given[argument])} for argument, value, _ in bad]
    # The lanes of one program.
    stacked = {argument: np.stack([problem[argument] for problem in problems]) for argument in given}
    traced = jax.jit(jax.vmap(lambda given: solver(**given)))(stacked)
    lanes = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), traced) for i in range(len(problems))]

    for problem, lane in zip(problems[:2], lanes, strict=False):
        host = solver(**problem)
        wide = {key: value.astype(float) if value.dtype.kind == "f" else value for key, value in problem.items()}
        share = wide["sample_weight"] / wide["sample_weight"].sum()
        params = [jh.LinearParams(*(np.asarray(leaf, float) for leaf in one.params)) for one in (host, lane)]
        values = [objective(one, share, **wide) for one in params]
        for solution, value in zip((host, lane), values, strict=True):
            assert solution.status == Status.CONVERGED
            # The values come back as float32.
            assert solution.primal_value == pytest.approx(value, rel=3e-7)
            assert solution.dual_value <= min(values) + 3e-7 * abs(value)
            assert 0 <= solution.gap <= 1e-4 * abs(value)

    for (argument, _, message), problem, lane in zip(bad, problems[2:], lanes[2:], strict=True):
        with pytest.raises(ValueError, match=message):
            solver(**problem)
        assert lane.status == Status.REFUSED, argument
        assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(lane[:5])), argument


GAP = {"params": NOTHING, "x": X, "y": CLASSES, "l2": np.float32(0.05), "sample_weight": WEIGHT}


def test_gaps_and_refusals_of_both_executors():
    bad = [
        *EVERYWHERE,
        ("y", spoilt(CLASSES, np.nan), "y has NaN"),
        ("y", spoilt(CLASSES, 2.0), "must be -1 and"),
        ("y", 1.0, "one class only"),
    ]
    problems = [GAP, GAP | {"l2": np.float32(2.0)}]
    problems += [GAP | {argument: spread(value, GAP[argument])} for argument, value, _ in bad]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *problems)
    found = np.asarray(jax.jit(jax.vmap(lambda given: jh.duality_gap(**given)))(stacked))
    for problem, gap in zip(problems[:2], found, strict=False):
        # Both dual points are improved to 1e-7 of the objective, which is about 1.
        np.testing.assert_allclose(gap, jh.duality_gap(**problem), rtol=0, atol=1e-6)
    for (_, _, message), problem, gap in zip(bad, problems[2:], found[2:], strict=True):
        with pytest.raises(ValueError, match=message):
            jh.duality_gap(**problem)
        assert np.isnan(gap)
