"""Figures 1, 4, 5 and 6 on the embedded digits, beside other arithmetic."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from analysis import example_plots, feature_plots, shift_plots
from experiments import figure1, figure4, figure5, figure6
from experiments.comparison import (
    answers,
    layer_looks,
    networks,
    protocols,
    retrained,
    shifted,
)
from experiments.comparison.figure_settings import (
    TINY,
    FigureOptions,
    ready,
)
from experiments.comparison.shifted import LEVELS
from experiments.harness.keys import Use, of_seed
from fssd_jax import map_batches
from fssd_jax.data import imagenet_c
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.detectors import fssd, mc_dropout
from tests.experiments.recorded import recorded
from tests.experiments.screen import assert_it_fits
from tests.experiments.test_figures import the_only

SCRIPTS = {"figure4": figure4, "figure5": figure5}
FEW = ["--methods", "msp", "fssd_clean"]
SHOWN = ["fssd clean", "msp", "control: pixel stats"]  # of them, in the picture


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One folder for all, so that the network is trained once."""
    return tmp_path_factory.mktemp("figures")


@pytest.fixture(autouse=True)
def without_gradients(monkeypatch):
    monkeypatch.setattr(shifted, "RIVALS", ("pixel_stats", "brightness"))


def made(script, out, *args):
    name = script.__name__.rpartition(".")[2]
    tiny = ["--preset", "tiny", "--benchmark", "digits", "--out", str(out)]
    assert script.main([*tiny, *args]) == 0
    path, facts, data = the_only(out / name)
    assert (path / f"{name}.png").stat().st_size > 1000
    assert (path / f"{name}.pdf").exists()
    return path, facts, data


@pytest.fixture
def s(out):
    benchmark = load_benchmark("digits")
    options = FigureOptions(out=out)
    return ready(benchmark, "digits_near", "paper", options, TINY).setting


@pytest.fixture
def pictured(monkeypatch):
    """What each picture was drawn from: name of the function → its arguments."""
    seen = {}

    def record(module, name):
        draw = getattr(module, name)

        def recording(*args):
            seen[name] = args
            return draw(*args)

        monkeypatch.setattr(module, name, recording)

    record(example_plots, "examples")
    record(shift_plots, "boxes")
    record(shift_plots, "against_noise")
    record(feature_plots, "layers_of_pairs")
    return seen


def by_sklearn(inside, outside):
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    return pytest.approx(roc_auc_score(truth, np.concatenate([inside, outside])))


def test_figure1(out, s, pictured, capsys):
    path, facts, data = made(figure1, out, "--examples", "5")
    sets = ("in-distribution", "OoD")
    inside, outside = (data[f"fssd/{name}"] for name in sets)
    assert facts["auroc"]["fssd"] == by_sklearn(inside, outside)
    untrained = (data[f"control: untrained/{name}"] for name in sets)
    assert facts["auroc"]["control: untrained"] == by_sklearn(*untrained)
    # Eq. (1), and the principal components by a singular value decomposition.
    star = data["features/F*"]
    for name in sets:
        away = np.linalg.norm(data[f"features/{name}"] - star, axis=1)
        np.testing.assert_allclose(data[f"fssd/{name}"], away, rtol=1e-4)
    whole = np.concatenate([data[f"features/{name}"] for name in sets]).astype(float)
    _, spread, rows = np.linalg.svd(whole - whole.mean(0), full_matrices=False)
    np.testing.assert_allclose(facts["share"], (spread**2 / (spread**2).sum())[:2])
    for name in (*sets, "F*"):
        expected = (data[f"features/{name}"] - whole.mean(0)) @ rows[:2].T
        found = data[f"points/{name}"]
        np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)
    # Each image that is shown is the one whose FSSD is nearest.
    at, half = data["values"], np.diff(data["values"])[0] / 2
    assert at[0] - half == pytest.approx(min(inside.min(), outside.min()))
    assert at[-1] + half == pytest.approx(max(inside.max(), outside.max()))
    for name in sets:
        for value, chosen in zip(at, data[f"shown/{name}"], strict=True):
            gaps = np.abs(data[f"fssd/{name}"] - value)
            assert (gaps.min() > half) == (chosen == -1)
            assert chosen == -1 or gaps[chosen] == gaps.min()
    fssd, shown_at, images, points, at_star, share, layer = pictured["examples"]
    assert (layer, [*share]) == (facts["layer"], facts["share"])
    np.testing.assert_array_equal(shown_at, at)
    np.testing.assert_array_equal(at_star, data["points/F*"])
    for name in sets:
        np.testing.assert_array_equal(fssd[name], data[f"fssd/{name}"])
        np.testing.assert_array_equal(points[name], data[f"points/{name}"])
        # An image that is shown has the features of its number.
        shown = dict(enumerate(data[f"shown/{name}"]))
        assert [*images[name]] == [k for k, j in shown.items() if j >= 0]
        for k, image in images[name].items():
            feature = s.feature_fn(s.variables, image[None])[layer]
            of = data[f"features/{name}"][shown[k]]
            np.testing.assert_allclose(np.ravel(feature), of, rtol=1e-3, atol=1e-4)
    told = recorded(path)
    assert told(method="fssd", quantity="AUROC")[0][0] == facts["auroc"]["fssd"]
    ((median, *_),) = told(set="OoD", statistic="median")
    assert median == pytest.approx(np.median(outside))
    assert_it_fits(capsys.readouterr().out, ["control: nearest in pixels"])


def test_a_training_is_told_of_the_machine(out):
    options = FigureOptions(out=out, save_every_steps=7, shard_optimiser=True)
    s = ready(load_benchmark("digits"), "digits_near", "paper", options, TINY).setting
    found = s.training.machine
    assert (found.save_every_steps, found.shard_optimiser) == (7, True)


def test_examples_are_within_half_the_spacing():
    at = np.array([1.0, 2.0, 3.0])
    found = layer_looks.examples(np.array([2.6, 0.4, 1.1]), at)
    assert found.tolist() == [2, -1, 0]


def test_figure6(out, pictured, capsys):
    path, facts, data = made(figure6, out)
    assert facts["pairs"] == {"near": "digits_near", "far": "digits_far"}
    told = recorded(path)
    methods = {"trained": "fssd", "untrained": "control: untrained"}
    for pair in facts["pairs"].values():
        for k, (layer, of) in enumerate(facts["layers"][pair].items()):
            for when, method in methods.items():
                scores = (
                    data[f"{pair}/{when}/{name}"][:, k]
                    for name in ("in-distribution", "OoD")
                )
                assert of[when] == by_sklearn(*scores)
                found = told(benchmark=pair, layer=layer, method=method)
                assert found == [(of[when], *of[f"{when}_ci95"])]
    assert data["digits_far/trained/noise"].shape == (64, 4)
    pairs, titles = pictured["layers_of_pairs"]
    assert list(pairs) == ["near: digits_near", "far: digits_far"] == list(titles)
    for title, (sets, layers) in pairs.items():
        pair = title.partition(": ")[2]
        for name, found in sets.items():
            np.testing.assert_array_equal(found, data[f"{pair}/trained/{name}"])
        assert layers == list(facts["layers"][pair])
        for told, of in zip(titles[title], facts["layers"][pair].values(), strict=True):
            both = f"{of['trained']:.3f}\nuntrained {of['untrained']:.3f}"
            assert told == f"AUROC {both}"
    assert_it_fits(capsys.readouterr().out, ["near: digits_near", "conv1", "logits"])


def test_distances_are_those_of_either_network_and_set(s):
    """Eq. (1) by NumPy: which network, which set, and what F* is the mean of."""
    found = layer_looks.distances(s)
    sets = {"in-distribution": s.test_ind, "OoD": s.test_ood, "noise": s.noise}
    for of, variables in ((found.trained, s.variables), (found.untrained, s.initial)):
        features = {
            name: [
                np.asarray(f, np.float64).reshape(len(x), -1)
                for f in s.feature_fn(variables, np.asarray(x)).values()
            ]
            for name, x in sets.items()
        }
        for name, layers in features.items():
            for k, f in enumerate(layers):
                expected = np.linalg.norm(f - features["noise"][k].mean(0), axis=1)
                np.testing.assert_allclose(of[name][:, k], expected, rtol=1e-3)


def by_hand(s, name):
    """Scores by a detector that is fitted here, on the setting's clean images."""
    if name == "msp":
        apply = lambda _, variables, state, x: s.logit_fn(variables, x)  # noqa: E731

        def score(x):
            logp = log_softmax(
                map_batches(apply, s.logit_fn, s.variables, None, x).astype(float), -1
            )
            best = logp.max(-1)
            return best - np.log(-np.expm1(best))

        return score
    state = protocols.fit_clean(s.feature_fn, s.variables, s.noise, s.val_ind)
    return lambda x: map_batches(fssd.score, s.feature_fn, s.variables, state, x)


def test_figure4(out, s, pictured, capsys, monkeypatch):
    path, facts, data = made(figure4, out, *FEW)
    printed = capsys.readouterr().out
    assert_it_fits(printed, ["level 5", "msp", "control: pixel stats"])
    kinds = list(figure4.TINY_KINDS)
    assert (facts["kinds"], facts["levels"]) == (kinds, list(LEVELS))
    told = recorded(path)
    for name, of in facts["auroc"].items():
        inside, corrupted = (
            data[f"{name}/{s}"] for s in ("in-distribution", "corrupted")
        )
        assert corrupted.shape == (3, 5, 16)
        for k, kind in enumerate(kinds):
            for level in LEVELS:
                found = of[k][level - 1]
                assert found == by_sklearn(inside, corrupted[k, level - 1])
                at = {"method": name, "condition": f"{kind}, level {level}"}
                assert told(**at) == [(found, None, None)]
        for box, column in zip(facts["boxes"][name], np.array(of).T, strict=True):
            low, lower, median, upper, high = np.sort(column)[[0, 0, 1, 2, 2]]
            lower, upper = (lower + median) / 2, (median + upper) / 2  # of three
            expected = [low, lower, median, upper, high, column.mean()]
            assert list(box.values()) == pytest.approx(expected)
    boxes, levels, _ = pictured["boxes"]
    assert (tuple(levels), list(boxes)) == (tuple(LEVELS), SHOWN)
    for name, of in boxes.items():
        assert of == [list(box.values()) for box in facts["boxes"][name]]
    # One fitted state for all kinds and levels: that of the clean images.
    for name in ("msp", "fssd clean"):
        score = by_hand(s, name)
        found = data[f"{name}/in-distribution"]
        np.testing.assert_allclose(found, score(s.test_ind), rtol=1e-3, atol=1e-3)
        for k, kind in enumerate(kinds):
            for level in (1, 5):
                x = imagenet_c.corrupt(s.test_ind, kind, level, workers=0)
                found = data[f"{name}/corrupted"][k, level - 1]
                np.testing.assert_allclose(found, score(x), rtol=1e-3, atol=1e-3)
    # Scores are kept.
    never = lambda *_, **__: pytest.fail("computed again")  # noqa: E731
    monkeypatch.setattr(answers, "look", never)
    _, again, _ = made(figure4, out, *FEW)
    assert again == facts


def test_figure5(out, s, pictured, capsys):
    path, facts, data = made(figure5, out, *FEW, "--impulse", "0", "0.3")
    noises = [("gaussian_noise", 0.0), ("gaussian_noise", 0.02)]
    noises += [("impulse_noise", 0.0), ("impulse_noise", 0.3)]
    assert [tuple(cell) for cell in facts["cells"]] == noises
    told = recorded(path)
    for name, of in facts["auroc"].items():
        inside, outside = data[f"{name}/in-distribution"], data[f"{name}/OoD"]
        assert of[0] == of[2]  # both without noise
        for i, (kind, amount) in enumerate(noises):
            assert of[i] == by_sklearn(inside[i], outside[i])
            found = told(method=name, condition=f"{kind} {amount:g}")
            assert found == [(of[i], *facts["auroc_ci95"][name][i])]
    curves, amounts = pictured["against_noise"]
    assert {noise: [*at] for noise, at in amounts.items()} == facts["amounts"]
    for noise, at in amounts.items():
        assert list(curves[noise]) == SHOWN
        for name, of in curves[noise].items():
            cells = [noises.index((noise, amount)) for amount in at]
            assert of[0] == [facts["auroc"][name][i] for i in cells]
            ends = [facts["auroc_ci95"][name][i] for i in cells]
            assert [*zip(*of[1:], strict=True)] == [tuple(pair) for pair in ends]
    for name in ("msp", "fssd clean"):
        score = by_hand(s, name)
        for i, (kind, amount) in enumerate(noises):
            for of_set, x in (("in-distribution", s.test_ind), ("OoD", s.test_ood)):
                noisy = imagenet_c.noisy(x, kind, amount, workers=0)
                found = data[f"{name}/{of_set}"][i]
                np.testing.assert_allclose(found, score(noisy), rtol=1e-3, atol=1e-3)
    assert_it_fits(capsys.readouterr().out, ["0.02", "0.3", "msp"])


@pytest.mark.parametrize("script", [figure4, figure5])
def test_mc_dropout_is_of_the_passes_that_the_caption_tells(
    script, s, tmp_path, monkeypatch
):
    """One rate, so that it is known which network it is; by either of its scores."""
    monkeypatch.setattr(retrained, "RATES", (0.1,))
    args = ("--methods", "mc_dropout", "--passes", "3")
    path, _, data = made(script, tmp_path, *args)
    note = " MC dropout: 3 passes an image."
    assert note in (path / "metrics.md").read_text()
    variables = networks.with_dropout(s.training, 0, 0.1).variables
    logit_fn = retrained.stochastic(s.training, 0.1)
    state = mc_dropout.fit(of_seed(0, Use.MC_DROPOUT), 3)
    of = map_batches(mc_dropout.scores, logit_fn, variables, state, s.test_ind)
    found = np.atleast_2d(data["mc dropout/in-distribution"])[0]
    assert any(np.allclose(found, of[:, c], rtol=1e-3, atol=1e-3) for c in (0, 1))
