"""Several processes that work as one, here: their numbers are those of one."""

import json
import sys
import time

import numpy as np
import pytest

from experiments.harness import cli
from fssd_jax import InputError, checkpoint, processes
from tests import several
from tests.fssd_jax.several_program import HEARTBEAT, Config, X, numbers, run

PROGRAM = "-m", "tests.fssd_jax.several_program"


@pytest.fixture(scope="module")
def of_one(tmp_path_factory) -> dict[str, np.ndarray]:
    return numbers(tmp_path_factory.mktemp("one"))


FOUR = pytest.param(4, 1, marks=pytest.mark.slow)  # of two cores, a minute


@pytest.mark.parametrize(("count", "devices"), [(2, 2), FOUR])
def test_trainings_fits_and_scores_are_those_of_one_process(
    count, devices, of_one, tmp_path
):
    done = several.run(count, *PROGRAM, "--out", str(tmp_path), devices=devices)
    assert [d.returncode for d in done] == [0] * count, done[0].stderr[-3000:]
    found = [dict(np.load(tmp_path / f"{i}.npz")) for i in range(count)]
    read = [of_each.pop("records read") for of_each in found]
    kernel = np.asarray(
        checkpoint.trained(tmp_path / "plain")[0]["params"]["h"]["kernel"]
    )
    for of_each in found:
        np.testing.assert_array_equal(of_each.pop("read back"), kernel)
        assert of_each.keys() == of_one.keys() - {"records read"}
        for name, values in of_each.items():
            np.testing.assert_allclose(
                values, of_one[name], rtol=1e-5, atol=1e-5, err_msg=name
            )
    # Each reads its rows, the first record for its shape, and the last where it pads.
    assert len(np.unique(np.concatenate(read))) == len(X)
    assert all(len(numbers) < len(X) / count + 6 for numbers in read)
    # One process goes on where several were, here with nothing left to do.
    again = numbers(tmp_path)
    np.testing.assert_array_equal(again["plain, history"], found[0]["plain, history"])


def test_when_one_dies_the_others_end_and_any_number_goes_on(tmp_path):
    killed = several.run(
        2, *PROGRAM, "--out", str(tmp_path), "--what", "killed", "--dies", "1"
    )
    # What one waits for is a heartbeat or two, not the minutes of `several.SECONDS`.
    kept = max(path.stat().st_mtime for path in (tmp_path / "killed").rglob("*"))
    assert time.time() - kept < 3 * HEARTBEAT
    assert killed[1].returncode == -9
    assert killed[0].returncode not in (0, None)
    assert "another process has ended" in killed[0].stderr, killed[0].stderr[-2000:]
    names = [path.name for path in (tmp_path / "killed").iterdir()]
    assert any("step" in name for name in names), names
    done = several.run(4, *PROGRAM, "--out", str(tmp_path), "--what", "killed")
    assert [d.returncode for d in done] == [0] * 4, done[0].stderr[-2000:]
    whole = tmp_path / "whole"
    whole.mkdir()
    run(Config(process_id=0, out=whole, what="killed"))
    kernels = [np.load(folder / "0.npz")["kernel"] for folder in (tmp_path, whole)]
    np.testing.assert_allclose(*kernels, rtol=1e-4, atol=1e-5)


def test_what_differs_between_processes_is_refused(tmp_path):
    done = several.run(2, *PROGRAM, "--out", str(tmp_path), "--what", "differ")
    assert [d.returncode for d in done] == [1, 1]
    assert all("numbers of processes differ" in d.stderr for d in done)


@pytest.mark.parametrize(
    ("count", "methods"),
    [
        (2, ("fssd", "msp", "knn")),
        pytest.param(
            *(4, ("fssd", "msp", "knn", "vim", "mc_dropout")), marks=pytest.mark.slow
        ),
    ],
)
def test_all_of_table_2_with_several_processes(count, methods, tmp_path):
    """The same numbers as of one, and one set of files, which one reads again."""
    options = ("--benchmark", "digits", "--tiny", "--protocol", "clean")
    asked = "--methods", *methods
    command = "-m", "experiments.table2", *options, *asked, "--out"
    done = several.run(count, *command, str(tmp_path / "many"))
    assert [d.returncode for d in done] == [0] * count, done[0].stderr[-3000:]
    assert "digits_near" in done[0].stdout
    assert not any("digits" in d.stdout for d in done[1:])
    several.run(1, *command, str(tmp_path / "one"))
    names = [
        sorted(
            p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("metrics.json")
        )
        for n in ("one", "many")
    ]
    assert names[0] == names[1]
    assert len(names[0]) == 2
    for name in names[0]:
        one, many = (aurocs(tmp_path / n / name) for n in ("one", "many"))
        assert len(one) >= 16
        assert many == pytest.approx(one, abs=1e-5), name
    (again,) = several.run(1, *command, str(tmp_path / "many"))
    assert again.stdout.count("already there") == 2


def aurocs(path) -> dict[str, float]:
    found = json.loads(path.read_text())
    kinds = ("methods", "variants", "controls")
    return {name: row["auroc"] for kind in kinds for name, row in found[kind].items()}


def test_half_of_the_options_is_refused(capsys):
    for options in (
        ("--coordinator", "here:1"),
        ("--distributed", "--num-processes", "2"),
        ("--num-processes", "2", "--process-id", "0", "--coordinator", "here:1"),
    ):
        assert cli.run_main(Config, run, "", list(options)) == 1
        assert "go together, and with --distributed" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"do not come together.*--coordinator"):
        processes.begin()


def test_alone_a_process_agrees_with_itself():
    assert not processes.several()
    assert processes.first()
    assert processes.agreed(lambda: sys.maxsize) == sys.maxsize
    with pytest.raises(ZeroDivisionError):
        processes.agreed(lambda: 1 // 0)
