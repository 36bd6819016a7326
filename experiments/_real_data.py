"""Twenty classification problems in data that scikit-learn ships: whole sets, and what is cut from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_sample_image, load_wine

NDArray = np.ndarray[Any, Any]
Problem = tuple[NDArray, NDArray]


def real_data() -> dict[str, Problem]:
    """Features and labels by name. Whole data sets stand first of their kind; the others say what was taken."""
    return {
        **_cancer(),
        **_flowers_and_wines(),
        **_digits(),
        **_diabetes(),
        **_photos(),
    }


def _cancer() -> dict[str, Problem]:
    x, y = load_breast_cancer(return_X_y=True)
    return {
        "breast cancer": (x, y),
        "breast cancer: means": (x[:, :10], y),
        "breast cancer: errors": (x[:, 10:20], y),
        "breast cancer: worst": (x[:, 20:], y),
    }


def _flowers_and_wines() -> dict[str, Problem]:
    iris, flower = load_iris(return_X_y=True)
    wine, grower = load_wine(return_X_y=True)
    return {
        "iris": (iris, flower),
        "iris: sepals": (iris[:, :2], flower),
        "iris: versicolor or virginica": (iris[flower > 0], flower[flower > 0]),
        "wine": (wine, grower),
        "wine: growers 0 and 1": (wine[grower < 2], grower[grower < 2]),
        "wine: growers 1 and 2": (wine[grower > 0], grower[grower > 0]),
    }


def _digits() -> dict[str, Problem]:
    x, y = load_digits(return_X_y=True)

    def pair(first: int, second: int) -> Problem:
        rows = np.isin(y, (first, second))
        return x[rows], y[rows]

    return {
        "digits": (x, y),
        "digits: 3 or 8": pair(3, 8),
        "digits: 4 or 9": pair(4, 9),
        "digits: odd": (x, y % 2),
        "digits: above 4": (x, (y > 4).astype(int)),
    }


def _diabetes() -> dict[str, Problem]:
    x, progress = load_diabetes(return_X_y=True, scaled=False)
    return {
        "diabetes: above the median": (x, (progress > np.median(progress)).astype(int)),
        "diabetes: upper tenth": (x, (progress > np.quantile(progress, 0.9)).astype(int)),
        "diabetes: sex, by the rest": (np.delete(x, 1, axis=1), x[:, 1].astype(int)),
    }


def _photos() -> dict[str, Problem]:
    """A temple and a flower: which photograph a pixel is of, by its colour; and a patch, by the colours of 6 x 6."""
    photos = [load_sample_image(name).astype(float) for name in ("china.jpg", "flower.jpg")]
    pixels = [photo[::16, ::16].reshape(-1, 3) for photo in photos]
    patches = [
        np.stack([photo[i : i + 6, j : j + 6].ravel() for i in range(0, 420, 20) for j in range(0, 630, 20)])
        for photo in photos
    ]
    return {
        "photographs: pixels": (np.concatenate(pixels), np.repeat([0, 1], [len(part) for part in pixels])),
        "photographs: patches": (np.concatenate(patches), np.repeat([0, 1], [len(part) for part in patches])),
    }
