"""Train a classifier: one jitted step, deterministic for a seed, resumable."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float
from tqdm import tqdm

from fssd_jax import checkpoint, checks, losses, processes, recipes
from fssd_jax.checkpoint import Progress
from fssd_jax.compiled import compiled, executable
from fssd_jax.data.feed import DROPOUT, INIT, Feeds, Rows, feed
from fssd_jax.data.image_files import located
from fssd_jax.data.pipeline import bar_options, map_batches
from fssd_jax.descent import TrainState, train_step
from fssd_jax.devices import apart, own_copy, own_rows, spans
from fssd_jax.features import make_init_fn
from fssd_jax.outputs import LogitFn, Variables
from fssd_jax.shown import brief
from fssd_jax.spread import along, anywhere, in_parts, mesh_for, on_each, placed

CHECK_EVERY = 10  # steps between looks at the loss: each look waits for the device


class Trained(NamedTuple):
    variables: Variables
    initial: Variables  # before the first step
    history: np.ndarray  # [epoch, 2]: mean loss and accuracy on the training batches
    snapshots: dict[int, Variables]  # after so many epochs, as asked for

    __repr__ = brief


@apart
def train(
    model: nn.Module,
    x,
    y=None,
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
    save_every_steps: int | None = None,
    mesh: Mesh | None = None,
    shard_optimiser: bool = False,
    progress: bool = True,
) -> Trained:
    """Minimise the loss; each epoch visits the images in a new order.

    Given the same arguments the final weights are the same, also when the run was
    killed and started again with the same `folder`; on other numbers of devices, up to
    rounding. The incomplete last batch of an epoch is left out. Trainings that differ
    in nothing that the step computes share one compiled step.

    Parameters, gradients and the loss are float32; what is computed in bfloat16, the
    network's own `dtype` says.

    Args:
      model: takes `(x, train=...)`, returns logits; may use the "dropout" rng.
      x: images [n, ...], integers 0–255 or floats in [0, 1]; token ids [n, length]. Or
        a source of labelled records, which need not fit into memory: see
        `fssd_jax.data.records`. The weights are those of equal arrays.
      y: class indices [n]; None if x is a source.
      num_classes: labels run from 0 to num_classes − 1.
      seed: of the initial weights, the order, the dropout and records' transforms.
      epochs: passes over the data.
      batch_size: images a step.
      recipe: `(epochs, steps_per_epoch) -> optimiser`; see `fssd_jax.recipes`.
      initial: weights to begin with; by default the model's own, drawn by the seed.
      outliers: images [m, ...] of an auxiliary set, or a source, for Outlier Exposure:
        each batch has as many of them beside it, for which the prediction is to be
        uniform.
      loss: of one batch, `(logits, y) -> scalar`.
      augment: `(key, x) -> x` for every batch, jitted with the step; see
        `fssd_jax.data.augment`.
      snapshots: epochs after which the variables are kept, beside the last.
      on_step: called as `on_step(step, before, after, x, y)` after every step from 0
        on: the variables before and after it, and its batch (see `analysis.dynamics`).
        A resumed run calls it from where it goes on.
      folder: where checkpoints go, with a record of what decides the weights; there
        is one run to a folder, and another process waits until it has ended. Of a
        source that record has the number of records, its own `digest` (text) if it has
        one, and 16 records; a change in others is not noticed.
      save_every: epochs between checkpoints (the last epoch is always saved).
      save_every_steps: steps between checkpoints within an epoch; None: there are none.
      mesh: of one axis, "data", along which each batch is laid; by default all local
        devices, or the most of them that divide the batch, and those of all processes
        that work together (see `processes`), each of which reads its own rows.
        Parameters are on each.
      shard_optimiser: whether each device keeps a part of the optimiser's state only.
      progress: whether to show a progress bar.

    Raises:
      InputError: unusable images or labels, a record that cannot be read, or a folder
        of another run.
      DivergedError: the loss or the weights are not finite; such are never saved.
    """
    seed, snapshots = checks.whole("seed", seed), sorted(map(int, snapshots))
    folder = None if folder is None else located(folder)
    images = feed(x, y, num_classes, "training images", (seed, 0))
    beside = None
    if outliers is not None:
        beside = feed(outliers, None, None, "outliers", (seed, 1))
        kinds = [f"{f.first.dtype}{[*f.first.shape[1:]]}" for f in (beside, images)]
        if kinds[0] != kinds[1]:
            raise checks.InputError(
                f"outliers: are {kinds[0]}, the training images {kinds[1]}; bring them "
                "to the same shape and type"
            )
    _check(epochs, snapshots, augment, on_step)
    checks.at_least_one("batch_size", batch_size)
    checks.at_least_one("save_every", save_every)
    if save_every_steps is not None:
        checks.at_least_one("save_every_steps", save_every_steps)
    batch_size = min(batch_size, images.count)
    steps = images.count // batch_size
    key, mesh = jax.random.key(seed), mesh_for(batch_size, mesh)
    if on_step is not None and spans(mesh):
        raise checks.InputError(
            "on_step sees whole batches, of which each of several processes has its "
            "own rows; follow a training in one process"
        )
    own = own_rows(mesh, batch_size)
    feeds = Feeds(images, beside, key, steps, batch_size, own)

    optimiser = recipe(epochs, steps)
    if initial is None:
        initial = make_init_fn(model)(jax.random.fold_in(key, INIT), images.first)
    # Of all, because some optimisers keep the first parameters, which are the caller's.
    state = _copied(TrainState(initial, _begin(optimiser.init, initial["params"])))
    begun = initial, state.opt_state
    initial, state = on_each((initial, state), mesh)
    if shard_optimiser:
        state = state._replace(opt_state=in_parts(state.opt_state, mesh))

    drop = on_each(jax.random.fold_in(key, DROPOUT), mesh)

    def arguments(number: int, batch: Rows, beside: Rows):
        """Of the step, after the state and the totals."""
        # The key is folded within the step: apart, each step would wait for the last.
        own = drop, on_each(np.uint32(number), mesh)
        return *along(tuple(batch), mesh), own, along(beside.x, mesh)

    def step(state, totals, x, y, own, beside):
        numbered = jax.random.fold_in(*own)
        of = (model.apply, optimiser.update, state, totals, x, y, numbered, beside)
        return train_step(*of, loss=loss, augment=augment)

    first = state, on_each(jnp.zeros(2), mesh), *arguments(0, *feeds.like())
    jitted = jax.jit(step, donate_argnums=(0, 1), **placed(first[:2], mesh))
    with jax.disable_jit(False):
        program = jitted.trace(*first)

    saved, kept = Progress(state, np.zeros((epochs, 2)), first[1]), {}
    with ExitStack() as stack:
        if folder is not None:
            stack.enter_context(checkpoint.alone(folder))
            # A run may go on on other devices.
            with jax.disable_jit(False):
                alone = jax.jit(step).trace(*anywhere(first)) if mesh else program
            run = {
                "the compiled step (network, rate, loss, JAX)": alone.jaxpr,
                "the initial weights": begun[0],
                "the initial optimiser state": begun[1],
                **feeds.stand_for(),
                "seed": seed,
                "batch_size": batch_size,
                "epochs": epochs,
                "snapshots": snapshots,
            }
            by = partial(checkpoint.claim, folder, run, _normalisation(model))
            processes.agreed(by)
            del run, by, begun  # a copy of the state
            initial, saved = checkpoint.resume(folder, initial, saved)
            for epoch in (e for e in snapshots if e <= saved.epoch):
                path = checkpoint.snapshot_path(folder, epoch)
                # Only the whole training makes it again.
                kept[epoch] = checkpoint.restore(path, initial, delete=folder)
        step_fn: Any = None
        if saved.epoch < epochs:
            step_fn = executable(step, program, jax.tree.leaves(first))
        state, history = saved.state, saved.history
        bar = stack.enter_context(
            tqdm(
                total=epochs * steps,
                initial=saved.epoch * steps + saved.step,
                desc="training",
                **bar_options("step", progress),
            )
        )
        for epoch in range(saved.epoch, epochs):
            start, totals = 0, on_each(jnp.zeros(2), mesh)
            if epoch == saved.epoch and saved.step:
                start, totals = saved.step, saved.totals
            fed = stack.enter_context(closing(feeds.batches(epoch, start)))
            for i, (batch, beside) in enumerate(fed, start):
                number = epoch * steps + i
                before = on_step and _copied(state.variables)
                state, totals = step_fn(
                    state, totals, *arguments(number, batch, beside)
                )
                if on_step is not None:
                    on_step(number, before, _copied(state.variables), *batch)
                if i % CHECK_EVERY == 0 or i == steps - 1:
                    _look(bar, totals, i + 1, epoch + 1)
                if folder is not None and _is_due(save_every_steps, i + 1, steps):
                    _check_finite(state.variables, i + 1, epoch + 1)
                    now = Progress(state, history, totals, epoch, i + 1)
                    checkpoint.keep(folder, now)
                bar.update()
            history[epoch] = np.asarray(totals) / steps
            # The last step's loss came before it.
            _check_finite(state.variables, steps, epoch + 1)
            if epoch + 1 in snapshots:
                kept[epoch + 1] = _copied(own_copy(state.variables, mesh))
                if folder is not None:
                    path = checkpoint.snapshot_path(folder, epoch + 1)
                    checkpoint.save(path, state.variables)
            last = epoch + 1 == epochs
            if folder is not None and (last or (epoch + 1) % save_every == 0):
                checkpoint.keep(folder, Progress(state, history, totals, epoch + 1))
    variables, initial, kept = own_copy((state.variables, initial, kept), mesh)
    return Trained(variables, initial, history, kept)


def _check(epochs, snapshots, augment, on_step) -> None:
    checks.at_least_one("epochs", epochs)
    if augment is not None and on_step is not None:
        raise checks.InputError(
            "on_step would see other images than the augmented ones whose gradient was "
            "taken; leave out `augment`, or augment x beforehand"
        )
    if not all(0 < epoch <= epochs for epoch in snapshots):
        raise checks.InputError(f"snapshots: 1 to {epochs}, got {snapshots}")


def _is_due(every: int | None, step: int, steps: int) -> bool:
    """Whether to save within an epoch; at its end it is for the epochs."""
    return every is not None and step % every == 0 and step < steps


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


def _check_finite(variables: Variables, step: int, epoch: int) -> None:
    if not _finite(variables):
        raise _diverged("weights were", step, epoch)


@compiled(static=0)
def _finite(tree) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(a).all() for a in jax.tree.leaves(tree)]).all()


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


def _copied(tree):
    """What outlives the next step, which donates its input."""
    return jax.device_put(tree, may_alias=False)
