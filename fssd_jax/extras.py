"""Packages that only a part of this one needs, and the extra that installs each."""

from importlib import import_module
from types import ModuleType

from fssd_jax.checks import InputError

EXTRAS = {
    "matplotlib": "experiments",
    "neural_tangents": "ntk",
    "pandas": "tables",
    "rich": "experiments",
    "tensorflow_datasets": "data",
    "torch": "torch",
    "tyro": "experiments",
}


class MissingExtraError(InputError, ImportError):
    """A package of an extra is not installed; the message says which extra has it."""


def command(extra: str) -> str:
    """What installs an extra, as it is typed."""
    return f'pip install "fssd-jax[{extra}]"'


def need(package: str, what: str) -> ModuleType:
    """Import a package of an extra.

    Args:
      package: its name when it is imported, one of `EXTRAS`.
      what: what needs it, for the error.

    Raises:
      MissingExtraError: it cannot be imported; one line.
    """
    try:
        return import_module(package)
    except ImportError as error:
        missing = error.name or package
        raise MissingExtraError(
            f"{what}: the package {missing} is not installed; "
            f"{command(EXTRAS[package])}"
        ) from error
