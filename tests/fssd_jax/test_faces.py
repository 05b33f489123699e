"""CelebA by its lists, MS-1M by its folders: who is known, and what is refused."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from fssd_jax.checks import InputError
from fssd_jax.data import inventory
from fssd_jax.data.benchmarks import load_benchmark
from tests import large_files


def names(data):
    """The folder that each image lies in."""
    return [data.x.source.files[i].parent.name for i in data.x.numbers]


def files(data):
    return {data.x.source.files[i] for i in data.x.numbers}


def test_celeba_by_its_lists(tmp_path):
    large_files.celeb_a(tmp_path, per_person=20)
    found = load_benchmark("celeba", tmp_path)
    rows = (tmp_path / "celeb_a" / "identity_CelebA.txt").read_text().split()
    person = dict(zip(rows[::2], map(int, rows[1::2]), strict=True))
    blurry = {f"{i:06}.jpg" for i in range(0, 80, 3)}
    assert {f.name for f in files(found.ood["celeba"])} == blurry
    sets = [{f.name for f in files(data)} for data in (found.train, found.test)]
    assert sets[0] | sets[1] == person.keys() - blurry
    assert not sets[0] & sets[1]
    people = sorted(set(person.values()))
    for data in (found.train, found.test):
        of = [person[data.x.source.files[i].name] for i in data.x.numbers]
        assert [people[label] for label in data.y] == of
    # Of each a fifth, and not the first fifth.
    own = Counter(person[name] for name in person.keys() - blurry)
    assert Counter(found.test.y.tolist()) == {
        k: round(0.2 * own[of]) for k, of in enumerate(people)
    }
    first = [min(n for n in person.keys() - blurry if person[n] == p) for p in people]
    assert not set(first) <= sets[1]
    assert found.num_classes == 4


def test_faces_are_cut_to_the_size_of_the_released_networks(tmp_path):
    large_files.celeb_a(tmp_path, per_person=4)
    data = load_benchmark("celeba", tmp_path).train
    with Image.open(data.x.source.files[data.x.numbers[0]]) as image:
        width, height = image.size
        size = 112, 112 * height // width
        whole = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    top = round((size[1] - 112) / 2)
    np.testing.assert_array_equal(data.x[0], whole[top : top + 112])
    assert load_benchmark("celeba", tmp_path).std == (1.0, 1.0, 1.0)


def test_a_person_with_one_image_is_left_out(tmp_path):
    large_files.celeb_a(tmp_path, per_person=2, people=30, blurry=5)
    found = load_benchmark("celeba", tmp_path)
    # Every fifth image is blurry: 12 of the 30 have one image left.
    assert found.num_classes == 18
    assert set(found.train.y) == set(found.test.y) == set(range(18))


def test_whole_lists_without_images_are_told(tmp_path, capsys):
    large_files.celeb_a(tmp_path, per_person=3)
    for file in sorted((tmp_path / "celeb_a" / "img_align_celeba").iterdir())[2:]:
        file.unlink()
    with pytest.raises(InputError, match=r"10 of the 12 images .* not there, such as"):
        load_benchmark("celeba", tmp_path)
    assert inventory.command(["--check", "E", "--data-dir", str(tmp_path)]) == 1
    assert "10 of the 12 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("list_attr_celeba.txt", b"", "found none; get it anew"),
        ("list_attr_celeba.txt", b"3\n", "found none; get it anew"),
        ("identity_CelebA.txt", "\ufeffa 1".encode("utf-16"), "no text in UTF-8"),
        ("identity_CelebA.txt", None, "identity of 000000.jpg is no number"),
    ],
)
def test_damaged_lists(tmp_path, name, content, told):
    large_files.celeb_a(tmp_path, per_person=3)
    path = tmp_path / "celeb_a" / name
    if content is None:
        content = path.read_bytes().replace(b"000000.jpg 3", b"000000.jpg x")
    path.write_bytes(content)
    with pytest.raises(InputError, match=told):
        load_benchmark("celeba", tmp_path)


def test_lists_that_do_not_fit_together(tmp_path):
    with pytest.raises(InputError, match=r"there is no .*list_attr.*mmlab"):
        load_benchmark("celeba", tmp_path)
    large_files.celeb_a(tmp_path, per_person=3)
    path = tmp_path / "celeb_a" / "identity_CelebA.txt"
    text = path.read_text()
    path.write_text(text.replace("000004.jpg", "4.jpg"))
    with pytest.raises(InputError, match=r"name other images, \['000004.jpg', '4.jpg'"):
        load_benchmark("celeba", tmp_path)
    path.write_text(text + "000099.jpg\n")
    with pytest.raises(InputError, match=r"found 000099\.jpg; get it anew"):
        load_benchmark("celeba", tmp_path)


def test_ms1m_labels_are_those_of_the_training_set(tmp_path):
    large_files.ms1m(tmp_path)
    found = load_benchmark("ms1m", tmp_path)
    people = ["m.0a", "m.0b", "m.0c"]
    for data in (found.train, found.test):
        assert [people[label] for label in data.y] == names(data)
    assert (set(found.test.y), found.num_classes) == ({1, 2}, 3)
    assert found.ood["ms1m"].x[:].shape == (9, 112, 112, 3)
    folder = tmp_path / "ms1m" / "test"
    (folder / "m.0b").rename(folder / "m.0x")
    with pytest.raises(InputError, match=r"no training image, \['m\.0x'\]"):
        load_benchmark("ms1m", tmp_path)
