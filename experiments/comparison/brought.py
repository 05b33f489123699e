"""A network and images that somebody brought: a setting, and a detector to keep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import fssd_jax
from analysis.concentration import with_batch_statistics
from experiments.comparison import report
from experiments.comparison.answers import Answers
from experiments.comparison.failures import fails_alone
from experiments.comparison.loaded import Network
from experiments.comparison.methods import METHODS
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.report import Result
from experiments.comparison.setting import Setting
from experiments.comparison.singular import (
    centre_of_tiles,
    default_state,
    tiles_state,
)
from experiments.harness.explored import SETS
from experiments.harness.files import Stopwatch
from experiments.harness.keys import Use, of_seed
from fssd_jax import checks, torch_weights
from fssd_jax.data.folders import load_images
from fssd_jax.data.image_files import located
from fssd_jax.data.inputs import as_input
from fssd_jax.data.pipeline import map_batches
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.detectors import fssd
from fssd_jax.features import make_init_fn
from fssd_jax.memory import scoring_batch

FEWEST = 38  # images held out; with 19 in a half, 95 % are accepted with a guarantee
FIXED = ("lenet", "face_resnext50")  # a dense layer sees the whole image
ACCEPTANCE = 0.95
DETECTOR = "fssd.npz"  # the file of it
STATISTICS = 64  # images, for the BatchNorm of the untrained control
# Where no OoD image may be seen, these two are the rows "fssd clean" and "mahalanobis
# clean" once more.
REPEATED = ("fssd", "mahalanobis")


class Images(NamedTuple):
    """In-distribution images of three purposes, OoD images, and noise; or features."""

    validation: np.ndarray  # by which layers are standardised
    calibration: np.ndarray  # by which the threshold is chosen
    ind: np.ndarray
    ood: np.ndarray
    noise: np.ndarray


class Brought(NamedTuple):
    name: str  # of the network, for titles and folders
    setting: Setting
    images: Images
    y: np.ndarray  # labels of the in-distribution images that are tested
    sets: Mapping[str, ArrayDataset]
    detector: dict[str, Any]  # what the saved detector is checked by


def load_sets(
    name: str,
    model,
    paths: Mapping[str, Path],
    *,
    size: int | None,
    resize: int | None,
    limit: int | None,
    seed: int,
) -> dict[str, ArrayDataset]:
    """ "ind", "ood" and perhaps "train", from folders and files.

    Raises:
      InputError: a size that the network does not take, or training images of fewer or
        more classes than the network has.
    """
    paths = {of: located(path) for of, path in paths.items()}
    side = torch_weights.FORMATS[name].side
    size = size or side
    if name in FIXED and size != side:
        raise checks.InputError(f"--size: {name} takes {side}×{side} only")
    found = {
        of: load_images(
            path,
            size=size,
            channels=len(model.mean),
            resize=resize if path.is_dir() else None,
            limit=limit,
            seed=seed,
        )
        for of, path in paths.items()
    }
    if "train" in found:
        present = len(np.unique(found["train"].y))
        if present != model.num_classes:
            raise checks.InputError(
                f"{paths['train']}: images of {present} classes were taken and the "
                f"network has {model.num_classes}, all of which Mahalanobis needs; "
                "give class folders, or raise --limit"
            )
    return found


def split(
    ind: ArrayDataset,
    ood: ArrayDataset,
    *,
    validation: int,
    noise: np.ndarray,
    seed: int,
) -> tuple[Images, dict[str, ArrayDataset]]:
    """Images of each purpose, and the sets that are tested, as of `Setting`.

    Raises:
      InputError: too few in-distribution images, or samples of noise.
    """
    count = min(validation, len(ind.x) // 5)
    if count < FEWEST:
        raise checks.InputError(
            f"{ind.name}: {len(ind.x)} images were taken, and a fifth of them or "
            f"--validation {validation}, {count} images, would standardise layers and "
            f"choose the threshold; {FEWEST} are needed, {5 * FEWEST} images in all"
        )
    if len(noise) < 2:
        raise checks.InputError(
            f"noise: {len(noise)} sample, whose spread is not known; give two or more, "
            "better 1,000"
        )
    key = of_seed(seed, Use.BROUGHT_SPLIT)
    order = np.asarray(jax.random.permutation(key, len(ind.x)))
    half, held, tested = map(np.sort, np.split(order, [count // 2, count]))
    images = Images(
        validation=ind.x[half],
        calibration=ind.x[held],
        ind=ind.x[tested],
        ood=ood.x,
        noise=noise,
    )
    return images, dict(zip(SETS, (ind.select(tested), ood), strict=True))


def setting(
    network: Network,
    name: str,
    sets: Mapping[str, ArrayDataset],
    *,
    validation: int,
    noise: int,
    seed: int,
    batch_size: int | None,
) -> Brought:
    """A network and images; without OoD images to fit on.

    Raises:
      InputError: a layer that the network has not; too few images.
    """
    key = of_seed(seed, Use.BROUGHT_NOISE)
    drawn = fssd_jax.uniform_noise(key, noise, sets["ind"].x.shape[1:])
    images, tested = split(
        *(sets["ind"], sets["ood"]),
        validation=validation,
        noise=np.asarray(drawn),
        seed=seed,
    )
    model, one = network.model, as_input(images.ind[:1])
    feature_fn = fssd_jax.make_feature_fn(model, network.layers)
    jax.eval_shape(feature_fn, network.variables, one)  # else each method would fail
    initial = network.initial
    if initial is None:
        initial = make_init_fn(model)(jax.random.key(seed), one)
    if "batch_stats" in initial:
        some = as_input(images.validation[:STATISTICS])
        initial = with_batch_statistics(model, initial, some)
    s = shared_setting(
        images,
        seed=seed,
        batch_size=batch_size,
        feature_fn=feature_fn,
        logit_fn=fssd_jax.make_logit_fn(model),
        variables=network.variables,
        initial=initial,
        num_classes=model.num_classes,
        train=sets.get("train"),
        tested=tested,
    )
    facts = {"layers": network.layers, "mean": model.mean, "std": model.std}
    facts["dtype"] = str(np.dtype(getattr(model, "dtype", np.float32)))
    return Brought(name, s, images, tested[SETS[0]].y, sets, facts)


def shared_setting(
    images: Images, *, seed: int, batch_size: int | None, **fields
) -> Setting:
    """Without OoD images to fit on, and with nothing to train further networks by.

    Args:
      images: of each purpose.
      seed, batch_size: as of `Setting`; None: what `scoring_batch` chooses.
      **fields: the other fields of `Setting`, which the network decides.
    """
    clean, one = PROTOCOLS["clean"], as_input(images.ind[:1])
    if batch_size is None:
        batch_size = scoring_batch(fields["feature_fn"], fields["variables"], one)
    return Setting(
        protocol=clean._replace(batch_size=batch_size, samples=len(images.noise)),
        noise=images.noise,
        val_ind=images.validation,
        val_ood=None,
        test_ind=images.ind,
        test_ood=images.ood,
        seed=seed,
        batch_size=batch_size,
        timed=False,
        **fields,
    )


class Found(NamedTuple):
    answers: Answers
    result: Result
    # FSSD, and its threshold; None if that fails, and then `result` tells why.
    fitted: fssd_jax.Fitted | None


def measure(b: Brought, folder: Path, title: str) -> Found:
    """All methods that need no OoD image, controls, and a detector with its threshold.

    Args:
      b: what was brought.
      folder, title: as of `report.measure`.
    """
    names = [
        name
        for name, method in METHODS.items()
        if name not in REPEATED and "training" not in method.needs
    ]
    answers, result = report.measure(
        *(b.setting, names, folder, title), again=False, clock=Stopwatch()
    )
    with fails_alone(result["failed"], DETECTOR):
        return Found(answers, result, _detector(b))
    return Found(answers, result, None)


def _detector(b: Brought) -> fssd_jax.Fitted:
    """That of the row "fssd tiles", which takes images; of features "fssd deep"."""
    s, calibration = b.setting, b.images.calibration
    tiles = s.pixels is not None
    feature_fn, state = tiles_state(s) if tiles else (s.feature_fn, default_state(s))
    scores = map_batches(
        *(fssd.score, feature_fn, s.variables, state, calibration),
        batch_size=s.batch_size,
    )
    threshold = fssd_jax.threshold(scores, acceptance=ACCEPTANCE).value
    config = {
        "row": "fssd tiles" if tiles else "fssd deep",
        "centre": centre_of_tiles(s) if tiles else "noise",
        "with_logits": tiles,  # whether `head.with_logits` is to add them
        "threshold": threshold,
    }
    return fssd_jax.Fitted("fssd", b.detector | config, state)
