"""The optax step as a pure function, and the pure training loop built on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from jaxhinge._base.arrays import as_array, random_key
from jaxhinge._base.sparse import is_sparse
from jaxhinge._base.values import host_integer
from jaxhinge._objective.objective import check_targets, loss
from jaxhinge._rows.sharding import explicit_mesh, with_automatic_axes
from jaxhinge._train.batches import Batches, running_mean
from jaxhinge._train.sparse import sparse_rows
from jaxhinge.losses import hinge_loss

Objective = Callable[..., jax.Array]


class Optimizer(Protocol):
    """What every optax optimizer is: an `optax.GradientTransformation`."""

    @property
    def init(self) -> Callable[[Any], Any]:
        """`init(params) -> opt_state`."""

    @property
    def update(self) -> Callable[..., tuple[Any, Any]]:
        """`update(grads, opt_state, params) -> (updates, opt_state)`."""


class Metrics(NamedTuple):
    """What a step saw before it moved; `metrics["loss"]` is `metrics.loss`.

    Attributes:
      loss: The objective on the batch.
      grad_norm: The Euclidean norm of its gradient over all parameters.
    """

    loss: jax.Array
    grad_norm: jax.Array

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else tuple.__getitem__(self, key)


class TrainState(NamedTuple):
    """Everything a run carries from step to step; arrays only, so it can be donated and saved.

    Attributes:
      params: The parameters.
      opt_state: The state of the optax optimizer.
      step: int32, the number of steps taken.
    """

    params: Any
    opt_state: Any
    step: jax.Array


def make_train_step(
    optimizer: Optimizer, objective: Objective = loss
) -> tuple[Callable[[Any], TrainState], Callable[..., tuple[TrainState, Metrics]]]:
    r"""An optax step for any objective, as two pure functions `(init, step)`.

    .. math::
        \theta_{t+1} = \theta_t + \mathrm{optimizer}(\nabla_\theta\, \mathrm{objective}(\theta_t, x, y))

    Args:
      optimizer: Any optax optimizer, schedules included. Those that ask for the value (line
        searches, Polyak steps, L-BFGS) are given it.
      objective: `objective(params, x, y, **options)`, a scalar. `params` may be any pytree of
        floating arrays, so any model will do.

    Returns:
      `init(params) -> state`, which copies the parameters, and
      `step(state, x, y, **options) -> (state, metrics)`. Both jit and vmap. The new state has the
      shapes and dtypes of the old one: `jax.jit(step, donate_argnums=0)` works and compiles once.

    Raises:
      TypeError: `optimizer` is not an optax optimizer, or (from `step`) `objective` is not scalar.

    References:
      Robbins and Monro, A stochastic approximation method, 1951; DeepMind, Optax, 2020.

    A linear model:

    >>> import jax, jax.numpy as jnp, jaxhinge, optax
    >>> x, y = jnp.array([[2.0], [-1.0]]), jnp.array([1, -1])
    >>> init, step = jaxhinge.make_train_step(optax.sgd(0.5))
    >>> state = init(jaxhinge.init_params(1))
    >>> state, metrics = jax.jit(step)(state, x, y, l2=0.1)
    >>> print(state.params.w, metrics.loss, metrics["grad_norm"])
    [0.75] 1.0 1.5

    A network with one hidden layer, on the same loss:

    >>> def objective(params, x, y, *, l2):
    ...     scores = jax.nn.relu(x @ params["hidden"]) @ params["out"]
    ...     return jaxhinge.losses.hinge_loss(scores, y).mean() + l2 / 2 * jnp.sum(params["out"] ** 2)
    >>> init, step = jaxhinge.make_train_step(optax.adam(0.1), objective)
    >>> state = init({"hidden": jnp.array([[1.0, -1.0]]), "out": jnp.zeros(2)})
    >>> for _ in range(20):
    ...     state, metrics = step(state, x, y, l2=1e-3)
    >>> bool(metrics.loss < 0.1)
    True
    """
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise TypeError(f"optimizer must be an optax optimizer, e.g. optax.adam(1e-2); got {optimizer!r}.")
    update = optax.with_extra_args_support(optimizer).update

    def init(params: Any) -> TrainState:
        params = jax.tree.map(_own_floats, params)
        opt_state = jax.tree.map(_own_array, optimizer.init(params))
        return TrainState(params, opt_state, jnp.zeros((), jnp.int32))

    def step(state: TrainState, x: Any, y: Any, **options: Any) -> tuple[TrainState, Metrics]:
        def value_fn(params: Any) -> jax.Array:
            return objective(params, x, y, **options)

        value, grads = jax.value_and_grad(value_fn)(state.params)
        updates, opt_state = update(grads, state.opt_state, state.params, value=value, grad=grads, value_fn=value_fn)
        new = TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1)
        return jax.tree.map(_same_dtype, new, state), Metrics(value, optax.tree.norm(grads))

    return init, step


def train(
    params: Any,
    x: Any,
    y: ArrayLike,
    *,
    optimizer: Optimizer,
    num_steps: int,
    batch_size: int,
    key: jax.Array,
    l2: ArrayLike | None = None,
    objective: Objective = loss,
    sample_weight: ArrayLike | None = None,
    average_from: ArrayLike | None = None,
    blocks: int = 1,
    **options: Any,
) -> tuple[Any, Metrics]:
    r"""Minibatch training as one pure function: it jits, vmaps and differentiates.

    Every epoch visits every row once, in an order drawn from `key`; the last batch of an epoch has
    the rows that remain. The objective of a batch is the weighted mean over its rows.

    A sweep is a `vmap` over `l2`, `key`, `params`, the data, or a learning rate in a closure:
    `vmap(lambda rate: train(..., optimizer=optax.sgd(rate)))(rates)`. The order depends on `key`
    alone. So runs that share `key` and `x` share every minibatch, and the sweep multiplies matrices; runs with keys of
    their own take different rows, and cost as much as one by one. A minibatch of all rows is in the order given.

    On the same machine and versions, the same `key`, data and number of devices give the same bits, run after run.
    The batches depend on `key`, `n`, `batch_size` and `blocks`, not on the devices. But another number of devices adds
    in another order, so its runs differ by rounding, which the steps may amplify.

    Args:
      params: Where to start: any pytree that `objective` takes.
      x: `(n, ...)`, one example per row. Sparse features `(n, d)`, of SciPy or a BCOO, come to `objective` as a BCOO of
        the rows of a batch. Where `x` is an argument of a traced function, the rows may be of any length, and every
        batch has room for all numbers: close over `x` instead.
      y: `(n, ...)`, in the same order.
      optimizer: Any optax optimizer, schedules included.
      num_steps: The number of steps, `ceil(n / batch_size)` of them to an epoch.
      batch_size: Rows in a batch, at least 1; more than `n` means all.
      key: `jax.random.key(seed)`.
      l2: Given to `objective` as `l2=`; None leaves it out.
      objective: `objective(params, x, y, **options)`, a scalar. Where there are weights, or `n` is no
        multiple of `batch_size`, it must take `sample_weight=` (`(batch,)`; 0 marks padding).
      sample_weight: `(n,)`, not negative. A batch whose weights are all 0 is passed over.
      average_from: The step from which iterates are averaged; the average is returned in place of
        the last iterate. 0 averages all of them; None returns the last iterate.
      blocks: Take every batch from this many equal blocks of neighbouring rows, as many rows from each. Where rows
        are laid out over as many devices, or a divisor of that, no row leaves its device.
      **options: For `objective`: `subgradient=`, `loss_fn=`, ...

    Returns:
      `(params, history)`; `history.loss` and `history.grad_norm` are `(num_steps,)`, on the batches.

    Raises:
      ValueError: `x` and `y` differ in length, are empty, a count is below 1, `blocks` does not divide the rows and
        the batch, or `y` is what `loss` refuses.
      TypeError: A count is not a Python integer, or `optimizer` is not an optax optimizer.

    References:
      Bottou, Curtis and Nocedal, Optimization methods for large-scale machine learning, 2018;
      Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992.

    >>> import jax, jax.numpy as jnp, jaxhinge, optax
    >>> x, y = jnp.array([[1.0], [2.0], [-1.0], [-3.0]]), jnp.array([1, 1, -1, -1])
    >>> def run(l2):
    ...     return jaxhinge.train(jaxhinge.init_params(1), x, y, l2=l2, optimizer=optax.sgd(0.1),
    ...                           num_steps=50, batch_size=2, key=jax.random.key(0))
    >>> params, history = jax.vmap(run)(jnp.array([1e-3, 1.0]))
    >>> params.w.shape, history.loss.shape
    ((2, 1), (2, 50))
    """
    mesh = explicit_mesh(params, x, y, sample_weight, options)
    if mesh is not None:
        whole = PartitionSpec()  # type: ignore[no-untyped-call]
        return with_automatic_axes(  # type: ignore[no-any-return]
            mesh, whole, train, params, x, y, optimizer=optimizer, num_steps=num_steps,
            batch_size=batch_size, key=key, l2=l2, objective=objective, sample_weight=sample_weight,
            average_from=average_from, blocks=blocks, **options,
        )  # fmt: skip
    if objective is loss:
        check_targets(options.get("loss_fn", hinge_loss), y)
    x, y = sparse_rows(x) if is_sparse(x) else as_array("x", x), as_array("y", y)
    num_steps = host_integer("num_steps", num_steps, at_least=1)
    batches = Batches.of(x, y, sample_weight, batch_size, blocks)
    init, step = make_train_step(optimizer, objective)
    options = options if l2 is None else {"l2": l2, **options}

    shuffled = batches.shuffle(random_key("key", key))

    def body(carry: tuple[TrainState, Any], index: jax.Array) -> tuple[Any, Metrics]:
        state, mean = carry
        permutation = batches.permutation(key, index // batches.per_epoch)
        rows, real = batches.rows(shuffled, permutation, index % batches.per_epoch)
        state, metrics = batches.step(step, state, rows, real, options)
        return (state, running_mean(mean, state.params, index, average_from)), metrics

    state = init(params)
    (state, mean), history = jax.lax.scan(body, (state, state.params), jnp.arange(num_steps, dtype=jnp.int32))
    return (state.params if average_from is None else mean), history


def _own_array(leaf: Any) -> Any:
    # The state gets copies: donated, it must not delete the caller's arrays, nor hold one buffer twice.
    try:
        array = jnp.array(leaf, copy=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"params must be arrays of numbers, in any pytree; got {type(leaf).__name__}: {error}"
        ) from error
    return _same_dtype(array, array)


def _own_floats(leaf: Any) -> Any:
    array = _own_array(leaf)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"params must be floating, to be differentiated and updated; got an array of dtype {array.dtype}. "
            "Convert it: jax.tree.map(lambda leaf: leaf * 1.0, params)."
        )
    return array


def _same_dtype(new: Any, old: Any) -> Any:
    """`new` in the dtype of `old`, never weakly typed: else the second call of a compiled step compiles again."""
    is_key = jnp.issubdtype(old.dtype, jax.dtypes.extended)
    return new if is_key else jax.lax.convert_element_type(new, old.dtype)
