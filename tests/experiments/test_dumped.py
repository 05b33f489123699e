"""Scores of features that were computed elsewhere, from the command line."""

import json

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

import fssd_jax
from experiments import score
from experiments.harness import explored
from fssd_jax import adapters
from fssd_jax.detectors import fssd
from tests.npz import read_npz

CLASSES = 3
SETS = ("in", "ood", "noise", "train")
LAYERS = ("conv1", "fc1", "logits")


def made(count, seed, size=1.0):
    """Features with channels last, of which classes are apart as `size` says."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count)
    fc1 = rng.normal(size=(count, 5)) + 3 * size * np.eye(5)[y]
    conv1 = size * rng.normal(size=(count, 4, 4, 2)) + size * y[:, None, None, None]
    arrays = {"conv1": conv1, "fc1": fc1, "logits": 2 * fc1[:, :CLASSES]}
    return {name: np.float32(a) for name, a in arrays.items()} | {"y": y}


@pytest.fixture
def dumps():
    sizes = zip(SETS, (200, 40, 30, 90), (1, 0.4, 0.1, 1), strict=True)
    found = {of: made(n, seed, size) for seed, (of, n, size) in enumerate(sizes)}
    del found["noise"]["y"]
    return found


def main(folder, dumps, *args, train=False):
    for of, arrays in dumps.items():
        np.savez(folder / f"{of}.npz", **arrays)
    given = [] if "in" not in dumps else ["--features", str(folder / "in.npz")]
    for of in ("ood", "noise", *(["train"] if train else [])):
        given += [f"--{of}-features", str(folder / f"{of}.npz")]
    return score.main([*given, "--out", str(folder / "out"), *args])


def results(folder, position=-1):
    """The folder that was left last."""
    found = sorted(
        (folder / "out" / "score").iterdir(), key=lambda p: p.stat().st_mtime
    )
    path = found[position]
    return path, json.loads((path / "metrics.json").read_text())


def flat(a):
    return np.float64(a).reshape(len(a), -1)


def nearness(train, k=50):
    """k nearest neighbours of features of length 1, by scikit-learn."""
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)  # noqa: E731
    near = NearestNeighbors(n_neighbors=k).fit(unit(train))
    return lambda a: -near.kneighbors(unit(a))[0][:, -1]


def confidence(train, y):
    """Mahalanobis's of a layer, by scikit-learn."""
    means = np.stack([train[y == c].mean(0) for c in range(CLASSES)])
    shared = EmpiricalCovariance(assume_centered=True).fit(train - means[y])
    return lambda a: -np.stack([shared.mahalanobis(a - m) for m in means]).min(0)


@pytest.mark.parametrize("channels", ["first", "last"])
def test_rows_are_those_of_numpy_and_scikit_learn(dumps, tmp_path, capsys, channels):
    given = dumps
    if channels == "first":  # as PyTorch has them; square maps tell
        given = {
            of: arrays | {"conv1": np.moveaxis(arrays["conv1"], -1, 1)}
            for of, arrays in dumps.items()
        }
    assert main(tmp_path, given, train=True) == 0
    path, facts = results(tmp_path)
    assert list(facts["methods"]) == [
        *(f"fssd {layer}" for layer in (*LAYERS, "noise", "clean", "deep")),
        *("msp", "max logit", "energy", "gen", "kl matching", "knn", "nnguide"),
        *("she", "gram", "relative mahalanobis", "mahalanobis clean", "odin"),
    ]
    assert facts["controls"] == facts["failed"] == {}
    without = {"ash", "scale", "react", "dice", "vim", "fdbd"}
    assert set(facts["left_out"]) >= {*without, "feature_norm"}
    for name in without:
        assert facts["left_out"][name].startswith("it needs a linear last layer (no")
    assert facts["counts"]["ind"] == 160
    scores = read_npz(path / "scores.npz")
    ood = dumps["ood"]
    expected = {
        f"fssd {layer}": np.linalg.norm(
            flat(ood[layer]) - flat(dumps["noise"][layer]).mean(0), axis=1
        )
        for layer in LAYERS
    }
    chance = softmax(np.float64(ood["logits"]), axis=1).max(1)
    expected |= {
        "msp": np.log(chance),
        "energy": logsumexp(np.float64(ood["logits"]), axis=1),
        "max logit": ood["logits"].max(1),
        "knn": nearness(dumps["train"]["fc1"])(ood["fc1"]),
    }
    for name, own in expected.items():
        found = scores[f"{name}/ood"]
        order = np.argsort(np.argsort(own)) if name == "msp" else own
        found = np.argsort(np.argsort(found)) if name == "msp" else found
        np.testing.assert_allclose(found, order, rtol=1e-3, atol=1e-4, err_msg=name)
    for name, row in facts["methods"].items():
        pair = scores[f"{name}/ind"], scores[f"{name}/ood"]
        truth = np.repeat([1, 0], [len(pair[0]), len(pair[1])])
        assert row["auroc"] == pytest.approx(roc_auc_score(truth, np.concatenate(pair)))
    # Each layer standardised by the in-distribution images that are not tested, whose
    # rows are not known here: all that the sum may be is linear in the layers' own.
    average = lambda a: np.float64(a).reshape(len(a), -1, a.shape[-1]).mean(1)  # noqa: E731
    train = {layer: average(dumps["train"][layer]) for layer in LAYERS}
    own = np.stack(
        [
            confidence(train[layer], dumps["train"]["y"])(average(ood[layer]))
            for layer in LAYERS
        ],
        axis=1,
    )
    found = scores["mahalanobis clean/ood"]
    columns = np.concatenate([own, np.ones((len(own), 1))], axis=1)
    rest = np.linalg.lstsq(columns, found)[1]
    assert rest < 1e-6 * np.sum((found - found.mean()) ** 2)
    # Labels are there, and so is the accuracy.
    correct = dumps["in"]["logits"].argmax(1) == dumps["in"]["y"]
    assert facts["accuracy"] == pytest.approx(correct.mean(), abs=0.05)
    told = capsys.readouterr().out
    assert f"Accuracy {100 * facts['accuracy']:.1f} %" in told
    assert "No controls" in told


@pytest.mark.usefixtures("undrawn")
def test_the_file_that_is_left_scores_features(dumps, tmp_path):
    assert main(tmp_path, dumps) == 0
    path, facts = results(tmp_path)
    fitted = fssd_jax.load(path / "fssd.npz", {}, layers=list(LAYERS))
    assert fitted.config["threshold"] == facts["threshold"]
    features = {layer: dumps["ood"][layer] for layer in LAYERS}
    found = fssd_jax.map_batches(
        fssd.score, adapters.given(LAYERS), {}, fitted.state, features
    )
    scores = read_npz(path / "scores.npz")
    np.testing.assert_allclose(scores["fssd deep/ood"], found, rtol=1e-4, atol=1e-4)
    # Its page shows where features lie, and no image.
    told = explored.read(path)
    assert told["sprite"] is None
    assert told["layer"] == "fc1"
    assert len(told["points"]) == len(told["index"]) == 160 + 40
    ood = told["rows"]["fssd deep"]["scores"][160:]
    np.testing.assert_allclose(ood, scores["fssd deep/ood"], rtol=1e-6)
    assert '<div class="explorer">' in (path / "report.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_what_is_there_is_scored(dumps, tmp_path, capsys):
    """Without logits no MSP; --layers are those of FSSD, logits are logits still."""
    assert main(tmp_path, dumps, "--layers", "fc1") == 0
    _, facts = results(tmp_path)
    assert [*facts["methods"]][:2] == ["fssd fc1", "fssd noise"]
    assert "msp" in facts["methods"]
    for arrays in dumps.values():
        arrays["out"] = arrays.pop("logits")
    assert main(tmp_path, dumps, train=True) == 0
    _, facts = results(tmp_path)
    assert "fssd out" in facts["methods"]
    assert "knn" in facts["methods"]
    assert facts["left_out"]["msp"] == "it needs logits"
    assert facts["accuracy"] is None
    assert "not known without logits" in capsys.readouterr().out
    # The same numbers under another name are other layers.
    for arrays in dumps.values():
        arrays["logits"] = arrays.pop("out")
    assert main(tmp_path, dumps, train=True) == 0
    assert {"fssd logits", "msp"} <= set(results(tmp_path)[1]["methods"])


@pytest.mark.usefixtures("undrawn")
def test_how_files_are_written_does_not_matter(dumps, tmp_path):
    """Order, other layers of other sets, integers, labels of sets that need none."""
    for arrays in dumps.values():
        arrays.update({k: np.rint(20 * arrays[k]) for k in LAYERS})
    assert main(tmp_path, dumps) == 0
    _, first = results(tmp_path)
    ood = {name: dumps["ood"][name].astype(np.int16) for name in reversed(LAYERS)}
    ood |= {"y": np.array(["cat"] * 40), "more": np.zeros(3)}
    assert main(tmp_path, dumps | {"ood": ood}) == 0
    assert results(tmp_path)[1]["methods"] == first["methods"]


def without(of, *names):
    return lambda d: [d[of].pop(name) for name in names]


def put(of, name, change):
    return lambda d: d[of].update({name: change(d[of].get(name))})


def everywhere(name, change):
    return lambda d: [a.update({name: change(a[name])}) for a in d.values()]


def nan(a):
    a[3] = np.nan
    return a


WRONG = {
    "missing": (without("ood", "fc1"), "ood.npz: no layers ['fc1'], but ['conv1',"),
    "empty": (lambda d: d["in"].clear(), "in.npz: holds no layers; write it with"),
    "shape": (put("ood", "fc1", lambda a: a[:, :4]), "layer fc1 is [40, 4], and an"),
    "rows": (put("noise", "fc1", lambda a: a[1:]), "'fc1': [29, 5]"),
    "scalar": (put("in", "fc1", lambda a: np.float32(1)), "'fc1': []"),
    "no rows": (lambda d: d["ood"].update(made(0, 0)), "the set is empty"),
    "one noise": (lambda d: d["noise"].update(made(1, 0)), "noise: 1 sample"),
    "few": (lambda d: d["in"].update(made(189, 0)), "190 images in all"),
    "NaN": (put("ood", "fc1", nan), "fc1 in float32: image 3 holds NaN"),
    "huge": (
        everywhere("fc1", lambda a: a * np.float64(1e60)),
        "holds NaN or infinite",
    ),
    "complex": (put("in", "fc1", lambda a: a * 1j), "of dtype complex64; save it as"),
    "objects": (put("in", "fc1", lambda a: a.astype(object)), "pickled; write it with"),
    "one logit": (everywhere("logits", lambda a: a[:, :1]), "np.stack([0 * z, z], -1)"),
    "vector": (everywhere("logits", lambda a: a[:, 0]), "expected [n, classes]"),
    "softmax": (
        everywhere("logits", lambda a: softmax(a, axis=1)),
        "logits are probabilities; give what comes before the softmax",
    ),
    "log softmax": (
        everywhere("logits", lambda a: a - logsumexp(a, axis=1, keepdims=True)),
        "logits are logarithms of probabilities",
    ),
    "labels twice": (put("in", "labels", lambda _: np.arange(200)), "labels twice"),
    "labels": (put("in", "y", lambda y: y[1:]), "labels are int64[199], expected one"),
    "no labels": (without("train", "y"), "np.savez(path, y=labels, ...)"),
    "one-hot": (put("train", "y", lambda y: np.eye(3)[y]), "labels are float64[90, 3]"),
    "range": (
        put("train", "y", lambda y: y - 1),
        "labels from -1 to 1, and logits of 3",
    ),
    "class": (put("train", "y", lambda y: y // 2), "rows of 2 classes were taken"),
    "same": (lambda d: d.update(ood=d["in"]), "in.npz and "),
    "in training": (
        lambda d: d["train"].update(d["in"]),
        "train.npz hold the same 200",
    ),
    "name": (put("in", "noise", lambda _: np.ones(200)), "call the layers ['noise']"),
    "row": (put("in", "tiles", lambda _: np.ones(200)), "call the layers ['tiles']"),
    "no file": (lambda d: d.pop("in"), "--features: needed, too"),
    "channels": (everywhere("conv1", lambda a: a[:, :, 0]), "Say --channels first"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_one_line(dumps, tmp_path, capsys, change, message):
    change(dumps)
    assert main(tmp_path, dumps, train=True) == 1
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert message in error
    assert not list(tmp_path.glob("out/score/*"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--weights", "x.pth", "--in", "x"], "--weights, --in: leave out beside"),
        (["--size", "32"], "--size: leave out beside"),
        (["--layers", "fc1", "fc1"], "stands twice"),
        (["--layers", "fc7"], "no layers ['fc7'], but ['conv1',"),
        (["--limit", "100"], "190 images in all"),
        (["--validation", "10"], "--validation 10"),
        (["--batch-size", "0"], "--batch-size: expected 1 or more"),
        (["--ood-features", "nowhere.npz"], "nowhere.npz: there is no such file"),
        (["--ood-features", "."], "it is a folder"),
    ],
)
def test_options_that_do_not_go_together(dumps, tmp_path, capsys, args, message):
    assert main(tmp_path, dumps, *args) == 1
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_rows_of_two_sets_stand_in_the_table(dumps, tmp_path):
    """A warning on the screen is gone when the table is read."""
    for name, array in dumps["ood"].items():
        array[:3] = dumps["in"][name][:3]
    with pytest.warns(UserWarning, match="3 rows in common, of 200 and 40"):
        assert main(tmp_path, dumps) == 0
    path, facts = results(tmp_path)
    (told,) = (text for text in facts["warnings"] if "in common" in text)
    names = [str(tmp_path / f"{of}.npz") for of in ("in", "ood")]
    assert told.startswith(" and ".join(names))
    assert f"warning: {told}" in (path / "metrics.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_where_the_channels_are_can_be_told(dumps, tmp_path):
    """As the error says; the average is over the other axis."""
    for arrays in dumps.values():
        arrays["conv1"] = arrays["conv1"][:, :, 0]  # [n, 4, 2]
    rows = {}
    for channels in ("first", "last"):
        assert main(tmp_path, dumps, "--channels", channels, train=True) == 0
        rows[channels] = results(tmp_path)[1]["methods"]
    for name in ("mahalanobis clean", "gram"):
        assert rows["first"].pop(name)["auroc"] != rows["last"].pop(name)["auroc"]
    assert rows["first"] == rows["last"]
