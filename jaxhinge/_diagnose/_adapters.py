"""Functions with other arguments than `(w, b, x, y)`, brought to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxhinge._base.arrays import flag
from jaxhinge._diagnose._signatures import name_of

_KNOWN = ("w", "b", "x", "y")


def adapt_arguments(
    function: Callable[..., Any],
    arguments: str = "w b x y",
    *,
    bias: Literal["separate", "last", "first"] = "separate",
    column_labels: bool = False,
    classes_first: bool = False,
    row_by_row: bool = False,
    **values: Any,
) -> Callable[..., Any]:
    r"""Bring a gradient (or loss) with arguments of its own to `f(w, b, x, y)`, as `diagnose` calls it. Host only.

    .. math::
        f(w, b, x, y) = \text{function in its own order, } \theta = (w, b)
        \text{ or } (b, w) \text{ where the bias is folded into the weights}

    Args:
      function: What you wrote. It returns `dw`, `(dw, db)`, `(loss, dw)`, `(loss, dw, db)`, or a loss.
      arguments: The order in which `function` takes `w`, `b`, `x` and `y`, and the names of further ones, such as
        `"w x y reg"`. Without `b` the model has no bias (say `fit_intercept=False` to `diagnose`), unless `bias` says
        where it is.
      bias: `"separate"`; or `"last"` or `"first"` where `w` holds the bias as its last or first entry (row), and `x`
        has a column of ones there.
      column_labels: Whether `y` is wanted as `(n, 1)`.
      classes_first: Whether the weights are `(k, d)`.
      row_by_row: Whether `function` takes one row `x` `(d,)` and its `y`; the mean over the rows is taken.
      **values: The values of the further arguments, passed at the place that `arguments` gives them, else by name.

    Returns:
      A function to give to `diagnose`, `diagnose_loss` or `assert_valid_gradient`.

    Raises:
      TypeError: `function` cannot be called.
      ValueError: `arguments` lacks `w`, `x` or `y`, or names something that has no value.

    References:
      The notes of the course CS231n, Linear classification (the bias trick).

    >>> import numpy as np, jaxhinge as jh
    >>> def svm_loss(W, X, y, reg):
    ...     rows, scores = np.arange(len(X)), X @ W
    ...     margins = np.maximum(0, scores - scores[rows, y][:, None] + 1)
    ...     margins[rows, y] = 0
    ...     mask = (margins > 0) * 1.0
    ...     mask[rows, y] = -mask.sum(axis=1)
    ...     return margins.sum() / len(X) + reg * np.sum(W * W), X.T @ mask / len(X) + 2 * reg * W
    >>> rng = np.random.default_rng(0)
    >>> X, y, W = rng.normal(size=(20, 5)), rng.integers(3, size=20), rng.normal(size=(5, 3))
    >>> asked = jh.adapt_arguments(svm_loss, "w x y reg", reg=0.05)
    >>> jh.diagnose(asked, W, X, y, l2=2 * 0.05, fit_intercept=False, loss_fn=jh.losses.weston_watkins_loss).cause
    'none'
    """
    if not callable(function):
        raise TypeError(f"function must be a function; got {type(function).__name__}.")
    layout = _Layout(bias, flag("column_labels", column_labels), flag("classes_first", classes_first))
    if not isinstance(bias, str) or bias not in ("separate", "last", "first"):
        raise ValueError(f'bias must be "separate", "last" or "first"; got {bias!r}.')
    flag("row_by_row", row_by_row)
    order = _checked_order(function, arguments, values)
    named = {name: value for name, value in values.items() if name not in order}

    def once(w: Any, b: Any, x: Any, y: Any) -> Any:
        given = {**values, **layout.given(w, b, x, y)}
        return layout.unfolded(function(*(given[name] for name in order), **named))

    def adapted(w: Any, b: Any, x: Any, y: Any) -> Any:
        if row_by_row:
            return _mean([once(w, b, row, label) for row, label in zip(x, y, strict=True)])
        return once(w, b, x, y)

    def without_bias(w: Any, x: Any, y: Any) -> Any:
        return adapted(w, np.zeros(w.shape[1:]), x, y)

    result = adapted if bias != "separate" or "b" in order else without_bias
    vars(result)["adapted_function"] = function
    return result


def _checked_order(function: Any, arguments: Any, values: dict[str, Any]) -> list[str]:
    """The names of what a function takes, in its order; those of `diagnose` in small letters."""
    if not isinstance(arguments, str):
        raise TypeError(
            f'arguments must be the names of what {name_of(function)} takes, in its order, as in "w x y reg"; got '
            f"{arguments!r}."
        )
    order = arguments.replace(",", " ").split()
    order = [name.lower() if name.lower() in _KNOWN else name for name in order]
    missing = [name for name in ("w", "x", "y") if name not in order]
    unknown = [name for name in order if name not in _KNOWN and name not in values]
    if missing or unknown:
        wrong = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(unknown)} without a value"
        raise ValueError(
            f"arguments must be names among w, b, x and y, and of the values that follow, as in "
            f'adapt_arguments({name_of(function)}, "w x y reg", reg=0.1); {arguments!r} {wrong}.'
        )
    return order


class _Layout(NamedTuple):
    """How a function wants its arguments, as `adapt_arguments` says."""

    bias: str
    column_labels: bool
    classes_first: bool

    def given(self, w: Any, b: Any, x: Any, y: Any) -> dict[str, Any]:
        """The arguments by their names, those of one row or of all."""
        array = jnp if any(isinstance(part, jax.Array) for part in (w, b, x)) else np
        if self.bias != "separate":
            ones = array.ones((*x.shape[:-1], 1))
            w, x = (w, b[None]), (x, ones)
            w, x = (w, x) if self.bias == "last" else (w[::-1], x[::-1])
            w, x = array.concatenate(w), array.concatenate(x, axis=-1)
        if self.column_labels and x.ndim == 2:
            y = y[:, None]
        return {"w": w.T if self.classes_first else w, "b": b, "x": x, "y": y}

    def unfolded(self, value: Any) -> Any:
        """The parts `(loss, dw, db)` that a function returned, in the layout of `w` and `b`."""
        parts = list(value) if isinstance(value, (tuple, list)) else [value]
        for place, part in enumerate(parts):
            if _ndim(part) >= 1 and (place == 0 or len(parts) == 1 or _ndim(parts[0]) == 0):
                turned = part.T if self.classes_first and _ndim(part) == 2 else part
                if self.bias == "separate":
                    parts[place] = turned
                else:
                    ends = (turned[:-1], turned[-1]) if self.bias == "last" else (turned[1:], turned[0])
                    parts[place : place + 1] = ends
                break
        return parts[0] if len(parts) == 1 else tuple(parts)


def _ndim(value: Any) -> int:
    return len(np.shape(value.detach() if hasattr(value, "detach") else value))


def _mean(found: list[Any]) -> Any:
    """The mean over the rows of what was returned for each."""
    if isinstance(found[0], tuple):
        return tuple(_mean(list(parts)) for parts in zip(*found, strict=True))
    return sum(found[1:], found[0]) / len(found)


def module_gradient(module: Any, loss: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    r"""The gradient that PyTorch takes of a module with one linear layer, for `diagnose`. Host only.

    .. math::
        (w, b) \mapsto \nabla_{w, b}\, \mathrm{loss}(\mathrm{module}(x), y)

    The parameters of the module are set to `w` and `b` for each call, and put back after it.

    Args:
      module: A `torch.nn.Module` with one matrix of weights `(1, d)` or `(k, d)`, and with a bias or without one (then
        say `fit_intercept=False`).
      loss: `loss(output, y)`, one number, with `output` as the module returns it and `y` in its dtype (labels of
        classes in int64); the regulariser included.

    Returns:
      `grad_fn(w, b, x, y)`, or `grad_fn(w, x, y)` for a module without a bias, which returns `(loss, dw, db)` or
      `(loss, dw)`.

    Raises:
      TypeError: `module` has no parameters to read, or `loss` cannot be called.
      ValueError: It has more or fewer weights than one layer.

    References:
      Paszke et al., PyTorch: an imperative style, high-performance deep learning library, 2019.

    >>> import jaxhinge as jh
    >>> jh.module_gradient(3.0, abs)
    Traceback (most recent call last):
        ...
    TypeError: module must be a torch.nn.Module with a linear layer; got float.
    """
    if not hasattr(module, "named_parameters"):
        raise TypeError(f"module must be a torch.nn.Module with a linear layer; got {type(module).__name__}.")
    if not callable(loss):
        raise TypeError(f"loss must be a function loss(output, y); got {type(loss).__name__}.")
    parameters = list(module.named_parameters())
    matrices = [one for _, one in parameters if one.ndim == 2]
    vectors = [one for _, one in parameters if one.ndim < 2]
    if len(matrices) != 1 or len(vectors) > 1:
        found = ", ".join(f"{name} {tuple(one.shape)}" for name, one in parameters) or "no parameters"
        raise ValueError(f"module must have one matrix of weights and at most one bias; it has {found}.")
    weight, bias = matrices[0], vectors[0] if vectors else None

    def gradient(w: Any, b: Any, x: Any, y: Any) -> Any:
        kept = [(one, one.detach().clone(), one.grad) for one in (weight, bias) if one is not None]
        try:
            for one, value in ((weight, np.asarray(w).T.reshape(weight.shape)), (bias, b)):
                if one is not None:
                    one.data = one.new_tensor(np.asarray(value)).reshape(one.shape)
                    one.grad = None
            labels = weight.new_tensor(y)
            value = loss(module(weight.new_tensor(x)), labels.long() if np.asarray(y).dtype.kind == "i" else labels)
            value.backward()
            dw = weight.grad.clone().T.reshape(w.shape) if weight.grad is not None else 0.0 * np.asarray(w)
            db = None if bias is None or bias.grad is None else bias.grad.clone().reshape(np.shape(b))
            return value.item(), dw, db
        finally:
            for one, value, slope in kept:
                one.data, one.grad = value, slope

    if bias is not None:
        result: Callable[..., Any] = gradient
    else:

        def result(w: Any, x: Any, y: Any) -> Any:
            return gradient(w, None, x, y)[:2]

    vars(result)["adapted_function"] = loss
    return result
