"""The dual point that a solution's parameters ask for, where the steps of a method end without it."""

from __future__ import annotations

import numpy as np

from jaxhinge._base.precision import eps
from jaxhinge._methods.certificate import Certified, Program, better, certify, over_penalty
from jaxhinge._methods.stages import unit_of_margin

# `_BALANCINGS`: how often the forces on the parameters are balanced: the first time rows may meet their bounds.
_BALANCINGS = 2
# `_ON_KINK`: violations of less, relative to a required margin, count as 0.
_ON_KINK = 1e-6
# `_CONDITION`: weight of the balance of a free bias among the others.
_CONDITION = 1e3
# `_MOST_WORK`: beyond so many multiplications the balancing would take longer than the steps did.
_MOST_WORK = 1e9


def with_balanced_forces(program: Program, best: Certified) -> Certified:
    """The certificate with the dual point that balances the forces on its parameters as well as any.

    At a solution `A' alpha = P z + q`, and the dual value loses the square of what is lacking, over the penalty. Steps
    whose weights span many powers of ten lack what their system rounds away. The rows on the kink take it up, in
    proportion to their room: least squares in the norm of that loss, a free bias being all but a condition.
    """
    violations = program.r - program.scores(best.z)
    near = np.flatnonzero(abs(violations) <= _ON_KINK * unit_of_margin(program))
    p = program.shape[0]
    if program.squared or program.rows.sparse or not len(near) or len(near) * p * min(len(near), p) > _MOST_WORK:
        return best
    alpha = np.where(violations > 0, program.c, 0)
    alpha[near] = best.alpha[near]
    rows = program.rows.take(near).whole * program.sign[near, None]
    scale = np.sqrt(over_penalty(program, np.ones(p)))
    scale[scale == 0] = _CONDITION * np.sqrt(np.max(np.sum((rows * scale) ** 2, axis=1)))
    for _ in range(_BALANCINGS):
        room = np.minimum(alpha, program.c - alpha)[near]
        lacking = program.penalty * best.z + program.q - program.adjoint(alpha)
        if not np.isfinite(lacking).all():
            break  # beyond float64
        change = np.linalg.lstsq((rows * room[:, None] * scale).T, scale * lacking, rcond=eps(room.dtype))[0]
        alpha[near] = np.clip(alpha[near] + room * change, 0, program.c[near])
        best = better(best, certify(program, best.z, alpha))
    return best
