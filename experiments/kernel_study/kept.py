"""Measurements kept on disk: a killed run goes on at its width."""

from pathlib import Path
from typing import Any

from experiments.harness.files import load_arrays, load_json, save_arrays, write_json
from experiments.kernel_study.forms import Sizes, measure
from experiments.kernel_study.setting import Data, Setup


def measured(
    setup: Setup, data: Data, seed: int, width: int, folder: Path
) -> tuple[dict[str, Any], Sizes]:
    """`measure`, or what it found in an earlier run.

    Args:
      folder: of this setup, data and seed alone; a file a width.
    """
    facts_path, sizes_path = folder / f"{width}.json", folder / f"{width}.npz"
    if not (facts_path.exists() and sizes_path.exists()):
        print(f"{setup.network} of width {width}, seed {seed}", flush=True)
        facts, sizes = measure(setup, data, seed, width)
        save_arrays(sizes_path, sizes)
        write_json(facts_path, facts)  # last: it says that both are whole
    mend = f"delete it and {sizes_path.name}, and both are measured again"
    return load_json(facts_path, mend), load_arrays(sizes_path)
