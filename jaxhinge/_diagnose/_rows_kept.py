"""Which rows a mistaken loop or maximum keeps of all pushes: the last, the first, the worst, ..."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxhinge._diagnose._recipe import Mask, Pushes, Recipe

# More candidates for the worst row than this are not told apart.
_MOST_WORST = 60


def kept_rows(pushes: Pushes, recipe: Recipe) -> list[Pushes]:
    """What remains of the pushes; several answers where a row on the kink decides and may go either way."""
    if recipe.rows in ("all", "pairs", "pairs_by_label"):
        return [pushes]
    count = len(pushes.x)
    index = np.arange(count)
    pushing, free = _states(pushes)
    if recipe.rows == "last_row":
        kept = [index == count - 1]
    elif recipe.rows == "first_row":
        kept = [index == 0]
    elif recipe.rows == "last":
        last = int(np.flatnonzero(pushing)[-1]) if np.any(pushing) else -1
        kept = [index == row for row in sorted({last} | {int(row) for row in np.flatnonzero(free) if row > last})]
    elif recipe.rows == "first":
        first = int(np.flatnonzero(pushing)[0]) if np.any(pushing) else count
        kept = [index == row for row in sorted({first} | {int(row) for row in np.flatnonzero(free) if row < first})]
    elif recipe.rows == "worst":
        top = int(np.argmax(pushes.violation))
        near = pushes.violation >= pushes.violation[top] - pushes.slack[top] - pushes.slack
        kept = [index == row for row in np.flatnonzero(near)[:_MOST_WORST]]
    else:
        kept = _runs(pushing, free, since_reset=recipe.rows == "since_reset")
    return [_only(pushes, rows) for rows in kept]


def _states(pushes: Pushes) -> tuple[Mask, Mask]:
    """Which rows push, and which are on a kink."""
    free = np.zeros(len(pushes.x), dtype=bool)
    free[[row for row, _ in pushes.groups]] = True
    return np.any(pushes.fixed != 0.0, axis=1) & ~free, free


def _runs(pushing: Mask, free: Mask, *, since_reset: bool) -> list[Mask]:
    """The rows behind the last satisfied one, or before the first; rows on the kink all push, or all are satisfied."""
    index = np.arange(len(pushing))
    runs = []
    for satisfied in (~pushing & ~free, ~pushing):
        at = np.flatnonzero(satisfied)
        if since_reset:
            runs.append(index > (at[-1] if len(at) else -1))
        else:
            runs.append(index < (at[0] if len(at) else len(index)))
    return runs if np.any(free) else runs[:1]


def _only(pushes: Pushes, rows: Mask) -> Pushes:
    column = rows[:, None]
    groups = [(row, vertices) for row, vertices in pushes.groups if rows[row]]
    return replace(pushes, fixed=pushes.fixed * column, groups=groups, size=pushes.size * column)
