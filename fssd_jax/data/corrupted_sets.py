"""ImageNet-C and CIFAR-10-C as they were published: read, and nothing computed."""

from pathlib import Path

import numpy as np

from fssd_jax import checks
from fssd_jax.checks import InputError
from fssd_jax.data.folders import ImageStream, stream_images
from fssd_jax.data.image_files import located
from fssd_jax.data.sources import ArrayDataset, digest

LEVELS = (1, 2, 3, 4, 5)
# The archives of ImageNet-C unpack to the kinds, or to folders of their own names,
# which some keep in such folders once more.
ARCHIVES = ("noise", "blur", "weather", "digital", "extra")
GROUPS = ("", *ARCHIVES, *(f"{name}/{name}" for name in ARCHIVES))


def stream_imagenet_c(
    root: str | Path,
    kind: str,
    level: int,
    *,
    size: int = 224,
    batch_size: int = 64,
    limit: int | None = None,
    seed: int = 0,
) -> ImageStream:
    """The images of `<root>/<kind>/<level>/<synset>/*.JPEG`, in batches.

    The classes are numbered in the order of the synsets' names, as is usual for
    ImageNet, if all 1,000 are there; `source` tells how many images are. The other
    arguments are those of `folders.stream_images`.

    Raises:
      InputError: no such kind or level below `root` (it lists those that are).
    """
    root, level = located(root), checks.one_of("level", level, LEVELS)
    folder = folder_of(root, kind, level)
    if folder is not None:
        return stream_images(
            folder,
            size=size,
            channels=3,
            batch_size=batch_size,
            limit=limit,
            seed=seed,
        )
    found = sorted(
        {at.parent.name for group in GROUPS for at in (root / group).glob("*/[1-5]")}
    )
    raise InputError(
        f"{root}: no folder {kind}/{level}; there are {', '.join(found) or 'no kinds'}"
        ". Expected the layout <root>/<kind>/<level>/<synset>/*.JPEG of ImageNet-C"
    )


def folder_of(root: Path, kind: str, level: int) -> Path | None:
    """<root>/<kind>/<level>, also below the folder of one of `GROUPS`."""
    folders = (root / group / kind / str(level) for group in GROUPS)
    return next((folder for folder in folders if folder.is_dir()), None)


def load_cifar_c(root: str | Path, kind: str, level: int) -> ArrayDataset:
    """One level of `<root>/<kind>.npy`, [5·n, 32, 32, 3] uint8, and of `labels.npy`.

    The levels follow each other, n images of each: of CIFAR-10-C and CIFAR-100-C
    10,000. Only the level that is asked for is read.

    Raises:
      InputError: no such kind (it lists those that are), or files of another form.
    """
    root, level = located(root), checks.one_of("level", level, LEVELS)
    path = root / f"{kind}.npy"
    if not path.is_file():
        found = sorted(p.stem for p in root.glob("*.npy") if p.stem != "labels")
        raise InputError(
            f"{root}: no file {path.name}; there are {', '.join(found) or 'no kinds'}"
        )
    x, y = _mapped(path), _mapped(root / "labels.npy")
    integers = np.issubdtype(y.dtype, np.integer)
    of_images = x.ndim == 4 and x.dtype == np.uint8 and len(x) and len(x) % 5 == 0
    if not (of_images and integers and y.shape == (len(x),)):
        raise InputError(
            f"{path}: images {x.dtype}{list(x.shape)} and labels "
            f"{y.dtype}{list(y.shape)}, expected uint8 [5·n, height, width, channels] "
            "and integers [5·n]; get them again"
        )
    count = len(x) // 5
    chosen = slice((level - 1) * count, level * count)
    x, y = np.array(x[chosen]), np.array(y[chosen], np.int32)
    return ArrayDataset(
        x, y, f"{root.name}/{kind}", str(level), str(path), digest(x, y)
    )


def _mapped(path: Path) -> np.ndarray:
    try:  # whatever the file is called, .npz is refused
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); get it again"
        ) from error
