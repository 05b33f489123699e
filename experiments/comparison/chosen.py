"""What a run is told to take: a network that somebody brought, an auxiliary set."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from experiments.comparison import loaded
from experiments.comparison.networks import Shared, family_of, network_of
from experiments.comparison.overlap import refuse_own
from experiments.comparison.run_options import FLOAT32, Config
from experiments.harness.machine import reading
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import OUTLIERS, Benchmark, outliers
from fssd_jax.data.decoded import Decoded
from fssd_jax.data.faces import celeba_images
from fssd_jax.data.folders import load_images
from fssd_jax.data.image_files import located
from fssd_jax.data.imagenet import imagenet_images
from fssd_jax.data.large_sets import Cut, LargeSet, of_folder
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.torch_weights import FORMATS

NO_OUTLIERS = "the paper has none here; give images of yours: --outliers PATH"


class Chosen(NamedTuple):
    """The network of a run."""

    network: Shared  # how it is trained; with `brought`, nothing is
    brought: loaded.Network | None


def chosen_network(config: Config, benchmark: Benchmark) -> Chosen:
    """What the options name, or the benchmark's own."""
    if config.weights is None:
        own = {"width": config.width, "tiny": config.tiny}
        shared = network_of(benchmark, config.network, **own)
        return Chosen(computing_in(config.dtype, shared, benchmark), None)
    options = {name: getattr(config, name) for name in ("part", "mean", "std", "dtype")}
    return brought_network(benchmark, config.weights, config.network, **options)


def computing_in(dtype: str, shared: Shared, benchmark: Benchmark) -> Shared:
    """The same network, which computes in that; its parameters are float32.

    Raises:
      InputError: it computes in float32 only.
    """
    if dtype == FLOAT32:
        return shared
    if not hasattr(shared.build(benchmark, None), "dtype"):
        raise InputError(
            f"--dtype {dtype}: {shared.name} computes in float32 only; leave it out"
        )

    def build(benchmark: Benchmark, rate: float | None) -> nn.Module:
        return shared.build(benchmark, rate).clone(dtype=jnp.dtype(dtype))

    return shared._replace(build=build)


def auxiliary_set(
    config: Config, benchmark: Benchmark
) -> tuple[ArrayDataset | None, dict[str, str]]:
    """Of Outlier Exposure, if it is asked for; and if there is none, why."""
    asked = "outlier_exposure" in config.methods
    # No images stand beside token ids.
    if not asked or benchmark.symbols or config.weights:
        return None, {}
    found, why = outliers_for(benchmark, config.outliers, config.data_dir)
    return found and reading(config, found), why


def brought_network(
    benchmark: Benchmark,
    weights: Path,
    name: str | None = None,
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    part: str | None = None,
    dtype: str = FLOAT32,
) -> Chosen:
    """Weights in place of training.

    Args:
      benchmark: that the network is to fit.
      weights: as `torch_weights.load` takes them, or the folder of a training of ours.
      name: of `torch_weights.FORMATS`; by default the benchmark's network.
      mean, std: by which it was trained; by default the benchmark's.
      part: as of `torch_weights.load`.
      dtype: in which the network computes.

    Raises:
      InputError: a name of another network, images or classes that it is not for.
    """
    shared = network_of(benchmark)
    name = name or shared.name
    if name not in FORMATS:
        raise InputError(
            f"--weights: {name} is not read; choose from {sorted(FORMATS)}"
        )
    brought = loaded.load_network(
        *(weights, name),
        mean=mean or benchmark.mean,
        std=std or benchmark.std,
        part=part,
        dtype=dtype,
        layers=None,
    )
    model, side = brought.model, FORMATS[name].side
    found = (side, side, len(model.mean), model.num_classes)
    expected = (*benchmark.train.x.shape[1:], benchmark.num_classes)
    if found != expected:
        raise InputError(
            f"--weights: height, width, channels and classes of {name} are {found}, "
            f"and of {benchmark.name} {expected}; choose others"
        )
    published_width = family_of(benchmark).published_width
    same_width = getattr(model, "width", published_width) == published_width
    published = shared.published and name == shared.name and same_width
    return Chosen(shared._replace(name=name, published=published), brought)


def outliers_for(
    benchmark: Benchmark, name: str, data_dir: Path | None
) -> tuple[ArrayDataset | None, dict[str, str]]:
    """An auxiliary set of the benchmark's size, with none of its images; and of which
    field of `Setting` it is told why there is none.

    Args:
      benchmark: of images.
      name: as of `outliers`, for grey images; of `LARGE`, for others; or a path, see
        `load_images`; or auto, the paper's.
      data_dir: as of `load`.

    Raises:
      InputError: it was asked for by name or path and cannot be had, or holds images
        of the benchmark.
    """
    found, why = _found(benchmark, name, data_dir)
    if found is not None:
        refuse_own(found, benchmark, name)
    return found, why


def _found(
    benchmark: Benchmark, name: str, data_dir: Path | None
) -> tuple[ArrayDataset | None, dict[str, str]]:
    height, width, channels = benchmark.train.x.shape[1:]
    if name not in ("auto", *OUTLIERS, *LARGE) and located(name).exists():
        if isinstance(benchmark.train.x, Decoded) and located(name).is_dir():
            found = of_folder(located(name), None)
            assert isinstance(found, LargeSet)  # it is a folder
            return found.decoded(located(name).name, "all", Cut(height)), {}
        return load_images(name, size=(height, width), channels=channels), {}
    if channels == 1:
        try:
            return outliers(name, data_dir), {}
        except InputError as error:
            if name != "auto":
                raise
            told = " ".join(str(error).split())  # of several lines
            return None, {"outliers": f"{told}; or give images: --outliers PATH"}
    if name not in ("auto", *LARGE):
        raise InputError(
            f"--outliers {name}: there is no such folder or file of images, and those "
            f"in colour that are had by name are {' and '.join(LARGE)}"
        )
    of_paper = AUXILIARY.get(benchmark.name)
    if name == "auto" and of_paper is None:
        return None, {"outliers": NO_OUTLIERS}
    chosen = of_paper if name == "auto" else name
    assert chosen is not None
    try:
        return LARGE[chosen](height, data_dir), {}
    except InputError as error:
        if name != "auto":
            raise
        told = " ".join(str(error).split())  # of several lines
        why = f"the paper takes {chosen}: {told}; or give images: --outliers PATH"
        return None, {"outliers": why}


# Of the paper's benchmarks in colour, and of ours that is like one.
AUXILIARY = {
    "cifar10": "imagenet2012",
    "cifar6": "imagenet2012",
    "dogs": "celeb_a",
    "celeba": "imagenet2012",
    "ms1m": "imagenet2012",
}
LARGE: dict[str, Callable[[int, Path | None], ArrayDataset]] = {
    "imagenet2012": imagenet_images,
    "celeb_a": celeba_images,
}
