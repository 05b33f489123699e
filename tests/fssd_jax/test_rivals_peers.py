"""Today's rivals against pytorch-ood, which scores OoD higher, on the same features."""

import numpy as np
import pytest

from fssd_jax import head, map_batches
from fssd_jax.detectors import (
    ash,
    dice,
    fdbd,
    gen,
    gram,
    kl_matching,
    nnguide,
    react,
    relative_mahalanobis,
    scale,
    she,
    vim,
)
from tests.fssd_jax.rivals import (
    CHANNELS,
    CLASSES,
    classes_of,
    feature_fn,
    images,
    known,
    logit_fn,
    weights,
)

pytestmark = pytest.mark.peers

V, TRAIN, IND, X = weights(), images(1, 90), images(2, 40), images(3, 30)
Y = classes_of(V, TRAIN)
NETWORK = feature_fn, V


@pytest.fixture(scope="module")
def ours():
    last = head.find(feature_fn, logit_fn, V, IND)
    labelled = TRAIN, Y, CLASSES, "maps"
    return {
        "vim": (vim.score, vim.fit(*NETWORK, last, TRAIN, dim=4)),
        "react": (react.score, react.fit(*NETWORK, last, TRAIN)),
        "dice": (dice.score, dice.fit(*NETWORK, last, TRAIN)),
        "ash-s": (ash.score, ash.fit(last, percentile=65.0)),
        "ash-b": (ash.score_b, ash.fit(last, percentile=65.0)),
        "ash-p": (ash.score_p, ash.fit(last, percentile=65.0)),
        "scale": (scale.score, scale.fit(last)),
        "fdbd": (fdbd.score, fdbd.fit(*NETWORK, last, TRAIN)),
        "she": (she.score, she.fit(*NETWORK, *labelled)),
        "nnguide": (nnguide.score, nnguide.fit(*NETWORK, TRAIN, "maps")),
        "rmd": (
            relative_mahalanobis.score,
            relative_mahalanobis.fit(*NETWORK, *labelled, ridge=0.0),
        ),
        "gen": (gen.score, gen.fit()),
        "kl": (kl_matching.score, kl_matching.fit(logit_fn, V, IND)),
        "gram": (gram.score, gram.fit(*NETWORK, TRAIN, IND, orders=2)),
    }


def of_logits(name):
    return name in ("gen", "kl")


@pytest.fixture(scope="module")
def theirs(ours, operators):
    """Their scores [n] of the same images, higher for OoD."""
    torch = pytest.importorskip("torch")
    detector = pytest.importorskip("pytorch_ood.detector")
    tensor = lambda a: torch.tensor(np.asarray(a, np.float32))  # noqa: E731
    linear = torch.nn.Linear(CHANNELS, CLASSES)
    linear.weight.data = tensor(V["kernel"]).T.contiguous()
    linear.bias.data = tensor(V["bias"])
    w, b = linear.weight, linear.bias
    train, ind, x = (known(V, a) for a in (TRAIN, IND, X))
    h, y = tensor(x.h), torch.tensor(Y)
    ours_clip = float(ours["react"][1].clip)
    pixels = lambda a: tensor(a)[:, :, None, None]  # noqa: E731
    flat = lambda maps: linear(maps[:, :, 0, 0])  # noqa: E731

    def fitted(found, features=train.h, labels=y):
        return found.fit_features(tensor(features), labels)

    # The image side first, as PyTorch has it.
    first = lambda of: [tensor(np.moveaxis(f, -1, 1)) for f in (of.first, of.maps)]  # noqa: E731
    of_gram = detector.Gram(linear, [None, None], CLASSES)
    state = ours["gram"][1]
    bounds = [
        [[tensor(end[layer][p]) for p in range(2)] for layer in ("first", "maps")]
        for end in (state.low, state.high)
    ]
    of_gram.feature_min, of_gram.feature_max = bounds
    # Theirs is of a part of the training images, drawn at random.
    of_gram.layer_norm = tensor([float(e) for e in state.expected.values()])
    relative = fitted(detector.RMD(None))
    # Theirs are sums over the training images, of which ours are means.
    with torch.no_grad():
        return {
            "vim": fitted(detector.ViM(None, 4, w, b)).predict_features(h),
            "react": detector.ReAct(
                None, flat, threshold=ours_clip
            ).predict_feature_maps(pixels(x.h)),
            "dice": fitted(detector.DICE(None, w, b, 0.9)).predict_features(h),
            **{
                kind: detector.ASH(None, flat, kind, 0.65).predict_feature_maps(
                    pixels(x.h)
                )
                for kind in ("ash-s", "ash-b", "ash-p")
            },
            "scale": detector.SCALE(None, flat, 0.85).predict_feature_maps(pixels(x.h)),
            "fdbd": fitted(detector.fDBD(None, linear)).predict_features(h),
            "she": fitted(detector.SHE(None, linear)).predict_features(h),
            "nnguide": fitted(detector.NNGuide(None, linear)).predict_features(h),
            "rmd": relative.predict_features(h) * len(TRAIN),
            "gen": detector.GEN(None).predict_logits(tensor(x.logits)) * CLASSES,
            "kl": detector.KLMatching(None)
            .fit_logits(tensor(ind.logits))
            .predict_logits(tensor(x.logits)),
            "gram": of_gram.predict_structured(tensor(x.logits), first(x)),
        }


NAMES = [
    *("vim", "react", "dice", "ash-s", "ash-b", "ash-p", "scale", "fdbd", "she"),
    *("nnguide", "rmd", "gen", "kl", "gram"),
]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_pytorch_oods(ours, theirs, name):
    score, state = ours[name]
    apply_fn = logit_fn if of_logits(name) else feature_fn
    found = map_batches(score, apply_fn, V, state, X)
    expected = -np.asarray(theirs[name])
    np.testing.assert_allclose(found, expected, 5e-4, 5e-5 * np.ptp(expected))


def test_react_clips_where_pytorch_ood_does(ours):
    """By one pass, to some 1/2048."""
    torch = pytest.importorskip("torch")
    detector = pytest.importorskip("pytorch_ood.detector")
    h = torch.tensor(np.float32(known(V, TRAIN).h))[:, :, None, None]
    own = detector.ReAct(None, None).fit_feature_maps(h, torch.tensor(Y))
    assert float(ours["react"][1].clip) == pytest.approx(own.threshold, rel=2e-3)
