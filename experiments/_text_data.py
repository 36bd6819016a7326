"""Sparse and wide data for the benchmarks, made here: text-like counts, one-hot categories, and dense wide rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

NDArray = np.ndarray[Any, Any]


def text_like(n: int, d: int, mean_words: int, seed: int = 0) -> tuple[Any, NDArray]:
    """Rows of tf-idf with the norm 1 in CSR: words by Zipf's law, of which a topic makes some more likely."""
    rng = np.random.default_rng(seed)
    rank = np.arange(1, d + 1)
    common = 1 / (rank + 10.0)
    tilt = np.exp(rng.normal(0, 0.7, d))
    chances = [np.cumsum(common * tilt**sign) / np.sum(common * tilt**sign) for sign in (-1, 1)]
    y = np.where(rng.random(n) < 0.4, 1, -1)
    lengths = np.maximum(5, rng.poisson(mean_words * rng.lognormal(-0.18, 0.6, n)))
    row = np.repeat(np.arange(n, dtype=np.int32), lengths)
    # One word in four comes from the topic of the row, the others from anywhere.
    about = (rng.random(len(row)) < 0.25) * y[row]
    column = np.searchsorted(np.cumsum(common) / common.sum(), rng.random(len(row)))
    for sign, chance in zip((-1, 1), chances, strict=True):
        column[about == sign] = np.searchsorted(chance, rng.random(int(np.sum(about == sign))))
    column = np.minimum(column, d - 1).astype(np.int32)
    counts = sparse.csr_array((np.ones(len(row)), (row, column)), shape=(n, d))
    counts.sum_duplicates()
    seen = np.bincount(counts.indices, minlength=d)
    counts.data = (1 + np.log(counts.data)) * (np.log((1 + n) / (1 + seen)) + 1)[counts.indices]
    size = np.sqrt(np.bincount(np.repeat(np.arange(n), np.diff(counts.indptr)), counts.data**2, minlength=n))
    counts.data /= np.repeat(size, np.diff(counts.indptr))
    flipped = rng.random(n) < 0.03
    return counts, np.where(flipped, -y, y)


def one_hot(n: int, d: int, columns: int, seed: int = 0) -> tuple[Any, NDArray]:
    """Categories as columns of 0 and 1 in CSR, `columns` ones in each row."""
    rng = np.random.default_rng(seed)
    levels = d // columns
    level = np.minimum((levels * rng.random((n, columns)) ** 2).astype(int), levels - 1)
    index = level + levels * np.arange(columns)
    starts = np.arange(0, n * columns + 1, columns, dtype=np.int32)
    x = sparse.csr_array((np.ones(n * columns), index.ravel().astype(np.int32), starts), shape=(n, d))
    x.sort_indices()
    scores = x @ rng.normal(size=d)
    return x, np.where(scores + rng.normal(0, 2, n) > np.median(scores), 1, -1)


def wide(n: int, d: int, informative: int = 50, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Standardised dense rows with far more features than rows, such as expressions of genes."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 20))
    x = hidden @ rng.normal(size=(20, d)) * 0.3 + rng.normal(size=(n, d))
    y = np.where(x[:, :informative].sum(axis=1) + rng.normal(0, 3, n) > 0, 1, -1)
    return (x - x.mean(axis=0)) / x.std(axis=0), y
