"""Tests against PyTorch: against its stored outputs, and as `peers` against itself.

And photographs of frost.
"""

import numpy as np
import pytest
from PIL import Image

from fssd_jax.data import frost_pictures
from tests.fssd_jax import references


@pytest.fixture(
    scope="session", params=["stored", pytest.param("live", marks=pytest.mark.peers)]
)
def reference(request):
    """`part` → its arrays."""
    return {"stored": references.read, "live": references.make}[request.param]


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """The package whose pictures are read, with noise for pictures."""
    folder = tmp_path / "site" / "imagecorruptions" / "frost"
    folder.mkdir(parents=True)
    for i, name in enumerate(frost_pictures.NAMES):
        picture = np.random.default_rng(i).integers(60, 200, (300, 350, 3), np.uint8)
        Image.fromarray(picture).save(folder / name)
    monkeypatch.syspath_prepend(tmp_path / "site")
    frost_pictures.read.cache_clear()
    yield folder
    frost_pictures.read.cache_clear()
