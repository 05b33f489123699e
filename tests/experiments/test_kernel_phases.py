"""The compiled grid against the followers, step by step; a tiny run of the command."""

import json

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from filelock import FileLock
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import fssd_jax
from analysis.displacement import displacement
from analysis.kernel_regression import FrozenForm, make_gradient_fn
from analysis.linearised import LinearisedRun
from analysis.ntk_networks import Perceptron
from experiments import kernel_phases
from experiments.kernel_study import phase_facts, phase_tables, phase_twins, phases
from experiments.kernel_study.setting import draw
from fssd_jax import losses, map_batches
from fssd_jax.checks import InputError
from fssd_jax.data.benchmarks import load_benchmark
from fssd_jax.features import make_init_fn
from fssd_jax.fssd import Singularity, fssd
from fssd_jax.losses import squared
from tests import image_folders
from tests.experiments.recorded import recorded
from tests.experiments.screen import assert_it_fits

RATE, STEPS, START = 0.05, 5, 2


@pytest.fixture(scope="module")
def data():
    benchmark = load_benchmark("digits")
    return [draw(benchmark, s, train=20, points=6, noise=7) for s in (3, 4)]


def by_hand(model, data, seed, order, moment):
    """(form → layer → features of the points), and of the noise, by the followers."""
    feature_fn = fssd_jax.make_feature_fn(model)
    variables = initial = make_init_fn(model)(jax.random.key(seed), data.x[:1])
    logit_fn = fssd_jax.make_logit_fn(model)
    frozen = FrozenForm(
        feature_fn, make_gradient_fn(model, feature_fn, squared), initial, RATE
    )
    sgd = optax.sgd(RATE)
    linear = {
        phases.named(s): LinearisedRun(model, sgd, squared, start=s) for s in (0, START)
    }

    def loss(params, x, y):
        return losses.squared(logit_fn({"params": params}, x), y)

    for step in range(moment):
        x, y = (jax.numpy.asarray(a[order[step]]) for a in (data.x, data.y))
        gradient = jax.grad(loss)(variables["params"], x, y)
        params = jax.tree.map(lambda p, g: p - RATE * g, variables["params"], gradient)
        for follower in (frozen, *linear.values()):
            follower(step, variables, {"params": params}, x, y)
        variables = {"params": params}

    def of(x):
        first = {k: flat(v) for k, v in feature_fn(initial, x).items()}
        moved = frozen.value(x)
        return {
            "untrained": first,
            "network": {k: flat(v) for k, v in feature_fn(variables, x).items()},
            "frozen": {k: first[k] + moved[k] for k in first},
            **{
                name: {
                    k: flat(v)
                    for k, v in run.network.feature_fn(run.network.variables, x).items()
                }
                for name, run in linear.items()
            },
        }

    return of(data.points), of(np.asarray(data.noise)), initial, variables


def flat(feature):
    return np.asarray(feature).reshape(len(feature), -1)


def test_the_compiled_grid_is_what_the_followers_say(data):
    model = Perceptron(8, 5, (0.3,), (0.4,), activation=nn.tanh)
    seeds = (3, 4)
    run, state = phases.begin(model, "squared", RATE, (0, START), seeds, data)
    order = phases.orders(seeds, 20, 10, STEPS)
    advance, look = phases.make_advance(run), phases.make_look(run)
    points, noise = (
        np.stack([getattr(d, k) for d in data]) for k in ("points", "noise")
    )
    for moment, now in phases.follow(advance, run, state, order, (0, START, STEPS)):
        sizes = look(now, run.initial, points, noise) if moment else None
    assert sizes is not None
    for i, seed in enumerate(seeds):
        forms, of_noise, initial, final = by_hand(
            model, data[i], seed, order[:, i], STEPS
        )
        for k, layer in enumerate(model.feature_layers):
            first, now = forms["untrained"][layer], forms["network"][layer]
            first_star = of_noise["untrained"][layer].mean(0)
            for form, features in forms.items():
                star = of_noise[form][layer].mean(0)
                f = features[layer]
                expected = {
                    "fssd": f - star,
                    "displacement": f - first,
                    "relative": f - star - first + first_star,
                    "gap": f - now,
                }
                for quantity, vectors in expected.items():
                    found = sizes[f"{quantity}/{form}"][i, :, k]
                    lengths = np.linalg.norm(vectors, axis=1)
                    np.testing.assert_allclose(found, lengths, rtol=2e-3, atol=2e-5)
            ended = np.linalg.norm(now, axis=1)
            found = sizes["gap/undone"][i, :, k]
            np.testing.assert_allclose(found, ended, rtol=2e-3)
        # And the network's own against the library's functions.
        feature_fn = fssd_jax.make_feature_fn(model)
        star = fssd_jax.estimate_singularity(feature_fn, final, data[i].noise)
        assert isinstance(star, Singularity)
        own = map_batches(fssd, feature_fn, final, star, data[i].points)
        np.testing.assert_allclose(sizes["fssd/network"][i], own, rtol=1e-4)
        moved = displacement(feature_fn, initial, final, data[i].points)
        lengths = np.stack([np.linalg.norm(m, axis=1) for m in moved.values()], 1)
        np.testing.assert_allclose(sizes["displacement/network"][i], lengths, rtol=1e-4)


def test_a_network_of_infinite_width_begins_as_this_one(data):
    """At time 0 its FSSD is that of the untrained network; it has not moved."""
    pytest.importorskip("analysis.neural_tangents_compat")
    cell = phase_facts.Cell("digits", "perceptron", "squared", "ntk", 8)
    plan = phase_facts.Plan((3, 4), (1,), (0,), 10)
    twins = [phase_twins.twin_of(cell, plan, 0.0, d) for d in data]
    found = phase_twins.from_own(cell, plan, twins, data)
    np.testing.assert_array_equal(found["displacement"], 0)
    for i, d in enumerate(data):
        model = phase_facts.network_of(cell, d.benchmark)
        variables = make_init_fn(model)(jax.random.key(plan.seeds[i]), d.x[:1])
        feature_fn = fssd_jax.make_feature_fn(model)
        star = fssd_jax.estimate_singularity(feature_fn, variables, d.noise)
        own = map_batches(fssd, feature_fn, variables, star, d.points)[:, -1]
        np.testing.assert_allclose(found["fssd"][i, 0], own, rtol=1e-5)


def test_what_starts_at_no_moment_is_an_error(data):
    model = Perceptron(8, 5, (0.3,), (0.4,))
    run, state = phases.begin(model, "squared", RATE, (2,), (3,), data[:1])
    order = phases.orders((3,), 20, 10, 3)
    with pytest.raises(InputError, match="none of the moments"):
        next(phases.follow(lambda state, *_: state, run, state, order, (0, 3)))


def test_every_epoch_has_every_image_once_and_another_order():
    order = phases.orders((0, 1), 7, 2, 6)
    assert order.shape == (6, 2, 2)
    for of_seed in order.transpose(1, 0, 2):
        epochs = [set(of_seed[i : i + 3].ravel().tolist()) for i in (0, 3)]
        assert all(len(epoch) == 6 for epoch in epochs)
        assert (of_seed[:3] != of_seed[3:]).any()
    assert (order[:, 0] != order[:, 1]).any()


def test_numbers_are_those_of_scipy_and_scikit_learn():
    rng = np.random.default_rng(0)
    names = [f"{q}/{f}" for q in ("fssd", "displacement", "relative", "gap")
             for f in ("untrained", "network", "frozen")]  # fmt: skip
    names.append("gap/undone")
    sizes = {name: rng.exponential(size=(2, 10, 3)) for name in names}
    sizes["fssd/frozen"] = np.round(sizes["fssd/frozen"], 1)  # some are equal
    near = rng.normal(size=(2, 10))
    found = phase_facts.compared(sizes, near)
    labels = np.repeat([1, 0], 5)
    for seed in range(2):
        for layer in range(3):
            s = {name: a[seed, :, layer] for name, a in sizes.items()}
            told = {name: a[seed, layer] for name, a in found.items()}
            ood = slice(5, None)
            assert told["frozen/rank/ood"] == pytest.approx(
                spearmanr(s["fssd/frozen"][ood], s["fssd/network"][ood])[0]
            )
            assert told["pixels/rank/ind"] == pytest.approx(
                spearmanr(near[seed][:5], s["fssd/network"][:5])[0]
            )
            assert told["frozen/AUROC/relative"] == pytest.approx(
                roc_auc_score(labels, s["relative/frozen"])
            )
            gap, moved = s["gap/frozen"], s["displacement/network"]
            assert told["frozen/error/all"] == pytest.approx(
                np.sqrt((gap**2).sum() / (moved**2).sum())
            )
            of_ood = s["gap/undone"][ood], moved[ood]
            assert told["undone/error/ood"] == pytest.approx(
                np.linalg.norm(of_ood[0]) / np.linalg.norm(of_ood[1])
            )
            share = (s["fssd/untrained"][ood] ** 2).sum()
            share /= (s["fssd/network"][ood] ** 2).sum()
            assert told["network/offset/ood"] == pytest.approx(share)
    sizes["fssd/frozen"][0, 0, 0] = np.inf  # what diverged is no number
    found = phase_facts.compared(sizes, near)
    for name in ("frozen/rank/ind", "frozen/AUROC/fssd", "frozen/FSSD error/all"):
        assert np.isnan(found[name][0, 0]), name
        assert np.isfinite(found[name][1]).all(), name


def main(out, *args):
    fixed = ["--preset", "tiny", "--benchmarks", "digits", "--networks", "perceptron"]
    fixed += ["--losses", "squared", "--parametrisations", "ntk", "--rate", "0.05"]
    return kernel_phases.main([*fixed, "--out", str(out), *args])


def test_panels_have_what_is_known_of_a_cell():
    """The mean over seeds; ranks over both sets, too; grey where nothing is known."""
    rng, layers = np.random.default_rng(0), 3
    cells = [
        phase_facts.Cell("digits", "perceptron", "squared", "ntk", w) for w in (4, 8)
    ]
    plan = phase_facts.Plan((0, 1), (1, 3), (0,), 10)
    names = [
        f"{form}/{quantity}"
        for form in ("frozen", "untrained", "infinite, own f_0")
        for quantity in ("error/all", "rank/ind", "rank/ood", "AUROC/fssd")
    ]
    names += ["network/AUROC/fssd", "pixels/AUROC/nearest"]
    found = {c: {n: rng.uniform(size=(2, 2, layers)) for n in names} for c in cells}
    del found[cells[0]]["infinite, own f_0/AUROC/fssd"]
    panels = phase_tables._panels(plan, found, "AUROC", [4, 8])
    assert {form for form, *_ in panels} == {
        *("frozen", "untrained", "infinite, own f_0", "pixels")
    }
    near = (
        found[cells[1]]["pixels/AUROC/nearest"] - found[cells[1]]["network/AUROC/fssd"]
    )
    np.testing.assert_allclose(panels["pixels", "ntk", "logits"][1], near.mean(0)[:, 2])
    assert np.isnan(panels["infinite, own f_0", "ntk", "fc2"][0]).all()
    assert np.isfinite(panels["infinite, own f_0", "ntk", "fc2"][1]).all()
    ranks = [
        found[cells[0]][f"frozen/rank/{part}"].mean(0)[:, 1] for part in ("ind", "ood")
    ]
    panels = phase_tables._panels(plan, found, "rank", [4, 8])
    np.testing.assert_allclose(panels["frozen", "ntk", "fc2"][0], np.mean(ranks, 0))


def test_tiny(tmp_path, capsys):
    args = ["--widths", "4", "8", "--seeds", "0", "1"]
    assert main(tmp_path, *args) == 0
    assert_it_fits(capsys.readouterr().out)
    (path,) = (tmp_path / "kernel_phases").iterdir()
    (cells,) = (tmp_path / "scores").glob("kernel_phases-*")
    told = recorded(path)
    with np.load(path / "scores.npz") as file:
        arrays = dict(file)
    names = list(arrays["quantities/digits-perceptron-squared-ntk-8"])
    of_cell = arrays[
        "digits-perceptron-squared-ntk-8"
    ]  # [quantity, seed, moment, layer]
    keys = {"width": 8, "layer": "fc2", "method": "frozen", "set": "OoD"}
    (row,) = told(quantity="spearman with FSSD", **keys)
    ranks = of_cell[names.index("frozen/rank/ood"), :, -1, 1]
    assert row[0] == pytest.approx(ranks.mean(), rel=1e-5)
    # At first the linearised network is the network; of the hidden layers the
    # infinitely wide one knows nothing, and before step 3 there is none of step 3.
    late = of_cell[names.index("linearised 3/error/all")]
    assert np.isnan(late[:, 0]).all()
    assert (late[:, 1] < 1e-5).all()
    assert (late[:, 2] > 1e-5).all()
    infinite = of_cell[names.index("infinite/FSSD error/all")]
    assert np.isnan(infinite[..., :-1]).all()
    assert np.isfinite(infinite[..., -1]).all()
    for name in ("infinite, own f_0/rank/ood", "infinite, f_0 · 0.5/AUROC/fssd"):
        assert np.isfinite(of_cell[names.index(name), :, :, -1]).all()

    # Again, with a cell at another process, and one that is there.
    kept = sorted(cells.glob("*-ntk-*.npz"))
    before = kept[0].stat().st_mtime_ns
    kept[1].unlink()
    with FileLock(kept[1].with_suffix(".lock")):
        assert main(tmp_path, *args) == 0
    assert "1 of 2 cells are with other processes" in capsys.readouterr().out
    assert kept[0].stat().st_mtime_ns == before
    assert not kept[1].exists()

    # What is there, from its folder alone.
    other = tmp_path / "other"
    assert main(other, *args, "--kept", str(tmp_path / "scores")) == 0
    (again,) = (other / "kernel_phases").iterdir()
    with np.load(again / "scores.npz") as file:
        np.testing.assert_array_equal(
            file["digits-perceptron-squared-ntk-4"],
            arrays["digits-perceptron-squared-ntk-4"],
        )
        assert "digits-perceptron-squared-ntk-8" not in file
    # Of other options it is not told what these are.
    capsys.readouterr()
    assert main(other, *args[:-1], "2", "--kept", str(tmp_path / "scores")) == 1
    assert "other options" in capsys.readouterr().err
    measured = json.loads((again / "metrics.json").read_text())["measured"]
    assert measured == json.loads((cells / "config.json").read_text())


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--seeds"], "one or more"),
        (["--widths", "0"], "--widths: 1 or more"),
        (["--rate", "0"], "--rate: above 0"),
        (["--kept", "nowhere"], "expected one folder"),
    ],
)
def test_errors_say_what_to_do(tmp_path, capsys, args, told):
    assert main(tmp_path, *args) == 1
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_a_pair_in_colour(tmp_path):
    for i, split in enumerate(("train", "test")):
        image_folders.write(tmp_path / "cifar10" / split, *image_folders.drawn(i, 12))
    of = ["--benchmarks", "cifar6", "--networks", "perceptron", "--seeds", "0"]
    of += ["--parametrisations", "standard", "--widths", "4", "--preset", "tiny"]
    of += ["--data-dir", str(tmp_path), "--out", str(tmp_path / "out")]
    assert kernel_phases.main([*of, "--losses", "squared"]) == 0
    (path,) = (tmp_path / "out" / "kernel_phases").glob("cifar6-perceptron-*")
    with np.load(path / "scores.npz") as file:
        numbers = dict(file)
    cell = "cifar6-perceptron-squared-standard-4"
    assert any(name.startswith(cell) for name in numbers)
    assert all(np.isfinite(of).all() for of in numbers.values() if of.dtype == float)
