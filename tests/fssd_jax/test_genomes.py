"""The folder of genomes, from packages that are built here."""

import gzip
import hashlib
import shutil
import subprocess

import numpy as np
import pytest

from fssd_jax import InputError
from fssd_jax.data import fetch, genomes
from fssd_jax.data.sequence_files import read
from fssd_jax.data.sequences import find
from fssd_jax.data.strains import SPECIES, Package, Strain

BASES = {"first.fa.gz": ("ACGTN" * 40, "GG"), "in/other.fa": ("T" * 81,)}
ONE, TWO = Package("one", "usr/share/one"), Package("two-examples", "usr/lib/two")


def digest_of(*records: str) -> str:
    codes = (bytes("ACGTN".index(b) for b in record) for record in records)
    return hashlib.sha256(b"".join(c + b"\xff" for c in codes)).hexdigest()


SMALL = {
    "Species_a": (
        Strain("x", ONE, "first.fa.gz", digest_of(*BASES["first.fa.gz"])),
        Strain("y", ONE, "first.fa.gz", digest_of("GG"), "record 1"),
    ),
    "Species_b": (Strain("z", TWO, "in/other.fa", digest_of("T" * 81)),),
}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two .deb that `apt-get download` copies, and the commands that were run."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("there is no dpkg-deb here")
    for package, name in ((ONE, "first.fa.gz"), (TWO, "in/other.fa")):
        root = tmp_path / package.name
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN" / "control").write_text(
            f"Package: {package.name}\nVersion: 1\nArchitecture: all\n"
            "Maintainer: me <me@here>\nDescription: small\n"
        )
        path = root / package.folder / name
        path.parent.mkdir(parents=True)
        text = "".join(f">record {i}\n{r.lower()}\n" for i, r in enumerate(BASES[name]))
        pack = gzip.compress if name.endswith(".gz") else bytes
        path.write_bytes(pack(text.encode()))
        (path.parent / "readme").write_text("not wanted")
        build = ["dpkg-deb", "--root-owner-group", "--build", str(root), str(tmp_path)]
        subprocess.run(build, check=True, capture_output=True)
    commands = []

    def run(*command, cwd=None):
        commands.append(" ".join(command))
        if command[1] == "download":
            shutil.copy(tmp_path / f"{command[2]}_1_all.deb", cwd)

    monkeypatch.setattr(genomes, "SPECIES", SMALL)
    monkeypatch.setattr(fetch, "_run", run)
    monkeypatch.setenv("FSSD_JAX_DATA", str(tmp_path / "fetched"))
    return commands


def test_the_folder_has_a_file_for_each_strain_with_its_bases(
    packages, tmp_path, capsys
):
    folder = tmp_path / "fetched" / "genomes"
    assert fetch.command(["genomes"]) == 0
    assert f"3 strains, verified, in {folder}" in capsys.readouterr().out
    got = [c for c in packages if "download" in c]
    assert got == ["apt-get download one", "apt-get download two-examples"]
    paths = {s: [p.name for p in of] for s, of in find(folder).items()}
    assert paths == {"Species_a": ["x.fna.gz", "y.fna.gz"], "Species_b": ["z.fna.gz"]}
    whole = read(folder / "Species_a" / "x.fna.gz")
    assert whole.names == ["record 0", "record 1"]
    expected = ["ACGTN".index(b) for b in "".join(BASES["first.fa.gz"])]
    np.testing.assert_array_equal(whole.codes, expected)
    assert read(folder / "Species_a" / "y.fna.gz").names == ["record 1"]
    lines = gzip.decompress((folder / "Species_b" / "z.fna.gz").read_bytes()).split()
    assert [len(line) for line in lines[2:]] == [80, 1]
    packages.clear()
    assert fetch.command(["genomes"]) == 0  # nothing is got again
    assert packages == []


def test_other_sequences_are_refused_and_leave_nothing(packages, tmp_path, monkeypatch):
    wrong = SMALL["Species_b"][0]._replace(sha256=digest_of("T" * 80))
    monkeypatch.setattr(genomes, "SPECIES", SMALL | {"Species_b": (wrong,)})
    folder = tmp_path / "fetched" / "genomes"
    with pytest.raises(InputError, match=f"z.fna.gz: .* expected {wrong.sha256}"):
        genomes.fetch(folder, fetch._run)
    missing = SMALL["Species_b"][0]._replace(file="missing.fa")
    monkeypatch.setattr(genomes, "SPECIES", SMALL | {"Species_b": (missing,)})
    with pytest.raises(InputError, match=r"does not hold \['missing.fa'\]"):
        genomes.fetch(folder, fetch._run)
    assert list(folder.parent.iterdir()) == []


def test_what_was_damaged_since_says_how_to_get_it_again(packages, tmp_path, capsys):
    folder = tmp_path / "fetched" / "genomes"
    genomes.fetch(folder, fetch._run)
    (folder / "Species_b" / "z.fna.gz").write_bytes(b">z\nT\n")
    (folder / "Species_a" / "y.fna.gz").unlink()
    for file in ("y", "z"):
        assert fetch.command(["genomes"]) == 1
        told = capsys.readouterr().err
        assert f"{file}.fna.gz: " in told
        assert f"remove {folder} and run `fssd fetch genomes`" in told
        shutil.copy(
            folder / "Species_a" / "x.fna.gz", folder / "Species_a" / "y.fna.gz"
        )
        genomes.write(
            folder / "Species_a" / "y.fna.gz",
            read(folder / "Species_a" / "x.fna.gz"),
            "record 1",
        )
    shutil.rmtree(folder)
    assert fetch.command(["genomes"]) == 0


def test_without_debian_or_network_it_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(genomes.shutil, "which", lambda name: None)
        with pytest.raises(InputError, match="no apt-get and dpkg-deb"):
            genomes.fetch(tmp_path / "a", lambda *command, cwd=None: None)
    monkeypatch.setattr(genomes.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(InputError, match="download bowtie-examples: E: no network"):
        genomes.fetch(tmp_path / "a", lambda *command, cwd=None: "E: no network")
    assert list(tmp_path.iterdir()) == []


def test_the_table_names_each_strain_once():
    assert sum(map(len, SPECIES.values())) == 29
    digests = [strain.sha256 for of in SPECIES.values() for strain in of]
    assert len(set(digests)) == 29
    for strains in SPECIES.values():
        assert len({strain.name for strain in strains}) == len(strains)
        assert [s.name for s in strains] == sorted(s.name for s in strains)
