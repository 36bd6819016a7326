"""Which rows train and which are held out, checked before any work starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._base.values import check_rows


class Folds(NamedTuple):
    """For each fold which rows train and which are held out, both `(folds, n)` of bool."""

    train: NDArray
    held_out: NDArray


def make_folds(folds: Any, x: NDArray, labels: NDArray, weight: NDArray, key: Any) -> Folds:
    """Folds from a number, an index array, a splitter or pairs of index arrays.

    Args:
      folds: A number of stratified folds; or integers `(n,)`, the fold that holds a row out, negative for none; or a
        scikit-learn splitter; or an iterable of pairs (rows that train, rows held out).
      x: Features `(n, d)`, for a splitter.
      labels: `(n,)`, or `(groups, n)` for several problems over the same rows; the folds are stratified by all of them.
      weight: Of the rows of each problem, shaped like `labels`; a row counts where it is above 0.
      key: Of the shuffle: an integer or a JAX key.
    """
    labels, counts = np.atleast_2d(labels), np.asarray(np.atleast_2d(weight) > 0)
    n = labels.shape[1]
    coded = [np.unique(column, return_inverse=True) for column in labels]
    codes = [code for _, code in coded]
    strata = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)[1].ravel()
    if isinstance(folds, (int, np.integer)) and not isinstance(folds, (bool, np.bool_)):
        found = _by_number(_stratified(int(folds), strata, labels, np.any(counts, axis=0), key))
    elif hasattr(folds, "split") and not isinstance(folds, str):
        same = all((code == codes[0]).all() for code in codes)
        found = _from_pairs(_split(folds, x, labels[0] if same else strata), n)
    elif _is_index_array(folds):
        found = _by_number(_checked_index(np.asarray(folds), n))
    elif isinstance(folds, Iterable) and not isinstance(folds, str) and getattr(folds, "shape", None) != ():
        found = _from_pairs(folds, n)
    else:
        raise TypeError(
            "folds must be a number, an array with the fold of each row, a scikit-learn splitter or pairs (train, "
            f"held out) of row numbers; got {folds!r}."
        )
    for number, ((classes, code), counted) in enumerate(zip(coded, counts, strict=True)):
        _check_classes(found, classes, code, counted, f" in problem {number}" if len(labels) > 1 else "")
    return found


def _split(splitter: Any, x: NDArray, labels: NDArray) -> list[Any]:
    """The pairs of a splitter. It looks at the number of rows only, which may lie on other devices."""
    if isinstance(splitter, type):
        raise TypeError(f"folds is the class {splitter.__name__}; give a splitter of it: {splitter.__name__}(...).")
    try:
        return list(splitter.split(x if isinstance(x, np.ndarray) else np.zeros((len(labels), 1)), labels))
    except (TypeError, ValueError) as error:
        advice = " Give the pairs: folds=list(splitter.split(x, y, groups))." if "groups" in str(error) else ""
        raise ValueError(f"folds: {type(splitter).__name__} does not split these rows: {error}{advice}") from error


def _stratified(count: int, strata: NDArray, labels: NDArray, counts: NDArray, key: Any) -> NDArray:
    """The fold of each row: every class is shuffled and dealt out in turn."""
    if count < 2:
        raise ValueError(f"folds must be at least 2; got {count}.")
    for column in labels:
        classes, sizes = np.unique(column[counts], return_counts=True)
        if np.min(sizes) < count:
            raise ValueError(
                f"folds is {count}, but class {classes[np.argmin(sizes)]} has only {np.min(sizes)} rows with weight: "
                "take fewer folds, or give the fold of each row as an array."
            )
    generator = _generator(key)
    # A row without weight is in no fold: the folds are those of the data without it.
    counted = np.flatnonzero(counts)
    order = counted[generator.permutation(len(counted))]
    # The sort is stable, so that each class keeps its shuffled order. Classes follow each other: folds differ by a row.
    dealt = order[np.argsort(strata[order], kind="stable")]
    fold = np.full(len(strata), -1)
    fold[dealt] = np.arange(len(dealt)) % count
    return fold


def _generator(key: Any) -> np.random.Generator:
    if isinstance(key, (int, np.integer)) and not isinstance(key, (bool, np.bool_)):
        # NumPy takes no negative seed, so that a negative key becomes its two's complement.
        return np.random.default_rng(int(key) % 2**64)
    if not isinstance(key, jax.Array):
        raise TypeError(f"key must be an integer or a JAX key; got {type(key).__name__}.")
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return np.random.default_rng([int(word) for word in np.asarray(data).ravel()])


def _is_index_array(folds: Any) -> bool:
    if isinstance(folds, (str, bytes)) or not hasattr(folds, "__len__"):
        return False
    try:
        array = np.asarray(folds)
    except (TypeError, ValueError):
        return False
    return array.ndim == 1 and array.dtype.kind in "iu"


def _checked_index(index: NDArray, n: int) -> NDArray:
    check_rows("folds", index, n)
    used = np.unique(index[index >= 0])
    if len(used) == 0:
        raise ValueError("folds holds no row out: every entry is negative.")
    # Folds are numbered from 0 in the order of their labels.
    return np.where(index >= 0, np.searchsorted(used, index), -1)


def _by_number(fold: NDArray) -> Folds:
    held_out = fold[None, :] == np.arange(fold.max() + 1)[:, None]
    return Folds(~held_out, held_out)


def _from_pairs(pairs: Iterable[Any], n: int) -> Folds:
    train, held_out = [], []
    for number, pair in enumerate(pairs):
        try:
            inside, outside = pair
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"folds[{number}] must be a pair (rows that train, rows held out); got {pair!r}."
            ) from error
        train.append(_mask(inside, n, f"folds[{number}], rows that train"))
        held_out.append(_mask(outside, n, f"folds[{number}], rows held out"))
    if not train:
        raise ValueError("folds is empty.")
    return Folds(np.stack(train), np.stack(held_out))


def _mask(rows: Any, n: int, name: str) -> NDArray:
    rows = np.asarray(rows)
    if rows.dtype == bool and rows.shape == (n,):
        return np.array(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected row numbers, or {n} booleans; got shape {rows.shape} of {rows.dtype}.")
    if rows.size and (rows.min() < -n or rows.max() >= n):
        raise ValueError(f"{name}: row numbers must lie below {n}; got {rows.min()} to {rows.max()}.")
    if len(np.unique(rows % n)) < len(rows):
        raise ValueError(f"{name}: a row is listed twice. Give it a sample_weight of 2 instead.")
    mask = np.zeros(n, bool)
    mask[rows] = True
    return mask


def _check_classes(folds: Folds, classes: NDArray, code: NDArray, counts: NDArray, where: str) -> None:
    """Every fold holds something out and trains on every class `classes[code]` that there is."""
    rows_of = np.bincount(code[counts], minlength=len(classes))
    for number, (train, held_out) in enumerate(zip(folds.train & counts, folds.held_out & counts, strict=True)):
        if not held_out.any():
            raise ValueError(f"Fold {number} holds no row with weight out{where}.")
        missing = (rows_of > 0) & (np.bincount(code[train], minlength=len(classes)) == 0)
        if missing.any():
            raise ValueError(
                f"Fold {number} trains on {int(train.sum())} rows{where}, none of them of class "
                f"{classes[np.argmax(missing)]}: stratify the folds, or take fewer."
            )
