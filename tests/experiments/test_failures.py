"""A method that fails: its row says so, and the others are what they would be."""

import errno
import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import table2, train_size
from experiments.comparison import answers, pictures, tables
from experiments.comparison.failures import LONGEST, fails_alone
from experiments.comparison.methods import METHODS
from experiments.comparison.rows import Ask, Method, Scored, one_row
from experiments.harness.sheets import FORMATS
from fssd_jax.checks import DivergedError, InputError
from fssd_jax.questions import Question
from tests.experiments.conftest import near_only


def raising(error, *_, **__):
    raise error


def asks(score):
    """A method whose score is asked in the common look."""
    return Method(lambda s: [Ask(Question(score, s.logit_fn, None), one_row("broken"))])


def while_traced(logit_fn, variables, state, x):
    raise RuntimeError(f"{type(x).__name__} cannot be had")


def while_compiled(logit_fn, variables, state, x):
    shape = jax.ShapeDtypeStruct((len(x),), jnp.float32)
    return jax.ffi.ffi_call("of_no_library", shape)(x)


def while_run(logit_fn, variables, state, x):
    call = partial(raising, ValueError("the device is gone"))
    shape = jax.ShapeDtypeStruct((len(x),), jnp.float32)
    return jax.pure_callback(call, shape, x)


def not_a_number(logit_fn, variables, state, x):
    return jnp.log(-1 - logit_fn(variables, x).max(-1) ** 2)


SINGULAR = np.linalg.LinAlgError("Matrix is not positive definite")
BROKEN = {
    "fit": (Method(partial(raising, SINGULAR)), "LinAlgError: Matrix is not positive"),
    "trace": (asks(while_traced), "RuntimeError: "),
    "compile": (asks(while_compiled), "of_no_library"),
    "run": (asks(while_run), "callback: ValueError: the device is gone"),
    "nan": (asks(not_a_number), "max_logit 0: scores of 64 of 64 images are NaN"),
    "own pass": (Method(run=partial(raising, MemoryError())), "MemoryError"),
    "rows of its own": (
        Method(run=lambda s: {"a": Scored(np.full(3, np.inf), np.zeros(2))}),
        "a: 3 of 3 scores are NaN or infinite",
    ),
    "diverged": (Method(run=partial(raising, DivergedError("it was not"))), "it was"),
}


@pytest.fixture(scope="module")
def whole(setting, tmp_path_factory):
    """The rows of one that does not fail, where no controls are asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(answers.GROUPS, "controls", {})
        folder = tmp_path_factory.mktemp("whole")
        return answers.answer(setting, ["msp", "energy", "layers"], folder)


@pytest.fixture
def without_controls(monkeypatch):
    monkeypatch.setitem(answers.GROUPS, "controls", {})


@pytest.mark.parametrize("how", BROKEN)
def test_the_others_keep_their_rows(
    how, setting, whole, tmp_path, monkeypatch, capsys, without_controls
):
    method, reason = BROKEN[how]
    monkeypatch.setitem(METHODS, "max_logit", method)
    wanted = ["msp", "max_logit", "energy", "layers"]
    found = answers.answer(setting, wanted, tmp_path)
    assert list(found.failed) == ["max_logit"]
    assert reason in found.failed["max_logit"]
    assert "\n" not in found.failed["max_logit"]
    assert f"max_logit failed: {found.failed['max_logit']}" in capsys.readouterr().err
    same_rows(found, whole)
    assert found.left_out == {}

    # What did not fail is kept, what did is tried again.
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert len(kept) == 4
    works = Method(run=lambda s: {"mended": Scored(np.zeros(3), np.ones(2))})
    monkeypatch.setitem(METHODS, "max_logit", works)
    again = answers.answer(setting, wanted, tmp_path)
    assert again.failed == {}
    assert "mended" in again.groups["methods"]
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


def same_rows(found, expected):
    rows, of_whole = found.groups["methods"], expected.groups["methods"]
    assert list(rows) == list(of_whole)
    for name, row in rows.items():
        for scores, known in (
            (row.ind, of_whole[name].ind),
            (row.ood, of_whole[name].ood),
        ):
            np.testing.assert_allclose(scores, known, rtol=1e-5, atol=1e-6)
    assert np.all(found.predicted == expected.predicted)


def test_a_method_that_fails_anew_keeps_nothing_of_before(
    setting, tmp_path, monkeypatch, without_controls
):
    asked = setting, ["msp"], tmp_path
    assert list(answers.answer(*asked).groups["methods"]) == ["msp"]
    with monkeypatch.context() as broken:
        broken.setitem(METHODS, "msp", BROKEN["fit"][0])
        found = answers.answer(*asked, again=True)
        assert (list(found.failed), found.groups["methods"]) == (["msp"], {})
    monkeypatch.setattr(answers, "look", partial(raising, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):  # it is asked, not taken from before
        answers.answer(*asked)


def test_what_fails_all_is_no_failure_of_a_method(
    setting, tmp_path, monkeypatch, without_controls
):
    for error in (OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()):
        monkeypatch.setitem(METHODS, "msp", Method(run=partial(raising, error)))
        with pytest.raises(type(error)):
            answers.answer(setting, ["msp"], tmp_path)
    failed = {}
    with fails_alone(failed, "a file that is not there"):
        raise FileNotFoundError(errno.ENOENT, "no such file")
    with fails_alone(failed, "long"):
        raise InputError(f"{'x' * 1000}\nand more")
    assert "no such file" in failed["a file that is not there"]
    assert failed["long"] == "x" * LONGEST + "…"


def test_pictures_that_fail_lose_no_row(
    setting, whole, tmp_path, monkeypatch, without_controls
):
    with monkeypatch.context() as broken:
        broken.setattr(answers, "picture_questions", partial(raising, SINGULAR))
        found = answers.answer(setting, ["msp", "energy", "layers"], tmp_path)
    assert list(found.failed) == ["pictures"]
    assert (found.pictures, found.predicted) == ({}, None)
    assert set(pictures.figures(found, "a title")) == {"roc"}
    again = answers.answer(setting, ["msp", "energy", "layers"], tmp_path)
    same_rows(again, whole)


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """Two methods of a whole run, one of which fails, and the same run mended."""
    out = tmp_path_factory.mktemp("failing")
    args = ["--tiny", "--protocol", "clean", "--methods", "msp", "energy"]
    args += ["--out", str(out)]
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table2, "load_benchmark", near_only)
        for error in (SINGULAR, None):
            with patch.context() as broken:
                if error:
                    broken.setitem(METHODS, "msp", Method(partial(raising, error)))
                status = table2.main(args)
            (path,) = (p for p in (out / "table2").iterdir() if p.is_dir())
            kinds = (".json", ".html", ".md", ".tex", ".csv")
            left = [p for p in path.iterdir() if p.suffix in kinds]
            texts = {p.name: p.read_text() for p in left}
            seen.append((status, texts))
        seen.append((table2.main(args), texts))
    return seen


def test_a_run_tells_what_failed_and_ends_with_status_1(failing):
    (status, texts), _, _ = failing
    assert status == 1
    metrics = json.loads(texts["metrics.json"])
    reason = "LinAlgError: Matrix is not positive definite"
    assert metrics["failed"] == {"msp": reason}
    assert list(metrics["methods"]) == ["energy"]
    assert "control: brightness" in metrics["controls"]
    assert re.search("<td>msp</td><td[^>]*>failed</td>", texts["report.html"])
    assert reason in texts["report.html"]
    assert any(
        line.startswith("| msp | failed |") and line.endswith(f"| {reason} |")
        for line in texts["metrics.md"].splitlines()
    )
    assert "msp & failed &" in texts["metrics.tex"]
    assert "msp" not in texts["metrics.csv"]
    assert "tried again by the same command" in texts["metrics.md"]


def test_the_same_command_tries_again_and_leaves_a_whole_result(failing, capsys):
    _, (status, texts), (third, unchanged) = failing
    assert (status, third) == (0, 0)
    metrics = json.loads(texts["metrics.json"])
    assert metrics["failed"] == {}
    assert list(metrics["methods"]) == ["msp", "energy"]
    # Below them stands metrics.json as it is.
    assert "failed" not in texts["report.html"].partition("<h3>Files</h3>")[0]
    assert unchanged == texts


def test_several_seeds_and_what_is_no_method():
    result = {
        "benchmark": "a pair", "seed": 3, "methods": {}, "variants": {}, "controls": {},
        "failed": {"msp": "why {not} a|b_c\\d", "ensembles": "no", "pictures": "none"},
    }  # fmt: skip
    other = result | {"seed": 4, "failed": {}}
    rows = tables.failed_rows([result, other], ("methods", "controls"))
    assert [row[:2] + row[-1:] for row in rows] == [
        ["msp, seed 3", "failed", "why {not} a|b_c\\d"]
    ]
    assert len(rows[0]) == len(tables.HEADINGS)
    assert tables.failed_rows([result], ("variants",))[0][0] == "ensembles"
    untrained = result | {"failed": {"untrained": "why"}}
    ((title, *_),) = tables.failed_rows([untrained], ("methods", "controls"))
    assert title == "control: untrained"
    assert tables.failed_notes([result])[0] == "pictures failed: none."
    assert tables.failed_notes([other]) == []
    names = tables.failed_names([result, other])
    assert names[0] == "msp (a pair, seed 3)"
    assert len(names) == 3
    of_sizes = {"failed": {1000: names[:1], 20: []}}
    assert train_size.failed_names(of_sizes) == ["msp (a pair, seed 3) of 1,000 images"]
    sheet = tables.Sheet("title", tables.HEADINGS, rows, [])
    shown = {name: as_text(sheet) for name, as_text in FORMATS.items()}
    assert "why {not} a\\|b_c\\d |" in shown["md"]
    assert r"why \{not\} a|b\_c\textbackslash{}d" in shown["tex"]
