"""What labels are worth, near and far, in one picture of docs/results/leakage.

python -m website.ladder
"""

import json

from matplotlib.figure import Figure

from analysis import auroc_plots
from website.measured import RESULTS

TITLES = {
    "fmnist6": "near: six classes of FashionMNIST\nagainst its other four",
    "fmnist": "far: FashionMNIST against MNIST",
}
# In the words of the page; the least is "none".
RUNGS = {
    "target": "the tested\nOoD set",
    "another OoD set": "photo-\ngraphs",
    "corrupted and noise": "corrupted\nand noise",
    "none": "no OoD\nimages",
}


def picture() -> Figure:
    pairs = {}
    for name, title in TITLES.items():
        text = (RESULTS / "leakage" / f"{name}-0.json").read_text(encoding="utf-8")
        pairs[title] = {
            method: {RUNGS[rung]: auroc for rung, auroc in of.items()}
            for method, of in json.loads(text)["rungs"].items()
        }
    return auroc_plots.ladder(pairs)


if __name__ == "__main__":
    picture().savefig(RESULTS / "leakage" / "ladder.png", dpi=200)
