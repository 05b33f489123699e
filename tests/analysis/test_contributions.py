import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis import ntk
from analysis.contributions import Contributions, contributions
from analysis.dynamics import make_loss_fn, velocity
from analysis.gradients import descent
from analysis.kernel_regression import PathForm
from analysis.ntk_networks import ConvNet
from fssd_jax import InputError, make_feature_fn, recipes
from fssd_jax.train import train
from tests.analysis.following import PROBE, X, Y, by_hand, momentum, run, start
from tests.conftest import Smooth

RATE = 0.3
LOSS = make_loss_fn(Smooth())


def test_they_are_those_of_the_explicit_kernel(smooth):
    """−(η/B) vᵀ Θ(x, x_m) ∂_mℓ, with the network above the layer written by hand."""
    feature_fn, variables, _, x = smooth
    y = jnp.array([0, 1, 2, 0])
    v = jax.random.normal(jax.random.key(0), (2, 5))
    found = contributions(
        feature_fn, LOSS, variables, "second", x[:2], v, x[2:], y, RATE
    )

    def from_layer(f, y):
        head = variables["params"]["logits"]
        return -jax.nn.log_softmax(f @ head["kernel"] + head["bias"])[y]

    slope = jax.vmap(jax.grad(from_layer))(feature_fn(variables, x)["second"][2:], y)
    kernel = ntk.tangent_kernel(
        feature_fn, variables, "second", x[:2], x[2:], axes="full", direct=True
    )
    expected = -RATE / 4 * np.einsum("id,ijde,je->ij", v, kernel, slope)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layer", ["conv2", "logits"])
def test_they_add_up_to_the_movement(layer):
    model = ConvNet(2, 3)
    x = jax.random.uniform(jax.random.key(0), (5, 8, 8, 1))
    variables = model.init(jax.random.key(1), x)
    feature_fn, y = make_feature_fn(model, [layer]), np.array([0, 1, 2])
    direction = descent(make_loss_fn(model), variables, x[2:], y)
    moved = RATE * velocity(feature_fn, variables, direction, x[:2])[layer]
    v = jax.random.normal(jax.random.key(3), moved.shape)
    found = contributions(
        feature_fn, make_loss_fn(model), variables, layer, x[:2], v, x[2:], y, RATE
    )
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found.sum(1), (moved * v).sum(1), rtol=1e-5)


@pytest.mark.parametrize("layer", ["first", "logits"])
def test_over_a_run_they_add_up_to_the_path_form(layer):
    """To 1e-5, over three epochs in batches; two training images are equal."""
    feature_fn = make_feature_fn(Smooth())
    path = PathForm(feature_fn, PROBE)
    images = np.concatenate([X[:-1], X[:1]])

    def follow(on_step):
        return train(
            Smooth(), images, Y, num_classes=3, seed=0, epochs=3, batch_size=11,
            recipe=recipes.sgd(RATE), initial=start(Smooth()),
            on_step=on_step, progress=False,
        )  # fmt: skip

    follow(path)
    whole = path.value()[layer]
    v = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    of_images = Contributions(feature_fn, LOSS, layer, PROBE, v, images, RATE)
    last = follow(of_images).variables
    found = of_images.value()
    assert found.shape == (len(PROBE), len(X))
    np.testing.assert_allclose(found.sum(1), (whole * v).sum(1), rtol=1e-5)
    along = (by_hand(feature_fn, start(Smooth()), last)[layer] * v).sum(1)
    gap = np.linalg.norm(found.sum(1) - along) / np.linalg.norm(along)
    assert gap > 0.01
    np.testing.assert_allclose(of_images.error(), gap, rtol=1e-3)
    assert np.all(found[:, 0] == 0)  # its equal, the last one, has it all
    assert np.all(found[:, 1:] != 0)


def test_an_image_from_elsewhere_is_an_error():
    feature_fn = make_feature_fn(Smooth())
    v = np.ones((len(PROBE), 3), np.float32)
    form = Contributions(feature_fn, LOSS, "logits", PROBE, v, X[:5], RATE)
    with pytest.raises(InputError, match="not among the training images"):
        run(Smooth(), recipes.sgd(RATE), form)


def test_an_unknown_layer_is_an_error_that_lists_the_layers():
    feature_fn, variables = make_feature_fn(Smooth()), start(Smooth())
    v = np.ones((len(PROBE), 3), np.float32)
    form = Contributions(feature_fn, LOSS, "fc1", PROBE, v, X, 0.0)
    with pytest.raises(InputError, match=r"'fc1'.*\['first', 'second', 'logits'\]"):
        form(0, variables, variables, X, Y)
    form = Contributions(feature_fn, LOSS, "first", PROBE, v, X, 0.0)
    with pytest.raises(InputError, match=r"directions.*\(9, 7\), got \(9, 3\)"):
        form(0, variables, variables, X, Y)


def test_other_optimisers_are_an_error():
    feature_fn = make_feature_fn(Smooth())
    v = np.ones((len(PROBE), 3), np.float32)
    form = Contributions(feature_fn, LOSS, "logits", PROBE, v, X, RATE)
    with pytest.raises(InputError, match="plain SGD"):
        run(Smooth(), momentum, form)
    with pytest.raises(InputError, match="resumed"):
        form(7, start(Smooth()), start(Smooth()), X, Y)


def test_integer_images_are_scaled_as_everywhere():
    feature_fn, variables = make_feature_fn(Smooth()), start(Smooth())
    v = np.ones((len(PROBE), 3), np.float32)
    whole = (255 * X).astype(np.uint8)
    values = []
    for images in (whole, whole / np.float32(255)):
        form = Contributions(feature_fn, LOSS, "logits", PROBE, v, images, 0.0)
        form(0, variables, variables, images, Y)
        form = Contributions(feature_fn, LOSS, "logits", PROBE, v, images, RATE)
        direction = descent(LOSS, variables, images, Y)["params"]
        after = jax.tree.map(lambda p, d: p + RATE * d, variables["params"], direction)
        form(0, variables, {"params": after}, images, Y)
        values.append(form.value())
    np.testing.assert_allclose(*values, rtol=1e-5)
