"""From a setting to what metrics.json holds: every number of a comparison."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.comparison.answers import Answers, answer
from experiments.comparison.rows import LayerScores, Rows, Scored
from experiments.comparison.setting import Setting
from experiments.harness.files import Stopwatch, load_json
from fssd_jax import metrics
from fssd_jax.checks import InputError

METRICS = ("auroc", "auprc", "fpr80", "fpr95")
TPRS = (0.5, 0.9, 0.99)  # FPR at these, too
KINDS = ("methods", "variants", "controls")
FITTED = ("fssd", "fssd clean")  # the first that there is is told layer by layer

Result = dict[str, Any]  # what metrics.json holds


def measure(
    s: Setting,
    names: Iterable[str],
    folder: Path,
    title: str,
    *,
    again: bool,
    clock: Stopwatch,
) -> tuple[Answers, Result]:
    """All scores, and all that follows from them; arguments as of `answer`.

    Args:
      title: of what is measured, for a line on the screen before each method.
    """
    found = answer(
        *(s, names, folder),
        again=again,
        clock=clock,
        told=lambda name: print(f"{title}: {name}", flush=True),
    )
    told = {"left_out": found.left_out, "failed": found.failed}
    return found, summarise(found.groups) | told


def summarise(groups: dict[str, Rows]) -> Result:
    """What follows from the rows of "methods", "variants" and "controls"."""
    result: Result = {
        group: {name: _row(scored) for name, scored in rows.items()}
        for group, rows in groups.items()
    }
    result |= {"paired": paired_tests(groups), "epsilon": None, "layers": []}
    methods = groups["methods"]
    layers = next((m.layers for m in map(methods.get, FITTED) if m), None)
    if layers is not None:
        result |= {"epsilon": layers.epsilon, "layers": layer_facts(layers)}
    result["warnings"] = layer_warnings(result["layers"], result["epsilon"])
    return result


def paired_tests(groups: dict[str, Rows]) -> list[dict[str, Any]]:
    """FSSD against the best rival that used no more labels, on the same images."""
    methods, tests = groups["methods"], []
    rivals = {
        "method": {k: v for k, v in methods.items() if not k.startswith("fssd")},
        "control": groups["controls"],
    }
    for name in ("fssd", "fssd clean"):
        for kind, rows in rivals.items():
            if name not in methods:
                continue
            allowed = {
                rival: metrics.auroc(row.ind, row.ood)
                for rival, row in rows.items()
                if methods[name].target_ood or not row.target_ood
            }
            if not allowed:
                continue
            best = max(allowed, key=allowed.__getitem__)
            facts: dict[str, Any] = {"row": name, "kind": kind, "against": None}
            enough = min(len(rows[best].ind), len(rows[best].ood)) > 1
            if allowed[best] > 0.5 and enough:
                pair = (methods[name], rows[best])
                found = metrics.paired(*(part for s in pair for part in (s.ind, s.ood)))
                facts |= {"against": best, **found._asdict()}
            tests.append(facts)
    return tests


def _row(scored: Scored) -> dict[str, Any]:
    sets = scored.ind, scored.ood
    row = metrics.evaluate(*sets)._asdict()
    more = {"auprc_out": metrics.auprc_out(*sets)}
    more |= {f"fpr{100 * tpr:g}": metrics.fpr_at(*sets, tpr) for tpr in TPRS}
    for name, rate in more.items():
        row |= {name: rate.value, f"{name}_ci95": rate.ci95}
    facts = ("fitted_on", "target_ood", "note", "training", "passes", "data")
    return {**row, **{fact: getattr(scored, fact) for fact in facts}}


def layer_facts(found: LayerScores) -> list[dict[str, Any]]:
    """Each layer alone: what it separates, and the sign that it was given."""
    facts = []
    for k, name in enumerate(found.names):
        auroc = metrics.auroc(found.ind[:, k], found.ood[:, k])
        plain = metrics.evaluate(found.plain_ind[:, k], found.plain_ood[:, k])
        facts.append(
            {
                "name": name,
                "dim": found.dims[k],
                "auroc": auroc,
                "auroc_no_step": plain.auroc,
                "auroc_no_step_ci95": plain.auroc_ci95,
                "alpha": float(found.alpha[k]),
                "inverted": plain.auroc < 0.5,
                "noise_spread": float(found.spread[k]),
            }
        )
    return facts


def layer_warnings(layers: list[dict[str, Any]], epsilon: float | None) -> list[str]:
    """A sentence for each layer whose sign is not the paper's."""
    texts = []
    for layer in layers:
        seen = (
            f"layer {layer['name']} (AUROC {layer['auroc_no_step']:.3f} at ε = 0, "
            f"{layer['auroc']:.3f} at the chosen ε = {epsilon}; "
            f"α {layer['alpha']:+.3g})"
        )
        if layer["inverted"]:
            texts.append(
                f"{seen} is inverted: OoD images lie farther from F* than "
                "in-distribution ones"
            )
        elif layer["auroc"] < 0.5:
            texts.append(
                f"{seen} is turned round by the input step: only after it OoD images "
                "lie farther from F*"
            )
        if (layer["alpha"] > 0) != (layer["auroc"] > 0.5):
            texts.append(f"{seen} is weighted against its own AUROC")
    return texts


def score_arrays(found: Answers) -> dict[str, np.ndarray]:
    """`<row>/ind`, `<row>/ood`, its layers before they are combined; `picture/…`."""
    arrays = {}
    for rows in found.groups.values():
        for name, scored in rows.items():
            arrays |= {f"{name}/ind": scored.ind, f"{name}/ood": scored.ood}
            if scored.layers is not None:
                arrays[f"{name}/layers_ind"] = scored.layers.ind
                arrays[f"{name}/layers_ood"] = scored.layers.ood
    return arrays | {f"picture/{name}": a for name, a in found.pictures.items()}


def seconds(found: Answers) -> dict[str, float | None]:
    """Of scoring 1,000 images, by row."""
    rows = (rows for rows in found.groups.values())
    return {name: scored.seconds for of in rows for name, scored in of.items()}


# ---- several results ----------------------------------------------------------------


def read(path: Path) -> Result:
    """Raises `InputError` for a damaged metrics.json."""
    mend = f"delete {path}, and run again"
    result = load_json(path / "metrics.json", mend)
    try:
        rows = [row for kind in KINDS for row in result[kind].values()]
        fractions = all(0 <= row[metric] <= 1 for row in rows for metric in METRICS)
        if not fractions or {"seed", "paper"} - set(result):
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: holds no result of a comparison; {mend}") from error
    return result


def read_seconds(path: Path) -> dict[str, float | None]:
    """Of scoring 1,000 images, by row; raises `InputError` for a damaged file."""
    mend = f"delete {path}, and run again"
    timing = load_json(path / "timing.json", mend)
    try:
        seconds = dict(timing["scoring_seconds_per_1000_images"])
        if not all(s is None or s >= 0 for s in seconds.values()):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: holds no seconds of scoring; {mend}") from error
    return seconds


def row_names(results: list[Result], kind: str) -> list[str]:
    """Names of the rows in their order; some seeds may lack some rows."""
    return list(dict.fromkeys(name for r in results for name in r[kind]))


def aggregate(folder: Path) -> dict[str, Any]:
    """Mean and standard deviation over the seeds of each configuration in `folder`."""
    groups: dict[str, list[Result]] = {}
    for path in sorted(folder.glob("[!.]*/metrics.json")):
        named = re.fullmatch(r"(\w+-\w+)-\d+-([0-9a-f]{8})", path.parent.name)
        if named is None:  # a folder that somebody else put here
            continue
        name = "-".join(named.groups())
        groups.setdefault(name, []).append(read(path.parent))
    return {
        name: {
            "seeds": [r["seed"] for r in results],
            "paper": results[0]["paper"],
            "methods": _over_seeds(results, "methods"),
            "variants": _over_seeds(results, "variants"),
            "controls": _over_seeds(results, "controls"),
        }
        for name, results in groups.items()
    }


def _over_seeds(results: list[Result], kind: str):
    """Some rows are of some seeds only."""
    return {
        name: {
            metric: mean_and_deviation(
                [r[kind][name][metric] for r in results if name in r[kind]]
            )
            for metric in METRICS
        }
        for name in row_names(results, kind)
    }


def mean_and_deviation(values: list[float]) -> dict[str, float | int | None]:
    """Mean and sample standard deviation over seeds (None for one seed)."""
    mean = math.fsum(values) / len(values)
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": mean, "std": deviation, "seeds": len(values)}
