"""One page of all results, to sort, to filter and to explore; it needs no network.

Examples:

  fssd report
  fssd report --results results --out report.html
  fssd report --results results/table2 --out table2.html

Takes every folder below --results with a metrics.json, at any depth, and writes one
HTML file that any browser opens, from a disk or a mail, with nothing beside it:

  overview   a table of all runs; of each benchmark of `table2` the methods over the
             seeds, beside the numbers of the paper and of the authors' README; "not
             run here" where nothing is
  a run      tables, pictures, layers that are inverted, cost, provenance, the files;
             as in the report.html of its folder
  explorer   of a run of `table2`: a slider for the threshold, with the rates and the
             images on either side; ROC and features, where pointing shows the image,
             or Tab and the arrow keys do

Nothing is computed again: a report draws what runs left. A folder of which a file is
damaged, or that is none of ours, is a row that says so.
"""

import dataclasses
import sys
from pathlib import Path

from experiments.comparison import overview
from experiments.harness import cli, files, gathered, page

TITLE = "Feature space singularity: results"


@dataclasses.dataclass(frozen=True)
class Config:
    results: Path = Path("results")
    """Where results lie, at any depth."""
    out: Path = Path("report.html")
    """The file to write."""


def run(config: Config) -> Path:
    found = [overview.completed(run) for run in gathered.gather(config.results)]
    first = overview.of_runs(found) + overview.of_benchmarks(found)
    files.writable(config.out.parent)
    size = page.write(config.out, TITLE, first, found)
    broken = [run for run in found if not run.whole]
    for each in broken:
        print(f"{each.name}: {each.problems[0]}", file=sys.stderr)
    print(
        f"{len(found)} runs, {len(broken)} of them not whole; {size / 1e6:.1f} MB: "
        f"{config.out}"
    )
    return config.out


def main(args: list[str] | None = None) -> int:
    return cli.run_main(Config, run, __doc__, args)


if __name__ == "__main__":
    sys.exit(main())
