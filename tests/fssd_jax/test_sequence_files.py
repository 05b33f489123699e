"""Sequence files, by hand: every form that is read, and every one that is refused."""

import bz2
import gzip
import lzma
import sys

import numpy as np
import pytest

from fssd_jax import InputError
from fssd_jax.data import sequence_files
from fssd_jax.data.sequence_files import OTHER, read

PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
if sys.version_info >= (3, 14):
    from compression import zstd

    PACK[".zst"] = zstd.compress
FASTA = b""">chr 1 of a strain
ACGT
acgu

>plasmid
NNRA
"""
GENBANK = b"""LOCUS       ABC123               70 bp    DNA     linear   CON
DEFINITION  of nothing. ORIGIN
FEATURES             Location/Qualifiers
     CDS             1..9
                     /translation="MKVL"
ORIGIN
        1 aaaaaaaaaa cccccccccc gggggggggg tttttttttt acgtnacgta cccccccccc
       61 gggggggggg
//
LOCUS       XYZ                      4 bp    DNA     circular BCT
ORIGIN
        1 ttga
//

"""


def by_hand(bases: str) -> list[int]:
    return ["ACGT".index(b) if b in "ACGT" else OTHER for b in bases]


def written(path, content: bytes):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("name", ["right", "wrong.png"])
def test_fasta_of_any_compression_is_known_by_its_content(tmp_path, ending, name):
    genome = read(written(tmp_path / f"{name}{ending}", PACK[ending](FASTA)))
    assert genome.codes.tolist() == by_hand("ACGTACGTNNRA")
    assert genome.codes.dtype == np.uint8
    assert genome.starts.tolist() == [0, 8, 12]
    assert genome.names == ["chr 1 of a strain", "plasmid"]


@pytest.mark.parametrize("ending", PACK)
def test_genbank_gives_the_bases_after_origin(tmp_path, ending):
    genome = read(written(tmp_path / f"a.fna{ending}", PACK[ending](GENBANK)))
    first = "A" * 10 + "C" * 10 + "G" * 10 + "T" * 10 + "ACGTNACGTA" + "C" * 10
    assert genome.codes.tolist() == by_hand(first + "G" * 10 + "TTGA")
    assert genome.starts.tolist() == [0, 70, 74]
    assert genome.names == ["ABC123", "XYZ"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\r"),
        lambda text: text.rstrip(),
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: b"\n\n" + text,
        lambda text: text.lower(),
    ],
)
def test_line_ends_and_case_do_not_matter(tmp_path, change):
    for text in (FASTA, GENBANK):
        if change(text)[:5] != b"locus":
            found = read(written(tmp_path / "a", change(text)))
            expected = read(written(tmp_path / "b", text))
            assert found.codes.tolist() == expected.codes.tolist()
            assert found.starts.tolist() == expected.starts.tolist()


def test_comments_and_wrapping_do_not_matter(tmp_path):
    text = b"; by hand\n>a\n;ACGT\nA C\tG\nT\n>b\nTT\n; end"
    genome = read(written(tmp_path / "a", text))
    assert genome.codes.tolist() == by_hand("ACGTTT")
    assert genome.starts.tolist() == [0, 4, 6]


def test_all_codes_of_iupac(tmp_path):
    letters = "ACGTURYSWKMBDHVNX-."
    text = f">a\n{letters}{letters.lower()}{'ACGT' * 9}".encode()
    found = read(written(tmp_path / "a", text)).codes.tolist()
    assert found == [0, 1, 2, 3, 3, *[OTHER] * 14] * 2 + [0, 1, 2, 3] * 9


def test_lines_and_blocks_may_be_cut_anywhere(tmp_path, monkeypatch):
    """Lines longer than a block are read in parts; the blocks' size decides nothing."""
    rng = np.random.default_rng(0)
    bases = ["".join(rng.choice(list("ACGT"), n)) for n in (1, 500, 37)]
    text = "".join(f">{i}\r\n{b[:300]}\r\n{b[300:]}\r\n" for i, b in enumerate(bases))
    path = written(tmp_path / "a", text.encode())
    for size in (7, 64, 2**20):
        monkeypatch.setattr(sequence_files, "BLOCK", size)
        genome = read(path)
        assert genome.codes.tolist() == by_hand("".join(bases))
        assert genome.starts.tolist() == [0, 1, 501, 538]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b">a\n>b\nACGT\n", "record 'a' has no bases"),
        (b">a\nACGT\n>b\n", "record 'b' has no bases: truncated"),
        (b"; no record", "has no records"),
        (b"ACGT\n", "expected FASTA"),
        (b"; old\nACGT\n>a\nA", "before the first header"),
        (b"@read\nACGT\n+\nFFFF\n", "FASTQ; convert"),
        (b"ID   K02675; SV 1;\n", "EMBL; convert"),
        (b"PK\x03\x04\0\0", "binary"),
        (b">a\nAC\0GT", "is binary, expected"),
        (gzip.compress(b">a\nAC\0GT", mtime=0), "is binary inside"),
        (b">a\nMKVLAAG\n", "'a', position 4: 'L' is no nucleotide .* protein"),
        (b">a\nMKVAGDDHSSY\n", "looks like a protein"),
        (b">a\nACGT\n>b\nAC1T\n", "record 'b', position 3: '1'"),
        (b">a\nAC\xffT\n", "position 3"),
        (gzip.compress(FASTA * 99, mtime=0)[:60], "truncated or damaged"),
        (bz2.compress(FASTA)[:-9], "truncated or damaged"),
        (lzma.compress(FASTA)[:-9], "truncated or damaged"),
        (gzip.compress(FASTA, mtime=0)[:-8] + b"12345678", "truncated or damaged"),
        (GENBANK[:250], "ABC123 does not end"),
        (GENBANK.replace(b"//\nLOCUS", b"LOCUS"), "ABC123 does not end"),
        (GENBANK.replace(b"  70 bp", b"  71 bp"), "announces 71 bases and has 70"),
        (GENBANK.replace(b"  70 bp", b"  70 aa"), "looks like a protein"),
        (b"LOCUS       A    9 bp\nCONTIG      join(B)\n//\n", "no bases .ORIGIN"),
    ],
)
def test_what_is_no_genome_is_refused_by_name(tmp_path, content, message):
    path = written(tmp_path / "strain.fna", content)
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.fna"):
        with pytest.raises(InputError, match="no such file"):
            read(path)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, pack):
    monkeypatch.setattr("fssd_jax.bounded.FREE", 2**16)
    monkeypatch.setattr(sequence_files, "BLOCK", 2**12)
    bomb = written(tmp_path / "a", pack(b">a\n" + b"A" * 2**21))
    with pytest.raises(InputError, match="decompression bomb") as error:
        read(bomb)
    limit = max(2**16, 100 * bomb.stat().st_size)
    told = int(str(error.value).split("unpack to ")[1].split()[0])
    assert limit < told <= limit + 2**12


def test_endless_headers_and_reads_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sequence_files, "RECORDS", 3)
    path = written(tmp_path / "a", b">a\nA\n" * 4)
    with pytest.raises(InputError, match="more than 3 records"):
        read(path)
    monkeypatch.setattr(sequence_files, "BLOCK", 16)
    with pytest.raises(InputError, match="a header of more than 16 bytes"):
        read(written(tmp_path / "b", b">" + b"A" * 99 + b"\nACGT"))
