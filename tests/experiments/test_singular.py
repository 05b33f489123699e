"""FSSD without labels: `clean`, the library's default, and photographs beside both."""

from collections import OrderedDict

import numpy as np
import pytest

from experiments.comparison import singular
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.setting import Setting
from fssd_jax.data.inputs import as_input
from fssd_jax.data.sources import load
from fssd_jax.metrics import auroc
from tests.experiments.test_variants import asked

# In neighbours' differences noise lies farther than smooth images, in pixels nearer.
LAYERS = {
    "halves": lambda x: x[:, ::2],
    "differences": lambda x: x[:, 1:] - x[:, :-1],
    "pixels": lambda x: x,
}


def setting_of(layers, channels=1):
    rng = np.random.default_rng(0)
    digits = np.repeat(as_input(load("digits", "test").x), channels, axis=-1)
    return Setting(
        feature_fn=lambda variables, x: OrderedDict((k, LAYERS[k](x)) for k in layers),
        logit_fn=lambda variables, x: x.reshape(len(x), -1)[:, :2],
        variables={},
        initial={},
        num_classes=2,
        protocol=PROTOCOLS["clean"],
        noise=rng.uniform(size=(64, 28, 28, channels)).astype(np.float32),
        val_ind=digits[:100],
        val_ood=None,
        test_ind=digits[100:200],
        test_ood=1 - digits[200:260],
        train=None,
        seed=0,
        timed=False,
    )


def by_hand(s, x, sign, of=lambda d: d):
    """Σ_k sign_k (d_k − mean_k) / std_k in float64, of distances or their logs."""
    total = 0
    for layer, weight in sign.items():
        noise, ind, x_ = (
            LAYERS[layer](np.asarray(a, np.float64)).reshape(len(a), -1)
            for a in (s.noise, s.val_ind, x)
        )
        center = noise.mean(0)
        of_ind, d = (of(np.linalg.norm(f - center, axis=1)) for f in (ind, x_))
        total = total + weight * (d - of_ind.mean()) / of_ind.std()
    return total


@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_and_the_default_stand_beside_clean(channels):
    s = setting_of(LAYERS, channels)
    found = asked(singular.ask_without_labels("fssd clean", s), s)
    photographs = singular.photo_patches((28, 28, channels))
    turned = {"halves": 1, "differences": -1, "pixels": 1}
    last_two = {"differences": 1, "pixels": 1}
    for name, *how in (("clean", turned), ("deep", last_two, np.log)):
        row, of_photos = found[f"fssd {name}"], found[f"fssd {name}, photographs"]
        expected = by_hand(s, s.test_ind, *how), by_hand(s, s.test_ood, *how)
        for scores, values in zip((row.ind, row.ood), expected, strict=True):
            np.testing.assert_allclose(scores, values, rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(of_photos.ind, row.ind)
        expected = auroc(expected[0], by_hand(s, photographs, *how))
        assert auroc(of_photos.ind, of_photos.ood) == pytest.approx(expected, abs=1e-4)
        assert of_photos.note == f"{len(photographs)} patches as OoD"
        assert not of_photos.target_ood
    assert len(found) == 4
    assert found["fssd clean"].note == "ε = 0; turned round: differences"
    assert found["fssd deep"].note == "ε = 0; of differences, pixels"


def test_no_photographs_of_images_that_they_do_not_hold():
    s = setting_of(["pixels"], channels=2)
    found = asked(singular.ask_without_labels("fssd", s), s)
    assert list(found) == ["fssd", "fssd deep"]
    assert [row.note for row in found.values()] == ["ε = 0", "ε = 0; of pixels"]
