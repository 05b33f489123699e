"""Reads of genomes: windows, strands and splits, against brute force."""

import gzip
import os
import re
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fssd_jax import InputError
from fssd_jax.data import sequences
from fssd_jax.data.pipeline import batches
from fssd_jax.data.sequence_files import OTHER, Genome
from fssd_jax.data.sequences import Part, load_reads, reads, reverse_complement

PAIRS = str.maketrans("ACGT", "TGCA")


def text_of(x) -> str:
    return "".join("ACGT"[code] for code in x)


def turned(text: str) -> str:
    return text[::-1].translate(PAIRS)


def genome_of(*records: str) -> Genome:
    codes = ["ACGT".find(b) % (OTHER + 1) for b in "".join(records)]
    starts = np.cumsum([0, *map(len, records)])
    names = [str(i) for i in range(len(records))]
    return Genome(np.array(codes, np.uint8), starts.astype(np.int64), names)


def windows(records, length: int, begin=0, end=None) -> list[str]:
    """All windows of known bases, by going through the text."""
    found, at = [], 0
    for text in records:
        for i in range(len(text) - length + 1):
            inside = begin <= at + i and at + i + length <= (end or 10**9)
            if inside and set(text[i : i + length]) <= set("ACGT"):
                found.append(text[i : i + length])
        at += len(text)
    return found


RECORDS = ("ACGTTNGACCAGTN", "NNN", "GATTACA", "AC", "NCCGCTAT")


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_each_window_is_equally_likely_on_both_strands(length):
    one = windows(RECORDS, length)
    expected = Counter(one) + Counter(map(turned, one))
    count = 20_000
    drawn = reads(genome_of(*RECORDS), count, np.random.default_rng(0), length)
    assert drawn.shape == (count, length)
    assert drawn.dtype == np.int8
    found = Counter(map(text_of, drawn))
    assert set(found) == set(expected)
    chance = np.array([expected[w] for w in found]) / (2 * len(one))
    error = np.abs(np.array(list(found.values())) / count - chance)
    assert (error < 5 * np.sqrt(chance * (1 - chance) / count)).all()


def test_windows_of_a_part_lie_within_it_and_leave_a_gap():
    records = RECORDS * 3
    total, length = len("".join(records)), 3
    draw = partial(reads, genome_of(*records), 3000, length=length)
    cut = round(total * 0.6)
    for part, (begin, end) in {
        Part(Path("x"), 0.0, 0.6): (0, cut),
        Part(Path("x"), 0.6, 1.0): (cut + length, total),
    }.items():
        one = windows(records, length, begin, end)
        found = set(map(text_of, draw(np.random.default_rng(1), part=part)))
        assert found == {*one, *map(turned, one)}


def test_the_reverse_complement_is_that_of_the_text():
    x = np.random.default_rng(0).integers(0, 4, (5, 8)).astype(np.int8)
    assert [text_of(r) for r in reverse_complement(x)] == [
        turned(text_of(r)) for r in x
    ]


# ---- folders ------------------------------------------------------------------------


def random_text(seed: int, count: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), count))


@pytest.fixture
def folder(tmp_path):
    """Species a: 4 strains; b: one strain of 3,000 bases; c: two."""
    strains = {"a": "1 2 3 10", "b": "only", "c": "x y"}
    seed, texts = 0, {}
    for species, names in strains.items():
        for name in names.split():
            texts[species, name] = text = random_text(seed, 3000)
            path = tmp_path / "root" / species / f"{name}.fna.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(f">{name}\n{text}\n".encode()))
            seed += 1
    (tmp_path / "root" / "b" / "README.md").write_text("no sequence")
    (tmp_path / "root" / ".hidden").mkdir()
    return tmp_path / "root", texts


def places(read: str, texts) -> list[tuple[str, str, int]]:
    """Where a read comes from, on either strand."""
    return [
        (*key, text.index(r))
        for key, text in texts.items()
        for r in (read, turned(read))
        if r in text
    ]


def test_reads_come_from_the_strains_and_stretches_of_their_split(folder):
    root, texts = folder
    ends: dict[str, dict[tuple, list[int]]] = {}
    for split in sequences.SPLITS:
        data = load_reads(root, split, 301, length=50)
        assert np.bincount(data.y).tolist() == [101, 100, 100]
        strains, ends[split] = Counter(), {}
        for x, y in zip(data.x, data.y, strict=True):
            ((species, strain, at),) = places(text_of(x), texts)
            assert species == "abc"[y]
            strains[species, strain] += 1
            ends[split].setdefault((species, strain), []).append(at)
        # Sorted by name: 1, 10, 2, 3.
        of_a = {"train": {"1": 51, "10": 50}, "validation": {"2": 101}}
        expected = of_a.get(split, {"3": 101})
        assert {k[1]: n for k, n in strains.items() if k[0] == "a"} == expected
        assert [strains["c", "x"], strains["c", "y"]] == [50, 50]
    for strain in (("b", "only"), ("c", "x"), ("c", "y")):
        at = {split: ends[split][strain] for split in sequences.SPLITS}
        assert max(at["train"]) + 50 <= 2400
        assert min(at["validation"]) >= 2450
        assert max(at["validation"]) + 50 <= 2700
        assert min(at["test"]) >= 2750


def test_reads_are_shuffled_and_repeat_by_their_seed_alone(folder):
    root, _ = folder
    draw = partial(load_reads, root, "test", 300, length=50)
    data, again, other = draw(), draw(), draw(seed=1)
    np.testing.assert_array_equal(data.x, again.x)
    assert data.sha256 == again.sha256 != other.sha256
    assert len(np.unique(data.y[:30])) == 3
    assert (data.x != other.x).any()
    # Of a species they do not depend on the others.
    alone = load_reads(root, "test", 100, length=50, species=["b"])
    of_b = sorted(text_of(x) for x in data.x[data.y == 1])
    assert of_b == sorted(text_of(x) for x in alone.x)
    assert (alone.y == 0).all()


def test_the_door_takes_them_for_ids(folder):
    data = load_reads(folder[0], "train", 9, length=50)
    (batch,) = batches(data, 16)
    assert np.issubdtype(batch.x.dtype, np.integer)
    np.testing.assert_array_equal(batch.x[:9], data.x)


def test_shares_can_be_chosen_and_none_be_kept(folder):
    root, texts = folder
    how = {"species": ["b"], "length": 50, "shares": (0.0, 0.5, 0.5)}
    for split, (low, high) in {"validation": (0, 1500), "test": (1550, 3000)}.items():
        at = [
            places(text_of(x), texts)[0][2]
            for x in load_reads(root, split, 200, **how).x
        ]
        assert low <= min(at)
        assert max(at) + 50 <= high
    with pytest.raises(InputError, match="no 50 bases in a row"):
        load_reads(root, "train", 1, **how)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: (root / "d").mkdir(), "d: no sequences in it; looked for .fa "),
        (lambda root: (root / "x.fasta").touch(), "x.fasta: lies beside the folders"),
        (lambda root: (root / "a" / "in").mkdir(), "is a folder in that of a species"),
        (lambda root: (root / "b" / "only.gbk").touch(), "only.gbk are of one strain"),
        (lambda root: (root / "b" / "only.fna.gz").write_text(""), "only.*is empty"),
    ],
)
def test_a_layout_that_does_not_say_what_is_meant_is_refused(folder, make, message):
    make(folder[0])
    with pytest.raises(InputError, match=message):
        load_reads(folder[0], "train", 9, length=50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, "choose from train, validation, test"),
        ({"count": 0}, "count: expected 1 or more"),
        ({"length": 0}, "length: expected 1 or more"),
        ({"length": 2401}, "no 2401 bases in a row"),
        ({"species": ["a", "z"]}, r"species \['z'\], each once of \['a', 'b', 'c'\]"),
        ({"species": []}, "each once of"),
        ({"species": ["a", "a"]}, "each once of"),
        ({"shares": (0.5, 0.5, 0.5)}, "give three that sum to 1"),
        ({"root": "missing"}, "missing: there is no such folder"),
    ],
)
def test_what_could_not_work_is_refused(folder, options, message):
    how = {"root": folder[0], "split": "train", "count": 9, "length": 50} | options
    with pytest.raises(InputError, match=message):
        load_reads(**how)


def test_an_empty_root_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no folders; make one for each species"):
        load_reads(tmp_path, "train", 9)


def test_names_need_not_be_utf8(folder):
    root, _ = folder
    name = os.fsdecode(b"caf\xe9")
    (root / "c" / "x.fna.gz").rename(root / "c" / f"{name}.fna.gz")
    (root / "c").rename(root / name)
    data = load_reads(root, "train", 9, length=50)
    assert np.bincount(data.y).tolist() == [3, 3, 3]


# ---- one genome twice ---------------------------------------------------------------


def test_a_strain_that_is_linked_is_refused(folder):
    root, _ = folder
    (root / "a" / "9.fna.gz").symlink_to("1.fna.gz")
    told = r"a/9\.fna\.gz is .*/a/1\.fna\.gz once more, by a link; remove the link"
    with pytest.raises(InputError, match=told):
        load_reads(root, "train", 9, length=50)
    (root / "a" / "9.fna.gz").unlink()
    (root / "b" / "9.fna.gz").symlink_to("../a/1.fna.gz")  # of another species
    with pytest.raises(InputError, match=r"b/9\.fna\.gz is .*/a/1\.fna\.gz once more"):
        load_reads(root, "train", 9, length=50)


def test_a_species_that_is_linked_is_refused(folder):
    root, _ = folder
    (root / "d").symlink_to("b")
    with pytest.raises(InputError, match=r"/d is .*/b once more, by a link"):
        load_reads(root, "train", 9, length=50)


@pytest.mark.parametrize("name", ["d", "a/9.fna.gz"])
def test_a_link_to_nothing_is_refused(folder, name):
    root, _ = folder
    (root / name).symlink_to("missing")
    with pytest.raises(InputError, match=rf"{name}: .* a link to nothing \(missing\)"):
        load_reads(root, "train", 9, length=50)


def test_links_to_files_elsewhere_are_followed(folder):
    root, _ = folder
    whole = load_reads(root, "test", 9, length=50)
    (root / "a").rename(root.parent / "elsewhere")
    (root / "a").mkdir()
    for file in (root.parent / "elsewhere").iterdir():
        (root / "a" / file.name).symlink_to(file)
    np.testing.assert_array_equal(load_reads(root, "test", 9, length=50).x, whole.x)


def twin(root, texts, name: str) -> None:
    """The strain 1 of a, as another archive has it: other names, lines and case."""
    lines = "\n".join(re.findall(".{1,70}", texts["a", "1"].lower()))
    (root / name).write_text(f">of another archive\n{lines}\n")


def test_files_of_the_same_bases_in_two_splits_are_refused(folder):
    """Of a the strain 1 is trained on, and what is last by name tested on."""
    root, texts = folder
    twin(root, texts, "a/9.fna")
    load_reads(root, "train", 9, length=50)
    told = (
        r"root: a/1\.fna\.gz and a/9\.fna have the same bases.*; leave one of them out"
    )
    with pytest.raises(InputError, match=told):
        load_reads(root, "test", 9, length=50)
    (root / "a" / "9.fna").write_text(f">another\n{random_text(99, 3000)}\n")
    for split in sequences.SPLITS:
        load_reads(root, split, 9, length=50)


def test_files_of_the_same_bases_of_two_species_are_refused(folder):
    root, texts = folder
    twin(root, texts, "b/9.fna")
    told = r"root: a/1\.fna\.gz and b/9\.fna have the same bases"
    with pytest.raises(InputError, match=told):
        load_reads(root, "train", 9, length=50)


def test_what_was_a_twin_is_none_when_it_was_replaced_or_removed(folder):
    root, texts = folder
    twin(root, texts, "a/9.fna")
    load_reads(root, "test", 9, length=50)
    (root / "a" / "9.fna").write_text(f">another\n{random_text(99, 3000)}\n")
    load_reads(root, "train", 9, length=50)
    (root / "a" / "9.fna").unlink()
    load_reads(root, "train", 9, length=50)


def test_folders_are_not_compared_with_each_other(folder):
    root, _ = folder
    shutil.copytree(root, root.parent / "copy")
    for place in (root, root.parent / "copy"):
        for split in sequences.SPLITS:
            load_reads(place, split, 9, length=50)
