"""Crops of one image on the host, as torchvision has them; see `records.Records`.

Pure functions of an image and, where they draw, of a NumPy generator.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from fssd_jax.bounded import PIXELS
from fssd_jax.checks import InputError, is_integer

AREA = (0.08, 1.0)  # of the crop, of the image's
RATIO = (3 / 4, 4 / 3)  # of the crop's width to its height
TRIES = 10
BILINEAR = Image.Resampling.BILINEAR


def random_resized_crop(
    image: Shaped[np.ndarray, "h w c"],
    rng: np.random.Generator,
    *,
    size: int | tuple[int, int] = 224,
    area: tuple[float, float] = AREA,
    ratio: tuple[float, float] = RATIO,
    flip: bool = True,
) -> UInt8[np.ndarray, "height width c"]:
    """A crop of random area, shape and place, resized; half of them are mirrored.

    torchvision's RandomResizedCrop and RandomHorizontalFlip, by which ImageNet's
    networks are trained (Szegedy et al. 2015, "Going Deeper with Convolutions").

    Args:
      image: uint8, of 1 or 3 channels.
      rng: draws the crop.
      size: of the result: (height, width), or the side of a square.
      area: from which share of the image's area to which.
      ratio: of width to height, from which to which; its logarithm is uniform.
      flip: whether to mirror half of them.
    """
    height, width = height_width(size)
    check_pixels("a crop", (width, height))
    check_image(image)
    top, left, high, wide = random_box(rng, image.shape[:2], area, ratio)
    cut = as_pillow(image[top : top + high, left : left + wide])
    resized = np.asarray(cut.resize((width, height), BILINEAR))
    resized = resized.reshape(height, width, image.shape[2])
    mirrored = flip and rng.random() < 0.5
    return np.ascontiguousarray(resized[:, ::-1]) if mirrored else resized


def random_box(
    rng: np.random.Generator,
    stored: tuple[int, int],
    area: tuple[float, float] = AREA,
    ratio: tuple[float, float] = RATIO,
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a crop of an image of `stored` (height, width).

    Area and log ratio are uniform; drawn anew where it does not fit into the image,
    and after ten tries the largest centred one whose ratio is within bounds.
    """
    height, width = stored
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(TRIES):
        wanted = height * width * rng.uniform(*area)
        shape = math.exp(rng.uniform(low, high))
        wide, tall = round(math.sqrt(wanted * shape)), round(math.sqrt(wanted / shape))
        if 0 < wide <= width and 0 < tall <= height:
            top = int(rng.integers(0, height - tall + 1))
            return top, int(rng.integers(0, width - wide + 1)), tall, wide
    own = width / height
    wide = round(height * ratio[1]) if own > ratio[1] else width
    tall = round(width / ratio[0]) if own < ratio[0] else height
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def centre_crop(
    image: Shaped[np.ndarray, "h w c"],
    rng: np.random.Generator | None = None,
    *,
    size: int | tuple[int, int] = 224,
    resize: int | None = 256,
) -> UInt8[np.ndarray, "height width c"]:
    """For evaluation: the centre of `size`, after the shorter side became `resize`.

    The same pixels as of `folders.load_images`, whose arguments these are.
    """
    del rng
    size = height_width(size)
    check_resize(resize, size)
    cover = size if resize is None else (resize, resize)
    whole = as_pillow(image)
    check_pixels("an image", covering(whole.size, cover))
    return cut_centre(whole, size, cover)[0]


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    sides = [*size] if isinstance(size, Sequence) else [size, size]
    if len(sides) != 2 or not all(map(is_integer, sides)) or min(sides) < 1:
        raise InputError(f"size: expected 1 or more, or (height, width), got {size!r}")
    return int(sides[0]), int(sides[1])


def check_resize(resize: int | None, size: tuple[int, int]) -> None:
    if resize is not None and resize < max(size):
        raise InputError(
            f"resize: {resize} is less than the size {size}; give {max(size)} or more"
        )


def as_pillow(image: np.ndarray) -> Image.Image:
    check_image(image)
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def check_image(image: np.ndarray) -> None:
    of_pixels = image.dtype == np.uint8 and image.ndim == 3 and image.size
    if not of_pixels or image.shape[2] not in (1, 3):
        raise InputError(
            f"a crop takes uint8 images [height, width, 1 or 3], got {image.dtype}"
            f"{[*image.shape]}; convert them before, or leave out what has no pixel"
        )


def cut_centre(
    image: Image.Image, size: tuple[int, int], cover: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w c"], bool]:
    """The centre of `size` of the image made just to cover `cover`; was it resized."""
    new = covering(image.size, cover)
    resized = new != image.size
    if resized:
        image = image.resize(new, BILINEAR)
    left, top = round((new[0] - size[1]) / 2), round((new[1] - size[0]) / 2)
    image = image.crop((left, top, left + size[1], top + size[0]))
    return np.asarray(image).reshape(*size, -1), resized


def check_pixels(what: object, size: tuple[int, int]) -> None:
    if size[0] * size[1] > PIXELS:
        raise InputError(
            f"{what}: of {size[0]}×{size[1]} pixels, stored or resized, over the limit "
            f"of {PIXELS}; give a smaller size, or remove it, or cut or shrink it "
            "before"
        )


def covering(stored: tuple[int, int], cover: tuple[int, int]) -> tuple[int, int]:
    """(width, height) that covers `cover`, (height, width), and no more.

    Where `cover` is square and one side comes out exactly, the other is rounded down,
    as (in `cut_centre`) half a pixel at the edge goes to the even number: by
    torchvision.
    """
    width, height = stored
    if cover[1] * height >= cover[0] * width:
        return cover[1], cover[1] * height // width
    return cover[0] * width // height, cover[0]
