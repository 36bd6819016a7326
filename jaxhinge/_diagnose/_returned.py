"""What the caller's function returned, brought to one shape and dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxhinge._diagnose._objective import Array
from jaxhinge._diagnose._point import Point

_WEIGHT_NAMES = ("w", "weight", "weights", "coef", "coefs", "coefficients", "theta")
_BIAS_NAMES = ("b", "bias", "intercept", "b0", "w0")
_LOSS_NAMES = ("loss", "cost", "objective", "value")


@dataclass(frozen=True)
class Returned:
    """What one call gave.

    Attributes:
      gradient: `(p,)`, the coordinates of `w` (row by row), then `b`; None where no gradient could be read.
      precision: The name of the narrowest dtype that was returned.
      trouble: "" or the cause to report whatever the numbers are: raised, wrong_shape, ...
      detail: What happened, with the mend.
      wrote_to: The arguments that the function changed.
      loss: The loss that came with the gradient, else None.
      folded: Whether the gradients of `w` and `b` came as one array.
      in_jax: Whether all of it came as JAX arrays.
    """

    gradient: Array | None
    precision: str = "float64"
    trouble: str = ""
    detail: str = ""
    wrote_to: tuple[str, ...] = ()
    loss: float | None = None
    folded: bool = False
    in_jax: bool = False

    @property
    def finite(self) -> bool:
        """Whether the gradient can be judged."""
        return self.gradient is not None and bool(np.all(np.isfinite(self.gradient)))


class WrongShape(Exception):
    """What was returned cannot be read as a gradient; the message is for the user."""


class Differences(NamedTuple):
    """A gradient `(w, b)` from quotients of differences, to be judged by their rounding."""

    w: Array
    b: Array
    loss: float


def read(value: Any, point: Point, *, intercept: bool = True, bias_first: bool = False) -> Returned:
    """The gradient at this point, and the loss where one came with it; raises `WrongShape`.

    Where both gradients came as one array, `bias_first` says at which end the bias is read.
    """
    loss, (w_value, b_value) = _parts(value, point) if intercept else _weights_alone(value, point)
    w, w_precision = numbers("dw", w_value)
    number = None if loss is None else float(numbers("loss", loss)[0].reshape(()))
    if intercept and b_value is None and w.shape == (len(point.w) + 1, *point.w.shape[1:]):
        return _unfolded(w, w_precision, number, bias_first=bias_first)
    w, trouble, detail = _fitted(w, point)
    if not intercept:
        b, precision = np.zeros(point.b.shape), w_precision
    elif b_value is None:
        trouble = _joined(trouble, "bias_gradient_missing")
        detail += " No gradient of the bias was returned."
        b, precision = np.zeros(point.b.shape), w_precision
    else:
        b, b_precision = numbers("db", b_value)
        if b.size == 1 and point.b.size == 1:
            b = b.reshape(point.b.shape)
        precision = _narrower(w_precision, b_precision)
    if isinstance(value, Differences):
        precision = "differences"
    if b.shape != point.b.shape:
        if b.size != point.b.size:
            mend = " Sum over the rows." if b.shape[:1] == point.x.shape[:1] else ""
            raise WrongShape(f"The gradient of b has shape {b.shape}; b has shape {point.b.shape}.{mend}")
        trouble = _joined(trouble, "wrong_shape")
        detail += f" The gradient of b has shape {b.shape}; b has shape {point.b.shape}. Use db.reshape(b.shape)."
    return Returned(np.concatenate([w.ravel(), b.ravel()]), precision, trouble, detail.strip(), loss=number)


def _unfolded(both: Array, precision: str, loss: float | None, *, bias_first: bool) -> Returned:
    """The gradient that came with the bias as one more entry (row) of the weights."""
    ends, side = ("g[1:], g[0]", "first") if bias_first else ("g[:-1], g[-1]", "last")
    detail = (
        f"The gradients of w and b came as one array of shape {both.shape}; it was judged with the bias {side}. Return "
        f"{ends}. Adapt it: lambda *args: (lambda g: ({ends}))(your_function(*args))."
    )
    gradient = np.roll(both, -1, axis=0) if bias_first else both
    return Returned(gradient.ravel(), precision, "wrong_shape", detail, loss=loss, folded=True)


def _weights_alone(value: Any, point: Point) -> tuple[Any, tuple[Any, None]]:
    """The loss, if any, and the gradient of `w` where the model has no bias."""
    if value is None:
        raise WrongShape("It returned None. Is the return statement missing?")
    if isinstance(value, Mapping):
        loss, (w, _) = _named(value)
        return loss, (w, None)
    if isinstance(value, Iterator):
        value = tuple(value)
    if isinstance(value, Differences):
        return value.loss, (value.w, None)
    if isinstance(value, (list, tuple)) and _shape(value) != point.w.shape:
        loss = value[0] if len(value) > 1 and _size(value[0]) == 1 and _shape(value[1]) is not None else None
        rest = tuple(value) if loss is None else tuple(value[1:])
        empty = all(entry is None or not np.any(numbers("db", entry)[0]) for entry in rest[1:])
        if rest and empty:
            return loss, (rest[0], None)
        raise WrongShape(
            f"It returned {len(value)} parts, of shapes {', '.join(str(_shape(entry)) for entry in value)}. Without a "
            f"bias, return dw of shape {point.w.shape}, or (loss, dw) in this order."
        )
    if point.w.size > 1 and _size(value) == 1:
        raise WrongShape(
            "It returned one number, perhaps the loss alone, which jaxhinge.diagnose_loss judges. Without a bias, "
            f"return dw of shape {point.w.shape}, or (loss, dw) in this order."
        )
    return None, (value, None)


def _size(value: Any) -> int | None:
    shape = _shape(value)
    return None if shape is None else int(np.prod(shape))


def _fitted(w: Array, point: Point) -> tuple[Array, str, str]:
    """The weights' gradient in the shape of `w`, where another shape leaves no doubt what is meant."""
    if w.shape == point.w.shape or (w.size == 1 and point.w.size == 1 and w.ndim <= 1):
        return w.reshape(point.w.shape), "", ""
    told = f"The gradient of w has shape {w.shape}; w has shape {point.w.shape}."
    if point.w.ndim == 2 and w.shape == point.w.shape[::-1]:
        return w.T, "weights_transposed", told + " Return dW.T."
    if point.w.ndim == 1 and w.ndim == 2 and w.size == point.w.size:
        return w.ravel(), "wrong_shape", told + " Return dw.ravel()."
    mend = ""
    if w.shape == (*point.x.shape[:1], *point.w.shape):
        mend = " It has one gradient for each row: average them, dw.mean(axis=0)."
    elif w.size == len(point.x) * point.w.size and point.w.ndim == 1:
        mend = " Scores of shape (n, 1) against y of shape (n,) make (n, n): ravel one, or take y as a column."
    elif w.ndim == 0 and point.w.size > 1:
        mend = (
            " Return (dw, db), in this order, or (loss, dw, db). If it is (loss, dw) of a model without a bias, say "
            "fit_intercept=False."
        )
    raise WrongShape(told + mend)


def _parts(value: Any, point: Point) -> tuple[Any, tuple[Any, Any]]:
    """The loss and the gradients of `w` and `b`; None for a loss or a bias that did not come."""
    if value is None:
        raise WrongShape("It returned None. Is the return statement missing?")
    if isinstance(value, Mapping):
        return _named(value)
    if isinstance(value, Differences):
        return value.loss, (value.w, value.b)
    if not hasattr(value, "__len__") and hasattr(value, "w") and hasattr(value, "b"):
        return None, (value.w, value.b)
    if isinstance(value, Iterator):
        value = tuple(value)
    if not isinstance(value, (list, tuple)):
        return None, (value, None)
    if len(value) == 3 and _size(value[0]) == 1 and _shape(value[1]) == point.w.shape:
        return value[0], (value[1], value[2])
    if len(value) == 3 and _shape(value[0]) == point.w.shape and _shape(value[2]) == ():
        return value[2], (value[0], value[1])
    if len(value) == 2 and _shape(value[0]) == () and isinstance(value[1], (tuple, list, Mapping)):
        return value[0], _parts(value[1], point)[1]
    if len(value) == 2 and _shape(value[1]) == () and _is_pair(value[0]):
        return value[1], _parts(value[0], point)[1]
    if len(value) == 1:
        return None, (value[0], None)
    if len(value) == 2 and (_shape(value) != point.w.shape or point.w.shape == (1,)):
        return None, (value[0], value[1])
    if all(_shape(entry) == () for entry in value) or _shape(value) == point.w.shape:
        return None, (value, None)
    raise WrongShape(
        f"It returned {len(value)} parts, of shapes {', '.join(str(_shape(entry)) for entry in value)}; "
        f"expected (dw, db) of shapes {point.w.shape} and {point.b.shape}, (loss, dw, db) or (dw, db, loss)."
    )


def _is_pair(value: Any) -> bool:
    """Whether this holds the gradients of `w` and `b`, which are of different shapes: a list of numbers does not."""
    return isinstance(value, Mapping) or (isinstance(value, (tuple, list)) and len(value) == 2 and not _shape(value))


def _named(value: Mapping[Any, Any]) -> tuple[Any, tuple[Any, Any]]:
    """The loss, if any, and the gradients of `w` and `b`, by their usual names."""
    found: dict[str, Any] = {}
    for key, entry in value.items():
        name = str(key).lower()
        for affix in ("gradient", "grads", "grad", "_", ".", "loss/", " "):
            name = name.replace(affix, "")
        short = name.removeprefix("d")
        for part, names in (("w", _WEIGHT_NAMES), ("b", _BIAS_NAMES)):
            if name in names or short in names:
                found.setdefault(part, entry)
        if name in _LOSS_NAMES and _size(entry) == 1:
            found.setdefault("loss", entry)
    if "w" not in found:
        keys = ", ".join(repr(key) for key in value)
        raise WrongShape(f'It returned a dict with keys {keys}; expected "w" and "b", or "dw" and "db".')
    return found.get("loss"), (found["w"], found.get("b"))


def _shape(value: Any) -> tuple[int, ...] | None:
    try:
        return tuple(np.shape(value.detach() if hasattr(value, "detach") else value))
    except (TypeError, ValueError, RuntimeError):
        return None


def numbers(name: str, value: Any) -> tuple[Array, str]:
    """float64 values, and the precision they came in; torch is met through its own methods, never imported."""
    if hasattr(value, "detach") and hasattr(value, "dtype"):
        precision = str(value.dtype).removeprefix("torch.")
        if precision.startswith("complex"):
            raise WrongShape(f"{name} is not an array of real numbers: its dtype is {value.dtype}.")
        return np.asarray(value.detach().cpu().double().numpy()), _narrower(precision, "float64")
    if isinstance(value, (list, tuple)) and any(hasattr(entry, "detach") for entry in value):
        parts = [numbers(name, entry) for entry in value]
        return np.array([part for part, _ in parts]), parts[0][1]
    try:
        if hasattr(value, "todense"):
            raise TypeError("it is sparse.")
        array = np.asarray(value)
        if array.dtype.kind in "cSUMm":
            raise TypeError(f"its dtype is {array.dtype}.")
        if array.dtype.kind == "O" and any(entry is None for entry in array.flat):
            raise TypeError("it holds None.")
        return np.asarray(array, dtype=np.float64), _narrower(str(array.dtype), "float64")
    except (TypeError, ValueError) as error:
        raise WrongShape(f"{name} is not an array of real numbers but {type(value).__name__}: {error}") from error


def _narrower(first: str, second: str) -> str:
    order = ("bfloat16", "float16", "float32")
    return next((name for name in order if name in (first, second)), "float64")


def _joined(trouble: str, more: str) -> str:
    return "+".join(sorted({*filter(None, trouble.split("+")), more}))
