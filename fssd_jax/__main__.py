"""`fssd NAME …`, or `python -m fssd_jax NAME …`: the experiments, and their data.

A user's project may have folders `experiments` and `analysis` of its own, before ours
on the path. So ours are imported from where this package lies, whatever the path says;
the path itself is left alone.
"""

import ast
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import NamedTuple

import fssd_jax
from fssd_jax.piped import until_closed

ROOT = Path(__file__).resolve().parents[1]
SIBLINGS = ("analysis", "experiments")


def main(args: Sequence[str] | None = None) -> int:
    """Run the entry script that the first argument names; return the exit status."""
    name, *rest = [*(sys.argv[1:] if args is None else args)] or ["--help"]
    if name in ("-h", "--help"):
        return until_closed(_help)
    if name == "--version":
        print(f"fssd-jax {fssd_jax.__version__}")
        return 0
    known = menu()
    script = name.replace("-", "_")
    if script not in known:
        near = get_close_matches(script, known, n=1, cutoff=0.4)
        meant = f"did you mean {near[0]!r}? " if near else ""
        told = f"unknown {name!r}; {meant}`fssd --help` lists all"
        print(f"error: {told}", file=sys.stderr)
        return 2
    # It imports NumPy, for which help need not wait.
    from fssd_jax.checks import InputError

    sys.argv = [f"fssd {script}", *rest]  # what help calls itself
    try:
        if known[script].module.startswith("experiments."):
            claim()
        run = getattr(import_module(known[script].module), known[script].function)
    except InputError as error:  # an extra is missing
        print(f"error: {error}", file=sys.stderr)
        return 1
    return run(rest)


class Entry(NamedTuple):
    module: str
    function: str  # of the arguments [str]; returns the exit status
    told: str  # the first line of the module's docstring


def menu() -> dict[str, Entry]:
    """By name; no module of them is imported."""
    scripts = sorted((ROOT / "experiments").glob("[!_]*.py"))
    entries = [(path.stem, f"experiments.{path.stem}", "main") for path in scripts]
    entries.append(("data", "fssd_jax.data.inventory", "command"))
    entries.append(("fetch", "fssd_jax.data.fetch", "command"))
    found = {}
    for name, module, function in entries:
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[name] = Entry(module, function, told.partition("\n")[0])
    return found


def _help() -> int:
    print(usage())
    return 0


def usage() -> str:
    known = menu()
    width = max(map(len, known))
    rows = [f"  {name:{width}}  {entry.told}" for name, entry in known.items()]
    return "\n".join(
        [
            "usage: fssd [-h] [--version] NAME ...",
            "",
            "Experiments on OoD detection; `fssd NAME --help` tells more of one.",
            "",
            *rows,
        ]
    )


def claim() -> None:
    """Make `experiments` and `analysis` mean ours, in this process."""
    for name in SIBLINGS:
        place = str(ROOT / name)
        if place in getattr(sys.modules.get(name), "__path__", []):
            continue
        for other in [m for m in sys.modules if m.partition(".")[0] == name]:
            del sys.modules[other]
        spec = PathFinder.find_spec(name, [str(ROOT)])
        assert spec is not None, f"no {place}"
        assert spec.loader is not None
        sys.modules[name] = module = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise


if __name__ == "__main__":
    sys.exit(main())
