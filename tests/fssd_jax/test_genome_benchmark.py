"""The benchmark of genomes, on species that are drawn here."""

from functools import partial

import jax
import numpy as np
import pytest

from fssd_jax import InputError
from fssd_jax.data.benchmarks import (
    HELD_OUT,
    TRAINED,
    genomes,
    load_benchmark,
    validation_and_test,
)
from fssd_jax.data.sequences import reverse_complement
from fssd_jax.data.strains import SPECIES

SIZES = {"train": 60, "test": 50, "ood": 40, "validation": 30, "length": 40}


def text_of(x) -> str:
    return "".join("ACGT"[code] for code in x)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(folder of data, text of each strain): 5 species of 3 strains, 3 of one."""
    folder = tmp_path_factory.mktemp("data")
    rng, texts = np.random.default_rng(0), {}
    for species in (*TRAINED, *HELD_OUT):
        path = folder / "genomes" / species
        path.mkdir(parents=True)
        for strain in "abc" if species in TRAINED else "a":
            text = "".join(rng.choice(list("ACGT"), 1500))
            texts[species, strain] = text
            (path / f"{strain}.fna").write_text(f">{strain}\n{text}\n")
    return folder, texts


@pytest.fixture(scope="module")
def benchmark(drawn):
    return genomes(drawn[0], **SIZES)


def strains(x, texts) -> set[tuple[str, str]]:
    found = set()
    for read in x:
        both = text_of(read), text_of(reverse_complement(read))
        found |= {key for key, text in texts.items() if any(r in text for r in both)}
    return found


def test_no_strain_and_no_species_is_on_two_sides(benchmark, drawn):
    texts = drawn[1]
    of = partial(strains, texts=texts)
    assert of(benchmark.train.x) == {(s, "a") for s in TRAINED}
    assert of(benchmark.held["test"].x) == {(s, "b") for s in TRAINED}
    assert of(benchmark.test.x) == {(s, "c") for s in TRAINED}
    assert of(benchmark.ood["genomes"].x) == {(s, "a") for s in HELD_OUT}
    assert of(benchmark.held["genomes"].x) == {(s, "a") for s in HELD_OUT}
    for text in texts.values():  # the first third of 1,500 bases, and a gap
        for x, low, high in (
            (benchmark.held["genomes"].x, 0, 500),
            (benchmark.ood["genomes"].x, 540, 1500),
        ):
            both = [t for r in x for t in (text_of(r), text_of(reverse_complement(r)))]
            at = [text.index(t) for t in both if t in text]
            assert all(low <= i <= high - 40 for i in at)


def test_sizes_and_labels_are_those_asked_for(benchmark):
    sets = benchmark.train, benchmark.test, benchmark.ood["genomes"]
    assert [s.x.shape for s in sets] == [(60, 40), (50, 40), (40, 40)]
    assert [len(s.x) for s in benchmark.held.values()] == [30, 30]
    assert np.bincount(benchmark.train.y).tolist() == [12] * 5
    assert set(np.unique(benchmark.train.x)) == set(range(benchmark.symbols))


def test_held_validation_sets_are_no_part_of_the_test_sets(benchmark):
    key = jax.random.key(0)
    for pair, whole in ((None, benchmark.test), ("genomes", benchmark.ood["genomes"])):
        validation, test = validation_and_test(benchmark, pair, 20, key)
        held = benchmark.held[pair or "test"]
        rows = [*map(bytes, held.x)]
        assert len({rows.index(bytes(row)) for row in validation.x}) == 20
        assert test is whole
    drawn, rest = validation_and_test(benchmark._replace(held=None), None, 20, key)
    assert (len(drawn.x), len(rest.x)) == (20, 30)


def test_without_the_folder_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSD_JAX_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"no folder .*; `fssd fetch genomes` gets it"):
        load_benchmark("genomes")


def test_its_species_are_those_that_are_fetched():
    assert {*TRAINED, *HELD_OUT} == set(SPECIES)
    assert all(len(SPECIES[name]) >= 3 for name in TRAINED)
    assert all(len(SPECIES[name]) == 1 for name in HELD_OUT)
