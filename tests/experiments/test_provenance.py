"""What a results folder's name follows: the code that decides, found from the code."""

import shutil
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


def test_what_a_package_imports_when_it_is_used_counts_where_it_is_used(monkeypatch):
    """And what it would import for others does not."""
    tell = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ours import {}\n"
    )
    sources = {
        "ours": tell.format("a, b, c, d\n    from ours.home import call, other"),
        **{f"ours.{name}": "" for name in ("a", "b", "c", "d", "home", "inner")},
        "ours.inner": tell.format("deep").replace("from ours ", "from ours.inner "),
        "ours.inner.deep": "",
        "user": "import ours\nfrom ours import a\nours.b.f()\nfor x in ours.call(): 1",
        "nested": "from ours import inner\ny = inner.deep.g(1).c",
        "nobody": "import ours\nc = [0]\nc.d = 1",
    }
    packages = ("ours", "ours.inner")
    paths = {name: FakePath(text, name in packages) for name, text in sources.items()}
    monkeypatch.setattr(provenance, "_source", paths.get)
    used = {name: set(provenance.import_closure(name)) for name in ("user", "nested")}
    assert used["user"] == {"user", "ours", "ours.a", "ours.b", "ours.home"}
    assert used["nested"] == {"nested", "ours", "ours.inner", "ours.inner.deep"}
    assert set(provenance.import_closure("nobody")) == {"nobody", "ours"}


class FakePath:
    def __init__(self, text, package):
        self.text, self.name = text, "__init__.py" if package else "module.py"

    def read_text(self):
        return self.text


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
    "experiments.comparison.report": ("fssd_jax/checks.py", "(255)", "(25.5)"),
    "experiments.comparison.brought": (
        *("analysis/concentration.py", "length**2, cos", "length**3, cos"),
    ),
    "experiments.kernel_study.tangent": (
        *("analysis/kernel_statistics.py", "norm(end - start)", "norm(end + start)"),
    ),
}


TRAINING = "fssd_jax.train"  # whose packages decide no weights


def digests(monkeypatch, tree):
    """By module, as if the packages in that tree were ours."""
    monkeypatch.setattr(provenance, "ROOT", tree)
    fresh = provenance.code_digest.__wrapped__
    found = {module: fresh(module) for module in FORMULAS}
    return found | {TRAINING: fresh(TRAINING, packages=False)}


def change(path, before, after):
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))


def test_a_formula_far_away_changes_the_digest_and_a_reworded_table_does_not(
    monkeypatch, tree
):
    first = digests(monkeypatch, tree)
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
    assert digests(monkeypatch, tree) == first
    # What scores follow, weights need not: training does not know the metrics.
    change(tree / "fssd_jax/metrics.py", "return float(_wins", "return 2 * float(_wins")
    then = digests(monkeypatch, tree)
    assert [m for m in first if first[m] == then[m]] == [TRAINING]
    for name, before, after in FORMULAS.values():
        change(tree / name, before, after)
    then = digests(monkeypatch, tree)
    for module in first:
        assert then[module] != first[module], module


def test_relative_imports_are_refused():
    with pytest.raises(ValueError, match="relative"):
        provenance.imported("from . import other")


def test_bare_code_is_blind_to_what_decides_nothing():
    one = 'def f(x: int) -> int:\n    """Twice."""\n    return 2 * x  # so\n'
    other = "def f(x):\n    return 2 * x\n"
    assert provenance.bare_code(one) == provenance.bare_code(other)
    assert provenance.bare_code(other.replace("2", "3")) != provenance.bare_code(other)
