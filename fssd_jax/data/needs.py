"""What each benchmark needs: the paper's Table 1, A to G, and our own."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

IND, OOD = "in-distribution", "OoD"
OUTLIERS, FURTHER = "for Outlier Exposure", "further OoD"


class Need(NamedTuple):
    role: str  # one of the above
    name: str  # of the folder below `data_dir`; of a set with a loader, its name
    # Split → samples: of the published set, or a text, as Table 1 prints them; None:
    # not known.
    counts: Mapping[str, int | str | None]
    classes: Mapping[str, int]  # split → classes, where that is known
    layout: str  # of that folder, in words; empty if none is looked for
    get: str  # what gets it, in words; commands in backticks, and last
    tfds: str | None = None  # its name there, with a config: name/config


class Benchmark(NamedTuple):
    title: str
    needs: tuple[Need, ...]
    runs: str  # its name in `benchmarks.BENCHMARKS`
    instead: Need | None = None  # of which all of them are drawn, if they are not there
    also: tuple[Need, ...] = ()  # what it can do without


def _sets(role, name, counts, classes, **others) -> Need:
    """Of a set of TFDS with features `image` and `label`."""
    told = {
        "layout": "SPLIT/CLASS/*.png, or SPLIT.npz",
        # That `tfds build` makes by itself is not read by number.
        "get": f"`tfds build {name} --file_format=array_record` (TensorFlow Datasets)",
        "tfds": name,
    }
    return Need(role, name, counts, classes, **{**told, **others})


def _folder(role, name, counts, classes, get, layout="SPLIT/CLASS/*.jpg", **others):
    return Need(role, name, counts, classes, layout, get, **others)


CELEBA = (
    "mmlab.ie.cuhk.edu.hk/projects/CelebA.html: aligned and cropped images, "
    "attributes, identities; or `tfds build celeb_a --file_format=array_record` "
    "(TensorFlow Datasets, 2.1.0 or newer)"
)
LISTS = "img_align_celeba/*.jpg, list_attr_celeba.txt and identity_CelebA.txt"
GENOMICS = (
    "storage.googleapis.com/tfds-data/downloads/genomics_ood/genomics_ood.zip, "
    "unpacked; or `tfds build genomics_ood --file_format=array_record` (TensorFlow "
    "Datasets)",
    "before_2011_in_tr.txt and four others",
)
GREY = "SPLIT/0/*.png to SPLIT/9/*.png, SPLIT.npz, or IDX files"
FETCH = "`fssd fetch`, or `apt-get install dataset-fashion-mnist`"
FMNIST = _sets(
    IND,
    "fashion_mnist",
    {"train": 60_000, "test": 10_000},
    {"train": 10, "test": 10},
    layout=GREY,
    get=FETCH,
)
CIFAR10 = _sets(
    IND,
    "cifar10",
    {"train": 50_000, "test": 10_000},
    {"train": 10, "test": 10},
)
SVHN = _sets(OOD, "svhn_cropped", {"test": 26_032}, {})
MNIST = _sets(OOD, "mnist", {"test": 10_000}, {}, layout=GREY, get="`fssd fetch`")
IMAGENET = (
    "register at image-net.org, and make class folders, train and validation; or put "
    "both archives into TFDS's downloads/manual, and `tfds build imagenet2012 "
    "--file_format=array_record`"
)

WHOLE = _folder(
    IND,
    "imagenet2012",
    {"train": 1_281_167, "validation": 50_000},
    {"train": 1000, "validation": 1000},
    IMAGENET,
    "SPLIT/SYNSET/*.JPEG",
    tfds="imagenet2012",
)

# The first that there is serves Outlier Exposure.
GLYPHS = (
    _sets(OUTLIERS, "kmnist", {"train": 60_000}, {}, layout=GREY, get="`fssd fetch`"),
    _folder(
        OUTLIERS, "cns_glyphs", {"train": 20_000}, {}, "`fssd fetch`", "glyphs.npz"
    ),
)
IMAGES = WHOLE._replace(role=OUTLIERS, counts={"train": 1_281_167}, classes={})
# In colour, enlarged.
FAR = (
    FMNIST._replace(role=FURTHER, counts={"test": 10_000}, classes={}),
    MNIST._replace(role=FURTHER),
    _folder(FURTHER, "colour_patches", {"test": None}, {}, "", ""),
)

# By the paper's letters, and our names. Texts are as Table 1 prints them, where its
# parts were drawn by the authors.
NEEDS = {
    "A": Benchmark(
        "FMNIST vs. MNIST",
        (
            FMNIST,
            MNIST,
        ),
        "fmnist",
        also=GLYPHS,
    ),
    "B": Benchmark("CIFAR10 vs. SVHN", (CIFAR10, SVHN), "cifar10", also=(*FAR, IMAGES)),
    "C": Benchmark(
        "ImageNet (dogs) vs. ImageNet (non-dogs)",
        (
            _folder(
                IND,
                "imagenet_dogs",
                {"train": "50k", "test": "10k"},
                {"train": 50, "test": 50},
                "50 synsets of dogs out of ImageNet; which ones the paper does not say",
            ),
            _folder(
                OOD,
                "imagenet_non_dogs",
                {"test": "10k"},
                {},
                "images of ImageNet of no dog; which ones the paper does not say",
            ),
        ),
        "dogs",
        instead=WHOLE._replace(role="both"),
        also=(
            _folder(
                *(OUTLIERS, "celeb_a", {"all": 202_599}, {}, CELEBA, LISTS),
                tfds="celeb_a",
            ),
        ),
    ),
    "D": Benchmark(
        "ImageNet vs. ImageNet-C",
        (
            WHOLE,
            _folder(
                OOD,
                "imagenet_c",
                {"validation": 50_000},
                {},
                "zenodo.org/record/2235448, unpacked; images of one's own: "
                "fssd_jax.data.imagenet_c.corrupt",
                "KIND/LEVEL/SYNSET/*.JPEG, 16 kinds at 5 levels",
                tfds="imagenet2012_corrupted",
            ),
        ),
        "imagenet",
    ),
    "E": Benchmark(
        "CelebA (not blurry) vs. CelebA (blurry)",
        (
            _folder(
                IND,
                "celeb_a",
                {"train": "153.8k", "test": "38.5k"},
                {"train": 10122, "test": 10122},
                CELEBA,
                LISTS,
                tfds="celeb_a",
            ),
            _folder(
                *(OOD, "celeb_a", {"blurry": "10.3k"}, {}, CELEBA, LISTS),
                tfds="celeb_a",
            ),
        ),
        "celeba",
        also=(IMAGES,),
    ),
    "F": Benchmark(
        "MS-1M vs. IJB-C",
        (
            _folder(
                IND,
                "ms1m",
                {"train": "2923.6k", "test": "50k"},
                {"train": 64736, "test": 16184},
                "MS-Celeb-1M is no longer published by its authors",
                "SPLIT/IDENTITY/*.jpg",
            ),
            _folder(OOD, "ijb_c", {"test": "50k"}, {}, "on request from NIST"),
        ),
        "ms1m",
        also=(IMAGES,),
    ),
    "G": Benchmark(
        # Ten classes of 10,000 reads, and sixty: Table 1 prints ten times as many.
        "Genome (before 2011) vs. Genome (after 2016); Table 1 prints 1000k and 6000k "
        "test reads, the published set has a tenth",
        (
            _folder(
                IND,
                "genomics_ood",
                {"train": 1_000_000, "validation": 100_000, "test": 100_000},
                {"train": 10, "validation": 10, "test": 10},
                *GENOMICS,
                tfds="genomics_ood",
            ),
            _folder(
                OOD,
                "genomics_ood",
                {"validation_ood": 600_000, "test_ood": 600_000},
                {},
                *GENOMICS,
                tfds="genomics_ood",
            ),
        ),
        "genomics",
    ),
    "digits": Benchmark(
        "digits 0–4 vs. digits 5–9, and vs. patches of photographs",
        (
            _folder(IND, "digits", {"train": None, "test": None}, {}, "", ""),
            _folder(OOD, "photo_patches", {"test": None}, {}, "", ""),
        ),
        "digits",
    ),
    "fmnist6": Benchmark(
        "six classes of FMNIST vs. the others", (FMNIST,), "fmnist6", also=GLYPHS
    ),
    "cifar6": Benchmark(
        "six classes of CIFAR10 vs. the others, and vs. SVHN",
        (CIFAR10, SVHN),
        "cifar6",
        also=(*FAR, IMAGES),
    ),
    "genomes": Benchmark(
        "five species of bacteria vs. three others",
        (
            _folder(
                f"{IND} and {OOD}",
                "genomes",
                {"": 29},
                {"": 8},
                "`fssd fetch genomes`",
                "SPECIES/STRAIN.fna.gz",
            ),
        ),
        "genomes",
    ),
}


def advice(need: Need, data_dir: str | Path | None) -> str:
    """What gets a set; commands put it where it is not looked for with `data_dir`."""
    alone = "" if data_dir is None else "without --data-dir, "
    return need.get.replace("`", f"{alone}`", 1)


def agrees(wanted: int | str, count: int) -> bool:
    """Whether a count is that number, or what was printed, such as "153.8k"."""
    if isinstance(wanted, int):
        return count == wanted
    printed = wanted
    if not printed.endswith("k"):
        return count == int(printed)
    number = printed[:-1]
    digits = len(number.partition(".")[2])
    return f"{count / 1000:.{digits}f}" == number
