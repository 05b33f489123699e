"""The library never reads the experiments, and imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Which of our packages each may import; arrows point up the list and never back.
ALLOWED = {
    "fssd_jax": {"fssd_jax"},
    "analysis": {"fssd_jax", "analysis"},
    "experiments": {"fssd_jax", "analysis", "experiments"},
    "benchmarks": {"fssd_jax", "analysis", "experiments", "benchmarks"},
    "examples": {"fssd_jax", "analysis"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_up(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        ours = {name.split(".")[0] for name in imported(path)} & set(ALLOWED)
        assert ours <= ALLOWED[package], path


def test_importing_the_library_is_light():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "fssd_jax").rglob("*.py")
        if path.name != "__init__.py"
    ]
    heavy = {
        "tensorflow", "tensorflow_datasets", "neural_tangents", "matplotlib", "torch",
    }  # fmt: skip
    code = f"import sys, {', '.join(modules)}; print(*({heavy!r} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []


def test_the_allocator_is_set_only_when_asked():
    code = "from fssd_jax.allocator import keep_memory; print(keep_memory())"
    glibc = subprocess.run(["ldd", "--version"], capture_output=True, text=True)
    for value, expected in (("1", "GLIBC" in glibc.stdout), ("0", False)):
        found = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"FSSD_JAX_KEEP_MEMORY": value},
        )
        assert found.stdout.strip() == str(expected)
