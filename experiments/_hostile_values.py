"""Values that nobody should pass: odd dtypes, containers, shapes and numbers, drawn from a seeded generator."""

from __future__ import annotations

import array
import datetime
import decimal
import fractions
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import scipy.sparse
from jax.experimental import sparse

Rng = np.random.Generator

SPECIALS = (
    np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1e-310, 1e-45, 1e-38, 1e300, -1e300, 1.7e308, 3.4e38, -3.4e38, 65504.0,
    -65504.0, 2.0**24 + 1, 2.0**31, 2.0**53 + 1, 2.0**63, 1e-7, 1.0, -1.0,
)  # fmt: skip
DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32",
    "float64", "longdouble", ">f8", ">i4", "complex64", "complex128", "object", "str", "S8", "datetime64[s]",
    "timedelta64[s]", "float8_e4m3fn", "int4",
)  # fmt: skip
# Small sets, so that programs are compiled once for many cases.
SHAPES = (
    (),
    (0,),
    (1,),
    (2,),
    (5,),
    (16,),
    (0, 3),
    (5, 0),
    (1, 1),
    (5, 1),
    (5, 3),
    (16, 3),
    (3, 5),
    (2, 5, 3),
    (5, 3, 1),
)


class Opaque:
    """Something that is no number."""

    def __repr__(self) -> str:
        return "Opaque()"


def junk(rng: Rng) -> Any:
    """A thing of a wrong kind."""
    makers: tuple[Callable[[], Any], ...] = (
        lambda: None, lambda: "text", lambda: "", lambda: b"bytes", dict, set, Opaque, lambda: len,
        lambda: range(3), lambda: (i for i in range(3)), lambda: {"w": 1.0, "b": 2.0}, lambda: [], lambda: (),
        lambda: [[1.0], [1.0, 2.0]], lambda: [None, 1.0], lambda: ["a", 1.0], lambda: [[]], lambda: 10**400,
        lambda: -(10**400), lambda: [10**400, 1], lambda: 2**63, lambda: -(2**31) - 1, lambda: 1j, lambda: True,
        lambda: np.True_, lambda: np.float16(1), lambda: np.complex64(1), lambda: float("nan"), lambda: float("inf"),
        lambda: -float("inf"), lambda: -1, lambda: 0, lambda: -0.5, lambda: 1e300, lambda: 5e-324, lambda: 1.5,
        lambda: fractions.Fraction(1, 3), lambda: decimal.Decimal("0.1"), lambda: datetime.date(2020, 1, 1),
        lambda: np.datetime64("NaT"), lambda: pd.NA, lambda: np.array(None), lambda: np.array("text"),
        lambda: np.array([1.0, 2.0]), lambda: jnp.zeros(2), lambda: jax.random.key(0), lambda: ...,
        lambda: slice(None), lambda: (1.0,), lambda: (1.0, 2.0, 3.0), lambda: NotImplemented, lambda: np.ma.masked,
        lambda: np.zeros(3, [("a", "f4"), ("b", "i4")]), lambda: np.array([], object), lambda: jax.ShapeDtypeStruct,
    )  # fmt: skip
    return makers[rng.integers(len(makers))]()


def numbers(rng: Rng, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Float64 numbers: tame, of one huge or tiny scale, targets, or with special ones among them."""
    kind = rng.integers(6)
    values = rng.normal(size=shape)
    if kind == 0:
        with np.errstate(all="ignore"):
            values = values * 10.0 ** rng.uniform(-320, 308)
    elif kind == 1:
        values = rng.choice((-1.0, 1.0), shape)
    elif kind == 2:
        values = rng.integers(-3, 6, shape).astype(float)
    elif kind == 3:
        values = np.full(shape, rng.choice(SPECIALS))
    elif kind == 4:
        values = np.where(rng.random(shape) < 0.2, rng.choice(SPECIALS, shape), values)
    return np.asarray(values, float)


def in_dtype(values: Any, name: str) -> Any:
    """The values in a dtype, whatever that does to them."""
    values = np.asarray(values)
    if values.dtype.kind in "US":
        return values.astype("object" if name == "object" else "str")
    with np.errstate(all="ignore"):
        if name in ("bfloat16", "float8_e4m3fn", "int4"):
            return values.astype(getattr(ml_dtypes, name))
        if name == "str":
            return np.where(values > 0, "yes", "no")
        if name == "object":
            return np.array([None if i % 7 == 3 else v for i, v in enumerate(values.ravel().tolist())] or [], object)
        if name.startswith(("datetime", "timedelta")):
            return np.nan_to_num(np.clip(values, -1e6, 1e6)).astype("int64").astype(name)
        return values.astype(name)


def strange_array(rng: Rng) -> Any:
    """An array of any shape, dtype and container."""
    shape = SHAPES[rng.integers(len(SHAPES))]
    return contained(rng, in_dtype(numbers(rng, shape), DTYPES[rng.integers(len(DTYPES))]))


def _strided(values: Any) -> Any:
    if values.ndim == 0:
        return values
    wide = np.repeat(values, 2, axis=0)
    return wide[::2]


def _readonly(values: Any) -> Any:
    values = np.array(values)
    values.flags.writeable = False
    return values


def _series(values: Any) -> Any:
    if values.ndim == 1:
        return pd.Series(values, index=np.arange(len(values)) * 3 + 7)
    return pd.DataFrame(values) if values.ndim == 2 else values


def _nullable(values: Any) -> Any:
    if values.ndim == 1 and values.size and values.dtype.kind in "if":
        whole = pd.Series(np.nan_to_num(np.clip(values, -100, 100)).astype("int64")).astype("Int64")
        whole.iloc[0] = pd.NA
        return whole
    return _series(values)


def _to_jax(values: Any) -> Any:
    try:
        return jnp.asarray(values)
    except TypeError:
        return values


def _masked(values: Any) -> Any:
    return np.ma.masked_array(values, np.arange(values.size).reshape(values.shape) % 3 == 1)


FORMATS = ("csr", "csc", "coo", "bsr", "dia", "dok", "lil")


def sparse_of(rng: Rng, values: Any) -> Any:
    """A matrix in any sparse format, as an array or a matrix, or as JAX has it; perhaps less tidy than usual."""
    if values.ndim != 2 or values.dtype.kind not in "biuf" or values.dtype == np.float16 or not values.dtype.isnative:
        return values
    if rng.random() < 0.2 and values.dtype != np.longdouble:
        array = jnp.asarray(values)  # in which a tiny number may be 0
        return sparse.BCOO.fromdense(array, nse=int(np.count_nonzero(np.asarray(array))) + int(rng.integers(3)))
    kind = scipy.sparse.coo_array if rng.random() < 0.6 else scipy.sparse.coo_matrix
    found = kind(values)
    if rng.random() < 0.2:  # entries out of order, some of them in two parts, some of them 0
        row, column, data = (np.concatenate([part, part[:2]]) for part in (found.row, found.col, found.data))
        data[-2:] = 0
        order = rng.permutation(len(data))
        found = kind((data[order], (row[order], column[order])), shape=values.shape)
    found = found.asformat(FORMATS[rng.integers(len(FORMATS))])
    if rng.random() < 0.3 and found.format in ("csr", "csc", "bsr"):
        found.indices, found.indptr = found.indices.astype(np.int64), found.indptr.astype(np.int64)
    return found


def is_sparse(value: Any) -> bool:
    return scipy.sparse.issparse(value) or isinstance(value, sparse.BCOO)


def dense(value: Any) -> Any:
    """What a sparse matrix holds, as an array; anything else as it is."""
    if scipy.sparse.issparse(value):
        return np.asarray(value.toarray())
    return np.asarray(value.todense()) if isinstance(value, sparse.BCOO) else value


CONTAINERS: tuple[Callable[[Any], Any], ...] = (
    lambda values: values,
    lambda values: values,
    _readonly,
    _strided,
    lambda values: values[::-1] if values.ndim else values,
    np.asfortranarray,
    lambda values: values.tolist(),
    lambda values: tuple(values) if values.ndim else values,
    _series,
    _nullable,
    _to_jax,
    _masked,
    lambda values: list(map(_to_jax, values)) if values.ndim and values.size else values,
    lambda values: memoryview(np.ascontiguousarray(values)) if values.dtype.kind in "if" else values,
    lambda values: array.array("d", values.ravel().tolist()) if values.dtype == float else values,
    lambda values: np.asmatrix(values) if values.ndim == 2 else values,
)


def contained(rng: Rng, values: Any) -> Any:
    """The same values in another container."""
    try:
        with np.errstate(all="ignore"):
            if rng.random() < 0.1:
                return sparse_of(rng, np.asarray(values))
            return CONTAINERS[rng.integers(len(CONTAINERS))](values)
    except (TypeError, ValueError, NotImplementedError):
        # A frame or a view of a dtype that its own library does not know.
        return values


def spoilt(rng: Rng, value: Any) -> Any:
    """The value changed in one way: its numbers, dtype, shape or container, or all of it."""
    if isinstance(value, tuple) and hasattr(value, "_replace") and rng.random() < 0.8:
        field = value._fields[rng.integers(len(value))]
        return value._replace(**{field: spoilt(rng, getattr(value, field))})
    if isinstance(value, (int, float, bool, str)) or value is None:
        return float(rng.choice(SPECIALS)) if rng.random() < 0.4 else junk(rng)
    if is_sparse(value):
        found = spoilt(rng, dense(value))
        return sparse_of(rng, found) if type(found) is np.ndarray else found
    if not isinstance(value, np.ndarray):
        return junk(rng)
    kind = rng.integers(7)
    if kind == 0:
        return junk(rng)
    if kind == 1:
        return strange_array(rng)
    if kind == 2:
        return in_dtype(value, DTYPES[rng.integers(len(DTYPES))])
    if kind == 3:
        return contained(rng, value)
    if kind == 4:
        return misshapen(rng, value)
    with np.errstate(all="ignore"):
        if kind == 5 or value.dtype.kind != "f":
            return contained(rng, np.asarray(numbers(rng, value.shape), value.dtype))
        found = value * 10.0 ** rng.uniform(-300, 300)
        return np.asarray(np.where(rng.random(value.shape) < 0.7, found, rng.choice(SPECIALS)), value.dtype)


def misshapen(rng: Rng, value: Any) -> Any:
    """The same numbers in a shape that may not fit."""
    makers: tuple[Callable[[], Any], ...] = (
        lambda: value[..., None], lambda: value[None], lambda: value.T, lambda: value.ravel(), lambda: value[:0],
        lambda: value[1:], lambda: value[..., :0], lambda: np.asarray(value.ravel()[:1].sum(), value.dtype),
        lambda: np.concatenate([value, value]),
    )  # fmt: skip
    return makers[rng.integers(len(makers))]() if value.ndim else value[None]


def fingerprint(value: Any) -> Any:
    """What must be the same after a call, byte for byte."""
    if isinstance(value, np.ndarray):
        plain = np.asarray(value.data if isinstance(value, np.ma.MaskedArray) else value)
        content = repr(plain.tolist()) if plain.dtype == object else plain.tobytes()
        mask = np.ma.getmaskarray(value).tobytes() if isinstance(value, np.ma.MaskedArray) else b""
        return type(value).__name__, str(value.dtype), value.shape, value.flags.writeable, content, mask
    if is_sparse(value):
        parts = ("data", "indices", "indptr", "row", "col", "offsets", "rows")
        return value.shape, [fingerprint(getattr(value, part)) for part in parts if hasattr(value, part)]
    if isinstance(value, (pd.DataFrame, pd.Series)):
        return repr(value.to_dict()), repr(value.index.tolist())
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.extended):
            return repr(jax.random.key_data(value).tolist())
        return str(value.dtype), value.shape, np.asarray(value).tobytes()
    if isinstance(value, (list, tuple)):
        return type(value).__name__, tuple(fingerprint(item) for item in value)
    if isinstance(value, dict):
        return tuple((repr(key), fingerprint(item)) for key, item in value.items())
    if isinstance(value, (memoryview, array.array)):
        return bytes(value.tobytes())
    return id(value)
