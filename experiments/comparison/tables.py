"""The wording of a comparison: results as sheets of text cells."""

from typing import Any

import numpy as np

from experiments.comparison.answers import GROUPS
from experiments.comparison.report import KINDS, METRICS, Result, row_names
from experiments.harness.sheets import Sheet, mean_cell
from fssd_jax.data.benchmarks import Benchmark

HEADINGS = ["method", *(m.upper() for m in METRICS), "fitted on", "chosen"]
INTERVAL = "95 % interval, Clopper–Pearson's with the variance of the metric,"
SCREEN = ("method", "AUROC", "FPR95", "fitted on", "chosen")


def metric_rows(results: list[Result], kinds: tuple[str, ...]) -> list[list[str]]:
    """Cells under `HEADINGS`, over one or several seeds."""
    rows = []
    for kind in kinds:
        for name in row_names(results, kind):
            of_seeds = [r[kind][name] for r in results if name in r[kind]]
            notes = list(dict.fromkeys(row["note"] for row in of_seeds if row["note"]))
            rows.append(
                [
                    name + _missing(len(of_seeds), len(results)),
                    *(_cell(of_seeds, metric) for metric in METRICS),
                    of_seeds[0]["fitted_on"],
                    "; ".join(notes),
                ]
            )
    return rows


def failed_rows(results: list[Result], kinds: tuple[str, ...]) -> list[list[str]]:
    """Cells under `HEADINGS` of methods that failed, and why; of each seed its own."""
    return [
        [
            ("control: " if name in GROUPS["controls"] else "")
            + name
            + (f", seed {result['seed']}" if len(results) > 1 else ""),
            "failed",
            *[""] * len(METRICS),
            reason,
        ]
        for result in results
        for name, reason in result["failed"].items()
        if any(name in GROUPS[kind] for kind in kinds)
    ]


def failed_notes(results: list[Result]) -> list[str]:
    """For the reader, and what failed beside methods."""
    names = [name for result in results for name in result["failed"]]
    other = [
        f"{name} failed: {reason}."
        for result in results
        for name, reason in result["failed"].items()
        if not any(name in known for known in GROUPS.values())
    ]
    again = "What failed is tried again by the same command; the other rows are kept."
    return [*other, again] if names else []


def failed_names(results: list[Result]) -> list[str]:
    """Of methods, with their pair and seed."""
    return [
        f"{name} ({result['benchmark']}, seed {result['seed']})"
        for result in results
        for name in result["failed"]
    ]


def method_sheet(results: list[Result], kinds=("methods", "controls")) -> Sheet:
    """Rows of one pair, over one or several seeds."""
    first = results[0]
    accuracy = ", ".join(f"{100 * r['model']['accuracy']:.1f} %" for r in results)
    epochs = ", ".join(str(r["model"]["epochs"]) for r in results)
    model = first["model"]
    network = (
        f"{model['network']}, {epochs} epochs on {first['counts']['train']:,} images"
    )
    if "weights" in model:
        network = f"{model['network']}, the weights {model['weights']}"
    title = f"{first['benchmark']}, protocol {first['protocol']}, seed " + ", ".join(
        str(r["seed"]) for r in results
    )
    spread = (
        "± standard deviation over seeds"
        if len(results) > 1
        else f"[{INTERVAL} of the test images, not of training again]"
    )
    notes = [
        f"In %; in-distribution is positive; {spread}. Network: {network}; test "
        f"accuracy {accuracy}. Of networks that a method adds, the epochs are told "
        "where it is noted what was chosen.",
    ]
    if "weights" in model:
        notes.append(
            "Accuracy at chance: the weights' classes are in another order, or their "
            "images were normalised otherwise."
        )
    if first.get("symbols"):
        notes.append(
            "Inputs are token ids, which have no gradient: no method takes an input "
            "step (ε = 0). F* is that of uniformly random tokens unless a row says "
            "otherwise."
        )
    notes += [*left_out(first), *failed_notes(results)]
    if "methods" in kinds:
        notes += of_photographs(results)
    if len(results) > 1:
        notes.append(
            "Deep ensembles of neighbouring seeds, and the rows of several networks, "
            "share members: their ± is too small. A row of one seed has the interval."
        )
    if len(set(epochs.split(", "))) > 1:
        notes.append("The seeds were not trained equally long: ± holds that, too.")
    if "controls" in kinds:
        notes.append(
            "A control knows nothing of the trained network: a method that does not "
            "pass it shows nothing of the training."
        )
        notes.append(
            "Paired tests: the rival is the best on these test images, and p is not "
            "corrected for having been the best."
        )
        notes += [_in_words(test, r) for r in results for test in r["paired"]]
    else:
        title += ": FSSD varied"
    rows = metric_rows(results, kinds) + failed_rows(results, kinds)
    return Sheet(title, HEADINGS, rows, notes, SCREEN)


def of_photographs(results: list[Result]) -> list[str]:
    """A note, if there are such rows."""
    if not any(k.endswith(", photographs") for r in results for k in r["methods"]):
        return []
    return [
        "Rows of photographs take patches of two photographs as the OoD set: hardly "
        "anything should be easier to tell, if the in-distribution images are none."
    ]


def left_out(result: Result) -> list[str]:
    """Notes for what was asked for and gives no row, one a reason."""
    names: dict[str, list[str]] = {}
    for name, why in result["left_out"].items():
        names.setdefault(why, []).append(name)
    return [
        f"{', '.join(of)} {'is' if len(of) == 1 else 'are'} left out: {why}."
        for why, of in names.items()
    ]


def missing_sheets(benchmark: Benchmark) -> list[Sheet]:
    """One of the pairs whose OoD sets cannot be had, if there are such."""
    if not benchmark.missing:
        return []
    notes = [
        f"{pair}: {' '.join(why.split())}." for pair, why in benchmark.missing.items()
    ]
    rows = [[pair, "not run"] for pair in benchmark.missing]
    title = f"{benchmark.name}: OoD sets that could not be had"
    return [Sheet(title, ["pair", ""], rows, notes)]


def _missing(count: int, of: int) -> str:
    return "" if count == of else f" ({count} of {of} seeds)"


def _in_words(test: dict[str, Any], result: Result) -> str:
    if test["against"] is None:
        return (
            f"seed {result['seed']}: {test['row']} is tested against no "
            f"{test['kind']}: none that used no more labels is better than chance."
        )
    low, high = (100 * v for v in test["ci95"])
    p = "p < 0.0001" if test["p"] < 1e-4 else f"p = {test['p']:.4f}"
    return (
        f"seed {result['seed']}: {test['row']} against the best {test['kind']} that "
        f"used no more labels, {test['against']}: {100 * test['difference']:+.2f} "
        f"points of AUROC [{low:+.2f}, {high:+.2f}], {p} (DeLong, same images)."
    )


def cost_sheet(results: list[Result], seconds: list[dict[str, float | None]]) -> Sheet:
    """What each method costs; `seconds` are per 1,000 images, by row, a dict a seed."""
    rows = []
    for kind in ("methods", "variants"):
        for name in row_names(results, kind):
            found = next(r[kind][name] for r in results if name in r[kind])
            timed = [t for t in (s.get(name) for s in seconds) if t is not None]
            if not timed:  # a layer of a row that was timed
                continue
            shown = f"{np.mean(timed):.2f}"
            facts = ("training", "passes", "data", "fitted_on")
            rows.append([name, *(found[fact] for fact in facts), shown])
    return Sheet(
        f"{results[0]['benchmark']}: what each method costs",
        [
            *("method", "extra training", "passes an image", "kept for the test"),
            *("fitted on", "s per 1,000 images"),
        ],
        rows,
        [
            "Seconds of the method on its own, without compilation, by a small timing: "
            "methods that need a forward pass only were scored together by one. Of "
            "several networks: their share of one pass of all."
        ],
        ("method", "extra training", "passes an image", "s per 1,000 images"),
    )


def published_sheet(results: list[Result]) -> Sheet:
    """Our means beside published numbers, with the differences in points.

    Of the seeds that were trained longest: the published networks surely were.
    """
    longest = max(r["model"]["epochs"] for r in results)
    results = [r for r in results if r["model"]["epochs"] == longest]
    first = results[0]
    rows = []
    names = row_names(results, "methods")
    for name in names:
        whole = name.split(",")[0]
        # Of several rows of a method the one without a comma was chosen, if one was.
        if whole != name and whole in names:
            continue
        for metric in METRICS:
            published = [
                of.get(whole, {}).get(metric) for of in first["paper"].values()
            ]
            if not any(value is not None for value in published):
                continue
            of_seeds = [r["methods"] for r in results if name in r["methods"]]
            ours = 100 * float(np.mean([rows[name][metric] for rows in of_seeds]))
            title = name + _missing(len(of_seeds), len(results))
            row = [f"{title} {metric.upper()}", f"{ours:.1f}"]
            for value in published:
                gap = "-" if value is None else f"{ours - 100 * value:+.1f}"
                row += ["-" if value is None else f"{100 * value:.1f}", gap]
            rows.append(row)
    headings = ["", "here"]
    for where in first["paper"]:
        headings += [where, "difference"]
    title = f"{first['benchmark']}, protocol {first['protocol']}, against published"
    seeds = ", ".join(str(r["seed"]) for r in results)
    of = f"of {longest} epochs" if longest else "of the weights that were brought"
    note = f"In %, mean of seeds {seeds}, {of}; differences in points."
    return Sheet(title, headings, rows, [note])


def layer_sheet(result: Result) -> Sheet:
    """FSSD of each layer of one seed, with warnings for inverted layers."""
    rows = []
    for layer in result["layers"]:
        low, high = layer["auroc_no_step_ci95"]
        rows.append(
            [
                layer["name"],
                str(layer["dim"]),
                f"{100 * layer['auroc_no_step']:.1f} "
                f"[{100 * low:.1f}, {100 * high:.1f}]",
                f"{100 * layer['auroc']:.1f}",
                f"{layer['alpha']:+.3g}",
                "yes" if layer["inverted"] else "",
            ]
        )
    return Sheet(
        f"{result['benchmark']}, FSSD by layer, seed {result['seed']}",
        ["layer", "dim", "AUROC, ε = 0, no labels", "AUROC at ε", "α", "inverted"],
        rows,
        [f"warning: {text}" for text in result["warnings"]],
    )


def sheets(results: list[Result], seconds=()) -> list[Sheet]:
    """All that there is to say of one pair over its seeds."""
    varied = any(r["variants"] for r in results) or failed_rows(results, ("variants",))
    return [
        method_sheet(results),
        *([method_sheet(results, ("variants",))] if varied else []),
        *([cost_sheet(results, seconds)] if seconds else []),
        *([published_sheet(results)] if results[0]["paper"] else []),
        *(layer_sheet(result) for result in results if result["layers"]),
    ]


def _cell(rows: list[dict[str, Any]], metric: str) -> str:
    values = [100 * row[metric] for row in rows]
    if len(values) > 1:
        return mean_cell(values, ".1f")
    low, high = (100 * v for v in rows[0][f"{metric}_ci95"])
    return f"{values[0]:.1f} [{low:.1f}, {high:.1f}]"


def every_metric(result: Result) -> Sheet:
    """In full precision, for metrics.csv."""
    bounds = [f"{metric}_{end}" for metric in METRICS for end in ("low95", "high95")]
    rows = []
    for kind in KINDS:
        for name, row in result[kind].items():
            ends = [end for metric in METRICS for end in row[f"{metric}_ci95"]]
            values = [row[metric] for metric in METRICS] + ends
            rows.append([kind[:-1], name, *map(str, values), row["fitted_on"]])
    return Sheet("", ["kind", "name", *METRICS, *bounds, "fitted_on"], rows, [])
