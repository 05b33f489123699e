"""What a run is told to take: a network that somebody brought, an auxiliary set."""

from pathlib import Path
from typing import NamedTuple

from experiments.comparison import loaded
from experiments.comparison.networks import Shared, network_of
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import OUTLIERS, Benchmark, outliers
from fssd_jax.data.folders import load_images
from fssd_jax.data.image_files import located
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.torch_weights import FORMATS

PUBLISHED_WIDTH = 64  # of a ResNet
NO_OUTLIERS = (
    "the paper takes ImageNet-1k, which is none of the sets that are had by name; give "
    "images of yours: --outliers PATH"
)


class Chosen(NamedTuple):
    """The network of a run."""

    network: Shared  # how it is trained; with `brought`, nothing is
    brought: loaded.Network | None


def brought_network(
    benchmark: Benchmark,
    weights: Path,
    name: str | None = None,
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    part: str | None = None,
) -> Chosen:
    """Weights in place of training.

    Args:
      benchmark: that the network is to fit.
      weights: as `torch_weights.load` takes them, or the folder of a training of ours.
      name: of `torch_weights.FORMATS`; by default the benchmark's network.
      mean, std: by which it was trained; by default the benchmark's.
      part: as of `torch_weights.load`.

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
        dtype="float32",
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
    same = name == shared.name and getattr(model, "width", 64) == PUBLISHED_WIDTH
    published = shared.published and same
    return Chosen(shared._replace(name=name, published=published), brought)


def outliers_for(
    benchmark: Benchmark, name: str, data_dir: Path | None
) -> tuple[ArrayDataset | None, dict[str, str]]:
    """An auxiliary set of the benchmark's size; and of which field of `Setting` it is
    told why there is none.

    Args:
      benchmark: of images.
      name: as of `outliers`, for grey images; or a path, see `load_images`.
      data_dir: as of `load`.

    Raises:
      InputError: it was asked for by name or path and cannot be had.
    """
    height, width, channels = benchmark.train.x.shape[1:]
    if name not in ("auto", *OUTLIERS) and located(name).exists():
        return load_images(name, size=(height, width), channels=channels), {}
    if channels == 1:
        return outliers(name, data_dir), {}
    if name != "auto":
        raise InputError(
            f"--outliers {name}: there is no such folder or file of images, and those "
            "that are had by name are grey"
        )
    return None, {"outliers": NO_OUTLIERS}
