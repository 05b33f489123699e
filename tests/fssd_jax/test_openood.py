"""OpenOOD's lists and layout: what is listed is read, in order, as by torchvision."""

import numpy as np
import pytest
from PIL import Image

from fssd_jax.checks import InputError
from fssd_jax.data.openood import BENCHMARKS, open_list, read_list
from tests.open_ood import network, write_images

CIFAR = BENCHMARKS["cifar10"]


@pytest.fixture
def root(tmp_path):
    write_images(tmp_path / "data", "cifar10")
    return tmp_path


def test_there_are_four_benchmarks_of_near_and_far_sets():
    told = {name: (list(of.near), list(of.far)) for name, of in BENCHMARKS.items()}
    small = ["mnist", "svhn", "texture", "places365"]
    large = (["ssb_hard", "ninco"], ["inaturalist", "textures", "openimage_o"])
    assert told == {
        "cifar10": (["cifar100", "tin"], small),
        "cifar100": (["cifar10", "tin"], small),
        "imagenet200": large,
        "imagenet": large,
    }
    for name, of in BENCHMARKS.items():
        assert len(of.sets()) == 4 + len(of.near) + len(of.far)
        assert of.sets()["test"].path == f"{name}/test_{name}.txt"
    # The textures of ImageNet's lists lie among the small images.
    assert BENCHMARKS["imagenet"].far["textures"].folder == "images_classic"
    assert BENCHMARKS["imagenet"].far["inaturalist"].folder == "images_largescale"
    assert BENCHMARKS["cifar100"].val_ood.path == "cifar100/val_tin.txt"


@pytest.mark.parametrize("below", ["", "data"])
def test_a_list_is_read_in_its_order(root, below):
    stream = open_list(root / below, CIFAR, CIFAR.ind["test"], batch_size=8)
    x = np.concatenate(list(stream))
    assert x.shape == (20, 32, 32, 3)
    np.testing.assert_array_equal(stream.y, np.arange(20) % 10)
    for i in (0, 13):
        path = root / "data" / "images_classic" / f"test/class{i % 10}/{i}.png"
        np.testing.assert_array_equal(x[i], np.asarray(Image.open(path)))


def test_a_limit_draws_some_in_order(root):
    whole = open_list(root, CIFAR, CIFAR.ind["test"])
    some = open_list(root, CIFAR, CIFAR.ind["test"], limit=5, seed=1)
    at = [whole.files.index(file) for file in some.files]
    assert at == sorted(at)
    assert len(set(at)) == 5
    np.testing.assert_array_equal(some.y, whole.y[at])
    assert "5 of 20 images" in some.source


def test_the_shorter_side_is_resized_and_the_middle_cut_out(root):
    listed = CIFAR.near["tin"]
    folder = root / "data" / "images_classic" / "tin" / "class-1"
    # Eight grey bars, twice as wide as high: the middle four are left.
    bars = np.arange(0, 256, 32).astype(np.uint8).repeat(16)
    Image.fromarray(np.tile(bars, (64, 1))).save(folder / "0.png")
    Image.fromarray(np.tile(bars[:, None], (1, 64))).save(folder / "1.png")
    wide, high = next(iter(open_list(root, CIFAR, listed)))[:2]
    assert wide.shape == (32, 32, 3)
    np.testing.assert_array_equal(wide[..., 0], wide[..., 2])
    for i, value in enumerate((64, 96, 128, 160)):
        # A pixel on either side of an edge is a mixture of both.
        assert np.all(wide[:, 8 * i + 2 : 8 * i + 6] == value)
    np.testing.assert_array_equal(high, wide.transpose(1, 0, 2))


# OpenOOD's scripts: pre_size and image_size of its data sets, normalization_dict.
OF_IMAGENET = (256, 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
AS_PUBLISHED = {
    "cifar10": (32, 32, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "cifar100": (32, 32, [0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
    "imagenet200": OF_IMAGENET,
    "imagenet": OF_IMAGENET,
}


@pytest.mark.parametrize("name", AS_PUBLISHED)
def test_the_network_sees_the_image_that_openood_shows_it(tmp_path, name):
    """What it sees without a mean and deviation of its own is the same."""
    resize, size, mean, std = AS_PUBLISHED[name]
    benchmark = BENCHMARKS[name]
    listed = benchmark.ind["test"]
    (tmp_path / "benchmark_imglist" / listed.path).parent.mkdir(parents=True)
    (tmp_path / "benchmark_imglist" / listed.path).write_text("a.png 0\n")
    (tmp_path / listed.folder).mkdir()
    x = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    image = Image.fromarray(x).resize((600, 400), Image.Resampling.BICUBIC)
    image.save(tmp_path / listed.folder / "a.png")

    (stored,) = open_list(tmp_path, benchmark, listed)
    image = image.resize((int(1.5 * resize), resize), Image.Resampling.BILINEAR)
    top, left = (resize - size) // 2, (image.width - size) // 2
    cut = np.asarray(image.crop((left, top, left + size, top + size)))
    np.testing.assert_array_equal(stored, cut[None])

    model, variables = network(benchmark, 0)
    seen = model.apply(variables, np.float32(stored / 255))
    bare = model.clone(mean=(0.0,) * 3, std=(1.0,) * 3)
    normalised = ((cut / 255 - np.array(mean)) / np.array(std)).astype(np.float32)[None]
    expected = bare.apply(variables, normalised)
    np.testing.assert_allclose(*map(np.asarray, (seen, expected)), rtol=1e-4, atol=1e-5)


def test_paths_may_hold_no_space_but_before_the_label(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a/b.png 3\nc.png -1\n")
    files, labels = read_list(path)
    assert files == ["a/b.png", "c.png"]
    np.testing.assert_array_equal(labels, [3, -1])


def test_a_byte_order_mark_is_no_part_of_the_first_path(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a.png 3\n", encoding="utf-8-sig")
    assert read_list(path)[0] == ["a.png"]


def test_blank_lines_are_skipped_and_counted(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a.png 3\n\nb.png 1\n \n\n")
    files, labels = read_list(path)
    assert files == ["a.png", "b.png"]
    np.testing.assert_array_equal(labels, [3, 1])
    path.write_text("\n\na.png one\n")
    with pytest.raises(InputError, match="line 3: expected"):
        read_list(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "lists no images"),
        ("\n\n", "lists no images"),
        ("a.png 1\nb.png\n", "line 2: expected"),
        ("a.png one\n", "line 1: expected"),
        (
            "a.png 1\nb.png 99999999999\n",
            r"list\.txt, line 2: the label 99999999999 does",
        ),
        ("a.png -2147483649\n", "line 1: the label -2147483649 does"),
        ("/etc/a.png 1\n", "no path below a folder"),
        ("../a.png 1\n", "no path below a folder"),
    ],
)
def test_other_lists_are_refused(tmp_path, text, told):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        read_list(path)


@pytest.mark.parametrize(
    ("kind", "mode", "stored"),
    [(np.uint16, "I;16", "PNG"), (np.float32, "F", "TIFF")],
)
def test_what_is_white_is_not_guessed(root, kind, mode, stored):
    """Pillow's conversion would make all over 255 white."""
    file = root / "data/images_classic/test/class3/3.png"
    Image.fromarray(np.full((32, 32), 300, kind)).save(file, stored)
    stream = open_list(root, CIFAR, CIFAR.ind["test"])
    with pytest.raises(InputError, match=rf"3\.png: .* mode {mode}, expected 8 bits"):
        list(stream)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(("label", "told"), [(10, "0 to 10"), (-1, "-1 to 9")])
def test_labels_of_images_inside_are_classes(root, split, label, told):
    listed = CIFAR.ind[split]
    path = root / "data" / "benchmark_imglist" / listed.path
    lines = path.read_text().splitlines()
    lines[5] = lines[5].split()[0] + f" {label}"
    path.write_text("\n".join(lines))
    told = rf"{split}_cifar10\.txt: its labels run from {told}, expected 0 to 9, the"
    with pytest.raises(InputError, match=told):
        open_list(root, CIFAR, listed, limit=2)


@pytest.mark.parametrize("label", [-1, 77])
def test_labels_of_images_outside_are_any(root, label):
    for listed in (CIFAR.val_ood, CIFAR.near["cifar100"]):
        path = root / "data" / "benchmark_imglist" / listed.path
        path.write_text(path.read_text().replace(" -1\n", f" {label}\n"))
        assert set(open_list(root, CIFAR, listed).y) == {label}


def test_what_is_not_there_or_broken_is_told(root):
    listed = CIFAR.far["svhn"]
    folder = root / "data" / "images_classic" / "svhn" / "class-1"
    (folder / "3.png").write_bytes(b"\x89PNG no")
    stream = open_list(root, CIFAR, listed)
    with pytest.raises(InputError, match=r"3\.png: cannot be read as an image"):
        list(stream)
    (folder / "3.png").unlink()
    with pytest.raises(InputError, match=r"3\.png: is missing, and was there when"):
        list(stream)
    (folder / "9.png").unlink()
    told = r"3\.png: is not there; .* lists it, and of 20 images 2 are missing; get"
    with pytest.raises(InputError, match=told):
        open_list(root, CIFAR, listed)
    (folder / "0.png").unlink()
    with pytest.raises(InputError, match=r"0\.png: is not there; cifar10/test_svhn"):
        open_list(root, CIFAR, listed)
    (root / "data" / "benchmark_imglist" / "cifar10" / "test_svhn.txt").unlink()
    with pytest.raises(InputError, match=r"test_svhn\.txt: there is no such list"):
        open_list(root, CIFAR, listed)
