"""Strictness for every test: no silent broadcasting, no randomness without a seed, float64 by context only.

Warnings are errors (see pyproject.toml). The fixtures leave every global JAX flag as they found it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import hypothesis
import pytest

# Most of the time of the suite is compilation. What one worker has compiled, the others, the processes that tests start
# and the next run take from the disk. JAX reads these variables where it is imported.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Without most of LLVM's passes and with the older of XLA's emitters a solver compiles five times as fast, and its
# numbers differ in the last bits only. `test_as_users_compile.py` runs a sample with neither.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# A jaxlib that does not know a flag ends the process: later ones have dropped this one.
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import jax
import jax.monitoring

jax.config.update("jax_numpy_rank_promotion", "raise")

# Tests start dozens of processes. Where Python is told to keep no bytecode, each of them compiles the library's
# megabyte of source again, and each worker every test.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Tracing makes hundreds of thousands of small objects that live as long as a program does. By default Python looks for
# cycles among them after every 700, which is an eighth of the time of a test and more where many modules are loaded.
gc.set_threshold(20_000, 10, 10)

# A job in the background of a shell ignores Ctrl-C, and so would the tests of it and all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
    "deterministic", derandomize=True, database=None, deadline=None, max_examples=40, print_blob=True
)
hypothesis.settings.load_profile("deterministic")


# What starts processes that each import JAX anew, or compiles more than a little. By default these are left out: on a
# machine that compiles slowly the suite would take hours. `pytest -m slow` runs them.
SLOW = (
    "jaxhinge/",  # the examples in docstrings
    "test_rows_on_eight_devices",
    "test_a_sample_as_users_compile",
    "test_two_processes_do_the_work_of_one",
    "test_workers_give_the_same_bits",
    "test_kill_9",
    "test_every_check_of_scikit_learn_passes[HingeClassifierCV]",
    "test_hostile_input_gives_an_honest_result",
    "tests/test_experiments.py",
    "tests/test_flags.py",
    "tests/test_readme.py::test_block",
    "tests/_diagnose/test_stated.py::test_every_loss_of_linear_scores",
    "tests/_diagnose/test_user_loss.py::test_binary_losses",
    "tests/_methods/test_certificate.py",
    "tests/_methods/test_implicit",
    "tests/_methods/test_lowering.py",
    "tests/_methods/test_newton.py::test_the_same_problem",
    "tests/_objective/test_one_pass.py",
    "tests/_objective/test_sparse.py",
    "tests/_rows/test_stored.py::test_every_loss",
    "tests/_rows/test_stored.py::test_batches",
    "tests/_rows/test_stored.py::test_a_traced_gap",
    "tests/_solve/test_binary_traced.py",
    "tests/_solve/test_executors.py",
    "tests/_train/test_fit.py",
    "tests/_train/test_sparse.py",
    "test_losses.py::test_a_coordinate_without_difference",
    "test_losses.py::test_distance_0",
    "test_losses.py::test_dtype_is_kept",
    "test_losses.py::test_every_transformation",
    "test_losses.py::test_forward_mode",
    "test_losses.py::test_gradients_off_the_kink",
    "test_losses.py::test_infinite_and_huge_points",
    "test_losses.py::test_largest_coordinates",
    "test_losses.py::test_losses_are_convex",
    "test_losses.py::test_multilabel_targets_of_any_integer_dtype",
    "test_losses.py::test_new_options",
    "test_losses.py::test_second_derivative",
    "test_losses.py::test_strict_promotion",
    "test_losses.py::test_swap_takes",
    "test_losses.py::test_the_order_of_the_norm",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(name in item.nodeid for name in SLOW):
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the search for cycles need not walk over it each time."""
    gc.collect()
    gc.freeze()


_compiled: list[str] = []


def _note(event: str, _: float, **__: object) -> None:
    if event.endswith("backend_compile_duration"):
        _compiled.append(event)


jax.monitoring.register_event_duration_secs_listener(_note)


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """A thousand programs are dropped: they hold a gigabyte, and thousands exhaust the memory maps of a process."""
    yield
    if len(_compiled) > 1000:
        jax.clear_caches()
        gc.collect()  # much of what they held lies in cycles
        _compiled.clear()


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield


class _CompilationLog(logging.Handler):
    """Collects the names of the functions that XLA compiles."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"Finished XLA compilation of (\S+)", record.getMessage())
        if found:
            self.names.append(found.group(1))


@contextlib.contextmanager
def _compilations() -> Iterator[list[str]]:
    names: list[str] = []
    handler, logger = _CompilationLog(names), logging.getLogger("jax")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            yield names
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@pytest.fixture
def compilations() -> Callable[[], contextlib.AbstractContextManager[list[str]]]:
    """`with compilations() as names:` lists what was compiled inside, so a test can say that nothing was."""
    return _compilations
