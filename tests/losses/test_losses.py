"""Every loss of the table: values against plain Python and against the peers, gradients, corners, refusals."""

import functools
import importlib.util
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import pytest
import sklearn.metrics
from helpers.references import CASES, DEFAULT_CASES, case_id
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads

from jaxhinge import losses

INF, NAN = float("inf"), float("nan")
SUBGRADIENTS = [0.0, 0.25, 0.5, 1.0]
MULTICLASS = [
    name for name in losses.__all__ if "multiclass" in name or name in ("weston_watkins_loss", "one_vs_rest_hinge_loss")
]
BINARY = ["hinge_loss", "squared_hinge_loss", "smooth_hinge_loss", "perceptron_loss"]
OF_SIGNS = [*BINARY, "margin_ranking_loss", "hinge_embedding_loss"]

all_cases = pytest.mark.parametrize("case", CASES, ids=case_id)
default_cases = pytest.mark.parametrize("case", DEFAULT_CASES, ids=case_id)
# All but those that differ in a number only.
formula_cases = pytest.mark.parametrize(
    "case", [case for case in CASES if not {"margin", "width", "epsilon", "quantile"} & {*case.options}], ids=case_id
)

WITH_TARGET = [case for case in DEFAULT_CASES if case.name not in ("triplet_margin_loss", "multilabel_margin_loss")]
target_cases = pytest.mark.parametrize("case", WITH_TARGET, ids=case_id)
real_target_cases = pytest.mark.parametrize(
    "case", [case for case in WITH_TARGET if case.name not in MULTICLASS], ids=case_id
)


def call(case, *arguments, **options):
    return getattr(losses, case.name)(*arguments, **{**case.options, **options})


def score_gradients(case, *arguments, **options):
    """The gradient of the summed loss in every differentiable score."""
    total = lambda *scores: call(case, *scores, *arguments[case.num_scores :], **options).sum()  # noqa: E731
    return jax.grad(total, tuple(range(case.num_scores)))(*arguments[: case.num_scores])


# What decides which formula is traced; all other options are numbers of a program that is compiled once for all cases.
_CHOICES = ("p", "swap", "ties")


@functools.cache
def _program(name, choices):
    def both(arguments, options):
        case = next(case for case in DEFAULT_CASES if case.name == name)
        options = {**options, **dict(choices)}
        return call(case, *arguments, **options), score_gradients(case, *arguments, **options)

    return jax.jit(both)


def values_and_gradients(case, *arguments, **options):
    """The losses, and the gradient of their sum in every differentiable score, compiled."""
    options = {**case.options, **options}
    choices = tuple((name, options.pop(name)) for name in _CHOICES if name in options)
    return _program(case.name, choices)(arguments, jax.tree.map(np.asarray, options, is_leaf=lambda v: type(v) is list))


def in_dtype(case, dtype):
    """The arguments of a case with its scores in a dtype; integer targets stay integers."""
    return [jnp.asarray(a, dtype if a.dtype.kind == "f" else None) for a in case.arguments()]


def test_every_loss_has_a_case():
    assert {case.name for case in DEFAULT_CASES} == set(losses.__all__)


# Values


@all_cases
def test_values_are_those_of_a_plain_loop(case):
    # One or two roundings of float32 each in a sum of up to four terms.
    np.testing.assert_allclose(values_and_gradients(case, *case.arguments())[0], case.values(), rtol=2e-6, atol=2e-6)


@all_cases
def test_values_in_float64(case, x64):
    np.testing.assert_allclose(values_and_gradients(case, *case.arguments())[0], case.values(), rtol=1e-14, atol=1e-14)


def _peers():
    """(loss name, options, peer): the peer takes the same NumPy arguments and gives the same losses."""
    yield "hinge_loss", {}, optax.losses.hinge_loss
    yield "perceptron_loss", {}, optax.losses.perceptron_loss
    yield "multiclass_hinge_loss", {}, optax.losses.multiclass_hinge_loss
    yield "multiclass_perceptron_loss", {}, optax.losses.multiclass_perceptron_loss
    if importlib.util.find_spec("jaxopt"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
            from jaxopt import loss as jaxopt_loss

        yield "multiclass_hinge_loss", {}, lambda s, t: jax.vmap(jaxopt_loss.multiclass_hinge_loss)(t, s)
        yield "multiclass_perceptron_loss", {}, lambda s, t: jax.vmap(jaxopt_loss.multiclass_perceptron_loss)(t, s)
        yield "hinge_loss", {}, lambda s, t: jaxopt_loss.binary_hinge_loss((t > 0).astype(int), s)
        yield "perceptron_loss", {}, lambda s, t: jaxopt_loss.binary_perceptron_loss((t > 0).astype(int), s)


PEERS = list(_peers())


@pytest.mark.parametrize(("name", "options", "peer"), PEERS, ids=[name for name, *_ in PEERS])
def test_values_and_gradients_are_those_of_the_jax_peers(name, options, peer):
    case = next(case for case in DEFAULT_CASES if case.name == name)
    scores, targets = in_dtype(case, jnp.float32)
    with jax.numpy_rank_promotion("allow"):
        expected, gradient = jax.jit(lambda s: (peer(s, targets), jax.grad(lambda s: peer(s, targets).sum())(s)))(
            scores
        )
    values, gradients = values_and_gradients(case, scores, targets, **options)
    np.testing.assert_allclose(values, expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(gradients[0], gradient)


def test_means_are_those_of_scikit_learn(x64):
    cases = {case.name: case for case in DEFAULT_CASES}
    scores, targets = cases["hinge_loss"].arguments()
    means = {"hinge": (losses.hinge_loss(scores, targets), sklearn.metrics.hinge_loss(targets, scores))}
    scores, labels = cases["multiclass_hinge_loss"].arguments()
    means["crammer_singer"] = (
        losses.multiclass_hinge_loss(scores, labels),
        sklearn.metrics.hinge_loss(labels, scores, labels=range(4)),
    )
    predictions, targets = cases["pinball_loss"].arguments()
    for q in (0.1, 0.5, 0.9):
        means[f"pinball {q}"] = (
            losses.pinball_loss(predictions, targets, quantile=q),
            sklearn.metrics.mean_pinball_loss(targets, predictions, alpha=q),
        )
    for name, (ours, theirs) in means.items():
        np.testing.assert_allclose(jnp.mean(ours), theirs, rtol=1e-14, err_msg=name)


def test_one_half_of_the_pinball_loss_is_the_absolute_error():
    r = jnp.array([-2.0, -0.5, 0.0, 3.0])
    np.testing.assert_array_equal(2 * losses.pinball_loss(r, 0.0), jnp.abs(r))
    np.testing.assert_array_equal(losses.epsilon_insensitive_loss(r, 0.0, epsilon=0.0), jnp.abs(r))


if importlib.util.find_spec("torch"):
    import torch
    import torch.nn.functional as F

    def _torch_weston_watkins(s, t, class_weight=None, **options):
        weight = None if class_weight is None else torch.tensor(class_weight, dtype=s.dtype)
        # torch divides by the number of classes.
        return s.shape[1] * F.multi_margin_loss(s, t, weight=weight, reduction="none", **options)

    TORCH = {
        "hinge_loss": lambda s, t, margin=1.0: torch.relu(margin - t * s),
        "margin_ranking_loss": functools.partial(F.margin_ranking_loss, reduction="none"),
        "hinge_embedding_loss": functools.partial(F.hinge_embedding_loss, reduction="none"),
        "triplet_margin_loss": functools.partial(F.triplet_margin_loss, reduction="none"),
        "weston_watkins_loss": _torch_weston_watkins,
        "multilabel_margin_loss": functools.partial(F.multilabel_margin_loss, reduction="none"),
    }
    TORCH_CASES = [
        case
        for case in CASES
        if case.name in TORCH
        and "class_margin" not in case.options
        and not (case.name == "multilabel_margin_loss" and case.options)
    ]

    @pytest.mark.parametrize("case", TORCH_CASES, ids=case_id)
    def test_values_and_gradients_are_those_of_torch(case, x64):
        arguments = [torch.tensor(a) for a in case.arguments()]
        scores = [a.requires_grad_() for a in arguments[: case.num_scores]]
        expected = TORCH[case.name](*scores, *arguments[case.num_scores :], **case.options)
        expected.sum().backward()
        ours = case.arguments()
        # Some roundings of float64 in sums of a few terms, and in a power and its root.
        values, gradients = values_and_gradients(case, *ours)
        np.testing.assert_allclose(values, expected.detach().numpy(), rtol=1e-13, atol=1e-14)
        for gradient, score in zip(gradients, scores, strict=True):
            np.testing.assert_allclose(gradient, score.grad.numpy(), rtol=1e-12, atol=1e-14)


# Gradients off the kink


@all_cases
def test_gradients_off_the_kink_are_the_differences_of_a_plain_loop(case, x64):
    arguments, step = case.arguments(), 1e-6
    _, gradients = values_and_gradients(case, *arguments, subgradient=0.3)
    for position, gradient in enumerate(gradients):
        scores = arguments[position]
        for column in np.ndindex(scores.shape[1:]):
            shift = np.zeros_like(scores)
            shift[(slice(None), *column)] = step
            above, below = ([*arguments[:position], scores + d, *arguments[position + 1 :]] for d in (shift, -shift))
            difference = (case.values(above) - case.values(below)) / (2 * step)
            np.testing.assert_allclose(np.asarray(gradient)[(slice(None), *column)], difference, rtol=1e-7, atol=1e-8)


# All others are pieces of planes, whose slopes are compared above.
CURVED = ("squared_hinge_loss", "smooth_hinge_loss", "triplet_margin_loss", "squared_epsilon_insensitive_loss")


@pytest.mark.parametrize("case", [case for case in DEFAULT_CASES if case.name in CURVED], ids=case_id)
def test_gradients_off_the_kink_agree_with_finite_differences_to_second_order(case, x64):
    arguments = in_dtype(case, jnp.float64)
    scores, rest = arguments[: case.num_scores], arguments[case.num_scores :]
    # A subgradient that is right nowhere but on the kink, so that reading it elsewhere would show.
    loss = jax.jit(lambda *scores: call(case, *scores, *rest, subgradient=0.3))
    check_grads(loss, scores, order=2, eps=1e-6, rtol=1e-4)


# Slopes on the kink: every argument lies exactly on it

ON_THE_KINK = {
    "hinge_loss": ((1.0, 1), lambda s: -s),
    "hinge_loss, target -1": ((-1.0, -1), lambda s: s),
    "hinge_loss, margin": ((2.0, 1, {"margin": 2.0}), lambda s: -s),
    "squared_hinge_loss": ((1.0, 1), lambda s: 0),
    "smooth_hinge_loss": ((1.0, 1), lambda s: 0),
    "smooth_hinge_loss, the other end of the parabola": ((0.0, 1), lambda s: -1),
    "perceptron_loss": ((0.0, 1), lambda s: -s),
    "multiclass_hinge_loss": (([1.0, 0.0, -1.0], 0), lambda s: [-s, s, 0]),
    "multiclass_hinge_loss, tied": (([1.0, 0.0, 0.0], 0), lambda s: [-s, s / 2, s / 2]),
    "multiclass_hinge_loss, first": (([1.0, 0.0, 0.0], 0, {"ties": "first"}), lambda s: [-s, s, 0]),
    "weston_watkins_loss": (([1.0, 0.0, 0.0, 1.0], 0), lambda s: [-1 - 2 * s, s, s, 1]),
    "weston_watkins_loss, weighted": (
        ([1.0, 0.0, 1.0], 0, {"class_weight": [2.0, 1.0, 1.0]}),
        lambda s: [-2 - 2 * s, 2 * s, 2],
    ),
    "weston_watkins_loss, class margin": (
        ([1.0, -1.0, 1.0], 0, {"class_margin": [2.0, 1.0, 1.0]}),
        lambda s: [-1 - s, s, 1],
    ),
    "weston_watkins_loss, squared": (([1.0, 0.0, 0.5], 0, {"p": 2}), lambda s: [-1, 0, 1]),
    "multilabel_margin_loss": (([1.0, 0.0, 1.0, 0.0], [0, 2, -1, 1]), lambda s: [-s / 2, s / 2, -s / 2, s / 2]),
    "one_vs_rest_hinge_loss": (([1.0, -1.0, -2.0, 0.0], 0), lambda s: [-s, s, 0, 1]),
    "multiclass_perceptron_loss": (([0.0, 0.0, 0.0], 1), lambda s: [s / 2, -s, s / 2]),
    "margin_ranking_loss": ((0.5, 0.5, 1), lambda s: -s),
    "hinge_embedding_loss": ((1.0, -1), lambda s: -s),
    "hinge_embedding_loss, similar": ((1.0, 1), lambda s: 1),
    "triplet_margin_loss": (([0.0], [0.5], [1.5]), lambda s: [0]),
    "epsilon_insensitive_loss": ((1.0, 0.5, {"epsilon": 0.5}), lambda s: s),
    "epsilon_insensitive_loss, below": ((0.0, 0.5, {"epsilon": 0.5}), lambda s: -s),
    "epsilon_insensitive_loss, no tube": ((0.5, 0.5, {"epsilon": 0.0}), lambda s: 0),
    "squared_epsilon_insensitive_loss": ((1.0, 0.5, {"epsilon": 0.5}), lambda s: 0),
    "pinball_loss": ((0.5, 0.5, {"quantile": 0.25}), lambda s: s * 0.5),
}


def _on_the_kink(name):
    arguments, expected = ON_THE_KINK[name]
    options = arguments[-1] if isinstance(arguments[-1], dict) else {}
    first, *rest = [jnp.asarray(a) for a in arguments if not isinstance(a, dict)]
    return functools.partial(getattr(losses, name.split(",")[0]), **options), first, rest, expected


@pytest.mark.parametrize("name", ON_THE_KINK)
def test_the_slope_on_the_kink_is_the_one_asked_for(name):
    loss_fn, scores, rest, expected = _on_the_kink(name)

    @jax.jit
    def slopes(subgradients):
        slope = lambda **options: jax.grad(loss_fn)(scores, *rest, **options)  # noqa: E731
        one_by_one = [slope(subgradient=s) for s in subgradients]
        return slope(), one_by_one, jax.vmap(lambda s: slope(subgradient=s))(subgradients)

    default, one_by_one, batch = slopes(jnp.array(SUBGRADIENTS))
    # 0, but where the margin is 0 and nothing would ever move.
    np.testing.assert_array_equal(default, np.float32(expected("perceptron" in name or "ranking" in name)))
    asked_for = np.float32([expected(s) for s in SUBGRADIENTS])
    np.testing.assert_array_equal(np.stack(one_by_one), asked_for)
    np.testing.assert_array_equal(batch, asked_for)


def test_the_triplet_kink_pushes_positive_and_negative():
    anchor, positive, negative = (jnp.array([a]) for a in (0.0, 0.5, 1.5))
    # 1e-6 is lost against 0.5 and 1.5 in neither distance alike, so the band catches the rounding.
    slopes = jax.jit(jax.grad(losses.triplet_margin_loss, (0, 1, 2)))
    np.testing.assert_array_equal(
        slopes(anchor, positive, negative, subgradient=0.25, kink_tol=1e-5), [[0], [0.25], [-0.25]]
    )


@pytest.mark.parametrize("m", [0.75, 1.0, 1.25])
def test_kink_tol_is_a_band_of_margins(m):
    value, slope = jax.jit(jax.value_and_grad(losses.hinge_loss))(m, 1, subgradient=0.5, kink_tol=0.25)
    assert (float(value), float(slope)) == (max(0, 1 - m), -0.5)


def test_zero_scores_move_where_the_margin_is_0():
    assert float(jax.jit(jax.grad(losses.perceptron_loss))(0.0, 1)) == -1
    assert float(jax.jit(jax.grad(losses.margin_ranking_loss))(0.0, 0.0, 1)) == -1
    np.testing.assert_array_equal(jax.jit(jax.grad(losses.multiclass_perceptron_loss))(np.zeros(2), 0), [-1, 1])


def test_second_derivative_of_the_squared_hinge_on_its_kink():
    curvature = jax.jit(jax.hessian(losses.squared_hinge_loss))
    assert [float(curvature(1.0, 1, subgradient=s)) for s in (0.0, 0.5, 1.0)] == [0, 0.5, 2]


# Dtypes


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@default_cases
def test_dtype_is_kept(case, dtype):
    arguments = in_dtype(case, dtype)
    value, gradients = values_and_gradients(case, *arguments)
    assert value.dtype == dtype
    assert all(gradient.dtype == dtype for gradient in gradients)
    # The same in float32, to a few roundings of the narrower format at the size of the scores.
    arguments = [np.asarray(a.astype(jnp.float32) if a.dtype == dtype else a) for a in arguments]
    exact, _ = values_and_gradients(case, *arguments)
    scale = max(np.abs(a).max() for a in arguments) + np.max(exact)
    np.testing.assert_allclose(value.astype(jnp.float32), exact, rtol=0, atol=4 * scale * float(jnp.finfo(dtype).eps))


@default_cases
def test_float64_is_kept(case, x64):
    arguments = in_dtype(case, jnp.float64)
    run = functools.partial(jax.eval_shape, functools.partial(call, case))
    assert run(*arguments).dtype == jnp.float64
    assert run(*in_dtype(case, jnp.float32)).dtype == jnp.float32


def test_wider_targets_do_not_widen_the_scores(x64):
    scores = jnp.ones(3, jnp.float32)
    assert losses.hinge_loss(scores, np.ones(3, np.float64)).dtype == jnp.float32
    assert losses.pinball_loss(scores, np.ones(3, np.float64), quantile=np.float64(0.3)).dtype == jnp.float32


# NaN, infinite and huge scores


@default_cases
def test_a_nan_score_gives_a_nan_loss_and_gradient_in_its_own_row_only(case):
    arguments = in_dtype(case, jnp.float32)
    for position in range(case.num_scores):
        bad = list(arguments)
        bad[position] = bad[position].at[3].set(NAN)
        values, gradients = values_and_gradients(case, *bad)
        expected = np.arange(12) == 3
        np.testing.assert_array_equal(np.isnan(values), expected)
        np.testing.assert_array_equal(np.isnan(gradients[position]).reshape(12, -1).any(axis=1), expected)


@real_target_cases
def test_a_nan_target_gives_a_nan_loss_and_gradient(case):
    arguments = in_dtype(case, jnp.float32)
    arguments[-1] = arguments[-1].astype(jnp.float32).at[3].set(NAN)
    expected = np.arange(12) == 3
    values, gradients = values_and_gradients(case, *arguments)
    np.testing.assert_array_equal(np.isnan(values), expected)
    np.testing.assert_array_equal(np.isnan(gradients[0]), expected)


INFINITE = [
    ("hinge_loss", (-INF, 1.0), INF, -1),
    ("hinge_loss", (INF, 1.0), 0, 0),
    ("hinge_loss", (INF, -1.0), INF, 1),
    ("hinge_loss", (-INF, -1.0), 0, 0),
    ("squared_hinge_loss", (-INF, 1.0), INF, -INF),
    ("squared_hinge_loss", (INF, 1.0), 0, 0),
    ("squared_hinge_loss", (INF, -1.0), INF, INF),
    ("smooth_hinge_loss", (-INF, 1.0), INF, -1),
    ("smooth_hinge_loss", (INF, 1.0), 0, 0),
    ("smooth_hinge_loss", (INF, -1.0), INF, 1),
    ("perceptron_loss", (-INF, 1.0), INF, -1),
    ("perceptron_loss", (INF, 1.0), 0, 0),
    ("margin_ranking_loss", (-INF, 0.0, 1.0), INF, -1),
    ("margin_ranking_loss", (0.0, INF, 1.0), INF, -1),
    ("margin_ranking_loss", (0.0, INF, -1.0), 0, 0),
    ("hinge_embedding_loss", (INF, -1.0), 0, 0),
    ("hinge_embedding_loss", (INF, 1.0), INF, 1),
    ("epsilon_insensitive_loss", (INF, 0.0), INF, 1),
    ("epsilon_insensitive_loss", (-INF, 0.0), INF, -1),
    ("epsilon_insensitive_loss", (0.0, INF), INF, -1),
    ("multilabel_margin_loss", ([INF, 0], [0, -1]), 0, [0, 0]),
    ("multilabel_margin_loss", ([-INF, 0], [0, -1]), INF, [-0.5, 0.5]),
    ("multilabel_margin_loss", ([INF, INF, 0, -INF], [0, 1, -1, -1]), 0, [0, 0, 0, 0]),
    ("squared_epsilon_insensitive_loss", (INF, 0.0), INF, INF),
    ("squared_epsilon_insensitive_loss", (0.0, INF), INF, -INF),
    ("pinball_loss", (INF, 0.0), INF, 0.5),
    ("pinball_loss", (-INF, 0.0), INF, -0.5),
    ("multiclass_hinge_loss", ([0, 0, -INF], 0), 1, [-1, 1, 0]),
    ("multiclass_hinge_loss", ([-INF, 0, 0], 0), INF, [-1, 0.5, 0.5]),
    ("multiclass_hinge_loss", ([INF, 0, 0], 0), 0, [0, 0, 0]),
    ("multiclass_hinge_loss", ([0, INF, 0], 0), INF, [-1, 1, 0]),
    ("multiclass_perceptron_loss", ([0, -1, -INF], 1), 1, [1, -1, 0]),
    ("weston_watkins_loss", ([0, 0, -INF], 0), 1, [-1, 1, 0]),
    ("weston_watkins_loss", ([-INF, 0, 0], 0), INF, [-2, 1, 1]),
    ("weston_watkins_loss", ([0, INF, 0], 0), INF, [-2, 1, 1]),
    ("one_vs_rest_hinge_loss", ([0, 0, -INF], 0), 2, [-1, 1, 0]),
    ("one_vs_rest_hinge_loss", ([-INF, 0, INF], 0), INF, [-1, 1, 1]),
    ("one_vs_rest_hinge_loss", ([INF, -INF, -INF], 0), 0, [0, 0, 0]),
]
HUGE = [
    ("hinge_loss", (-1e9, 1.0), 1e9, -1),
    ("squared_hinge_loss", (-1e9, 1.0), 1e18, -2e9),
    ("smooth_hinge_loss", (-1e9, 1.0), 1e9, -1),
    ("smooth_hinge_loss", (3e38, -1.0), 3e38, 1),
    ("margin_ranking_loss", (1e9, 1e9, 1.0), 0, -1),
    ("epsilon_insensitive_loss", (1e9, 1e9), 0, 0),
    ("multiclass_hinge_loss", ([1e9, 1e9], 0), 1, [-1, 1]),
    ("multiclass_hinge_loss", ([1e9, 1e9], 1), 1, [1, -1]),
    ("weston_watkins_loss", ([1e9, 1e9, 1e9], 2), 2, [1, 1, -2]),
    ("multiclass_perceptron_loss", ([1e9, 1e9], 1), 0, [1, -1]),
    ("one_vs_rest_hinge_loss", ([1e9, -1e9], 0), 0, [0, 0]),
]


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in INFINITE + HUGE))
def test_infinite_and_huge_scores(name):
    value_and_slope = jax.jit(jax.value_and_grad(getattr(losses, name)))
    for _, (scores, *rest), value, slope in (case for case in INFINITE + HUGE if case[0] == name):
        got_value, got_slope = value_and_slope(np.float32(scores), *map(np.asarray, rest))
        np.testing.assert_array_equal(got_value, np.float32(value), err_msg=str((scores, *rest)))
        np.testing.assert_array_equal(got_slope, np.float32(slope), err_msg=str((scores, *rest)))


@pytest.mark.parametrize(("quantile", "score"), [(0.0, -INF), (1.0, INF)])
def test_a_quantile_at_its_end_ignores_the_infinite_side(quantile, score):
    value, slope = jax.jit(jax.value_and_grad(losses.pinball_loss))(score, 0.0, quantile=quantile)
    assert (float(value), float(slope)) == (0, 0)


@pytest.mark.parametrize("name", MULTICLASS)
def test_a_label_that_is_no_class_gives_nan(name):
    value_and_slope = jax.jit(jax.value_and_grad(getattr(losses, name)))
    for label in (-1, 3, 255):
        value, gradient = value_and_slope(np.float32([1, 2, 3]), label)
        assert np.isnan(value)
        assert np.isnan(gradient).all()


def test_a_target_that_is_no_sign_gives_nan_in_the_embedding():
    value, gradient = jax.value_and_grad(losses.hinge_embedding_loss)(0.5, 0.0)
    assert np.isnan(value)
    assert np.isnan(gradient)


# One and two classes


@pytest.mark.parametrize("name", ["multiclass_hinge_loss", "weston_watkins_loss", "multiclass_perceptron_loss"])
def test_one_class_has_no_rival(name):
    total = jax.jit(jax.value_and_grad(lambda s: getattr(losses, name)(s, np.zeros(2, int)).sum()))
    value, gradient = total(np.ones((2, 1), np.float32))
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, np.zeros((2, 1), np.float32))


@pytest.mark.parametrize("name", ["multiclass_hinge_loss", "weston_watkins_loss"])
def test_two_classes_are_the_binary_hinge_of_the_difference(name):
    scores = np.float32([[0, 0], [1, 0], [0, 1], [3, 1]])
    labels, targets = np.array([0, 0, 0, 1]), np.array([1, 1, 1, -1])
    multiclass = lambda z, s: getattr(losses, name)(z, labels, subgradient=s)  # noqa: E731
    binary = lambda z, s: losses.hinge_loss(z[:, 0] - z[:, 1], targets, subgradient=s)  # noqa: E731
    run = jax.jit(lambda z, s: [(f(z, s), jax.grad(lambda z, f=f: f(z, s).sum())(z)) for f in (multiclass, binary)])
    for s in (0.0, 0.5, 1.0):
        found, expected = run(scores, s)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


# The distance of triplets

ORDERS = [1, 1.5, 2, 3, INF]
orders = pytest.mark.parametrize("p", [*ORDERS, np.float32(3), *(jnp.float32(p) for p in ORDERS)])
# Options are numbers of this process and arrays: in the latter case one formula stands for all orders.


@functools.cache
def _traced_triplet():
    return jax.jit(jax.value_and_grad(lambda points, p: losses.triplet_margin_loss(*points, p=p)))


def triplet(p, *points):
    """The loss of one triplet and its slopes, for a number compiled for that number."""
    points = tuple(jnp.asarray(point, jnp.float32) for point in points)
    if isinstance(p, jax.Array):
        return _traced_triplet()(points, p)
    return jax.jit(jax.value_and_grad(lambda points: losses.triplet_margin_loss(*points, p=p)))(points)


@orders
def test_distance_0_has_gradient_0(p):
    # The offset of 1e-6 moves the point of distance 0 away from the anchor itself.
    _, gradients = triplet(p, np.zeros(2), np.full(2, 1e-6), [1, 0])
    np.testing.assert_array_equal(gradients[1], [0, 0])
    assert np.isfinite(gradients[0]).all()


@orders
def test_a_coordinate_without_difference_has_slope_0(p):
    point = np.array([-1e-6, 4])  # less 1e-6, the first difference is 0
    assert triplet(p, np.zeros(2), point, np.zeros(2))[1][1][1] == 1
    assert np.isfinite(triplet(p, np.zeros(2), -point, np.zeros(2))[1][1]).all()


@orders
def test_infinite_and_huge_points(p):
    loss = functools.partial(triplet, p)
    here, near = np.zeros(2), np.array([0, 3])
    value, slopes = loss(here, near, [INF, 0])
    assert value == 0
    np.testing.assert_array_equal(slopes, np.zeros((3, 2)))
    value, slopes = loss(here, [-INF, 0], near)
    assert value == INF
    # The slope in a coordinate that is not infinite is 0, but for p = 1, where it is that of the offset.
    np.testing.assert_array_equal(slopes[1], [-1, -1 if p == 1 else 0])
    assert loss(here, [INF, 0], [NAN, 0])[0].dtype == jnp.float32
    assert np.isnan(loss(here, [INF, 0], [NAN, 0])[0])
    # Squares of 1e30 overflow in float32.
    value, slopes = loss(here, np.full(2, -1e30), [1e30, 0])
    # The exact norm of two equal coordinates; a power and its root round some times.
    np.testing.assert_allclose(value, 1e30 * 2 ** (1 / p) - 1e30, rtol=2e-6, atol=1e25)
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("p", [1.5, 2, 3, jnp.float32(2)])
def test_second_derivatives_of_the_distance(p, x64):
    points = jnp.asarray(np.random.default_rng(8).normal(size=(3, 4, 5)))
    loss = jax.jit(functools.partial(losses.triplet_margin_loss, p=p))
    check_grads(loss, tuple(points), order=2, eps=1e-6, rtol=1e-4)


def test_the_order_of_the_norm_is_traced_and_does_not_recompile(compilations):
    points = [jnp.asarray(a, jnp.float32) for a in np.random.default_rng(7).normal(size=(3, 4, 5))]
    loss = jax.value_and_grad(lambda anchor, p: losses.triplet_margin_loss(anchor, *points[1:], p=p).sum())
    traced = jax.jit(loss)
    compiled = jax.jit(loss, static_argnums=1)
    with compilations() as names:
        found = [traced(points[0], p) for p in (1.0, 1.5, 2.0, 3.0, INF)]
    assert len(names) == 1
    batch = jax.jit(jax.vmap(loss, (None, 0)))(points[0], jnp.array(ORDERS))
    for i, p in enumerate(ORDERS):
        for value, slope in (found[i], (batch[0][i], batch[1][i])):
            expected = compiled(points[0], p)
            # Powers by other formulas, each within some roundings of float32.
            np.testing.assert_allclose(value, expected[0], rtol=5e-6)
            np.testing.assert_allclose(slope, expected[1], rtol=1e-4, atol=2e-6)
    assert float(jax.grad(lambda p: losses.triplet_margin_loss(*points, p=p).sum())(2.0)) == 0


@pytest.mark.parametrize("p", [INF, jnp.float32(INF)])
def test_largest_coordinates_share_the_slope(p):
    gradient = jax.grad(losses.triplet_margin_loss, 1)(jnp.zeros(3), jnp.full(3, -8e9), jnp.full(3, 0.5), p=p)
    np.testing.assert_allclose(gradient, [-1 / 3] * 3, rtol=1e-6)


def test_swap_takes_the_smaller_distance_and_halves_the_slope_of_a_tie():
    loss = functools.partial(losses.triplet_margin_loss, swap=True)
    # The negative lies between the others; then in the middle above them, at the same distance of both but for 1e-6.
    anchor, positive = jnp.array([0.0]), jnp.array([4.0])
    assert float(loss(anchor, positive, jnp.array([3.0]))) == pytest.approx(1 + 4 - 1, abs=1e-5)
    assert float(losses.triplet_margin_loss(anchor, positive, jnp.array([3.0]))) == pytest.approx(1 + 4 - 3, abs=1e-5)
    # Both distances to the negative are 2**20 exactly: 1e-6 is lost.
    anchor, positive = jnp.array([0.0, 0.0]), jnp.array([0.0, 0.0])
    slopes = jax.grad(loss, (0, 1, 2))(anchor, positive, jnp.array([2.0**20, 0.0]), margin=2.0**21)
    np.testing.assert_allclose(slopes[2], [-1, 0], atol=1e-6)
    np.testing.assert_allclose(slopes[0] + slopes[1], [1, 0], atol=1e-6)
    # |a - p| is 1e-6 in both coordinates, with slopes of opposite sign in a and p, beside a half for each.
    np.testing.assert_allclose((slopes[0] - slopes[1])[0], 2**0.5, atol=1e-6)


@pytest.mark.parametrize("swap", ["yes", None, 1])
def test_swap_is_a_choice_known_while_tracing(swap):
    with pytest.raises(TypeError, match="swap must be True or False"):
        jax.eval_shape(lambda: losses.triplet_margin_loss(*np.ones((3, 2)), swap=swap))


@pytest.mark.parametrize("p", [0.5, 0, -1, NAN, -INF])
def test_an_order_below_1_is_refused(p):
    with pytest.raises(ValueError, match="p must be the order of the norm"):
        losses.triplet_margin_loss(np.ones(2), np.ones(2), np.ones(2), p=p)


@pytest.mark.parametrize("shape", [(), (3, 0)])
def test_points_without_coordinates_are_refused(shape):
    with pytest.raises(ValueError, match="at least one coordinate"):
        losses.triplet_margin_loss(np.ones(shape), np.ones(shape), np.ones(shape))


# Classes: several right at once, powers, and options for each class


def test_a_class_that_is_none_gives_nan_in_the_multilabel_loss():
    value_and_slope = jax.jit(jax.value_and_grad(losses.multilabel_margin_loss))
    for targets in ([-2, 0, 1], [3, -1, -1], [0, 1, 300], [0, -1, 7]):
        value, gradient = value_and_slope(np.float32([1, 2, 3]), np.array(targets))
        assert np.isnan(value)
        assert np.isnan(gradient).all()


def test_a_mask_of_right_classes_is_refused_with_the_mend():
    mask, scores = np.array([[True, False, True], [False, True, False]]), jnp.array([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    with pytest.raises(TypeError, match="Convert a mask") as error:
        losses.multilabel_margin_loss(scores, mask)
    mend = str(error.value).split("mask: ")[1].rstrip(".")
    converted = eval(mend, {"jnp": jnp, "targets": mask})
    np.testing.assert_array_equal(converted, [[2, 0, -1], [1, -1, -1]])


@pytest.mark.parametrize("targets", [[-1, 0, 1], [2, 0, 1]])
def test_no_right_class_and_only_right_ones_have_loss_0(targets):
    value_and_slope = jax.jit(jax.value_and_grad(losses.multilabel_margin_loss))
    value, gradient = value_and_slope(np.float32([1, 2, 3]), np.array(targets))
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros(3))
    assert np.isnan(value_and_slope(np.float32([1, NAN, 3]), np.array(targets))[0])


@pytest.mark.parametrize("dtype", ["int8", "int16", "int64", "uint8", "uint64"])
def test_multilabel_targets_of_any_integer_dtype(dtype):
    scores = jnp.arange(200.0)
    targets = np.zeros(200, dtype) if dtype.startswith("u") else np.full(200, -1, dtype)
    targets[:2] = [100, 7]
    expected = losses.multilabel_margin_loss(scores, targets.astype(np.int32))
    np.testing.assert_array_equal(losses.multilabel_margin_loss(scores, targets), expected)


def test_multilabel_sums_do_not_overflow_in_float16():
    scores, numbers = np.zeros(1000, np.float16), np.arange(1000)
    scores[:500] = 1
    value = jax.jit(losses.multilabel_margin_loss)(scores, np.where(numbers < 500, numbers + 500, -1))
    assert value.dtype == jnp.float16
    assert float(value) == 500 * 500 * 2 / 1000  # 500,000 before the division


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        ((4, 3), (4,), r"\(4,\).*\(4, 3\).*multiclass_hinge_loss"),
        ((4, 3), (4, 2), r"\(4, 2\).*\(4, 3\)"),
        ((4, 3), (3,), r"\(3,\).*\(4, 3\)"),
        ((), (), "at least one class"),
        ((4, 0), (4, 0), "at least one class"),
    ],
)
def test_multilabel_targets_of_another_shape_are_refused(scores, targets, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(losses.multilabel_margin_loss, jnp.zeros(scores), jnp.zeros(targets, int))


def test_empty_batches_have_no_losses():
    squared = functools.partial(losses.weston_watkins_loss, p=2, class_weight=np.ones(3))
    assert jax.jit(losses.multilabel_margin_loss)(np.zeros((0, 3)), np.zeros((0, 3), int)).shape == (0,)
    assert jax.jit(squared)(np.zeros((0, 3)), np.zeros(0, int)).shape == (0,)
    swapped = functools.partial(losses.triplet_margin_loss, p=3, swap=True)
    assert jax.jit(swapped)(*np.zeros((3, 0, 2))).shape == (0,)


@pytest.mark.parametrize("p", [0, 3, -1, 10**400])
def test_a_power_that_is_neither_1_nor_2_is_refused(p):
    with pytest.raises(ValueError, match="p must be 1, or 2"):
        losses.weston_watkins_loss(np.zeros(3), 0, p=p)


@pytest.mark.parametrize("p", [2.0, True, None, "2", jnp.int32(2)])
def test_a_power_is_an_integer_known_before_tracing(p):
    with pytest.raises(TypeError, match="p must be a Python integer"):
        losses.weston_watkins_loss(np.zeros(3), 0, p=p)


@pytest.mark.parametrize("name", ["class_weight", "class_margin"])
@pytest.mark.parametrize("shape", [(), (4,), (1, 3), (3, 1), (2,)])
def test_options_for_each_class_have_its_shape(name, shape):
    # Also with as many rows as numbers: options for each row are another thing.
    with pytest.raises(ValueError, match=rf"{name} must have shape \(3,\)"):
        jax.eval_shape(lambda: losses.weston_watkins_loss(np.zeros((4, 3)), np.zeros(4, int), **{name: np.ones(shape)}))
    with pytest.raises(TypeError, match=f"{name} must be real numbers"):
        losses.weston_watkins_loss(np.zeros((4, 3)), np.zeros(4, int), **{name: {0: 1.0}})


def test_options_for_each_class_do_not_recompile_and_are_differentiable(compilations):
    scores, labels = jnp.array([[0.0, 0.5], [1.0, 0.0]]), jnp.array([0, 1])

    def loss(weight, margin):
        return losses.weston_watkins_loss(scores, labels, p=2, class_weight=weight, class_margin=margin).sum()

    slopes = jax.jit(jax.grad(loss, (0, 1)))
    with compilations() as names:
        weight, margin = slopes(np.float32([1, 1]), np.float32([1, 1]))
        slopes(np.float32([0.5, 2]), np.float32([3, 1]))
    assert len(names) == 1
    np.testing.assert_array_equal(weight, [1.5**2, 2.0**2])
    np.testing.assert_array_equal(margin, [2 * 1.5, 2 * 2.0])


def test_second_derivative_of_the_squared_weston_watkins_loss_on_its_kink():
    hessian = jax.jit(jax.hessian(functools.partial(losses.weston_watkins_loss, p=2)))
    for s, expected in ((0.0, 0), (0.5, 0.5), (1.0, 2)):
        found = hessian(np.float32([1, 0]), 0, subgradient=s)
        np.testing.assert_array_equal(found, [[expected, -expected], [-expected, expected]])


# Labels 0 and 1 for the targets -1 and +1


def _of_signs(name, targets, **options):
    scores = jnp.linspace(-1, 2, np.size(targets)).reshape(np.shape(targets))
    scores = (scores, scores) if name == "margin_ranking_loss" else (scores,)
    return getattr(losses, name)(*scores, targets, **options)


@pytest.mark.parametrize(
    "targets",
    [
        0,
        [0, 1],
        (1, 0),
        [[0, 1], [1, 1]],
        [0, 0],
        [np.int64(0), np.int64(1)],
        np.int8(0),
        np.array([0, 1]),
        np.uint8([1, 0]),
        pandas.Series([0, 1]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", OF_SIGNS)
def test_integer_labels_0_and_1_are_refused_with_the_mend(name, targets):
    with pytest.raises(ValueError, match=r"targets must be -1 and \+1; got integers that hold 0.* 2 \* targets - 1\."):
        _of_signs(name, targets)
    with pytest.raises(ValueError, match="hold 0"):  # a constant is concrete inside jit too
        jax.jit(lambda: _of_signs(name, targets))()


@pytest.mark.parametrize("name", OF_SIGNS)
def test_integer_targets_of_three_kinds_are_refused_with_another_mend(name):
    with pytest.raises(ValueError, match="drop them, or pass floats"):
        _of_signs(name, np.sign([3, 0, -2]))


@pytest.mark.parametrize("name", OF_SIGNS)
def test_floats_jax_arrays_and_tracers_that_hold_0_pass(name):
    zero_one = np.array([0, 1])
    for targets in (0.0, [0.0, 1.0], zero_one.astype(float), jnp.asarray(zero_one), jnp.int32(0), [jnp.int32(0), 1]):
        # A constant is concrete inside a trace, too.
        assert jax.eval_shape(lambda targets=targets: _of_signs(name, targets)).shape == np.shape(targets)
    expected = _of_signs(name, jnp.asarray(zero_one))
    np.testing.assert_array_equal(jax.jit(functools.partial(_of_signs, name))(zero_one), expected)
    assert jax.vmap(functools.partial(_of_signs, name))(zero_one).shape == (2,)
    assert jax.eval_shape(lambda: _of_signs(name, np.array([], int))).shape == (0,)


# JAX's own checks


@pytest.mark.parametrize("ties", ["uniform", "first"])
@pytest.mark.parametrize("name", ["multiclass_hinge_loss", "multiclass_perceptron_loss"])
def test_ties_under_strict_promotion(name, ties):
    with jax.numpy_dtype_promotion("strict"), jax.debug_infs(True):
        slope = jax.grad(getattr(losses, name))(jnp.zeros(3, jnp.bfloat16), 0, ties=ties, subgradient=1)
    np.testing.assert_array_equal(slope, [-1, 0.5, 0.5] if ties == "uniform" else [-1, 1, 0])


@default_cases
def test_strict_promotion_and_checks_for_nan_and_infinity(case):
    arguments = in_dtype(case, jnp.float32)
    # Operation by operation, so that each result is looked at.
    with jax.numpy_dtype_promotion("strict"), jax.debug_nans(True), jax.debug_infs(True):
        found = call(case, *arguments), score_gradients(case, *arguments)
    expected = values_and_gradients(case, *arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, expected)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@formula_cases
def test_strict_promotion_of_narrow_scores(case, dtype):
    arguments = in_dtype(case, dtype)
    # The first score is wider than the rest where there are several.
    mixed = [arguments[0].astype(jnp.float32), *arguments[1:]] if case.num_scores > 1 else arguments
    with jax.numpy_dtype_promotion("strict"):
        for some in (arguments, mixed):
            both = lambda *some: (call(case, *some), score_gradients(case, *some))  # noqa: E731
            value, gradients = jax.eval_shape(both, *some)
            assert value.dtype == some[0].dtype
            assert [gradient.dtype for gradient in gradients] == [score.dtype for score in some[: case.num_scores]]
        jax.eval_shape(lambda: call(case, *case.arguments()))
        jax.eval_shape(lambda: call(case, *(argument.tolist() for argument in case.arguments())))


# Transformations


def _as_one_row(case):
    """The loss of one example, to be vmapped over rows."""
    return lambda *row: call(case, *row, subgradient=0.25)


def _by_scan(f, arguments):
    return jax.lax.scan(lambda carry, row: (carry, f(*row)), None, tuple(arguments))[1]


def _by_shard_map(f, arguments):
    mesh, rows = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Auto,)), PartitionSpec("rows")
    return jax.shard_map(jax.vmap(f), mesh=mesh, in_specs=(rows,) * len(arguments), out_specs=rows)(*arguments)


@default_cases
def test_every_transformation_gives_the_same_values_and_gradients(case):
    arguments = in_dtype(case, jnp.float32)
    one_row = _as_one_row(case)
    value_and_grad = jax.value_and_grad(one_row, tuple(range(case.num_scores)))
    values, gradients = values_and_gradients(case, *arguments, subgradient=0.25)
    through_checkpoint = jax.value_and_grad(jax.checkpoint(one_row), tuple(range(case.num_scores)))

    @jax.jit
    def every_way(*arguments):
        return {
            "vmap": jax.vmap(value_and_grad)(*arguments),
            "checkpoint": jax.vmap(through_checkpoint)(*arguments),
            "scan": _by_scan(value_and_grad, arguments),
            "shard_map": _by_shard_map(value_and_grad, arguments),
        }

    for name, (some_values, some_gradients) in every_way(*arguments).items():
        # A fused kernel may round once less.
        np.testing.assert_allclose(some_values, values, rtol=1e-6, atol=1e-6, err_msg=name)
        for got, expected in zip(some_gradients, gradients, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6, err_msg=name)


@default_cases
def test_forward_mode_agrees_with_reverse_mode(case):
    arguments = in_dtype(case, jnp.float32)
    scores, rest = arguments[: case.num_scores], arguments[case.num_scores :]
    direction = [np.cos(np.arange(s.size, dtype=np.float32)).reshape(s.shape) for s in scores]
    f = lambda *scores: call(case, *scores, *rest, subgradient=0.25).sum()  # noqa: E731

    @jax.jit
    def both_ways(*scores):
        forward = jax.jvp(f, scores, tuple(direction))[1]
        return forward, jax.linearize(f, *scores)[1](*direction), jax.grad(f, tuple(range(len(scores))))(*scores)

    forward, linear, gradients = both_ways(*scores)
    reverse = sum(np.vdot(g, v) for g, v in zip(gradients, direction, strict=True))
    np.testing.assert_allclose(forward, reverse, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(forward, linear, rtol=1e-6, atol=1e-6)


@default_cases
def test_new_options_do_not_recompile_and_the_subgradient_has_derivative_0(case, compilations):
    arguments = in_dtype(case, jnp.float32)
    own = {"smooth_hinge_loss": "width", "pinball_loss": "quantile"}.get(
        case.name, "epsilon" if "epsilon" in case.name else "margin"
    )
    f = jax.jit(
        jax.grad(
            lambda s, tol, option: call(case, *arguments, subgradient=s, kink_tol=tol, **{own: option}).sum(), (0, 1)
        )
    )
    with compilations() as names:
        gradients = [f(*numbers) for numbers in ((0.5, 0.0, 0.5), (0.25, 1.0, 0.75), (1.0, 0.5, 1.0))]
    assert len(names) == 1
    np.testing.assert_array_equal(gradients, np.zeros((3, 2), np.float32))


@pytest.mark.parametrize(
    ("name", "arguments", "option", "value", "slope"),
    [
        ("hinge_loss", (0.0, 1), "margin", 1.0, 1.0),
        ("multiclass_hinge_loss", ([0.0, 0.0], 1), "margin", 1.0, 1.0),
        ("smooth_hinge_loss", (0.5, 1), "width", 1.0, -0.125),
        ("epsilon_insensitive_loss", (0.5, 1.0), "epsilon", 0.25, -1.0),
        ("pinball_loss", (0.5, 1.0), "quantile", 0.25, 0.5),
        ("pinball_loss", (0.5, 1.0), "quantile", 0.0, 0.5),
    ],
)
def test_the_other_options_are_differentiable(name, arguments, option, value, slope):
    scores, targets = (jnp.asarray(a) for a in arguments)
    derivative = jax.jit(jax.grad(lambda v: getattr(losses, name)(scores, targets, **{option: v})))
    assert float(derivative(value)) == slope


# What goes in


@default_cases
def test_lists_read_only_arrays_and_data_frames_are_taken(case):
    arguments = case.arguments()
    for argument in arguments:
        argument.flags.writeable = False
    lists = [a.tolist() for a in arguments]
    frames = [pandas.Series(a, index=range(5, 17)) if a.ndim == 1 else pandas.DataFrame(a) for a in arguments]
    # All of them are constants of one program.
    for found in jax.jit(lambda: [call(case, *some) for some in (arguments, lists, frames)])():
        np.testing.assert_allclose(found, values_and_gradients(case, *arguments)[0], rtol=1e-6, atol=1e-6)


@target_cases
def test_a_scalar_target_goes_with_any_scores(case):
    *scores, targets = case.arguments()
    expected, _ = values_and_gradients(case, *scores, np.full_like(targets, targets[0]))
    for found in jax.jit(lambda: [call(case, *scores, one) for one in (targets[0], targets[0].item())])():
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@default_cases
def test_one_example_without_an_axis(case):
    arguments = in_dtype(case, jnp.float32)
    value, _ = values_and_gradients(case, *(a[0] for a in case.arguments()))
    assert value.shape == ()
    np.testing.assert_allclose(value, values_and_gradients(case, *arguments)[0][0], rtol=1e-6, atol=1e-6)


@default_cases
def test_column_targets_are_refused_inside_jit_naming_both_shapes(case):
    arguments = in_dtype(case, jnp.float32)
    arguments[-1] = arguments[-1][:, None]
    shape = {"triplet_margin_loss": r"\(12, 1, 5\)", "multilabel_margin_loss": r"\(12, 1, 4\)"}.get(
        case.name, r"\(12, 1\)"
    )
    other = {"triplet_margin_loss": r"\(12, 5\)", "multilabel_margin_loss": r"\(12, 4\)"}.get(
        case.name, r"\(12, 4\)" if case.name in MULTICLASS else r"\(12,\)"
    )
    with pytest.raises(ValueError, match=f"{shape}.*{other}"):
        jax.jit(functools.partial(call, case))(*arguments)


@pytest.mark.parametrize(
    "shapes", [((3, 1), (3,)), ((3,), (3, 1)), ((3,), (1,)), ((1,), (3,)), ((3, 2), (2, 3)), ((), (1,))]
)
@pytest.mark.parametrize("name", ["hinge_loss", "smooth_hinge_loss", "hinge_embedding_loss", "pinball_loss"])
def test_unequal_shapes_are_refused(name, shapes):
    scores, targets = (jnp.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match="targets has shape") as error:
        jax.eval_shape(getattr(losses, name), scores, targets)
    assert all(str(shape) in str(error.value) for shape in shapes)


@pytest.mark.parametrize(
    ("labels", "advice"),
    [((4, 1), "Drop the last axis"), ((4, 3), "One-hot"), ((3,), "one label per row"), ((1,), "one label")],
)
@pytest.mark.parametrize("name", MULTICLASS)
def test_labels_of_another_shape_are_refused(name, labels, advice):
    with pytest.raises(ValueError, match=advice) as error:
        jax.eval_shape(getattr(losses, name), jnp.zeros((4, 3)), jnp.zeros(labels, int))
    assert str(labels) in str(error.value)
    assert "(4, 3)" in str(error.value)


@pytest.mark.parametrize("name", MULTICLASS)
def test_scores_without_classes_are_refused(name):
    for scores in (jnp.float32(0), jnp.zeros((2, 0))):
        with pytest.raises(ValueError, match="at least one class"):
            getattr(losses, name)(scores, 0)
    with pytest.raises(ValueError, match="one column per class"):
        getattr(losses, name)(jnp.zeros(3), jnp.zeros(3, int))


@pytest.mark.parametrize("name", MULTICLASS)
@pytest.mark.parametrize("labels", [np.ones(2), np.array([True, False]), ["a", "b"], np.array([0, 1], object), None])
def test_labels_that_are_no_integers_are_refused(name, labels):
    with pytest.raises(TypeError, match="labels must be"):
        getattr(losses, name)(jnp.zeros((2, 3)), labels)


@pytest.mark.parametrize("name", MULTICLASS)
def test_narrow_and_wide_labels_do_not_wrap(name):
    scores = np.float32(2 * (np.arange(300) == 3))
    labels = [np.asarray(3, dtype) for dtype in ("uint8", "int8", "uint16", "int64", "uint64")]
    labels = [3, *labels, jnp.asarray(3, "int4")]
    expected, *found = jax.jit(lambda: [getattr(losses, name)(scores, label) for label in labels])()
    assert len({expected.item(), *(value.item() for value in found)}) == 1


@pytest.mark.parametrize("labels", [np.array([1, 2**32]), [1, 2**32], np.array([1, 2**63], np.uint64)])
def test_labels_beyond_32_bits_are_refused_not_wrapped(labels):
    with pytest.raises(TypeError, match="do not fit"):
        losses.multiclass_hinge_loss(jnp.zeros((2, 3)), labels)


BAD = [
    True,
    [True, False],
    "1",
    ["a", "b"],
    np.array(["1", "-1"]),
    None,
    1j,
    np.array([1j, 1]),
    np.array([1, -1], object),
]


@pytest.mark.parametrize("bad", BAD, ids=repr)
@pytest.mark.parametrize("name", ["hinge_loss", "pinball_loss", "hinge_embedding_loss"])
def test_scores_and_targets_that_are_no_numbers_are_refused(name, bad):
    with pytest.raises(TypeError, match="must be"):
        getattr(losses, name)(bad, 1)
    with pytest.raises(TypeError, match="targets must be"):
        getattr(losses, name)(jnp.ones(np.shape(bad)), bad)


def test_masked_entries_are_refused_not_unmasked():
    masked = np.ma.masked_array([1.0, -1.0], mask=[True, False])
    with pytest.raises(TypeError, match="masked entries"):
        losses.hinge_loss(jnp.ones(2), masked)
    unmasked = np.ma.masked_array([1.0, -1.0], mask=False)
    np.testing.assert_array_equal(losses.hinge_loss(jnp.ones(2), unmasked), [0, 2])


def test_a_random_key_is_no_score():
    with pytest.raises(TypeError, match="key<"):
        losses.hinge_loss(jax.random.key(0), 1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("smooth_hinge_loss", {"width": 0.0}),
        ("smooth_hinge_loss", {"width": -1.0}),
        ("pinball_loss", {"quantile": 1.5}),
        ("epsilon_insensitive_loss", {"epsilon": -0.1}),
        ("squared_epsilon_insensitive_loss", {"epsilon": NAN}),
        ("hinge_loss", {"subgradient": 2}),
        ("triplet_margin_loss", {"kink_tol": -1}),
    ],
)
def test_options_out_of_range_are_refused(name, options):
    case = next(case for case in DEFAULT_CASES if case.name == name)
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        call(case, *case.arguments(), **options)


@default_cases
def test_an_unknown_option_is_refused(case):
    with pytest.raises(TypeError, match="subgradent"):
        call(case, *case.arguments(), subgradent=0.5)


def test_options_for_each_example():
    scores, margins = jnp.zeros(3), jnp.array([0.0, 1.0, 2.0])
    np.testing.assert_array_equal(losses.hinge_loss(scores, 1, margin=margins), margins)
    np.testing.assert_array_equal(losses.multiclass_hinge_loss(jnp.zeros((3, 2)), 1, margin=margins), margins)
    np.testing.assert_array_equal(losses.one_vs_rest_hinge_loss(jnp.zeros((3, 2)), 1, margin=margins), 2 * margins)
    np.testing.assert_array_equal(losses.epsilon_insensitive_loss(scores, 1.0, epsilon=margins), [1, 0, 0])


# Properties. Quarters are exact in float32, so the inequalities hold without a tolerance.

CONVEX = [case for case in DEFAULT_CASES if case.name not in ("triplet_margin_loss", "smooth_hinge_loss")]
quarters = st.integers(-12, 12).map(lambda i: i / 4)


@functools.cache
def _value_and_slope(name):
    f = getattr(losses, name)
    return jax.jit(jax.vmap(lambda s, t, g: jax.value_and_grad(lambda s: f(s, *t, subgradient=g))(s), (0, 0, None)))


def _draw_rows(data, case):
    """Scores at two places and the other arguments, for six examples."""
    shape = (6, 3) if case.name in [*MULTICLASS, "multilabel_margin_loss"] else (6,)
    scores = st.lists(quarters, min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
    u, v = (np.float32(data.draw(scores)).reshape(shape) for _ in range(2))
    signs = st.lists(st.sampled_from([-1, 1]), min_size=6, max_size=6)
    if case.name in MULTICLASS:
        rest = (np.int32(data.draw(st.lists(st.integers(0, 2), min_size=6, max_size=6))),)
    elif case.name == "multilabel_margin_loss":
        lists = st.permutations(range(3)).flatmap(
            lambda order: st.sampled_from([order[:i] + [-1] * 3 for i in range(4)])
        )
        rest = (np.int32([data.draw(lists)[:3] for _ in range(6)]),)
    elif case.name == "margin_ranking_loss":
        rest = (np.float32(data.draw(st.lists(quarters, min_size=6, max_size=6))), np.int32(data.draw(signs)))
    elif "epsilon" in case.name or "pinball" in case.name:
        rest = (np.float32(data.draw(st.lists(quarters, min_size=6, max_size=6))),)
    else:
        rest = (np.int32(data.draw(signs)),)
    return u, v, rest


@pytest.mark.parametrize("case", CONVEX, ids=case_id)
@given(data=st.data(), s=st.sampled_from(SUBGRADIENTS))
def test_losses_are_convex_and_gradients_are_subgradients(case, data, s):
    u, v, rest = _draw_rows(data, case)
    f = _value_and_slope(case.name)
    (at_u, slope), (at_v, _), (between, _) = f(u, rest, s), f(v, rest, s), f((u + v) / 2, rest, s)
    # Epsilon is 0.1, no dyadic fraction, and neither are ties in thirds or a third of a sum: a rounding or two.
    rounding = 4e-6
    inner = np.sum(np.reshape(slope * (v - u), (6, -1)), axis=1)
    assert (at_v >= at_u + inner - rounding).all()
    assert (2 * between <= at_u + at_v + rounding).all()


@pytest.mark.parametrize("name", MULTICLASS)
@given(data=st.data(), s=st.sampled_from(SUBGRADIENTS))
def test_renaming_the_classes_changes_nothing(name, data, s):
    case = next(case for case in DEFAULT_CASES if case.name == name)
    u, _, (labels,) = _draw_rows(data, case)
    order = np.array(data.draw(st.permutations(range(3))))
    f = _value_and_slope(name)
    value, slope = f(u, (labels,), s)
    renamed_value, renamed_slope = f(u[:, order], (np.argsort(order)[labels].astype(np.int32),), s)
    np.testing.assert_array_equal(renamed_value, value)
    np.testing.assert_array_equal(renamed_slope, slope[:, order])


@given(data=st.data(), s=st.sampled_from(SUBGRADIENTS))
def test_turning_score_and_target_round_changes_nothing(data, s):
    u, _, (targets,) = _draw_rows(data, DEFAULT_CASES[0])
    f = _value_and_slope("hinge_loss")
    (value, slope), (turned_value, turned_slope) = f(u, (targets,), s), f(-u, (-targets,), s)
    np.testing.assert_array_equal(value, turned_value)
    np.testing.assert_array_equal(slope, -turned_slope)
