"""Models in files: what is saved comes back to the bit, and no file makes `load` do anything but read."""

from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jaxhinge as jh

PARAMS = jh.LinearParams(jnp.array([1.0, -2.5, 1e-30]), jnp.array(0.1))
EXTRAS: dict[str, Any] = {"classes": ["ham", "späm"], "mean": np.arange(3.0), "file": True, "path_": np.int8(-1)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.npz"


def refuse(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + message):
        jh.load(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, ">f4"])
@pytest.mark.parametrize("shape", [(3,), (3, 2), (0,)])
def test_what_is_saved_comes_back(path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    w, b = np.linspace(-1, 1, int(np.prod(shape))).reshape(shape).astype(dtype), np.full(shape[1:], 0.3, dtype)
    jh.save(path, (w, b), **EXTRAS)
    params, extras = jh.load(path)
    assert isinstance(params, jh.LinearParams)
    for found, given in zip(params, (w, b), strict=True):
        assert found.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(found, given)
    assert extras.keys() == EXTRAS.keys()
    for name, value in EXTRAS.items():
        np.testing.assert_array_equal(extras[name], value)
    assert os.listdir(path.parent) == [path.name]


def test_jax_arrays_and_python_numbers(path: Path) -> None:
    jh.save(path, (PARAMS.w, 1))
    params, extras = jh.load(path)
    assert params.b.dtype == np.float32
    assert (float(params.b), extras) == (1.0, {})
    assert np.load(path, allow_pickle=False)["w"].dtype == np.float32  # without this package, too


def test_a_file_is_replaced_whole_or_not_at_all(path: Path, monkeypatch: Any) -> None:
    jh.save(path, PARAMS)
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"extra must be numbers, booleans or strings.*object"):
        jh.save(path, PARAMS, extra={"a": 1})

    def full_disk(number: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        jh.save(path, PARAMS)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("error", "params", "extras", "message"),
    [
        (TypeError, 1.0, {}, r"params must be LinearParams or a 2-tuple \(w, b\); got float"),
        (TypeError, (np.ones(3, int), 0), {}, "w and b must be floating"),
        (TypeError, (np.ones(3, np.float32), np.zeros(())), {}, "of one dtype.*got float32 and float64"),
        (TypeError, (np.ones(3, np.longdouble), np.zeros((), np.longdouble)), {}, "float64 at most"),
        (ValueError, (np.ones(3), np.zeros(1)), {}, r"w must be \(d,\) with b \(\).*got \(3,\) and \(1,\)"),
        (ValueError, PARAMS, {"version": 2}, "version is a name of the format's own"),
    ],
)
def test_what_is_no_model_is_not_saved(path: Path, error: Any, params: Any, extras: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        jh.save(path, params, **extras)
    assert not path.exists()


# ---- files from strangers


def entries(**changes: Any) -> dict[str, Any]:
    own = {"format": "jaxhinge.model", "version": 1, "w": np.ones(3), "b": np.zeros(()), "dtype": "float64"}
    return {name: np.asarray(value) for name, value in {**own, **changes}.items() if value is not None}


def npy(array: Any, **header: Any) -> bytes:
    stream = io.BytesIO()
    if header:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (3,), **header})
        stream.write(np.asarray(array).tobytes())
    else:
        np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def write(path: Path, compression: int = zipfile.ZIP_STORED, **raw: bytes) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {**{name: npy(value) for name, value in entries().items()}, **raw}.items():
            archive.writestr(f"{name}.npy", data)


class Trap:
    """Unpickling this leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(path: Path) -> None:
    trap = path.with_name("sprung")
    for name in ("w", "extra", "format"):
        write(path, **{name: npy(np.array(Trap(trap), object))})
        refuse(path, "dtype object, which is not of plain numbers or strings")
    assert not trap.exists()
    np.load(path, allow_pickle=True)["format"].tolist()
    assert trap.exists()  # the trap works


def test_a_newer_version_is_refused_by_name(path: Path) -> None:
    np.savez(path, **entries(version=2, w=None, weights=np.ones(3)))
    refuse(path, "has format version 2, and this jaxhinge reads up to 1: update it")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": None}, "does not say 'jaxhinge.model'"),
        ({"format": "other"}, "does not say 'jaxhinge.model'"),
        ({"version": None}, "its version is not a number"),
        ({"version": "1"}, "its version is not a number"),
        ({"version": 0}, "version 0 has"),
        ({"b": None, "dtype": None}, "missing: b, dtype"),
        ({"b": np.zeros(2)}, r"got \(3,\) and \(2,\)"),
        ({"w": np.ones(3, int)}, "must be floating"),
        ({"dtype": "int32"}, "said to have had int32"),
        ({"dtype": "float32"}, "w has dtype float64, but is said to have had float32"),
        ({"dtype": "object"}, "said to have had object"),
        ({"dtype": "nonsense"}, "nonsense"),
    ],
)
def test_files_that_are_not_models(path: Path, changes: dict[str, Any], message: str) -> None:
    np.savez(path, **entries(**changes))
    refuse(path, message)


def test_a_file_takes_no_more_memory_than_it_has_bytes(path: Path) -> None:
    write(path, zipfile.ZIP_DEFLATED, w=npy(np.zeros(10**6)))
    refuse(path, "compressed")
    write(path, w=npy([1.0, 2.0, 3.0], shape=(10**15,)))
    refuse(path, "another size than its header says")
    write(path, w=npy([1.0, 2.0, 3.0], shape=(-3,)))
    refuse(path, "another size than its header says")
    write(path, w=npy([1.0, 2.0, 3.0], descr="|V8"))
    refuse(path, "not of plain numbers")


def test_files_of_other_kinds(path: Path, tmp_path: Path) -> None:
    for data in (b"", b"PK", b"no zip file at all", npy(np.ones(3))):
        path.write_bytes(data)
        refuse(path, "truncated or damaged")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../w", b"")
    refuse(path, "not arrays")
    with pytest.raises(FileNotFoundError, match="absent"):
        jh.load(tmp_path / "absent.npz")


def test_damage_is_found_wherever_it_is(path: Path) -> None:
    jh.save(path, PARAMS, classes=["ham", "spam"])
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    for place in random.integers(0, len(whole), 300):
        damaged.append(whole[:place] + bytes([whole[place] ^ int(random.integers(1, 256))]) + whole[place + 1 :])
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            params, extras = jh.load(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017, the message must name the file every time
            refused += 1
        else:  # a byte that means nothing, such as a date
            np.testing.assert_array_equal(params.w, PARAMS.w)
            np.testing.assert_array_equal(extras["classes"], ["ham", "spam"])
    assert refused > 0.8 * len(damaged)
