"""FSSD varied, as in "Effects of ensemble" of the paper and beyond.

Which noise F* is the centre of; with and without the input step; which networks are
combined. All but the paper's own row are without input step.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments import networks
from experiments.methods import run_fssd
from experiments.scores import Method, Rows, Scored
from experiments.setting import Setting
from fssd_jax.data.pipeline import as_float, map_batches
from fssd_jax.detectors import fssd
from fssd_jax.detectors.displacement import displacements
from fssd_jax.ensemble import Ensemble, combine, fit_ensemble
from fssd_jax.features import FeatureFn, Variables, join, make_feature_fn
from fssd_jax.fssd import fssd as distances

NETWORKS = 3


def no_step(s: Setting) -> Rows:
    """Labels for the weights, but ε = 0."""
    if s.clean:  # it is without step already
        return {}
    protocol = s.protocol._replace(epsilons=(0.0,), perturbation="none")
    return {"fssd, no input step": run_fssd(s._replace(protocol=protocol))}


def singularities(s: Setting) -> Rows:
    """Other centres than that of uniform noise; each layer alone, and all."""
    key = jax.random.fold_in(jax.random.key(s.seed), 105)
    count = len(s.noise)
    sources = {
        "shuffled pixels": (
            shuffled_pixels(s.schedule.train.x, count, key),
            {"fitted_on": f"{count} of the training set"},
        ),
        "scaled noise": (scaled_noise(s.noise, key), {"fitted_on": "nothing"}),
        "OoD validation": (
            as_float(s.val_ood),
            {"fitted_on": f"{len(s.val_ood)} target OoD", "target_ood": True},
        ),
    }
    rows = {}
    for source, (x, of_center) in sources.items():
        state = fssd.fit(s.feature_fn, s.variables, x, s.val_ind)
        ind, ood = (
            _distances(s.feature_fn, s.variables, state, x)
            for x in (s.test_ind, s.test_ood)
        )
        # Weighted as under `clean`, which this is only if F* saw no OoD image.
        of_all = f"{len(s.val_ind)} in"
        if of_center["fitted_on"] != "nothing":
            of_all += f", {of_center['fitted_on']}"
        rows[f"fssd, F* of {source}, standardised"] = Scored(
            _combined(state.ensemble, ind),
            _combined(state.ensemble, ood),
            **of_center | {"fitted_on": of_all},
            data="F*",
        )
        for k, layer in enumerate(state.singularity.center):
            rows[f"fssd, F* of {source}, {layer}"] = Scored(
                ind[:, k], ood[:, k], **of_center, data="F*"
            )
    return rows


def shuffled_pixels(train: np.ndarray, count: int, key) -> np.ndarray:
    """Noise with the training data's own distribution of pixel values, [count, ...].

    Images drawn from the training set, the pixels of each in an order of its own.
    """
    chosen = jax.random.choice(key, len(train), (count,))
    images = as_float(train[np.asarray(chosen)])
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    flat = images.reshape(count, -1, images.shape[-1])
    order = rng.permuted(np.tile(np.arange(flat.shape[1]), (count, 1)), axis=1)
    return np.take_along_axis(flat, order[..., None], axis=1).reshape(images.shape)


def scaled_noise(noise, key) -> np.ndarray:
    """U[0, 1] noise, each image multiplied by a number of its own from U[0, 1]."""
    per_image = (len(noise), *(1,) * (noise.ndim - 1))
    return np.asarray(noise * jax.random.uniform(key, per_image))


def displacement_layers(s: Setting) -> Rows:
    """Displacement of each layer alone: no labels."""
    rows = {}
    for kind in ("displacement", "relative displacement"):
        start = s.initial, jnp.asarray(kind.startswith("relative"))
        ind, ood = (
            map_batches(displacements, s.feature_fn, s.variables, start, x)
            for x in (s.test_ind, s.test_ood)
        )
        for k, name in enumerate(s.feature_fn(s.variables, as_float(s.val_ind[:1]))):
            rows[f"{kind}, {name}"] = Scored(
                ind[:, k], ood[:, k], passes="2", data="initial weights"
            )
    return rows


def ensembles(s: Setting) -> Rows:
    """Layers of several networks together: `clean`, and by labels where allowed."""
    plain = {f"seed {s.seed}": (s.feature_fn, s.variables)}
    others, seeds = {}, range(s.seed + 1, s.seed + NETWORKS)
    for seed in seeds:
        trained = networks.plain(s.benchmark, s.schedule, seed)
        others[f"seed {seed}"] = (s.feature_fn, trained.variables)
    perceptron = networks.other_architecture(s.benchmark, s.schedule, s.seed)
    mlp = make_feature_fn(networks.perceptron(s.benchmark))
    # The last snapshot is the network itself.
    snapshots = {
        f"epoch {epoch}": (s.feature_fn, variables)
        for epoch, variables in list(s.snapshots.items())[:-1]
    }
    groups = {
        f"{NETWORKS} networks": plain | others,
        "perceptron": {"perceptron": (mlp, perceptron.variables)},
        "LeNet and perceptron": plain | {"perceptron": (mlp, perceptron.variables)},
        "snapshots": snapshots | plain,
    }
    costs = {
        f"{NETWORKS} networks": f"{NETWORKS - 1} networks",
        "LeNet and perceptron": "1 perceptron",
    }
    own = s.schedule.of_seed(s.seed)
    epochs = {
        f"{NETWORKS} networks": [own, *map(s.schedule.of_seed, seeds)],
        "perceptron": [own],
        "LeNet and perceptron": [own, own],
        "snapshots": list(s.snapshots),
    }
    rows = {}
    for name, group in groups.items():
        feature_fn = join({network: pair[0] for network, pair in group.items()})
        variables = {network: pair[1] for network, pair in group.items()}
        state = fssd.fit(feature_fn, variables, s.noise, s.val_ind)
        d = [
            _distances(feature_fn, variables, state, x)
            for x in (s.test_ind, s.test_ood, s.val_ind, s.val_ood)
        ]
        weights = {"clean": (state.ensemble, s.under_clean().labels)}
        if not s.clean:
            fitted = fit_ensemble(d[2], d[3], list(state.singularity.center))
            weights["labels"] = fitted, s.labels
        for how, (ensemble, labels) in weights.items():
            rows[f"fssd, {name}, {how}"] = Scored(
                _combined(ensemble, d[0]),
                _combined(ensemble, d[1]),
                **labels,
                note="epochs " + ", ".join(map(str, epochs[name])),
                training=costs.get(name, "none"),
                passes=str(len(group)),
                data=f"{len(group)} F*",
            )
    return rows


def _distances(feature_fn: FeatureFn, variables: Variables, state: fssd.State, x):
    apply = partial(map_batches, distances, feature_fn, variables, state.singularity)
    return apply(x)


def _combined(ensemble: Ensemble, d: np.ndarray) -> np.ndarray:
    return np.asarray(combine(ensemble, jnp.asarray(d)))


VARIANTS: dict[str, Method] = {
    "no_step": no_step,
    "singularities": singularities,
    "displacement_layers": displacement_layers,
    "ensembles": ensembles,
}
