"""Where sets are that do not fit in memory: class folders of images, and TFDS."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int32
from tqdm import tqdm

from fssd_jax.checks import InputError
from fssd_jax.data.decoded import Decoded
from fssd_jax.data.folders import image_records
from fssd_jax.data.image_files import located
from fssd_jax.data.pipeline import bar_options
from fssd_jax.data.sources import ArrayDataset, fetched_dir, tfds_dir
from fssd_jax.data.split_names import split_of
from fssd_jax.extras import command


class Cut(NamedTuple):
    """To which size images are brought."""

    side: int  # of the square in the middle
    resize: int | None = None  # the shorter side, before


class LargeSet(NamedTuple):
    source: Any  # (image, label), or TFDS's dict, by number; with a `digest`
    y: Int32[np.ndarray, " n"]  # classes, numbered in the order of `names`
    names: tuple[str, ...]  # of classes, sorted; one, if there are no folders
    where: str

    def decoded(self, name: str, split: str, cut: Cut, chosen=None) -> ArrayDataset:
        """The images of these numbers, or all, in the place of an array."""
        numbers = np.arange(len(self.y)) if chosen is None else np.asarray(chosen)
        x, y = Decoded(self.source, numbers, *cut), self.y[numbers]
        return ArrayDataset(x, y, name, split, self.where, x.digest(y))

    def scenes(self) -> list[str]:
        """Class and file of each image, by which other versions of it are found.

        Raises:
          InputError: its records have no names, or two images the same.
        """
        files = getattr(self.source, "files", None)
        if files is None:
            raise InputError(f"{self.where}: its records tell no file names")
        found = [
            f"{self.names[label]}/{Path(file).stem}"
            for file, label in zip(files, self.y.tolist(), strict=True)
        ]
        if len(set(found)) < len(found):
            raise InputError(f"{self.where}: has images of one class and name twice")
        return found


def find(name: str, split: str, data_dir: str | Path | None = None) -> LargeSet:
    """A split of a set, from the first of these that has it.

    The subfolder `name` of `data_dir`, which if given is the only place; what TFDS has
    prepared under that name; the folder beside those that `fssd fetch` fills. A folder
    has its images in SPLIT/CLASS/, where SPLIT may be called as is usual (val).

    Raises:
      InputError: it is in none of them, which are listed; what `image_records` raises.
    """
    tried = []
    for title, look in _places(name, split, data_dir):
        found = look()
        if not isinstance(found, str):
            return found
        tried.append(f"  {title}: {found}")
    given = [] if data_dir else ["  data_dir, or --data-dir: not given"]
    raise InputError(
        "\n".join([f"{name}/{split} was not found. Tried:", *given, *tried])
        + "\n`fssd data --list` tells how to get it"
    )


def find_both(
    name: str, tested: str, data_dir: str | Path | None = None
) -> tuple[LargeSet, LargeSet]:
    """Its training images, and those of the split `tested`, of the same classes.

    Raises:
      InputError: as of `find`, and if the classes are called otherwise.
    """
    train, test = find(name, "train", data_dir), find(name, tested, data_dir)
    for of in (train, test):
        if of.names == ("",):
            raise InputError(
                f"{of.where}, which lie there without folders of their classes; "
                "move each into that of its class (of ImageNet's validation set by "
                "ILSVRC2012_validation_ground_truth.txt)"
            )
    for one, other in ((train, test), (test, train)):
        lacking = sorted(set(one.names) - set(other.names))
        if lacking:
            raise InputError(
                f"{len(lacking)} classes, such as {lacking[0]!r}, are in {one.where}, "
                f"and not in {other.where}; get their images, or rename the folders"
            )
    return train, test


def _places(
    name: str, split: str, data_dir: str | Path | None
) -> Iterator[tuple[str, Callable[[], LargeSet | str]]]:
    if data_dir is not None:
        yield "--data-dir", lambda: of_folder(located(data_dir) / name, split)
        return
    yield "TensorFlow Datasets", lambda: of_tfds(name, split)
    yield "its own folder", lambda: of_folder(fetched_dir() / name, split)


# ---- folders ------------------------------------------------------------------------


def of_folder(root: Path, split: str | None) -> LargeSet | str:
    """What is in root/SPLIT/CLASS/, or in root/CLASS/ without `split`; or why not."""
    folder = root if split is None else split_folder(root, split)
    if folder is None or not folder.is_dir():
        return f"no folder {root if split is None else root / split}"
    source = image_records(folder, channels=3)
    firsts = [file.relative_to(folder).parts[0] for file in source.files]
    inside = any(len(f.relative_to(folder).parts) > 1 for f in source.files)
    names = tuple(sorted(set(firsts))) if inside else ("",)
    return LargeSet(source, source.y, names, source.source)


def split_folder(root: Path, split: str) -> Path | None:
    """Its subfolder of that split, by any of its usual names; by its own, first.

    One without anything in it is passed over.
    """
    if not root.is_dir():
        return None
    same = [p for p in sorted(root.iterdir()) if split_of(p.name) == split_of(split)]
    full = [p for p in (root / split, *same) if p.is_dir() and any(p.iterdir())]
    return next(iter(full), None)


# ---- TensorFlow Datasets ------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Prepared:
    """A split that TFDS has prepared; its records are opened anew by each process."""

    records: Any
    digest: str
    files: np.ndarray | None = None  # [n] of text, where the set tells them

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, number: int) -> Any:
        return self.records[number]


class Fields(NamedTuple):
    """What the records of a split tell beside their images."""

    records: Any  # by number
    told: dict[str, np.ndarray]  # field → [n]
    where: str  # of TFDS: the set, its version and the split
    sizes: str  # of what is too large to be read for a digest


# Reads a record, whose image is not decoded.
Take = Callable[[Mapping[str, Any]], dict[str, Any]]


def of_tfds(name: str, split: str) -> LargeSet | str:
    """Of class labels and images, as it was prepared; or why not. Nothing is got."""
    found = prepared(name)
    if isinstance(found, str):
        return found
    builder = found[1]
    named = "file_name" in builder.info.features
    fields = read_fields(found, split, _label_and_file if named else _label)
    if isinstance(fields, str):
        return fields
    y = fields.told["label"].astype(np.int32)
    digest = digest_of(fields)
    source = Prepared(fields.records, digest, fields.told.get("name"))
    names = tuple(builder.info.features["label"].names)
    return LargeSet(source, y, names, fields.where.rpartition("/")[0])


def digest_of(fields: Fields) -> str:
    """Of which set they are, of the labels, and of sizes."""
    label = np.asarray(next(iter(fields.told.values())), np.int64)
    of = (fields.where + fields.sizes).encode() + label.tobytes()
    return hashlib.sha256(of).hexdigest()


def read_fields(found: tuple[Any, Any], split: str, take: Take) -> Fields | str:
    """Some fields of all records of a set that is `prepared`; or why not.

    They are read for them once, and kept beside what `fssd fetch` gets, by what files
    they are of. Images are not decoded, but ImageNet's are 146 GB.
    """
    tfds, builder = found
    name = f"{builder.info.full_name}/{split}"
    records = by_number(builder, split)
    undecoded = by_number(builder, split, {"image": tfds.decode.SkipDecoding()})
    for of in (records, undecoded):
        if isinstance(of, str):
            return of
    info = builder.info.splits[split]
    files = [Path(path) for path in info.filepaths]
    # A set that was prepared anew, or elsewhere, may have other labels.
    which = [f"{file.absolute()} {file.stat().st_mtime_ns}" for file in files]
    sizes = f"{info.num_bytes} {[(f.name, f.stat().st_size) for f in files]}"
    key = hashlib.sha256("\0".join([*which, sizes]).encode(errors="surrogateescape"))
    stem = f"{name.replace('/', '-')}-{key.hexdigest()[:16]}"
    kept = fetched_dir() / "tfds_labels" / f"{stem}.npz"
    wanted = take(undecoded[0]) if len(undecoded) else {}
    told = _kept(kept, wanted, len(undecoded))
    if told is None:
        shown = tqdm(
            range(len(undecoded)), f"labels of {name}", **bar_options("record")
        )
        rows = [take(undecoded[i]) for i in shown]
        told = {key: np.array([row[key] for row in rows]) for key in wanted}
        with suppress(OSError):  # it is read again where there is no place for it
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_name(f"{os.getpid()}-{kept.name}")
            np.savez(part, **told)  # pyright: ignore[reportArgumentType]
            part.replace(kept)
    return Fields(records, told, f"tensorflow_datasets {name}", sizes)


def by_number(builder: Any, split: str, decoders: Any = None) -> Any:
    """The records of a split of a set that is `prepared`; or a text: why not."""
    if split not in builder.info.splits:
        return f"{builder.info.full_name} has no split {split}"
    try:
        return builder.as_data_source(split, decoders=decoders)
    except Exception as error:  # NotImplementedError of another format, and others
        told = " ".join(str(error).split())  # TFDS's has several lines
        return (
            f"{builder.data_dir} cannot be read by number ({type(error).__name__}: "
            f"{told}); prepare it anew: tfds build {builder.info.name} "
            "--file_format=array_record"
        )


def _kept(path: Path, wanted: Mapping[str, Any], count: int) -> dict | None:
    """What was read before; None if it is not of these fields and as many records."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            found = {key: file[key] for key in wanted}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # it is read again
        return None
    return found if all(len(of) == count for of in found.values()) else None


def _label(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"label": record["label"]}


def _label_and_file(record: Mapping[str, Any]) -> dict[str, Any]:
    name = record["file_name"]
    file = name.decode() if isinstance(name, bytes) else str(name)
    return {"label": record["label"], "name": file}


def prepared(name: str) -> tuple[Any, Any] | str:
    """(tensorflow_datasets, builder) of the newest version that is there; or why not.

    Args:
      name: of the set, and of its config behind a slash.
    """
    newest = newest_version(tfds_dir() / name)
    if newest is None:
        return f"not prepared in {tfds_dir() / name}"
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        return f"not installed ({error.name}): {command('tensorflow_datasets')}"
    try:
        # From its folder: some sets are not known by their names (TFDS 4.9.10).
        return tfds, tfds.builder_from_directory(newest.parent)
    except Exception as error:  # whatever another version of TFDS wrote
        return f"{newest.parent}: cannot be used ({type(error).__name__}: {error})"


def newest_version(folder: Path) -> Path | None:
    """The description of a set that TFDS prepared: 10.0.0 is newer than 5.1.0."""

    def numbers(path: Path) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", path.parent.name)]

    return max(folder.glob("*/dataset_info.json"), key=numbers, default=None)
