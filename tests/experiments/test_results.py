"""The one exit: names, files, and what a name depends on."""

import json

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

from analysis import pixels
from experiments.comparison import rows
from experiments.harness import files, provenance, records, results, sheets
from experiments.harness.sheets import Sheet
from fssd_jax import InputError
from fssd_jax.data.sources import ArrayDataset, digest
from tests.npz import read_npz


def dataset(seed=0, source="somewhere", name="set"):
    x = np.random.default_rng(seed).uniform(size=(3, 2, 2, 1)).astype(np.float32)
    y = np.zeros(3, np.int32)
    return ArrayDataset(x, y, name, "test", source, digest(x, y))


def place(folder, data=(), measured_by=pixels, **options):
    return results.place(
        folder, "study", "pair-0", {"rate": 0.5, **options}, data or [dataset()],
        measured_by=measured_by,
    )  # fmt: skip


def test_the_name_follows_options_data_code_and_nothing_else(tmp_path, monkeypatch):
    first = place(tmp_path).path
    assert first.parent == tmp_path / "study"
    assert first.name.startswith("pair-0-")
    assert place(tmp_path, out="elsewhere", data_dir="x", rerun=True).path == first
    assert place(tmp_path, [dataset(source="/from/another/place")]).path == first
    # Seeds of one configuration have one digest.
    second = results.place(
        *(tmp_path, "study", "pair-1", {"rate": 0.5}, [dataset()]), measured_by=pixels
    )
    assert second.path.name.split("-")[-1] == first.name.split("-")[-1]
    others = [
        place(tmp_path, rate=0.25).path,
        place(tmp_path, [dataset(1)]).path,
        place(tmp_path, measured_by=rows).path,
    ]
    with jax.enable_x64(True):
        others.append(place(tmp_path).path)
    with jax.default_prng_impl("rbg"):
        others.append(place(tmp_path).path)
    versions = provenance.versions()
    for name in ("scipy", "neural-tangents"):
        other = {**versions, name: "0.1"}
        monkeypatch.setattr(provenance, "versions", lambda other=other: other)
        others.append(place(tmp_path).path)
    monkeypatch.setattr(provenance, "versions", lambda: versions)
    monkeypatch.setattr(provenance, "available_cores", lambda: 77)
    others.append(place(tmp_path).path)
    assert len({first, *others}) == 1 + len(others)


def test_sets_of_one_name_are_told_apart_by_role(tmp_path):
    both = {"ind": dataset(0), "ood": dataset(1)}
    found = place(tmp_path, both)
    assert set(found.facts["data"]) == {"ind", "ood"}
    swapped = {"ind": both["ood"], "ood": both["ind"]}
    assert place(tmp_path, swapped).path != found.path


NUMBERS = records.records({"AUROC": 0.5, "FPR95": None, "α": -1}, method="x")


def leave(config, **more):
    figure, ax = plt.subplots()
    ax.plot([0, 1])
    sheet = Sheet(
        "a table", ["name", "AUROC", "more"], [["x", "50.0", "y"]], ["a note"],
        ("name", "AUROC"),
    )  # fmt: skip
    arrays = {"x": np.arange(3)}
    return results.leave(
        config,
        {"found": np.float32(2)},
        NUMBERS,
        [sheet],
        {"line": figure},
        arrays,
        **more,
    )


def test_all_files_of_the_contract(tmp_path, capsys):
    path = leave(place(tmp_path), timing={"seconds": 1})
    assert {p.name for p in path.iterdir()} == {
        "config.json", "metrics.json", "metrics.csv", "metrics.md", "metrics.tex",
        "scores.npz", "line.png", "line.pdf", "report.html", "timing.json",
    }  # fmt: skip
    facts = json.loads((path / "metrics.json").read_text())
    assert facts["found"] == 2
    assert [row["quantity"] for row in facts["records"]] == ["AUROC", "α"]
    assert facts["data"]["set/test"]["sha256"] == dataset().sha256
    options = json.loads((path / "config.json").read_text())["options"]
    assert options == {"rate": 0.5}
    assert "<td>y</td>" in (path / "report.html").read_text()
    printed = capsys.readouterr().out
    assert f"results: {path / 'report.html'}" in printed
    assert "In the files also: more." in printed
    np.testing.assert_array_equal(read_npz(path / "scores.npz")["x"], np.arange(3))


def test_the_unfinished_folder_of_a_living_run_stays(tmp_path):
    """Two runs of one name at once: neither touches the other's files."""
    with files.results_folder(tmp_path / "name") as first:
        (first / "first").touch()
        with files.results_folder(tmp_path / "name") as second:
            (second / "second").touch()
            assert (first / "first").exists()
        assert [p.name for p in (tmp_path / "name").iterdir()] == ["second"]
    assert [p.name for p in tmp_path.rglob("*")] == ["name", "first"]


def test_a_failed_write_leaves_the_old_folder(tmp_path):
    config = place(tmp_path)
    leave(config)

    def broken(path):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        leave(config, extras={"more": broken})
    assert (config.path / "metrics.json").exists()
    assert [p.name for p in config.path.parent.iterdir()] == [config.path.name]


def test_not_a_number_is_no_result(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"auroc": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_damaged_arrays_are_said_to_be(tmp_path):
    files.save_arrays(tmp_path / "a.npz", {"x": np.arange(100)})
    np.testing.assert_array_equal(
        files.load_arrays(tmp_path / "a.npz")["x"].sum(), 4950
    )
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:60])
    with pytest.raises(InputError, match="delete it"):
        files.load_arrays(tmp_path / "a.npz")


def test_the_screen_is_no_wider_than_a_terminal(capsys):
    wide = Sheet("t", [f"column {i}" for i in range(12)], [["word " * 9] * 12], [])
    sheets.show([wide])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= sheets.WIDTH
