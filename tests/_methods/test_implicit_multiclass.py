"""Derivatives through `solve_multiclass`, against central differences of solutions to a gap of 1e-13 in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxhinge as jh

N, D, K = 24, 2, 3
RNG = np.random.default_rng(3)
LABELS = np.arange(N) % K
X = RNG.normal(size=(N, D)) + 1.2 * np.eye(K)[LABELS][:, :D] + [0.5, 2.0]
WEIGHT = RNG.uniform(0.5, 2.0, N)
WEIGHT[3] = 0
OF_W, OF_B = RNG.normal(size=(D, K)), RNG.normal(size=K)
TOWARDS = RNG.normal(size=N), RNG.normal(size=(N, D))
TOWARDS[0][3] = 0


def solved(l2, weight, x, **options):
    options = {"num_classes": K, "tol": 1e-13} | options
    return jh.solve_multiclass(x, LABELS, l2=l2, sample_weight=weight, **options)


def targets(solution):
    """A number that every parameter moves, and the objective."""
    (w, b), dtype = solution.params, solution.params.w.dtype
    return (w * OF_W.astype(dtype)).sum() + (b * OF_B.astype(dtype)).sum(), solution.primal_value


def differences(l2, step=1e-6, **options):
    """How both targets change along l2, the weights and the features."""

    def at(length, which):
        moved = [l2, WEIGHT, X]
        moved[which] = moved[which] + length * (1.0, *TOWARDS)[which]
        return np.array(targets(solved(*moved, as_numpy=True, **options)))

    steps = [step * l2, step, step]
    return np.array([(at(h, which) - at(-h, which)) / (2 * h) for which, h in enumerate(steps)])


@pytest.mark.parametrize(("loss", "intercept"), [("crammer_singer", True), ("weston_watkins", "regularized")])
def test_derivatives_are_those_of_the_minimiser(loss, intercept):
    options = {"loss": loss, "fit_intercept": intercept}
    strengths = (0.05, 0.005)

    def both(l2, weight, x):
        return jnp.stack(targets(solved(l2, weight, x, **options)))

    # Backwards and in lanes, in one program.
    gradients = jax.jit(jax.vmap(jax.jacrev(both, argnums=(0, 1, 2)), in_axes=(0, None, None)))
    found = gradients(*(np.asarray(leaf, np.float32) for leaf in (strengths, WEIGHT, X)))
    for l2, of_l2, of_weight, of_x in zip(strengths, *map(np.asarray, found), strict=True):
        along = np.array([of_l2, of_weight @ TOWARDS[0], (of_x * TOWARDS[1][None]).sum(axis=(1, 2))])
        # Solutions to a gap of 1e-13 have seven digits, and so have float32 numbers.
        np.testing.assert_allclose(along, differences(l2, **options), rtol=3e-4, atol=3e-5)
        # A row without weight tells what a little weight would do to the objective.
        more = np.where(np.arange(N) == 3, 1e-7, WEIGHT)
        values = [solved(l2, weight, X, as_numpy=True, **options).primal_value for weight in (WEIGHT, more)]
        assert of_weight[1, 3] == pytest.approx((values[1] - values[0]) / 1e-7, rel=1e-3)
