"""Which files of a species' folder are strains, and which would be if they were read.

By the name where it says so, else by what the file begins with: a strain that is passed
over changes the split of its species.
"""

import os
from pathlib import Path

from fssd_jax.data.sequence_files import COMPRESSED, beginning

ENDINGS = ".fa .fna .fas .fasta .ffn .frn .fsa .dna .gb .gbk .gbff .genbank".split()
# What sequences come in and is not read, which is no reason to pass them over.
FOREIGN = ".embl .fastq .fq .seq .2bit".split()
ARCHIVES = ".zip .7z .rar .tar .tgz .tbz .tbz2 .txz".split()
PACKED = (*ARCHIVES, *".zst .zstd .z .lz4 .lzma .lz .bgz .br".split())
# No strains, though FASTA, GenBank or zip: proteins, annotations, prose, tables.
OTHERS = ".faa .gpff .gff .gff3 .gtf .md .docx .xlsx .pptx .odt .ods".split()
ARCHIVED = (b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07")
TAR = slice(257, 262), b"ustar"  # where a tar archive says that it is one


def strain_of(name: str) -> str | None:
    """A file's name without its endings; None if these are none of sequences."""
    stem, ending = os.path.splitext(name)
    if ending.lower() in COMPRESSED:
        stem, ending = os.path.splitext(stem)
    return stem if ending.lower() in ENDINGS and stem else None


def unread_strain(name: str) -> str | None:
    """The strain of a file whose name is that of one that is not read; else None.

    An archive whose name has no ending of what is in it may hold one.
    """
    bare, packed = _unpacked(name)
    stem, ending = os.path.splitext(bare)
    if ending.lower() in (*FOREIGN, *(ENDINGS if packed else ())):
        return stem
    # A version, as of GCF_000005845.2, is no ending.
    is_bare = not ending[1:2].isalpha() and bool({*packed} & {*ARCHIVES})
    return bare if is_bare else None


def not_read(path: Path, strains) -> str | None:
    """Why a file that is not read looks like a strain, and what to do; else None.

    Args:
      path: a file for which `strain_of` gives None.
      strains: that are read: beside what was unpacked its archive may stay.
    """
    name, form = unread_strain(path.name), ""
    if name is None:
        name, form = _unpacked(path.name)[0], _form(path)
        if not form:
            return None
    if name in strains:
        return None
    without = "without it the species would be split otherwise"
    if form in ("FASTA", "GenBank"):
        ending = ".fna" if form == "FASTA" else ".gbk"
        return (
            f"looks like {form} by its content, not by its name; {without}; rename it "
            f"to {path.name}{ending}, or move it elsewhere"
        )
    return (
        f"looks like sequences in a form that is not read; {without}; unpack or "
        f"convert it to FASTA ({' '.join(ENDINGS)}, also with {' '.join(COMPRESSED)}), "
        "or move it elsewhere"
    )


def _unpacked(name: str) -> tuple[str, list[str]]:
    """A name without endings of compressed files and archives, and these."""
    stem, ending = os.path.splitext(name)
    packed = []
    while ending.lower() in (*COMPRESSED, *PACKED):
        packed.append(ending.lower())
        stem, ending = os.path.splitext(stem)
    return stem + ending, packed


def _form(path: Path) -> str:
    """ "FASTA", "GenBank", "archive", or nothing, by what a file begins with."""
    bare, _ = _unpacked(path.name)
    if os.path.splitext(bare)[1].lower() in OTHERS:
        return ""
    start = beginning(path)
    where, magic = TAR
    if start.startswith(ARCHIVED) or start[where] == magic:
        return "archive"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()  # that of Windows' editors
    if text.startswith(b">"):
        return "FASTA"
    return "GenBank" if text.startswith(b"LOCUS") else ""
