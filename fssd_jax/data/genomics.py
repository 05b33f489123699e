"""Benchmark G of the paper: bacteria known before 2011, and others found after 2016.

Ren et al. (2019), "Likelihood Ratios for Out-of-Distribution Detection".
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fssd_jax.checks import InputError
from fssd_jax.data import published
from fssd_jax.data.benchmark import Benchmark
from fssd_jax.data.image_files import located
from fssd_jax.data.large_sets import by_number, prepared
from fssd_jax.data.needs import NEEDS, advice
from fssd_jax.data.pipeline import bar_options
from fssd_jax.data.sequence_files import CODES, SYMBOLS
from fssd_jax.data.sources import ArrayDataset, digest, fetched_dir

NAME = "genomics_ood"
# By the split's name in TFDS: the published files.
FILES = {
    "train": "before_2011_in_tr.txt",
    "validation": "between_2011-2016_in_val.txt",
    "test": "after_2016_in_test.txt",
    "validation_ood": "between_2011-2016_ood_val.txt",
    "test_ood": "after_2016_ood_test.txt",
}
EPOCHS = 10  # our choice; neither the paper nor the released code tells
SYMBOL_CODES = len(SYMBOLS)


def genomics(data_dir: str | Path | None = None) -> Benchmark:
    """Benchmark G: reads of ten genera, against reads of sixty that are found later.

    Of the folder `genomics_ood`, with the published files, or of TFDS. Validation sets
    are the published ones, of bacteria found between 2011 and 2016.
    """
    sets = {split: _load(split, data_dir) for split in FILES}
    known = np.unique(sets["train"][1]).tolist()
    found = {
        split: _dataset(*of, known, split, ood=split.endswith("_ood"))
        for split, of in sets.items()
    }
    return Benchmark(
        name="genomics",
        train=found["train"],
        test=found["test"],
        ood={"genomics": found["test_ood"]},
        num_classes=len(known),
        mean=(),
        std=(),
        epochs=EPOCHS,
        save_every=1,
        validation=1000,
        paper=published.of("G"),
        symbols=SYMBOL_CODES,
        held={"test": found["validation"], "genomics": found["validation_ood"]},
    )


def _dataset(
    x: np.ndarray, labels: np.ndarray, where: str, known: list[str], split, ood: bool
) -> ArrayDataset:
    unknown = sorted(set(np.unique(labels).tolist()) - set(known))
    if unknown and not ood:
        raise InputError(
            f"{where}: {split} has classes that are not trained on, {unknown[:5]}; the "
            "files are mixed up"
        )
    y = np.zeros(len(x), np.int32) if ood else np.searchsorted(known, labels)
    y = y.astype(np.int32)
    name = f"{NAME}_unknown" if ood else NAME
    return ArrayDataset(x, y, name, split, where, digest(x, y))


def _load(split: str, data_dir) -> tuple[np.ndarray, np.ndarray, str]:
    """(reads [n, length] int8, names of genera [n], where they are)."""
    tried = []
    if data_dir is None:
        found = _prepared(split)
        if not isinstance(found, str):
            return found
        tried.append(found)
    path = located(data_dir or fetched_dir()) / NAME / FILES[split]
    if path.is_file():
        return *_encoded(_rows(path), str(path)), str(path)
    tried.append(f"no file {path}")
    get = advice(NEEDS["G"].needs[0], data_dir)
    raise InputError(f"genomics: {'; '.join(tried)}; to get it: {get}")


def _prepared(split: str) -> tuple[np.ndarray, np.ndarray, str] | str:
    """Of TFDS; or why not."""
    found = prepared(NAME)
    if isinstance(found, str):
        return found
    builder = found[1]
    records = by_number(builder, split)
    if isinstance(records, str):
        return records
    where = f"tensorflow_datasets {builder.info.full_name}, {split}"
    names = builder.info.features["label"].names
    rows = ((r["seq"], names[int(r["label"])]) for r in records)
    return *_encoded(rows, where, len(records)), where


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """Read and genus of each line; the first line names the columns."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, delimiter="\t")
        try:
            missing = {"seq", "label"} - set(reader.fieldnames or ())
            if missing:
                raise InputError(f"{path}: its first line names no column {missing}")
            for row in reader:
                yield row["seq"] or "", row["label"] or ""
        except (UnicodeDecodeError, csv.Error) as error:
            # Text is decoded in blocks, of which the error tells the position.
            what = getattr(error, "reason", error)
            raise InputError(
                f"{path}: after line {reader.reader.line_num} it is no table in UTF-8 "
                f"({what}); damaged? Get it anew"
            ) from error


def _encoded(
    rows: Iterable[tuple[Any, str]], where: str, total: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    codes, labels, length = bytearray(), [], 0
    bar = bar_options("read") | {"desc": "reading", "total": total}
    for number, (seq, label) in enumerate(tqdm(rows, **bar)):
        seq = seq if isinstance(seq, bytes) else seq.encode()
        length = length or len(seq)
        one = seq.translate(CODES)
        if len(one) != length or max(one, default=255) >= SYMBOL_CODES or not label:
            raise InputError(
                f"{where}, read {number}: expected {length or 'some'} letters of "
                f"{SYMBOLS} and a class, found {seq[:20]!r}… of {len(seq)}, {label!r}; "
                "damaged? Get it anew"
            )
        codes += one
        labels.append(label)
    if not labels:
        raise InputError(f"{where}: holds no read; get it anew")
    x = np.frombuffer(bytes(codes), np.int8).reshape(-1, length)
    return x, np.array(labels)
