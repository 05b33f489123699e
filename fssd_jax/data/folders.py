"""Images of one's own: a folder of image files, or an array in a .npz or .npy file."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image, ImageOps
from tqdm import tqdm

from fssd_jax import checks
from fssd_jax.checks import InputError
from fssd_jax.data import array_files
from fssd_jax.data.crops import (
    check_pixels,
    check_resize,
    covering,
    cut_centre,
    height_width,
)
from fssd_jax.data.image_files import find, located
from fssd_jax.data.pipeline import bar_options
from fssd_jax.data.sources import ArrayDataset, digest

# Of `image_files.ENDINGS`, whatever a file is called: Pillow has others run (EPS:
# Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
# Pillow's modes of 8 bits or fewer. Others are refused: what is white in an image of 16
# bits or of floats depends on who wrote it, and Pillow's conversion would clip.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
THREADS = min(8, os.cpu_count() or 1)


def load_images(
    path: str | Path,
    *,
    size: int | tuple[int, int],
    channels: int,
    resize: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> ArrayDataset:
    """All images below a folder, sorted by path, or those of a .npz or .npy file.

    Of image files the EXIF orientation is applied, what is transparent is laid on
    black, only the first frame is read, and `source` says how many were resized:
    resizing is itself a shift, which detectors notice; and what else lies there and was
    not read, by ending. Arrays are taken as they are.

    Args:
      path: a folder; its subfolders are the classes, numbered in sorted order, and
        without subfolders all labels are 0. Or a .npz file: the array `x`, `images`,
        or the only one, and labels `y` or `labels`, 0 or more, if there are any, and no
        other array; or a .npy file. Arrays are [n, h, w, c] or [n, h, w], uint8 or
        floats in [0, 1]. A leading ~ is the user's home.
      size: of the result: (height, width), or the side of a square.
      channels: 3 (RGB) or 1 (grey, ITU-R 601 luma); of arrays, what they must have.
      resize: for folders: the shorter side becomes `resize` pixels, then the centre of
        `size` is cut out; 256 and 224 as by torchvision's Resize and CenterCrop. None:
        images of `size` stay as they are, others are made just to cover it and cut.
      limit: at most as many images, drawn by `seed` without replacement before they are
        read; they stay in order.
      seed: of `limit`.
      progress: whether to show a progress bar.

    Raises:
      InputError: nothing to read, a broken file, arrays of another shape or range, a
        folder whose layout does not say what is meant: images beside subfolders,
        training beside test images, a class folder without images, a folder or file
        reached twice by a link, more images of formats that are not read than others.
    """
    path, shape = located(path), (*height_width(size), channels)
    if path.suffix.lower() in (".npz", ".npy") and path.is_file():
        if resize is not None:
            raise InputError(f"{path}: arrays are not resized; leave `resize` out")
        x, y, what = array_files.read(path, shape)
        chosen, counted = draw(len(x), limit, seed)
        source, x, y = f"{path}: {counted}, {what}", x[chosen], y[chosen]
        return ArrayDataset(x, y, path.stem, "all", source, digest(x, y))
    stream = stream_images(
        path, size=size, channels=channels, resize=resize, limit=limit, seed=seed
    )
    count = len(stream.files)
    x, start, total = np.empty((count, *shape), np.uint8), 0, 0
    bar = {"desc": "reading", **bar_options("image", progress)}
    with tqdm(total=count, **bar) as shown:
        for part, resized in stream.counted():
            x[start : start + len(part)] = part
            start, total = start + len(part), total + resized
            shown.update(len(part))
    to = "×".join(map(str, shape[:2])) if resize is None else resize
    source = f"{stream.source}, {total} resized to {to}"
    files = np.array([os.path.relpath(file, path) for file in stream.files])
    return ArrayDataset(
        *(x, stream.y, path.name, "all", source, digest(x, stream.y)), files=files
    )


@dataclass(frozen=True, eq=False)
class ImageStream:
    """Batches [batch, h, w, c] uint8, in order; each pass reads the files anew."""

    files: list[Path]
    y: np.ndarray  # [n] int32, as of `load_images`
    source: str
    decode: Callable[[Path], tuple[np.ndarray, bool]]  # image, and was it resized
    batch_size: int  # of all batches but the last, which may be smaller

    def __len__(self) -> int:
        return -(-len(self.files) // self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (x for x, _ in self.counted())

    def counted(self) -> Iterator[tuple[np.ndarray, int]]:
        """Batches, and how many of each were resized; THREADS + 2 are held at most.

        Pillow decodes and resizes without Python's global lock.
        """

        def read(start: int) -> tuple[np.ndarray, int]:
            files = self.files[start : start + self.batch_size]
            images, resized = zip(*map(self.decode, files), strict=True)
            return np.stack(images), sum(resized)

        pool = ThreadPoolExecutor(THREADS)
        waiting: deque[Future] = deque()
        try:
            for start in range(0, len(self.files), self.batch_size):
                waiting.append(pool.submit(read, start))
                if len(waiting) > THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def stream_images(
    path: str | Path,
    *,
    size: int | tuple[int, int],
    channels: int,
    resize: int | None = None,
    batch_size: int = 64,
    limit: int | None = None,
    seed: int = 0,
) -> ImageStream:
    """The images of `load_images` in batches, of a folder that does not fit in memory.

    Threads decode a few batches ahead. The arguments are those of `load_images`, and so
    are the errors, of which that of a broken file is raised on the way.
    """
    path, size = located(path), height_width(size)
    checks.at_least_one("batch_size", batch_size)
    if path.suffix.lower() in (".npz", ".npy") and path.is_file():
        raise InputError(f"{path}: only folders are streamed; load_images reads files")
    if channels not in (1, 3):
        raise InputError(f"channels: images are read as 1 or 3, got {channels}")
    check_resize(resize, size)
    files, y, passed_over = find(path)
    chosen, counted = draw(len(files), limit, seed)
    counted += f" (not read: {passed_over})" if passed_over else ""
    cover = size if resize is None else (resize, resize)
    decode = partial(_decode, size=size, channels=channels, cover=cover)
    files = [files[i] for i in chosen]
    return ImageStream(files, y[chosen], f"{path}: {counted}", decode, batch_size)


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images and their labels by number, each read when it is asked for."""

    files: list[Path]
    y: np.ndarray  # [n] int32, as of `load_images`
    source: str
    digest: str  # of the files' names, sizes and labels, not of what is in them
    decode: Callable[[Path], tuple[np.ndarray, bool]]  # image, and was it resized

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        return self.decode(self.files[number])[0], int(self.y[number])


def image_records(
    path: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int,
    resize: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ImageFolder:
    """The images of `load_images` one by one, of a folder that does not fit in memory.

    A source for `train`, or with a crop for `records.Records`. The arguments are those
    of `load_images`, and so are the errors, of which that of a broken file is raised
    when it is read.

    Args:
      path: a folder.
      size: None: images are as large as they are stored, for a crop to cut.
      channels: 3 (RGB) or 1 (grey).
      resize: the shorter side becomes so long before the centre of `size` is cut out.
      limit: at most as many images.
      seed: of `limit`.
    """
    if size is None and resize is not None:
        raise InputError("resize: is followed by a cut; say of which `size`")
    found = stream_images(
        path, size=size or 1, channels=channels, resize=resize, limit=limit, seed=seed
    )
    decode = partial(_whole, channels=channels) if size is None else found.decode
    digest = _digest_of(found.files, located(path), found.y)
    return ImageFolder(found.files, found.y, found.source, digest, decode)


def records_of(
    files: list[Path], y: Int32[np.ndarray, " n"], channels: int, root: Path
) -> ImageFolder:
    """Files below `root`, as large as they are stored, with labels of elsewhere."""
    digest = _digest_of(files, root, y)
    decode = partial(_whole, channels=channels)
    return ImageFolder(files, y, str(root), digest, decode)


def _digest_of(files: list[Path], root: Path, y: np.ndarray) -> str:
    """Of the files' names, sizes and labels: reading all of them takes too long."""
    total = hashlib.sha256(y.tobytes())
    for file in files:
        size = file.stat().st_size if file.exists() else -1
        name = os.fsencode(os.path.relpath(file, root))  # perhaps not of UTF-8
        total.update(name + f"\0{size}\0".encode())
    return total.hexdigest()


def draw(count: int, limit: int | None, seed: int) -> tuple[np.ndarray, str]:
    """Which of `count` images are taken, in order, and how many in words."""
    if limit is None or limit >= count:
        return np.arange(count), f"{count} images"
    checks.at_least_one("limit", limit)
    chosen = np.random.default_rng(seed).choice(count, limit, replace=False)
    return np.sort(chosen), f"{limit} of {count} images (drawn by seed {seed})"


def check_mode(file: Path, image: Image.Image) -> None:
    """Raise `InputError` for an image of another mode than `MODES`."""
    if image.mode not in MODES:
        raise InputError(
            f"{file}: its pixels are of Pillow's mode {image.mode}, expected 8 bits a "
            "channel; convert it, so that white is 255"
        )


def _decode(
    file: Path, size: tuple[int, int], channels: int, cover: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w c"], bool]:
    """One image, and whether it was resized."""
    image = _opened(file, channels)
    check_pixels(file, covering(image.size, cover))
    return cut_centre(image, size, cover)


def _whole(file: Path, channels: int) -> tuple[UInt8[np.ndarray, "h w c"], bool]:
    image = _opened(file, channels)
    return np.asarray(image).reshape(*image.size[::-1], channels), False


def _opened(file: Path, channels: int) -> Image.Image:
    """An image of 1 or 3 channels, as large as it is stored."""
    if not file.is_file():
        raise InputError(f"{file}: is no file, or a link to nothing; remove it")
    try:
        with Image.open(file, formats=FORMATS) as opened:
            # Both are known before it is decoded.
            check_pixels(file, opened.size)
            check_mode(file, opened)
            image = ImageOps.exif_transpose(opened)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            black = Image.new("RGBA", image.size, "black")
            image = Image.alpha_composite(black, image)
        return image.convert("RGB" if channels == 3 else "L")
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise a dozen kinds
        raise InputError(
            f"{file}: cannot be read as an image ({type(error).__name__}: {error}): "
            "truncated or corrupt; get it again, or remove it"
        ) from error
