"""Hostile input for every public function: wrong shapes, dtypes, containers and numbers, from a fixed seed.

    python experiments/hostile_input.py [--cases 10000] [--seed 0] [--only solve,sweep]

Each call must give a result that keeps its contract, or raise a ValueError or TypeError that names an argument. It may
not raise anything else, warn, hang, give NaN without saying so, or change what it was given. Prints a table by function
and the failures, each with the seed that makes it again.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _hostile_functions import FUNCTIONS, Function
from _hostile_values import Rng, contained, dense, fingerprint, spoilt

PACKAGE = str(Path(sys.modules["jaxhinge"].__file__ or "").parent)
SECONDS = 30


class HangError(BaseException):
    """A call took longer than a case may; not an Exception, so that nothing swallows it."""


def plain(value: Any) -> Any:
    """Sparse made dense, and in the byte order of the machine: JAX, which checks the contracts, takes no other."""
    value = dense(value)
    return value.astype(value.dtype.newbyteorder("=")) if isinstance(value, np.ndarray) else value


class Outcome(NamedTuple):
    """`kind` is "result", "refusal" or "failure"; `detail` says which, `arguments` what was passed."""

    function: str
    kind: str
    detail: str
    arguments: dict[str, Any]


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise HangError(f"longer than {seconds} s")

    # Of the processor's time, so that a machine that is busy or asleep counts for nothing; and of the clock's, in case
    # the call waits for something.
    timers = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, 10 * seconds))
    previous = [signal.signal(number, ring) for _, number, _ in timers]
    for timer, _, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(timers, previous, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def arguments_of(function: Function, rng: Rng) -> dict[str, Any]:
    """Arguments in order, then none, one or several of them spoilt; any array in another container."""
    arguments = function.draw(rng)
    if function.name in ("load", "solve under jit"):
        return arguments
    names = list(arguments)
    hostility = rng.random()
    chosen: list[str] = []
    if hostility > 0.85:
        chosen = [name for name in names if rng.random() < 0.4]
    elif hostility > 0.25:
        chosen = [names[rng.integers(len(names))]]
    for name in names:
        if name in chosen:
            arguments[name] = spoilt(rng, arguments[name])
        elif isinstance(arguments[name], np.ndarray) and rng.random() < 0.3:
            arguments[name] = contained(rng, arguments[name])
    return arguments


def frames_of(error: BaseException) -> tuple[list[str], int]:
    """The files that an error came through, and the place of the last that is the package's, or this campaign's."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = (PACKAGE, str(Path(__file__).parent))
    return frames, max(place for place, frame in enumerate(frames) if frame.startswith(own))


def is_trusted(function: Function, error: BaseException) -> bool:
    """Whether an error is passed on from a package that may refuse in its own words."""
    frames, ours = frames_of(error)
    return any(f"/site-packages/{package}/" in frame for package in function.trusted for frame in frames[ours:])


def refusal_complaint(function: Function, arguments: dict[str, Any], error: Exception) -> str:
    """What is wrong with the way a call was refused, or nothing."""
    frames, ours = frames_of(error)
    words = set(re.findall(r"\w[\w.]*", str(error)))
    words |= {word.partition(".")[0] for word in words}  # init.params.b is of init
    if not words & {*arguments, *function.names, *(f"{name}." for name in arguments)}:
        return f"{type(error).__name__} names no argument: {error}"
    # Python itself refuses a wrong number of arguments, or unknown ones.
    if ours < len(frames) - 1:
        return f"{type(error).__name__} comes from {frames[-1]}: {error}"
    return ""


def run_case(function: Function, seed: tuple[int, ...]) -> Outcome:
    """One call, judged."""
    rng = np.random.default_rng(seed)
    wide = rng.random() < 0.08 and function.name != "solve under jit"
    with warnings.catch_warnings():
        # NumPy warns of some containers when they are made.
        warnings.simplefilter("ignore")
        arguments = arguments_of(function, rng)
    before = fingerprint(arguments)

    def outcome(kind: str, detail: str = "") -> Outcome:
        return Outcome(function.name, kind, detail, arguments)

    with warnings.catch_warnings(), jax.enable_x64(wide):
        warnings.simplefilter("error")
        try:
            with time_limit(SECONDS):
                result = jax.block_until_ready(function.call(**arguments))
        except (Exception, HangError) as error:
            complaint = f"{type(error).__name__}: {error}"
            if isinstance(error, (ValueError, TypeError)):
                complaint = refusal_complaint(function, arguments, error)
            if complaint and not is_trusted(function, error):
                return outcome("failure", complaint + "\n" + short_trace(error))
            result = None
            kind, detail = "refusal", str(error)
        else:
            kind, detail = "result", ""
        warnings.simplefilter("ignore")
        if fingerprint(arguments) != before:
            return outcome("failure", "an argument was changed")
        if kind == "result":
            with np.errstate(all="ignore"):
                try:
                    complaint = function.check({k: plain(v) for k, v in arguments.items()}, result)
                except Exception as error:
                    complaint = f"the contract cannot be checked: {type(error).__name__}: {error}\n{short_trace(error)}"
            if complaint:
                return outcome("failure", complaint)
    return outcome(kind, detail)


def short_trace(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(PACKAGE)]
    return "\n".join(f"    {Path(frame.filename).name}:{frame.lineno} {frame.line}" for frame in frames[-3:])


def campaign(cases: int, seed: int, functions: list[Function], report: Any = None) -> list[Outcome]:
    """Outcomes of all cases, the functions called in the proportions of their shares."""
    shares = np.array([function.share for function in functions])
    counts = np.maximum(1, np.round(cases * shares / shares.sum())).astype(int)
    found = []
    for function, count in zip(functions, counts, strict=True):
        start = time.monotonic()
        place = [known.name for known in FUNCTIONS].index(function.name)
        own = [run_case(function, (seed, place, number)) for number in range(count)]
        found += own
        if report is not None:
            report(function, own, time.monotonic() - start)
    return found


def report_line(function: Function, own: list[Outcome], seconds: float) -> None:
    kinds = Counter(outcome.kind for outcome in own)
    counts = f"{kinds['result']:8} {kinds['refusal']:9} {kinds['failure']:9}"
    print(f"{function.name:45} {len(own):6} {counts} {seconds:7.1f} s", flush=True)
    sorts = {outcome.detail[:50]: outcome.detail for outcome in own if outcome.kind == "failure"}
    for detail in sorts.values():
        print("    " + detail.replace("\n", "\n    ")[:700], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names of functions, with commas between")
    parser.add_argument("--show", type=int, default=1, help="how many failures to print in full")
    options = parser.parse_args()
    jax.config.update("jax_traceback_filtering", "off")
    wanted = [f for f in FUNCTIONS if not options.only or f.name in options.only.split(",")]
    print(f"{'function':45} {'cases':>6} {'results':>8} {'refusals':>9} {'failures':>9} {'time':>9}")
    outcomes = campaign(options.cases, options.seed, wanted, report_line)
    kinds = Counter(outcome.kind for outcome in outcomes)
    print(f"{'all':45} {len(outcomes):6} {kinds['result']:8} {kinds['refusal']:9} {kinds['failure']:9}")
    failures = [outcome for outcome in outcomes if outcome.kind == "failure"]
    # One of each sort.
    sorts = {(failure.function, failure.detail[:50]): failure for failure in reversed(failures)}
    for failure in list(reversed(sorts.values()))[: options.show]:
        print(f"\n{failure.function}: {failure.detail}")
        for name, value in failure.arguments.items():
            print(f"  {name} = {type(value).__name__} {getattr(value, 'dtype', '')} {value!r}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
