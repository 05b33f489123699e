"""All methods through the whole road, on a tiny preset."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from experiments import table2
from experiments.comparison import (
    answers,
    chosen,
    controls,
    methods,
    pictures,
    report,
    retrained,
    rows,
    singular,
    variants,
)
from experiments.comparison.rows import Method, Scored
from experiments.harness.sheets import FORMATS
from fssd_jax import checkpoint, head, map_batches, metrics
from fssd_jax.data import pipeline
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.detectors import nnguide, react, she, vim
from tests.experiments.conftest import near_only
from tests.experiments.recorded import recorded
from tests.npz import read_npz

ROWS = {
    "methods": [
        *(f"fssd {layer}" for layer in ("conv1", "conv2", "fc1", "logits")),
        *("fssd noise", "fssd clean", "fssd clean, photographs"),
        *("fssd deep", "fssd deep, photographs"),
        *("fssd tiles", "fssd tiles, photographs"),
        *("displacement", "relative displacement", "msp", "max logit"),
        *("energy", "gen", "kl matching", "ash", "scale", "react", "dice", "vim"),
        *("fdbd", "knn", "nnguide", "she", "gram", "feature norm"),
        *("relative mahalanobis", "mahalanobis clean", "fssd + mahalanobis"),
        *("fssd + mahalanobis, photographs", "deep ensemble"),
        *("mc dropout", "mc dropout, mean"),
        *("mc dropout, variance", "outlier exposure, fine-tuned"),
        *("outlier exposure, from scratch", "odin", "mahalanobis", "fssd"),
    ],
    "controls": [
        *("control: untrained", "control: untrained, clean"),
        *(f"control: untrained, {layer}" for layer in ("conv1", "conv2")),
        *("control: untrained, fc1", "control: untrained, logits"),
        *("control: pixel stats", "control: raw pixels"),
        *("control: nearest in pixels", "control: brightness"),
    ],
}


def no_download(name="auto", data_dir=None):
    x = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1), np.uint8)
    return ArrayDataset(x, np.zeros(64, np.int32), "made_up", "train", "a test", "0")


# Of `everything`: (score, data, digest of the network) of each pass or look.
PASSES: list[tuple[str, object, str]] = []
SETTINGS: list = []


def note_passes(patch) -> None:
    batches, answer, look = pipeline.batches, report.answer, answers.look

    def noted(data, *args, **kwargs):
        of = sys._getframe(1).f_locals  # of `scored_batches`, if it is asked by that
        score = getattr(of.get("score"), "func", of.get("score"))
        name = f"{getattr(score, '__module__', '')}.{getattr(score, '__name__', '')}"
        PASSES.append((name, data, checkpoint.tree_digest(of.get("variables"))))
        return batches(data, *args, **kwargs)

    def answered(s, *args, **kwargs):
        SETTINGS.append(s)
        return answer(s, *args, **kwargs)

    def looked(asked, variables, x, **options):
        PASSES.append(("look", x, checkpoint.tree_digest(variables)))
        return look(asked, variables, x, **options)

    patch.setattr(answers, "look", looked)
    patch.setattr(pipeline, "batches", noted)
    patch.setattr(report, "answer", answered)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A run of all methods that was interrupted at ODIN and started again."""
    out = tmp_path_factory.mktemp("all")
    args = ["--tiny", "--methods", "all", "--out", str(out)]

    def interrupted(setting):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table2, "load_benchmark", near_only)
        patch.setattr(chosen, "outliers", no_download)
        patch.setattr(retrained, "MEMBERS", 3)  # each is another training
        patch.setattr(retrained, "RATES", (0.05,))
        note_passes(patch)
        with patch.context() as broken:
            broken.setitem(table2.METHODS, "odin", Method(run=interrupted))
            assert table2.main(args) == 130
        before = {p: p.stat().st_mtime_ns for p in (out / "scores").rglob("*.npz")}
        assert table2.main(args) == 0
    (path,) = (p for p in (out / "table2").iterdir() if p.is_dir())
    return out, path, before


@pytest.mark.usefixtures("everything")
def test_an_image_passes_a_network_once_beyond_steps_and_dropout():
    """Of the run that was interrupted behind the look, and the one that went on."""
    tested = [s.test_ind for s in SETTINGS]
    of_test = [
        (name, of) for name, data, of in PASSES if any(data is t for t in tested)
    ]
    looks = Counter(of for name, of in of_test if name == "look")
    assert list(looks.values()) == [1, 1], looks  # before training, and after it
    own = checkpoint.tree_digest(SETTINGS[0].variables)
    others = Counter(
        name.removeprefix("fssd_jax.") for name, of in of_test if of == own
    )
    of_steps = "fssd.fssd", "detectors.odin.score", "detectors.mahalanobis.score"
    assert {"look", "detectors.odin.score"} <= set(others) <= {"look", *of_steps}
    assert set(others.values()) == {1}
    train = SETTINGS[0].train.x
    of_train = [
        name for name, data, of in PASSES if of == own and np.shape(data) == train.shape
    ]
    # The layer before the logits, of which eight methods are fitted; each class's
    # means, by each of the two runs; Gramians; FeatureNorm's 2,000 images, here all.
    assert Counter(name.rpartition(".")[2] for name in of_train) == {
        "_of_training": 1, "_pooled": 2, "_sums_and_logits": 1, "norms": 1,
    }  # fmt: skip


def test_it_has_every_row_and_what_each_was_fitted_on(everything):
    _, path, _ = everything
    found = report.read(path)
    for kind, names in ROWS.items():
        assert list(found[kind]) == names
    methods = found["methods"]
    assert [n for n, row in methods.items() if row["target_ood"]] == [
        "mc dropout", "mc dropout, mean", "mc dropout, variance", "odin",
        "mahalanobis", "fssd",
    ]  # fmt: skip
    for row in (row for kind in ROWS for row in found[kind].values()):
        assert row["target_ood"] == ("target OoD" in row["fitted_on"])
    assert methods["outlier exposure, fine-tuned"]["fitted_on"] == "64 made_up"
    assert methods["fssd fc1"]["fitted_on"] == "nothing"
    assert methods["vim"]["fitted_on"] == "training set"
    assert methods["kl matching"]["fitted_on"] == "20 in"
    assert methods["gram"]["fitted_on"] == "20 in, training set"
    for name in ("gen", "ash", "scale"):
        assert methods[name]["fitted_on"] == "nothing"
    sources = ("shuffled pixels", "scaled noise", "OoD validation")
    for name in (
        "fssd, no input step",
        *(f"fssd, F* of {source}, fc1" for source in sources),
        "fssd, 3 networks, clean",
        "fssd, LeNet and perceptron, labels",
        "relative displacement, conv2",
    ):
        assert name in found["variants"]


def test_an_interrupted_run_goes_on_at_the_method_it_was_in(everything):
    out, _, before = everything
    after = {p: p.stat().st_mtime_ns for p in (out / "scores").rglob("*.npz")}
    assert {p: after[p] for p in before} == before
    # What the look gave, and the methods before ODIN with passes of their own.
    known = (methods.METHODS, variants.VARIANTS, controls.CONTROLS)
    all_of_them = [(name, m) for of in known for name, m in of.items()]
    every = [(name, m) for name, m in all_of_them if "symbols" not in m.needs]  # ids
    looked = [name for name, m in every if m.run is None]
    own = ["deep_ensemble", "mc_dropout", "outlier_exposure"]
    assert len(before) == len(looked) + len(own) + 1  # and what pictures are drawn from
    assert len(after) == len(every) + 1


def test_other_methods_are_taken_from_what_is_there(everything, monkeypatch):
    out, path, _ = everything
    monkeypatch.setattr(table2, "load_benchmark", near_only)
    monkeypatch.setattr(answers, "look", None)  # would fail if called
    assert table2.main(["--tiny", "--methods", "energy", "--out", str(out)]) == 0
    (fewer,) = (
        p for p in (out / "table2").iterdir() if p.is_dir() and p.name != path.name
    )
    found = report.read(fewer)["methods"]
    assert found == {"energy": report.read(path)["methods"]["energy"]}


def test_tables_come_as_markdown_csv_and_latex(everything):
    out, _, _ = everything
    for ending in FORMATS:
        texts = [p.read_text() for p in (out / "table2").glob(f"digits-*.{ending}")]
        # Those of other runs, such as of one method, are kept beside it.
        assert any("energy" in text and "mahalanobis" in text for text in texts)


def test_costs_are_told(everything):
    _, path, _ = everything
    timing = json.loads((path / "timing.json").read_text())
    seconds = timing["scoring_seconds_per_1000_images"]
    assert set(timing["seconds"]) >= {"training", "odin", "fssd"}
    assert set(seconds.values()) == {None}  # a smoke test times no method by itself
    row = report.read(path)["methods"]["deep ensemble"]
    assert (row["training"], row["passes"]) == ("2 networks", "3")


def test_the_paired_test_is_against_the_best_that_used_no_more_labels():
    rng = np.random.default_rng(0)

    def row(shift, target_ood=False):
        ind, ood = rng.normal(shift, 1, 200), rng.normal(0, 1, 150)
        return Scored(ind, ood, target_ood=target_ood)

    rows = {
        "fssd clean": row(1.0), "fssd": row(2.0, True), "fssd fc1": row(9.0),
        "msp": row(0.5), "energy": row(0.8), "odin": row(3.0, True),
    }  # fmt: skip
    controls = {"control": row(1.5, True), "inverted": row(-2)}
    groups = {"methods": rows, "controls": controls}
    tests = {(t["row"], t["kind"]): t for t in report.paired_tests(groups)}
    assert {key: t["against"] for key, t in tests.items()} == {
        ("fssd", "method"): "odin", ("fssd", "control"): "control",
        ("fssd clean", "method"): "energy",
        ("fssd clean", "control"): None,  # better than chance
    }  # fmt: skip
    a, b = rows["fssd"], rows["odin"]
    difference = metrics.auroc(a.ind, a.ood) - metrics.auroc(b.ind, b.ood)
    assert tests["fssd", "method"]["difference"] == pytest.approx(difference)


def test_pictures_are_drawn_from_what_is_kept(everything, setting, monkeypatch):
    """No network is run, and what is drawn is what was scored."""
    out, path, _ = everything
    (kept,) = (out / "scores").iterdir()
    for call in ("_score_batch", "_score_shards"):
        monkeypatch.setattr(pipeline, call, None)  # would fail if called
    found = answers.answer(setting, ["fssd", "msp"], kept)
    figures = pictures.figures(found, "a title")
    assert set(figures) == {"layers", "features", "roc", "epsilon"}
    titles = [ax.get_title() for ax in figures["layers"].axes]
    expected = [
        f"{layer['name']}\nAUROC {layer['auroc_no_step']:.3f}"
        for layer in report.read(path)["layers"]
    ]
    assert titles == expected
    for figure in figures.values():
        plt.close(figure)
    # Of the ensembles that were asked for, of this seed and of all: here one.
    over_all = [p.name for p in path.parent.glob("*-digits_near-ensembles.*")]
    assert {Path(name).suffix for name in over_all} == {".png", ".pdf"}
    assert (path / "ensembles.png").exists()
    assert 'alt="ensembles"' in (path / "report.html").read_text()


def test_what_gives_no_row_is_told(setting, everything):
    out, _, _ = everything
    (kept,) = (out / "scores").iterdir()
    alone = setting._replace(training=None, train=None)
    found = answers.answer(alone, ["msp", "knn", "vim", "deep_ensemble"], kept)
    assert found.left_out == {
        "knn": "it needs train", "vim": "it needs train",
        "deep_ensemble": "it needs training",
    }  # fmt: skip
    assert list(found.groups["methods"]) == ["msp"]


def test_a_last_layer_that_is_not_linear_is_told(setting, everything):
    out, _, _ = everything
    (kept,) = (out / "scores").iterdir()

    def squared(variables, x):
        return setting.logit_fn(variables, x) ** 2

    other = setting._replace(logit_fn=squared)
    found = answers.answer(other, ["msp", "vim", "react"], kept)
    assert set(found.left_out) == {"vim", "react"}
    for why in found.left_out.values():
        assert why.startswith("it needs a linear last layer (no linear last layer: no")
    assert setting.head is not None


def test_rivals_score_as_the_library_does_on_the_images(setting):
    """What is fitted on kept features is what the images give."""
    s = setting
    network = s.averaged_fn, s.variables
    both = head.with_logits(s.feature_fn, s.logit_fn)
    labelled = s.train.x, s.train.y, s.num_classes, "fc1"
    expected = {
        "vim": vim.fit(*network, s.head, s.train.x),
        "react": react.fit(*network, s.head, s.train.x),
        "she": she.fit(both, s.variables, *labelled),
        "nnguide": nnguide.fit(both, s.variables, s.train.x, "fc1", k=10),
    }
    for name, state in expected.items():
        (ask,) = methods.METHODS[name].ask(s)
        of = ask.question.score, ask.question.apply_fn, s.variables
        states = ask.question.state, state
        found, own = (map_batches(*of, one, s.test_ind) for one in states)
        np.testing.assert_allclose(found, own, 1e-3, 1e-4 * np.ptp(own), err_msg=name)


def test_auprc_out_and_other_rates_are_told(everything):
    _, path, _ = everything
    told, scores = report.read(path)["methods"], read_npz(path / "scores.npz")
    for name in ("fssd", "vim", "gram"):
        ind, ood = scores[f"{name}/ind"], scores[f"{name}/ood"]
        outside = np.repeat([0, 1], [len(ind), len(ood)])
        expected = average_precision_score(outside, -np.concatenate([ind, ood]))
        assert told[name]["auprc_out"] == pytest.approx(expected)
        low, high = told[name]["auprc_out_ci95"]
        assert low <= expected <= high
        for percent in (50, 90, 99):
            least = np.sort(ind)[::-1][int(np.ceil(len(ind) * percent / 100)) - 1]
            assert told[name][f"fpr{percent}"] == np.mean(ood >= least)
            found = recorded(path)(method=name, quantity=f"FPR{percent}", layer=None)
            assert found[0][0] == told[name][f"fpr{percent}"]


def test_the_time_of_a_method_is_its_own(setting, monkeypatch):
    (ask,) = methods.METHODS["msp"].ask(setting)
    clock = iter([10.0, 10.5])
    monkeypatch.setattr(rows.time, "perf_counter", lambda: next(clock))
    of = ask.question, setting.variables
    assert answers.seconds_alone(setting, *of) is None  # a smoke test
    found = answers.seconds_alone(setting._replace(timed=True), *of)
    # A whole batch of 64 images.
    assert found == pytest.approx(1000 * 0.5 / 64)


@pytest.mark.parametrize("name", ["mc_dropout", "odin", "mahalanobis", "fssd"])
def test_the_test_images_decide_no_choice(name, setting):
    s = setting
    swapped = s._replace(test_ind=s.test_ood[:50], test_ood=s.test_ind[:50])
    found, expected = (methods.METHODS[name].run(setting) for setting in (swapped, s))
    assert {k: r.note for k, r in found.items()} == {
        k: r.note for k, r in expected.items()
    }
    for k, row in found.items():
        # The same image has the same score in either run.
        np.testing.assert_allclose(row.ood, expected[k].ind[:50], rtol=1e-4, atol=1e-5)


def test_the_end_of_the_grid_is_told():
    class State(NamedTuple):
        epsilon: float | None
        epsilons: tuple[float, ...]

    grid = (0.0, 0.1, 0.2)
    assert singular.epsilon_note(State(0.2, grid)) == "ε = 0.2, the largest tried"
    assert singular.epsilon_note(State(0.1, grid)) == "ε = 0.1"
    assert singular.epsilon_note(State(None, grid)) == "ε = 0"
    assert singular.epsilon_note(State(None, ())) == "ε = 0"


def test_the_roc_shows_whole_methods_only():
    names = ["fssd", "fssd clean", "fssd fc1", "fssd, 3 networks, clean", "energy"]
    names += ["mc dropout", "mc dropout, mean", "outlier exposure, fine-tuned"]
    names += ["displacement", "displacement, fc1", "control: raw pixels"]
    names += ["control: untrained", "control: untrained, clean"]
    left_out = ["fssd fc1", "fssd, 3 networks, clean", "mc dropout, mean"]
    left_out += ["displacement, fc1", "control: untrained, fc1"]
    shown = [n for n in [*names, "control: untrained, fc1"] if pictures.in_roc(n)]
    assert shown == [n for n in names if n not in left_out]
