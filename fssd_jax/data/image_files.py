"""Which files below a folder are images, and of what class; what else lies there."""

import os
import tarfile
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from fssd_jax.checks import InputError
from fssd_jax.data.split_names import splits_among

ENDINGS = (
    ".png .jpg .jpeg .jpe .jfif .bmp .webp .tif .tiff .gif .ppm .pgm .pbm .pnm".split()
)
ARRAYS = (".npz", ".npy")
ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"}
# Images that are not read: passing over them leaves a set that is not the one meant.
FOREIGN = set(
    ".heic .heif .avif .jp2 .j2k .jpx .jxl .svg .tga .psd .exr .hdr .dcm .nii .ico "
    ".raw .dng .cr2 .cr3 .nef .arw .orf .rw2".split()
)
# What the files of `ENDINGS` begin with, whatever they are called.
BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
OPENED = 200  # of other files at most, 20 of an ending, to see whether they are images
NO_ENDING, HIDDEN = "without ending", "hidden"
# Of macOS, Windows and Synology, beside all that begins with a dot.
OF_THE_SYSTEM = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir"}
Parts = tuple[str, ...]  # of a path below the folder that was given


class ImageFiles(NamedTuple):
    files: list[Path]  # sorted
    y: Int32[np.ndarray, " n"]  # the folders of the first level, in sorted order
    passed_over: str  # what else lies there, in words; empty if nothing


class _Seen(NamedTuple):
    images: list[Parts]
    links: bool  # whether an image or a folder is a symbolic link
    folders: list[str]  # of the first level
    # Of each ending, those that are not read.
    others: dict[str, list[Parts]]


def located(path: str | os.PathLike) -> Path:
    """The absolute path; ~ is the user's home unless something is called so."""
    path = Path(path)
    if path.parts[:1] and path.parts[0].startswith("~") and not path.exists():
        try:
            path = path.expanduser()
        except RuntimeError as error:  # ~nobody
            raise InputError(f"{path}: {error}; give the whole path") from error
    return path.absolute()


def find(path: Path) -> ImageFiles:
    """All images below a folder, and the classes that they lie in.

    Links are followed. What is hidden or the system's is passed over, and so is what
    has another ending than `ENDINGS`; if images are among the latter, that is warned
    of, or an error where they are the most.

    Raises:
      InputError: nothing to read, a folder or file reached twice by a link, a link to
        nothing, or a layout that does not say what is meant.
    """
    if path.is_file():
        raise InputError(_of_one_file(path))
    if not path.is_dir():
        raise InputError(f"{path}: there is no such folder or file")
    seen = _search(path)
    told = _in_words(seen.others)
    _check_what_is_there(path, seen, told)
    _check_splits(path, seen.images)
    foreign = _images_not_read(path, seen.others)
    _check_class_folders(path, seen, foreign)
    if seen.links:
        check_once(path, [path.joinpath(*f) for f in seen.images])
    _tell_not_read(path, seen, foreign)
    images = sorted(seen.images)
    classes = [f[0] if len(f) > 1 else "" for f in images]
    _, y = np.unique(classes, return_inverse=True)
    return ImageFiles([path.joinpath(*f) for f in images], y.astype(np.int32), told)


def _of_one_file(path: Path) -> str:
    try:
        is_archive = zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except EOFError:  # gzip that is cut
        is_archive = False
    if is_archive:
        return f"{path}: is an archive; unpack it, and give the folder"
    return f"{path}: is one file; give a folder of images, .npz or .npy"


# ---- the search ---------------------------------------------------------------------


def _search(path: Path) -> _Seen:
    images: list[Parts] = []
    others: defaultdict[str, list[Parts]] = defaultdict(list)
    first, links = [], False
    reached: dict[tuple[int, int], Path] = {}
    waiting: list[Parts] = [()]
    while waiting:
        parts = waiting.pop()
        folder = path.joinpath(*parts)
        try:  # a folder that may not be read is not passed over
            at = folder.stat()
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(f"{path}: cannot be searched ({error})") from error
        other = reached.setdefault((at.st_dev, at.st_ino), folder)
        if other != folder:  # links in a circle have no end
            raise _reached_twice(path, other, folder)
        for entry in entries:
            name = entry.name
            below = (*parts, name)
            # Hidden ones too have the endings of images: ._a.jpg, .ipynb_checkpoints.
            if name.startswith(".") or name.casefold() in OF_THE_SYSTEM:
                others[HIDDEN].append(below)
                continue
            if entry.is_symlink():
                links = True
                check_target(entry.path)
            if entry.is_dir():
                waiting.append(below)
                if not parts:
                    first.append(name)
                continue
            ending = os.path.splitext(name)[1].lower()
            if ending in ENDINGS:
                images.append(below)
            else:
                others[ending or NO_ENDING].append(below)
    return _Seen(images, links, first, dict(others))


def _in_words(others: dict[str, list[Parts]]) -> str:
    """Such as "12 .txt, 2 hidden": the endings that there are most of."""
    counts = Counter({ending: len(files) for ending, files in others.items()})
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[6:])
    shown = [f"{count} {ending}" for ending, count in ranked[:6]]
    return ", ".join([*shown, *([f"{rest} others"] if rest else [])])


# ---- is it plain what is meant? -----------------------------------------------------


def _check_what_is_there(path: Path, seen: _Seen, told: str) -> None:
    arrays = [f for ending in ARRAYS for f in seen.others.get(ending, [])]
    if arrays:
        raise InputError(
            f"{path}: holds arrays ({path.joinpath(*min(arrays))}), "
            f"{len(seen.images)} images beside them; give the path of one .npz or .npy "
            "file, or a folder of images only"
        )
    if not seen.images:
        there = f"; there are {told}" if told else ""
        there += "; unpack the archives" if seen.others.keys() & ARCHIVES else ""
        raise InputError(
            f"{path}: no images in it; looked for {' '.join(ENDINGS)}{there}"
        )
    flat = sum(len(f) == 1 for f in seen.images)
    if 0 < flat < len(seen.images):
        raise InputError(
            f"{path}: {flat} images lie in it and {len(seen.images) - flat} in its "
            "subfolders, so their classes are not known; separate them"
        )


def _check_splits(path: Path, images: list[Parts]) -> None:
    """Raise `InputError` where training and test images would be read as one set."""
    top: Parts = images[0][:-1]  # the folder that all lie below
    for f in images:
        while f[: len(top)] != top or len(top) >= len(f):
            top = top[:-1]
    folders = {f[len(top)] for f in images if len(f) > len(top) + 1}
    deep = {f[len(top)] for f in images if len(f) > len(top) + 2}
    where = path.joinpath(*top)
    splits = splits_among(folders).keys()
    if len(splits) > 1 and splits == folders:
        raise InputError(f"{where}: holds {sorted(folders)}; give one of these folders")
    if top and folders and not any(len(f) == len(top) + 1 for f in images):
        raise InputError(
            f"{path}: all images lie below {where}, so that all would be of one class; "
            "give that folder, whose subfolders then are the classes"
        )
    beside = sorted(folders - splits)
    train = splits <= {"train", "Train", "trains", "Trains"} and not splits & deep
    if splits and beside and not train:
        raise InputError(
            f"{where}: holds {sorted(splits)} beside {_some(beside)}: parts of a set, "
            "or classes? Give the path of one part, or rename the folder of a class"
        )
    if splits and beside:  # a vehicle, as in CIFAR-100
        warnings.warn(
            f"{where}: {sorted(splits)} is taken for a class, beside {_some(beside)}; "
            "if it is a part of the set, move it elsewhere",
            stacklevel=4,
        )
    inside: defaultdict[Parts, set[str]] = defaultdict(set)
    for f in images:
        for depth in range(len(top) + 1, len(f) - 1):
            inside[f[:depth]].add(f[depth])
    for parts, names in inside.items():
        if len(set(splits_among(names).values())) > 1:
            raise InputError(
                f"{path.joinpath(*parts)}: holds {sorted(names)}, which would be read "
                "as one class; give one of these folders, or put the images of one "
                "part into class folders of their own"
            )


def _some(names: list[str]) -> str:
    return f"{names[:3]}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_class_folders(path: Path, seen: _Seen, foreign: set[str]) -> None:
    """Raise `InputError` for a class without images: are the others' numbers right?

    A folder that holds files of another purpose, such as annotations, is no class.
    """
    if len(seen.images[0]) == 1:
        return
    holding: defaultdict[bool, set[str]] = defaultdict(set)
    for ending in seen.others.keys() - {HIDDEN}:
        holding[ending in foreign].update(f[0] for f in seen.others[ending])
    empty = set(seen.folders) - {f[0] for f in seen.images}
    empty = sorted(empty - (holding[False] - holding[True]))
    if empty:
        raise InputError(
            f"{path}: no image that can be read lies in the folders {_some(empty)}; if "
            "they are classes, put images into them, else remove them: the numbers of "
            f"the classes depend on it (looked for {' '.join(ENDINGS)})"
        )


def check_target(link: str | Path) -> None:
    """Raise `InputError` for a symbolic link to nothing, perhaps a whole class."""
    if not os.path.exists(link):
        raise InputError(
            f"{link}: is no file, but a link to nothing ({os.readlink(link)}); mend "
            "it, or remove it"
        )


def check_once(path: Path, files: Iterable[Path]) -> None:
    """Raise `InputError` for a file that is reached twice by a symbolic link.

    Hard links are all alike: none is the file, and none a link to it.
    """
    reached: dict[tuple[int, int], Path] = {}
    for file in files:
        at = file.stat()
        other = reached.setdefault((at.st_dev, at.st_ino), file)
        if other != file and (file.is_symlink() or other.is_symlink()):
            raise _reached_twice(path, other, file)


def _reached_twice(path: Path, one: Path, other: Path) -> InputError:
    linked = one.is_symlink() and not other.is_symlink()
    link, whole = (one, other) if linked else (other, one)
    return InputError(
        f"{path}: {link} is {whole} once more, by a link; remove the link"
    )


# ---- images that are not read -------------------------------------------------------


def _images_not_read(path: Path, others: dict[str, list[Parts]]) -> set[str]:
    """Endings of other files that are images, by name or by what they begin with."""
    found, opened = others.keys() & FOREIGN, 0
    for ending in sorted(others.keys() - found - {HIDDEN}):
        for parts in others[ending][:20]:
            opened += 1
            if opened <= OPENED and _begins_as_image(path.joinpath(*parts)):
                found.add(ending)
                break
    return found


def _begins_as_image(file: Path) -> bool:
    try:
        if not file.is_file():  # a pipe would wait for ever
            return False
        with file.open("rb") as opened:
            start = opened.read(12)
    except OSError:
        return False
    rules = {b"RIFF": start[8:] == b"WEBP", b"BM": start[6:10] == bytes(4)}
    return start.startswith(BEGINNINGS) and all(
        holds for begin, holds in rules.items() if start.startswith(begin)
    )


def _tell_not_read(path: Path, seen: _Seen, foreign: set[str]) -> None:
    """Warn of images that are passed over; raise `InputError` if they are the most."""
    count = sum(len(seen.others[ending]) for ending in foreign)
    if not count:
        return
    text = (
        f"{path}: {count} images ({', '.join(sorted(foreign))}) are not read, beside "
        f"{len(seen.images)} that are; convert them, or give those that are of these "
        f"formats one of the endings {' '.join(ENDINGS)}"
    )
    if count > len(seen.images):
        raise InputError(f"{text}, or move them elsewhere")
    warnings.warn(text, stacklevel=4)
