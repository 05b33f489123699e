"""Files that would be strains if they were read, and those that would not."""

import gzip
import lzma
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fssd_jax import InputError
from fssd_jax.data import sequences, strain_forms


def fasta(seed: int) -> bytes:
    bases = np.random.default_rng(seed).choice(list("ACGT"), 3000)
    return f">{seed}\n{''.join(bases)}\n".encode()


@pytest.fixture
def folder(tmp_path):
    """Of the species a, with four strains."""
    (tmp_path / "a").mkdir()
    for seed, name in enumerate(("1", "2", "3", "10")):
        (tmp_path / "a" / f"{name}.fna.gz").write_bytes(gzip.compress(fasta(seed)))
    return tmp_path


UNREAD = (
    *("4.fna.zst", "4.FNA.Z", "4.fna.zip", "4.fa.lz4", "4.fna.tar.gz", "4.zip"),
    *("GCF_000005845.2.zip", "4.embl", "4.embl.gz", "4.fastq", "4.fq.gz", "4.seq"),
)


@pytest.mark.parametrize("name", UNREAD)
def test_strains_that_are_not_read_are_not_dropped(folder, name, monkeypatch):
    """Of three strains two would be split by position; what is advised goes on."""
    monkeypatch.setattr(strain_forms, "COMPRESSED", [".gz", ".bz2", ".xz"])
    path = folder / "a" / name
    path.touch()
    told = f"{name}: looks like sequences in a form that is not read.*; unpack or"
    with pytest.raises(InputError, match=told):
        sequences.find(folder)
    # Unpacked beside it, as most programs leave it.
    unpacked = folder / "a" / f"{strain_forms.unread_strain(name)}.fna"
    unpacked.write_bytes(fasta(9))
    assert unpacked in sequences.find(folder)["a"]
    path.unlink()
    assert len(sequences.find(folder)["a"]) == 5


BASES = "acgt" * 20
GENBANK = f"LOCUS  A  80 bp  DNA\nORIGIN\n  1 {BASES}\n//\n".encode()
MISNAMED = {
    **dict.fromkeys("4.txt 4.fasta.txt 4.mfa 4.fna.1 NC_0009 NC_0009.3".split(), fasta),
    **dict.fromkeys("4.gbf 4.gbk.txt 4.dna.bak".split(), lambda seed: GENBANK),
    "4.x.gz": lambda seed: gzip.compress(fasta(seed)),
    "cut.txt.gz": lambda seed: gzip.compress(fasta(seed))[:-20],
    "4.x.xz": lambda seed: lzma.compress(b"\n" + fasta(seed)),
    "bom.txt": lambda seed: b"\xef\xbb\xbf\r\n" + fasta(seed),
}


@pytest.mark.parametrize("name", MISNAMED)
def test_strains_under_other_names_are_not_dropped(folder, name):
    """What is advised makes a strain of it."""
    path = folder / "a" / name
    path.write_bytes(MISNAMED[name](9))
    with pytest.raises(InputError, match=rf"{name}: looks like (FASTA|GenB)") as told:
        sequences.find(folder)
    new = re.search(r"rename it to (\S+),", str(told.value))
    assert new
    path.rename(path.with_name(new[1]))
    assert path.with_name(new[1]) in sequences.find(folder)["a"]


def archived(kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in").mkdir()
        (Path(folder) / "in" / "4.fna").write_bytes(fasta(9))
        made = shutil.make_archive(f"{folder}/made", kind, f"{folder}/in")
        return Path(made).read_bytes()


ARCHIVED = {  # and what each strain is called
    "E.coli_K12.zip": ("zip", "E.coli_K12"),
    "E.coli.tar": ("tar", "E.coli"),
    "E.coli.tar.gz": ("gztar", "E.coli"),
    "E.coli.tbz": ("bztar", "E.coli"),
    "E.coli.tar.xz": ("xztar", "E.coli"),
    "E.coli.download": ("zip", "E.coli.download"),
}


@pytest.mark.parametrize("name", ARCHIVED)
def test_archives_are_known_by_what_they_begin_with(folder, name):
    kind, strain = ARCHIVED[name]
    (folder / "a" / name).write_bytes(archived(kind))
    with pytest.raises(InputError, match=f"{name}: looks like sequences in a form"):
        sequences.find(folder)
    (folder / "a" / f"{strain}.fna").write_bytes(fasta(9))
    assert len(sequences.find(folder)["a"]) == 5


HARMLESS = {
    **dict.fromkeys("README README.txt notes.txt.gz md5sums.gz 1.fna.gz.md5".split()),
    **dict.fromkeys("1.gff 1.faa 1.fna.fai .4.fna.zst ._4.fna .DS_Store".split()),
    "md5checksums.txt": b"d41d8cd98f00b204e9800998ecf8427e  ./1_genomic.fna.gz\n",
    "1_assembly_report.txt": b"# Assembly name:  ASM584v2\n",
    "README.md": b"> Of NCBI.\n",
    "protein.faa.gz": gzip.compress(b">p\nMKL\n"),
    "protein.gpff": b"LOCUS  A  3 aa\n",
    "annotation.gff.zip": b"PK\x03\x04",
    "strains.xlsx": b"PK\x03\x04",
    "broken.gz": b"\x1f\x8b\x08",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_look_like_a_strain_is_passed_over(folder, name):
    (folder / "a" / name).write_bytes(HARMLESS[name] or b"")
    assert len(sequences.find(folder)["a"]) == 4


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "a" / "pipe")
    assert len(sequences.find(folder)["a"]) == 4
