"""What is seen first of many results: one table of runs, and one of each benchmark."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from experiments.comparison import beside, corrupted_pairs, tables
from experiments.comparison.report import KINDS, METRICS, Result
from experiments.harness import gathered, markup, page
from experiments.harness.files import STRANGE
from experiments.harness.gathered import Run
from experiments.harness.sheets import Sheet
from fssd_jax.data import published

HEADINGS = [
    *("run", "script", "benchmark", "protocol", "seed", "AUROC, %", "of"),
    *("inverted layers", "written, UTC"),
]
# The first of these that there is is a run's headline.
HEADLINE = ("fssd", "fssd tiles", "fssd clean", "fssd deep")
TABLE2 = "table2"
LETTERS = {title.pair: letter for letter, title in beside.TITLES.items()}


def completed(run: Run) -> Run:
    """The same, as this version tells it; a comparison that left no tables gets some.

    One of which no table or line can be made has a problem more, and counts as none.
    """
    if not all(v is None or isinstance(v, int | float) for v in _seconds(run).values()):
        problem = f"{run.folder / 'timing.json'}: its seconds are no numbers"
        run = run._replace(timing={}, problems=[*run.problems, problem])
    try:
        told = _completed(run)
        _row(told)
        assembled([told])
    except STRANGE as error:
        why = f"{type(error).__name__}: {error}"
        problem = f"{run.folder / 'metrics.json'}: no table can be made of it ({why})"
        return run._replace(facts={}, problems=[*run.problems, problem])
    return told


def _completed(run: Run) -> Run:
    if not is_comparison(run.facts):
        return run
    of_table2 = {"protocol", "counts", "model", "benchmark"} <= set(run.facts)
    told = run._replace(experiment=run.experiment or (TABLE2 if of_table2 else ""))
    if told.experiment != TABLE2:
        return told
    facts = as_now(run.facts)
    told = told._replace(facts=facts)
    sheets = tables.sheets([facts], [{}])
    return told if run.sheets else told._replace(sheets=[s for s in sheets if s.rows])


def as_now(facts: Result) -> Result:
    """With what older versions did not tell."""
    model = facts["model"]
    network = {"network": str(model["name"]).partition("(")[0], **model}
    absent = dict.fromkeys(("note", "training", "passes", "data"), "")
    rows = {
        kind: {name: {**absent, **row} for name, row in facts[kind].items()}
        for kind in KINDS
    }
    return {"failed": {}, "left_out": {}, **facts, "model": network, **rows}


def is_comparison(facts: dict[str, Any]) -> bool:
    """Whether all rows are there that tables are made of."""
    try:
        rows = [row for kind in KINDS for row in facts[kind].values()]
        ends = [row[f"{m}_ci95"] for row in rows for m in METRICS]
        numbers = [row[m] for row in rows for m in METRICS]
        numbers += [end for both in ends for end in (both[0], both[1])]
        told = [row["fitted_on"] for row in rows]
        ours = isinstance(facts["seed"], int) and isinstance(facts["layers"], list)
        return ours and all(0 <= n <= 1 for n in numbers) and bool(told)
    except (AttributeError, IndexError, KeyError, TypeError):
        return False


# ---- all runs -----------------------------------------------------------------------


def of_runs(runs: Sequence[Run]) -> str:
    """The table of all runs, each of which leads to its section."""
    rows = [_row(run) for run in runs]
    links = {run.name: f"#{page.identifier(i)}" for i, run in enumerate(runs)}
    broken = sum(not run.whole for run in runs)
    notes = (
        [f"warning: {broken} cannot be read whole; each says why."] if broken else []
    )
    sheet = Sheet("Runs", HEADINGS, rows, notes)
    return f'<div class="runs">{markup.table(sheet, 2, links)}</div>'


def _row(run: Run) -> list[str]:
    cell, of = headline(run)
    inverted = len({line.split(",")[0] for line in _inverted(run)})
    return [
        run.name,
        run.experiment or "not told",
        gathered.benchmark_of(run),
        str(run.facts.get("protocol") or ""),
        gathered.seed_of(run),
        cell,
        of if run.whole else _in_short(run),
        str(inverted or ""),
        run.date,
    ]


def _in_short(run: Run) -> str:
    """What is wrong, without the path that the row begins with."""
    return run.problems[0].replace(f"{run.folder}/", "")


def headline(run: Run) -> tuple[str, str]:
    """AUROC in % with its interval, and of what; or nothing, and what it is about."""
    methods = run.facts.get("methods") if is_comparison(run.facts) else None
    if methods:
        name = next((n for n in HEADLINE if n in methods), next(iter(methods)))
        row = methods[name]
        return _percent(row["auroc"], row["auroc_ci95"]), name
    found = [
        row
        for row in gathered.records_of(run.facts)
        if row.get("quantity") == "AUROC" and not row.get("layer")
    ]
    found.sort(key=lambda row: str(row.get("method")) not in HEADLINE)
    if found:
        row = found[0]
        keys = ("method", "condition", "network", "train_images")
        told = ", ".join(str(row[k]) for k in keys if row.get(k) is not None)
        return _percent(row["value"], (row.get("low"), row.get("high"))), told
    return "", run.sheets[0].title if run.sheets else ""


def _percent(value: float, ends: Iterable[float | None]) -> str:
    low, high = ends
    known = low is not None and high is not None
    interval = f" [{100 * low:.1f}, {100 * high:.1f}]" if known else ""  # pyright: ignore
    return f"{100 * value:.1f}{interval}"


def _inverted(run: Run) -> list[str]:
    """As of `gathered.inverted`, of versions without records too."""
    if found := gathered.inverted(run.facts):
        return found
    layers = run.facts["layers"] if is_comparison(run.facts) else []
    return [
        f"{layer['name']}, ε = 0"
        for layer in layers
        if min(layer["auroc"], layer["auroc_no_step"]) < gathered.BELOW
    ]


# ---- benchmarks ---------------------------------------------------------------------


def of_benchmarks(runs: Sequence[Run]) -> str:
    """Of each benchmark the methods over its seeds, beside the paper's numbers."""
    groups = grouped(runs) | assembled(runs)
    if not groups:
        return ""
    parts = ["<h2>Benchmarks</h2>"]
    done = set()
    for (pair, protocol, name), found in sorted(groups.items(), key=_first_the_papers):
        letter = LETTERS.get(pair) if protocol == "paper" else None
        try:
            inner = _of_group(found, pair, letter)
        except STRANGE as error:
            why = f"no table can be made of them ({type(error).__name__}: {error})"
            inner = markup.alert(why, [run.name for run in found])
        else:
            done |= {letter}
        results = [run.facts for run in found]
        title = f"{pair}, protocol {protocol}, {_seeds(results)}: {name}"
        parts.append(markup.folded(title, inner, opened=len(parts) == 1))
    missing = [letter for letter in beside.TITLES if letter not in done]
    parts.append(_not_run(missing))
    return "\n".join(parts)


def _of_group(found: Sequence[Run], pair: str, letter: str | None) -> str:
    """The tables of seeds of one configuration; `letter` is the paper's of it."""
    results = [run.facts for run in found]
    if pair in (corrupted_pairs.ALL, corrupted_pairs.BY_TFDS):
        of_d = corrupted_pairs.assembled(results)
        made = corrupted_pairs.sheets(beside.TITLES["D"].words, of_d)
        return "".join(map(markup.table, made[pair == corrupted_pairs.BY_TFDS :]))
    timed = [_seconds(run) for run in found]
    sheets = [tables.method_sheet(results), tables.cost_sheet(results, timed)]
    if letter is not None:
        title = f"{beside.TITLES[letter].words}: beside the paper's {letter}"
        sheets.insert(1, beside.differences(title, published.of(letter), results))
    return "".join(markup.table(sheet) for sheet in sheets if sheet.rows)


def _seconds(run: Run) -> dict[str, float | None]:
    """Row → seconds per 1,000 images, if that is known."""
    found = run.timing.get("scoring_seconds_per_1000_images")
    return found if isinstance(found, dict) else {}


def _first_the_papers(group: tuple[tuple[str, str, str], Any]) -> tuple:
    (pair, protocol, name), _ = group
    return pair not in LETTERS, pair, protocol != "paper", protocol, name


def _seeds(results: list[Result]) -> str:
    seeds = [*dict.fromkeys(str(r["seed"]) for r in results)]
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"


def _not_run(letters: Sequence[str]) -> str:
    """What was published of the benchmarks that no run here is of."""
    inner = "".join(
        markup.table(
            beside.differences(
                f"{letter}: {beside.TITLES[letter].words}",
                published.of(letter) if letter in published.TABLE2 else {},
                [],
            )
        )
        for letter in letters
    )
    told = f"The paper's {', '.join(letters)}: {beside.NOT_RUN}"
    return markup.folded(told, inner) if letters else ""


def grouped(runs: Sequence[Run]) -> dict[tuple[str, str, str], list[Run]]:
    """Seeds of one configuration of `table2`, by pair, protocol and folder's name.

    A seed that is there twice under one name stands alone the second time.
    """
    found: dict[tuple[str, str, str], list[Run]] = {}
    for run in _of_table2(runs):
        name = re.sub(r"-\d+(?=(-[0-9a-f]{8})?$)", "", run.name)
        key = str(run.facts["benchmark"]), str(run.facts["protocol"]), name
        if any(run.facts["seed"] == r.facts["seed"] for r in found.get(key, ())):
            key = (*key[:2], run.name)
        found.setdefault(key, []).append(run)
    return {k: sorted(v, key=lambda r: r.facts["seed"]) for k, v in found.items()}


def assembled(runs: Sequence[Run]) -> dict[tuple[str, str, str], list[Run]]:
    """Pairs of D that are of one network, by all of D, protocol and network.

    A pair and seed that is there twice is of a further group, which is numbered.
    """
    found: dict[tuple[str, str, str], dict[tuple[str, int], Run]] = {}
    for run in _of_table2(runs):
        of, seed = str(run.facts["benchmark"]), run.facts["seed"]
        if (pair := corrupted_pairs.pair_of(of)) is None:
            continue
        begin = pair.of, str(run.facts["protocol"])
        name = corrupted_pairs.network_of(run.facts)
        more = (f"{name} ({n})" for n in itertools.count(2))
        for key in ((*begin, word) for word in itertools.chain([name], more)):
            if (of, seed) not in found.setdefault(key, {}):
                found[key][of, seed] = run
                break
    return {
        k: sorted(v.values(), key=lambda r: r.facts["seed"]) for k, v in found.items()
    }


def _of_table2(runs: Sequence[Run]) -> Iterator[Run]:
    for run in runs:
        if run.experiment == TABLE2 and is_comparison(run.facts):
            if {"benchmark", "protocol", "model", "counts"} <= set(run.facts):
                yield run
