"""Images decoded when they are asked for are the array that they stand for."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from experiments.harness import weights
from fssd_jax import losses, make_logit_fn, train
from fssd_jax.checks import InputError
from fssd_jax.data import crops
from fssd_jax.data.decoded import Decoded
from fssd_jax.data.folders import image_records, load_images
from fssd_jax.data.large_sets import Cut, LargeSet
from fssd_jax.data.pipeline import map_batches
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.detectors import energy
from fssd_jax.models import MLP
from tests import large_files

SIDE, RESIZE = 24, 32


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(decoded as it is asked for, the same images as one array), of three classes."""
    root = tmp_path_factory.mktemp("images")
    for i, name in enumerate("abc"):
        large_files.jpegs(root / name, 7, (40, 50), i)
    source = image_records(root, channels=3)
    whole = LargeSet(source, source.y, ("a", "b", "c"), str(root))
    array = load_images(root, size=SIDE, resize=RESIZE, channels=3)
    return whole.decoded("some", "train", Cut(SIDE, RESIZE)), array


@pytest.mark.parametrize(
    "chosen",
    [
        slice(None),
        slice(3, 9),
        slice(None, None, 5),
        np.array([4, 0, 20]),
        np.arange(21) % 2 == 0,
        np.array([], int),
        2,
        -1,
    ],
)
def test_any_part_is_that_of_the_array(both, chosen):
    decoded, array = both
    np.testing.assert_array_equal(decoded.x[chosen], array.x[chosen])
    if not isinstance(chosen, int):
        part = decoded.select(chosen)
        assert isinstance(part.x, Decoded)
        assert (part.x.shape, len(part.x)) == (array.x[chosen].shape, len(part.y))
        np.testing.assert_array_equal(part.x[:], array.x[chosen])
        np.testing.assert_array_equal(part.y, array.y[chosen])
    assert (decoded.x.dtype, decoded.x.size) == (array.x.dtype, array.x.size)


def test_parts_of_parts_and_the_whole_as_an_array(both):
    decoded, array = both
    twice = decoded.select(np.arange(20, 0, -1)).select(slice(2, 6))
    np.testing.assert_array_equal(twice.x[:], array.x[[18, 17, 16, 15]])
    np.testing.assert_array_equal(np.asarray(decoded.x), array.x)


def test_digests_tell_images_and_labels_and_not_the_cut(both):
    x, y = both[0].x, both[0].y
    assert x.digest(y) == both[0].sha256
    larger = Decoded(x.source, x.numbers, SIDE + 8, RESIZE)
    assert larger.digest(y) == x.digest(y)
    others = x.digest(y[::-1]), x.part(slice(5)).digest(y[:5])
    assert len({x.digest(y), *others}) == 3
    # Another source with as many images and the same labels.
    changed = dataclasses.replace(x.source, digest="another")
    assert Decoded(changed, x.numbers, SIDE).digest(y) != x.digest(y)


def model():
    return MLP(3, (0.5,) * 3, (0.5,) * 3)


def test_scores_and_weights_are_those_of_the_array(both, tmp_path):
    decoded, array = both
    how = {"seed": 0, "epochs": 2, "num_classes": 3, "batch_size": 8, "progress": False}
    crop = partial(crops.centre_crop, size=SIDE, resize=RESIZE)
    found = [
        weights.trained(model(), data, cache=tmp_path / name, crop=crop, **how)
        for name, data in (("decoded", decoded), ("array", array))
    ]
    jax.tree.map(np.testing.assert_array_equal, found[0].variables, found[1].variables)
    score = partial(map_batches, energy.score, make_logit_fn(model()))
    of = [score(found[0].variables, energy.fit(), x) for x in (decoded.x, array.x)]
    np.testing.assert_array_equal(*of)


def test_a_crop_and_its_arguments_decide_the_weights(both, tmp_path):
    how = {"seed": 0, "epochs": 1, "num_classes": 3, "batch_size": 21}
    for size in (16, 16, 20):
        crop = partial(crops.random_resized_crop, size=size)
        weights.trained(model(), both[0], cache=tmp_path, crop=crop, **how)
    assert len(list(tmp_path.iterdir())) == 2


def test_outliers_may_be_decoded_as_well(both, tmp_path):
    decoded, array = both
    how = {"seed": 0, "epochs": 1, "num_classes": 3, "batch_size": 8, "progress": False}
    grey = ArrayDataset(array.x[::-1].copy(), array.y, "g", "train", "here", "0" * 64)
    found = [
        weights.trained(model(), grey, cache=tmp_path / name, outliers=data, **how)
        for name, data in (("decoded", decoded), ("array", array))
    ]
    jax.tree.map(np.testing.assert_array_equal, found[0].variables, found[1].variables)


def test_records_of_tfds_are_read_by_their_names(both):
    x = both[0].x
    dicts = [{"image": image, "label": y} for image, y in x.source]
    again = Decoded(dicts, x.numbers, SIDE, RESIZE)
    np.testing.assert_array_equal(again[:4], x[:4])


def test_images_of_other_channels_are_refused(both):
    x = both[0].x
    grey = [(image[..., :1], y) for image, y in x.source]
    with pytest.raises(InputError, match=r"record 3: its shape is \(40, .*, 1\)"):
        Decoded(grey, x.numbers, SIDE)[3]


def test_the_loss_that_is_asked_for_is_minimised(both, tmp_path):
    array = both[1]
    how = {"seed": 0, "epochs": 1, "num_classes": 3, "batch_size": 8, "progress": False}
    how["loss"] = losses.squared
    kept = weights.trained(model(), array, cache=tmp_path, **how)
    own = train.train(model(), array.x, array.y, **how)
    jax.tree.map(np.testing.assert_array_equal, kept.variables, own.variables)
