"""Benchmarks E and F of the paper: faces of many identities."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from fssd_jax.checks import InputError
from fssd_jax.data import identities, published
from fssd_jax.data.benchmark import Benchmark
from fssd_jax.data.folders import records_of
from fssd_jax.data.image_files import located
from fssd_jax.data.large_sets import (
    Cut,
    LargeSet,
    digest_of,
    find,
    of_folder,
    prepared,
    read_fields,
)
from fssd_jax.data.sources import ArrayDataset, fetched_dir

CUT = Cut(112)  # as the released face networks
EPOCHS = 20
TESTED = 0.2  # share of CelebA's sharp images: 38.5k of 192.3k
IMAGES = "img_align_celeba"
ATTRIBUTES, IDENTITIES = "list_attr_celeba.txt", "identity_CelebA.txt"


def celeba(data_dir: str | Path | None = None) -> Benchmark:
    """Benchmark E: faces of CelebA without the attribute Blurry, against those with it.

    Of what TFDS has prepared as `celeb_a`, 2.1.0 or newer, all its splits; else, or
    with `data_dir`, of the folder `celeb_a`, which holds the set as it was published:
    `img_align_celeba`, `list_attr_celeba.txt` and `identity_CelebA.txt`. A fifth of
    each identity's sharp images is the test set, drawn here: how the paper divided them
    is not known, nor which 10,122 of the 10,177 identities it kept. Here it is those
    with two sharp images or more.
    """
    return of_faces(_found(data_dir))


def of_faces(faces: "Faces") -> Benchmark:
    sharp = np.flatnonzero(~faces.blurry)
    people = faces.identities[sharp]
    known = identities.number(people, least=2)
    trained, tested = (sharp[part] for part in divided(people, known.names))
    y = np.searchsorted(known.names, faces.identities).clip(max=known.count - 1)
    names = tuple(map(str, known.names))
    whole = LargeSet(faces.source, y.astype(np.int32), names, faces.where)
    train = whole.decoded("celeb_a_not_blurry", "train", CUT, trained)
    test = whole.decoded("celeb_a_not_blurry", "test", CUT, tested)
    ood = whole.decoded("celeb_a_blurry", "test", CUT, np.flatnonzero(faces.blurry))
    return _benchmark("celeba", train, test, ood, known.count, "E")


def celeba_images(side: int, data_dir: str | Path | None = None) -> ArrayDataset:
    """All of CelebA, cut to squares, to train on as outliers; without its lists."""
    by_tfds = prepared_faces() if data_dir is None else ""
    if isinstance(by_tfds, Faces):
        none = np.zeros(len(by_tfds.blurry), np.int32)
        whole = LargeSet(by_tfds.source, none, ("",), by_tfds.where)
        return whole.decoded("celeb_a", "all", Cut(side))
    root = located(data_dir or fetched_dir()) / "celeb_a"
    found = of_folder(_one(root, IMAGES, by_tfds), None)
    assert isinstance(found, LargeSet)  # it is a folder
    return found.decoded("celeb_a", "all", Cut(side))


def divided(
    people: Int[np.ndarray, " n"], names: Int[np.ndarray, " classes"]
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Numbers of images to train and to test on, drawn for each identity by itself."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(people))
    order = order[np.argsort(people[order], kind="stable")]
    ends = [np.searchsorted(people[order], names, side) for side in ("left", "right")]
    trained, tested = [], []
    for start, end in zip(*ends, strict=True):
        cut = start + max(1, round(TESTED * (end - start)))
        tested.append(order[start:cut])
        trained.append(order[cut:end])
    return np.sort(np.concatenate(trained)), np.sort(np.concatenate(tested))


class Faces(NamedTuple):
    """CelebA, whole."""

    source: Any  # images by number
    identities: np.ndarray  # [n]
    blurry: np.ndarray  # [n] bool
    where: str


def _found(data_dir: str | Path | None) -> Faces:
    by_tfds = prepared_faces() if data_dir is None else ""
    if isinstance(by_tfds, Faces):
        return by_tfds
    return listed(located(data_dir or fetched_dir()) / "celeb_a", by_tfds)


# ---- TensorFlow Datasets ------------------------------------------------------------


def prepared_faces() -> Faces | str:
    """Those that TFDS has prepared; or why not."""
    found = prepared("celeb_a")
    if isinstance(found, str):
        return found
    features = found[1].info.features
    if "identity" not in features:
        return (
            f"{found[1].info.full_name} has no identities, which 2.1.0 has; prepare "
            "it anew: tfds build celeb_a --file_format=array_record"
        )
    parts = []
    for split in sorted(found[1].info.splits):
        part = read_fields(found, split, _person)
        if isinstance(part, str):
            return part
        parts.append(part)
    identities, blurry = (
        np.concatenate([part.told[key] for part in parts])
        for key in ("identity", "blurry")
    )
    digest = hashlib.sha256("".join(map(digest_of, parts)).encode()).hexdigest()
    source = Joined(tuple(part.records for part in parts), digest)
    where = parts[0].where.rpartition("/")[0]
    return Faces(source, identities.astype(np.int64), blurry.astype(bool), where)


def _person(record: Mapping[str, Any]) -> dict[str, Any]:
    number, blurry = record["identity"]["Identity_No"], record["attributes"]["Blurry"]
    return {"identity": int(number), "blurry": bool(blurry)}


@dataclass(frozen=True, eq=False)
class Joined:
    """Records of several sources, one after the other."""

    parts: tuple[Any, ...]
    digest: str

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, number: int) -> Any:
        at = range(len(self))[number]
        for part in self.parts:
            if at < len(part):
                return part[at]
            at -= len(part)
        raise IndexError(number)


# ---- as it was published ------------------------------------------------------------


def listed(root: Path, by_tfds: str = "") -> Faces:
    """What the two lists tell, which are to name the same images."""
    header, attributes = _table(_one(root, ATTRIBUTES, by_tfds), skip=1)
    _, numbers = _table(_one(root, IDENTITIES), skip=0)
    if "Blurry" not in header:
        raise InputError(f"{root / ATTRIBUTES}: its second line names no Blurry")
    column = header.index("Blurry")
    if attributes.keys() != numbers.keys():
        differ = sorted(attributes.keys() ^ numbers.keys())
        raise InputError(
            f"{root}: {ATTRIBUTES} and {IDENTITIES} name other images, {differ[:3]}; "
            "get both anew"
        )
    names = sorted(attributes)
    folder = _one(root, IMAGES)
    there = set(os.listdir(folder))
    missing = [name for name in names if name not in there]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of the {len(names)} images that are listed are "
            f"not there, such as {missing[0]}; unpack it anew"
        )
    wrong = [name for name in names if not numbers[name][0].isdecimal()]
    if wrong:
        raise InputError(
            f"{root / IDENTITIES}: the identity of {wrong[0]} is no number; get it anew"
        )
    blurry = np.array([attributes[name][column] == "1" for name in names])
    people = np.array([int(numbers[name][0]) for name in names])
    files = [folder / name for name in names]
    source = records_of(files, people.astype(np.int32), 3, root)
    return Faces(source, people, blurry, str(root))


def _one(root: Path, name: str, by_tfds: str = "") -> Path:
    """The file or folder of that name, below root or one of its subfolders.

    Args:
      root: the set's folder.
      name: as it was published.
      by_tfds: why TFDS's is not taken, for the error.
    """
    found = [root / name, *root.glob(f"*/{name}")]
    path = next((path for path in found if path.exists()), None)
    if path is None:
        raise InputError(
            f"celeba: there is no {root / name}; get CelebA (aligned and cropped "
            f"images, attributes, identities) from mmlab.ie.cuhk.edu.hk/projects/"
            "CelebA.html and unpack it there, or, without --data-dir, `tfds build "
            "celeb_a --file_format=array_record`"
            + (f" (TensorFlow Datasets: {by_tfds})" if by_tfds else "")
        )
    nested = path / name
    return nested if nested.is_dir() else path  # as its archive is unpacked


def _table(path: Path, skip: int) -> tuple[list[str], dict[str, list[str]]]:
    """(names of columns, if there are any; the words of each line behind its first)."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()[skip:]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text in UTF-8; get it anew") from error
    header = lines.pop(0).split() if skip and lines else []
    rows = [line.split() for line in lines if line.strip()]
    width = len(header) or 1
    bad = next((row for row in rows if len(row) != width + 1), None)
    if bad or not rows:
        raise InputError(
            f"{path}: expected a file's name and {width} numbers in each line, found "
            f"{' '.join(bad) if bad else 'none'}; get it anew"
        )
    return header, {row[0]: row[1:] for row in rows}


def ms1m(data_dir: str | Path | None = None) -> Benchmark:
    """Benchmark F: faces of MS-1M from the web, against those of IJB-C from videos.

    Folders ms1m/SPLIT/IDENTITY/ and ijb_c/test/, of images that are cut to the face
    already. Identities to test on are among those that are trained on.
    """
    train, test = (find("ms1m", split, data_dir) for split in ("train", "test"))
    unknown = sorted(set(test.names) - set(train.names))
    if unknown:
        raise InputError(
            f"{test.where}: has identities of which there is no training image, "
            f"{unknown[:5]}; leave them out"
        )
    own = np.searchsorted(train.names, test.names).astype(np.int32)
    tested = test._replace(y=own[test.y]).decoded("ms1m", "test", CUT)
    ood = find("ijb_c", "test", data_dir).decoded("ijb_c", "test", CUT)
    trained = train.decoded("ms1m", "train", CUT)
    return _benchmark("ms1m", trained, tested, ood, len(train.names), "F")


def _benchmark(
    name: str,
    train: ArrayDataset,
    test: ArrayDataset,
    ood: ArrayDataset,
    num_classes: int,
    letter: str,
) -> Benchmark:
    return Benchmark(
        name=name,
        train=train,
        test=test,
        ood={name: ood},
        num_classes=num_classes,
        # Of the released face networks, which divide by nothing.
        mean=(0.5, 0.5, 0.5),
        std=(1.0, 1.0, 1.0),
        epochs=EPOCHS,
        save_every=1,
        validation=1000,
        paper=published.of(letter),
        family="faces",
    )
