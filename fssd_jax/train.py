"""Train a classifier: one jitted step, deterministic for a seed, resumable."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray
from tqdm import tqdm

from fssd_jax import checkpoint, checks, losses, recipes
from fssd_jax.compiled import compiled, executable
from fssd_jax.data.inputs import as_input
from fssd_jax.data.pipeline import bar_options, map_batches
from fssd_jax.features import make_init_fn
from fssd_jax.outputs import LogitFn, Variables
from fssd_jax.shown import brief

OUTLIER_WEIGHT = 0.5  # of the outliers' loss, as Hendrycks et al. (2019) weigh it
OTHERWISE = "and let the model itself map [0, 1] to the inputs that it takes"
CHECK_EVERY = 10  # steps between looks at the loss: each look waits for the device

# What a key is for; each use folds its own number into the seed's key.
_INIT, _SHUFFLE, _DROPOUT, _OUTLIERS = range(4)


class TrainState(NamedTuple):
    variables: Variables
    opt_state: Any

    __repr__ = brief


class Trained(NamedTuple):
    variables: Variables
    initial: Variables  # before the first step
    history: np.ndarray  # [epoch, 2]: mean loss and accuracy on the training batches
    snapshots: dict[int, Variables]  # after so many epochs, as asked for

    __repr__ = brief


def train(
    model: nn.Module,
    x,
    y,
    *,
    num_classes: int,
    seed: int,
    epochs: int,
    batch_size: int = 64,
    recipe: Callable[[int, int], optax.GradientTransformation] = recipes.lenet,
    initial: Any = None,
    outliers: Any = None,
    loss: Callable = losses.cross_entropy,
    augment: Callable | None = None,
    snapshots: Sequence[int] = (),
    on_step: Callable | None = None,
    folder: str | Path | None = None,
    save_every: int = 1,
    progress: bool = True,
) -> Trained:
    """Minimise the loss; each epoch visits the images in a new order.

    Given the same arguments the final weights are the same, also when the run was
    killed and started again with the same `folder`. The incomplete last batch of an
    epoch is left out. Trainings that differ in nothing that the step computes share one
    compiled step.

    Args:
      model: takes `(x, train=...)`, returns logits; may use the "dropout" rng.
      x: images [n, ...], integers 0–255 or floats in [0, 1]; token ids [n, length].
      y: class indices [n].
      num_classes: labels run from 0 to num_classes − 1.
      seed: of the initial weights, the order and the dropout.
      epochs: passes over the data.
      batch_size: images a step.
      recipe: `(epochs, steps_per_epoch) -> optimiser`; see `fssd_jax.recipes`.
      initial: weights to begin with; by default the model's own, drawn by the seed.
      outliers: images [m, ...] of an auxiliary set, for Outlier Exposure: each batch
        has as many of them beside it, for which the prediction is to be uniform.
      loss: of one batch, `(logits, y) -> scalar`.
      augment: `(key, x) -> x` for every batch, jitted with the step; see
        `fssd_jax.data.augment`.
      snapshots: epochs after which the variables are kept, beside the last.
      on_step: called as `on_step(step, before, after, x, y)` after every step from 0
        on: the variables before and after it, and its batch (see `analysis.dynamics`).
        A resumed run calls it from where it goes on.
      folder: where checkpoints go, with a record of what decides the weights; there
        is one run to a folder, and another process waits until it has ended.
      save_every: epochs between checkpoints (the last epoch is always saved).
      progress: whether to show a progress bar.

    Raises:
      InputError: unusable images or labels, or a folder of another run.
      DivergedError: the loss or the weights are not finite; such are never saved.
    """
    seed, snapshots = int(seed), sorted(map(int, snapshots))
    folder = None if folder is None else Path(folder)
    checks.images(x, "training images", otherwise=OTHERWISE)
    y = checks.labels(y, len(x), num_classes, "training labels")
    batch_size = min(batch_size, len(x))
    steps = len(x) // batch_size
    key = jax.random.key(seed)

    if outliers is not None:
        checks.images(outliers, "outliers", otherwise=OTHERWISE)
    if augment is not None and on_step is not None:
        raise checks.InputError(
            "on_step would see other images than the augmented ones whose gradient was "
            "taken; leave out `augment`, or augment x beforehand"
        )
    if not all(0 < epoch <= epochs for epoch in snapshots):
        raise checks.InputError(f"snapshots: 1 to {epochs}, got {snapshots}")
    optimiser = recipe(epochs, steps)
    step = partial(train_step, model.apply, optimiser.update)
    step = jax.jit(partial(step, loss=loss, augment=augment), donate_argnums=(0, 1))
    if initial is None:
        initial = make_init_fn(model)(jax.random.fold_in(key, _INIT), as_input(x[:1]))
    # Of all, because some optimisers keep the first parameters, which are the caller's.
    state = _copied(TrainState(initial, _begin(optimiser.init, initial["params"])))

    def arguments(chosen, others, number):
        """Of the step, after the state and the totals."""
        beside = None if outliers is None else as_input(outliers[others])
        return as_input(x[chosen]), y[chosen], _fold(key, _DROPOUT, number), beside

    order, beside = _orders(key, 0, len(x), outliers, (steps, batch_size))
    first = state, jnp.zeros(2), *arguments(order[0], beside[0], 0)
    program = step.trace(*first)

    history, done, kept = np.zeros((epochs, 2)), 0, {}
    with ExitStack() as stack:
        if folder is not None:
            stack.enter_context(checkpoint.alone(folder))
            run = {
                "the compiled step (network, rate, loss, JAX)": program.jaxpr,
                "the initial weights": initial,
                "the initial optimiser state": state.opt_state,
                "images": x,
                "labels": y,
                "outliers": outliers,
                "seed": seed,
                "the first order of the images": (order, beside),
                "batch_size": batch_size,
                "epochs": epochs,
                "snapshots": snapshots,
            }
            checkpoint.claim(folder, run, _normalisation(model))
            initial, state, history, done = _resume(folder, initial, state, history)
            for epoch in (e for e in snapshots if e <= done):
                path = checkpoint.snapshot_path(folder, epoch)
                kept[epoch] = checkpoint.restore(path, initial)
        step_fn: Any = None
        if done < epochs:
            step_fn = executable(program, jax.tree.leaves(first))
        bar = stack.enter_context(
            tqdm(
                total=epochs * steps,
                initial=done * steps,
                desc="training",
                disable=not progress,
                **bar_options("step"),
            )
        )
        for epoch in range(done, epochs):
            order, beside = _orders(key, epoch, len(x), outliers, (steps, batch_size))
            totals = jnp.zeros(2)
            for i, (chosen, others) in enumerate(zip(order, beside, strict=True)):
                before = on_step and _copied(state.variables)
                batch = arguments(chosen, others, epoch * steps + i)
                state, totals = step_fn(state, totals, *batch)
                if on_step is not None:
                    after = _copied(state.variables)
                    on_step(epoch * steps + i, before, after, *batch[:2])
                if i % CHECK_EVERY == 0 or i == steps - 1:
                    _look(bar, totals, i + 1, epoch + 1)
                bar.update()
            history[epoch] = np.asarray(totals) / steps
            if not _finite(state.variables):  # the last step's loss came before it
                raise _diverged("weights were", steps, epoch + 1)
            if epoch + 1 in snapshots:
                kept[epoch + 1] = _copied(state.variables)
                if folder is not None:
                    path = checkpoint.snapshot_path(folder, epoch + 1)
                    checkpoint.save(path, state.variables)
            last = epoch + 1 == epochs
            if folder is not None and (last or (epoch + 1) % save_every == 0):
                path = checkpoint.epoch_path(folder, epoch + 1)
                checkpoint.save(path, (state, history))
                checkpoint.keep_only(folder, epoch + 1)
    return Trained(state.variables, initial, history, kept)


def _normalisation(model: nn.Module) -> dict[str, list[float]]:
    """The mean and deviation of pixels, of networks that have them as ours do."""
    fields = {name: getattr(model, name, None) for name in ("mean", "std")}
    return {
        name: [float(v) for v in values]
        for name, values in fields.items()
        if isinstance(values, tuple) and all(isinstance(v, int | float) for v in values)
    }


def _look(bar: tqdm, totals: Float[Array, "2"], step: int, epoch: int) -> None:
    """Show the epoch's mean loss and accuracy; stop if the loss is not finite."""
    loss, accuracy = np.asarray(totals) / step
    if not np.isfinite(loss):
        raise _diverged("training loss was", step, epoch)
    shown = {"epoch": epoch, "loss": f"{loss:.3f}", "accuracy": f"{accuracy:.3f}"}
    bar.set_postfix(shown, refresh=False)


def _diverged(what: str, step: int, epoch: int) -> checks.DivergedError:
    return checks.DivergedError(
        f"the {what} not finite by step {step} of epoch {epoch}; lower the learning "
        "rate, or check that the images and the initial weights are sane"
    )


@compiled(static=1)
def _begin(init: Callable, params) -> Any:
    return init(params)


@compiled(static=0)
def _finite(tree) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(a).all() for a in jax.tree.leaves(tree)]).all()


def train_step(
    apply: Callable,
    update: Callable,
    state: TrainState,
    totals: Float[Array, "2"],
    x: Num[Array, "batch ..."],
    y: Int[Array, " batch"],
    key: PRNGKeyArray,
    outliers: Float[Array, "outliers ..."] | None = None,
    loss: Callable = losses.cross_entropy,
    augment: Callable | None = None,
) -> tuple[TrainState, Float[Array, "2"]]:
    """One optimiser step; adds the batch's mean loss and accuracy to `totals`."""
    whole = x if outliers is None else jnp.concatenate([x, outliers])
    if augment is not None:
        key, own = jax.random.split(key)
        whole = augment(own, whole)
    params = state.variables["params"]
    statistics = {k: v for k, v in state.variables.items() if k != "params"}

    def loss_fn(params):
        logits, updated = apply(
            {"params": params, **statistics},
            whole,
            train=True,
            rngs={"dropout": key},
            mutable=list(statistics),
        )
        inside, outside = logits[: len(x)], logits[len(x) :]
        value = loss(inside, y)
        if outliers is not None:
            value += OUTLIER_WEIGHT * losses.to_uniform(outside)
        return value, (updated, jnp.mean(inside.argmax(-1) == y))

    (value, (updated, accuracy)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
        params
    )
    updates, opt_state = update(gradient, state.opt_state, params)
    variables = {**updated, "params": optax.apply_updates(params, updates)}
    return TrainState(variables, opt_state), totals + jnp.stack([value, accuracy])


def accuracy(
    logit_fn: LogitFn, variables: Variables, x, y, *, unit_range: bool = True
) -> float:
    """Share of images whose largest logit is that of their class.

    `unit_range`: whether floats outside [0, 1] are an error.
    """
    of = logit_fn, variables, None, x
    return float(np.mean(map_batches(_predict, *of, unit_range=unit_range) == y))


def _predict(logit_fn, variables, _, x):
    return logit_fn(variables, x).argmax(-1)


def _resume(folder: Path, initial, state, history):
    """What an earlier run left in `folder`, or else the beginning as given."""
    if (folder / checkpoint.INITIAL).exists():
        initial = checkpoint.restore(folder / checkpoint.INITIAL, initial)
    else:
        checkpoint.save(folder / checkpoint.INITIAL, initial)
    done = checkpoint.last_epoch(folder)
    if done:
        path = checkpoint.epoch_path(folder, done)
        state, history = checkpoint.restore(path, (state, history))
    return initial, state, np.array(history), done


def _order(key: PRNGKeyArray, count: int, shape: tuple[int, int]) -> np.ndarray:
    """Indices below `count` in random order; a smaller set is gone through again."""
    return np.resize(np.asarray(_permutation(count, key)), shape)


_permutation = compiled(static=1)(lambda count, key: jax.random.permutation(key, count))


def _orders(key: PRNGKeyArray, epoch: int, count: int, outliers, shape):
    """Which images, and which outliers if any, make each batch of an epoch."""
    order = _order(_fold(key, _SHUFFLE, epoch), count, shape)
    if outliers is None:
        return order, [None] * len(order)
    return order, _order(_fold(key, _OUTLIERS, epoch), len(outliers), shape)


def _copied(tree):
    """What outlives the next step, which donates its input."""
    return jax.device_put(tree, may_alias=False)


def _fold(key, purpose: int, number: int):
    return jax.random.fold_in(jax.random.fold_in(key, purpose), number)
