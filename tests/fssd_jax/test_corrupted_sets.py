"""ImageNet-C and CIFAR-10-C in the layouts in which they are distributed."""

import numpy as np
import pytest
from PIL import Image

from fssd_jax.checks import InputError
from fssd_jax.data.corrupted_sets import load_cifar_c, stream_imagenet_c


def write_imagenet_c(folder, kind: str, level: int, grey: int) -> None:
    for synset in ("n01440764", "n01443537"):
        at = folder / kind / str(level) / synset
        at.mkdir(parents=True)
        picture = Image.new("RGB", (224, 224), (grey,) * 3)
        picture.save(at / "ILSVRC2012_val_00000293.JPEG", quality=85)


@pytest.mark.parametrize("group", ["", "noise", "noise/noise"])
def test_imagenet_c_is_read_by_kind_and_level(tmp_path, group):
    write_imagenet_c(tmp_path / group, "shot_noise", 2, 40)
    write_imagenet_c(tmp_path / group, "shot_noise", 3, 200)
    stream = stream_imagenet_c(tmp_path, "shot_noise", 3, batch_size=1)
    first, second = stream
    assert first.shape == (1, 224, 224, 3)
    assert np.abs(first.astype(int) - 200).max() <= 2
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(stream.y, [0, 1])
    assert "2 images" in stream.source
    weaker, _ = stream_imagenet_c(tmp_path, "shot_noise", 2, batch_size=1)
    assert np.abs(weaker.astype(int) - 40).max() <= 2


def test_imagenet_c_tells_what_there_is(tmp_path):
    write_imagenet_c(tmp_path, "fog", 1, 0)
    with pytest.raises(InputError, match="there are fog"):
        stream_imagenet_c(tmp_path, "snow", 1)
    with pytest.raises(InputError, match="no folder fog/2"):
        stream_imagenet_c(tmp_path, "fog", 2)
    with pytest.raises(InputError, match="one of 1, 2, 3, 4, 5"):
        stream_imagenet_c(tmp_path, "fog", 0)


def test_cifar_c_is_five_levels_in_one_file(tmp_path):
    x = np.arange(5 * 4, dtype=np.uint8).repeat(32 * 32 * 3).reshape(20, 32, 32, 3)
    np.save(tmp_path / "fog.npy", x)
    np.save(tmp_path / "labels.npy", np.tile(np.array([3, 1, 4, 1], np.uint8), 5))
    found = load_cifar_c(tmp_path, "fog", 2)
    np.testing.assert_array_equal(found.x[:, 0, 0, 0], [4, 5, 6, 7])
    np.testing.assert_array_equal(found.y, [3, 1, 4, 1])
    assert found.y.dtype == np.int32
    assert (found.name, found.split) == (f"{tmp_path.name}/fog", "2")
    with pytest.raises(InputError, match="there are fog"):
        load_cifar_c(tmp_path, "snow", 1)
    with pytest.raises(InputError, match="one of 1, 2, 3, 4, 5"):
        load_cifar_c(tmp_path, "fog", 6)


def test_cifar_c_of_another_form_is_refused(tmp_path):
    np.save(tmp_path / "fog.npy", np.zeros((10, 32, 32, 3), np.uint8))
    np.save(tmp_path / "labels.npy", np.zeros(9, np.uint8))
    with pytest.raises(InputError, match=r"labels uint8\[9\]"):
        load_cifar_c(tmp_path, "fog", 1)
    np.save(tmp_path / "labels.npy", np.arange(10) / 3)
    with pytest.raises(InputError, match=r"float64\[10\].*integers"):
        load_cifar_c(tmp_path, "fog", 1)
    np.save(tmp_path / "labels.npy", np.zeros(0, int))
    np.save(tmp_path / "none.npy", np.zeros((0, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match=r"images uint8\[0, 32, 32, 3\]"):
        load_cifar_c(tmp_path, "none", 1)
    with pytest.raises(InputError, match="1, 2, 3, 4, 5, got True"):
        load_cifar_c(tmp_path, "fog", True)
    np.savez(tmp_path / "labels.npz", np.zeros(10, int))
    (tmp_path / "labels.npz").rename(tmp_path / "labels.npy")
    with pytest.raises(InputError, match=r"labels\.npy: cannot be read"):
        load_cifar_c(tmp_path, "fog", 1)
    (tmp_path / "labels.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"labels\.npy: cannot be read"):
        load_cifar_c(tmp_path, "fog", 1)
