"""The library never reads the experiments, and imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.harness.keys import Use
from experiments.harness.provenance import imported

ROOT = Path(__file__).parent.parent
# Arrows point up this list and never back: the rooms of ours that each may import.
ALLOWED = {
    "fssd_jax": {"fssd_jax"},
    "analysis": {"fssd_jax", "analysis"},
    "experiments/harness": {"fssd_jax", "analysis", "experiments/harness"},
    "experiments/comparison": {
        *("fssd_jax", "analysis", "experiments/harness", "experiments/comparison"),
    },
    "experiments/kernel_study": {
        *("fssd_jax", "analysis", "experiments/harness", "experiments/kernel_study"),
    },
    "experiments/leaderboard": {
        *("fssd_jax", "analysis", "experiments/harness", "experiments/leaderboard"),
    },
    "experiments/centre_study": {
        *("fssd_jax", "analysis", "experiments/harness", "experiments/comparison"),
        "experiments/centre_study",
    },
    "experiments/whole": {"fssd_jax", "experiments/harness", "experiments/whole"},
    "experiments": {
        *("fssd_jax", "analysis", "experiments/harness", "experiments/comparison"),
        *("experiments/kernel_study", "experiments/leaderboard"),
        *("experiments/centre_study", "experiments/whole"),
    },
    "benchmarks": {"fssd_jax", "analysis", "experiments/harness", "benchmarks"},
    "examples": {"fssd_jax", "analysis"},
    "website": {"analysis", "experiments/comparison", "website"},
}
# Entry scripts that run another as a whole.
RUNS = {"train_size": "table2"}


def room(name):
    """Of a module of ours, the inner one if there is one; None of a foreign one."""
    first, *rest = name.split(".")
    inner = f"{first}/{rest[0]}" if rest else first
    rooms = [known for known in (inner, first) if known in ALLOWED]
    return rooms[0] if rooms else None


def files_of(room):
    """Of a room, without those of the rooms in it."""
    found = [p for p in (ROOT / room).rglob("*.py") if p.name != "__init__.py"]
    inner = [ROOT / other for other in ALLOWED if other.startswith(f"{room}/")]
    return [p for p in found if not any(p.is_relative_to(other) for other in inner)]


@pytest.mark.parametrize("name", ALLOWED)
def test_arrows_point_up(name):
    files = files_of(name)
    assert files
    for path in files:
        for module in imported(path.read_text(), str(path)):
            to = room(module)
            if to is None or (ROOT / to / "__init__.py").parent == ROOT / module:
                continue  # foreign, or a package by itself
            if name == to == "experiments":  # from one entry script to another
                assert module.split(".")[1] == RUNS.get(path.stem), (path, module)
            else:
                assert to in ALLOWED[name], (path, module)


def test_the_menu_is_flat_and_the_rooms_are_known():
    """A folder of experiments/ that this file does not know has no arrows to keep."""
    folders = {p for p in (ROOT / "experiments").iterdir() if p.is_dir()}
    known = {ROOT / name for name in ALLOWED if "/" in name}
    assert {p for p in folders if list(p.glob("*.py"))} == known
    for path in files_of("experiments"):
        assert "def main(" in path.read_text(), f"{path}: no entry script"


# Names that all of the field's code shares.
SHORT = {"numpy", "jax.numpy", "flax.linen", "matplotlib.pyplot"}


def test_a_name_means_one_thing():
    """Nothing is imported under another name; `fssd` above all."""
    for path in ROOT.rglob("*.py"):
        if path.relative_to(ROOT).parts[0] not in {r.split("/")[0] for r in ALLOWED}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                of = getattr(node, "module", None)
                for alias in node.names:
                    whole = f"{of}.{alias.name}" if of else alias.name
                    renamed = alias.asname not in (None, alias.name)
                    foreign = whole.split(".")[0] not in ("fssd_jax", "analysis")
                    known = whole in SHORT or (foreign and of is None)
                    assert not renamed or known, f"{path}: {whole} as {alias.asname}"


def test_what_a_random_key_is_for_stands_in_one_place():
    """Numbers are folded in by name only, and no two uses share one."""
    assert len(Use.__members__) == len({use.value for use in Use})
    for path in (ROOT / "experiments").rglob("*.py"):
        if path.stem != "keys":
            assert "fold_in(" not in path.read_text(), path


FOR_SOME = {"tensorflow", "tensorflow_datasets", "neural_tangents", "torch", "sklearn"}


@pytest.mark.parametrize(
    ("files", "heavy"),
    [("fssd_jax/**/*.py", {"matplotlib", *FOR_SOME}), ("experiments/*.py", FOR_SOME)],
)
def test_importing_is_light(files, heavy):
    """Of scripts too: each --help waits for what they import."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in ROOT.glob(files)
        if path.name != "__init__.py"
    ]
    code = f"import sys, {', '.join(modules)}; print(*({heavy!r} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []


HELD = """
from fssd_jax.allocator import keep_memory
print(keep_memory())
def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])  # pages
before = held()
large = b"1" * (4 * 10**8)  # more than what the heap grows by at once
there = held() - before
del large
print((held() - before) / there)
"""


def test_freed_memory_is_kept_only_when_asked():
    glibc = subprocess.run(["ldd", "--version"], capture_output=True, text=True)
    for value, expected in (("1", "GLIBC" in glibc.stdout), ("0", False)):
        found = subprocess.run(
            [sys.executable, "-c", HELD],
            capture_output=True,
            text=True,
            check=True,
            env={"FSSD_JAX_KEEP_MEMORY": value},
        )
        told, kept = found.stdout.split()
        assert told == str(expected)
        assert (float(kept) > 0.9) is expected
