"""Checkpoints of a run: a pytree of arrays with the settings that it belongs to, written whole or not at all.

The arrays are written by orbax (atomically: into a temporary directory that is renamed), beside a header of JSON with
the settings, the name, shape and dtype of each array, and the SHA-256 of all. Arrays that one process holds whole are
packed into the bytes of a single array: of several, a damaged one would make orbax abandon the reads of the others,
which then print errors of their own. No part is pickled, so reading a checkpoint runs no code from it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import check_number, host_integer

State = TypeVar("State")

_FORMAT, _VERSION = "jaxhinge.checkpoint", 1
_DAMAGED = ".damaged"
_SHOWN = 120  # characters of a setting that an error message shows


class _BadCheckpointError(ValueError):
    """A checkpoint that cannot be read, as opposed to one that belongs to another run."""


@dataclass(frozen=True)
class Checkpoints:
    """Where the checkpoints of a run are kept, and how. Host only; needs `pip install jaxhinge[checkpoint]`.

    `fit(..., checkpoint=Checkpoints(directory))` saves as it goes and, called again with the same arguments, goes on
    from the last checkpoint to the same bits as a run that was never stopped. A loop of your own calls `save` and
    `latest`. Where several processes run together, all of them call both, on a directory that all of them see.

    Args:
      directory: Created where it does not exist. Each run needs one of its own.
      keep: How many of the last checkpoints are kept, at least 1.
      every_seconds: The shortest time between two saves of `fit`; 0 saves after every epoch. The end is always saved.
      damaged: What to do about a checkpoint that is truncated, corrupted or not of this package: "refuse" raises
        ValueError, "skip" warns, renames it to `<step>.damaged` and goes back to the one before.

    Raises:
      ValueError: An option is out of its range.
      ImportError: orbax-checkpoint is not installed.

    >>> import tempfile, jax, jax.numpy as jnp, jaxhinge, optax
    >>> init, step = jaxhinge.make_train_step(optax.adam(0.1))
    >>> x, y = jnp.array([[2.0], [-1.0]]), jnp.array([1, -1])
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     checkpoints = jaxhinge.Checkpoints(directory)
    ...     state, _ = step(init(jaxhinge.init_params(1)), x, y, l2=0.1)
    ...     checkpoints.save(1, state, {"l2": 0.1})
    ...     number, again = checkpoints.latest(like=state, settings={"l2": 0.1})
    >>> number, bool(again.params.w == state.params.w)
    (1, True)
    """

    directory: str | os.PathLike[str]
    keep: int = 3
    every_seconds: float = 10.0
    damaged: Literal["refuse", "skip"] = "refuse"

    def __post_init__(self) -> None:
        host_integer("keep", self.keep, at_least=1)
        check_number(
            "every_seconds", self.every_seconds, meaning="a number of seconds, at least 0", valid=lambda s: s >= 0
        )
        if self.damaged not in ("refuse", "skip"):
            raise ValueError(f'damaged must be "refuse" or "skip"; got {self.damaged!r}.')
        if Path(self.directory).exists() and not Path(self.directory).is_dir():
            raise ValueError(f"{self.directory} is not a directory, but checkpoints need one of their own.")
        _orbax()

    def save(self, step: int, state: Any, settings: Mapping[str, Any] | None = None) -> None:
        """Write `state` as the checkpoint numbered `step`, whole or not at all, and drop the oldest beyond `keep`.

        Args:
          step: A number larger than that of every checkpoint before, at least 0.
          state: Any pytree of arrays and PRNG keys. An array of which several processes hold parts is written
            by all of them, without a digest; one that each of them holds whole is like any other.
          settings: What the run depends on: strings, numbers, booleans or None by name.

        Raises:
          ValueError: There is a checkpoint of this number or a larger one.
          TypeError: A leaf is not an array.
        """
        step = host_integer("step", step, at_least=0)
        leaves = _leaves(state)
        packed = _packed(leaves)
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "settings": _plain_settings(settings),
            "leaves": [{"name": name, **_kind(leaf)} for name, leaf in leaves.items()],
            "sha256": hashlib.sha256(packed.tobytes()).hexdigest(),
        }
        arrays = {"packed": packed, **{place: _plain(leaf) for place, leaf in _sharded_leaves(leaves).items()}}
        ocp = _orbax()
        with self._manager() as manager:
            newest = manager.latest_step()
            if newest is not None and newest >= step:
                raise ValueError(
                    f"{self.directory} has checkpoint {newest} already, so {step} cannot be saved. "
                    "Go on from `latest`, or choose another directory."
                )
            items = {"header": ocp.args.JsonSave(header), "state": ocp.args.StandardSave(arrays)}
            manager.save(step, args=ocp.args.Composite(**items))

    def latest(self, like: State, settings: Mapping[str, Any] | None = None) -> tuple[int, State] | None:
        """The number and the state of the last checkpoint, or None where there is none.

        Args:
          like: A state of the same structure. Where it holds arrays or `ShapeDtypeStruct` with a sharding, the
            checkpoint is laid out like them; a `ShapeDtypeStruct` without gives NumPy arrays.
          settings: Must equal those of the checkpoint.

        Raises:
          ValueError: The settings or the structure are not those of the checkpoint (all differences are listed); it
            was written by a newer version; it is damaged or foreign and `damaged` is "refuse", or no good one is left.
        """
        if not Path(self.directory).is_dir():
            return None
        with self._manager() as manager:
            steps = sorted(manager.all_steps(), reverse=True)
            bad: list[int] = []
            for step in steps:
                try:
                    state = _restore(manager, self._path(step), step, like, _plain_settings(settings))
                except _BadCheckpointError as error:
                    if self.damaged == "refuse":
                        raise ValueError(f'{error} Go back to the one before with damaged="skip".') from error
                    warnings.warn(f"Skipped: {error}", stacklevel=2)
                    bad.append(step)
                else:
                    self._set_aside(bad)
                    return step, state
        if bad:
            raise ValueError(f"No good checkpoint is left in {self.directory}: {bad} are damaged. Choose another one.")
        return None

    def _path(self, step: int) -> Path:
        return Path(self.directory).absolute() / str(step)

    def _set_aside(self, steps: list[int]) -> None:
        if jax.process_index() == 0:
            for step in steps:
                self._path(step).rename(f"{self._path(step)}{_DAMAGED}")

    def _manager(self) -> Any:
        ocp = _orbax()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self.keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        return ocp.CheckpointManager(Path(self.directory).absolute(), options=options)


def _orbax() -> Any:
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise ImportError("Checkpoints need orbax-checkpoint: pip install jaxhinge[checkpoint]") from error
    return orbax.checkpoint


def _restore(manager: Any, path: Path, step: int, like: Any, settings: dict[str, Any]) -> Any:
    ocp = _orbax()
    header = _read(path, lambda: manager.restore(step, args=ocp.args.Composite(header=ocp.args.JsonRestore())).header)
    _check_header(path, header)
    expected = _leaves(like)
    _check_same(path, header, expected, settings)
    packed = _packed({name: _blank(leaf) for name, leaf in expected.items()})
    wanted = {"packed": packed, **{place: _plain_shape(leaf) for place, leaf in _sharded_leaves(expected).items()}}
    arrays = _read(path, lambda: manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted))))
    if hashlib.sha256(arrays.state["packed"].tobytes()).hexdigest() != header["sha256"]:
        raise _BadCheckpointError(f"{path} is corrupted: its arrays are not what was written.")
    return jax.tree.unflatten(jax.tree.structure(like), _unpacked(arrays.state, expected))


def _read(path: Path, read: Any) -> Any:
    try:
        return read()
    except Exception as error:  # orbax and tensorstore raise many kinds of error on damaged files
        reason = " ".join(str(error).split())[:200]
        raise _BadCheckpointError(
            f"{path} is truncated, corrupted or not a checkpoint of jaxhinge ({type(error).__name__}: {reason})."
        ) from error


def _check_header(path: Path, header: Any) -> None:
    """Refuse a header that is not of this package, of a newer version, or incomplete."""
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise _BadCheckpointError(f"{path} is not a checkpoint of jaxhinge: its header does not say {_FORMAT!r}.")
    version = header.get("version")
    if isinstance(version, int) and version > _VERSION:
        raise ValueError(f"{path} has format version {version}, but this jaxhinge reads up to {_VERSION}: update it.")
    entries: Any = header.get("leaves")
    sound = version == _VERSION and isinstance(header.get("settings"), dict) and isinstance(entries, list)
    sound = sound and isinstance(header.get("sha256"), str)
    if not sound or not all(isinstance(e, dict) and e.keys() == {"name", "shape", "dtype"} for e in entries):
        raise _BadCheckpointError(f"{path} is corrupted: its header is not complete.")


def _check_same(path: Path, header: dict[str, Any], expected: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuse a checkpoint of another run, with a list of the settings, or else the arrays, that differ."""
    there: dict[str, Any] = {entry["name"]: (entry["shape"], entry["dtype"]) for entry in header["leaves"]}
    here = {name: tuple(_kind(leaf).values()) for name, leaf in expected.items()}
    # Arrays are listed only where all settings agree: other settings often explain other arrays.
    differences = _differences(header["settings"], settings) or _differences(there, here)
    if differences:
        raise ValueError(
            f"The checkpoint {path} belongs to another run:\n" + "\n".join(differences) + "\n"
            "Go on with the settings it was made with, or choose another directory."
        )


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    names = [*here, *(name for name in there if name not in here)]
    pairs = [(name, str(there.get(name, "nothing")), str(here.get(name, "nothing"))) for name in names]
    return [f"  {name}: {_around(old, new)} there, {_around(new, old)} here" for name, old, new in pairs if old != new]


def _around(text: str, other: str) -> str:
    """A text, or the part of a long one where it begins to differ from another."""
    if len(text) <= _SHOWN:
        return text
    common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False)))
    begin = max(0, common - _SHOWN // 2)
    return f"{'...' if begin else ''}{text[begin : begin + _SHOWN]}{'...' if begin + _SHOWN < len(text) else ''}"


def _leaves(state: Any) -> dict[str, Any]:
    """The leaves by their names, NumPy arrays for plain numbers."""
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path).lstrip(".") or "state"
        if not hasattr(leaf, "dtype"):
            if not isinstance(leaf, (bool, int, float)):
                raise TypeError(f"{name} must be an array or a number to be kept; got {type(leaf).__name__}.")
            leaf = np.asarray(leaf)
        found[name] = leaf
    return found


def _plain_settings(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings as they come back from JSON."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(settings or {})))
    except (TypeError, ValueError) as error:
        raise TypeError(f"settings must be strings, numbers, booleans or None by name: {error}") from error
    return plain


def _kind(leaf: Any) -> dict[str, Any]:
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def _is_key(leaf: Any) -> bool:
    return bool(jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _is_sharded(leaf: Any) -> bool:
    """Whether the leaf is laid out over several processes, each of which holds a part of it."""
    sharding = getattr(leaf, "sharding", None)
    return sharding is not None and not (sharding.is_fully_addressable or sharding.is_fully_replicated)


def _sharded_leaves(leaves: dict[str, Any]) -> dict[str, Any]:
    return {str(place): leaf for place, leaf in enumerate(leaves.values()) if _is_sharded(leaf)}


def _plain(leaf: Any) -> Any:
    """The leaf as an array of numbers."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _plain_shape(leaf: Any) -> jax.ShapeDtypeStruct:
    plain = jax.eval_shape(_plain, leaf)
    return jax.ShapeDtypeStruct(plain.shape, plain.dtype, sharding=leaf.sharding)  # type: ignore[no-untyped-call]


def _packed(leaves: dict[str, Any]) -> NDArray:
    """The bytes of all leaves that are not sharded, after one zero byte: orbax writes no empty array."""
    arrays = [np.ascontiguousarray(_plain(leaf)) for leaf in leaves.values() if not _is_sharded(leaf)]
    return np.concatenate([np.zeros(1, np.uint8), *(array.reshape(-1).view(np.uint8) for array in arrays)])


def _blank(leaf: Any) -> Any:
    """Zeros of the shape of a leaf, which may be a `ShapeDtypeStruct`; a sharded leaf is returned as it is."""
    if _is_sharded(leaf):
        return leaf
    plain = jax.eval_shape(_plain, leaf) if _is_key(leaf) else leaf
    return np.zeros(plain.shape, plain.dtype)


def _unpacked(arrays: dict[str, Any], expected: dict[str, Any]) -> Iterator[Any]:
    """The leaves, in the dtypes of `expected` and on its devices; PRNG keys are wrapped again."""
    rest = arrays["packed"][1:]
    for place, leaf in enumerate(expected.values()):
        if _is_sharded(leaf):
            array = arrays[str(place)]
        else:
            blank = _blank(leaf)
            taken, rest = rest[: blank.nbytes], rest[blank.nbytes :]
            array = np.frombuffer(taken.tobytes(), blank.dtype).reshape(blank.shape)
        if _is_key(leaf):
            array = jax.random.wrap_key_data(array, impl=_impl(leaf))
        sharding = getattr(leaf, "sharding", None)
        yield array if sharding is None or _is_sharded(leaf) else jax.device_put(array, sharding)


def _impl(leaf: Any) -> Any:
    """The implementation of a key. `key_impl` knows that of a `ShapeDtypeStruct` only inside a trace."""
    found: list[Any] = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), leaf)
    return found[0]
