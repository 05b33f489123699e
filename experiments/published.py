"""The paper's Table 2, beside what was measured here: one Markdown document.

  python -m experiments.published --results results/table2 --out table2.md

Takes every result of `table2` below --results that is of protocol `paper`, over its
seeds. Benchmarks without one are there with what was published, and say "not run here".
Of D, whose results are of a kind and level of corruption each, it is their means, and
Figure 4 beside the document.
One seed of a pair may have several results, of other options, code or versions; which
of them is meant you say by another folder, or by --newest.
"""

import dataclasses
import sys
from collections import defaultdict
from pathlib import Path

from analysis import plots, shift_plots
from experiments.comparison import corrupted_pairs
from experiments.comparison.beside import OURS, TITLES, to_sheet
from experiments.comparison.report import Result
from experiments.harness import cli, files, records
from experiments.harness.sheets import show, to_markdown
from fssd_jax.checks import InputError
from fssd_jax.data import published

PREFACE = """# Table 2 of the paper, and what was measured here

AUROC / AUPRC / FPR80 in %, in-distribution positive. Here: protocol `paper`, mean ±
standard deviation over the seeds, of one seed its 95 % interval. Written by `python -m
experiments.published` from the results of `table2`; no number was typed in. Networks
may be narrower, or trained for less, than the paper's; what they are stands below each
table.
"""


@dataclasses.dataclass(frozen=True)
class Config:
    results: Path = Path("results/table2")
    """Where results of `table2` lie, at any depth."""
    out: Path = Path("results/table2.md")
    """The document to write."""
    newest: bool = False
    """Of several results of one pair and seed take the one that was written last, those
    of smoke tests or of a part of the training set only where there is no other."""


def run(config: Config) -> str:
    found = read(config.results, newest=config.newest)
    of_d = corrupted_pairs.assembled(r for of in found.values() for r in of)
    made = []
    for letter, title in TITLES.items():
        words = f"{letter}: {title.words}"
        if letter in published.TABLE2:
            results = found.get(title.pair, [])
            made.append(to_sheet(words, published.of(letter), results))
        else:
            made += corrupted_pairs.sheets(words, of_d)
    made += [
        to_sheet(f"Not the paper's: {words}", {}, found[pair])
        for pair, words in OURS.items()
        if pair in found
    ]
    text = PREFACE + "".join(
        "\n" + to_markdown(sheet).replace("### ", "## ", 1) for sheet in made
    )
    files.writable(config.out.parent)
    text += "".join(draw(pair, of, config.out) for pair, of in of_d.items())
    config.out.write_text(text)
    show(made)
    print(f"written: {config.out}")
    return text


def draw(pair: str, results: list[Result], out: Path) -> str:
    """Figure 4 of the pairs of D beside the document, and the lines that show it."""
    boxes, levels = corrupted_pairs.drawn_boxes(results)
    if not levels:  # that all methods have
        return ""
    count = len({r["benchmark"] for r in results})
    title = f"{pair}: {count} of {corrupted_pairs.COUNT} pairs"
    stem = out.with_name(f"{out.stem}-{pair}")
    plots.save(shift_plots.boxes(boxes, levels, title), stem)
    name = stem.with_suffix(".png").name
    return f"\n## Figure 4, of {title}\n\n![AUROC by level of corruption]({name})\n"


def read(folder: Path, newest: bool = False) -> dict[str, list[Result]]:
    """Results of protocol `paper` by their pair, in the order of their seeds.

    Raises:
      InputError: there is no such folder, a file is damaged, or one seed has two
        results and it is not the newest that is asked for.
    """
    if not folder.is_dir():
        raise InputError(f"--results: there is no folder {folder}")
    found: dict[str, dict[int, tuple[Path, Result]]] = defaultdict(dict)
    for path in sorted(folder.rglob("*.json")):
        if records.is_hidden(path.relative_to(folder)):  # is being written, or was
            continue
        result = files.load_json(path, "delete it, and run table2 again")
        if not isinstance(result, dict) or "methods" not in result:
            continue
        if result.get("protocol") != "paper" or "benchmark" not in result:
            continue
        of, seed = found[result["benchmark"]], result["seed"]
        if seed in of and not newest:
            raise InputError(
                f"{path} and {of[seed][0]} are both of {result['benchmark']}, seed "
                f"{seed}; take a folder that holds one of them, or --newest"
            )
        if seed not in of or _rank(path) > _rank(of[seed][0]):
            of[seed] = path, result
    return {
        pair: [of[seed][1] for seed in sorted(of)] for pair, of in sorted(found.items())
    }


def _rank(path: Path) -> tuple[bool, float]:
    """Higher is rather taken: of whole networks, and of these the last."""
    beside = path.with_name("config.json")
    told = files.load_json(beside, "delete its folder") if beside.is_file() else {}
    options = told.get("options", {})
    whole = not options.get("tiny") and options.get("train_size") is None
    return whole, path.stat().st_mtime


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
