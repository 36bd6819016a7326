"""The gradient doctor on what people really wrote, on two kinds of data."""

import pytest
from helpers.doctor_cases import CASES, problems
from helpers.student_gradients import STUDENTS
from helpers.wild_gradients import WILD

import jaxhinge as jh

EVERY = CASES + WILD + STUDENTS


@pytest.mark.parametrize("data", [0, 1], ids=["gaussian", "integers"])
@pytest.mark.parametrize("one", EVERY, ids=[one.name for one in EVERY])
def test_the_cause_is_the_one_a_reader_would_name(one, data):
    diagnose = jh.diagnose_loss if one.is_loss else jh.diagnose
    diagnosis = diagnose(one.function, *problems(one)[data], **one.options)
    assert diagnosis.cause == one.cause
