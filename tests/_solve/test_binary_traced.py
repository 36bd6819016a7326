"""`solve` under every nesting of `vmap` and `jit`: each lane is right, ends by itself, and says how it ended."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.svm_references import D, Machine, N, dual_value, noisy, primal_value, relative_gap

import jaxhinge as jh
from jaxhinge import Status

X, Y = (array.astype(np.float32) for array in noisy())
L2S = np.array([1e-4, 1e-2, 1.0, 100.0], np.float32)


def solve(l2):
    return jh.solve(X, Y, l2=l2, tol=1e-6)


def lane(solutions, *index):
    return jax.tree.map(lambda leaf: leaf[index], solutions)


NESTINGS = {
    "vmap": jax.vmap(solve),
    "jit(vmap(jit))": jax.jit(jax.vmap(jax.jit(solve))),
    "vmap(vmap(jit))": jax.vmap(jax.vmap(jax.jit(solve))),
}


@jax.jit
@jax.vmap
def lanes(l2, x, y, weight, max_steps):
    """Everything in lanes, compiled once for several tests."""
    return jh.solve(x, y, l2=l2, sample_weight=weight, max_steps=max_steps, tol=1e-6)


FOUR = {
    "l2": L2S,
    "x": np.stack([X] * 4),
    "y": np.stack([Y] * 4),
    "weight": np.ones((4, N), np.float32),
    "max_steps": np.full(4, 100, np.int32),
}


def in_lanes(**changes):
    return lanes(*(FOUR | changes).values())


@pytest.mark.parametrize("nesting", NESTINGS)
def test_every_lane_is_certified_in_every_nesting(nesting):
    shape = (2, 2) if nesting.startswith("vmap(vmap") else (4,)
    solutions = NESTINGS[nesting](jnp.asarray(L2S.reshape(shape)))
    solutions = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(4, *leaf.shape[len(shape) :]), solutions)
    for i, l2 in enumerate(L2S):
        machine, one = Machine(X, Y, l2), lane(solutions, i)
        # In float32 the solver gets no further than 1e-4: this says that the lanes were solved in float64.
        assert relative_gap(machine, one) <= 1e-6
        assert one.status == Status.CONVERGED
        assert one.primal_value == pytest.approx(primal_value(machine, one.params), rel=3e-7)
        assert one.gap == pytest.approx(one.primal_value * relative_gap(machine, one), abs=1e-7)
    assert {leaf.dtype for leaf in jax.tree.leaves(solutions[:5])} == {np.dtype(np.float32)}
    # Lanes end at their own step, the same as alone.
    assert len(set(solutions.steps.tolist())) > 1
    alone = [int(jax.jit(solve)(l2).steps) for l2 in L2S]
    assert np.abs(solutions.steps - alone).max() <= 1


def test_lanes_over_datasets_targets_and_weights():
    rng = np.random.default_rng(1)
    flips = np.where(rng.uniform(size=(4, N)) < 0.1, -Y, Y).astype(np.float32)
    weights = rng.uniform(0.0, 2.0, (4, N)).astype(np.float32)
    weights[:, ::5] = 0
    shifts = X + rng.normal(size=(4, 1, D)).astype(np.float32)
    batched = in_lanes(x=shifts, y=flips, weight=weights)
    for i in range(4):
        assert relative_gap(Machine(shifts[i], flips[i], L2S[i], weights[i]), lane(batched, i)) <= 1e-6
        assert (np.asarray(batched.dual[i])[weights[i] == 0] == 0).all()
    assert batched.status.tolist() == [Status.CONVERGED] * 4


def test_lanes_that_are_refused_or_limited_do_not_spoil_the_others():
    nan = X.copy()
    nan[5, 2] = np.nan
    xs = np.stack([X, nan, X, X])
    ys = np.stack([Y, Y, np.ones_like(Y), Y])
    l2s = np.array([1e-4, 0.1, 0.1, -1.0], np.float32)
    found = in_lanes(l2=l2s, x=xs, y=ys)
    assert found.status.tolist() == [Status.CONVERGED, Status.REFUSED, Status.REFUSED, Status.REFUSED]
    assert np.isnan(found.gap).tolist() == [False, True, True, True]
    assert relative_gap(Machine(X, Y, l2s[0]), lane(found, 0)) <= 1e-6

    found = in_lanes(l2=np.full(4, 1e-4, np.float32), max_steps=np.array([1, 2, 50, 3], np.int32))
    limit, done = Status.STEP_LIMIT, Status.CONVERGED
    assert found.status.tolist() == [limit, limit, done, limit]
    assert found.steps.tolist()[:2] == [1, 2]
    for i in range(4):
        machine, one = Machine(X, Y, np.float32(1e-4)), lane(found, i)
        honest = primal_value(machine, one.params) - dual_value(machine, one.dual)
        assert float(one.gap) == pytest.approx(honest, rel=1e-4, abs=1e-7)


def test_lanes_with_their_own_tolerance_and_warm_start():
    first = in_lanes()
    again = jax.jit(jax.vmap(lambda l2, tol, init: jh.solve(X, Y, l2=l2, tol=tol, init=init)))
    warm = again(1.02 * L2S, np.array([1e-2, 1e-3, 1e-4, 1e-6], np.float32), first)
    assert warm.status.tolist() == [Status.CONVERGED] * 4
    assert (np.asarray(warm.steps) < np.asarray(first.steps)).all()
    for i, tol in enumerate((1e-2, 1e-3, 1e-4, 1e-6)):
        assert relative_gap(Machine(X, Y, np.float32(1.02) * L2S[i]), lane(warm, i)) <= tol * 1.01


def test_under_jit_with_nothing_but_constants():
    exact = jh.solve(X, Y, l2=0.3)
    found = jax.jit(lambda: (jh.solve(X, Y, l2=0.3), jh.duality_gap(exact.params, X, Y, l2=0.3)))()
    assert found[0].status == jh.Status.CONVERGED
    np.testing.assert_allclose(found[0].primal_value, exact.primal_value, rtol=2e-4)
    assert 0 <= found[1] <= 2e-4 * exact.primal_value


def test_inside_scan_cond_and_shard_map():
    def chained(start, l2):
        solution = jh.solve(X, Y, l2=l2, init=start, tol=1e-6)
        return solution, solution.gap / solution.primal_value

    # The first start comes from the host, so that the program has one solver.
    start = jh.solve(X, Y, l2=L2S[0], tol=1e-6)
    gaps = jax.jit(lambda start, l2s: jax.lax.scan(chained, start, l2s)[1])(start, L2S)
    assert (np.asarray(gaps) <= 1e-6).all()
    mesh = jax.make_mesh((1,), ("lanes",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("lanes")
    sharded = jax.jit(jax.shard_map(jax.vmap(solve), mesh=mesh, in_specs=spec, out_specs=spec))(L2S)
    for i, l2 in enumerate(L2S):
        assert relative_gap(Machine(X, Y, l2), lane(sharded, i)) <= 1e-6


# Every loss and every method; the host walks all their pairs.
@pytest.mark.parametrize(("loss", "method"), [("hinge", "ascent"), ("squared_hinge", "auto")])
def test_variants_as_lanes(loss, method):
    l2s = np.array([0.3, 1.0, 10.0, 100.0], np.float32)
    options = {"loss": loss, "method": method, "fit_intercept": "regularized", "max_steps": 2000}
    found = jax.vmap(jax.jit(lambda l2: jh.solve(X, Y, l2=l2, **options)))(l2s)
    for i, l2 in enumerate(l2s):
        machine = Machine(X, Y, l2, intercept="regularized", squared=loss == "squared_hinge")
        assert relative_gap(machine, lane(found, i)) <= 1e-4
    assert found.status.tolist() == [Status.CONVERGED] * 4


def test_new_values_do_not_compile_again(compilations):
    in_lanes()
    with compilations() as names:
        in_lanes(l2=2 * L2S, weight=0.5 * FOUR["weight"])
    assert names == []
