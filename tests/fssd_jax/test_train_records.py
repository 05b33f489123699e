"""Training from records: the weights of equal arrays, resumed within an epoch."""

import subprocess
import sys

import numpy as np
import optax
import pytest
from PIL import Image

from fssd_jax import InputError, checkpoint
from fssd_jax.checks import DivergedError
from fssd_jax.data.folders import image_records, load_images
from fssd_jax.data.records import Pairs, Reading, Records, check_classes
from fssd_jax.train import train
from tests.conftest import Smooth
from tests.fssd_jax.test_train import adam, assert_same, folders

RNG = np.random.default_rng(0)
Y = np.arange(90) % 3
X = (RNG.integers(0, 99, (90, 4, 4, 1)) + 50 * Y[:, None, None, None]).astype(np.uint8)
OUTLIERS = RNG.integers(0, 256, (31, 4, 4, 1), np.uint8)
STEPS = 5  # of 16 images, an epoch


def fit(x, y=None, **options):
    settings = {
        "num_classes": 3, "seed": 1, "epochs": 3, "batch_size": 16, "recipe": adam,
        "progress": False,
    }  # fmt: skip
    return train(Smooth(), x, y, **settings | options)


class Source:
    digest = "first"

    def __init__(self, x=X, broken=()):
        self.x, self.broken = x, broken

    def __len__(self):
        return len(self.x)

    def __getitem__(self, number):
        if number in self.broken:
            raise OSError("truncated")
        return {"image": self.x[number], "label": Y[number]}


def noise(image, rng):
    return image // 2 + rng.integers(0, 99, image.shape, np.uint8)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_weights_are_those_of_the_same_arrays(workers):
    source = Records(Source(), workers=workers)
    assert_same(fit(source), fit(X, Y))
    beside = Records(list(OUTLIERS), workers=workers)
    assert_same(fit(source, outliers=beside), fit(X, Y, outliers=OUTLIERS))


def test_what_is_drawn_is_of_seed_epoch_and_record_alone():
    """The images that come to the network, under every number of workers."""
    seen = {}
    for seed, workers in ((1, 0), (1, 3), (2, 0)):
        steps = seen[seed, workers] = []
        spy = lambda *step, s=steps: s.append(step[-2:])  # noqa: E731
        fit(Records(Source(), noise, workers), seed=seed, on_step=spy)
    assert_same(seen[1, 0], seen[1, 3])
    draws = {}
    for seed in (1, 2):
        images = np.concatenate([x for x, _ in seen[seed, 0]]).round(6)
        draws[seed] = {image.tobytes() for image in images}
        assert len(draws[seed]) == len(images)  # anew in each of three epochs
    assert not draws[1] & draws[2]
    # Records 0 to 89, each as `default_rng([seed, 0, epoch, record])` makes it.
    of_first_epoch = np.concatenate([x for x, _ in seen[1, 0][:STEPS]])
    made = [
        noise(X[n], np.random.default_rng([1, 0, 0, n])) / np.float32(255)
        for n in range(90)
    ]
    made = {image.tobytes(): y for image, y in zip(made, Y, strict=True)}
    labels = np.concatenate([y for _, y in seen[1, 0][:STEPS]])
    for image, y in zip(of_first_epoch, labels, strict=True):
        assert made[image.tobytes()] == y


# ---- resumed within an epoch --------------------------------------------------------


@pytest.mark.parametrize("data", [(Records(Source(), noise, 2), None), (X, Y)])
def test_a_run_killed_within_an_epoch_goes_on_to_the_same_weights(data, tmp_path):
    def killed(at, seen):
        def on_step(number, *_):
            seen.append(number)
            if number == at:
                raise KeyboardInterrupt

        return on_step

    saved = {"folder": tmp_path, "save_every_steps": 2, "outliers": OUTLIERS}
    # In the first epoch, in the second, and after the last save within one.
    for at, left in ((3, "epoch-00000-step-0000002"), (7, "epoch-00001"), (9, None)):
        with pytest.raises(KeyboardInterrupt):
            fit(*data, on_step=killed(at, []), **saved)
        if left:
            assert left in folders(tmp_path)
    assert folders(tmp_path) == ["epoch-00001", "epoch-00001-step-0000004", "initial"]
    seen = []
    found = fit(*data, on_step=killed(None, seen), **saved)
    assert seen == list(range(9, 3 * STEPS))
    assert folders(tmp_path) == ["epoch-00003", "initial"]
    assert_same(found, fit(*data, outliers=OUTLIERS))


CHILD = """
import os, signal, sys
from tests.fssd_jax.test_train_records import *
def on_step(number, *_):
    if number == 8:
        os.kill(os.getpid(), signal.SIGKILL)
how = Records(Source(), noise, 2)
fit(how, folder=sys.argv[1], save_every_steps=3, on_step=on_step)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_what_is_taken_up(tmp_path):
    done = subprocess.run([sys.executable, "-c", CHILD, tmp_path], check=False)
    assert done.returncode == -9
    assert checkpoint.last_epoch(tmp_path) == 1
    assert "epoch-00001-step-0000003" in folders(tmp_path)
    how = Records(Source(), noise, 2)
    assert_same(fit(how, folder=tmp_path), fit(how))


def test_what_diverged_is_not_saved_within_an_epoch(tmp_path):
    nan = lambda *_: optax.sgd(lambda step: np.nan * step)  # noqa: E731
    with pytest.raises(DivergedError, match=r"not finite by step 2 of epoch 1"):
        fit(X, Y, folder=tmp_path, save_every_steps=2, recipe=nan)
    assert folders(tmp_path) == ["initial"]
    with pytest.raises(InputError, match="save_every_steps: expected 1 or more"):
        fit(X, Y, save_every_steps=0)


# ---- whose folder it is -------------------------------------------------------------


def test_other_records_are_refused(tmp_path):
    run = {"folder": tmp_path, "epochs": 1}
    found = fit(Records(Source(), noise), **run)
    assert_same(fit(Records(Source(), noise, workers=0), **run), found)
    renamed, changed = Source(), Source(255 - X)
    renamed.digest = "second"
    others = [
        Records(renamed, noise),
        Records(changed, noise),
        Records(Source()),
        Records(Source(), lambda image, rng: noise(image, rng)[::-1]),
    ]
    for other in others:
        with pytest.raises(InputError, match=r"another run\. .*: images\. Choose"):
            fit(other, **run)
    with pytest.raises(InputError, match=r"another run.*outliers"):
        fit(Records(Source(), noise), outliers=list(OUTLIERS), **run)


# ---- a folder of images -------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    for i, image in enumerate(RNG.integers(0, 256, (24, 6, 5, 3), np.uint8)):
        path = tmp_path / "photos" / "abc"[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "photos"


def test_a_folder_trains_as_what_is_loaded_from_it(photos):
    sizes = {"size": 4, "channels": 3, "resize": 4}
    loaded = load_images(photos, **sizes, progress=False)
    assert_same(fit(image_records(photos, **sizes)), fit(loaded))
    assert_same(fit(loaded), fit(loaded.x, loaded.y))


# ---- what is told -------------------------------------------------------------------


def test_what_is_no_source():
    for x, y, told in (
        (Source(), Y, r"records have their labels, so leave y out.*Pairs\(x, y\)"),
        (Records(Source(broken=[41]), workers=2), None, "record 41: cannot be read"),
        (list(X), None, r"record 0: has no label, not a class index; give \(image"),
        (Pairs(X, Y + 1), None, "label: out of range: found 3 to 3, expected 0 to 2"),
        (Pairs(X, np.eye(3)[Y]), None, r"has a label \[3\], not a class index"),
        (Pairs(X, Y / 2), None, "label: expected integer class indices, got dtype"),
        (Records([], workers=0), None, "images: the set is empty; it has no record"),
        (X, None, r"training labels: expected one label per image, shape \(90,\)"),
    ):
        with pytest.raises(InputError, match=told):
            fit(x, y)
    with pytest.raises(InputError, match="outliers, record 4: cannot be read"):
        fit(X, Y, outliers=Source(broken=[4]))
    for cut in (OUTLIERS[:, :2], list(OUTLIERS[:, :2])):
        told = r"outliers: are float32\[2, 4, 1\], the training images float32\[4, 4"
        with pytest.raises(InputError, match=told):
            fit(X, Y, outliers=cut)


def test_grains_endless_source_is_refused():
    grain = pytest.importorskip("grain")
    source = grain.MapDataset.source(Source())
    assert_same(fit(source), fit(Source()))
    told = r"training images: \d+ records, .* leave out \.repeat\(\): training"
    for endless in (source.repeat(), source.shuffle(seed=0).repeat()[::2]):
        with pytest.raises(InputError, match=told):
            fit(endless)


def test_what_grain_filtered_is_told_and_may_be_filtered_beforehand():
    grain = pytest.importorskip("grain")
    sparse = grain.MapDataset.source(Source()).filter(lambda one: one["label"] != 1)
    with pytest.raises(
        InputError, match=r"training images, record \d+: is None, as where"
    ):
        fit(sparse)
    kept = Y != 1
    beforehand = grain.MapDataset.source(Pairs(X[kept], Y[kept]))
    assert_same(fit(beforehand), fit(X[kept], Y[kept]))


@pytest.mark.parametrize("count", [9, 90])
def test_records_of_one_class_are_refused_as_their_arrays_are(count):
    one = np.full(count, 2)
    for x, y in ((X[:count], one), (Pairs(X[:count], one), None)):
        with pytest.raises(
            InputError, match=r"training labels: one class only \(all 2"
        ):
            fit(x, y)
    # Whichever record is the other one: most are not among those that are drawn.
    for other in range(1, count, 8):
        y = one.copy()
        y[other] = 0
        check_classes(Reading(Records(Pairs(X[:count], y)), "x", num_classes=3), [])


def test_labels_of_outliers_are_not_looked_at(tmp_path):
    """Boxes, paths and what not; and a run is that of the next process."""
    run = {"epochs": 1, "recipe": adam}
    alone = fit(X, Y, outliers=OUTLIERS, **run)
    for n, label in enumerate((lambda i: [0] * (i % 3), lambda i: {"path": str(i)})):
        for _ in range(2):
            beside = [(x, label(i)) for i, x in enumerate(OUTLIERS)]
            found = fit(X, Y, outliers=beside, folder=tmp_path / str(n), **run)
            assert_same(found, alone)
    assert_same(fit(X, Y, outliers=(OUTLIERS, np.zeros(31, int)), **run), alone)


def test_a_folder_takes_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    found = fit(torch.tensor(X), torch.tensor(Y), folder=tmp_path, epochs=1)
    assert_same(fit(X, Y, folder=tmp_path, epochs=1), found)


# ---- memory -------------------------------------------------------------------------

STREAM = """
import resource, sys
import jax, numpy as np
from fssd_jax.allocator import keep_memory
from fssd_jax.data.records import Records
from fssd_jax.models import MLP
from fssd_jax.train import train
keep_memory()
class Made:
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def __getitem__(self, number):
        rng = np.random.default_rng(number)
        return rng.integers(0, 256, (224, 224, 3), np.uint8), number % 2
model = MLP(num_classes=2, mean=(0.5,) * 3, std=(0.5,) * 3, hidden=(2, 2))
train(model, Records(Made(int(sys.argv[1])), workers=2), num_classes=2, seed=0,
      epochs=1, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_records():
    """20,000 images of 224×224 are 2.9 GB as bytes, and four times that as floats."""
    peaks = []
    for count in (4_000, 20_000):
        command = [sys.executable, "-c", STREAM, str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout))
        print(f"{count:,} records: peak {peaks[-1]:.0f} MiB")
    assert peaks[1] < peaks[0] + 150  # malloc keeps some in pieces


def erased(image, rng):
    image[rng.integers(4)] = 0  # in place, as many write it
    return image


def test_a_transform_may_change_the_image_in_place():
    """Its record is the same in every epoch, and in the next run."""
    x = X.copy()
    source = Records(Pairs(x, Y), erased, workers=0)
    first, second = fit(source), fit(source)
    np.testing.assert_array_equal(x, X)
    assert_same(first.variables, second.variables)


@pytest.mark.parametrize("what", [{"epochs": 0}, {"batch_size": 0}, {"save_every": 0}])
def test_numbers_that_could_not_work_are_refused_at_once(what, tmp_path):
    (name,) = what
    with pytest.raises(InputError, match=f"{name}: expected 1 or more"):
        fit(X, Y, folder=tmp_path / "run", **what)
    assert not (tmp_path / "run").exists()


def test_seeds_that_would_be_those_of_another_are_refused():
    for seed in (2**32, -1):
        with pytest.raises(InputError, match="seed: expected 0 to 2³² − 1"):
            fit(X, Y, seed=seed)
