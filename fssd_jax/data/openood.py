"""The four benchmarks of OpenOOD 1.5, from its image lists and in its layout.

    ROOT/benchmark_imglist/cifar10/test_cifar10.txt    lines "path label"
    ROOT/images_classic/…, ROOT/images_largescale/…    what the paths are below

Zhang et al. (2023), "OpenOOD v1.5: Enhanced Benchmark for Out-of-Distribution
Detection", arXiv:2306.09301; names, groups, sizes and constants are those of
github.com/Jingkang50/OpenOOD at 3c35632.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fssd_jax.bounded import PIXELS
from fssd_jax.checks import InputError
from fssd_jax.data.folders import FORMATS, ImageStream, check_mode
from fssd_jax.data.image_files import located

CLASSIC, LARGE = "images_classic", "images_largescale"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Listed(NamedTuple):
    """A list below benchmark_imglist/, and the folder that its paths are in."""

    path: str
    folder: str


class Benchmark(NamedTuple):
    num_classes: int
    ind: dict[str, Listed]  # "train", "val", "test"
    val_ood: Listed  # to choose hyperparameters by
    near: dict[str, Listed]
    far: dict[str, Listed]
    resize: int  # the shorter side
    size: int  # of the square that is cut out of the middle
    mean: tuple[float, ...]
    std: tuple[float, ...]
    model: str  # of `torch_weights.FORMATS`, of any depth
    checkpoints: str  # the folder of its training runs, s0, s1, …, as OpenOOD calls it

    def sets(self) -> dict[str, Listed]:
        """All of them, by names that are unique."""
        return {**self.ind, "val_ood": self.val_ood, **self.near, **self.far}


def _lists(of: str, folder: str, *names: str, **elsewhere: str) -> dict[str, Listed]:
    """The test lists of OoD sets, by name."""
    return {
        name: Listed(f"{of}/test_{name}.txt", elsewhere.get(name, folder))
        for name in names
    }


def _ind(of: str, folder: str) -> dict[str, Listed]:
    splits = ("train", "val", "test")
    return {split: Listed(f"{of}/{split}_{of}.txt", folder) for split in splits}


def _cifar(name: str, other: str, num_classes: int, **constants) -> Benchmark:
    return Benchmark(
        num_classes,
        _ind(name, CLASSIC),
        Listed(f"{name}/val_tin.txt", CLASSIC),
        _lists(name, CLASSIC, other, "tin"),
        _lists(name, CLASSIC, "mnist", "svhn", "texture", "places365"),
        *(32, 32),
        **constants,
        model="cifar_resnet",
        checkpoints=f"{name}_resnet18_32x32_base_e100_lr0.1_default",
    )


def _imagenet(name: str, num_classes: int, checkpoints: str) -> Benchmark:
    textures = {"textures": CLASSIC}
    return Benchmark(
        num_classes,
        _ind(name, LARGE),
        Listed(f"{name}/val_openimage_o.txt", LARGE),
        _lists(name, LARGE, "ssb_hard", "ninco"),
        _lists(name, LARGE, "inaturalist", "textures", "openimage_o", **textures),
        *(256, 224),
        **IMAGENET,
        model="resnet",
        checkpoints=checkpoints,
    )


BENCHMARKS = {
    "cifar10": _cifar(
        *("cifar10", "cifar100", 10),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    "cifar100": _cifar(
        *("cifar100", "cifar10", 100),
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
    ),
    "imagenet200": _imagenet(
        "imagenet200", 200, "imagenet200_resnet18_224x224_base_e90_lr0.1_default"
    ),
    # Its network is torchvision's ResNet-50, of one training.
    "imagenet": _imagenet("imagenet", 1000, ""),
}


def data_root(root: str | Path) -> Path:
    """The folder that holds benchmark_imglist/: `root`, or `data` in a checkout."""
    root = located(root)
    below = root / "data"
    return below if (below / "benchmark_imglist").is_dir() else root


def open_list(
    root: str | Path,
    benchmark: Benchmark,
    listed: Listed,
    *,
    batch_size: int = 64,
    limit: int | None = None,
    seed: int = 0,
) -> ImageStream:
    """The images of a list in batches [batch, size, size, 3] uint8, in its order.

    Each is made RGB, its shorter side resized (bilinear) and the middle cut out, as
    by torchvision. Labels are those of the list; those of OoD sets mean nothing.

    Args:
      root: see `data_root`.
      benchmark: says the size.
      listed: one of `benchmark.sets()`.
      batch_size: images at a time.
      limit: at most as many, drawn by `seed`; they stay in order.
      seed: of `limit`.

    Raises:
      InputError: no such list, a line that is none, a list of in-distribution images
        with labels that are no classes of the benchmark, or images that are not there;
        on the way: one that cannot be read, or has more than 8 bits a channel.
    """
    root = data_root(root)
    path = root / "benchmark_imglist" / listed.path
    files, labels = read_list(path)
    if listed in benchmark.ind.values():
        _check_classes(path, labels, benchmark.num_classes)
    whole = len(files)
    if limit is not None and limit < whole:
        chosen = np.random.default_rng(seed).choice(whole, limit, replace=False)
        chosen.sort()
        files, labels = [files[i] for i in chosen], labels[chosen]
    paths = [root / listed.folder / file for file in files]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"{missing[0]}: is not there; {listed.path} lists it, and of {len(paths)} "
            f"images {len(missing)} are missing; get them again"
        )
    decode = partial(_decode, resize=benchmark.resize, size=benchmark.size)
    source = f"{listed.path} of OpenOOD: {len(paths)} of {whole} images"
    return ImageStream(paths, labels, source, decode, batch_size)


def _check_classes(path: Path, labels: np.ndarray, num_classes: int) -> None:
    """Raise `InputError` unless all are classes: accuracy would be of other labels."""
    low, high = labels.min(), labels.max()
    if low < 0 or high >= num_classes:
        raise InputError(
            f"{path}: its labels run from {low} to {high}, expected 0 to "
            f"{num_classes - 1}, the benchmark's classes; get the list again, or "
            "number them so"
        )


def read_list(path: Path) -> tuple[list[str], np.ndarray]:
    """The paths and labels of a list, a line of which is "path label", or blank.

    Raises:
      InputError: it is not there, is empty, or a line is another.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such list")
    try:
        # With or without a mark at the start, as Windows' editors write it.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    files, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():  # such as at the end, as editors leave it
            continue
        # As OpenOOD reads it: up to the first space.
        file, _, label = line.partition(" ")
        if not file or file.startswith("/") or ".." in Path(file).parts:
            raise InputError(f"{path}, line {number}: no path below a folder: {line!r}")
        try:
            value = int(label)
        except ValueError as error:
            raise InputError(
                f'{path}, line {number}: expected "path label", got {line!r}'
            ) from error
        if not -(2**31) <= value < 2**31:
            raise InputError(
                f"{path}, line {number}: the label {value} does not fit into 32 "
                "bits; get the list again, or give the number of a class"
            )
        files.append(file)
        labels.append(value)
    if not files:
        raise InputError(f"{path}: lists no images")
    return files, np.array(labels, np.int32)


def _decode(
    file: Path, resize: int, size: int
) -> tuple[UInt8[np.ndarray, "size size 3"], bool]:
    """One image, and whether it was resized. What is cut off is an error."""
    try:
        with Image.open(file, formats=FORMATS) as opened:
            if opened.size[0] * opened.size[1] > PIXELS:
                raise ValueError(f"{opened.size[0]}×{opened.size[1]} pixels")
            check_mode(file, opened)
            image = opened.convert("RGB")
    except FileNotFoundError as error:
        raise InputError(
            f"{file}: is missing, and was there when its list was read; get it again"
        ) from error
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise a dozen kinds
        raise InputError(
            f"{file}: cannot be read as an image ({type(error).__name__}: {error}); "
            "get it again"
        ) from error
    width, height = image.size
    short = min(width, height)
    resized = short != resize
    if resized:
        sides = (int(resize * width / short), int(resize * height / short))
        image = image.resize(sides, Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size))), resized
