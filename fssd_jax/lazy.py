"""Packages whose modules and functions are imported when they are first used."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def attach(
    package: str, homes: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package (PEP 562).

    Args:
      package: its `__name__`; each of its modules is an attribute.
      homes: further attributes → the module of the package that has them.
    """
    homes = homes or {}

    def modules() -> list[str]:
        found = iter_modules(sys.modules[package].__path__)
        return [m.name for m in found if not m.name.startswith("_")]

    def __getattr__(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        if name in modules():
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        own = [name for name in vars(sys.modules[package]) if name.startswith("__")]
        return sorted({*own, *modules(), *homes})

    return __getattr__, __dir__
