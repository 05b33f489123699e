"""Chinese characters as images, from a Debian package that needs no root to be read.

fonts-cns11643-pixmaps holds the characters of the Chinese National Standard 11643, some
24×24 pixels, dark on white. They are of the National Development Council of Taiwan
(2015, https://www.cns11643.gov.tw), under the Open Government Data License, version 1.0
(OGDL-TW-1.0, https://data.gov.tw/license): who passes them on has to name it.
"""

import io
import re
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

from fssd_jax.bounded import read_arrays
from fssd_jax.checks import InputError
from fssd_jax.data import debian
from fssd_jax.extras import FETCH

PACKAGE = "fonts-cns11643-pixmaps"
FILE = "glyphs.npz"
COUNT = 20_000
SIDE = 28
PNG_BYTES = 2**16  # of one character, at most; they have a few hundred
# The folders of planes 2–7 and 10–15. The other planes hold digits, Latin letters and
# symbols too, and outliers must show nothing of what they are to help detect: MNIST.
_CHARACTERS = re.compile(
    r"usr/share/pixmaps/cns11643/a(?:[2-7]|1[0-5])/\w+\.png$", re.MULTILINE
)


def read(path: Path) -> np.ndarray:
    """The images of a file that `write` wrote, [COUNT, 28, 28, 1] uint8.

    Raises:
      InputError: the file is damaged, or does not hold such an array `x`.
    """
    mend = f"remove it and run `{FETCH}`"
    arrays = read_arrays(path, mend)
    if "x" not in arrays:
        raise InputError(
            f"{path}: holds {sorted(arrays)}, expected an .npz file with an array x; "
            f"{mend}"
        )
    x = arrays["x"]
    shape = (COUNT, SIDE, SIDE, 1)
    if x.shape != shape or x.dtype != np.uint8:
        raise InputError(
            f"{path}: x is {x.dtype}{list(x.shape)}, expected uint8{list(shape)}; "
            f"{mend}"
        )
    return x


def write(path: Path, x: np.ndarray) -> None:
    """Write `x` to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished.{path.name}")
    np.savez_compressed(unfinished, x=x)
    unfinished.replace(path)


def from_package(deb: Path) -> np.ndarray:
    """COUNT characters, evenly spaced in the sorted list of the package's files.

    Read as a stream: unpacked, the package takes 437 MB.

    Returns:
      [COUNT, 28, 28, 1] uint8, white on black.

    Raises:
      InputError: the package does not hold as many, or an image is too large.
      OSError, tarfile.TarError, subprocess.CalledProcessError: it cannot be read.
    """
    listing = ["dpkg-deb", "--info", str(deb), "md5sums"]
    done = subprocess.run(listing, check=True, capture_output=True, text=True)
    names = sorted(_CHARACTERS.findall(done.stdout))
    chosen = [names[i * len(names) // COUNT] for i in range(COUNT)] if names else []
    wanted, images = set(chosen), {}
    for name, _, content in debian.files(deb):
        if name in wanted:
            images[name] = from_png(content.read(PNG_BYTES))
    if len(images) != COUNT:
        raise InputError(f"{deb.name}: {len(images)} characters, expected {COUNT}")
    return np.stack([images[name] for name in chosen])[..., None]


def from_png(png: bytes) -> np.ndarray:
    """One image [28, 28] uint8: grey, inverted, in the middle of black.

    Raises:
      InputError: it is larger than 28×28, no PNG, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            shape = image.size[::-1]
            room = [SIDE - n for n in shape]
            if min(room) < 0:  # known before it is decoded
                raise InputError(f"an image of {shape} pixels, more than {SIDE} a side")
            ink = 255 - np.asarray(image.convert("L"))
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise a dozen kinds
        raise InputError(f"no whole PNG ({type(error).__name__}: {error})") from error
    return np.pad(ink, [(n // 2, n - n // 2) for n in room])
