"""Training and a certified solve on several processes, each of which reads its own part of a file and nothing else.

Without `--process` this makes the file, starts the processes on this machine, and starts them again where one of them
has died; with it, it is one of them. On several machines start it once on each, with the address of the first:

    python experiments/multihost.py --processes 2                                           # all on this machine
    python experiments/multihost.py --processes 2 --fault kill --at 100                     # one dies, all go on
    python experiments/multihost.py --processes 2 --process 0 --coordinator 10.0.0.1:1234   # on the first machine
    python experiments/multihost.py --processes 2 --process 1 --coordinator 10.0.0.1:1234   # on the second

`--work` is a directory that all of them see, for the checkpoints and the result; the file may be another one on each
machine (`--data`), for no process touches rows that are not its own. What travels between processes are sums over
rows, by JAX's own collectives (Gloo on CPUs). A process that dies, or falls silent, makes the others stop with an error
within `STOPS_WITHIN` seconds; a run that is started again goes on from its last checkpoint, to the same bits.

Needs `pip install -e ".[checkpoint]"`.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

# A closed connection is noticed at once, a silent process when it has missed its heartbeats for so many seconds.
HEARTBEAT, STOPS_WITHIN = 10, 30
# Every batch has as many rows of each part of the file, so that the number of devices, which divides that of the parts,
# changes nothing but the order of sums.
PARTS, BATCH = 8, 256
L2, NUM_FEATURES = 1e-3, 20
FAULTS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--devices", type=int, default=1, help="of each process, on CPUs (default: 1)")
    parser.add_argument("--rows", type=int, default=20_000, help="in the file that is made (default: 20,000)")
    parser.add_argument("--steps", type=int, default=200, help="of the optimizer (default: 200)")
    parser.add_argument("--save-every", type=int, default=20, help="steps (default: 20)")
    parser.add_argument("--tasks", nargs="+", default=["train", "solve"], choices=["train", "solve"])
    parser.add_argument("--work", type=Path, help="directory (default: a temporary one)")
    parser.add_argument("--data", type=Path, help="directory of the file (default: that of --work)")
    parser.add_argument("--process", type=int, help="the number of this process")
    parser.add_argument("--coordinator", help="address and port of process 0")
    parser.add_argument("--fault", choices=FAULTS, help="what befalls a process, once")
    parser.add_argument("--victim", type=int, default=1, help="the number of that process (default: 1)")
    parser.add_argument("--at", type=int, default=0, help="when there is a checkpoint of this step (default: 0)")
    options = parser.parse_args()
    if options.processes * options.devices not in (1, 2, 4, 8):
        parser.error(f"{PARTS} parts of the file are for 1, 2, 4 or 8 devices.")
    if options.process is not None:
        take_part(options)
        return
    with tempfile.TemporaryDirectory() as directory:
        options.work = options.work or Path(directory)
        options.work.mkdir(parents=True, exist_ok=True)
        make_file(options.work, options.rows)
        if not run_once(options):
            print("starting again from the last checkpoint", flush=True)
            options.fault = None
            if not run_once(options):
                raise SystemExit("Given up.")


# ---- the launcher


def run_once(options: argparse.Namespace) -> bool:
    """Start all processes. Whether they ended well: where one does not, see that the others stop, too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    children = [subprocess.Popen(command(options, number, address)) for number in range(options.processes)]
    victim, began = (children[options.victim] if options.fault else None), 0.0
    try:
        while not all(child.poll() == 0 for child in children):
            if victim and not began and saved(options.work) >= options.at:
                victim.send_signal(FAULTS[options.fault])
                began = time.perf_counter()
            if any(child.poll() for child in children) or (began and time.perf_counter() - began > STOPS_WITHIN):
                report_stop([child for child in children if child is not victim], began or time.perf_counter())
                return False
            time.sleep(0.01)
        return True
    finally:
        for child in children:
            child.kill()
            child.wait()


def report_stop(children: list[subprocess.Popen[bytes]], began: float) -> None:
    """Say when each ended after the fault."""
    left = set(children)
    while left:
        waited = time.perf_counter() - began
        for child in [child for child in left if child.poll() is not None]:
            print(f"a process stopped {waited:.1f} s after the fault, exit code {child.returncode}", flush=True)
            left.remove(child)
        if waited > STOPS_WITHIN:
            raise SystemExit(f"{len(left)} processes go on {waited:.0f} s after another has died.")
        time.sleep(0.01)


def command(options: argparse.Namespace, number: int, address: str) -> list[str]:
    names = ("processes", "devices", "steps", "save_every", "work")
    given = [part for name in names for part in (f"--{name.replace('_', '-')}", str(getattr(options, name)))]
    given += ["--tasks", *options.tasks, "--process", str(number), "--coordinator", address]
    return [sys.executable, __file__, *given]


def saved(work: Path) -> int:
    """The last step that is safe on disk."""
    return max((int(path.name) for path in (work / "checkpoints").glob("*") if path.name.isdecimal()), default=-1)


def make_file(directory: Path, rows: int) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, NUM_FEATURES)).astype(np.float32)
    y = np.where(x @ random.normal(size=NUM_FEATURES) + 2 * random.normal(size=rows) > 0, 1, -1).astype(np.int8)
    np.save(directory / "x.npy", x)
    np.save(directory / "y.npy", y)


# ---- one process


def take_part(options: argparse.Namespace) -> None:
    """Join the others, and work; any error ends this process at once, for the others to notice."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={options.devices}"
    import jax

    try:
        if options.processes > 1:
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            jax.distributed.initialize(
                options.coordinator,
                options.processes,
                options.process,
                initialization_timeout=60,
                heartbeat_timeout_seconds=HEARTBEAT,
                shutdown_timeout_seconds=HEARTBEAT,
                coordinator_bind_address=options.coordinator,
            )
        work(options)
    except BaseException:
        # Leaving in good order would wait for the process that died.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


class File:
    """The rows that belong to this process: those of some neighbouring parts of the file."""

    def __init__(self, directory: Path, process: int, processes: int) -> None:
        self.x = np.load(directory / "x.npy", mmap_mode="r", allow_pickle=False)
        self.y = np.load(directory / "y.npy", mmap_mode="r", allow_pickle=False)
        each = PARTS // processes
        self.own = range(process * each, (process + 1) * each)
        self.bounds = [len(self.x) * part // PARTS for part in range(PARTS + 1)]

    def all_rows(self) -> tuple[Any, Any]:
        """Every row of this process."""
        rows = slice(self.bounds[self.own.start], self.bounds[self.own.stop])
        return self.x[rows], self.y[rows]

    def batch(self, step: int) -> tuple[Any, Any]:
        """The share of the batch numbered `step`, which depends on that number only: a run can begin at any."""
        epoch, place = divmod(step, len(self.x) // PARTS * PARTS // BATCH)
        size = BATCH // PARTS
        rows = []
        for part in self.own:
            order = shuffled(epoch, part, self.bounds[part + 1] - self.bounds[part])
            rows.append(self.bounds[part] + order[place * size : (place + 1) * size])
        numbers = np.concatenate(rows)
        return self.x[numbers], self.y[numbers]


@functools.lru_cache(maxsize=PARTS)
def shuffled(epoch: int, part: int, size: int) -> Any:
    return np.random.default_rng([epoch, part]).permutation(size)


def work(options: argparse.Namespace) -> None:
    import jax

    import jaxhinge

    file = File(options.data or options.work, jax.process_index(), jax.process_count())
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    found: dict[str, Any] = {}
    if "train" in options.tasks:
        params = train(options, file, mesh).params
        found |= {"trained_w": params.w, "trained_b": params.b}
    if "solve" in options.tasks:
        rows = jaxhinge.shard_rows(mesh, *file.all_rows())
        solution = jaxhinge.solve(rows.x, rows.y, l2=L2, sample_weight=rows.sample_weight, tol=1e-6)
        found |= {"w": solution.params.w, "b": solution.params.b}
        found |= {"primal_value": solution.primal_value, "gap": solution.gap}
    if jax.process_index() == 0:
        found = {name: np.asarray(value) for name, value in found.items()}
        np.savez(options.work / "result.npz", **found)
        print(f"{jax.process_count()} processes, {jax.device_count()} devices: done", flush=True)
        if "solve" in options.tasks:
            print(f"objective {found['primal_value']:.8f}, certified gap {found['gap']:.1e}", flush=True)


def train(options: argparse.Namespace, file: File, mesh: Any) -> Any:
    """All steps, from the last checkpoint on."""
    import jax
    import optax
    from jax.sharding import NamedSharding, PartitionSpec

    import jaxhinge

    rows, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    init, step = jaxhinge.make_train_step(optax.adam(1e-2))
    state = jax.device_put(init(jaxhinge.init_params(NUM_FEATURES)), whole)
    compiled = jax.jit(step, donate_argnums=0, out_shardings=whole)
    checkpoints = jaxhinge.Checkpoints(options.work / "checkpoints")
    settings = {"l2": L2, "batch": BATCH, "parts": PARTS, "rows": len(file.x)}
    first, state = checkpoints.latest(like=state, settings=settings) or (0, state)
    if first and jax.process_index() == 0:
        print(f"going on from step {first}", flush=True)
    for number in range(first, options.steps):
        x, y = (jax.make_array_from_process_local_data(rows, own) for own in file.batch(number))
        state, _ = compiled(state, x, y, l2=L2)
        if (number + 1) % options.save_every == 0:
            checkpoints.save(number + 1, state, settings)
    return state


if __name__ == "__main__":
    main()
