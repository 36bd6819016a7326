"""A model in a file: plain arrays in an uncompressed `.npz`, read without trusting any of it."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._objective.objective import LinearParams

_FORMAT, _VERSION = "jaxhinge.model", 1
_OWN = ("format", "version", "w", "b", "dtype")
_KINDS = "biufU"  # NumPy's letters for booleans, integers, floats and strings: the dtypes that are stored
_MAX_HEADER = 10_000  # bytes of the header of an array; NumPy refuses to parse a longer one


def save(path: str | os.PathLike[str], params: tuple[Any, Any], **extras: Any) -> None:
    """Write a model as plain arrays in one `.npz` file, whole or not at all. Host only.

    Any NumPy reads the file: `numpy.load(path, allow_pickle=False)["w"]`.

    Args:
      path: The file, by convention `.npz`. An existing file is replaced.
      params: `LinearParams` or any pair `(w, b)`: `w` `(d,)` and `b` `()`, or `(d, k)` and `(k,)`.
      **extras: What else belongs to the model, by name: the classes, the means and scales of the features, ... Numbers,
        booleans, strings, or arrays of them.

    Raises:
      TypeError: Something is not made of numbers, booleans or strings.
      ValueError: Shapes do not fit, or an extra takes a name of the format's own.

    >>> import tempfile, jaxhinge, numpy as np
    >>> params = jaxhinge.LinearParams(np.array([1.0, -2.0]), np.array(0.5))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     jaxhinge.save(f"{directory}/model.npz", params, classes=["ham", "spam"])
    ...     params, extras = jaxhinge.load(f"{directory}/model.npz")
    >>> print(params.w, extras["classes"])
    [ 1. -2.] ['ham' 'spam']
    """
    if not isinstance(params, (tuple, list)) or len(params) != 2:
        raise TypeError(f"params must be LinearParams or a 2-tuple (w, b); got {type(params).__name__}.")
    taken = [name for name in extras if name in _OWN]
    if taken:
        raise ValueError(f"{taken[0]} is a name of the format's own; call the extra otherwise.")
    w, b = _pair(*params)
    dtype = str(w.dtype)
    # The `.npy` format has no bfloat16 and no narrower float; float32 holds their numbers exactly.
    w, b = (leaf.astype(np.float32) if leaf.dtype.kind == "V" else leaf for leaf in (w, b))
    own = {"format": _FORMAT, "version": _VERSION, "w": w, "b": b, "dtype": dtype}
    arrays = {name: _plain(name, value) for name, value in {**own, **extras}.items()}
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            _write(file, arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> tuple[LinearParams, dict[str, NDArray]]:
    """Read a model that `save` wrote. The file may be untrusted: no code in it is run. Host only.

    Args:
      path: The file.

    Returns:
      `(params, extras)`: `LinearParams` of NumPy arrays in the dtype that was saved, and the extras by name.

    Raises:
      ValueError: The file is truncated, damaged or not a model of jaxhinge, or of a newer format version.
      OSError: It cannot be opened.

    >>> import tempfile, jaxhinge, numpy as np
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     jaxhinge.save(f"{directory}/model.npz", (np.ones(3), np.float64(0)))
    ...     params, extras = jaxhinge.load(f"{directory}/model.npz")
    >>> print(jaxhinge.predict(params, np.eye(3)), extras)
    [1 1 1] {}
    """
    with open(path, "rb") as file:
        try:
            arrays = _read(file)
        except _NotAModelError as error:
            raise ValueError(f"{path} is not a model of jaxhinge: {error}") from error
        except Exception as error:  # zipfile and NumPy raise a dozen kinds of error on damaged files
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} is truncated or damaged ({type(error).__name__}: {reason}).") from error
    try:
        return _model(arrays)
    except _NotAModelError as error:
        raise ValueError(f"{path} is not a model of jaxhinge that can be read: {error}") from error


class _NotAModelError(ValueError):
    """The contents of a file are not those of a model; the message says why."""


def _write(file: Any, arrays: dict[str, NDArray]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, version=(1, 0), allow_pickle=False)


def _read(file: Any) -> dict[str, NDArray]:
    """The arrays of an `.npz`. Each claim of the file is checked before it is used."""
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(set(names)) < len(names) or not all(name.endswith(".npy") for name in names):
            raise _NotAModelError("its entries are not arrays of different names.")
        # Else a small file could fill the memory: with compressed zeros, or entries that share their bytes.
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > size:
            raise _NotAModelError("its entries are compressed, or overlap. Save without compression.")
        return {entry.filename[: -len(".npy")]: _array(archive.read(entry)) for entry in entries}


def _array(data: bytes) -> NDArray:
    """The array of an `.npy`, whose header must agree with the bytes that follow."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise _NotAModelError("an array has a header of another version than 1.0.")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=_MAX_HEADER)
    if dtype.kind not in _KINDS or dtype.hasobject or dtype.names is not None:
        raise _NotAModelError(f"an array has dtype {dtype}, which is not of plain numbers or strings.")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise _NotAModelError("an array has another size than its header says.")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False, max_header_size=_MAX_HEADER)


def _model(arrays: dict[str, NDArray]) -> tuple[LinearParams, dict[str, NDArray]]:
    """The parameters and the extras, from the arrays of a file."""
    if str(arrays.get("format")) != _FORMAT:
        raise _NotAModelError(f"it does not say {_FORMAT!r}.")
    version = arrays.get("version")
    if version is None or version.shape != () or version.dtype.kind not in "iu":
        raise _NotAModelError("its version is not a number.")
    if version > _VERSION:
        raise _NotAModelError(f"it has format version {version}, and this jaxhinge reads up to {_VERSION}: update it.")
    missing = [name for name in _OWN if name not in arrays]
    if version < 1 or missing:
        raise _NotAModelError(f"version {version} has {', '.join(_OWN)}; missing: {', '.join(missing) or 'nothing'}.")
    w, b = arrays["w"], arrays["b"]
    try:
        dtype = jnp.dtype(str(arrays["dtype"]))
        _check_params(w, b)
    except (TypeError, ValueError) as error:
        raise _NotAModelError(str(error)) from error
    if not jnp.issubdtype(dtype, jnp.floating) or (dtype != w.dtype and w.dtype != np.float32):
        raise _NotAModelError(f"w has dtype {w.dtype}, but is said to have had {dtype}.")
    extras = {name: array for name, array in arrays.items() if name not in _OWN}
    params: Iterable[Any] = (leaf.astype(dtype) for leaf in (w, b))
    return LinearParams(*params), extras


def _pair(w: Any, b: Any) -> tuple[NDArray, NDArray]:
    """`w` and `b` in the byte order of this machine; a Python number takes the dtype of `w`."""
    weights = np.asarray(w)
    bias = np.asarray(b, weights.dtype if isinstance(b, (int, float)) else None)
    _check_params(weights, bias)
    return weights.astype(weights.dtype.newbyteorder("=")), bias.astype(weights.dtype.newbyteorder("="))


def _check_params(w: NDArray, b: NDArray) -> None:
    """Shapes and dtypes of an affine model."""
    floating = jnp.issubdtype(w.dtype, jnp.floating) and w.dtype.itemsize <= 8
    if not floating or w.dtype != b.dtype:
        raise TypeError(f"w and b must be floating, of one dtype, float64 at most; got {w.dtype} and {b.dtype}.")
    if w.ndim not in (1, 2) or b.shape != w.shape[1:]:
        raise ValueError(f"w must be (d,) with b (), or (d, k) with b (k,); got {w.shape} and {b.shape}.")


def _plain(name: str, value: Any) -> NDArray:
    array = np.asarray(value)
    if array.dtype.kind not in _KINDS:
        raise TypeError(f"{name} must be numbers, booleans or strings, or an array of them; got dtype {array.dtype}.")
    return array
