from collections import OrderedDict

import jax
import numpy as np
import pytest

from analysis.centres import centre_distances
from fssd_jax import InputError, estimate_singularity, fssd, map_batches


def test_every_layer_is_as_far_from_every_centre_as_it_is(smooth):
    feature_fn, variables, singularity, x = smooth
    mean = estimate_singularity(feature_fn, variables, x)
    classes = {k: f[:2].mean(0) for k, f in feature_fn(variables, x).items()}
    backwards = {k: classes[k] for k in sorted(classes)[::-1]}
    centres = {"noise": singularity, "a mean": mean, "class": backwards}
    found = centre_distances(feature_fn, variables, centres, x, batch_size=4)
    assert list(found) == list(centres)
    now = feature_fn(variables, x)
    for name, point in {"a mean": mean.center, "class": classes}.items():
        for k, layer in enumerate(now):
            gap = np.asarray(now[layer]) - np.asarray(point[layer])
            expected = np.linalg.norm(gap, axis=1)
            np.testing.assert_allclose(found[name][:, k], expected, rtol=1e-5)
    by_fssd = map_batches(fssd.fssd, feature_fn, variables, singularity, x)
    np.testing.assert_allclose(found["noise"], by_fssd, rtol=1e-6)


def test_one_pass_for_all_centres(smooth):
    """However many there are, a batch is one call of the network."""
    feature_fn, variables, singularity, x = smooth
    seen = []

    def counted(variables, x):
        jax.debug.callback(lambda: seen.append(1))
        return feature_fn(variables, x)

    def passes(centres):
        seen.clear()
        centre_distances(counted, variables, centres, x, batch_size=3)
        jax.effects_barrier()
        return len(seen)

    passes({"a": singularity})  # it is asked whether images depend on each other, once
    assert passes({"a": singularity, "b": singularity, "c": singularity}) == 2


def test_images_as_features_may_be_centred_at_an_image():
    image = np.random.default_rng(0).uniform(size=(3, 2, 2, 1)).astype(np.float32)
    found = centre_distances(
        lambda _, x: OrderedDict(image=x), {}, {"first": {"image": image[0]}}, image
    )
    gap = (image - image[:1]).reshape(3, -1)
    expected = np.linalg.norm(gap, axis=1)[:, None]
    np.testing.assert_allclose(found["first"], expected, rtol=1e-6)


def test_errors_name_the_centre(smooth):
    feature_fn, variables, singularity, x = smooth
    center = {k: np.asarray(c) for k, c in singularity.center.items()}
    fewer = {"noise": singularity, "mine": {"first": center["first"]}}
    with pytest.raises(InputError, match=r"'mine' has layers \['first'\].*'second'"):
        centre_distances(feature_fn, variables, fewer, x)
    other = {"mine": center | {"first": center["logits"]}}
    with pytest.raises(InputError, match="'mine': layer 'first' has 7 numbers"):
        centre_distances(feature_fn, variables, other, x)
    with pytest.raises(InputError, match="there are none"):
        centre_distances(feature_fn, variables, {}, x)
