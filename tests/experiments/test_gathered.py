"""Of the study of rules without labels: what several machines measured is joined."""

import json

import pytest

from experiments import label_free
from experiments.centre_study import explained, gathered, pairs
from fssd_jax.checks import InputError


def a_run(tmp_path, name, seeds, failed=(), **changed):
    """metrics.json of a run on pairs "digits_near" and "digits_far"."""
    both = {
        p: {str(s): v for s, v in seeds.items()} for p in ("digits_near", "digits_far")
    }
    fact = explained.Facts("digits_near", 0, "mlp", "fc1", "noise", *[0.5] * 6)
    told = {
        "aurocs": {"fssd clean": both, "mix 16: deep": both},
        "accuracies": {"digits": {str(s): v / 2 for s, v in seeds.items()}},
        "failed": {f"{of}: left_out": "why" for of in failed},
        "pairs": {"digits": list(both)},
        "settings": gathered.settings({"digits": pairs.FAMILIES["digits"]}, False),
        "machines": {"digits": {str(s): name for s in seeds}},
        "explained": [fact._replace(seed=s)._asdict() for s in seeds],
    }
    told["settings"]["digits"] |= changed
    path = tmp_path / name
    path.write_text(json.dumps(told))
    return path


def test_runs_of_several_machines_are_joined(tmp_path):
    files = [
        a_run(tmp_path, "a.json", {0: 0.9, 1: 0.8}, failed=["digits_near-1"]),
        a_run(tmp_path, "b.json", {1: 0.7, 2: 0.6}),
    ]
    own = gathered.settings(pairs.FAMILIES, False)
    found = gathered.gather(files, own)
    # The first counts, unless a rule failed there.
    assert found.aurocs["mix 16: deep"] == {
        "digits_near": {0: 0.9, 1: 0.7, 2: 0.6},
        "digits_far": {0: 0.9, 1: 0.8, 2: 0.6},
    }
    assert found.accuracies == {"digits": {0: 0.45, 1: 0.4, 2: 0.3}}
    assert [fact.seed for fact in found.facts] == [0, 1, 2]
    assert found.has("digits_near", 2, True)
    assert not found.has("digits_far", 2, True)  # explained, it was not
    assert found.has("digits_far", 2, False)
    assert not found.has("digits_near", 3, False)
    # Of families that are not asked for nothing is taken.
    assert not gathered.gather(files, {"fmnist": own["fmnist"]}).aurocs


def test_runs_of_other_settings_and_other_files_are_refused(tmp_path):
    own = gathered.settings(pairs.FAMILIES, False)
    other = a_run(tmp_path, "a.json", {0: 0.9}, epochs=3)
    with pytest.raises(InputError, match=r"digits was measured with .*'epochs': 3"):
        gathered.gather([other], own)
    (tmp_path / "b.json").write_text('{"methods": {}}')
    with pytest.raises(InputError, match="give the metrics"):
        gathered.gather([tmp_path / "b.json"], own)


@pytest.mark.parametrize(
    "changed",
    [
        *({key: None} for key in ("aurocs", "failed", "pairs", "accuracies")),
        {"settings": ["digits"]},
        {"explained": [{"pair": "digits_near"}]},
        {"aurocs": {"fssd clean": {"digits_near": {"first": 0.9}}}},
    ],
)
def test_a_file_that_holds_something_else_is_told(tmp_path, changed):
    path = a_run(tmp_path, "a.json", {0: 0.9})
    found = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))
    own = gathered.settings(pairs.FAMILIES, False)
    with pytest.raises(InputError, match=r"a\.json: .*give the metrics\.json of a run"):
        gathered.gather([path], own)


def test_what_was_measured_is_not_measured_again(tmp_path, monkeypatch):
    path = a_run(tmp_path, "a.json", {0: 0.9, 1: 0.8})
    monkeypatch.setattr(label_free, "prepare", None)  # to call it is an error
    options = {"seeds": (0, 1), "measured": (path,), "out": tmp_path}
    facts = label_free.run(label_free.Config(("digits",), **options))
    assert facts["aurocs"]["fssd clean"]["digits_far"] == {0: 0.9, 1: 0.8}
    (left,) = (tmp_path / "label_free").glob("*/metrics.json")
    own = facts["settings"]
    assert gathered.gather([left], own).aurocs == facts["aurocs"]
