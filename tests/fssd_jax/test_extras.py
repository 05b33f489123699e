"""What is not installed says what installs it, in one line."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import fssd_jax
from fssd_jax import InputError, extras
from fssd_jax.data import sources

ROOT = Path(__file__).parents[2]
BLOCK = "import sys; sys.modules['{package}'] = None; "


def test_each_package_is_of_the_extra_that_has_it():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = told["project"]["optional-dependencies"]
    for package, extra in extras.EXTRAS.items():
        wanted = package.replace("_", "-")
        assert any(entry.startswith(wanted) for entry in optional[extra]), package


def last_line(code, package, *args):
    done = subprocess.run(
        [sys.executable, *args] if args else
        [sys.executable, "-c", BLOCK.format(package=package) + code],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    return done.stderr.strip().splitlines()


@pytest.mark.parametrize(
    ("package", "code"),
    [
        ("matplotlib", "import analysis.plots"),
        ("matplotlib", "import analysis.kernel_plots"),
        ("matplotlib", "import experiments.harness.keys"),
        ("rich", "import experiments.table2"),
        ("tyro", "import experiments.score"),
        ("neural_tangents", "import analysis.neural_tangents_compat"),
    ],
)
def test_imports_of_the_library(package, code):
    *_, told = last_line(code, package)
    extra = extras.EXTRAS[package]
    assert f"the package {package} is not installed" in told
    assert f'pip install "fssd-jax[{extra}]"' in told


def test_no_module_of_analysis_is_silent_about_matplotlib():
    names = sorted(f"analysis.{path.stem}" for path in (ROOT / "analysis").glob("*.py"))
    code = (
        "from importlib import import_module\n"
        f"for name in {names}:\n"
        "    try: import_module(name)\n"
        "    except ImportError as error: print(name, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", BLOCK.format(package="matplotlib") + "\n" + code],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    told = done.stdout.splitlines()
    assert any(line.startswith("analysis.phase_plots ") for line in told)
    assert all(line.endswith('pip install "fssd-jax[experiments]"') for line in told)


@pytest.mark.parametrize("package", ["matplotlib", "rich", "tyro"])
def test_commands_say_it_in_one_line(package):
    code = "from fssd_jax.__main__ import main; sys.exit(main(['score', '--help']))"
    (told,) = last_line(code, package)
    assert told.startswith("error: the experiments: the package")
    assert told.endswith('pip install "fssd-jax[experiments]"')


def test_a_script_run_as_a_module_says_it_in_one_line(tmp_path, monkeypatch):
    """A module that cannot be imported stands for one that is not there."""
    (tmp_path / "tyro.py").write_text("raise ModuleNotFoundError(name='tyro')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    for name in ("experiments.score", "benchmarks.all"):
        (told,) = last_line("", "", "-m", name)
        assert told.endswith(
            'tyro is not installed; pip install "fssd-jax[experiments]"'
        )


def test_a_set_that_tfds_would_have_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    told = sources.from_tfds("mnist", "test")
    assert told == 'not installed (tensorflow_datasets): pip install "fssd-jax[data]"'


def test_a_table_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    metrics = fssd_jax.evaluate(np.arange(3.0), np.arange(2.0))
    table = fssd_jax.Comparison({"msp": metrics}, {})
    with pytest.raises(extras.MissingExtraError, match=r"fssd-jax\[tables\]"):
        table.to_frame()


def test_a_package_that_is_there_but_broken_is_not_called_missing(
    monkeypatch, tmp_path
):
    (tmp_path / "rich.py").write_text("raise ImportError('libthing.so: not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "rich", raising=False)
    with pytest.raises(InputError, match=r"cannot be imported \(libthing.so"):
        extras.need("rich", "tables")
    # Both kinds: who catches either is served.
    with pytest.raises(ImportError):
        extras.need("rich", "tables")
