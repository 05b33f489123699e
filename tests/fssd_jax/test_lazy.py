"""`import fssd_jax` alone reaches everything, takes no time, and hides no name."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import fssd_jax

ROOT = Path(__file__).parents[2]
PACKAGES = ["fssd_jax", "fssd_jax.detectors", "fssd_jax.data"]


def alone(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_it_imports_nothing_else():
    heavy = "jax flax numpy sklearn scipy"
    code = f"import sys, fssd_jax; print(*set('{heavy}'.split()) & set(sys.modules))"
    assert alone(code) == []


FIRST_USES = (
    *("fssd_jax.detectors.fssd", "fssd_jax.detectors.mahalanobis"),
    *("fssd_jax.metrics", "fssd_jax.conformal", "fssd_jax.comparison"),
)


@pytest.mark.parametrize("module", FIRST_USES)
def test_the_first_use_imports_nothing_that_takes_seconds(module):
    """What only a fit with labels needs, or an interval, is imported by that."""
    heavy = "sklearn pandas scipy.stats scipy.optimize flax optax orbax"
    code = f"import sys, {module}; print(*set('{heavy}'.split()) & set(sys.modules))"
    assert alone(code) == []


def test_after_one_import_modules_and_functions_are_there():
    code = (
        "import fssd_jax as f;"
        "print(f.detectors.fssd.fit.__module__, f.detectors.msp.score.__module__,"
        "f.models.LeNet.__name__, f.train.train.__name__, f.data.load.__name__,"
        "f.data.folders.load_images.__name__, f.evaluate.__module__,"
        "f.fssd.fssd.__module__, f.conformal.threshold is f.threshold)"
    )
    assert alone(code) == [
        *("fssd_jax.detectors.fssd", "fssd_jax.detectors.msp", "LeNet", "train"),
        *("load", "load_images", "fssd_jax.metrics", "fssd_jax.fssd", "True"),
    ]


def for_type_checkers(package):
    """Name → where it comes from, as `if TYPE_CHECKING:` says."""
    tree = ast.parse(Path(import_module(package).__file__).read_text())
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {alias.name: node.module for node in block.body for alias in node.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_type_checkers_are_told_is_what_is_found(package):
    module = import_module(package)
    told = for_type_checkers(package)
    assert set(told) == set(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    for name, home in told.items():
        found = getattr(module, name)
        if home == package:
            assert isinstance(found, ModuleType)
            assert found.__name__ == f"{package}.{name}"
        else:
            assert found is getattr(import_module(home), name)


def test_every_detector_is_listed():
    files = (ROOT / "fssd_jax" / "detectors").glob("[!_]*.py")
    assert sorted(path.stem for path in files) == fssd_jax.detectors.__all__


def test_an_unknown_name_is_an_attribute_error():
    for package in map(import_module, PACKAGES):
        for name in ("nonsense", "__nonsense__"):
            assert not hasattr(package, name)
    with pytest.raises(ImportError):
        exec("from fssd_jax import nonsense")
