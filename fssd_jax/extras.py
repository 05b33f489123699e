"""What may be missing, and what installs or gets it."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from fssd_jax.checks import InputError

EXTRAS = {  # package, as it is imported → the extra that has it
    "grain": "records",
    "matplotlib": "experiments",
    "neural_tangents": "ntk",
    "pandas": "tables",
    "rich": "experiments",
    "tensorflow_datasets": "data",
    "torch": "torch",
    "tyro": "experiments",
}
# What gets the data sets: an installed package has no Makefile beside it.
CHECKOUT = Path(__file__).resolve().parents[1] / "Makefile"
FETCH = "make data" if CHECKOUT.is_file() else "fssd fetch"


class MissingExtraError(InputError, ImportError):
    """A package of an extra is not installed; the message says which extra has it."""


def command(package: str) -> str:
    """What installs a package of an extra, as it is typed."""
    return f'pip install "fssd-jax[{EXTRAS[package]}]"'


def missing(package: str, what: str, error: ImportError) -> MissingExtraError:
    """What to raise `from error`.

    Args:
      package: one of `EXTRAS`.
      what: what needs it.
      error: of the import; it may be that of a package that this one needs.
    """
    name = (error.name or package).partition(".")[0]
    absent = isinstance(error, ModuleNotFoundError)
    how = "is not installed" if absent else f"cannot be imported ({error})"
    found = MissingExtraError(f"{what}: the package {name} {how}; {command(package)}")
    found.name = name
    return found


def need(package: str, what: str) -> ModuleType:
    """Import a package of an extra.

    Args:
      package: one of `EXTRAS`.
      what: what needs it, for the error.

    Raises:
      MissingExtraError: it cannot be imported.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise missing(package, what, error) from error
