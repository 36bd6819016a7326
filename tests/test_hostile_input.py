"""A small part of the campaign of `experiments/hostile_input.py`: what is cheap to call, from one seed."""

import sys
from pathlib import Path

import numpy as np
import pytest

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
    outcomes = hostile_input.campaign(12, 1, [function])
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
