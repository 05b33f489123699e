"""Benchmarks C and D of the paper: breeds of dogs, and ImageNet against ImageNet-C."""

from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer

from fssd_jax.checks import InputError
from fssd_jax.data import published
from fssd_jax.data.benchmark import Benchmark
from fssd_jax.data.corrupted_sets import LEVELS, folder_of
from fssd_jax.data.image_files import located
from fssd_jax.data.imagenet_c import KINDS
from fssd_jax.data.large_sets import (
    Cut,
    LargeSet,
    Prepared,
    find,
    find_both,
    of_folder,
    of_tfds,
)
from fssd_jax.data.sources import ArrayDataset, fetched_dir
from fssd_jax.models.resnet import IMAGENET

CUT = Cut(224, 256)  # torchvision's
WHOLE = Cut(224)  # of images that are of that size
EPOCHS = 90

# The synsets of ImageNet-1k between these, in the order of their names, are its breeds
# of dogs: 118, numbered 151 to 268.
BREEDS = "n02085620", "n02113978"
# Which 50 the paper does not say: the first ones, in that order.
DOGS = tuple(
    f"n0{number}"
    for number in """
    2085620 2085782 2085936 2086079 2086240 2086646 2086910 2087046 2087394 2088094
    2088238 2088364 2088466 2088632 2089078 2089867 2089973 2090379 2090622 2090721
    2091032 2091134 2091244 2091467 2091635 2091831 2092002 2092339 2093256 2093428
    2093647 2093754 2093859 2093991 2094114 2094258 2094433 2095314 2095570 2095889
    2096051 2096177 2096294 2096437 2096585 2097047 2097130 2097209 2097298 2097474
    """.split()
)
PER_BREED = 1000, 200  # images to train and to test on, of ImageNet's training set
NON_DOGS = 10_000


def dogs(data_dir: str | Path | None = None) -> Benchmark:
    """Benchmark C: 50 breeds of dogs against what is no dog.

    Of the folders `imagenet_dogs` and `imagenet_non_dogs`, if they are there. Else of
    ImageNet: of each breed of `DOGS` 1,000 of its training images to train and 200 to
    test on, which is why the latter are not of its validation set; and of that set
    10,000 images of the 882 classes that are no breed. Which images the paper took is
    not known.
    """
    own = _own_dogs(data_dir)
    train, test, ood = own or dogs_of_imagenet(data_dir)
    classes = int(train.y.max()) + 1
    return _benchmark("dogs", train, test, {"dogs": ood}, classes)._replace(
        paper=None if own else published.of("C")
    )


def _own_dogs(data_dir) -> tuple[ArrayDataset, ArrayDataset, ArrayDataset] | None:
    root = located(data_dir or fetched_dir())
    if not (root / "imagenet_dogs").is_dir():
        return None
    train, test = find_both("imagenet_dogs", "test", root)
    return (
        train.decoded("imagenet_dogs", "train", CUT),
        test.decoded("imagenet_dogs", "test", CUT),
        find("imagenet_non_dogs", "test", root).decoded(
            "imagenet_non_dogs", "test", CUT
        ),
    )


def dogs_of_imagenet(
    data_dir: str | Path | None = None,
) -> tuple[ArrayDataset, ArrayDataset, ArrayDataset]:
    """Dogs to train and to test on, and what is no dog, as `dogs` draws them.

    Raises:
      InputError: as of `find_both`, and if its classes are not called by synsets.
    """
    whole, others = find_both("imagenet2012", "validation", data_dir)
    labels = [_class_of(whole, synset) for synset in DOGS]
    trained, tested = divided(whole.y, labels)
    renumber = np.zeros(len(whole.names), np.int32)
    renumber[labels] = np.arange(len(labels))
    train, test = (
        found._replace(y=renumber[found.y])
        for found in (
            whole.decoded("imagenet_dogs", "train", CUT, trained),
            whole.decoded("imagenet_dogs", "test", CUT, tested),
        )
    )
    breeds = np.array([BREEDS[0] <= name <= BREEDS[1] for name in others.names])
    free = np.flatnonzero(~breeds[others.y])
    drawn = np.random.default_rng(0).permutation(free)[:NON_DOGS]
    ood = others.decoded("imagenet_non_dogs", "validation", CUT, np.sort(drawn))
    return train, test, ood


def _class_of(images: LargeSet, synset: str) -> int:
    if synset not in images.names:
        raise InputError(
            f"{images.where}: has no class {synset}; its class folders are to be "
            "called by ImageNet's synsets"
        )
    return images.names.index(synset)


def divided(
    y: Integer[np.ndarray, " n"], labels: list[int]
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Numbers of images to train and to test on, drawn for each class by itself.

    Of a class with fewer than 1,200 images, as some have, there are fewer to train on.
    """
    most, test = PER_BREED
    drawn = [
        np.random.default_rng(label).permutation(np.flatnonzero(y == label))
        for label in labels
    ]
    trained = np.concatenate([of[test : test + most] for of in drawn])
    return np.sort(trained), np.sort(np.concatenate([of[:test] for of in drawn]))


def imagenet(data_dir: str | Path | None = None) -> Benchmark:
    """Benchmark D: ImageNet against each kind and level of ImageNet-C that is there.

    Pairs are called imagenet_KIND_LEVEL. The published images are read, from the folder
    `imagenet_c`; of a kind and level that is not there, what TFDS has prepared as
    `imagenet2012_corrupted`, which it computes anew and which are other images: such a
    pair is called imagenet_KIND_LEVEL_by_tfds. Each has the validation images' scenes
    in their order, known by class and file name, so that those that are held for
    validation are the same of both sides, and none of them is tested. What lacks some
    is passed over, which is told.
    """
    train, test = find_both("imagenet2012", "validation", data_dir)
    scenes = test.scenes()
    root = located(data_dir or fetched_dir()) / "imagenet_c"
    ood: dict[str, ArrayDataset] = {}
    absent: dict[str, str] = {}
    others: dict[str, str] = {}
    for name in (f"{kind}_{level}" for kind in KINDS for level in LEVELS):
        pair = f"imagenet_{name}"
        try:
            found = _corrupted(root, name, data_dir is None)
        except InputError as error:  # nothing in it, or in one of its classes
            others[pair] = str(error)
            continue
        if isinstance(found, str):
            absent[pair] = found
            continue
        by = "_by_tfds" if isinstance(found.source, Prepared) else ""
        chosen = _in_order(found, scenes)
        if isinstance(chosen, str):
            others[pair + by] = chosen
        else:
            cut = f"imagenet_c_{name}{by}", "validation", WHOLE, chosen
            ood[pair + by] = found.decoded(*cut)
    why = next(iter([*others.values(), *absent.values()]), "")
    if not ood:
        raise InputError(
            f"imagenet: no corrupted images: {why}; unpack ImageNet-C to "
            f"{root}/KIND/LEVEL/SYNSET/"
        )
    if absent:
        some, why = ", ".join([*absent][:3]), next(iter(absent.values()))
        told = f"{len(absent)} kinds and levels are not there, such as {some} ({why})"
        others["imagenet_c"] = told
    sets = (
        train.decoded("imagenet2012", "train", CUT),
        test.decoded("imagenet2012", "validation", CUT),
    )
    found = _benchmark("imagenet", *sets, ood, len(train.names))
    return found._replace(missing=others, twins=True)


def _corrupted(root: Path, name: str, anywhere: bool) -> LargeSet | str:
    kind, _, level = name.rpartition("_")
    folder = folder_of(root, kind, int(level))
    if folder is not None:
        return of_folder(folder, None)
    if anywhere:
        return of_tfds(f"imagenet2012_corrupted/{name}", "validation")
    return f"no folder {root / kind / level}"


def _in_order(found: LargeSet, scenes: list[str]) -> list[int] | str:
    """Numbers of the images of these scenes; or how its scenes are others."""
    try:
        own = {scene: number for number, scene in enumerate(found.scenes())}
    except InputError as error:
        return str(error)
    lacking = [scene for scene in scenes if scene not in own]
    if not lacking and len(own) == len(scenes):
        return [own[scene] for scene in scenes]
    other = lacking or sorted(set(own) - set(scenes))
    whose = "lacks" if lacking else "has beside the validation set's"
    some = f"{len(other):,} scenes, such as {other[0]}"
    return f"{found.where} {whose} {some}; get both anew"


def _benchmark(name, train, test, ood, num_classes: int) -> Benchmark:
    return Benchmark(
        name=name,
        train=train,
        test=test,
        ood=ood,
        num_classes=num_classes,
        mean=IMAGENET["mean"],
        std=IMAGENET["std"],
        epochs=EPOCHS,
        save_every=1,
        validation=1000,
        paper=None,
        family="imagenet",
    )


def imagenet_images(
    side: int, data_dir: str | Path | None = None, split: str = "train"
) -> ArrayDataset:
    """Images cut to squares: of training, as outliers; or to test, as OoD."""
    whole = find("imagenet2012", split, data_dir)
    return whole.decoded("imagenet2012", split, Cut(side))
