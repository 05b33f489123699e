"""What several networks add to one, of each benchmark in docs/results that has them.

python -m website.ensembles
"""

import json
import re

from matplotlib.figure import Figure

from experiments.comparison import pictures
from website.measured import RESULTS

BENCHMARKS = ("digits", "fmnist", "fmnist6", "cifar6", "cifar10")


def drawn(benchmark: str) -> dict[str, Figure]:
    """File in docs/results → its picture, over the seeds that are stored."""
    of_pairs: dict[str, list] = {}
    for path in sorted((RESULTS / benchmark).glob("*.json")):
        # Not what earlier versions left, nor timings.
        if re.fullmatch(r"table2-(?!timing)[-\w]*\d", path.stem):
            result = json.loads(path.read_text(encoding="utf-8"))
            of_pairs.setdefault(result["benchmark"], []).append(result)
    return {
        f"{benchmark}/{name}-{pair}.png": figure
        for pair, results in of_pairs.items()
        for name, figure in pictures.ensembles(results).items()
    }


if __name__ == "__main__":
    for benchmark in BENCHMARKS:
        for name, figure in drawn(benchmark).items():
            figure.savefig(RESULTS / name, dpi=200)
