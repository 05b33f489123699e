"""The last, linear layer of a network: logits = Wᵀ h + b of its penultimate features h.

Methods that change h or W need these weights. `find` looks for them among a network's
variables, whatever the framework, and checks that they give the logits.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fssd_jax import checks
from fssd_jax.checks import InputError
from fssd_jax.data.pipeline import check_finite, scored_batches
from fssd_jax.outputs import (
    FeatureFn,
    Inputs,
    LogitFn,
    Variables,
    features_of,
    logits_of,
    pool,
)
from fssd_jax.shown import brief

LOGITS = "logits"  # the layer of that name
TOLERANCE = 1e-4  # of Σ |W| |h| + |b|: TF32 has 3 digits of a product


class Head(NamedTuple):
    # By the name of the layer that it takes.
    kernel: OrderedDict[str, Float[Array, "dim classes"]]
    bias: Float[Array, " classes"]

    __repr__ = brief


def find(
    feature_fn: FeatureFn,
    logit_fn: LogitFn,
    variables: Variables,
    x: Any,
    *,
    batch_size: int = 64,
    unit_range: bool = True,
) -> Head:
    """The matrix and bias among `variables` that give the logits from a layer.

    Layers are tried from the last to the first, flattened or averaged over space; of
    several matrices and biases the pair that is nearest to the logits is taken.

    Args:
      feature_fn: whose layers may be the penultimate one.
      logit_fn: the same network's logits.
      variables: of both.
      x: a few images, data as of `pipeline.batches`.
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.

    Raises:
      InputError: no such matrix, or none that gives the logits to rounding.
    """
    parts = list(
        scored_batches(
            *(_possible, with_logits(feature_fn, logit_fn), variables, None, x),
            batch_size=batch_size,
            unit_range=unit_range,
        )
    )
    kept = [
        jax.tree.map(lambda a, m=mask: np.asarray(a)[m], of) for of, mask, _ in parts
    ]
    possible = jax.tree.map(lambda *arrays: np.concatenate(arrays), *kept)
    target = np.float64(possible.pop(LOGITS)["flatten"])
    best = _Found(np.inf, "", np.zeros(0), np.zeros(0))
    for name, ways in reversed(possible.items()):
        for h in ways.values():
            for found in _candidates(variables, name, np.float64(h), target):
                best = min(best, found, key=lambda found: found.error)
        if best.error <= TOLERANCE:
            kernel = OrderedDict([(best.layer, jax.device_put(best.kernel))])
            return Head(kernel, jax.device_put(best.bias))
    near = (
        f"; the nearest is off by {best.error:.1g} of its terms" if best.layer else ""
    )
    raise InputError(
        "no linear last layer: no matrix and bias among the variables give the logits "
        f"from any of the layers {list(possible)}{near}; give a feature_fn that has "
        "the layer before the logits, or use a method that needs no weights"
    )


class _Found(NamedTuple):
    error: float  # the largest, as a share of Σ |W| |h| + |b|
    layer: str
    kernel: np.ndarray
    bias: np.ndarray


def _possible(both, variables, _, x) -> OrderedDict[str, dict[str, Array]]:
    """Of each layer what a matrix among the variables could take; and the logits."""
    features = features_of(both, variables, x)
    classes = features[LOGITS].shape[1]
    sizes = {len(kernel) for kernel in _matrices(variables, classes)}
    found = OrderedDict()
    for name, f in features.items():
        ways = {how: pool(OrderedDict(f=f), how)["f"] for how in ("flatten", "mean")}
        if name == LOGITS:
            found[name] = {"flatten": ways["flatten"]}
            continue
        if ways["mean"].shape == ways["flatten"].shape:
            del ways["mean"]
        found[name] = {how: h for how, h in ways.items() if h.shape[1] in sizes}
    return found


def _matrices(variables: Variables, classes: int) -> Iterator[Any]:
    """[dim, classes]: as Flax has them, and as PyTorch and Equinox do, turned."""
    for leaf in jax.tree.leaves(variables):
        if getattr(leaf, "ndim", 0) == 2:
            for kernel in (leaf, leaf.T):
                if kernel.shape[1] == classes:
                    yield kernel


def _candidates(variables, layer: str, h, target) -> Iterator[_Found]:
    classes = target.shape[1]
    vectors = [v for v in jax.tree.leaves(variables) if np.shape(v) == (classes,)]
    biases = [np.asarray(v, np.float32) for v in vectors] + [
        np.zeros(classes, np.float32)
    ]
    for kernel in _matrices(variables, classes):
        if len(kernel) != h.shape[1]:
            continue
        kernel = np.asarray(kernel, np.float32)
        rest = target - h @ kernel
        terms = abs(h) @ abs(kernel)
        for bias in biases:
            scale = terms + abs(bias)
            error = np.max(abs(rest - bias) / np.where(scale == 0, 1, scale))
            yield _Found(float(error), layer, kernel, bias)


def hidden(
    head: Head, features: OrderedDict[str, Float[Array, "batch ..."]]
) -> Float[Array, "batch dim"]:
    """h: the layer flattened if the head takes so many numbers, else averaged.

    Raises:
      InputError: other layers, or of another size.
    """
    ((name, kernel),) = head.kernel.items()
    if name not in features:
        raise InputError(
            f"the last layer takes {name!r}, the features are of {list(features)}; "
            "use the feature_fn that it was found with"
        )
    one = OrderedDict([(name, features[name])])
    for how in ("flatten", "mean"):
        h = pool(one, how)[name]
        if h.shape[1] == len(kernel):
            return h
    raise InputError(
        f"layer {name!r} is {list(features[name].shape)}, and the last layer takes "
        f"{len(kernel)} numbers: images of another size?"
    )


def hidden_of(
    feature_fn: FeatureFn, variables: Variables, head: Head, x: Inputs
) -> Float[Array, "batch dim"]:
    """h of images."""
    return hidden(head, features_of(feature_fn, variables, x))


def hidden_of_training(
    feature_fn: FeatureFn,
    variables: Variables,
    head: Head,
    train: Any,
    *,
    batch_size: int = 64,
    unit_range: bool = True,
) -> Iterator[Float[np.ndarray, "batch dim"]]:
    """h of training images, batch by batch; `train` and the rest as of `batches`.

    Raises:
      InputError: unusable images, or features that are not finite.
    """
    for h, mask, _ in scored_batches(
        *(hidden_of, feature_fn, variables, head, train),
        batch_size=batch_size,
        unit_range=unit_range,
        name="training images",
    ):
        rows = np.asarray(h)[mask]
        check_finite("penultimate features", rows)
        yield rows


def mean_of_training(
    feature_fn: FeatureFn,
    variables: Variables,
    head: Head,
    train: Any,
    *,
    batch_size: int = 64,
    unit_range: bool = True,
) -> Float[np.ndarray, " dim"]:
    """The mean h of training images, in one pass."""
    total, count = np.zeros(()), 0
    for h in hidden_of_training(
        *(feature_fn, variables, head, train),
        batch_size=batch_size,
        unit_range=unit_range,
    ):
        total, count = total + h.sum(0, dtype=np.float64), count + len(h)
    return total / count


def count_kept(head: Head, percentile: float) -> int:
    """How many numbers of h are above that percentile: one at least."""
    (kernel,) = head.kernel.values()
    share = checks.share_of_hundred("percentile", percentile)
    return max(1, len(kernel) - round(len(kernel) * share))


def logits(head: Head, h: Float[Array, "batch dim"]) -> Float[Array, "batch classes"]:
    """Wᵀ h + b."""
    (kernel,) = head.kernel.values()
    return jnp.matmul(h, kernel, precision="highest") + head.bias[None]


def energy(head: Head, h: Float[Array, "batch dim"]) -> Float[Array, " batch"]:
    """log Σ_y exp(Wᵀ h + b)_y."""
    return jax.nn.logsumexp(logits(head, h), axis=-1)


def with_logits(feature_fn: FeatureFn, logit_fn: LogitFn) -> FeatureFn:
    """The same layers, and the logits as the layer "logits"; if jitted, by one pass.

    Reuse what it returns: what is compiled is found again by its identity.
    """

    def both(variables: Variables, x: Any) -> OrderedDict[str, Array]:
        features = OrderedDict(features_of(feature_fn, variables, x))
        features.pop(LOGITS, None)
        features[LOGITS] = logits_of(logit_fn, variables, x)
        return features

    of_features = getattr(feature_fn, "of_features", False)
    both.of_features = of_features  # pyright: ignore[reportFunctionMemberAccess]
    return both


def layer_and_logits(
    feature_fn: FeatureFn, variables: Variables, layer: str, x: Inputs
) -> tuple[Float[Array, "batch dim"], Float[Array, "batch classes"]]:
    """A layer averaged over space, and the layer "logits".

    Raises:
      InputError: one of the two is missing.
    """
    features = features_of(feature_fn, variables, x)
    missing = [name for name in (layer, LOGITS) if name not in features]
    if missing:
        raise InputError(
            f"unknown layer {', '.join(map(repr, missing))}; the feature_fn has "
            f"{list(features)}: choose one of them, and beside it {LOGITS!r}, as "
            "head.with_logits(feature_fn, logit_fn) has it"
        )
    two = pool(OrderedDict((k, features[k]) for k in (layer, LOGITS)), "mean")
    return two[layer], two[LOGITS]
