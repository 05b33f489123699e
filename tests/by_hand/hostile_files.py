"""Every reader on many mutated files, and what came of it as a Markdown table.

python -m tests.by_hand.hostile_files --mutations 10000
"""

import argparse
import sys

from tqdm import tqdm

from tests.hostile import GOOD, judge
from tests.hostile_readers import READERS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000, help="of each reader")
    parser.add_argument("--seed", type=int, default=1, help="the tests have 0")
    parser.add_argument("readers", nargs="*", help=f"of {list(READERS)}; all if none")
    options = parser.parse_args()
    names = options.readers or list(READERS)
    with tqdm(total=options.mutations * len(names), unit="file") as bar:

        def tick(name: str) -> None:
            bar.set_description(name, refresh=False)
            bar.update()

        found = judge(names, options.mutations, options.seed, tick)
    print("| reader | mutations | refused | read, and rightly | failed |")
    print("|---|---|---|---|---|")
    for name, (counts, _) in found.items():
        failed = counts.total() - sum(counts[what] for what in GOOD)
        cells = (counts.total(), *(counts[what] for what in GOOD), failed)
        print(f"| {name} | {' | '.join(f'{n:,}' for n in cells)} |")
    failures = [failure for _, of in found.values() for failure in of]
    print(*failures, sep="\n", file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
