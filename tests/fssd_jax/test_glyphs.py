"""PNG files, packages and glyph files, written here."""

import hashlib
import io
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from fssd_jax import InputError
from fssd_jax.data import fetch, glyphs, load

RNG = np.random.default_rng(0)
COUNT = 6


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A set of six, and a machine without it."""
    monkeypatch.setattr(glyphs, "COUNT", COUNT)
    monkeypatch.setenv("FSSD_JAX_DATA", str(tmp_path / "fetched"))


@pytest.fixture
def x():
    return RNG.integers(0, 256, (COUNT, 28, 28, 1), np.uint8)


def png(pixels, mode="RGB"):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "png")
    return file.getvalue()


def shade(value, shape=(24, 24)):
    return np.full(shape, value, np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_a_png_becomes_white_on_black_in_the_middle(mode):
    pixels = shade(255)
    pixels[3, 5], pixels[23, 0] = 0, 100
    expected = np.zeros((28, 28), np.uint8)
    expected[5, 7], expected[25, 2] = 255, 155
    np.testing.assert_array_equal(glyphs.from_png(png(pixels, mode)), expected)


def test_a_bilevel_png_is_read_too():
    pixels = shade(255)
    pixels[0, 0] = 0
    x = glyphs.from_png(png(pixels, "1"))
    assert (x.sum(dtype=int), x[2, 2]) == (255, 255)


def test_colours_weigh_as_the_eye_does():
    """ITU-R 601: 0.299 R + 0.587 G + 0.114 B."""
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        pixels = np.zeros((24, 24, 3), np.uint8)
        pixels[..., channel] = 255
        assert glyphs.from_png(png(pixels))[14, 14] == 255 - round(255 * weight)


def test_odd_sizes_are_put_in_the_middle_too():
    x = glyphs.from_png(png(shade(0, (25, 23))))
    rows, columns = np.nonzero(x)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 25, 2, 24)
    with pytest.raises(InputError, match=r"\(29, 24\).*28"):
        glyphs.from_png(png(shade(0, (29, 24))))


def test_what_is_written_is_loaded(tmp_path, x):
    for folder in ("fetched", "mine"):
        glyphs.write(tmp_path / folder / "cns_glyphs" / "glyphs.npz", x)
        x = 255 - x
    data, mine = (load("cns_glyphs", "train", d) for d in (None, tmp_path / "mine"))
    np.testing.assert_array_equal(data.x, x)
    np.testing.assert_array_equal(mine.x, 255 - x)
    assert data.x.dtype == np.uint8
    np.testing.assert_array_equal(data.y, np.zeros(COUNT, np.int32))
    assert mine.source == str(tmp_path / "mine" / "cns_glyphs")
    files = [p.name for p in (tmp_path / "fetched" / "cns_glyphs").iterdir()]
    assert files == ["glyphs.npz"]


def test_without_the_file_make_data_is_the_way(tmp_path):
    with pytest.raises(InputError, match=r"fetched/cns_glyphs/glyphs.npz; `make data`"):
        load("cns_glyphs", "train")
    with pytest.raises(InputError, match=r"mine/cns_glyphs/glyphs.npz; `make data`"):
        load("cns_glyphs", "train", tmp_path / "mine")
    with pytest.raises(InputError, match=r"no split 'test'.*train"):
        load("cns_glyphs", "test")


def test_damage_is_an_error_wherever_it_is(tmp_path, x):
    path = tmp_path / "glyphs.npz"
    glyphs.write(path, x)
    whole = path.read_bytes()
    assert len(whole) > 4000
    spoilt = [b"", b"<html>not found</html>", whole[:-1], whole[: len(whole) // 2]]
    for at in RNG.integers(0, len(whole), 200):
        spoilt.append(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    messages = []
    for data in spoilt:
        path.write_bytes(data)
        try:  # a zip file has a few bytes that nobody reads, its dates for instance
            np.testing.assert_array_equal(glyphs.read(path), x)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 190
    assert all(m.startswith(f"{path}: ") for m in messages)
    assert all(m.endswith("; remove it and run `make data`") for m in messages)


def test_another_array_is_an_error(tmp_path, x):
    path = tmp_path / "glyphs.npz"
    for other, said in (
        (x[1:], r"uint8\[5, 28, 28, 1\], expected uint8\[6, 28, 28, 1\]"),
        (x[..., 0], r"uint8\[6, 28, 28\], expected"),
        (x.astype(np.float32), "float32"),
        (np.array([{}]), "allow_pickle=False"),
    ):
        np.savez(path, x=other)
        with pytest.raises(InputError, match=rf"glyphs.npz: .*{said}"):
            glyphs.read(path)
    np.savez(path, images=x)
    with pytest.raises(InputError, match="with an array x"):
        glyphs.read(path)
    with path.open("wb") as file:
        np.save(file, x)
    with pytest.raises(InputError, match="with an array x"):
        glyphs.read(path)


@pytest.fixture
def package(tmp_path):
    """Build a .deb: characters of shades 0–12, and digits, letters and symbols."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("there is no dpkg-deb here")
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: glyphs\nVersion: 1\nArchitecture: all\nMaintainer: me <me@here>\n"
        "Description: glyphs\n"
    )
    folders = ["a10", "a2", *["a3"] * 8, "a7", "a7", "a15"]
    characters = sorted(f"{d}/8e{i:06x}.png" for i, d in enumerate(folders))
    others = ["a1/8ea1a4a1.png", "a8/8ea8a1a1.png", "a16/x.png", "a17/x.png"]
    sums = []
    for value, name in enumerate([*characters, *others, "a2/readme.txt"]):
        path = root / "usr/share/pixmaps/cns11643" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(shade(value)))
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        sums.append(f"{digest}  {path.relative_to(root)}\n")
    (root / "DEBIAN" / "md5sums").write_text("".join(sums[::-1]))
    deb = tmp_path / "glyphs_1_all.deb"
    build = ["dpkg-deb", "--root-owner-group", "--build", str(root), str(deb)]
    subprocess.run(build, check=True, capture_output=True)
    return deb


def test_characters_are_taken_evenly_and_nothing_else(package, monkeypatch):
    x = glyphs.from_package(package)
    assert x.shape == (COUNT, 28, 28, 1)
    assert x.dtype == np.uint8
    # Six of thirteen: every 13/6th, rounded down.
    np.testing.assert_array_equal(255 - x[:, 14, 14, 0], [0, 2, 4, 6, 8, 10])
    monkeypatch.setattr(glyphs, "COUNT", 13)
    x = glyphs.from_package(package)
    np.testing.assert_array_equal(255 - x[:, 14, 14, 0], np.arange(13))
    monkeypatch.setattr(glyphs, "COUNT", 14)
    with pytest.raises(InputError, match="13 characters, expected 14"):
        glyphs.from_package(package)


def test_fetching_leaves_one_file(package, tmp_path, monkeypatch):
    commands = []

    def run(*command, cwd=None):
        commands.append(command[:2])
        if command[1] == "download":
            shutil.copy(package, cwd)

    monkeypatch.setattr(fetch, "_run", run)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(InputError, match=r"expected \[20000, 0"):  # of the real set
        fetch.fetch("cns_glyphs")
    assert commands == [("apt-get", "update"), ("apt-get", "download")]
    files = [p for p in (tmp_path / "fetched").rglob("*") if p.is_file()]
    assert files == [tmp_path / "fetched" / "cns_glyphs" / "glyphs.npz"]
    assert len(load("cns_glyphs", "train").x) == COUNT


def test_fetching_says_why_it_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(fetch, "_run", lambda *command, cwd=None: "E: no network")
    with pytest.raises(InputError, match=r"download fonts-cns11643-pixmaps: E: no"):
        fetch.fetch("cns_glyphs")
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"no apt-get.*\n.*put its glyphs.npz into"):
        fetch.fetch("cns_glyphs")
    assert not (tmp_path / "fetched").exists()


def test_a_damaged_package_is_said(package, monkeypatch):
    def run(*command, cwd=None):
        if command[1] == "download":
            with open(f"{cwd}/glyphs.deb", "wb") as file:
                file.write(package.read_bytes()[:-200])

    monkeypatch.setattr(fetch, "_run", run)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(InputError, match=r"could not be had here.*\n.*\n.*download"):
        fetch.fetch("cns_glyphs")
