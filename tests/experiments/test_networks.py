"""Which weights are taken from the cache, and which are trained."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from experiments.comparison import networks
from experiments.comparison.chosen import brought_network
from experiments.harness import provenance
from experiments.harness.machine import Machine
from fssd_jax import InputError, recipes, train
from fssd_jax.data.augment import crop_and_flip
from fssd_jax.data.benchmarks import Benchmark, load_benchmark
from fssd_jax.data.sources import ArrayDataset, digest
from fssd_jax.models import MLP, LeNet, cifar_resnet20, cifar_resnet34
from fssd_jax.train import Trained
from tests.fssd_jax.references import narrow, save_weights


def dataset(seed, name):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (128, 28, 28, 1), np.uint8)
    y = rng.integers(0, 3, 128).astype(np.int32)
    return ArrayDataset(x, y, name, "train", "drawn by hand", digest(x, y))


IMAGES, OUTLIERS = dataset(0, "images"), dataset(1, "outliers")
BENCHMARK = Benchmark(
    name="tiny",
    train=IMAGES,
    test=IMAGES,
    ood={},
    num_classes=3,
    mean=(0.5,),
    std=(0.25,),
    epochs=1,
    save_every=1,
    validation=10,
    paper=None,
)


TRAINING = networks.Training(
    *(BENCHMARK, IMAGES), epochs=1, short_epochs=1, full_seeds=1, cache=Path("weights")
)


class Call(NamedTuple):
    """One call of `fssd_jax.train.train`."""

    model: Any
    x: np.ndarray
    y: np.ndarray
    options: dict[str, Any]

    @property
    def folder(self):
        return self.options["folder"]


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The calls of `train`, which does not train but returns weights of the seed."""
    made = []

    def remember(model, x, y, **options):
        made.append(Call(model, x, y, options))
        weights = {"params": np.full(2, options["seed"])}
        return Trained(weights, weights, np.zeros((1, 2)), {})

    monkeypatch.setattr(train, "train", remember)
    monkeypatch.chdir(tmp_path)
    return made


def test_subsets_are_nested_and_fixed():
    numbered = IMAGES._replace(x=np.arange(128), y=np.arange(128))
    rows = [networks.subset(numbered, size).x for size in (10, 40, 128, None)]
    assert [len(r) for r in rows] == [10, 40, 128, 128]
    for smaller, larger in pairwise(rows):
        assert set(smaller) <= set(larger)
    assert rows[0].max() > 40  # drawn from all the images, not from the beginning
    # The same ones of another set as large.
    part = networks.subset(IMAGES, 40)
    np.testing.assert_array_equal(part.x, IMAGES.x[rows[1]])
    np.testing.assert_array_equal(part.y, IMAGES.y[rows[1]])


def plain(seed=0, **changes):
    networks.plain(TRAINING._replace(**changes), seed)


def short(**options):
    """`plain` without its snapshots, and with other options."""
    model = networks.network_of(BENCHMARK).build(BENCHMARK, None)
    networks.fit(TRAINING, model, 0, **{"epochs": 1} | options)


def exposed(outliers=OUTLIERS, seed=0, finetune=False):
    networks.exposed(TRAINING, seed, outliers, finetune)


def with_dropout(rate):
    networks.with_dropout(TRAINING, 0, rate)


def test_all_that_decides_the_weights_decides_the_folder(calls):
    half = networks.subset(IMAGES, 64)
    relabelled = IMAGES._replace(y=np.roll(IMAGES.y, 1))
    cores = provenance.available_cores()
    for different in (
        plain,
        lambda: plain(seed=1),
        lambda: plain(epochs=2),
        lambda: plain(images=half),
        lambda: plain(images=networks.subset(IMAGES, 65)),
        lambda: plain(images=IMAGES.select(range(64))),
        lambda: plain(images=relabelled),
        lambda: plain(images=OUTLIERS),
        lambda: with_dropout(0.1),
        lambda: with_dropout(0.2),
        lambda: networks.other_architecture(TRAINING, 0),
        exposed,
        lambda: exposed(networks.subset(OUTLIERS, 64)),
        lambda: exposed(IMAGES),
        short,
        lambda: short(initial={"params": np.zeros(2)}),
        lambda: short(initial={"params": np.ones(2)}),
        lambda: short(recipe=recipes.finetune),
        lambda: short(batch_size=32),
        lambda: short(augment=crop_and_flip),
        lambda: short(cores=cores + 1),
    ):
        before = {call.folder for call in calls}
        different()
        assert len(calls) == len(before) + 1
        assert calls[-1].folder not in before
        different()  # and the same again is the same
        assert calls.pop().folder == calls[-1].folder
    assert all(call.folder.parent == TRAINING.cache for call in calls)


@pytest.mark.parametrize("configuration", ["jax_enable_x64", "jax_default_prng_impl"])
def test_jaxs_configuration_decides_the_folder(calls, configuration):
    short()
    value = {"jax_enable_x64": True, "jax_default_prng_impl": "rbg"}[configuration]
    before = getattr(jax.config, configuration)
    jax.config.update(configuration, value)
    try:
        short()
    finally:
        jax.config.update(configuration, before)
    assert calls[0].folder != calls[1].folder


def test_the_code_of_batches_decides_the_folder(calls, monkeypatch):
    """Dividing by 25.5 in place of 255 once gave the old weights."""
    short()
    bare = provenance.bare_code
    with monkeypatch.context() as changed:
        changed.setattr(
            provenance, "bare_code", lambda s: bare(s.replace("(255)", "(25.5)"))
        )
        provenance.code_digest.cache_clear()
        short()
    provenance.code_digest.cache_clear()
    assert calls[0].folder != calls[1].folder


def test_nothing_else_decides_the_folder(calls, tmp_path):
    plain()
    plain(short_epochs=7)  # of other seeds
    plain(images=networks.subset(IMAGES, 128))
    plain(images=IMAGES._replace(source="elsewhere"))
    plain(machine=Machine(3, True, True, 7))
    plain(cache=tmp_path / "elsewhere")
    assert [call.options["save_every_steps"] for call in calls[-2:]] == [7, 1000]
    assert [call.options["shard_optimiser"] for call in calls[-2:]] == [True, False]
    assert {call.folder.name for call in calls} == {calls[0].folder.name}
    assert calls[-1].folder.parent == tmp_path / "elsewhere"


def test_the_number_of_cores_is_this_machines_or_as_asked(calls, monkeypatch):
    monkeypatch.setattr(provenance, "available_cores", lambda: 2)
    short()
    short(cores=2)
    monkeypatch.setattr(provenance, "available_cores", lambda: 64)
    short()
    short(cores=2)  # weights made on another machine
    two, asked_here, here, asked_there = (call.folder for call in calls)
    assert two == asked_here == asked_there != here


def test_the_first_seeds_train_longest(calls):
    longer = {"epochs": 14, "short_epochs": 3, "full_seeds": 2}
    for seed in (0, 1, 2):
        plain(seed, **longer)
    networks.other_architecture(TRAINING._replace(**longer), 0)
    networks.with_dropout(TRAINING._replace(**longer), 0, 0.1)
    assert [call.options["epochs"] for call in calls] == [14, 14, 3, 14, 3]
    assert calls[0].options["snapshots"] == [4, 7, 11, 14]
    assert calls[2].options["snapshots"] == [1, 2, 3]


def test_networks_are_those_of_the_benchmark(calls):
    plain()
    with_dropout(0.2)
    networks.other_architecture(TRAINING, 0)
    for call in calls:
        assert call.x is IMAGES.x
        assert call.model.num_classes == call.options["num_classes"] == 3
        assert (call.model.mean, call.model.std) == ((0.5,), (0.25,))
    assert calls[1].model.conv_dropout == (0.2, 0.2)
    assert calls[1].model.dense_dropout == 0


COLOUR = BENCHMARK._replace(mean=(0.5,) * 3, std=(0.2,) * 3)


def test_of_grey_images_it_is_the_released_lenet_or_a_narrow_one():
    released, tiny, narrow = (
        networks.network_of(BENCHMARK, **how)
        for how in ({}, {"tiny": True}, {"width": 4, "tiny": True})
    )
    own = BENCHMARK.num_classes, BENCHMARK.mean, BENCHMARK.std
    assert released.build(BENCHMARK, None) == LeNet(*own)
    assert tiny.build(BENCHMARK, None) == LeNet(*own, width=8)
    of_dropout = narrow.build(BENCHMARK, 0.1)
    both = {"conv_dropout": (0.1, 0.1), "dense_dropout": 0.0}
    assert of_dropout == LeNet(*own, width=4, **both)
    assert [n.published for n in (released, tiny, narrow)] == [True, False, False]
    assert [n.name for n in (released, tiny, narrow)] == [
        *("lenet", "lenet", "lenet of width 4")
    ]
    sizes = (
        {
            layer: jax.tree.leaves(of)[-1].shape[-1]  # of the kernel
            for layer, of in LeNet(width=width)
            .init(jax.random.key(0), np.zeros((1, 28, 28, 1)))["params"]
            .items()
        }
        for width in (32, 4)
    )
    assert list(sizes) == [
        {"conv1": 32, "conv2": 64, "fc1": 128, "logits": 10},
        {"conv1": 4, "conv2": 8, "fc1": 16, "logits": 10},
    ]


def test_of_colour_images_they_are_resnets_by_their_recipe(calls):
    """The paper's ResNet-34 of 64 channels; He et al.'s narrow one, if asked for."""
    with pytest.raises(InputError, match="trained with cifar_resnet34 or cifar_res"):
        networks.network_of(COLOUR, "lenet")
    with pytest.raises(InputError, match="tiny is trained with lenet"):
        networks.network_of(BENCHMARK, "cifar_resnet34")
    with pytest.raises(InputError, match="2 or more, got 1"):
        networks.network_of(COLOUR, width=1)
    paper = networks.network_of(COLOUR)
    narrow, wide = (
        networks.network_of(COLOUR, "cifar_resnet20", width=w) for w in (None, 24)
    )
    assert [n.published for n in (paper, narrow, wide)] == [True, False, False]
    for network in (paper, narrow, wide):
        training = TRAINING._replace(benchmark=COLOUR, network=network)
        networks.plain(training, 0)
        networks.with_dropout(training, 0, 0.1)
        networks.exposed(training, 0, OUTLIERS, finetune=False)
        for call in calls[-3:]:
            assert call.options["recipe"] is recipes.cifar
            assert call.options["augment"] is crop_and_flip
            assert call.options["batch_size"] == 128
    fields = {"num_classes": 3, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    assert [call.model for call in calls] == [
        made(**fields, **changes)
        for made in (
            cifar_resnet34, cifar_resnet20, partial(cifar_resnet20, width=24)
        )
        for changes in ({}, {"dropout": 0.1}, {})
    ]  # fmt: skip
    networks.other_architecture(TRAINING._replace(benchmark=COLOUR), 0)
    assert isinstance(calls[-1].model, MLP)
    assert calls[-1].options["recipe"] is recipes.lenet
    assert calls[-1].options["augment"] is None


def test_finetuning_goes_on_from_the_plain_network(calls):
    exposed(seed=4, finetune=True)
    first, then = calls
    plain(4)
    assert first.folder == calls[-1].folder
    np.testing.assert_array_equal(then.options["initial"]["params"], [4, 4])
    assert then.options["recipe"] is recipes.finetune
    assert then.options["outliers"] is OUTLIERS.x
    exposed(seed=4)  # from scratch
    assert calls[-1].options["initial"] is None
    assert calls[-1].options["outliers"] is OUTLIERS.x
    assert calls[-1].folder != then.folder


def test_what_is_trained_is_not_trained_again(tmp_path, monkeypatch):
    def both():
        arguments = TRAINING._replace(cache=tmp_path), 0
        return (
            networks.plain(*arguments),
            networks.exposed(*arguments, OUTLIERS, finetune=True),
        )

    found = both()
    jax.tree.map(np.testing.assert_array_equal, found[1].initial, found[0].variables)
    first, last = (v["params"]["logits"]["kernel"] for v in found[1][:2])
    assert np.any(first != last)
    monkeypatch.setattr(train, "executable", None)  # would fail if called
    jax.tree.map(np.testing.assert_array_equal, both(), found)


def test_a_lenet_of_another_width_is_not_the_published_one(tmp_path):
    digits = load_benchmark("digits")._replace(num_classes=10)
    for width, change in ((32, dict), (8, narrow)):
        path = save_weights(tmp_path / f"{width}.safetensors", "lenet", change)
        found = brought_network(digits, path, None)
        assert found.brought is not None
        assert found.brought.model.width == width
        assert found.network.published == (width == 32)
    with pytest.raises(InputError, match="--width is of convolutions"):
        networks.network_of(digits._replace(symbols=4, mean=()), width=8)
