"""Scripts that train, score and report; run one with `fssd NAME`."""

import sys

from fssd_jax import extras
from fssd_jax.checks import InputError

try:
    for package in ("matplotlib", "rich", "tyro"):
        extras.need(package, "the experiments")
except InputError as error:
    if sys.argv[0] == "-m":  # `fssd NAME`: one line, no traceback
        sys.exit(f"error: {error}")
    raise
