"""Does a test notice? Mutants of fssd_jax/ and analysis/, a sample of each module.

    pip install cosmic-ray
    python -m tests.by_hand.mutants --each 4

Cosmic Ray changes one operator or constant at a time in a copy of the checkout; the
test files of the module must fail: those of its name, or that import it, or that import
what imports it, or that name what it defines. Prints a table for docs/reliability.md
and every survivor.
"""

import ast
import dataclasses
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import tyro
from tqdm import tqdm

from experiments.harness.provenance import imported

ROOT = Path(__file__).parents[2]
MUTATED = ("fssd_jax", "analysis")
PACKAGES = ("fssd_jax", "analysis", "experiments", "benchmarks", "tests")
CONFIG = """[cosmic-ray]
module-path = "{module}"
timeout = {seconds}
excluded-modules = []
test-command = "{command}"

[cosmic-ray.distributor]
name = "local"
"""
# `|` and `*` are types and unpackings as often as arithmetic.
IGNORED = ("_BitOr_", "_BitAnd_", "_BitXor_", "RemoveDecorator")


@dataclasses.dataclass(frozen=True)
class Config:
    each: int = 4
    """Mutants of each module, drawn by the seed."""
    seed: int = 0
    only: tuple[str, ...] = ()
    """Modules, such as fssd_jax/metrics.py; by default all."""
    seconds: int = 300
    """Longest that the tests of one mutant may take; then it counts as killed."""
    files: int = 4
    """At most so many test files for a module: that of its name, and others."""
    cosmic_ray: str = "cosmic-ray"
    """The command."""
    python: str = sys.executable
    """The command that runs the tests, with `-m pytest`."""


def importers(module: Path, files: list[Path]) -> list[Path]:
    name = ".".join(module.with_suffix("").parts)
    return [p for p in files if name in imported(p.read_text(), str(p))]


def tests_of(module: Path) -> list[str]:
    """Test files that import a module: that of its name, then what names it most."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    named = [p for p in files if p.stem == f"test_{module.stem}"]
    found = importers(module, files) or named
    if not found:
        ours = [p.relative_to(ROOT) for q in MUTATED for p in (ROOT / q).rglob("*.py")]
        users = [m for m in importers(module, ours) if m != module]
        found = [p for m in sorted(users) for p in importers(m, files)]
    if not found:  # a package offers what the module defines
        nodes = ast.parse((ROOT / module).read_text()).body
        offered = [
            n.name for n in nodes if isinstance(n, ast.ClassDef | ast.FunctionDef)
        ]
        words = re.compile(rf"\b({'|'.join(offered)})\b")
        found = [p for p in files if words.search(p.read_text())]
    own = [p for p in found if p.stem.startswith(f"test_{module.stem}")]
    name = re.compile(rf"\b{module.stem}\b")
    count = {p: len(name.findall(p.read_text())) for p in found}
    others = sorted(set(found) - set(own), key=lambda p: (-count[p], p))
    return [str(p.relative_to(ROOT)) for p in [*own, *others]]


def outcomes(config: Config, copy: Path, module: Path) -> list[tuple[str, str]]:
    """(outcome, what was changed) of each sampled mutant."""
    tests = tests_of(module)[: config.files]
    if not tests:
        return []
    command = f"{config.python} -m pytest -x -q -p no:cacheprovider {' '.join(tests)}"
    # What the change leaves as it was need not be compiled again.
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(copy / "compiled")}
    run = partial(subprocess.run, cwd=copy, capture_output=True, env=environment)
    unchanged = run(command.split())
    if unchanged.returncode:  # then every mutant would count as killed
        print(command, unchanged.stdout.decode()[-2000:], sep="\n", file=sys.stderr)
        return []
    (copy / "cr.toml").write_text(
        CONFIG.format(module=module, seconds=config.seconds, command=command)
    )
    session = copy / "cr.sqlite"
    session.unlink(missing_ok=True)

    def call(*args):
        return run([config.cosmic_ray, *args], text=True)

    call("init", "cr.toml", session.name).check_returncode()
    with sqlite3.connect(session) as database:
        # Not by job_id, which is another one at each call.
        rows = database.execute(
            "select job_id, operator_name from mutation_specs order by start_pos_row, "
            "start_pos_col, operator_name, operator_args, occurrence"
        )
        jobs = [j for j, name in rows if not any(part in name for part in IGNORED)]
        rng = random.Random(f"{config.seed} {module}")
        kept = rng.sample(jobs, min(config.each, len(jobs)))
        marks = ",".join("?" * len(kept))
        for table in ("mutation_specs", "work_items"):
            database.execute(
                f"delete from {table} where job_id not in ({marks})",
                kept,
            )
    database.close()
    call("exec", "cr.toml", session.name)
    found = []
    for line in call("dump", session.name).stdout.splitlines():
        item, result = json.loads(line)
        change = item["mutations"][0]
        where = f"{module}:{change['start_pos'][0]} {change['operator_name']}"
        outcome = result["test_outcome"] if result else "not run"
        diff = (result or {}).get("diff") or ""
        changed = [r for r in diff.splitlines() if r[:1] in "+-" and r[:3] != "+++"]
        found.append((outcome, f"{where}\n    " + "\n    ".join(changed[1:])))
    return found


def main(config: Config) -> int:
    modules = [Path(m) for m in config.only] or [
        path.relative_to(ROOT)
        for package in MUTATED
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    survivors = []
    rows = [["all", 0, 0]]
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for package in PACKAGES:
            shutil.copytree(ROOT / package, copy / package)
        for other in ("Makefile", "pyproject.toml", "README.md", "docs", "examples"):
            path = ROOT / other
            (shutil.copytree if path.is_dir() else shutil.copy)(path, copy / other)
        for module in tqdm(modules, desc="modules"):
            found = outcomes(config, copy, module)
            killed = sum("survived" not in outcome for outcome, _ in found)
            rows.append([str(module), len(found), killed])
            rows[0][1] += len(found)
            rows[0][2] += killed
            of_module = [text for outcome, text in found if "survived" in outcome]
            survivors += of_module
            print(*rows[-1], *of_module, sep="\n  ", file=sys.stderr, flush=True)
    print("| module | mutants | killed |\n|---|--:|--:|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print("\nSurvivors:\n")
    print(*survivors, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
