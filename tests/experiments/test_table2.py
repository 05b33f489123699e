"""The whole road on a tiny preset; slow parts are shared by the tests."""

import errno
import json
import re

import numpy as np
import pytest

from experiments import table2
from experiments.comparison import report
from experiments.harness import files, records, weights
from fssd_jax.checks import DivergedError
from tests.experiments.conftest import near_only
from tests.experiments.recorded import recorded
from tests.experiments.screen import assert_it_fits
from tests.npz import read_npz

PICTURES = ("layers", "features", "roc", "epsilon")
FILES = {
    "config.json", "metrics.json", "metrics.csv", "metrics.md", "metrics.tex",
    "scores.npz", "timing.json", "report.html", "explorer.npz",
    *(f"{p}.{e}" for p in PICTURES for e in ("png", "pdf")),
}  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert table2.main(["--tiny", "--seeds", "0", "1", "--out", str(folder)]) == 0
    return folder


def folders(out):
    return sorted(p for p in (out / "table2").iterdir() if p.is_dir())


def read(path):
    return json.loads((path / "metrics.json").read_text())


def test_one_complete_folder_for_each_pair_and_seed(out):
    names = [
        re.fullmatch(r"(\w+)-paper-(\d)-[0-9a-f]{8}", p.name) for p in folders(out)
    ]
    assert [n.groups() for n in names if n] == [
        ("digits_far", "0"), ("digits_far", "1"),
        ("digits_near", "0"), ("digits_near", "1"),
    ]  # fmt: skip
    for path in folders(out):
        assert {p.name for p in path.iterdir()} == FILES


def test_metrics_hold_what_they_should(out):
    for path in folders(out):
        m = read(path)
        assert set(m) >= {
            "benchmark", "protocol", "seed", "data", "model", "epsilon", "layers",
            "methods", "controls", "counts", "paper", "versions", "device", "warnings",
        }  # fmt: skip
        assert set(m["model"]) >= {"accuracy", "epochs", "parameters"}
        assert [layer["name"] for layer in m["layers"]] == [
            "conv1", "conv2", "fc1", "logits",
        ]  # fmt: skip
        assert m["layers"][0]["dim"] == 26 * 26 * 8  # of --tiny
        for row in (*m["methods"].values(), *m["controls"].values()):
            for metric in ("auroc", "auprc", "fpr80", "fpr95"):
                low, high = row[f"{metric}_ci95"]
                assert 0 <= low <= row[metric] <= high <= 1
                assert low < high
        for source in m["data"].values():
            assert re.fullmatch("[0-9a-f]{64}", source["sha256"])
            assert source["version"].startswith("scikit-learn ")
        assert set(m["data"]) >= {"digits/train", "digits/test"}


def test_records_are_what_metrics_tell(out):
    for path in folders(out):
        m, told = read(path), recorded(path)
        for kind in ("methods", "controls"):
            for name, row in m[kind].items():
                for metric in ("auroc", "auprc", "fpr80", "fpr95"):
                    at = {"method": name, "quantity": metric.upper(), "layer": None}
                    found = told(seed=m["seed"], condition="paper", **at)
                    assert found == [(row[metric], *row[f"{metric}_ci95"])]
        for layer in m["layers"]:
            at = {"method": "fssd", "layer": layer["name"]}
            assert told(quantity="AUROC", **at) == [(layer["auroc"], None, None)]
            ends = layer["auroc_no_step_ci95"]
            found = told(quantity="AUROC, ε = 0", **at)
            assert found == [(layer["auroc_no_step"], *ends)]
            assert told(quantity="α", **at) == [(layer["alpha"], None, None)]
        for test in (test for test in m["paired"] if test["against"]):
            at = {"method": test["row"], "against": test["against"]}
            found = told(quantity="difference of AUROC", **at)
            assert found == [(test["difference"], *test["ci95"])]
        accuracy = m["model"]["accuracy"]
        assert told(quantity="accuracy") == [(accuracy, None, None)]


def test_a_tree_of_results_is_one_table(out):
    """Of all folders, or those that a pattern has; each row tells its folder."""
    pytest.importorskip("pandas")
    frame = records.read(out)
    assert set(frame.folder) == {path.name for path in folders(out)}
    assert set(frame.experiment) == {"table2"}
    far = records.read(f"{out}/table2/digits_far-paper-*")
    assert set(far.benchmark) == {"digits_far"}
    assert set(far.seed) == {0, 1}
    for digest, of in frame.groupby("digest"):
        assert all(name.endswith(f"-{digest}") for name in of.folder)
    mean = frame[(frame.quantity == "AUROC") & frame.layer.isna()]
    mean = mean.groupby(["benchmark", "method"]).value.mean()
    aggregate = json.loads((out / "table2" / "aggregate.json").read_text())
    for name, group in aggregate.items():
        for method, of in group["methods"].items():
            found = mean[name.split("-")[0], method]
            assert found == pytest.approx(of["auroc"]["mean"])


def test_warnings_name_inverted_layers_and_signs():
    def layer(name, plain, stepped, alpha):
        return {
            "name": name, "auroc_no_step": plain, "auroc": stepped, "alpha": alpha,
            "inverted": plain < 0.5,
        }  # fmt: skip

    layers = [
        layer("good", 0.9, 0.95, 1.0),
        layer("by_step", 0.6, 0.4, -1.0),
        layer("always", 0.2, 0.1, -1.0),
        layer("against", 0.8, 0.8, -1.0),
    ]
    texts = report.layer_warnings(layers, 0.2)
    assert [t.split()[1] for t in texts] == ["by_step", "always", "against"]
    assert "AUROC 0.600 at ε = 0, 0.400 at the chosen ε = 0.2; α -1" in texts[0]
    assert "turned round by the input step" in texts[0]
    assert "inverted" in texts[1]
    assert "against its own AUROC" in texts[2]


def test_scores_on_disk_give_the_metrics(out):
    from sklearn.metrics import roc_auc_score

    path = folders(out)[0]
    m, scores = read(path), read_npz(path / "scores.npz")
    assert len(scores["fssd/ind"]) == m["counts"]["test_ind"]
    for kind in ("methods", "controls"):
        for name, row in m[kind].items():
            ind, ood = scores[f"{name}/ind"], scores[f"{name}/ood"]
            y = np.r_[np.ones(len(ind)), np.zeros(len(ood))]
            auroc = roc_auc_score(y, np.r_[ind, ood])
            assert row["auroc"] == pytest.approx(auroc, abs=1e-9)


def test_the_aggregate_is_over_seeds(out):
    aggregate = json.loads((out / "table2" / "aggregate.json").read_text())
    assert len(aggregate) == 2
    for name, group in aggregate.items():
        pair, protocol, digest = name.split("-")
        values = [
            read(out / "table2" / f"{pair}-{protocol}-{seed}-{digest}")["methods"]
            for seed in group["seeds"]
        ]
        found = group["methods"]["msp"]["auroc"]
        expected = [v["msp"]["auroc"] for v in values]
        assert found["mean"] == pytest.approx(np.mean(expected))
        assert found["std"] == pytest.approx(np.std(expected, ddof=1))


def test_the_report_shows_every_row_and_picture(out):
    path = folders(out)[0]
    text = (path / "report.html").read_text()
    assert text.count("<img alt=") == 4
    for name in ("fssd", "msp", "control: untrained", "conv2", "sha256"):
        assert name in text


@pytest.mark.usefixtures("undrawn")
def test_the_same_again_gives_the_same_bytes(out, tmp_path, monkeypatch):
    monkeypatch.setattr(table2, "load_benchmark", near_only)
    assert table2.main(["--tiny", "--seeds", "1", "--out", str(tmp_path)]) == 0
    (path,) = folders(tmp_path)
    twin = out / "table2" / path.name
    for name in ("metrics.json", "metrics.csv", "config.json", "scores.npz"):
        assert (path / name).read_bytes() == (twin / name).read_bytes()


def test_what_is_there_is_not_computed_again(out, capsys, monkeypatch):
    monkeypatch.setattr(table2, "prepare", None)  # would fail if called
    assert table2.main(["--tiny", "--seeds", "0", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("already there") == 2
    assert printed.count("results: ") == 2  # which `fssd all` reads
    assert_it_fits(printed, ["AUROC", "FPR95", "fitted on", "inverted", "α"])


def test_clean_uses_no_ood_data(out, capsys):
    args = ["--tiny", "--protocol", "clean", "--methods", "fssd", "--out", str(out)]
    assert table2.main(args) == 0
    for path in (p for p in folders(out) if "-clean-" in p.name):
        m = read(path)
        assert m["epsilon"] == 0
        assert m["methods"]["fssd"]["fitted_on"] == "20 in"
        assert {abs(layer["alpha"]) for layer in m["layers"]} == {1.0}
        assert not (path / "epsilon.png").exists()
        assert list(m["methods"]) == [
            *("fssd", "fssd, photographs"),
            *("fssd deep", "fssd deep, photographs"),
        ]


def test_an_interrupted_run_leaves_nothing_half_written(tmp_path, monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(table2, "load_benchmark", near_only)
    monkeypatch.setattr(table2.tables, "every_metric", interrupted)
    args = ["--tiny", "--protocol", "clean", "--methods", "msp"]
    assert table2.main([*args, "--out", str(tmp_path)]) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert list((tmp_path / "table2").iterdir()) == []


def test_what_a_killed_run_left_is_swept_away(tmp_path):
    left = tmp_path / ".name.123.unfinished"
    left.mkdir()
    (left / "half").touch()
    with files.results_folder(tmp_path / "name") as folder:
        (folder / "whole").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["name", "whole"]


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(table2, "load_benchmark", None)  # would fail if called
    (tmp_path / "file").touch()
    assert table2.main(["--tiny", "--out", str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err
    assert "cannot write to" in error
    assert "--out" in error


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epochs", "0"], "--epochs: expected 1 or more, got 0"),
        (["--seeds"], "at least one seed"),
        (["--seeds", "-1"], "--seeds: expected 0 to"),
        (["--methods", "fsdd"], "unknown fsdd; choose from all, layers, fssd_noise,"),
        (["--short-epochs", "0"], "--short-epochs: expected 1 or more, got 0"),
        (["--train-size", "0"], "--train-size: expected 1 or more, got 0"),
    ],
)
def test_bad_options(args, message, tmp_path, capsys):
    assert table2.main(["--out", str(tmp_path), *args]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [["--benchmark", "digit"], ["--protocol", "dirty"]])
def test_unknown_names_list_the_right_ones(args, capsys):
    with pytest.raises(SystemExit):
        table2.main(args)
    printed = "".join(capsys.readouterr())
    choices = {"--benchmark": "digits", "--protocol": "clean"}
    assert choices[args[0]] in printed


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        table2.main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for word in (
        "fssd table2",
        "--seeds",
        "--protocol",
        "report.html",
        *table2.METHODS,
        *table2.VARIANTS,
    ):
        assert word in printed


def test_a_diverged_run_is_one_line(monkeypatch, tmp_path, capsys):
    def diverged(*args, **kwargs):
        raise DivergedError("the training loss was not finite")

    monkeypatch.setattr(weights, "trained", diverged)
    assert table2.main(["--tiny", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: the training loss was not finite\n"


def test_a_full_disk_is_one_line_and_a_bug_is_not(monkeypatch, tmp_path, capsys):
    def raising(error):
        def trained(*args, **kwargs):
            raise error

        monkeypatch.setattr(weights, "trained", trained)
        return table2.main(["--tiny", "--out", str(tmp_path)])

    full = OSError(errno.ENOSPC, "No space left on device", "results/x.npz")
    assert raising(full) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: cannot write results/x.npz: No space left")
    assert "--out" in error
    with pytest.raises(FileNotFoundError):
        raising(FileNotFoundError(errno.ENOENT, "no such file"))
