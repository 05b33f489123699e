"""What is timed of this package: `prepare` makes each task ready to be done again."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fssd_jax
from benchmarks import inputs, kernel
from benchmarks.inputs import CLASSES, EPSILON, NETWORKS
from fssd_jax import fssd, head, logistic, map_batches
from fssd_jax.detectors import mahalanobis, odin, vim
from fssd_jax.ensemble import EPSILONS, fit_swept
from fssd_jax.train import train

CHECKED_STEPS = 3
LAYERS = 5  # of a fit
DIM, TEMPERATURE = 32, 1000.0  # ViM's D, ODIN's T
SIDE = 2048  # of the matrices whose product shows what the machine can do


def prepare(task: str, name: str, count: int, batch: int = 64) -> Callable[[], Any]:
    """A function that does the task once and returns its numbers."""
    return TASKS[task](name, count, batch)


def _scored(score: Callable, name: str, count: int, batch: int, **kwargs) -> Callable:
    model, variables = NETWORKS[name].build(), inputs.weights(name)
    feature_fn = fssd_jax.make_feature_fn(model)
    singularity = fssd_jax.estimate_singularity(
        feature_fn, variables, inputs.noise(name)
    )
    of = feature_fn, variables, singularity, inputs.pictures(name, count)[0]
    return partial(map_batches, score, *of, batch_size=batch, **kwargs)


def _training(name: str, count: int, _: int) -> Callable:
    """An epoch, with all that a call of `train` does."""
    network = NETWORKS[name]
    return _train(network, network.build(), name, count, 1)


def _steps(name: str, _: int, __: int) -> Callable:
    """The loss of each of a few steps on one batch, without dropout."""
    network = NETWORKS[name]
    model = network.build(**network.undropped)
    run = _train(network, model, name, network.batch, CHECKED_STEPS)
    return lambda: run()[:, :1]


def _train(network, model, name: str, count: int, epochs: int) -> Callable:
    options: Any = {"num_classes": CLASSES, "seed": 0, "progress": False}
    options |= {"batch_size": network.batch, "recipe": network.recipe}
    data, initial = inputs.pictures(name, count), inputs.weights(name)
    run = partial(train, model, *data, epochs=epochs, initial=initial, **options)
    return lambda: run().history


def _mahalanobis(name: str, count: int, batch: int) -> Callable:
    """Fit on images and score them."""
    model, variables = NETWORKS[name].build(), inputs.weights(name)
    network = fssd_jax.make_feature_fn(model), variables
    x, y = inputs.pictures(name, count)

    def run():
        of = *network, x, y, CLASSES
        gaussians = mahalanobis.estimate_gaussians(*of, batch_size=batch)
        score = mahalanobis.confidences, *network, gaussians, x
        return map_batches(*score, batch_size=batch)

    return run


def _one_layer(name: str, count: int, batch: int, step: bool = False) -> Callable:
    """Mahalanobis of the last hidden layer: fit on images, and score them."""
    model, variables = NETWORKS[name].build(), inputs.weights(name)
    layer = model.feature_layers[-2]  # pyright: ignore[reportAttributeAccessIssue]
    network = fssd_jax.make_feature_fn(model, [layer]), variables
    x, y = inputs.pictures(name, count)
    epsilon = jnp.full(1, EPSILON)

    def run():
        of = *network, x, y, CLASSES
        gaussians = mahalanobis.estimate_gaussians(*of, batch_size=batch)
        of = *network, gaussians, x
        if not step:
            return map_batches(mahalanobis.confidences, *of, batch_size=batch)
        swept = {"epsilons": epsilon, "batch_axis": 1, "batch_size": batch}
        return map_batches(mahalanobis.sweep, *of, **swept)[0]

    return run


def _odin(name: str, count: int, batch: int) -> Callable:
    logit_fn = fssd_jax.make_logit_fn(NETWORKS[name].build())
    state = odin.fit(temperatures=[TEMPERATURE])
    state = state._replace(epsilon=jnp.float32(EPSILON))
    of = logit_fn, inputs.weights(name), state, inputs.pictures(name, count)[0]
    return partial(map_batches, odin.score, *of, batch_size=batch)


def _vim(name: str, count: int, batch: int) -> Callable:
    """Fit on images and score them; the last layer is found before."""
    model, variables = NETWORKS[name].build(), inputs.weights(name)
    network = fssd_jax.make_feature_fn(model), variables
    x = inputs.pictures(name, count)[0]
    last = head.find(network[0], fssd_jax.make_logit_fn(model), variables, x[:batch])

    def run():
        state = vim.fit(*network, last, x, dim=DIM, batch_size=batch)
        return map_batches(vim.score, *network, state, x, batch_size=batch)

    return run


def _fit(_: str, count: int, __: int) -> Callable:
    """ε and α of FSSD: `fit` with OoD labels, without the images' distances."""
    ind, ood = inputs.distances(count // 2, len(EPSILONS), LAYERS)
    layers = [f"layer{k}" for k in range(LAYERS)]
    return lambda: fit_swept(ind, ood, EPSILONS, layers, seed=0)[0].auroc


def _regression(_: str, count: int, __: int) -> Callable:
    """α of one ε, its strength chosen by cross-validation."""
    table = inputs.table(count, LAYERS)
    return lambda: logistic.fit(*table).alpha[None]


def _kernel(_: str, count: int, __: int) -> Callable:
    """Eq. (4) at LeNet's fc1, without a kernel."""
    of = kernel.network(), *kernel.drawn(count)
    return lambda: kernel.kernel_free(*of).reshape(-1, 1)  # some units are dead


def _metrics(_: str, count: int, __: int) -> Callable:
    sets = inputs.scores(count)
    return lambda: np.array(fssd_jax.evaluate(*sets)[:4])


def _product(_: str, count: int, __: int) -> Callable:
    """A product of two square matrices, `count` times."""
    a = jnp.asarray(np.random.default_rng(5).normal(size=(SIDE, SIDE)), jnp.float32)
    product = jax.jit(lambda a: a @ a)

    def run():
        for _ in range(count):
            jax.block_until_ready(product(a))

    return run


TASKS: dict[str, Callable[[str, int, int], Callable]] = {
    "plain": partial(_scored, fssd.fssd),
    "one": partial(_scored, fssd.fssd, epsilon=jnp.float32(EPSILON)),
    "sweep": partial(_scored, fssd.sweep, epsilons=jnp.asarray(EPSILONS), batch_axis=1),
    "training": _training,
    "steps": _steps,
    "mahalanobis": _mahalanobis,
    "one layer": _one_layer,
    "one layer, step": partial(_one_layer, step=True),
    "odin": _odin,
    "vim": _vim,
    "fit": _fit,
    "regression": _regression,
    "kernel": _kernel,
    "metrics": _metrics,
    "product": _product,
}
