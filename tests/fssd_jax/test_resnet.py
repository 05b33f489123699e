"""ResNets in training, against PyTorch; what bfloat16 and widths change."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fssd_jax
from fssd_jax import InputError, losses, make_feature_fn, recipes, torch_weights
from fssd_jax.data.augment import crop_and_flip
from fssd_jax.fssd import fssd
from fssd_jax.models import ResNet, cifar_resnet18, face_resnext50, resnext50
from fssd_jax.models.resnet import CIFAR10, CosineHead
from fssd_jax.train import TrainState, train, train_step
from tests.fssd_jax import references

X, Y = references.images("cifar_resnet18", 6), references.LABELS


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small ResNet-18, whose weights PyTorch's has too."""
    path = tmp_path_factory.mktemp("weights") / "r18.safetensors"
    references.save_weights(path, "cifar_resnet18")
    return torch_weights.load(path, "cifar_resnet18", **CIFAR10)


def test_a_training_step_is_pytorchs(network, reference):
    """Gradients by every weight, SGD's step, and the running statistics."""
    model, variables = network
    expected = reference("training")
    recipe = recipes.cifar(350, 1)
    copied = jax.tree.map(jnp.copy, variables)
    state = TrainState(copied, recipe.init(copied["params"]))
    totals = jnp.zeros(2)
    step = jax.jit(partial(train_step, model.apply, recipe.update))
    for _ in range(2):
        state, totals = step(state, totals, X, Y, jax.random.key(0))
    assert float(totals[0]) == pytest.approx(expected["losses"], rel=1e-4)
    moves = jax.tree.map(jnp.subtract, state.variables, variables)
    moves = jax.tree_util.tree_leaves_with_path(moves)
    assert len(moves) == len(expected) - 2
    for key, moved in moves:
        name = jax.tree_util.keystr(key)
        if key[-1].key == "var":
            assert name in expected
            continue
        # Relative to how far it moved: an unchanged weight would not pass.
        assert references.error(moved, expected[name]) < 2e-3, name
    # PyTorch's running variance is that of a sample, n/(n − 1) times Flax's.
    name = "['batch_stats']['stem']['conv1']['norm']['var']"
    start, found = (
        v["batch_stats"]["stem"]["conv1"]["norm"]["var"]
        for v in (variables, state.variables)
    )
    n = X[..., 0].size
    theirs = expected[name] + (1 - 0.81) * start
    np.testing.assert_allclose(found - 0.81 * start, theirs * (n - 1) / n, rtol=1e-3)


def test_the_gradient_by_the_image_is_pytorchs(network, reference):
    """That of the input step, with statistics as they are: ∇ₓ of the fourth stage."""
    model, variables = network
    # In float64: rounding in float32 puts some ReLU on another side.
    with jax.enable_x64(True):
        feature_fn = make_feature_fn(model.clone(dtype=jnp.float64), ["stage4"])
        squares = lambda x: jnp.square(feature_fn(variables, x)["stage4"]).sum()  # noqa: E731
        found = jax.jit(jax.grad(squares))(X.astype(np.float64))
    assert references.error(found, reference("training")["gradient"]) < 1e-4


def test_scores_do_not_depend_on_batch_mates(network):
    model, variables = network
    feature_fn = make_feature_fn(model)
    star = fssd_jax.estimate_singularity(feature_fn, variables, X[:4] ** 2)
    whole = jax.jit(lambda x: fssd(feature_fn, variables, star, x, 0.01))(X)
    alone = jax.jit(lambda x: fssd(feature_fn, variables, star, x, 0.01))(X[:1])
    assert whole.shape == (6, 5)
    np.testing.assert_allclose(whole[:1], alone, rtol=1e-3)


def test_bfloat16_is_near_and_its_distances_are_float32(network):
    model, variables = network
    low = model.clone(dtype=jnp.bfloat16)
    features = make_feature_fn(low, [*low.feature_layers, "logits"])(variables, X)
    exact = make_feature_fn(model, [*low.feature_layers, "logits"])(variables, X)
    assert features["stage4"].dtype == jnp.bfloat16
    assert features["logits"].dtype == jnp.float32
    for layer, f in features.items():
        error = np.linalg.norm(np.float32(f) - exact[layer])
        assert error < 0.05 * np.linalg.norm(exact[layer]), layer
    star = fssd_jax.estimate_singularity(
        make_feature_fn(low, ["stem"]), variables, X[:4]
    )
    assert star.center["stem"].dtype == jnp.float32
    # The mean of four has two digits more than bfloat16, and they are kept.
    mean = star.center["stem"]
    assert (mean != mean.astype(jnp.bfloat16).astype(jnp.float32)).mean() > 0.2
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(
        jax.eval_shape(low.init, jax.random.key(0), X)))  # fmt: skip


def test_training_learns_and_carries_statistics():
    """Bright left halves against bright right ones, in a ResNet of 4 channels."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 0.3, (64, 16, 16, 3)).astype(np.float32)
    y = rng.integers(0, 2, 64).astype(np.int32)
    for image, side in zip(x, y, strict=True):
        image[:, 8 * side : 8 * side + 8] += 0.5
    model = ResNet((1, 1, 1, 1), stem="cifar", num_classes=2, width=4)
    trained = train(
        *(model, x, y),
        num_classes=2,
        seed=0,
        epochs=6,
        batch_size=16,
        recipe=lambda epochs, steps: optax.sgd(0.1, momentum=0.9),
        progress=False,
    )
    before, after = (
        v["batch_stats"]["stage1"]["block1"]["conv1"]["norm"]["mean"]
        for v in (trained.initial, trained.variables)
    )
    assert np.abs(after - before).min() > 0
    # By the running statistics, not by those of the batch.
    logit_fn = fssd_jax.make_logit_fn(model)
    found = fssd_jax.train.accuracy(logit_fn, trained.variables, x[:40], y[:40])
    assert found > 0.9


@pytest.mark.parametrize("bottleneck", [False, True])
def test_dropout_is_of_whole_channels_before_the_last_convolution(bottleneck):
    """Each is gone, or 1 / (1 − rate) of what it was; without training none is."""
    rate, last = 0.25, "conv2" if bottleneck else "conv1"
    fields = {"stage_sizes": (1, 1, 1), "bottleneck": bottleneck, "num_classes": 3}
    model = ResNet(**fields, stem="cifar", width=8, dropout=rate)
    variables = jax.jit(model.init)(jax.random.key(0), X)
    layers = [f"stage2/block1/{name}" for name in (last, "dropout")]
    whole = make_feature_fn(model, layers)(variables, X)
    np.testing.assert_array_equal(whole[layers[1]], nn.relu(whole[layers[0]]))
    _, found = model.apply(
        variables,
        X,
        train=True,
        rngs={"dropout": jax.random.key(1)},
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=True,
    )
    block = found["intermediates"]["stage2"]["block1"]
    before, after = (block[n]["__call__"][0] for n in (last, "dropout"))
    kept = np.asarray((after != 0).any((1, 2)))
    assert 0 < kept.sum() < kept.size
    expected = nn.relu(before) * kept[:, None, None] / (1 - rate)
    np.testing.assert_allclose(after, expected, rtol=1e-6)
    plain = model.clone(dropout=0.0)
    assert not any("dropout" in n for n in fssd_jax.layer_names(plain, variables, X))
    shapes = jax.eval_shape(plain.init, jax.random.key(0), X)
    assert jax.tree.structure(shapes) == jax.tree.structure(variables)


def test_faces():
    """The head, behind a shorter trunk than that which PyTorch's is compared with."""
    model = face_resnext50(num_classes=5, width=16).clone(stage_sizes=(1, 1, 1, 1))
    x = X[:2]
    variables = jax.jit(model.init)(jax.random.key(0), x)
    assert list(variables["params"]["logits"]) == ["kernel"]
    feature_fn = jax.jit(make_feature_fn(model, ["embedding", "logits"]))
    layer, logits = map(np.asarray, feature_fn(variables, x).values())
    assert (np.abs(logits) <= 64).all()  # s · cos θ
    kernel = variables["params"]["logits"]["kernel"]
    cosine = layer @ kernel / np.linalg.norm(layer, axis=1)[:, None]
    by_hand = 64 * cosine / np.linalg.norm(kernel, axis=0)[None]
    np.testing.assert_allclose(logits, by_hand, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("length", [0.0, 1e-12, 1e-3, 1.0])
def test_the_gradient_of_the_cosine_head(length):
    """(k/‖k‖ − cos θ · x/‖x‖) · s/‖x‖ in float64; 0 at 0, where there is no angle."""
    rng = np.random.default_rng(0)
    kernel, x = rng.normal(size=(4, 3)), rng.normal(size=4)
    x *= length / np.linalg.norm(x)

    def loss(x):
        variables = {"params": {"kernel": jnp.asarray(kernel, jnp.float32)}}
        return CosineHead(3).apply(variables, x[None]).sum()

    found = jax.grad(loss)(jnp.asarray(x, jnp.float32))
    expected = np.zeros(4)
    if length:
        units, unit = kernel / np.linalg.norm(kernel, axis=0), x / length
        expected = (64 / length * (units - np.outer(unit, unit @ units))).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_cosface_loss():
    """−log e^{s(cos θ_y − m)} / (e^{s(cos θ_y − m)} + Σ_{c≠y} e^{s cos θ_c})."""
    cosine = np.random.default_rng(0).uniform(-1, 1, (4, 3))
    y, s, m = jnp.array([0, 2, 1, 1]), 64, 0.35
    own = np.exp(s * (cosine[range(4), y] - m))
    rest = np.exp(s * cosine).sum(1) - np.exp(s * cosine[range(4), y])
    found = losses.cosface(jnp.float32(s * cosine), y)
    assert float(found) == pytest.approx(-np.log(own / (own + rest)).mean(), rel=1e-4)
    plain = losses.cosface(jnp.float32(s * cosine), y, margin=0.0)
    assert float(plain) == pytest.approx(
        float(losses.cross_entropy(jnp.float32(s * cosine), y))
    )


def test_wrong_images_are_refused():
    model = cifar_resnet18(width=8)
    with pytest.raises(InputError, match=r"\[batch, height, width, 3\], got shape"):
        jax.eval_shape(model.init, jax.random.key(0), X[..., :1])
    with pytest.raises(InputError, match="given for 1 and 3 channels"):
        jax.eval_shape(model.clone(mean=(0.5,)).init, jax.random.key(0), X)


def test_layers_have_the_sizes_of_the_conventions():
    """Of 32×32: 65,536, 65,536, 32,768, 16,384 and 8,192 numbers."""
    model = cifar_resnet18()
    variables = jax.eval_shape(model.init, jax.random.key(0), X)
    shapes = jax.eval_shape(make_feature_fn(model), variables, X)
    sizes = [np.prod(f.shape[1:]) for f in shapes.values()]
    assert sizes == [65_536, 65_536, 32_768, 16_384, 8_192]
    model, x = resnext50(), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    shapes = jax.eval_shape(make_feature_fn(model), variables, x)
    assert [f.shape[1:] for f in shapes.values()] == [
        *((56, 56, 64), (56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 2048))
    ]


def test_crop_and_flip():
    x = np.arange(1, 1 + 400 * 5 * 4, dtype=np.float32).reshape(400, 5, 4, 1)
    found = np.asarray(
        jax.jit(crop_and_flip, static_argnums=2)(jax.random.key(0), x, 1)
    )
    assert found.shape == x.shape
    seen = set()
    for image, new in zip(x, found, strict=True):
        wide = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        matches = [
            (top, left, flip)
            for top in range(3)
            for left in range(3)
            for flip in (1, -1)
            if (wide[top : top + 5, left : left + 4][:, ::flip] == new).all()
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 18  # all shifts, both ways
