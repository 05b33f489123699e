"""The command: its menu, and our scripts in a project that has folders of our names."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fssd_jax
from experiments.harness import provenance
from fssd_jax.__main__ import main, menu

ROOT = Path(__file__).parents[2]
SCRIPTS = [path for path in (ROOT / "experiments").glob("*.py") if path.stem[0] != "_"]
MEASURES = "experiments.comparison.report"


def test_help_lists_every_entry_script_by_its_own_words(capsys):
    for args in ([], ["-h"], ["--help"]):
        assert main(args) == 0
        told = capsys.readouterr().out
        for path in SCRIPTS:
            first = ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]
            assert any(
                line.split() == [path.stem, *first.split()]
                for line in told.splitlines()
            )
    assert set(menu()) == {*(path.stem for path in SCRIPTS), "data", "fetch"}


def test_help_and_version_wait_for_nothing_heavy():
    code = (
        "import sys, fssd_jax.__main__ as m; m.main(['--help']); m.main(['--version']);"
        "print(*{'jax', 'numpy', 'tyro', 'experiments'} & set(sys.modules), sep='|')"
    )
    start = time.perf_counter()
    done = run_python("-c", code, cwd=ROOT)
    *_, version, heavy = done.stdout.splitlines()
    assert (version, heavy) == (f"fssd-jax {fssd_jax.__version__}", "")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("scroe", "score"), ("tabel2", "table2"), ("Leakage", "leakage")],
)
def test_a_misspelt_name_suggests_the_nearest(typed, meant, capsys):
    assert main([typed]) == 2
    told = capsys.readouterr().err
    assert f"unknown {typed!r}; did you mean {meant!r}?" in told
    assert told.count("\n") == 1


def test_what_is_like_nothing_suggests_nothing(capsys):
    assert main(["xyzzy"]) == 2
    assert "mean" not in capsys.readouterr().err


def run_python(*args, **kwargs):
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, **kwargs
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Somebody's project: packages and modules of our names that must not be run."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("experiments", "analysis"):
        (folder / name).mkdir()
        for file in ("__init__.py", "score.py", "plots.py"):
            (folder / name / file).write_text("raise RuntimeError('theirs')\n")
    return folder


def test_in_a_project_with_such_folders_ours_are_run(project, monkeypatch):
    """`python -m fssd_jax` has the project first on the path, as PYTHONPATH=. has."""
    monkeypatch.setenv("PYTHONPATH", f".:{ROOT}")
    done = run_python("-m", "fssd_jax", "score", "--help", cwd=project)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: fssd score ")
    assert "--weights" in done.stdout


@pytest.mark.parametrize("theirs", ["experiments.py", "experiments/__init__.py"])
def test_the_digest_of_the_code_does_not_depend_on_the_door(theirs, tmp_path):
    """It names the results folder. Theirs may even have been imported before."""
    path = tmp_path / theirs
    path.parent.mkdir(exist_ok=True)
    path.write_text("theirs = True\n")
    first = "import experiments; assert experiments.theirs;"
    code = (
        f"{first}from fssd_jax.__main__ import claim; claim();"
        "from experiments.harness import provenance;"
        f"print(provenance.code_digest({MEASURES!r}))"
    )
    done = run_python(
        "-c", code, cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    )
    assert done.stdout.strip() == provenance.code_digest(MEASURES), done.stderr


def test_a_script_gets_its_own_arguments_and_gives_its_status(monkeypatch):
    from experiments import gaps

    seen = []
    monkeypatch.setattr(sys, "argv", ["fssd"])
    monkeypatch.setattr(gaps, "main", lambda args: seen.append(args) or 3)
    assert main(["gaps", "--seed", "1"]) == 3
    assert seen == [["--seed", "1"]]
    assert sys.argv[0] == "fssd gaps"  # what help calls itself


def test_fetch_takes_names(monkeypatch, capsys):
    from fssd_jax.data import fetch

    monkeypatch.setattr(sys, "argv", ["fssd"])
    seen = []
    monkeypatch.setattr(fetch, "main", lambda names: seen.append(names) or 0)
    assert main(["fetch", "mnist"]) == main(["fetch"]) == main(["fetch", "-h"]) == 0
    assert seen == [("mnist",), fetch.REQUIRED + fetch.AUXILIARY]
    assert main(["fetch", "imagenet"]) == 2
    assert "choose from fashion_mnist" in capsys.readouterr().err


def test_the_wheel_has_the_command_and_all_that_it_runs():
    """As hatch reads it: the packages beside each other, the markers, the script."""
    import tomllib

    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert told["project"]["scripts"] == {"fssd": "fssd_jax.__main__:main"}
    packages = told["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) == {"fssd_jax", "analysis", "experiments"}
    for package in ("fssd_jax", "analysis"):
        assert (ROOT / package / "py.typed").is_file()
