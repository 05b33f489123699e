"""What an error tells the caller to pass is passed, and then there is no error.

Each entry is the call that the error comes from, and the same call with the advice.
"""

import importlib.util
from collections import OrderedDict
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis import infinite_width
from analysis.dynamics import Recorder, make_loss_fn
from analysis.kernel_regression import FrozenForm, PathForm, make_gradient_fn
from analysis.ntk_networks import ConvNet, Perceptron
from fssd_jax import InputError, checkpoint, make_feature_fn, make_logit_fn, map_batches
from fssd_jax.data import crops, pipeline, records
from fssd_jax.data.folders import load_images
from fssd_jax.detectors import fssd, mahalanobis, msp
from fssd_jax.models import BiLSTM
from fssd_jax.train import train
from tests.test_advice import ADVICE

RNG = np.random.default_rng(0)
X = RNG.random((40, 4, 4, 1), np.float32)
Y = np.arange(40) % 2


class Net(nn.Module):
    """One flag, in training mode unless told otherwise; two outputs if asked for."""

    several: bool = False
    feature_layers = ("hidden", "logits")

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train)(x.reshape(len(x), -1))
        x = nn.tanh(nn.Dense(4, name="hidden")(x))
        z = nn.Dense(2, name="logits")(x)
        return (z, x) if self.several else z


NET = Net()
V = NET.init(jax.random.key(0), X[:1], train=False)


def the_input(variables, x):
    return OrderedDict(z=x.reshape(len(x), -1))


def constant_beside(variables, x):
    z = x.reshape(len(x), -1)
    return OrderedDict(z=z, twice=jnp.concatenate([z, z], 1))


def embedded(variables, ids):
    return OrderedDict(z=variables[ids].mean(1))


TABLE = jnp.asarray(RNG.normal(size=(9, 3)), jnp.float32)
IDS = [RNG.integers(0, n, (30, 5)) for n in (9, 5)]
FAR = 0.5 + 0.25 * (X - 0.5)  # nearer to F* than noise is


def fit_far(**options):
    return fssd.fit(the_input, {}, X, FAR, **options)


def of_ids(**options):
    return fssd.fit(embedded, TABLE, IDS[0], *IDS, **options)


def gaussians(**options):
    return mahalanobis.estimate_gaussians(constant_beside, {}, X, Y, 2, **options)


def scored(several=False, **options):
    logit_fn = make_logit_fn(Net(several), **options)
    return map_batches(msp.score, logit_fn, V, msp.fit(), X)


def trained(**options):
    settings = {"num_classes": 2, "seed": 0, "epochs": 1, "progress": False}
    return train(Perceptron(3, 2), X, Y, **settings, **options)


def record(**options):
    probes = {"noise": X[:4]}
    loss_fn = make_loss_fn(NET, train=False)
    recorder = Recorder(
        make_feature_fn(NET, train=False), loss_fn, probes, [0], **options
    )
    recorder(0, V, V)
    return recorder


def frozen(initial):
    """Follows one step of plain SGD from V."""
    network = make_feature_fn(NET, train=False)
    gradient_fn = make_gradient_fn(partial(NET.apply, train=False), network)
    g, _ = gradient_fn(V, X, Y)
    after = {**V, "params": jax.tree.map(lambda p, d: p - 0.1 * d, V["params"], g)}
    FrozenForm(network, gradient_fn, initial, 0.1)(0, V, after, X, Y)


def path(on_step):
    form = PathForm(make_feature_fn(Perceptron(3, 2)), X[:4])
    if on_step:
        trained(on_step=form)
    return form.value()


def resumed(**start):
    """Followed from step 4 on."""
    PathForm(make_feature_fn(NET, train=False), X[:4], **start)(4, V, V)


def lstm(length, positions):
    model = BiLSTM(num_classes=2, hidden=3, num_layers=1, positions=positions)
    x = jnp.zeros((1, length, 4))
    return jax.eval_shape(model.init, jax.random.key(0), x)


def images(folder, **resize):
    np.savez(folder / "a.npz", x=X, y=Y)
    return load_images(folder / "a.npz", size=4, channels=1, progress=False, **resize)


def arrays(folder, **written):
    np.savez(folder / "b.npz", **written)
    return load_images(folder / "b.npz", size=4, channels=1, progress=False)


def last_weights(where, **options):
    trained(**options)
    return checkpoint.trained(where)


SIZES = [(np.full((side, side, 3), 7, np.uint8), 0) for side in (4, 5)]
cut = partial(crops.centre_crop, size=4, resize=None)


def read(transform):
    return next(pipeline.batches(records.Records(SIZES, transform, workers=0)))


OTHER = {**V, "params": jax.tree.map(lambda a: a + 1, V["params"])}
FOLLOWED = {
    "ood": (lambda _: fit_far(), lambda _: fit_far(ood=X)),
    "epsilons": (lambda _: of_ids(), lambda _: of_ids(epsilons=(0.0,))),
    "ridge": (lambda _: gaussians(ridge=0.0), lambda _: gaussians(ridge=1e-6)),
    "features": (
        lambda _: fssd.fit(lambda v, x: x.reshape(len(x), -1), {}, X),
        lambda _: fssd.fit(
            lambda v, x: OrderedDict(features=x.reshape(len(x), -1)), {}, X
        ),
    ),
    "output": (
        lambda _: scored(True, train=False),
        lambda _: scored(True, train=False, output=0),
    ),
    "train": (
        lambda _: make_feature_fn(NET)(V, X),
        lambda _: make_feature_fn(NET, train=False)(V, X),
    ),
    "folder": (last_weights, lambda folder: last_weights(folder, folder=folder)),
    "initial": (lambda _: frozen(OTHER), lambda _: frozen(V)),
    "start": (lambda _: resumed(), lambda _: resumed(start=4)),
    "on_step": (lambda _: path(False), lambda _: path(True)),
    "data": (lambda _: record(), lambda _: record(data=(X, Y))),
    "activation": (
        lambda _: infinite_width.kernel_fn(Perceptron(activation=nn.tanh)),
        lambda _: infinite_width.kernel_fn(Perceptron(activation=nn.relu)),
    ),
    "parametrisation": (
        lambda _: infinite_width.kernel_fn(Perceptron(parametrisation="mup")),
        lambda _: infinite_width.kernel_fn(Perceptron(parametrisation="ntk")),
    ),
    "max_pool": (
        lambda _: infinite_width.kernel_fn(ConvNet(max_pool=True)),
        lambda _: infinite_width.kernel_fn(ConvNet(max_pool=False, strides=2)),
    ),
    "positions": (lambda _: lstm(8, (100,)), lambda _: lstm(8, (7,))),
    "resize": (lambda folder: images(folder, resize=8), images),
    "augment": (
        lambda _: trained(on_step=print, augment=lambda key, x: x),
        lambda _: trained(on_step=lambda *step: None),
    ),
    "transform": (lambda _: read(None), lambda _: read(cut)),
    "x": (
        lambda folder: arrays(folder, a=X, b=X),
        lambda folder: arrays(folder, x=X, y=Y),
    ),
}  # fmt: skip


ELSEWHERE = {
    "direct": "test_forward.py",
    "size": "test_folders.py",
    "unit_range": "test_checks.py",
    "variable_axes": "test_capture.py",
    "part": "test_torch_weights.py",
    "batch_size": "test_gradients.py",
    "layers": "test_advice.py",
    "keep": "test_animation.py",
    "strides": "here, with max_pool",
    "y": "here, with x",
    "allow_pickle": "NumPy's own words",
    "workers": "test_records.py",
    "weights_only": "where the file came from, by PyTorch",
}


def test_all_advice_is_followed_somewhere():
    assert FOLLOWED.keys() | ELSEWHERE.keys() == ADVICE.keys()


NTK = pytest.mark.skipif(
    importlib.util.find_spec("neural_tangents") is None, reason="the extra `ntk`"
)


@pytest.mark.parametrize(
    "argument",
    [
        pytest.param(name, marks=NTK if name in ("activation", "max_pool") else ())
        for name in FOLLOWED
    ],
)
def test_advice_is_followed(argument, tmp_path):
    wrong, right = FOLLOWED[argument]
    # Warnings are errors in these tests.
    with pytest.raises((InputError, UserWarning), match=argument):
        wrong(tmp_path)
    right(tmp_path)
