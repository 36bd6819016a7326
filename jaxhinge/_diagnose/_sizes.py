"""What fitted sizes stand for: the causes that they are, and the quantities that they equal."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from jaxhinge._diagnose._objective import Objective
from jaxhinge._diagnose._point import Point
from jaxhinge._diagnose._recipe import Factors, Part

_MOST_CAUSES = 3
# A factor is taken for a fraction of whole numbers up to this.
_LARGEST_WHOLE = 20
_RIGHT = Part(1.0, 0)


def rounded(factors: Factors, own: Point, objective: Objective, unit: float) -> Factors:
    """The same sizes, each replaced by the quantity that it equals to rounding."""
    l2 = objective.l2 or 1.0
    data, bias = (_snapped(part, own, objective, unit) for part in factors[:2])
    relative = _snapped(Part(factors.shrinkage.factor / l2, factors.shrinkage.power), own, objective, unit)
    shrinkage, own_bias = Part(relative.factor * l2, relative.power), factors.bias_shrinkage
    # A fit leaves rounding where a part is absent.
    if abs(own_bias) <= max(1e-9, 100.0 * unit) * max(l2, abs(shrinkage.factor)):
        own_bias = 0.0
    for known in (shrinkage.factor, objective.l2, data.factor * objective.l2, 1.0):
        if known and abs(own_bias / known - 1.0) <= max(1e-8, 100.0 * unit):
            own_bias = known
            break
    return Factors(data, bias, shrinkage, own_bias)


def _snapped(part: Part, own: Point, objective: Objective, unit: float) -> Part:
    value, near = part.factor, max(1e-8, 100.0 * unit)
    if abs(value) <= near:
        return _RIGHT._replace(factor=0.0)
    for candidate in [*quantities(own, objective).values(), *_fractions(value)]:
        if abs(value / candidate - 1.0) <= near:
            return Part(candidate, part.power)
        if abs(value / candidate + 1.0) <= near:
            return Part(-candidate, part.power)
    return part


def _fractions(value: float) -> list[float]:
    """Whole numbers, their inverses, and fractions of small ones, near the value."""
    size = abs(value)
    if not np.isfinite(size):
        return []
    fraction = Fraction(size).limit_denominator(_LARGEST_WHOLE)
    found = [float(fraction)] if fraction.numerator <= _LARGEST_WHOLE else []
    found += [float(round(size))] if size >= 0.5 else [1.0 / round(1.0 / size)]
    return [one for one in found if one > 0.0]


def quantities(own: Point, objective: Objective) -> dict[str, float]:
    """The numbers of the problem that a factor may equal, with their names."""
    d, k, n = float(own.w.shape[0]), float(own.num_classes), own.rows
    found = {"d": d, "1/d": 1.0 / d, "2/d": 2.0 / d, "1/(2 d)": 0.5 / d}
    if objective.multiclass:
        found |= {
            "k": k,
            "1/k": 1.0 / k,
            "1/(k - 1)": 1.0 / (k - 1.0),
            "2/(d k)": 2.0 / (d * k),
            "1/(d k)": 1.0 / (d * k),
        }
    if objective.C is not None:
        C = objective.C
        found |= {"C": C, "1/C": 1.0 / C, "1/(C n)": 1.0 / (C * n), "C n": C * n}
    elif objective.l2 > 0.0:
        l2 = objective.l2
        found |= {"l2": l2, "1/l2": 1.0 / l2, "1/(l2 n)": 1.0 / (l2 * n), "l2 n": l2 * n}
    return {"1": 1.0, "2": 2.0, "1/2": 0.5} | found


def named_sizes(factors: Factors, own: Point, objective: Objective, unit: float) -> tuple[str, ...] | None:
    """The causes that these sizes are; None where they are all right, or stand for no cause."""
    data, bias, l2 = factors.data, factors.bias, objective.l2
    if _is_update(factors, objective, unit):
        return ("update_returned",)
    shrinkage = Part(factors.shrinkage.factor / l2, factors.shrinkage.power) if l2 else None
    about_bias = _bias_shrinkage_causes(factors, objective)
    if about_bias is None:
        return None
    scaled = data != _RIGHT and data.factor != 0.0
    regularised = shrinkage is None or _same(shrinkage, data, unit)
    if l2 and scaled and _same(data, bias, unit) and regularised and not about_bias:
        sign = ["sign_flipped"] if data.factor < 0.0 else []
        size = [] if abs(data.factor) == 1.0 and not data.power else ["everything_scaled"]
        return tuple(sorted(sign + size))
    found = [*_data_causes(data, bias, objective, unit), *_shrinkage_causes(factors.shrinkage, own, objective)]
    causes = tuple(sorted({*found, *about_bias}))
    return causes if 0 < len(causes) <= _MOST_CAUSES else None


def _same(first: Part, second: Part, unit: float) -> bool:
    near = max(1e-8, 100.0 * unit)
    return first.power == second.power and abs(first.factor - second.factor) <= near * abs(second.factor)


def _is_update(factors: Factors, objective: Objective, unit: float) -> bool:
    """Whether these are the params after a step against the gradient: `w - rate * dw`."""
    rate, near = -factors.data.factor, max(1e-7, 100.0 * unit)
    kept = 1.0 - rate * objective.l2
    moved = abs(factors.shrinkage.factor - kept) <= near and factors.shrinkage.power == 0
    kept_bias = kept if objective.intercept == "regularized" else 1.0
    bias = objective.intercept == "none" or (
        abs(factors.bias_shrinkage - kept_bias) <= near and _same(factors.data, factors.bias, unit)
    )
    return rate > 0.0 and moved and bias and abs(kept) > near


def _data_causes(data: Part, bias: Part, objective: Objective, unit: float) -> list[str]:
    if _same(data, bias, unit):
        return _part_causes(data, objective, "data_scaled", "not_averaged", "sign_flipped", "data_gradient_missing")
    if data == _RIGHT:
        names = ("bias_scaled", "bias_not_averaged", "bias_sign_flipped", "bias_gradient_missing")
        return _part_causes(bias, objective, *names)
    if bias == _RIGHT:
        names = ("weights_scaled", "weights_not_averaged", "weights_sign_flipped", "weights_gradient_missing")
        return _part_causes(data, objective, *names)
    if bias.factor == 0.0:
        names = ("data_scaled", "not_averaged", "sign_flipped", "data_gradient_missing")
        return [*_part_causes(data, objective, *names), "bias_gradient_missing"]
    if data.power == bias.power and abs(data.factor + bias.factor) <= 1e-8 * abs(bias.factor):
        names = ("data_scaled", "not_averaged", "weights_sign_flipped", "data_gradient_missing")
        return [*_part_causes(Part(abs(data.factor), data.power), objective, *names), "bias_sign_flipped"]
    return ["bias_scaled", "data_scaled"]


def _part_causes(part: Part, objective: Objective, scaled: str, summed: str, flipped: str, missing: str) -> list[str]:
    if part.factor == 0.0:
        return [missing]
    causes = [flipped] if part.factor < 0.0 else []
    if part.power == 1 and abs(part.factor) == 1.0 and objective.C is None:
        return [*causes, summed]
    return causes if part.power == 0 and abs(part.factor) == 1.0 else [*causes, scaled]


def _shrinkage_causes(strength: Part, own: Point, objective: Objective) -> list[str]:
    if objective.l2 == 0.0:
        return ["regularizer_unexpected"] if strength.factor else []
    part = Part(strength.factor / objective.l2, strength.power)
    for (factor, power), cause in _SHRINKAGES.items():
        if part.power == power and abs(part.factor - factor) <= 1e-8:
            return [cause] if cause else []
    known = [*quantities(own, objective).values(), *_fractions(part.factor)]
    stated = part.power != 0 or any(abs(part.factor) == candidate for candidate in known)
    return ["regularizer_scaled" if stated else "regularizer_unexpected"]


_SHRINKAGES = {
    (1.0, 0): "",
    (0.0, 0): "regularizer_missing",
    (2.0, 0): "regularizer_doubled",
    (0.5, 0): "regularizer_halved",
    (1.0, -1): "regularizer_averaged",
    (1.0, 1): "regularizer_times_n",
    (-1.0, 0): "regularizer_sign_flipped",
}


def _bias_shrinkage_causes(factors: Factors, objective: Objective) -> list[str] | None:
    """What is wrong with what the bias gets of itself; None where it fits no cause."""
    found, weights, l2 = factors.bias_shrinkage, factors.shrinkage, objective.l2
    alike = weights.power == 0 and np.isclose(found, weights.factor, rtol=1e-7, atol=0.0)
    if objective.intercept == "regularized":
        return [] if alike or (found == 0.0 and l2 == 0.0) else ["bias_regularizer_missing"] if found == 0.0 else None
    if found == 0.0:
        return []
    return ["bias_regularized"] if alike or np.isclose(found, l2, rtol=1e-7, atol=0.0) else None


def described(part: Part, own: Point, objective: Objective) -> str:
    """A size as a number, with what it equals."""
    value = f"{part.factor:.6g}"
    equal = next((name for name, number in quantities(own, objective).items() if abs(part.factor) == number), "")
    if part.power == 1:
        count = 1.0 / part.factor
        whole = abs(count - round(count)) < 1e-6 and abs(count) > 1.5
        return f"n / {round(count)} (a batch size of {round(count)}?)" if whole else f"{value} n"
    if part.power == -1:
        return f"{equal if equal and not equal.isdigit() else value} / n"
    return f"{value} = {equal}" if equal and equal not in (value, "1/2") else value
