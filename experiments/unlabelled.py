"""What can be said of two sets of images without any OoD image to fit on."""

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from sklearn.neighbors import NearestNeighbors

import fssd_jax
from analysis import pca, plots
from analysis.concentration import with_batch_statistics
from experiments.scores import Rows, Scored
from fssd_jax import metrics
from fssd_jax.data.pipeline import as_float, map_batches
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.detectors import energy, fssd, knn, mahalanobis, max_logit, msp, odin
from fssd_jax.ensemble import combine
from fssd_jax.features import FeatureFn, Variables, pool
from fssd_jax.fssd import distances

LOGITS = "logits"
SHOWN = 500  # images of each set in the scatter plot
ACCEPTANCE = 0.95
STATISTICS = 64  # images, for the BatchNorm of the untrained control
CHUNK = 256  # images of which pixels are looked at together
METHODS = {"msp": msp, "max logit": max_logit, "energy": energy, "odin": odin}


class Network(NamedTuple):
    model: Any
    layers_fn: FeatureFn  # FSSD's layers
    whole_fn: FeatureFn  # and the logits
    variables: Variables


class Images(NamedTuple):
    """In-distribution images of three purposes, OoD images, and noise."""

    validation: np.ndarray  # by which layers are standardised
    calibration: np.ndarray  # by which the threshold is chosen
    ind: np.ndarray
    ood: np.ndarray
    noise: np.ndarray


class Seen(NamedTuple):
    """Of the images of one set, by one forward pass."""

    distances: np.ndarray  # [n, layers]
    logits: np.ndarray  # [n, classes]


class Found(NamedTuple):
    rows: Rows
    fitted: fssd_jax.Fitted  # FSSD by protocol `clean`, and its threshold
    seen: dict[str, Seen]  # "ind", "ood" and "calibration"


def score(
    network: Network,
    images: Images,
    train: ArrayDataset | None,
    *,
    seed: int,
    batch_size: int,
) -> Found:
    """FSSD and the other methods, then controls.

    FSSD and what needs only logits share one forward pass of an image.
    """
    look = partial(_look, network.whole_fn, batch_size)
    fit = partial(fssd.fit, network.layers_fn, batch_size=batch_size)
    state = fit(network.variables, images.noise, images.validation)
    seen = {
        name: look(network.variables, state, x, name)
        for name, x in images._asdict().items()
        if name not in ("noise", "validation")
    }
    ind, ood = seen["ind"], seen["ood"]
    of_ind = f"{len(images.validation)} in"
    layers = list(state.singularity.center)
    rows = {
        f"fssd {layer}": Scored(ind.distances[:, k], ood.distances[:, k])
        for k, layer in enumerate(layers)
    }
    rows["fssd"] = _combined(fit(network.variables, images.noise), ind, ood)
    rows["fssd clean"] = _combined(state, ind, ood, fitted_on=of_ind)
    for name, method in METHODS.items():
        of = partial(map_batches, method.score, _same, {}, method.fit())
        note = "T = 1000, no input step" if name == "odin" else ""
        pair = (of(s.logits, unit_range=False) for s in (ind, ood))
        rows[name] = _row(pair, note=note)
    if train is not None:
        rows |= _with_training_images(network, images, train, batch_size)
    key = jax.random.key(seed)
    initial = jax.jit(network.model.init)(key, as_float(images.ind[:1]))
    if "batch_stats" in initial:
        some = as_float(images.validation[:STATISTICS])
        initial = with_batch_statistics(network.model, initial, some)
    start = fit(initial, images.noise, images.validation)
    before = [look(initial, start, x, "untrained") for x in (images.ind, images.ood)]
    for k, layer in enumerate(layers):
        pair = (s.distances[:, k] for s in before)
        rows[f"control: untrained, {layer}"] = _row(pair)
    clean = _combined(start, *before, fitted_on=of_ind)
    rows |= {"control: untrained, clean": clean, **_of_pixels(images)}

    calibration = combine(state.ensemble, jnp.asarray(seen["calibration"].distances))
    chosen = fssd_jax.threshold(np.asarray(calibration), acceptance=ACCEPTANCE)
    settings = {
        "layers": layers,
        "mean": network.model.mean,
        "std": network.model.std,
        "threshold": chosen.value,
    }
    return Found(rows, fssd_jax.Fitted("fssd", settings, state), seen)


def _look(whole_fn, batch_size, variables, state, x, name: str) -> Seen:
    found = map_batches(
        *(_distances_and_logits, whole_fn, variables, state.singularity, x),
        batch_size=batch_size,
        progress=f"scoring, {name}",
    )
    count = len(state.singularity.center)
    return Seen(found[:, :count], found[:, count:])


def _distances_and_logits(
    whole_fn, variables, singularity, x
) -> Float[Array, "batch _"]:
    features = whole_fn(variables, x)
    of_layers = OrderedDict((k, features[k]) for k in singularity.center)
    return jnp.concatenate([distances(singularity, of_layers), features[LOGITS]], 1)


def _same(variables, logits):
    """The logits are known already."""
    return logits


def _combined(state, ind: Seen, ood: Seen, **facts) -> Scored:
    pair = (combine(state.ensemble, jnp.asarray(s.distances)) for s in (ind, ood))
    return _row(pair, **facts)


def _row(pair: Iterable, **facts) -> Scored:
    ind, ood = map(np.asarray, pair)
    return Scored(ind, ood, **facts)


def _with_training_images(
    network: Network, images: Images, train: ArrayDataset, batch_size: int
) -> Rows:
    of = network.layers_fn, network.variables
    gaussians = mahalanobis.estimate_gaussians(
        *(*of, train.x, train.y, network.model.num_classes), batch_size=batch_size
    )
    wide = mahalanobis.fit(*of, gaussians, images.validation, batch_size=batch_size)
    layer, k = last_hidden(list(gaussians.factor)), min(50, len(train.x))
    pooled = partial(_mean_pooled, network.layers_fn, layer), network.variables
    near = knn.fit(*pooled, train.x, layer, k=k, batch_size=batch_size)
    rows, of_train = {}, f"{len(train.x):,} training images"
    for name, method, network_of, state, more in (
        ("knn", knn, pooled, near, ""),
        ("mahalanobis", mahalanobis, of, wide, f", {len(images.validation)} in"),
    ):
        apply = partial(map_batches, method.score, *network_of, state)
        pair = (apply(x, batch_size=batch_size) for x in (images.ind, images.ood))
        rows[name] = _row(pair, fitted_on=of_train + more)
    rows["knn"] = rows["knn"]._replace(note=f"{layer}, k = {k}")
    return rows


def _mean_pooled(feature_fn, layer, variables, x):
    """As Sun et al. (2022) take it of a convolutional network."""
    feature = OrderedDict([(layer, feature_fn(variables, x)[layer])])
    return pool(feature, "mean")


def _of_pixels(images: Images) -> Rows:
    """Controls without any network."""
    held = images.validation
    nearest = NearestNeighbors(n_neighbors=1).fit(_flat(held))

    def of_parts(measure, x):  # a few at a time, as floats
        parts = (_flat(x[start : start + CHUNK]) for start in range(0, len(x), CHUNK))
        return np.concatenate([measure(part) for part in parts])

    def nearness(flat):
        return -nearest.kneighbors(flat)[0][:, 0]

    tested = images.ind, images.ood
    near = (of_parts(nearness, x) for x in tested)
    bright = (of_parts(partial(np.mean, axis=1), x) for x in tested)
    return {
        "control: nearest in pixels": _row(near, fitted_on=f"{len(held)} in"),
        "control: brightness": _row(bright),
    }


def _flat(x) -> np.ndarray:
    return as_float(x).reshape(len(x), -1)


def last_hidden(layers: list[str]) -> str:
    """The last layer before the logits; the logits, if there is no other."""
    return ([layer for layer in layers if layer != LOGITS] or layers)[-1]


def pictures(network: Network, images: Images, found: Found) -> dict[str, Figure]:
    """A histogram a layer, the last hidden one in two components, and ROC curves."""
    center = found.fitted.state.singularity.center
    rows, seen = found.rows, found.seen
    by_set = {
        "in-distribution": seen["ind"].distances,
        "OoD": seen["ood"].distances,
    }
    alone = [rows[f"fssd {layer}"] for layer in center]
    titles = [f"AUROC {metrics.auroc(row.ind, row.ood):.3f}" for row in alone]
    single = {f"{of} {k}" for of in ("fssd", "control: untrained,") for k in center}
    curves = {k: (row.ind, row.ood) for k, row in rows.items() if k not in single}
    last = last_hidden(list(center))
    sets = {"noise": images.noise, "in-distribution": images.ind, "OoD": images.ood}
    feature = partial(map_batches, partial(_feature, last), network.layers_fn)
    features = {k: feature(network.variables, None, x[:SHOWN]) for k, x in sets.items()}
    basis = pca.fit(np.concatenate([features["in-distribution"], features["OoD"]]))
    return {
        "layers": plots.layer_histograms(by_set, list(center), titles),
        "features": plots.feature_scatter(
            {name: pca.project(basis, f) for name, f in features.items()},
            pca.project(basis, np.asarray(center[last])[None])[0],
            basis.share,
            f"features of {last}",
        ),
        "roc": plots.roc(curves, "ROC"),
    }


def _feature(layer, feature_fn, variables, _, x):
    return pool(feature_fn(variables, x), "flatten")[layer]
