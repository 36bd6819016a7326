"""The nearest point of a sum of polytopes, by Wolfe's algorithm.

Problem: given a vector `base` and groups of vertices, minimise `||base + sum_g p_g||` with `p_g` in
the hull of the vertices of group `g`. A row on the kink is the group `{0, its push}`, which makes a
box; a tie among classes is a group of one vertex for each class, which makes a simplex.

The sum has far too many corners to list, but the corner farthest along a direction is found group
by group. The algorithm keeps a few affinely independent corners, moves to the nearest point of
their affine hull, and drops corners whose weight turns negative; it ends after finitely many
steps (Wolfe, Finding the nearest point in a polytope, 1976).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jaxhinge._diagnose._point import Array

_MAX_STEPS = 500


def nearest_point(
    base: Array, groups: list[Array], enough: float, *, far: float = np.inf, gap: float = 1e-13
) -> tuple[Array, list[Array]]:
    """The smallest `base + sum_g p_g` and, for each group, the weights of its vertices.

    Args:
      base: `(p,)`.
      groups: Vertices `(v_g, p)` of each group.
      enough: Stop when no coordinate is beyond this.
      far: Stop when the smallest norm is proven to be beyond this.
      gap: Stop when the squared norm is proven to be within this part of the smallest.
    """
    every = np.arange(len(groups))
    vertices, absent = _stacked(groups)
    picks = [np.zeros(len(groups), dtype=int)]
    corners = [base + vertices[every, picks[0]].sum(axis=0)]
    weights = np.ones(1)
    nearest = corners[0]
    for _ in range(_MAX_STEPS):
        if np.max(np.abs(nearest)) <= enough:
            break
        pick = np.argmin(np.where(absent, np.inf, vertices @ nearest), axis=1)
        corner = base + vertices[every, pick].sum(axis=0)
        # The whole sum is beyond the plane through its farthest corner, so this bounds the norm from below.
        if nearest @ corner > far * np.linalg.norm(nearest):
            break
        no_descent = nearest @ (nearest - corner) <= gap * (nearest @ nearest)
        if no_descent or any(np.array_equal(pick, known) for known in picks):
            break
        picks, corners, weights = _descend([*picks, pick], [*corners, corner], np.append(weights, 0.0))
        nearest = weights @ np.array(corners)
    return nearest, _group_weights(groups, picks, weights)


def _stacked(groups: list[Array]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """All vertices as one array `(groups, most vertices, p)`, and which entries are padding."""
    most = max(len(group) for group in groups)
    vertices = np.zeros((len(groups), most, groups[0].shape[1]))
    absent = np.ones((len(groups), most), dtype=bool)
    for index, group in enumerate(groups):
        vertices[index, : len(group)] = group
        absent[index, : len(group)] = False
    return vertices, absent


def _descend(
    picks: list[npt.NDArray[np.int_]], corners: list[Array], weights: Array
) -> tuple[list[npt.NDArray[np.int_]], list[Array], Array]:
    """The nearest point of the hull of the corners, and the corners it needs."""
    while True:
        affine = _affine_weights(np.array(corners))
        # Every other round drops a corner, so this ends; with values that are not finite at once.
        if np.all(affine > 1e-14) or not np.all(np.isfinite(affine)):
            return picks, corners, affine
        falling = affine <= 1e-14
        steps = np.where(falling, weights / np.maximum(weights - affine, 1e-300), np.inf)
        step = min(1.0, float(np.min(steps)))
        weights = (1.0 - step) * weights + step * affine
        kept = ~(falling & (steps <= step)) & (weights > 0.0)
        if not np.any(kept):
            kept = np.arange(len(weights)) == np.argmax(weights)
        elif np.all(kept):
            kept = np.arange(len(weights)) != np.argmin(affine)
        picks = [pick for pick, keep in zip(picks, kept, strict=True) if keep]
        corners = [corner for corner, keep in zip(corners, kept, strict=True) if keep]
        weights = weights[kept] / np.sum(weights[kept])


def _affine_weights(corners: Array) -> Array:
    """Weights, summing to 1, of the nearest point of the affine hull."""
    if len(corners) == 1:
        return np.ones(1)
    rest = np.linalg.lstsq((corners[1:] - corners[0]).T, -corners[0], rcond=None)[0]
    return np.concatenate([[1.0 - np.sum(rest)], rest])


def _group_weights(groups: list[Array], picks: list[npt.NDArray[np.int_]], weights: Array) -> list[Array]:
    shares = [np.zeros(len(group)) for group in groups]
    for pick, weight in zip(picks, weights, strict=True):
        for share, vertex in zip(shares, pick, strict=True):
            share[vertex] += weight
    return shares
