"""A small part of the campaign of `experiments/hostile_input.py`: what is cheap to call, from one seed."""

import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pandas as pd
import pytest

import jaxhinge as jh
from jaxhinge.sklearn import HingeClassifier, HingeClassifierCV, HingeRegressor

EXPERIMENTS = str(Path(__file__).parents[1] / "experiments")
sys.path.insert(0, EXPERIMENTS)
import hostile_input  # noqa: E402
from _hostile_functions import FUNCTIONS, Function  # noqa: E402

sys.path.remove(EXPERIMENTS)

CHEAP = [
    function
    for function in FUNCTIONS
    if (function.name.startswith("losses.") and "gradient" not in function.name)
    or function.name in ("hinge", "positive_part", "decision_function", "predict", "init_params", "load", "save")
]


@pytest.mark.parametrize("function", CHEAP, ids=lambda function: function.name)
def test_hostile_input_gives_an_honest_result_or_a_refusal_by_name(function):
    outcomes = hostile_input.campaign(3, 1, [function])
    assert [(outcome.detail, outcome.arguments) for outcome in outcomes if outcome.kind == "failure"] == []


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda x: x / 0 if x.fill(1) else x[9], "IndexError"),
        (lambda x: x.fill(1), "changed"),
        (lambda x: float("no number"), "names no argument"),
        (lambda x: x, "told"),
    ],
)
def test_the_campaign_sees_what_is_wrong(call, complaint):
    function = Function("a function", call, lambda rng: {"x": np.zeros(3)}, lambda arguments, result: "told", 1.0)
    known = [hostile_input.run_case(function, (0, number)) for number in range(8)]
    assert any(complaint in outcome.detail for outcome in known if outcome.kind == "failure")


X, Y = np.array([[1.0], [2.0], [-1.0], [-3.0]]), np.array([1, 1, -1, -1])
SOLUTION = jh.Solution(jh.LinearParams(np.zeros(1), 0.0), slice(None), 1.0, 0.0, 1.0, 1, 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jh.solve(X, Y + 0j, l2=0.1), TypeError, "y must be -1 and .1; got complex numbers"),
        (lambda: jh.sweep(X, Y * (1 + 0j), l2=[0.1], folds=2), TypeError, "y must be -1 and .1; got complex numbers"),
        (
            lambda: jh.sweep(X, [0, 1, 2**62, 1], l2=[0.1], folds=2),
            ValueError,
            "y must be labels 0..k-1; got labels from",
        ),
        (lambda: jh.sweep(X, [0, 0, 3, 1], l2=[0.1], folds=2), ValueError, "y has no row of class 2"),
        (lambda: jh.solve_multiclass(X, [0, 1, 2**62, 1], l2=0.1), ValueError, "labels must be labels 0..k-1"),
        (lambda: jh.fit(X, Y + 0j, l2=0.1), TypeError, "y must be targets or labels, which are real; got complex128"),
        (lambda: jh.fit(X, Y, l2=0.1, on_interrupt=np.array([])), ValueError, "on_interrupt must be"),
        (
            lambda: jh.diagnose(lambda w, b, x, y: (w, b), (np.zeros(1), 0.0), X * 1e300, Y),
            ValueError,
            "x has numbers above 1e.150, whose products overflow",
        ),
        (lambda: jh.hinge(1e300), ValueError, "margin has numbers beyond the range of float32"),
        (lambda: jh.losses.hinge_loss(np.array([1.0, -1e39]), 1), ValueError, "scores has numbers beyond"),
        (lambda: jh.init_params(2, 10**200), ValueError, "num_classes must be at most 2147483647"),
        (lambda: jh.init_params(2, dtype=np.ones(2)), TypeError, "dtype must be a floating dtype"),
        (lambda: jh.make_train_step(optax.sgd(0.1))[0]((np.zeros(1), 0)), TypeError, "params must be floating"),
        (lambda: jh.solve(X, Y, l2=0.1, max_steps=2**63), ValueError, "max_steps must be at most"),
        (lambda: jh.solve(X, Y, l2=0.1, loss=np.array([])), ValueError, "loss must be"),
        (lambda: jh.solve(X, Y, l2=0.1, fit_intercept=pd.NA), ValueError, "fit_intercept must be"),
        (lambda: jh.solve(X, Y, l2=0.1, init=SOLUTION), TypeError, "init.dual must be real numbers"),
        (lambda: jh.solve(X, Y, l2=5e-324), ValueError, "l2 must be a number above 0"),
        (lambda: jh.sweep(X, Y, l2=[5e-324], folds=2), ValueError, "l2 must be above 0"),
        (lambda: jh.solve(X, Y, l2=0.1, init=SOLUTION._replace(params=1j)), TypeError, "init.params must be"),
        (lambda: jh.solve(X.astype(np.longdouble), Y, l2=0.1), TypeError, "x must be floats of 64 bits at most"),
        (lambda: jh.path(X, Y, l2=[1e235, 1.0]), ValueError, "l2 must be within the range of float32"),
        (lambda: jh.sweep(X, Y, l2=[1e235], folds=2), ValueError, "l2 must be within the range of float32"),
        (lambda: jh.sweep(X, Y, l2=[1.0], folds=2, select=np.array([])), ValueError, "select must be"),
        (lambda: jh.solve_multiclass(X, [0, 1, 2, 0], l2=1.0, loss=np.array([])), ValueError, "loss must be"),
        (lambda: jh.solve_multiclass(X, [0, 1, 2, 0], l2=1.0, max_steps=[3, 4]), TypeError, "max_steps must be"),
        (lambda: jh.fit(X, Y, l2=1e235), ValueError, "l2 must be within the range of float32"),
        (lambda: jh.fit(X, Y, l2=0.1, progress=pd.NA), TypeError, "progress must be True or False"),
        (lambda: jh.diagnose(len, (np.zeros(1), 0.0), X, Y, l2=...), TypeError, "l2 must be real numbers"),
    ],
)
def test_what_was_once_let_through_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_tiny_nu_claims_no_more_than_was_reached():
    x = np.array([[0.81], [0.67], [-0.25], [1.17], [1.04]])
    for nu in (1e-45, 1e-20, 1e-3):
        solution = jh.solve_one_class(x, nu=nu, as_numpy=True)
        within = solution.gap <= 1e-4 * max(abs(solution.primal_value), 1e-12)
        assert (solution.status == jh.Status.CONVERGED) == within


MASKED = np.ma.masked_array(X, mask=X == 2)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: jh.solve(MASKED, Y, l2=0.1), "x"),
        (lambda: jh.solve([(X, Y), (MASKED, Y)], l2=0.1), "x of block 1"),
        (lambda: jh.solve([(X, Y, np.ma.masked_equal(Y, 1))], l2=0.1), "sample_weight of block 0"),
        (lambda: jh.diagnose(len, (np.zeros(1), 0.0), MASKED, Y), "x"),
        (lambda: jh.diagnose(len, (np.zeros(1), 0.0), X, np.ma.masked_equal(Y, 1)), "y"),
        (lambda: HingeClassifier().fit(MASKED, Y), "X"),
        (lambda: HingeClassifierCV().fit(X, Y, np.ma.masked_equal(Y, 1)), "sample_weight"),
        (lambda: HingeClassifier().fit(X, Y).predict(MASKED), "X"),
        (lambda: HingeRegressor().fit(X, np.ma.masked_equal(Y, 1)), "y"),
        (lambda: HingeRegressor().fit(X, Y).predict(MASKED), "X"),
    ],
)
def test_masked_entries_are_never_taken_for_numbers(call, name):
    with pytest.raises(TypeError, match=rf"^{name} has masked entries.* {name.split()[0]}\.filled\(0\)"):
        call()


HOST_ONLY = {
    "fit": lambda: jh.fit(X, Y, l2=0.1).params,
    "sweep": lambda: jh.sweep(X, Y, l2=[0.1], folds=2).gap,
    "path": lambda: jh.path(X, Y, l2=[0.1]).gap,
    "diagnose": lambda: jh.diagnose(lambda w, b, x, y: (w, b), (np.zeros(1), 0.0), X, Y).ok,
    "diagnose_loss": lambda: jh.diagnose_loss(lambda w, b, x, y: 0.0, (np.zeros(1), 0.0), X, Y).ok,
}


@pytest.mark.parametrize("name", HOST_ONLY)
def test_what_works_on_the_host_says_so_inside_jit_whatever_it_is_given(name):
    with pytest.raises(TypeError, match=f"^{name} works on the host, but this is inside jit"):
        jax.jit(HOST_ONLY[name])()
