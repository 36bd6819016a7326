r"""What is computed of one block of rows; the kernels that every streamed solve needs.

A kernel gets a block of rows and gives back what belongs to each row, sums over the block, and the largest of some
number. In it the block is cut into slices, and what a slice needs stays in a cache until the slice is done with.

A row is one hinge, or the two sides of a residual: two hinges with opposite signs, which lie next to each other in
what is kept of the rows. The features are not repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhinge._base.arrays import NDArray
from jaxhinge._methods.certificate import Program, losses, net
from jaxhinge._methods.problem import Intercept
from jaxhinge._rows.dense import TwoSided

# `_NUMBERS`: a block is worked on in slices of so many numbers at most, whose copies fit the cache of a core.
_NUMBERS = 1 << 18


class KernelConfig(NamedTuple):
    """The static choices; `dtype` is that of the work."""

    squared: bool
    intercept: Intercept
    dtype: Any


class Sides(NamedTuple):
    """The loss of a residual r: `above max(0, r - epsilon) + below max(0, -r - epsilon)`, or of the squares."""

    epsilon: float
    above: float
    below: float


class Coordinates(NamedTuple):
    """What all blocks share.

    Attributes:
      centre: `(d,)`, taken from the features; 0 but for a free bias.
      normal: `(p,)`, of the reflection `a - (scaled . a) normal` that turns the rows where no free bias takes up their
        common offset: one coordinate then holds it.
      scaled: `(p,)`.
      total: The sum of the weights.
      stand_in: The weight of a row that does not count.
      shares: The sum of `c`: 1 or what the sides weigh, and what stands in.
      sides: Of a residual, or None for targets -1 and +1.
      shift: Taken from real targets; 0 but for a free bias.
    """

    centre: NDArray
    normal: NDArray
    scaled: NDArray
    total: float
    stand_in: float
    shares: float
    sides: Sides | None
    shift: float


class Block(NamedTuple):
    """Rows on their way into a kernel: `x` `(m, d)`, targets `y` `(m,)`, `weight` `(m,)` or None."""

    x: NDArray
    y: NDArray
    weight: NDArray | None


class Certificate(NamedTuple):
    """Sums over rows from which the primal value of a point and the value of a dual point follow.

    Attributes:
      loss: The weighted loss.
      adjoint: `(2, p)`, `sum alpha_i a_i` over the rows of either sign.
      sides: `(2,)`, `sum alpha_i` over them.
      linear: `(2,)`, `sum r_i alpha_i`.
      squares: `(2,)`, `sum alpha_i^2 / (4 c_i)` where the loss is squared.
    """

    loss: Any
    adjoint: NDArray
    sides: NDArray
    linear: NDArray
    squares: NDArray


class Smoothed(NamedTuple):
    """Sums over rows at a point of the smoothed objective.

    Attributes:
      certificate: Of the point, and of the dual point that its slopes are.
      loss: The weighted smoothed loss.
      slack: What the gap would be if the point were the minimiser, but for the difference of the two losses.
      gram: `(p, p)`, the second derivative of `loss`.
    """

    certificate: Certificate
    loss: Any
    slack: Any
    gram: NDArray


@dataclass(frozen=True)
class SliceRows:
    """Rows `a_i` of a slice, `features` `(m, p)` as they are worked on, in the precision of the work."""

    features: NDArray

    def products(self, z: NDArray) -> NDArray:
        """`a_i . z` for every row, `(..., m)` for `z` `(..., p)`."""
        products: NDArray = z @ self.features.T
        return products

    def adjoint(self, push: NDArray) -> NDArray:
        """`sum_i push_i a_i`, `(..., p)` for `push` `(..., m)`."""
        sums: NDArray = push @ self.features
        return sums

    def magnitudes(self, z: NDArray, push: NDArray) -> tuple[NDArray, NDArray]:
        """`|A| z` and `|A|' push`: the scale of what rounding may take from products and sums."""
        size = np.abs(self.features)
        return size @ z, push @ size

    def gram(self, weight: NDArray) -> NDArray:
        """`sum_i weight_i a_i a_i'`, `(p, p)`."""
        scaled = self.features * np.sqrt(weight)[:, None]
        gram: NDArray = scaled.T @ scaled
        return gram

    def gram_of_few(self, weight: NDArray) -> NDArray:
        """The same for weights of which most are 0."""
        chosen = np.flatnonzero(weight)
        return SliceRows(self.features[chosen]).gram(weight[chosen])


def sliced(function: Callable[[Block, Any], Any], block: Block, rows: Any) -> Any:
    """`function` of every slice: `(per row, sums, largest)` joined, added up in float64, and the largest of all."""
    m, d = block.x.shape
    step = max(1, _NUMBERS // d)
    parts = []
    with np.errstate(all="ignore"):
        for begin in range(0, m, step):
            part = slice(begin, begin + step)
            weight = None if block.weight is None else block.weight[part]
            some = jax.tree.map(lambda leaf: leaf[_of_all(part, m, leaf)], rows)  # noqa: B023
            parts.append(function(Block(block.x[part], block.y[part], weight), some))
        per_row, sums, largest = zip(*parts, strict=True)
        joined = parts[0][0] if len(parts) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *per_row)
        total = jax.tree.map(lambda *leaves: np.sum(leaves, axis=0, dtype=np.float64), *sums)
        return joined, total, None if largest[0] is None else np.max(largest)


def _of_all(part: slice, m: int, leaf: NDArray) -> slice:
    """Where the numbers of some rows lie: a residual has two for each row."""
    number = len(leaf) // m
    return slice(number * part.start, number * part.stop)


def program_of(kernel_config: KernelConfig, coordinates: Coordinates, block: Block) -> Program:
    """The program of a slice, without what belongs to all rows together."""
    dtype, (m, d) = kernel_config.dtype, block.x.shape
    features = np.empty((m, len(coordinates.normal)), dtype)
    centre = coordinates.centre.astype(np.promote_types(block.x.dtype, dtype))
    np.subtract(block.x, centre, out=features[:, :d], casting="same_kind")
    if kernel_config.intercept != "none":
        features[:, d] = 1
    if kernel_config.intercept != "free":
        change = features @ coordinates.scaled.astype(dtype)
        features -= change[:, None] * coordinates.normal.astype(dtype)
    return _program(kernel_config, coordinates, block, features)


def plain_program(kernel_config: KernelConfig, coordinates: Coordinates, block: Block) -> Program:
    """The same, nothing centred, shifted or turned."""
    m, d = block.x.shape
    features = np.empty((m, len(coordinates.normal)), kernel_config.dtype)
    features[:, :d] = block.x
    features[:, d:] = 1
    return _program(kernel_config, coordinates._replace(shift=0.0), block, features)


def _program(kernel_config: KernelConfig, coordinates: Coordinates, block: Block, features: NDArray) -> Program:
    rows: Any = SliceRows(features)
    targets = targets_of(coordinates, block.y, block.weight)
    sign, r, c = (values.astype(kernel_config.dtype) for values in targets)
    none = np.zeros_like(features[0])
    rows = rows if coordinates.sides is None else TwoSided(rows)
    return Program(rows, sign, r, c, none, none, kernel_config.squared, kernel_config.intercept == "free")


def targets_of(coordinates: Coordinates, y: NDArray, weight: NDArray | None) -> tuple[NDArray, NDArray, NDArray]:
    """`sign`, `r` and `c` of the program: one of each for a row, or two where it is a residual."""
    weight = np.ones(len(y)) if weight is None else weight
    counts = weight > 0
    c = np.where(counts, weight, coordinates.stand_in) / coordinates.total
    if coordinates.sides is None:
        sign = np.where(counts, y, 0).astype(np.float64)
        return sign, np.abs(sign), c
    epsilon, above, below = coordinates.sides
    residual = y - coordinates.shift
    sign = np.multiply.outer(counts, [1.0, -1.0]).ravel()
    r = np.where(counts[:, None], np.column_stack([residual - epsilon, -residual - epsilon]), 0).ravel()
    return sign, r, np.multiply.outer(c, [above, below]).ravel()


def boxed(program: Program, alpha: NDArray) -> NDArray:
    """`alpha` within its bounds, without a push against a pull on the same row."""
    return in_box(program.squared, isinstance(program.rows, TwoSided), program.c, alpha)


def in_box(squared: bool, paired: bool, c: NDArray, alpha: NDArray) -> NDArray:
    """The same, without a program."""
    alpha = np.maximum(alpha, 0) if squared else np.clip(alpha, 0, c)
    return net(alpha) if paired else alpha


def by_side(sign: NDArray, alpha: NDArray) -> NDArray:
    """`(2, n)`: `alpha` of the rows of either sign, 0 for the others."""
    return np.stack([np.where(sign > 0, alpha, 0), np.where(sign < 0, alpha, 0)])


def certificate(program: Program, violations: NDArray, parts: NDArray, adjoint: NDArray) -> Certificate:
    """The sums, given a dual point `by_side` and its adjoints."""
    squares = np.sum(parts**2 / (4 * program.c), axis=1) if program.squared else np.zeros(2)
    return Certificate(
        program.c @ losses(program, violations), adjoint, np.sum(parts, axis=1), parts @ program.r, squares
    )


def smoothed(z: NDArray, width: float, program: Program, _: None) -> Any:
    """The smoothed objective at `z`, its derivatives, and the dual point that its slopes are, in one pass.

    The hinge of a violation `v` becomes `(v + h)^2 / (4 h)` for `|v| < h`, h the width (Huber's; Chapelle, 2007); its
    slope there is `u = (v + h) / (2 h)`. At the minimiser, where `sum c_i u_i a_i` is what the penalty pulls, the dual
    point `c u` leaves a gap of `sum c_i h u_i (1 - u_i)` less what smoothing has added to the objective. The squared
    hinge is smooth as it is.
    """
    c, dtype = program.c, program.c.dtype.type
    v, h = program.r - program.scores(z.astype(dtype)), dtype(width)
    if program.squared:
        excess = np.maximum(v, 0)
        u, loss, slack = 2 * excess, excess * excess, np.zeros_like(v)
        curvature = np.where(v > 0, dtype(2), dtype(0))
    else:
        u = np.clip((v + h) / (2 * h), 0, 1)
        loss, slack = np.where(v < h, h * u * u, v), h * u * (1 - u)
        curvature = np.where((u > 0) & (u < 1), 1 / (2 * h), dtype(0))
    alpha = boxed(program, c * u)
    parts, used = by_side(program.sign, alpha), program.sign * program.sign
    found = certificate(program, v, parts, program.rows.adjoint(program.sign * parts))
    gram = program.rows.gram_of_few(c * curvature * used)
    counted = c * used
    return alpha, Smoothed(found, counted @ loss, counted @ slack, gram), None
