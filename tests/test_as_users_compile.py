"""A sample of the suite as users compile: `conftest.py` has everything else compiled quickly, not well."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
# Slopes to the bit, alone and in every nesting, and a solver.
SAMPLE = [
    "losses/test_kink.py::test_slope_is_exact_off_and_on_the_kink",
    "losses/test_kink.py::test_the_slope_survives_every_transformation",
    "losses/test_kink.py::test_ties_share_as_asked",
    "_methods/test_host.py::test_both_executors_reach_the_same_optimum[hinge-True-80-3]",
]


def test_a_sample_as_users_compile():
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", ""]
    command += [str(TESTS / path) for path in SAMPLE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout
