"""The gradient doctor: is a hinge gradient right and, if not, why?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from jaxhinge._base.values import check_outside_jit
from jaxhinge._diagnose._adapters import adapt_arguments, module_gradient
from jaxhinge._diagnose._calls import calling_of
from jaxhinge._diagnose._diagnosis import Diagnosis
from jaxhinge._diagnose._examine import Examination, Patient
from jaxhinge._diagnose._objective import objective_of
from jaxhinge._diagnose._point import checked_labels, checked_point
from jaxhinge._diagnose._signatures import suggested_call
from jaxhinge._diagnose._user_loss import coarse, difference_gradient, kink_places, narrower, traced_gradient
from jaxhinge._diagnose._written import not_judged
from jaxhinge.losses import hinge_loss

__all__ = [
    "Diagnosis",
    "adapt_arguments",
    "assert_valid_gradient",
    "diagnose",
    "diagnose_loss",
    "module_gradient",
]


# What overflows agrees with nothing.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def diagnose(
    grad_fn: Callable[..., Any],
    params: Any,
    x: Any,
    y: Any,
    *,
    l2: Any = 0.0,
    C: Any = None,
    loss_fn: Callable[..., Any] = hinge_loss,
    fit_intercept: Any = True,
    sample_weight: Any = None,
    labels: Any = None,
) -> Diagnosis:
    r"""Say whether a gradient of the hinge objective is right and, if not, why. Host only.

    The objective is that of `jaxhinge.loss`, the mean loss plus `l2/2 ||w||^2`, or with `C` the form
    `1/2 ||w||^2 + C sum loss`. At a kink it has no gradient but a set of subgradients, and each of them is right:

    .. math::
        \Big\{ l2\,w - \frac1n \sum_{m_i < 1} y_i x_i - \frac1n \sum_{m_i = 1} \theta_i y_i x_i :
        \theta_i \in [0, 1] \Big\}, \qquad m_i = y_i (x_i \cdot w + b)

    (for a tie in a max over classes, the hull over the tied classes). `diagnose` calls `grad_fn` at
    about twenty points: your own, your rows with other params, and made-up rows of the same width, some
    of them exactly on the kink and some just beside it. Each returned gradient must be in the set,
    to the rounding of the dtype that the function works in. Where one is not, every known mistake,
    and every two together, is tried as an explanation of all the points.

    Args:
      grad_fn: `grad_fn(w, b, x, y)`, called with NumPy copies (float64; labels of classes int64). It
        returns `(dw, db)` in the shapes of `w` and `b`: NumPy, JAX or torch arrays, lists, a tuple
        or a dict (`"w"`, `"b"`, `"dw"`, `"db"`, ...). Of `(loss, (dw, db))`, `(loss, dw, db)`, `(dw, db, loss)` and a
        dict with a `"loss"` the loss is judged too. A JAX function that returns the same when it is compiled is called
        compiled. Functions with other arguments go through `adapt_arguments`, and a
        `torch.nn.Module` with its loss through `module_gradient`:

            jh.adapt_arguments(svm_loss, "w x y reg", reg=0.1)     # CS231n's f(W, X, y, reg)
            jh.adapt_arguments(gradient, "w x y", bias="last")     # theta = (w, b), x with a column of ones
            jh.adapt_arguments(gradient, column_labels=True)       # y as (n, 1)
            jh.adapt_arguments(gradient, row_by_row=True)          # one row at a time

      params: `(w, b)`: `w` `(d,)` and `b` `()`, or `w` `(d, k)` and `b` `(k,)`; without a bias `w` or `(w,)`.
      x: Features `(n, d)`.
      y: Targets -1 and +1 `(n,)`, or labels `0..k-1`, or real numbers for a regression.
      l2: The regularisation that `grad_fn` is meant to have, one number of at least 0.
      C: In place of `l2`: the objective is `1/2 ||w||^2 + C sum_i loss_i`.
      loss_fn: A loss of `jaxhinge.losses` that is a function of linear scores: `hinge_loss`, `squared_hinge_loss`,
        `smooth_hinge_loss`, `perceptron_loss`; `weston_watkins_loss`, `multiclass_hinge_loss`,
        `multiclass_perceptron_loss`, `one_vs_rest_hinge_loss`; `epsilon_insensitive_loss`,
        `squared_epsilon_insensitive_loss`, `pinball_loss`; or a `functools.partial` of one that sets `margin`, `width`,
        `epsilon` or `quantile`.
      fit_intercept: True; `"regularized"` where the regulariser includes the bias; False for a model without one: then
        `grad_fn(w, x, y)` returns `dw`, or `(loss, dw)`.
      sample_weight: Weights of the rows `(n,)`: the loss is their weighted mean (with `C`, the weighted sum). They are
        passed on where `grad_fn` has a parameter `sample_weight` or a fifth one; else it is taken to know them, such as
        weights of classes.
      labels: What `y` and `grad_fn` call the labels, where that is not -1 and +1 or `0..k-1`: `(0, 1)`, negative first.

    Returns:
      A `Diagnosis`: `ok`, `cause`, `findings`, `kink_rows`, ...; print it for a report.

    Raises:
      ValueError: Your data, not the function, is at fault: shapes that do not fit, labels outside
        {-1, +1} or `0..k-1`, NaN or infinity, a negative `l2`, both `l2` and `C`; or `loss_fn` is not one of the above.
      TypeError: Something is not a real number, or `grad_fn` cannot be called.

    References:
      Boyd and Vandenberghe, Subgradients (lecture notes to Convex Optimization), 2004; Wolfe,
      Finding the nearest point in a polytope, 1976 (the test of membership).

    >>> import numpy as np, jaxhinge as jh
    >>> def gradient(w, b, x, y):
    ...     push = -y * (y * (x @ w + b) < 1)
    ...     return x.T @ push + 0.1 * w, push.sum()
    >>> x, y = np.array([[1.0, 2.0], [-1.0, 0.5], [0.0, -1.0]]), np.array([1, -1, -1])
    >>> diagnosis = jh.diagnose(gradient, (np.array([0.5, 0.5]), 0.0), x, y, l2=0.1)
    >>> diagnosis.ok, diagnosis.cause
    (False, 'not_averaged')
    >>> print(diagnosis.mends[0])
    dw_data /= n; db /= n
    """
    check_outside_jit("diagnose")
    if not callable(grad_fn):
        raise TypeError(f"grad_fn must be a function grad_fn(w, b, x, y); got {type(grad_fn).__name__}.")
    objective = objective_of(loss_fn, l2, C, fit_intercept)
    suggest = partial(suggested_call, grad_fn)
    own = checked_point(params, x, y, objective, sample_weight=sample_weight, labels=labels, suggest=suggest)
    names = checked_labels(labels, objective, own.num_classes)
    return Examination(Patient(grad_fn, grad_fn, names), own, objective).diagnosis()


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def diagnose_loss(
    user_loss: Callable[..., Any],
    /,
    params: Any,
    x: Any,
    y: Any,
    *,
    l2: Any = 0.0,
    C: Any = None,
    loss_fn: Callable[..., Any] = hinge_loss,
    fit_intercept: Any = True,
    sample_weight: Any = None,
    labels: Any = None,
) -> Diagnosis:
    r"""Say whether a loss that you wrote has the gradients of the hinge objective. Host only.

    .. math::
        \partial\,\mathrm{user\_loss}(w, b, x, y) \in
        \partial \Big( \frac1n \sum_i \mathrm{loss\_fn}(x_i \cdot w + b, y_i) + \frac{l2}{2} \|w\|^2 \Big)

    A loss that JAX can trace is differentiated in float64, so that what its gradient does at the
    kink is judged too. Any other is judged by differences of its values, away from kinks; for
    that they must be float64. Losses in float32 are not judged: the cause is "unknown", and the report says
    why. Either way a kink that sits at another margin than it should is found. Differences take two
    calls for each weight, so that of very many features only the first are judged; the report says so.

    Args:
      user_loss: `user_loss(w, b, x, y)`, one number, regularisation included; `adapt_arguments` brings other arguments
        to these.
      params, x, y, l2, C, fit_intercept, sample_weight, labels: As for `diagnose`.
      loss_fn: What `user_loss` should be like, per row.

    Returns:
      A `Diagnosis`, as `diagnose` returns it.

    Raises:
      ValueError, TypeError: As `diagnose` does.

    References:
      Bolte and Pauwels, Conservative set valued fields, automatic differentiation, stochastic
      gradient methods and deep learning, 2021.

    >>> import numpy as np, jaxhinge as jh
    >>> def my_loss(w, b, x, y):
    ...     return np.mean(np.maximum(0.0, -y * (x @ w + b)))
    >>> x, y = np.array([[1.0, 2.0], [-1.0, 0.5]]), np.array([1, -1])
    >>> diagnosis = jh.diagnose_loss(my_loss, (np.array([0.5, 0.5]), 0.0), x, y)
    >>> diagnosis.cause
    'threshold_at_zero'
    >>> diagnosis.findings[-1]
    'The loss of one row has its kink at margin 0; it should be at margin 1.'
    """
    check_outside_jit("diagnose_loss")
    if not callable(user_loss):
        raise TypeError(f"user_loss must be a function user_loss(w, b, x, y); got {type(user_loss).__name__}.")
    objective = objective_of(loss_fn, l2, C, fit_intercept)
    suggest = partial(suggested_call, user_loss, door="diagnose_loss")
    own = checked_point(params, x, y, objective, sample_weight=sample_weight, labels=labels, suggest=suggest)
    names = checked_labels(labels, objective, own.num_classes)
    calling = calling_of(user_loss, objective, names, weighted=own.weight is not None, is_loss=True)
    traced = traced_gradient(user_loss, own, calling)
    if traced is None and coarse(user_loss, own, calling):
        return not_judged(own, objective)
    narrowed = narrower(user_loss, own, calling) if traced is None else None
    own = narrowed or own
    values = user_loss if traced is None else _first_of(traced)
    places = kink_places(values, own, objective, calling)
    kink = places[0] if len(places) == 1 else None
    gradient = traced or difference_gradient(user_loss, calling)
    patient = Patient(user_loss, gradient, names, is_loss=True, kink=kink, beside_kinks=traced is not None)
    diagnosis = Examination(patient, own, objective).diagnosis()
    if narrowed is not None:
        note = f"It was judged on your first {len(own.w)} features, for differences take two calls for each weight."
        diagnosis = replace(diagnosis, findings=(*diagnosis.findings, note))
    if diagnosis.ok or not places or places == [objective.margin]:
        return diagnosis
    found = " and ".join(f"{place:g}" for place in places)
    sentence = f"The loss of one row has its kink at margin {found}; it should be at margin {objective.margin:g}."
    return replace(diagnosis, findings=(*diagnosis.findings, sentence))


def _first_of(function: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    return lambda *arguments, **options: function(*arguments, **options)[0]


def assert_valid_gradient(
    grad_fn: Callable[..., Any],
    params: Any,
    x: Any,
    y: Any,
    *,
    l2: Any = 0.0,
    C: Any = None,
    loss_fn: Callable[..., Any] = hinge_loss,
    fit_intercept: Any = True,
    sample_weight: Any = None,
    labels: Any = None,
) -> None:
    """Fail with the report of `diagnose` unless the gradient is right; for test suites. Host only.

    Any subgradient is right at a kink, where a numerical gradient check would refuse it.

    Args:
      grad_fn, params, x, y, l2, C, loss_fn, fit_intercept, sample_weight, labels: As for `diagnose`.

    Raises:
      AssertionError: The gradient is wrong; the message is the report.
      ValueError, TypeError: As `diagnose` does.

    References:
      As for `diagnose`.

    >>> import jax, jaxhinge as jh, numpy as np
    >>> x, y = np.array([[1.0, 2.0], [-1.0, 0.5]]), np.array([1, -1])
    >>> gradient = lambda w, b, x, y: jax.grad(jh.loss)((w, b), x, y, l2=0.1)
    >>> jh.assert_valid_gradient(gradient, (np.array([0.5, 0.25]), 0.0), x, y, l2=0.1)
    """
    stated = {"l2": l2, "C": C, "loss_fn": loss_fn, "fit_intercept": fit_intercept}
    diagnosis = diagnose(grad_fn, params, x, y, **stated, sample_weight=sample_weight, labels=labels)
    if not diagnosis.ok:
        raise AssertionError(str(diagnosis))
