"""Strictness for every test: no silent broadcasting, no randomness without a seed, float64 by context only.

Warnings are errors (see pyproject.toml). The fixtures leave every global JAX flag as they found it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
# Workers, and the next run, take what one has compiled: most of the time of the suite is compilation.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# A job in the background of a shell ignores Ctrl-C, and so would the tests of it and all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
    "deterministic", derandomize=True, database=None, deadline=None, max_examples=40, print_blob=True
)
hypothesis.settings.load_profile("deterministic")


@pytest.fixture(autouse=True, scope="module")
def forgetful() -> Iterator[None]:
    """What a module compiled is dropped after it: thousands of programs exhaust the memory maps of a process."""
    yield
    jax.clear_caches()


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
