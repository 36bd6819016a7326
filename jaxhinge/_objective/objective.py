"""Affine models, their predictions, and the regularised hinge objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from jaxhinge._base.arrays import (
    as_array,
    at_least_float32,
    check_real_number,
    common_dtype,
    feature_array,
    flag,
    float_array,
    refuse_integer_zeros,
    scalar_like,
)
from jaxhinge._base.sparse import is_sparse
from jaxhinge._base.values import host_integer, inside_jit
from jaxhinge._objective.one_pass import Terms, affine, blockwise_mean_loss, blockwise_pays
from jaxhinge._objective.sparse import sparse_features
from jaxhinge._rows.sharding import explicit_mesh, with_automatic_axes
from jaxhinge.losses import hinge_loss
from jaxhinge.losses._families import BINARY, MULTILABEL, is_one_of


class LinearParams(NamedTuple):
    """Weights and bias of an affine model; wherever one is taken, any 2-tuple `(w, b)` will do.

    Attributes:
      w: `(d,)`, or `(d, k)` with one column per class.
      b: `()`, or `(k,)`.
    """

    w: jax.Array
    b: jax.Array


def init_params(num_features: int, num_classes: int | None = None, dtype: DTypeLike | None = None) -> LinearParams:
    """Parameters of zeros, from which a convex objective may safely start.

    Args:
      num_features: `d`.
      num_classes: `k` for one column per class; None for a single score.
      dtype: A floating dtype; by default JAX's (float32, or float64 where x64 is on).

    Returns:
      `LinearParams` with `w` `(d,)` and `b` `()`, or `(d, k)` and `(k,)`.

    Raises:
      ValueError: A size is not positive.
      TypeError: A size is not an integer, or `dtype` is not floating.

    >>> import jaxhinge
    >>> jaxhinge.init_params(3, num_classes=2).w.shape
    (3, 2)
    """
    host_integer("num_features", num_features, at_least=1)
    if num_classes is not None:
        host_integer("num_classes", num_classes, at_least=1)
    try:
        if isinstance(dtype, (np.ndarray, jax.Array)):
            raise TypeError("an array is not its dtype")
        dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"dtype must be a floating dtype such as jnp.float32; got {dtype!r}.") from error
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype must be floating; got {dtype}.")
    classes = () if num_classes is None else (num_classes,)
    return LinearParams(w=jnp.zeros((num_features, *classes), dtype), b=jnp.zeros(classes, dtype))


def decision_function(params: tuple[ArrayLike, ArrayLike], x: ArrayLike) -> jax.Array:
    """Scores `x @ w + b`.

    Args:
      params: `(w, b)`: `w` `(d,)` and `b` `()`, or `w` `(d, k)` and `b` `(k,)`. Differentiable.
      x: Features `(n, d)`, or one row `(d,)`. Integers and booleans are converted. Differentiable. Sparse rows
        `(n, d)`, of SciPy or a BCOO, are not made dense.

    Returns:
      Scores `(n,)`, or `(n, k)` (without `n` for one row), in the common dtype of `params` and `x`.

    Raises:
      ValueError: Shapes do not fit.
      TypeError: Something is not a real number.

    >>> import jax.numpy as jnp, jaxhinge
    >>> params = jaxhinge.LinearParams(w=jnp.array([1.0, -1.0]), b=jnp.array(0.5))
    >>> print(jaxhinge.decision_function(params, jnp.array([[2.0, 1.0], [0.0, 3.0]])))
    [ 1.5 -2.5]
    """
    w, b, features = _checked_model(params, x)
    dtype = _dtype_of(w, b, features)
    return affine(w, b, features, dtype).astype(dtype)


def predict(params: tuple[ArrayLike, ArrayLike], x: ArrayLike) -> jax.Array:
    """Predicted targets: +1 where the score is above 0, else -1; with classes, the first largest score.

    Args:
      params: `(w, b)`, as for `decision_function`.
      x: Features `(n, d)`, or one row `(d,)`, as for `decision_function`.

    Returns:
      int32 `(n,)` (`()` for one row): -1 and +1, or labels `0..k-1` where `w` is `(d, k)`.

    Raises:
      ValueError, TypeError: As `decision_function` does.

    >>> import jax.numpy as jnp, jaxhinge
    >>> params = jaxhinge.LinearParams(w=jnp.array([1.0, -1.0]), b=jnp.array(0.5))
    >>> print(jaxhinge.predict(params, jnp.array([[2.0, 1.0], [0.0, 3.0]])))
    [ 1 -1]
    """
    w, b, features = _checked_model(params, x)
    scores = decision_function((w, b), features)
    if w.ndim == 2:
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    return jnp.where(scores > 0, 1, -1).astype(jnp.int32)


def loss(
    params: tuple[ArrayLike, ArrayLike],
    x: ArrayLike,
    y: ArrayLike,
    *,
    l2: ArrayLike = 0.0,
    loss_fn: Callable[..., jax.Array] = hinge_loss,
    sample_weight: ArrayLike | None = None,
    regularize_bias: bool = False,
    **loss_options: Any,
) -> jax.Array:
    r"""The regularised objective of an affine model: mean loss plus `l2/2 ||w||^2`.

    .. math::
        \frac{\sum_i a_i\, \mathrm{loss\_fn}(x_i \cdot w + b,\ y_i)}{\sum_i a_i} + \frac{l2}{2} \|w\|^2

    with sample weights `a_i` (all 1 by default): a weight of 2 is a row given twice. In terms of
    LIBLINEAR's `C`, `l2 = 1 / (C * sum(a))`.

    Args:
      params: `(w, b)`: `w` `(d,)` and `b` `()`, or `w` `(d, k)` and `b` `(k,)` with a multiclass
        `loss_fn`. Differentiable; the gradient has the same structure. On a kink it is what
        `subgradient=` says, 0 by default.
      x: Features `(n, d)`, or one row `(d,)` with a scalar `y`. Differentiable. Sparse rows `(n, d)` are not made
        dense: a BCOO anywhere, SciPy's matrices as a constant, which `jit` cannot take as an argument.
      y: What `loss_fn` wants: targets -1 and +1 `(n,)`, labels `0..k-1` `(n,)`, or real targets; `(n, k)` for
        `losses.multilabel_margin_loss`. Values of floats and JAX arrays are not looked at.
      l2: The strength of regularisation, one number. Differentiable.
      loss_fn: `loss_fn(scores, y, **loss_options)`, one loss per row.
      sample_weight: `(n,)`, not negative, not all 0. Differentiable. A weight of 0 does not hide NaN
        or infinity in its row.
      regularize_bias: Whether `b` counts in the norm. It does not by default.
      **loss_options: Passed to `loss_fn`: `subgradient`, `kink_tol`, `margin`, ...

    Returns:
      A scalar. Scores, losses and sums are float32 at least, also for float16 and bfloat16 data.
      Values are not checked: NaN in the scores is NaN in the result.

    Raises:
      ValueError: Shapes do not fit, there are no rows, `l2` is a negative number, `loss_fn` does not give one
        loss per row; or, for a binary `loss_fn`, `y` are NumPy or Python integers that hold a 0 (labels 0 and 1
        become targets with `2 * y - 1`).
      TypeError: Something is not a real number, or `loss_fn` does not know an option.

    References:
      Bishop, Pattern Recognition and Machine Learning, 2006, section 7.1.

    >>> import jax, jax.numpy as jnp, jaxhinge
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([1, -1])
    >>> params = jaxhinge.LinearParams(w=jnp.array([1.0, 0.5]), b=jnp.array(0.0))
    >>> float(jaxhinge.loss(params, x, y, l2=0.8))
    1.5
    >>> print(jax.grad(jaxhinge.loss)(params, x, y).w)  # the first row is on the kink
    [0. 1.]
    >>> print(jax.grad(jaxhinge.loss)(params, x, y, subgradient=1.0).w)
    [-0.5  1. ]
    """
    mesh = explicit_mesh(params, x, y, l2, sample_weight, loss_options)
    if mesh is not None:
        whole = PartitionSpec()  # type: ignore[no-untyped-call]
        return with_automatic_axes(  # type: ignore[no-any-return]
            mesh, whole, loss, params, x, y, l2=l2, loss_fn=loss_fn, sample_weight=sample_weight,
            regularize_bias=regularize_bias, **loss_options,
        )  # fmt: skip
    if not callable(loss_fn):
        raise TypeError(f"loss_fn must be a function such as jaxhinge.losses.hinge_loss; got {loss_fn!r}.")
    check_real_number("l2", l2, meaning="the strength of regularisation, at least 0", valid=lambda value: value >= 0.0)
    w, b, features = _checked_model(params, x)
    rows = features.shape[:-1]
    if rows == (0,):
        raise ValueError("x has no rows; the mean over an empty batch is not defined.")
    _check_rows("y", y, (*rows, *b.shape) if is_one_of(loss_fn, MULTILABEL) else rows)
    check_targets(loss_fn, y)
    # The scores are float32 at least: 1/n in float16 loses digits beyond 16,000 rows, and the
    # gradient is a sum over rows.
    dtype = at_least_float32(_dtype_of(w, b, features))
    mean = _mean_loss(loss_fn, (w, b), features, y, sample_weight, loss_options, dtype)
    l2 = scalar_like("l2", l2, dtype)
    penalty = _penalty(l2, w) + (_penalty(l2, b) if flag("regularize_bias", regularize_bias) else 0)
    return mean + penalty


def check_targets(loss_fn: Callable[..., jax.Array], y: Any) -> None:
    """Refuse labels 0 and 1 for a binary loss, as the loss does, but by the name that users know."""
    if is_one_of(loss_fn, BINARY):
        refuse_integer_zeros("y", y)


def _mean_loss(
    loss_fn: Callable[..., jax.Array],
    params: tuple[jax.Array, jax.Array],
    x: Any,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    options: dict[str, Any],
    dtype: DTypeLike,
) -> jax.Array:
    """The mean over the rows, weighted where there are weights."""
    rows = x.shape[:-1]

    def losses() -> jax.Array:
        found = float_array("the result of loss_fn", loss_fn(affine(*params, x, dtype), y, **options))
        if found.shape != rows:
            raise ValueError(
                f"loss_fn must give one loss per row, shape {rows}; got shape {found.shape}. "
                "Return the losses without a mean or sum over rows."
            )
        return found.astype(dtype)

    blockwise = blockwise_pays(loss_fn, x, options)
    # The blockwise loss turns options into arrays, which are not checked: `eval_shape` checks the caller's own numbers.
    values = jax.eval_shape(losses) if blockwise else losses()
    weight = _row_weights(sample_weight, rows, dtype)
    if blockwise:
        total = jnp.asarray(rows[0], dtype) if weight is None else jnp.sum(weight)
        terms = Terms(x, as_array("y", y), weight)
        return blockwise_mean_loss(loss_fn, params, terms, total, options)
    return jnp.mean(values) if weight is None else jnp.sum(weight * values) / jnp.sum(weight)


def _checked_model(params: Any, x: Any) -> tuple[jax.Array, jax.Array, Any]:
    """`w`, `b` and `x` as floating arrays whose shapes fit."""
    if not isinstance(params, (tuple, list)) or len(params) != 2:
        advice = ' Use (params["w"], params["b"]).' if isinstance(params, dict) else ""
        raise TypeError(f"params must be LinearParams or a 2-tuple (w, b); got {type(params).__name__}.{advice}")
    w, b = params
    w, b = float_array("w", w), float_array("b", b)
    if is_sparse(x):
        traced = inside_jit() or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((w, b, x)))
        x = sparse_features("x", x, traced=traced)
    else:
        x = feature_array("x", x)
    if w.ndim not in (1, 2):
        raise ValueError(f"w must have shape (d,) or (d, k); got {w.shape}.")
    if b.shape != w.shape[1:]:
        advice = ""
        if w.ndim == 1 and b.shape == (1,):
            advice = " Use a scalar: b[0]."
        elif w.ndim == 2 and w.shape[1] == 1:
            advice = " For a single score use w[:, 0] and a scalar b."
        raise ValueError(f"b has shape {b.shape}, but w of shape {w.shape} needs b of shape {w.shape[1:]}.{advice}")
    if x.ndim not in (1, 2) or x.shape[-1] != w.shape[0]:
        advice = ""
        if x.ndim == 1 and w.shape[0] == 1:
            advice = " For one feature, use x[:, None]."
        elif x.ndim > 2:
            advice = " Flatten each row: x.reshape(len(x), -1)."
        elif x.ndim == 2 and x.shape[0] == w.shape[0]:
            advice = " x looks transposed: rows are examples, columns are features."
        raise ValueError(f"x has shape {x.shape}, but w of shape {w.shape} needs x of shape (n, {w.shape[0]}).{advice}")
    return w, b, x


def _dtype_of(w: jax.Array, b: jax.Array, x: Any) -> Any:
    """The common dtype, that of SciPy's numbers being the one which JAX has for theirs."""
    return common_dtype(w, b, jax.dtypes.canonicalize_dtype(x.dtype) if is_sparse(x) else x)


def _check_rows(name: str, values: ArrayLike, rows: tuple[int, ...]) -> None:
    """Refuse per-row values that would broadcast against the rows, whatever `loss_fn` does with them."""
    shape = jnp.shape(as_array(name, values))
    if shape != rows:
        advice = f" Drop the last axis: {name}[:, 0]." if shape == (*rows, 1) else ""
        raise ValueError(f"{name} has shape {shape}, but the rows of x need shape {rows}.{advice}")


def _penalty(l2: jax.Array, values: jax.Array) -> jax.Array:
    """`l2/2 ||values||^2`, multiplied from the left: so `l2 = 0` gives 0 also where the norm overflows."""
    values = values.astype(l2.dtype)
    return jnp.sum((l2 / 2 * values) * values)


def _row_weights(sample_weight: ArrayLike | None, rows: tuple[int, ...], dtype: DTypeLike) -> jax.Array | None:
    if sample_weight is None:
        return None
    weight = float_array("sample_weight", sample_weight)
    _check_rows("sample_weight", weight, rows)
    return weight.astype(dtype)
