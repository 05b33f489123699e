"""The common corruptions of ImageNet-C and CIFAR-10-C, each for one image.

Hendrycks & Dietterich (2019), "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR; the definitions are those of the code that made
the two published sets. Each is a function `(x [h, w, c] float64 in [0, 1], amount,
rng) -> [h, w, c]`; what a level is stands in corruption_amounts.py. Differences:

- any size, square or not: what the published code writes as 224 or 32 is the side here;
- one channel stays one: HSV's value, luma and frost are then those of grey;
- motion blur is ImageMagick's (to one grey level of 255) without ImageMagick;
- ImageNet-C was stored as JPEG of quality 85, and nothing is here.

Worker processes import this module, so it needs NumPy, SciPy and Pillow alone.
"""

import hashlib
import io
from functools import partial

import numpy as np
from PIL import Image
from scipy import ndimage

from fssd_jax.data import frost_pictures

LUMA = np.array([0.299, 0.587, 0.114])


def part(images: np.ndarray, kind: str, amount, seed: int) -> np.ndarray:
    """Corrupt [n, h, w, c], uint8 or floats in [0, 1], each image by itself.

    Its random numbers depend on the image, the kind, the amount and the seed alone.
    """
    whole = images.dtype == np.uint8
    made = np.empty_like(images)
    for i, image in enumerate(images):
        told = f"{kind} {amount!r} {seed} {image.dtype.str} {image.shape}"
        key = hashlib.sha256(told.encode() + image.tobytes()).digest()
        rng = np.random.default_rng(np.frombuffer(key, np.uint32))
        x = image.astype(np.float64) / (255 if whole else 1)
        x = np.clip(CORRUPTIONS[kind](x, amount, rng), 0, 1)
        made[i] = in_bytes(x) if whole else x
    return made


def in_bytes(x: np.ndarray) -> np.ndarray:
    """[0, 1] to 0–255, cut off and not rounded, as in the published sets."""
    return np.floor(x * 255 + 1e-6).astype(np.uint8)


# ---- noise --------------------------------------------------------------------------


def gaussian_noise(x, sigma, rng):
    return x + rng.normal(0, sigma, x.shape)


def shot_noise(x, photons, rng):
    """Poisson, `photons` of white."""
    return rng.poisson(x * photons) / photons


def impulse_noise(x, fraction, rng):
    """A fraction of values, of each channel by itself, become 0 or 1."""
    hit = rng.random(x.shape) <= fraction
    return np.where(hit, rng.random(x.shape) <= 0.5, x)


def speckle_noise(x, sigma, rng):
    return x * (1 + rng.normal(0, sigma, x.shape))


# ---- blur ---------------------------------------------------------------------------


def defocus_blur(x, amount, rng):
    """A disk of a radius, its rim smoothed by a Gaussian of standard deviation σ."""
    kernel = disk(*amount)[..., None]
    return ndimage.correlate(x, kernel, mode="mirror")


def disk(radius, sigma) -> np.ndarray:
    """As published: where it fills its array, at radii 8 and 10, the rim is mirrored
    into it, and the sum is not 1 but up to 1.013.
    """
    reach, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    at = np.arange(-reach, reach + 1)
    flat = (at[:, None] ** 2 + at[None] ** 2 <= radius**2).astype(float)
    near = np.arange(-taps, taps + 1)
    rim = np.exp(-(near**2) / (2 * sigma**2))
    kernel = flat / flat.sum()
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, rim / rim.sum(), axis, mode="mirror")
    return kernel


def smooth(x, sigma):
    """A Gaussian over the image, of each channel by itself."""
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def glass_blur(x, amount, rng):
    """Between two Gaussians, each pixel takes the value of one at most `reach` away.

    Pixels are gone through from the last to the first, `times` times. (The published
    code means to swap two, but copies one, as its right-hand side holds views.)
    """
    sigma, reach, times = amount
    h, w, c = x.shape
    rows, columns = (np.arange(side - reach, reach, -1) for side in (h, w))
    to = (rows[:, None] * w + columns[None]).ravel().tolist()
    taken = list(range(h * w))
    for _ in range(times):
        down, right = rng.integers(-reach, reach, (2, len(to)))
        for pixel, step in zip(to, (down * w + right).tolist(), strict=True):
            taken[pixel] = taken[pixel + step]
    x = in_bytes(smooth(x, sigma)) / 255
    return smooth(x.reshape(-1, c)[taken].reshape(h, w, c), sigma)


def motion_blur(x, amount, rng):
    radius, sigma = amount
    return moved(x, radius, sigma, rng.uniform(-45, 45))


def moved(x, radius, sigma, degrees):
    """Σ_i g_i x shifted by i pixels along a direction, i = 0, …, 2·radius; g is half of
    a Gaussian, with sum 1. The edge is repeated.
    """
    i = np.arange(2 * radius + 1)
    weights = np.exp(-(i**2) / (2 * sigma**2))
    weights /= weights.sum()
    turn = np.deg2rad(degrees)
    blurred = np.zeros_like(x)
    down, right = (np.ceil(i * f(turn) - 0.5).astype(int) for f in (np.sin, np.cos))
    for weight, dy, dx in zip(weights, down, right, strict=True):
        rows = np.clip(np.arange(x.shape[0]) + dy, 0, x.shape[0] - 1)
        columns = np.clip(np.arange(x.shape[1]) + dx, 0, x.shape[1] - 1)
        blurred += weight * x[rows[:, None], columns[None]]
    return blurred


def zoom_blur(x, amount, rng):
    """The mean of the image and of `count` enlargements by 1, 1 + step, …

    The factors are those of the published code to the last bit: of 1.25 or of the next
    float, 26 pixels become 32 or 33.
    """
    step, count = amount
    factors = np.arange(1, 1 + step * (count - 0.5), step)
    return (x + sum(enlarged(x, factor) for factor in factors)) / (count + 1)


def enlarged(x, factor):
    """The middle, enlarged to the size of the image."""
    size = np.array(x.shape[:2])
    cut = np.ceil(size / factor).astype(int)
    (top, left), (tall, wide) = (size - cut) // 2, cut
    inner = x[top : top + tall, left : left + wide]
    large = ndimage.zoom(inner, (factor, factor, 1), order=1)
    top, left = (np.array(large.shape[:2]) - size) // 2
    return large[top : top + size[0], left : left + size[1]]


# ---- weather ------------------------------------------------------------------------


def snow(x, amount, rng):
    """Flakes: noise enlarged, above a threshold, moved; and the image whitened."""
    mean, sigma, zoom, threshold, radius, blur, kept = amount
    layer = enlarged(rng.normal(mean, sigma, x.shape[:2])[..., None], zoom)
    layer = in_bytes(np.clip(layer * (layer >= threshold), 0, 1)) / 255
    layer = moved(layer, radius, blur, rng.uniform(-135, -45))
    layer = in_bytes(layer) / 255
    white = np.maximum(x, grey(x) * 1.5 + 0.5)
    return kept * x + (1 - kept) * white + layer + np.rot90(layer, 2)


def grey(x):
    """Luma, [h, w, 1]."""
    return x if x.shape[2] == 1 else (x @ LUMA)[..., None]


def frost(x, amount, rng):
    """kept · image + laid · a piece of one of five photographs, made smaller or not."""
    kept, laid, shrink = amount
    pictures = frost_pictures.read()
    picture = pictures[rng.integers(len(pictures))][shrink // 2 :: shrink]
    picture = picture[:, shrink // 2 :: shrink]
    h, w, c = x.shape
    factor = max(1, (h + 1) / picture.shape[0], (w + 1) / picture.shape[1])
    if factor > 1:
        size = [int(np.ceil(side * factor)) for side in picture.shape[1::-1]]
        large = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
        picture = np.asarray(large)
    top, left = (rng.integers(picture.shape[a] - x.shape[a]) for a in (0, 1))
    piece = picture[top : top + h, left : left + w] / 255
    return kept * x + laid * (grey(piece) if c == 1 else piece)


def fog(x, amount, rng):
    """Clouds laid on, and the sum scaled back to the brightest value of the image."""
    strength, decay = amount
    side = 2 ** int(np.ceil(np.log2(max(x.shape[:2]))))
    clouds = plasma(max(side, 2), decay, rng)[: x.shape[0], : x.shape[1], None]
    return (x + strength * clouds) * x.max() / (x.max() + strength)


def plasma(side, decay, rng) -> np.ndarray:
    """A fractal in [0, 1], [side, side], periodic, by the diamond-square algorithm.

    From coarse to fine, midpoints are the mean of four neighbours and noise, of which
    the amplitude is divided by decay² at each step.
    """
    height = np.zeros((side, side))
    step, amplitude = side, 1.0

    def between(a, b):
        return (a + b) / 4 + rng.uniform(-amplitude, amplitude, a.shape)

    while step > 1:
        half = step // 2
        corners = height[::step, ::step]
        down, right = (np.roll(corners, -1, axis) for axis in (0, 1))
        centres = between(corners + down, right + np.roll(down, -1, 1))
        height[half::step, half::step] = centres
        above, left = (np.roll(centres, 1, axis) for axis in (0, 1))
        height[::step, half::step] = between(corners + right, centres + above)
        height[half::step, ::step] = between(corners + down, centres + left)
        step, amplitude = half, amplitude / decay**2
    height -= height.min()
    return height / height.max()


# ---- digital ------------------------------------------------------------------------


def brightness(x, more, rng):
    """HSV's value, the largest channel, becomes `more`; hue and saturation stay."""
    value = x.max(axis=2, keepdims=True)
    bright = np.minimum(value + more, 1)
    return np.where(value > 0, x * bright / np.where(value > 0, value, 1), bright)


def contrast(x, factor, rng):
    """(x − m) · factor + m, with m the mean of each channel."""
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * factor + mean


def elastic_transform(x, amount, rng):
    """Three points moved by an affine map, then each pixel by a smooth field.

    The amounts are fractions of the shorter side: the field's strength, the standard
    deviation of the Gaussian that smooths it, how far the points move at most.
    """
    strength, sigma, most = np.array(amount) * min(x.shape[:2])
    middle = np.array(x.shape[:2]) // 2
    third = min(x.shape[:2]) // 3
    before = middle + third * np.array([[1, 1], [-1, 1], [-1, -1]])
    after = before + rng.uniform(-most, most, (3, 2))
    # Of each pixel, where it comes from: the affine map that takes `after` to `before`.
    back = np.linalg.solve(np.column_stack([after, np.ones(3)]), before)
    at = np.stack(np.indices(x.shape[:2]), -1).astype(float)
    x = sampled(x, at @ back[:2] + back[2], "mirror")
    field = [
        ndimage.gaussian_filter(
            rng.uniform(-1, 1, x.shape[:2]), sigma, mode="reflect", truncate=3
        )
        for _ in range(2)
    ]
    return sampled(x, at + strength * np.stack(field, -1), "reflect")


def sampled(x, at, mode: str):
    """Bilinear, at [h, w, 2] (row, column)."""
    rows_columns = np.moveaxis(at, -1, 0)
    of_channel = partial(ndimage.map_coordinates, order=1, mode=mode)
    channels = [of_channel(channel, rows_columns) for channel in np.moveaxis(x, -1, 0)]
    return np.stack(channels, -1)


def pixelate(x, factor, rng):
    h, w = x.shape[:2]
    small = (max(1, int(w * factor)), max(1, int(h * factor)))
    box = Image.Resampling.BOX
    return from_picture(picture_of(x).resize(small, box).resize((w, h), box))


def jpeg_compression(x, quality, rng):
    written = io.BytesIO()
    picture_of(x).save(written, "JPEG", quality=quality)
    return from_picture(Image.open(written))


def picture_of(x) -> Image.Image:
    whole = np.round(x * 255).astype(np.uint8)
    return Image.fromarray(whole[..., 0] if x.shape[2] == 1 else whole)


def from_picture(picture: Image.Image) -> np.ndarray:
    x = np.asarray(picture) / 255
    return x[..., None] if x.ndim == 2 else x


CORRUPTIONS = {
    f.__name__: f
    for f in (
        *(gaussian_noise, shot_noise, impulse_noise, speckle_noise),
        *(defocus_blur, glass_blur, motion_blur, zoom_blur),
        *(snow, frost, fog),
        *(brightness, contrast, elastic_transform, pixelate, jpeg_compression),
    )
}
