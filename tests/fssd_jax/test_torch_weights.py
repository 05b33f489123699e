"""Weights of PyTorch networks, against what these networks compute."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from fssd_jax import InputError, make_feature_fn, torch_weights
from fssd_jax.models.resnet import CIFAR10
from tests.fssd_jax.references import (
    NETWORKS,
    error,
    images,
    narrow,
    normalisation,
    save_weights,
    weights,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_feature_is_the_same(name, reference, tmp_path):
    expected = reference(name)
    path = tmp_path / "weights.safetensors"
    save_file(weights(expected["entries"]), path)
    model, variables = torch_weights.load(path, name, **normalisation(name))
    layers = [*model.feature_layers]
    layers += [] if name == "lenet" else ["logits"]
    assert f"layer{len(layers)}" not in expected
    found = jax.jit(make_feature_fn(model, layers))(variables, images(name))
    for i, layer in enumerate(layers):
        ours = np.asarray(found[layer])
        assert ours.shape == tuple(expected[f"shape{i}"])
        assert error(ours, expected[f"layer{i}"]) < 1e-4, layer
        # Noise between the images, not between the networks.
        assert np.linalg.norm(ours[0] - ours[1]) > 1e-2 * np.linalg.norm(ours), layer


def test_a_narrow_lenet_is_a_wide_one_whose_other_channels_are_zero(tmp_path):
    width, of = 8, normalisation("lenet")
    cut = {"conv1.bias": 1, "conv2.bias": 2, "fc1.bias": 4}

    def silent(state):
        for name, times in cut.items():
            state[name][times * width :] = 0
            state[name.replace("bias", "weight")][times * width :] = 0
        return state

    whole = save_weights(tmp_path / "whole.safetensors", "lenet", silent)
    small = save_weights(tmp_path / "small.safetensors", "lenet", narrow)
    x = images("lenet")
    wide, expected = (torch_weights.load(p, "lenet", **of) for p in (whole, small))
    assert (wide[0].width, expected[0].width) == (32, width)
    a, b = (make_feature_fn(model)(v, x) for model, v in (wide, expected))
    for layer in wide[0].feature_layers:
        few = np.asarray(b[layer])
        of_wide = np.asarray(a[layer])[..., : few.shape[-1]]
        np.testing.assert_allclose(of_wide, few, rtol=1e-4, atol=1e-5)
        assert few.std() > 0.01


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("cifar_resnet18", 11_173_962),
        ("cifar_resnet34", 21_282_122),
        ("cifar_resnet50", 23_520_842),
        ("resnet34", 21_797_672),
        ("resnext50", 25_028_904),
        ("cifar_resnet20", 269_722),  # "0.27M"
    ],
)
def test_parameter_counts_are_the_published_ones(name, published, reference):
    assert parameters(name) == published
    assert reference(name)["parameters"] == published


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("cifar_resnet56", 853_018),  # "0.85M"
        ("wrn40_2", 2_243_546),  # "2.2M"
        ("resnet18", 11_689_512),  # and the rest: of torchvision, "num_params"
        ("resnet50", 25_557_032),
        ("wide_resnet50_2", 68_883_240),
        ("resnext50_32x4d", 25_028_904),
        pytest.param("resnet101", 44_549_160, marks=pytest.mark.slow),
        pytest.param("resnet152", 60_192_808, marks=pytest.mark.slow),
        pytest.param("wide_resnet101_2", 126_886_696, marks=pytest.mark.slow),
        pytest.param("resnext101_32x8d", 88_791_336, marks=pytest.mark.slow),
        pytest.param("resnext101_64x4d", 83_455_272, marks=pytest.mark.slow),
        pytest.param("wrn28_10", 36_479_194, marks=pytest.mark.slow),  # "36.5M"
    ],
)
def test_parameter_counts_of_what_has_the_same_parts(name, published):
    assert parameters(name) == published


def parameters(name):
    format = torch_weights.FORMATS[name]
    x = jax.ShapeDtypeStruct((1, format.side, format.side, 3), np.float32)
    params = jax.eval_shape(format.build().init, jax.random.key(0), x)["params"]
    return sum(a.size for a in jax.tree.leaves(params))


def small(tmp_path, ending=".safetensors", change=lambda state: state):
    return save_weights(tmp_path / f"weights{ending}", "cifar_resnet18", change)


def load(path, name="cifar_resnet18", **options):
    return torch_weights.load(path, name, **CIFAR10, **options)


def test_half_precision_is_read(tmp_path):
    def halved(state):  # as a float16 file would be
        return {name: a.astype(np.float16) for name, a in state.items()}

    plain, half = (
        load(save_weights(tmp_path / "a", "cifar_resnet", change), "cifar_resnet")[1]
        for change in (dict, halved)
    )
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(half), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    assert all(a.dtype == np.float32 for a in jax.tree.leaves(half))


# ---- where a network stands in a file ------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "weights"
    return load(save_weights(path, "cifar_resnet"), "cifar_resnet")[1]


@pytest.fixture
def loaded(tmp_path, plain):
    """Of a change of the state dict: whether the network is the same; or a multiple."""

    def loaded(change, times=1, **options):
        path = save_weights(tmp_path / "weights", "cifar_resnet", change)
        _, found = load(path, "cifar_resnet", **options)
        same = jax.tree.map(lambda a, b: np.array_equal(times * a, b), plain, found)
        return all(jax.tree.leaves(same))

    return loaded


def behind(prefix, state, times=1):
    return {f"{prefix}{name}": np.asarray(times * a) for name, a in state.items()}


WRAPPED = [
    *("module.", "_orig_mod.module.", "module._orig_mod.", "model._orig_mod."),
    *("state_dict.model.module.", "net.backbone.", "a.b.c.d.", "0.", "state_dict.0."),
]


@pytest.mark.parametrize("prefix", WRAPPED)
def test_wrappers_and_containers_in_any_order(loaded, prefix):
    assert loaded(lambda state: behind(prefix, state))


def test_wrappers_between_parts(loaded):
    """Of a network whose stages are compiled, or checkpointed, each for itself."""

    def change(state):
        new = {n.replace("layer3.", "layer3._orig_mod."): a for n, a in state.items()}
        new = {n.replace("layer2.1.", "layer2.1.module."): a for n, a in new.items()}
        return behind("model.", new)

    assert loaded(change)
    assert loaded(lambda s: {n.replace("layer1.", "layer1.module."): a
                             for n, a in s.items()})  # fmt: skip


def test_other_names_of_the_same_parts(loaded):
    def names(**new):
        def change(state):
            parts = {n: [new.get(p, p) for p in n.split(".")] for n in state}
            return {".".join(parts[n]): a for n, a in state.items()}

        return change

    for change in (
        names(downsample="shortcut", fc="linear"),  # pytorch-cifar
        names(downsample="shortcut"),  # OpenOOD
        names(fc="linear"),
    ):
        assert loaded(change)
    # Both names in one file: one is surplus, as the file has it.
    both = lambda s: s | {"linear.weight": s["fc.weight"]}  # noqa: E731
    with pytest.raises(InputError, match=r"surplus \(1\): fc\.weight$"):
        loaded(both)


BESIDE = {
    "criterion.weight": (7,),
    "state_dict.criterion.weight": (7, 32),
    "optimizer.state.0.exp_avg": (7, 32),
    "best_acc": (),
    "scaler.scale": (1,),
    "epoch_losses": (10,),
    "model_ema_decay": (1,),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_is_of_another_module_is_passed_over_and_told(loaded, name):
    def change(state):
        new = {name: np.ones(BESIDE[name], np.float32)}
        return behind("state_dict.model.", state) | new

    told = name if name.startswith("state_dict") else name.split(".")[0]
    told = told.removesuffix(".weight")
    with pytest.warns(UserWarning, match=rf"below 'state_dict\.model'.*{told} \(1 arr"):
        assert loaded(change)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("fc.weight", (3, 32)),  # OpenOOD's network with a branch for confidence
        ("confidence.weight", (1, 32)),
        ("classifier.0.weight", (4, 7)),  # of the logits
        ("layer4.0.conv1.weight", (64, 32, 3, 3)),
    ],
)
def test_what_may_go_on_from_a_network_is_no_other_module(loaded, name, shape):
    def change(state):
        return behind("backbone.", state) | {name: np.ones(shape, np.float32)}

    with pytest.raises(InputError, match=rf"beside it stands {name}.*part='backbone'"):
        loaded(change)
    assert loaded(change, part="backbone")  # the advice


def test_a_surplus_entry_of_the_network_is_an_error(loaded):
    for prefix in ("", "module.", "state_dict."):
        with pytest.raises(InputError, match=r"surplus \(1\): criterion\.weight$"):
            loaded(
                lambda s, prefix=prefix: behind(
                    prefix, s | {"criterion.weight": np.ones(7, np.float32)}
                )
            )


@pytest.mark.parametrize(
    ("network", "average"),
    [
        ("state_dict.", "state_dict_ema."),
        ("model.", "model_ema.module."),
        ("online_model.", "ema_model."),
        ("state_dict.module.", "ema_state_dict.module."),
        ("net.", "swa_net.module."),
    ],
)
def test_averaged_weights_are_taken_if_asked_for_or_alone(loaded, network, average):
    alone = lambda state: behind(average, state, 2)  # noqa: E731
    both = lambda state: alone(state) | behind(network, state)  # noqa: E731
    assert loaded(alone, times=2)
    key = average.split(".")[0]
    words = rf"passed over: {key} \(\d+ arrays\); part='{average[:-1]}' would take"
    with pytest.warns(UserWarning, match=words):
        assert loaded(both)
    assert loaded(both, times=2, part=key)
    assert loaded(both, times=2, part=average[:-1])
    assert loaded(both, part=network[:-1])


def test_of_several_networks_one_must_be_chosen(loaded):
    def change(state):
        return behind("student.module.", state) | behind("teacher.", state, 2)

    with pytest.raises(InputError, match=r"2 networks, 'student\.module', 'teacher'"):
        loaded(change)
    assert loaded(change, times=2, part="teacher")
    assert loaded(change, part="student.module")
    with pytest.raises(InputError, match=r"no part 'techer', but \['student \(\d+ arr"):
        loaded(change, part="techer")


def test_a_network_within_a_network_is_surplus(loaded):
    for prefix in ("", "model."):

        def change(state, prefix=prefix):
            return behind(prefix, state) | behind(f"{prefix}inner.", state, 2)

        with pytest.raises(InputError, match=r"surplus \(\d+\): inner\.bn1\.bias"):
            loaded(change)
        assert loaded(change, times=2, part=f"{prefix}inner")


# ---- what is wrong -------------------------------------------------------------------


def test_what_does_not_fit_is_listed(tmp_path):
    def changed(state):
        del state["layer3.1.bn2.running_var"]
        state["extra.weight"] = np.zeros(3, np.float32)
        state["layer1.0.conv2.weight"] = np.zeros((8, 8, 1, 1), np.float32)
        return state

    with pytest.raises(InputError) as caught:
        load(small(tmp_path, change=changed))
    message = str(caught.value)
    assert "missing (1): layer3.1.bn2.running_var" in message
    assert "surplus (1): extra.weight" in message
    assert "layer1.0.conv2.weight (8, 8, 1, 1), expected (8, 8, 3, 3)" in message
    # Another network's weights: the error knows whose.
    with pytest.raises(InputError, match=r"those of cifar_resnet18\n.* and 1"):
        load(small(tmp_path), "cifar_resnet50")
    with pytest.raises(InputError, match="divided by 255"):
        torch_weights.load(
            *(small(tmp_path), "cifar_resnet18"), mean=(125.3,) * 3, std=(63.0,) * 3
        )
    with pytest.raises(InputError, match=r"conv1.weight \(8, 3, 3, 3\), expected"):
        torch_weights.load(small(tmp_path), "cifar_resnet18", mean=(0.5,), std=(0.2,))


def test_what_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "none.pth")
    with pytest.raises(InputError, match=r"choose from .*'cifar_resnet18'"):
        load(tmp_path / "none.pth", "resnet7")
    with pytest.raises(InputError, match=r"no state dict, but \['epoch'\]"):
        load(small(tmp_path, change=lambda state: {"epoch": np.int32([3])}))
    with pytest.raises(InputError, match=r"bn1.weight holds NaN"):
        load(
            small(
                tmp_path, change=lambda s: s | {"bn1.weight": s["bn1.weight"] * np.nan}
            )
        )
