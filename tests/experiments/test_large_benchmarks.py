"""The paper's B to G from data to report, on small sets of the real layouts.

  pytest -m slow tests/experiments/test_large_benchmarks.py

With the networks of the paper, at the size of its images, for two steps of training.
"""

import json

import numpy as np
import pytest

from experiments import table2
from experiments.comparison import chosen, networks
from experiments.comparison import methods as methods_module
from experiments.comparison.methods import METHODS
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.setting import Options, make_setting, prepare
from fssd_jax import losses, recipes
from fssd_jax.checks import InputError
from fssd_jax.data import imagenet
from fssd_jax.data.augment import crop_and_flip
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.data.decoded import Decoded
from fssd_jax.data.imagenet import DOGS
from tests import image_folders, large_files
from tests.experiments.conftest import near_only

# What cannot be had of token ids, of these networks, or without an auxiliary set.
OF_IMAGES = {"fssd_tiles", "fssd_mahalanobis", "feature_norm"}
ROWS = {  # that have another name than the method
    "fssd_mahalanobis": "fssd + mahalanobis",
    "layers": "fssd noise",
    "outlier_exposure": "msp",
}
NETWORKS = {
    "cifar10": "cifar_resnet34",
    "dogs": "resnet34",
    "imagenet": "resnet34",
    "celeba": "face_resnext50",
    "ms1m": "face_resnext50",
    "genomics": "bilstm",
}
TINY = 128  # images that --tiny trains on at most
FEW = 32  # with the networks of the paper: of faces a core takes 5 s an image


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All of them; enough OoD images for ten folds of validation."""
    root = tmp_path_factory.mktemp("large")
    some = (*DOGS[:4], "n01440764", "n02114367")
    large_files.imagenet(root, (18, 16), some)
    large_files.imagenet_c(root, ("fog",), (3,), 16, some)
    large_files.celeb_a(root, per_person=80)
    large_files.ms1m(root, (20, 20))
    for i in range(40):
        large_files.jpegs(root / "ijb_c" / "test", 1, (130, 120), i, f"{i}-{{}}.jpg")
    large_files.genomics(root, dict.fromkeys(large_files.FILES, 40))
    for i, split in enumerate(("train", "test")):
        image_folders.write(root / "cifar10" / split, *image_folders.drawn(i, 13))
        svhn = image_folders.drawn(i + 2, 12)
        image_folders.write(root / "svhn_cropped" / split, *svhn, image_folders.SVHN)
    return root


def of_two_steps(monkeypatch, whole: bool):
    """The paper's network, or the tiny one, and batches of half of its images."""
    own, subset = networks.network_of, networks.subset

    def network_of(benchmark, name=None, *, width=None, tiny=False):
        found = own(benchmark, name, width=width, tiny=tiny and not whole)
        most = FEW if whole else TINY
        return found._replace(batch_size=min(most, len(benchmark.train.x)) // 2)

    for module in (networks, chosen):
        monkeypatch.setattr(module, "network_of", network_of)
    if whole:
        monkeypatch.setattr(networks, "subset", lambda train, size: subset(train, FEW))
    monkeypatch.setattr(imagenet, "PER_BREED", (8, 10))
    monkeypatch.setattr(imagenet, "DOGS", DOGS[:4])


def run(name, data, out, methods):
    args = ["--benchmark", name, "--tiny", "--data-dir", str(data), "--out", str(out)]
    status = table2.main([*args, "--methods", *methods])
    pair = "imagenet_fog_3" if name == "imagenet" else name
    (path,) = out.glob(f"table2/{pair}-paper-*/metrics.json")
    return status, json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_whole_pipeline(monkeypatch, tmp_path, data, name):
    of_two_steps(monkeypatch, whole=True)
    status, found = run(name, data, tmp_path, ["all"])
    assert status == 0
    assert not found["failed"]
    assert found["model"]["network"] == NETWORKS[name]
    assert found["model"]["parameters"] > 20e6
    rows = found["methods"]
    of = set(METHODS) - (OF_IMAGES if name == "genomics" else set())
    assert {ROWS.get(m, m.replace("_", " ")) for m in of} <= rows.keys()
    exposed = {row for row in rows if row.startswith("outlier exposure")}
    # The paper has an auxiliary set for B, C, E and F.
    assert bool(exposed) == (name in ("cifar10", "dogs", "celeba", "ms1m"))
    assert (found["paper"] is None) == (name == "imagenet")


@pytest.mark.usefixtures("undrawn")
def test_of_decoded_images_the_table_is_complete(monkeypatch, tmp_path, data):
    of_two_steps(monkeypatch, whole=False)
    monkeypatch.setattr(methods_module, "MIXES", 50)  # of 16 images each to decode
    methods = ("fssd_tiles", "fssd_mahalanobis", "knn")
    status, found = run("celeba", data, tmp_path, methods)
    assert status == 0
    rows = {"fssd tiles", "fssd + mahalanobis", "knn"}
    assert rows <= found["methods"].keys()
    assert found["controls"].keys() >= {"control: raw pixels", "control: brightness"}
    assert found["controls"]["control: raw pixels"]["note"] == "means of 2×2 pixels"
    # Of 53 or 54 sharp images of each of four a fifth, 11, is to test on.
    assert found["counts"]["train"] == 128  # of --tiny, of 169
    assert found["counts"]["test_ind"] == 44 - 20


def test_outliers_by_name_and_by_path(monkeypatch, data, tmp_path):
    """None of them is in-distribution, and a folder is not read as a whole."""
    of_two_steps(monkeypatch, whole=False)
    dogs, celeba = (load_benchmark(name, data) for name in ("dogs", "celeba"))
    found, why = chosen.outliers_for(dogs, "auto", data)
    assert found is not None
    assert (found.name, found.x.shape) == ("celeb_a", (320, 224, 224, 3))
    assert not why
    found, _ = chosen.outliers_for(celeba, "auto", data)
    assert found is not None
    assert (found.name, found.x.shape[1:]) == ("imagenet2012", (112, 112, 3))
    for benchmark, name in (
        *((dogs, "imagenet2012"), (celeba, "celeb_a")),
        # By its path it is no other set, nor is one of its splits.
        (dogs, str(data / "imagenet2012" / "train")),
        (celeba, str(data / "celeb_a" / "img_align_celeba")),
    ):
        told = rf"[\d,]+ of its [\d,]+ images are images of {benchmark.name}, too, in "
        with pytest.raises(InputError, match=told):
            chosen.outliers_for(benchmark, name, data)
    large_files.jpegs(tmp_path / "bare" / "celeb_a" / "img_align_celeba", 3, (9, 8), 0)
    found, _ = chosen.outliers_for(dogs, "celeb_a", tmp_path / "bare")
    assert found is not None
    assert len(found.x) == 3  # its lists are not there
    large_files.jpegs(tmp_path / "mine", 3, (90, 80), 0)
    found, _ = chosen.outliers_for(dogs, str(tmp_path / "mine"), data)
    assert found is not None
    assert isinstance(found.x, Decoded)
    assert found.x.shape == (3, 224, 224, 3)
    imagenet_ = load_benchmark("imagenet", data)
    found, why = chosen.outliers_for(imagenet_, "auto", data)
    assert found is None
    assert "the paper has none here" in why["outliers"]
    nowhere = chosen.outliers_for(dogs, "auto", tmp_path)
    assert nowhere[0] is None
    assert "the paper takes celeb_a" in nowhere[1]["outliers"]


def test_faces_are_trained_by_the_margin_loss_and_augmented(data):
    found = networks.network_of(load_benchmark("celeba", data))
    assert found.loss is losses.cosface
    assert found.augment is crop_and_flip
    assert found.recipe is recipes.face
    assert network_size(found, load_benchmark("ms1m", data)) == (4, 3)
    dogs = networks.network_of(
        load_benchmark("celeba", data)._replace(family="imagenet")
    )
    assert dogs.loss is losses.cross_entropy
    assert dogs.augment is None  # it is cut at random where it is decoded
    assert dogs.crop is not None


def test_images_of_imagenet_are_trained_on_as_crops_of_random_boxes(data):
    """Of 8 % to all of the image, at any place, 3:4 to 4:3, half of them mirrored."""
    crop = networks.network_of(load_benchmark("imagenet", data)).crop
    assert crop is not None
    # Rows and columns, told by the red and the green.
    down, right = np.mgrid[0:300, 0:400] / np.array([[[300]], [[400]]])
    x = (255 * np.stack([down, right, right], -1)).astype(np.uint8)
    crops = [crop(x, np.random.default_rng(seed)) for seed in range(60)]
    assert {c.shape for c in crops} == {(224, 224, 3)}
    high, wide = (
        np.array([np.ptp(c[..., channel].astype(int)) / 255 for c in crops])
        for channel in (0, 1)
    )
    area, ratio = high * wide, 4 * wide / (3 * high)
    assert 0.06 < area.min() < 0.2
    assert 0.8 < area.max() <= 1
    assert 0.7 < ratio.min() < 0.85
    assert 1.2 < ratio.max() < 1.42
    tops = [c[..., 0].min() for c in crops]
    assert min(tops) < 10
    assert max(tops) > 100
    mirrored = np.mean([c[0, 0, 1] > c[0, -1, 1] for c in crops])
    assert 0.3 < mirrored < 0.7


def network_size(shared, benchmark):
    model = shared.build(benchmark, None)
    return len(model.stage_sizes), model.num_classes


def test_of_twins_the_same_images_are_held_for_validation(tmp_path):
    """OoD images that are the tested ones, darker: none of them is in both parts."""
    prepared = prepare(near_only("digits"), 0, Options(tiny=True, out=tmp_path))
    own = prepared.training.benchmark
    darker = own.test._replace(x=own.test.x / 2, name="darker")
    twins = own._replace(ood={"darker": darker}, twins=True)
    training = prepared.training._replace(benchmark=twins)
    s = make_setting(
        prepared._replace(training=training), "darker", PROTOCOLS["paper"], tiny=True
    )
    assert s.val_ood.any()
    np.testing.assert_array_equal(s.val_ood, s.val_ind / 2)
