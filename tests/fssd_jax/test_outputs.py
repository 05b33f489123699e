"""Whatever network people bring: what it returns is what it should, or is refused."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fssd_jax import InputError, map_batches
from fssd_jax.detectors import fssd, knn, mahalanobis, msp, odin
from tests.fssd_jax.test_inputs import FLOATS, Y, features


def test_what_a_network_raises_says_what_it_was_given():
    def embedded(variables, x):
        return OrderedDict(z=jnp.eye(9)[x].sum(1))

    def doubled(variables, x):
        return OrderedDict(z=x.reshape(len(x), -1))

    ids = np.arange(40, dtype=np.uint8).reshape(10, 4) % 9
    with pytest.raises(InputError, match=r"float32\[16, 4\].*give ids as int32"):
        fssd.fit(embedded, {}, ids)
    fssd.fit(embedded, {}, ids.astype(np.int32))
    named = {"pixel_values": FLOATS, "labels": Y}
    with pytest.raises(InputError, match=r"AttributeError .*'labels': .*beside"):
        fssd.fit(doubled, {}, named)
    fssd.fit(doubled, {}, (named["pixel_values"], named["labels"]))
    with pytest.raises(InputError, match=r"TypeError .*f\(variables, inputs\)"):
        map_batches(msp.score, lambda x: x, {}, msp.fit(), FLOATS)


def test_complex_numbers_and_no_layers_are_told_of():
    waves = lambda v, x: OrderedDict(z=jnp.fft.fft(x, axis=1))  # noqa: E731
    with pytest.raises(InputError, match=r"complex64\[32, 3, 2, 1\]; take their abs"):
        fssd.fit(waves, {}, FLOATS)
    with pytest.raises(InputError, match="returns no layers"):
        fssd.fit(lambda v, x: {}, {}, FLOATS)


def transposed(variables, x):
    return OrderedDict(z=features(variables, x)["z"].T)


@pytest.mark.parametrize("count", [6, 8])  # there are six numbers an image
def test_a_first_axis_that_is_not_the_batch_is_found(count):
    x = FLOATS[:count]
    with pytest.raises(
        InputError, match=r"first axis is not the batch|expected one arr"
    ):
        fssd.fit(transposed, 1.0, x, batch_size=count)


@pytest.mark.parametrize("wrong", [lambda v, x: x, lambda v, x: [x], lambda v, x: None])
def test_what_is_no_mapping_of_layers_is_refused(wrong):
    with pytest.raises(InputError, match="mapping of layer name"):
        fssd.fit(wrong, {}, FLOATS)


def test_a_plain_dict_keeps_its_order():
    feature_fn = lambda v, x: {"z": x.reshape(len(x), -1), "a": x.mean((1, 2))}  # noqa: E731
    state = fssd.fit(feature_fn, {}, FLOATS, FLOATS, FLOATS**3, epsilons=(0.01,))
    assert list(state.singularity.center) == ["z", "a"]
    assert np.isfinite(map_batches(fssd.score, feature_fn, {}, state, FLOATS)).all()


def mixed(variables, x):
    """As BatchNorm in training mode."""
    z = x.reshape(len(x), -1)
    return OrderedDict(z=z, normed=(z - z.mean(0, keepdims=True)) / z.std())


def placed(variables, x):
    """As dropout by a fixed key: what is dropped depends on the place in the batch."""
    z = x.reshape(len(x), -1)
    return OrderedDict(
        z=z, dropped=z * jax.random.bernoulli(jax.random.key(0), 0.5, z.shape)
    )


def relative(variables, x):
    """To the first row, which itself has the same feature in any batch."""
    z = x.reshape(len(x), -1)
    return OrderedDict(z=z, less=z - z[:1])


def rolled(variables, x):
    """The first row of a padded batch has its own feature, of the copy behind it."""
    z = x.reshape(len(x), -1)
    return OrderedDict(z=z, next=jnp.roll(z, 1, axis=0))


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        *((mixed, "normed"), (placed, "dropped")),
        *((relative, "less"), (rolled, "next")),
    ],
)
def test_rows_that_depend_on_their_batch_are_found(network, layer):
    told = rf"layer '{layer}' .*depend on what else.*train=False.*eval"
    of = network, {}
    with pytest.raises(InputError, match=told):
        fssd.fit(*of, FLOATS)
    # And by whatever does not look at features.
    with pytest.raises(InputError, match="depends on what else"):
        knn.fit(*of, FLOATS, layer, k=3)
    with pytest.raises(InputError, match="depends on what else"):
        map_batches(
            odin.score, lambda v, x: network(v, x)[layer], {}, odin.fit(), FLOATS
        )
    with pytest.raises(InputError, match=f"layer '{layer}'|depends on what else"):
        mahalanobis.estimate_gaussians(*of, FLOATS, Y, 2)


def test_features_and_logits_that_are_not_finite_are_told_of():
    feature_fn = lambda v, x: OrderedDict(z=jnp.log(x.reshape(len(x), -1) - v))  # noqa: E731
    with pytest.raises(InputError, match=r"layers \['z'\] .*NaN or infinite"):
        fssd.fit(feature_fn, 0.5, FLOATS)
    bright = FLOATS * 0.4 + 0.6
    state = fssd.fit(feature_fn, 0.5, bright)
    one = np.concatenate([bright, FLOATS[:1] * 0])
    with pytest.raises(InputError, match=r"1 of 24 images .*image 23"):
        map_batches(fssd.score, feature_fn, 0.5, state, one)
    overflow = lambda v, x: jnp.exp(1000 * x.reshape(len(x), -1))  # noqa: E731
    with pytest.raises(InputError, match="scores of 23 of 23 images"):
        map_batches(odin.score, overflow, {}, odin.fit(), FLOATS)
