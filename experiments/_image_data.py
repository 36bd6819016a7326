"""What `image_classification.py` reads: images from a file that nobody vouches for, split and standardised."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits, load_svmlight_file
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler

NDArray = np.ndarray[Any, Any]
MOST_BYTES = 2e9


class Data(NamedTuple):
    name: str
    x: NDArray  # (n, d), standardised
    labels: NDArray
    x_test: NDArray
    labels_test: NDArray
    classes: NDArray
    shape: tuple[int, ...]  # of an image
    fold: NDArray  # (n,), which fold holds a row out
    l2: NDArray  # the grid, from the strongest


def read(file: Path | None) -> tuple[str, NDArray, NDArray]:
    """Name, images (n, ...) and targets (n,); whatever is wrong with a file is said in one line."""
    if file is None:
        digits = load_digits()
        return "digits", digits.images, digits.target
    try:
        x, y = read_npz(file) if file.suffix == ".npz" else read_svmlight(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SystemExit(f"{file} cannot be read: {error}") from error
    if x.ndim < 2 or y.shape != x.shape[:1]:
        raise SystemExit(f"{file}: x must be (n, ...) and y (n,); got {x.shape} and {y.shape}.")
    if x.dtype.kind not in "biuf" or not np.isfinite(x).all():
        raise SystemExit(f"{file}: x must be finite real numbers; got {x.dtype}, or NaN or infinity among them.")
    if y.dtype.kind not in "biufU" or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise SystemExit(f"{file}: y must be labels, numbers or strings; got {y.dtype}, or NaN or infinity among them.")
    return file.name, x, y


def read_npz(file: Path) -> tuple[NDArray, NDArray]:
    with file.open("rb") as stream:
        arrays = np.load(stream, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array; an .npz of x and y is needed.")
        names = [next((name for name in pair if name in arrays), None) for pair in (("x", "X"), ("y", "Y"))]
        if None in names:
            raise ValueError(f"it needs arrays x and y; it has {', '.join(arrays) or 'none'}.")
        return arrays[names[0]], arrays[names[1]]


def read_svmlight(file: Path) -> tuple[NDArray, NDArray]:
    x, y = load_svmlight_file(str(file))
    if x.shape[0] * x.shape[1] * 8 > MOST_BYTES:
        raise ValueError(f"dense, its {x.shape[0]} x {x.shape[1]} features need more than {MOST_BYTES:.0e} bytes.")
    return x.toarray(), y


def prepare(
    name: str, images: NDArray, targets: NDArray, *, rows: int | None, folds: int, strengths: int, seed: int
) -> Data:
    """Split by class, standardised by the rows that train, with the folds and the grid that all methods share."""
    classes, labels = np.unique(targets, return_inverse=True)
    check_classes(name, labels, folds)
    if rows is not None and rows < len(labels):
        kept = np.random.default_rng(seed).permutation(len(labels))[:rows]
        images, labels = images[kept], labels[kept]
        check_classes(f"{name}, {rows} rows of it", labels, folds, len(classes))
    shape = images.shape[1:]
    if len(shape) == 1 and round(shape[0] ** 0.5) ** 2 == shape[0]:
        shape = (round(shape[0] ** 0.5),) * 2
    x, x_test, labels, labels_test = train_test_split(
        images.reshape(len(images), -1), labels, test_size=0.25, stratify=labels, random_state=seed
    )
    scaler = StandardScaler().fit(x)
    fold = np.empty(len(x), np.int64)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for number, (_, held_out) in enumerate(splitter.split(x, labels)):
        fold[held_out] = number
    x, x_test = (scaler.transform(rows).astype(np.float32) for rows in (x, x_test))
    l2 = np.logspace(0, -4, strengths)
    return Data(name, x, labels, x_test, labels_test, classes, shape, fold, l2)


def check_classes(name: str, labels: NDArray, folds: int, num_classes: int = 0) -> None:
    """Every class has a row for each fold after a quarter of its rows went to the test set."""
    counts, needed = np.bincount(labels, minlength=num_classes), int(np.ceil(folds / 0.75)) + 1
    if len(counts) < 2 or folds < 2 or counts.min() < needed:
        raise SystemExit(
            f"{name}: {folds} folds (2 or more) and a test set need two classes or more of at least {needed} rows "
            f"each; got {len(counts)} of {counts.min()} rows or more. Use fewer folds or more rows."
        )
