"""Checks at the door: every bad input becomes one error that says what to do."""

import sys
import warnings

import jax.numpy as jnp
import numpy as np

# Not the caller: this package, and what may lie around each of its functions where
# shapes are checked.
INSIDE = ("fssd_jax", "jaxtyping", "beartype")
CHUNK = 4096  # images looked at together, so that a check needs little memory


# Of Pillow's images, what each number is as a grey or a colour network takes it. A
# palette's are numbers of colours; CMYK, YCbCr and others are colours of other axes.
PILLOW_MODES = (
    "1",
    "L",
    "LA",
    "RGB",
    "RGBA",
    "I",
    "F",
    "I;16",
    "I;16L",
    "I;16B",
    "I;16N",
)


class InputError(ValueError):
    """The caller's input is wrong; the message says what, and how to mend it."""


class DivergedError(RuntimeError):
    """Training was stopped because the loss was no longer finite."""


def warn(text: str) -> None:
    """A `UserWarning` of the line that called this package, however deep it arose."""
    frame, level = sys._getframe(1), 2
    while frame and str(frame.f_globals.get("__name__")).split(".")[0] in INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


def are_pixels(x) -> bool:
    """Whether integers are pixels, 0–255, and not ids: by their type and their axes."""
    return x.dtype == np.uint8 or (np.issubdtype(x.dtype, np.integer) and x.ndim >= 4)


def images(
    x,
    name: str = "images",
    *,
    unit_range: bool = True,
    start: int = 0,
    rank: int = 2,
    ids: bool = False,
    otherwise: str = "or pass unit_range=False if your network takes other inputs",
):
    """Return `x` unchanged if it can be scored, else raise `InputError`.

    Pixels (see `are_pixels`) must lie in 0–255, and other integers, ids, in int32; of
    three axes they might be either, and are refused. Floats must be finite and, if
    `unit_range`, in [0, 1] (models here take raw pixels; the normalisation is part of
    the model).

    Args:
      x: [n, ...].
      name: what it is, for errors.
      unit_range: whether floats outside [0, 1] are an error.
      start: number of the first row, for errors.
      rank: the fewest axes.
      ids: whether integers of three axes are known to be ids.
      otherwise: what one who called a function without `unit_range` can do, beside
        bringing floats into [0, 1].
    """
    if not isinstance(getattr(x, "dtype", None), np.dtype):
        x = to_numpy(x, name)
    if x.ndim < rank:
        raise InputError(
            f"{name}: expected an array [batch, ...] of rank {rank} or more, got shape "
            f"{tuple(x.shape)}; for a single image add the batch axis: x[None]"
        )
    if x.size == 0:
        raise InputError(
            f"{name}: the set is empty (shape {tuple(x.shape)}); at least one image "
            "is needed"
        )
    integers = np.issubdtype(x.dtype, np.integer) or x.dtype == bool
    if not (integers or jnp.issubdtype(x.dtype, np.floating)):
        raise InputError(
            f"{name}: expected integers 0-255 or floats, got dtype {x.dtype}; convert "
            "with x.astype(np.float32)"
        )
    pixels, int32 = are_pixels(x), np.iinfo(np.int32)
    if x.dtype in (np.uint8, bool):
        return x
    if integers and x.ndim == 3 and not ids:
        raise InputError(
            f"{name}: {x.dtype}{[*x.shape]}: pixels [batch, height, width], or ids? "
            "Give pixels as uint8, x.astype(np.uint8), or with their axis of channels, "
            "x[..., None]; and ids as [batch, length], x.reshape(len(x), -1)"
        )
    for at in range(0, len(x), CHUNK):
        part = np.asarray(x[at : at + CHUNK])
        low, high = part.min(), part.max()  # NaN if any value is NaN
        if not (np.isfinite(low) and np.isfinite(high)):
            bad = ~np.isfinite(part.reshape(len(part), -1)).all(axis=1)
            raise InputError(
                f"{name}: image {start + at + int(np.argmax(bad))} holds NaN or "
                "infinite values; remove or repair such images before scoring"
            )
        if pixels and (low < 0 or high > 255):
            raise InputError(
                f"{name}: integers must lie in 0-255, found {low} to {high}; rescale "
                "to floats in [0, 1]"
            )
        if integers and (low < int32.min or high > int32.max):
            raise InputError(
                f"{name}: ids must be below 2³¹, found {low} to {high}; number them "
                "anew"
            )
        if not integers and unit_range and (low < 0 or high > 1):
            mend = "divide by 255" if 0 <= low and high <= 255 else "scale them back"
            raise InputError(
                f"{name}: float images must lie in [0, 1], found {low:g} to {high:g}; "
                f"{mend}, {otherwise}"
            )
    return x


def at_least_one(name: str, value: int) -> None:
    """Raise `InputError` unless `value` is a whole number, 1 or more."""
    at_least(1, name, value)


def at_least(least: int, name: str, value) -> None:
    """Raise `InputError` unless `value` is a whole number, `least` or more."""
    if not is_integer(value) or value < least:
        raise InputError(f"{name}: expected {least} or more, got {value!r}")


def is_integer(value) -> bool:
    """Whether it is one of Python's or NumPy's, and no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def one_of(name: str, value, choices: tuple[int, ...]) -> int:
    """`value` as an int; raise `InputError` unless it is one of these."""
    if not is_integer(value) or value not in choices:
        told = ", ".join(map(str, choices))
        raise InputError(f"{name}: expected one of {told}, got {value!r}")
    return int(value)


def share_of_hundred(name: str, percent: float) -> float:
    """The fraction, or raise `InputError`."""
    if not 0 <= percent <= 100:
        raise InputError(f"{name}: expected 0 to 100, got {percent}")
    return percent / 100


def whole(name: str, value) -> int:
    """`value` as an int; raise `InputError` unless it is one from 0 to 2³² − 1."""
    if not is_integer(value):
        raise InputError(f"{name}: expected a whole number, got {value!r}")
    if not 0 <= value < 2**32:  # beyond, JAX's and NumPy's would be those of another
        raise InputError(f"{name}: expected 0 to 2³² − 1, got {value}")
    return int(value)


def not_bits(x, name: str) -> None:
    """Raise `InputError` for images of 8 bits whose white is 1: black, to a network."""
    if x.dtype != np.uint8 or not x.size or x[:CHUNK].max() > 1:
        return  # mostly told of few images, without reading all from a disk
    if x.max() == 1:
        raise InputError(
            f"{name}: its bytes are 0 and 1, where 255 is white; write 255 * x, or "
            "x.astype(np.float32), of which 1 is white"
        )


def as_bytes_advice(dtype) -> str:
    """How images of a type of which white is not known become such as are taken."""
    if dtype == np.bool_:
        return "give images.astype(np.uint8) * 255"
    return (
        "divide by what is white (65535 of 16 bits), or if none is over 255 give "
        "images.astype(np.uint8)"
    )


def random_key(key):
    """Return `key` unchanged if it is one of JAX's, else raise `InputError`."""
    if not hasattr(key, "dtype"):
        raise InputError(f"key: expected one such as jax.random.key(0), got {key!r}")
    return key


def _check_modes(x, name: str) -> None:
    """Raise `InputError` for an image of Pillow's, alone or not, of another mode."""
    for one in x if isinstance(x, list | tuple) else [x]:
        if not hasattr(one, "getpalette"):
            return  # no image of Pillow's
        if one.mode not in PILLOW_MODES:
            raise InputError(
                f"{name}: an image of Pillow's mode {one.mode}, whose numbers are "
                'neither grey nor red, green and blue; convert it: image.convert("RGB")'
                ', or "L"'
            )


def to_numpy(x, name: str = "images") -> np.ndarray:
    """An array of NumPy's, from any library's, or `InputError`."""
    if np.ma.is_masked(x):
        raise InputError(f"{name}: some values are masked; fill them: x.filled(0)")
    _check_modes(x, name)
    try:
        if hasattr(x, "detach"):  # PyTorch, whose bfloat16 NumPy does not know
            x = x.detach().cpu()
            x = x.float() if x.is_floating_point() else x
        return np.asarray(x)
    except Exception as error:  # rows of several lengths, and what a class may raise
        raise InputError(
            f"{name}: expected an array, got a {type(x).__name__} that is none "
            f"({type(error).__name__}: {error})"
        ) from error


def as_input(x, name: str = "images") -> np.ndarray:
    """What a network is given for an array: pixels as floats, and ids as they are.

    - uint8 is pixels 0–255, and so are other integers in four axes or more: float32 in
      [0, 1]; bool becomes 0 and 1.
    - other integers are ids, of tokens or symbols: int32. (Of three axes, `images`
      refuses them.)
    - floats of any precision become float32.
    """
    x = to_numpy(x, name)
    if are_pixels(x):
        return x.astype(np.float32) / np.float32(255)
    kind = np.int32 if np.issubdtype(x.dtype, np.integer) else np.float32
    return x.astype(kind, copy=False)


def labels(y, count: int, num_classes: int, name: str = "labels") -> np.ndarray:
    """Return `y` as int32 [count] if every class index is in range, else raise."""
    y = to_numpy(y, name)
    if y.shape != (count,):
        raise InputError(
            f"{name}: expected one label per image, shape ({count},), got {y.shape}"
        )
    if count == 0:
        raise InputError(f"{name}: the set is empty; at least two images are needed")
    y = classes(y, num_classes, name)
    if np.all(y == y[0]):
        raise one_class(name, y[0])
    return y


def one_class(name: str, label) -> InputError:
    """What to raise where all labels are this one."""
    return InputError(
        f"{name}: one class only (all {label}); a classifier needs two or more"
    )


def classes(y: np.ndarray, num_classes: int, name: str = "labels") -> np.ndarray:
    """Return `y` as int32 if they are class indices in range, else raise."""
    at_least_one("num_classes", num_classes)
    if not np.issubdtype(y.dtype, np.integer):
        raise InputError(
            f"{name}: expected integer class indices, got dtype {y.dtype}; one-hot "
            "labels become indices with y.argmax(-1)"
        )
    if y.min() < 0 or y.max() >= num_classes:
        raise InputError(
            f"{name}: out of range: found {y.min()} to {y.max()}, expected 0 to "
            f"{num_classes - 1}; renumber the classes or raise num_classes"
        )
    return y.astype(np.int32)


def scores(s, name: str) -> np.ndarray:
    """Return `s` as float64 [count], or raise if it is empty or not finite."""
    s = to_numpy(s, name)
    if s.dtype.kind not in "biuf" and not np.can_cast(s.dtype, np.float64):
        raise InputError(f"{name}: expected real numbers, got dtype {s.dtype}")
    s = s.astype(np.float64)
    if s.ndim != 1 or s.size == 0:
        raise InputError(
            f"{name}: expected a non-empty vector of scores, got shape {s.shape}; "
            "both in-distribution and OoD scores are needed"
        )
    if not np.isfinite(s).all():
        raise InputError(
            f"{name}: {int((~np.isfinite(s)).sum())} of {s.size} scores are NaN or "
            "infinite; check the network's weights and inputs"
        )
    return s
