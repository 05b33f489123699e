"""The benchmarks by name, their auxiliary sets, and what is drawn of them."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from fssd_jax.checks import InputError
from fssd_jax.data import published, sequence_files, sequences
from fssd_jax.data.benchmark import Benchmark, channel_statistics, divided
from fssd_jax.data.colour import cifar6, cifar10
from fssd_jax.data.decoded import Decoded
from fssd_jax.data.faces import celeba, ms1m
from fssd_jax.data.folders import located
from fssd_jax.data.genomics import genomics
from fssd_jax.data.imagenet import dogs, imagenet
from fssd_jax.data.inputs import as_input
from fssd_jax.data.sources import ArrayDataset, digest, fetched_dir, load
from fssd_jax.extras import FETCH


def digits(data_dir: str | Path | None = None) -> Benchmark:
    """Digits 0–4 in-distribution; `near` OoD: digits 5–9; `far`: patches of photos.

    Not from the paper: embedded, real and small, so that it runs anywhere.
    """
    if data_dir is not None:
        raise InputError("digits is embedded in scikit-learn and takes no data_dir")
    train, test = (load("digits", split) for split in ("train", "test"))
    # Nothing is trained on 5–9, so both halves of them serve as OoD.
    others = [part.select(part.y >= 5) for part in (train, test)]
    x, y = (np.concatenate([getattr(p, field) for p in others]) for field in "xy")
    near = others[1]._replace(x=x, y=y, split="train+test", sha256=digest(x, y))
    train, test = (part.select(part.y < 5) for part in (train, test))
    mean, std = channel_statistics(train.x)
    return Benchmark(
        name="digits",
        train=train,
        test=test,
        ood={"digits_near": near, "digits_far": load("photo_patches", "test")},
        num_classes=5,
        mean=mean,
        std=std,
        epochs=20,
        save_every=5,
        validation=100,
        paper=None,
    )


def fmnist(data_dir: str | Path | None = None) -> Benchmark:
    """Benchmark A of the paper: FashionMNIST against MNIST, all images."""
    return _against("fmnist", "fashion_mnist", "mnist", data_dir)._replace(
        paper=published.of("A")
    )


def mnist(data_dir: str | Path | None = None) -> Benchmark:
    """MNIST against FashionMNIST, of which the paper shows the dynamics (Figure 2)."""
    return _against("mnist", "mnist", "fashion_mnist", data_dir)


def _against(name: str, inside: str, outside: str, data_dir) -> Benchmark:
    """All images of one published set against the test images of another."""
    train, test = (load(inside, split, data_dir) for split in ("train", "test"))
    ood = load(outside, "test", data_dir)
    if ood.sha256 == test.sha256:
        raise InputError(
            f"the same images were found for {inside} and for {outside}, in "
            f"{ood.source}; put each into a subfolder of its name"
        )
    mean, std = channel_statistics(train.x)
    return Benchmark(
        name=name,
        train=train,
        test=test,
        ood={name: ood},
        num_classes=10,
        mean=mean,
        std=std,
        epochs=14,
        save_every=1,
        validation=1000,
        paper=None,
    )


NEAR_CLASSES = (0, 2, 5, 7, 8, 9)


def fmnist6(data_dir: str | Path | None = None) -> Benchmark:
    """Six classes of FashionMNIST against its other four: OoD that is near.

    Not from the paper. In-distribution: T-shirt, pullover, sandal, sneaker, bag, ankle
    boot; OoD: the test images of trouser, dress, coat, shirt.
    """
    train, whole = (load("fashion_mnist", s, data_dir) for s in ("train", "test"))
    train, test, near = divided(train, whole, NEAR_CLASSES)
    mean, std = channel_statistics(train.x)
    return Benchmark(
        name="fmnist6",
        train=train,
        test=test,
        ood={"fmnist6": near},
        num_classes=len(NEAR_CLASSES),
        mean=mean,
        std=std,
        epochs=5,
        save_every=1,
        validation=1000,
        paper=None,
    )


# By species. Named by their folders, those of `fssd fetch genomes`.
TRAINED = (
    *("Escherichia_coli", "Klebsiella_pneumoniae", "Staphylococcus_aureus"),
    *("Vibrio_cholerae", "Helicobacter_pylori"),
)
HELD_OUT = ("Streptococcus_suis", "Chlamydia_trachomatis", "Leptospira_kirschneri")


def genomes(
    data_dir: str | Path | None = None,
    *,
    train: int = 20_000,
    test: int = 2_000,
    ood: int = 2_000,
    validation: int = 1_000,
    length: int = sequences.LENGTH,
    seed: int = 0,
) -> Benchmark:
    """Reads of five species of bacteria against reads of three others.

    After benchmark G of the paper, whose genomes are others and far more (Ren et al.
    2019). In-distribution, training, validation and test reads are of different
    strains, which may be near relatives: S. aureus USA300 (test) and COL (training)
    have 94 % of USA300's 16-mers in common. OoD validation and test reads are of
    different stretches of each genome.

    Args:
      data_dir: holds the folder `genomes`; by default what `fssd fetch` fills.
      train: how many reads.
      test: likewise.
      ood: likewise.
      validation: likewise, of each side.
      length: bases of a read.
      seed: of the reads that are drawn.
    """
    root = located(data_dir or fetched_dir()) / "genomes"
    if not root.is_dir():
        raise InputError(
            f"genomes: there is no folder {root}; `fssd fetch genomes` gets it into "
            f"{fetched_dir()}, where there is apt-get"
        )
    draw = partial(sequences.load_reads, root, length=length, seed=seed)
    inside = partial(draw, species=TRAINED)
    # Nothing is trained on them: a third for validation, two for the test.
    outside = partial(draw, species=HELD_OUT, shares=(0.0, 1 / 3, 2 / 3))
    unknown, held_unknown = (
        outside(split, count)._replace(name="genomes_held_out")
        for split, count in (("test", ood), ("validation", validation))
    )
    return Benchmark(
        name="genomes",
        train=inside("train", train),
        test=inside("test", test),
        ood={"genomes": unknown},
        num_classes=len(TRAINED),
        mean=(),
        std=(),
        epochs=8,
        save_every=1,
        validation=validation,
        paper=None,
        symbols=len(sequence_files.SYMBOLS),
        held={"test": inside("validation", validation), "genomes": held_unknown},
    )


BENCHMARKS = {
    "digits": digits,
    "fmnist": fmnist,
    "fmnist6": fmnist6,
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar6": cifar6,
    "dogs": dogs,
    "imagenet": imagenet,
    "celeba": celeba,
    "ms1m": ms1m,
    "genomics": genomics,
    "genomes": genomes,
}


def load_benchmark(name: str, data_dir: str | Path | None = None) -> Benchmark:
    """Raises `InputError` for an unknown name, listing the right ones."""
    if name not in BENCHMARKS:
        raise InputError(f"unknown benchmark {name!r}; choose from {list(BENCHMARKS)}")
    found = BENCHMARKS[name](data_dir)
    for pair, data in found.ood.items():
        if any(_share(data.x, of.x) for of in (found.train, found.test)):
            raise InputError(
                f"{pair}: the same images were found for it and in-distribution, in "
                f"{data.source}; put each set into a folder of its own"
            )
    return found


def _share(one: Any, other: Any) -> bool:
    """Whether some of the images are the same records; of `Decoded` alone."""
    if not isinstance(one, Decoded) or not isinstance(other, Decoded):
        return False
    same = one.source.digest == other.source.digest
    return same and bool(np.intersect1d(one.numbers, other.numbers).size)


OUTLIERS = ("kmnist", "cns_glyphs")


def outliers(name: str = "auto", data_dir: str | Path | None = None) -> ArrayDataset:
    """Images [n, 28, 28, 1] to train on as outliers (Outlier Exposure).

    Args:
      name: one of `OUTLIERS`, or "auto": the first of them that can be had. The paper
        takes `kmnist` for benchmark A. The result's `name` says which it is.
      data_dir: as for `load`.

    Raises:
      InputError: an unknown name (it lists the right ones), or none can be had (it
        lists what was tried).
    """
    if name not in ("auto", *OUTLIERS):
        raise InputError(f"unknown outliers {name!r}; choose from auto, {OUTLIERS}")
    tried = []
    for each in OUTLIERS if name == "auto" else (name,):
        try:
            return load(each, "train", data_dir)
        except InputError as error:
            tried.append(str(error))
    raise InputError(
        f"no outliers could be had; the quickest way out is `{FETCH}`. Tried:\n"
        + "\n".join(tried)
    )


def split_validation(
    data: ArrayDataset, count: int, key: PRNGKeyArray
) -> tuple[ArrayDataset, ArrayDataset]:
    """(validation, test): `count` images drawn by the key, and all others.

    Raises:
      InputError: `count` is negative, or nothing would be left to test on.
    """
    if not 0 <= count < len(data.x):
        raise InputError(
            f"{data.name}: {count} validation images wanted of {len(data.x)}; give 0 "
            "or more, and leave some to test on"
        )
    order = np.asarray(jax.random.permutation(key, len(data.x)))
    return data.select(order[:count]), data.select(np.sort(order[count:]))


def validation_and_test(
    benchmark: Benchmark, pair: str | None, count: int, key: PRNGKeyArray
) -> tuple[ArrayDataset, ArrayDataset]:
    """(validation, test) images of the in-distribution set, or of a pair's OoD set.

    Of a benchmark that has validation sets of its own, `count` of these, drawn by the
    key, and all of the test set; else both are drawn from the latter, see
    `split_validation`: of a small OoD set a third at most, and of its twin too, of a
    small in-distribution set a half.
    """
    whole = benchmark.test if pair is None else benchmark.ood[pair]
    if benchmark.held is None:
        part = 2 if pair is None and not benchmark.twins else 3
        return split_validation(whole, min(count, len(whole.x) // part), key)
    held = benchmark.held[pair or "test"]
    order = np.asarray(jax.random.permutation(key, len(held.x)))
    return held.select(np.sort(order[:count])), whole


def draw(x, count: int, key: PRNGKeyArray) -> np.ndarray:
    """`count` images drawn by the key, in their order, as floats; all, if fewer."""
    order = np.asarray(jax.random.permutation(key, len(x)))
    return as_input(x[np.sort(order[:count])])
