"""What a results folder's name follows: the code that decides, found from the code."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.harness import provenance

ROOT = Path(__file__).parents[2]


def test_the_closure_holds_what_only_indirect_imports_reach():
    found = provenance.import_closure("experiments.comparison.report")
    assert found["experiments.comparison.report"].name == "report.py"
    for name in (
        "experiments.comparison.retrained",
        "fssd_jax.detectors.mahalanobis",
        "fssd_jax.data.pipeline",  # dividing by 255
        "fssd_jax.checkpoint",
        "fssd_jax.ensemble",
        "fssd_jax.data.idx",  # by way of sources
        "analysis.pixels",
    ):
        assert name in found
    # What words the tables and draws the pictures decides no number.
    for name in ("tables", "pictures"):
        assert f"experiments.comparison.{name}" not in found
    harness = [f"experiments.harness.{name}" for name in ("results", "sheets", "cli")]
    for name in ("experiments.table2", *harness, "analysis.plots"):
        assert name not in found


def test_foreign_and_unknown_names_are_left_out():
    assert provenance.import_closure("numpy.linalg") == {}
    assert provenance.import_closure("experiments.nothing") == {}


@pytest.fixture
def tree(tmp_path):
    """A copy of the packages, in which a file can be changed."""
    for package in ("fssd_jax", "analysis", "experiments"):
        shutil.copytree(
            ROOT / package,
            tmp_path / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    return tmp_path


# module that measures → a file that only an indirect import reaches, and a formula
FORMULAS = {
    "experiments.comparison.report": ("fssd_jax/data/pipeline.py", "(255)", "(25.5)"),
    "experiments.comparison.brought": (
        *("analysis/concentration.py", "zero / (1 - (one", "zero / (2 - (one"),
    ),
    "experiments.kernel_study.tangent": (
        *("analysis/ntk.py", "norm(end - start)", "norm(end + start)"),
    ),
}


def digests(tree):
    """By module, as a process sees them whose code that tree is."""
    code = (
        "from experiments.harness import provenance;"
        f"assert provenance.ROOT == __import__('pathlib').Path({str(tree)!r});"
        f"print(*map(provenance.code_digest, {list(FORMULAS)!r}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree, env={"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(zip(FORMULAS, found.stdout.split(), strict=True))


def change(path, before, after):
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))


def test_a_formula_far_away_changes_the_digest_and_a_reworded_table_does_not(tree):
    first = digests(tree)
    change(
        tree / "experiments/comparison/tables.py",
        "A control knows nothing of the trained network",
        "No control knows the trained network",
    )
    change(tree / "experiments/table2.py", "all of them:", "together:")
    change(tree / "experiments/tangent_kernel.py", ' of each test set, "', ' a set, "')
    for name in ("fssd_jax/fssd.py", "analysis/ntk.py"):
        source = tree / name
        source.write_text(f"# A comment.\n{source.read_text()}")
    assert digests(tree) == first
    for name, before, after in FORMULAS.values():
        change(tree / name, before, after)
    then = digests(tree)
    for module in FORMULAS:
        assert then[module] != first[module], module


def test_relative_imports_are_refused():
    with pytest.raises(ValueError, match="relative"):
        provenance.imported("from . import other")


def test_bare_code_is_blind_to_what_decides_nothing():
    one = 'def f(x: int) -> int:\n    """Twice."""\n    return 2 * x  # so\n'
    other = "def f(x):\n    return 2 * x\n"
    assert provenance.bare_code(one) == provenance.bare_code(other)
    assert provenance.bare_code(other.replace("2", "3")) != provenance.bare_code(other)
