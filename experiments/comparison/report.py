"""From scores to a results folder: metrics.json, CSV, scores, pictures, report.html."""

import csv
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from analysis import pca, plots
from experiments import common, pages, tables
from experiments.scores import LayerScores, Rows, Scored
from experiments.setting import Setting
from experiments.tables import METRICS, Result
from fssd_jax import metrics
from fssd_jax.data.pipeline import map_batches
from fssd_jax.fssd import estimate_singularity, fssd

PICTURES = ("layers", "features", "roc", "epsilon")
SHOWN = 1000  # points a set in the scatter plot


def write(folder: Path, facts: Result, setting: Setting, groups: dict[str, Rows]):
    """Fill a results folder: `facts`, and all that follows from the scores.

    Args:
      groups: rows of "methods", "variants" and "controls".
    """
    result = {
        **facts,
        **{
            group: {name: _row(s) for name, s in rows.items()}
            for group, rows in groups.items()
        },
        "paired": paired_tests(groups),
        "epsilon": None,
        "layers": [],
    }
    methods = groups["methods"]
    layers = methods["fssd"].layers if "fssd" in methods else None
    if layers is not None:
        result |= {"epsilon": layers.epsilon, "layers": layer_facts(layers)}
    result["warnings"] = layer_warnings(result["layers"], result["epsilon"])
    common.write_json(folder / "metrics.json", result)
    _write_csv(folder / "metrics.csv", result)
    everything = {k: v for rows in groups.values() for k, v in rows.items()}
    _write_scores(folder / "scores.npz", everything)
    shown = {name: (s.ind, s.ood) for name, s in everything.items() if in_roc(name)}
    plots.save(plots.roc(shown, f"{facts['benchmark']}: ROC"), folder / "roc")
    if layers is not None:
        _draw_layers(folder, setting, layers, result["layers"])
    pages.write_page(
        folder,
        f"{facts['benchmark']}, protocol {facts['protocol']}",
        tables.sheets([result]),
        [name for name in PICTURES if (folder / f"{name}.png").exists()],
        {k: facts[k] for k in ("model", "counts", "sources", "versions", "device")},
    )


def in_roc(name: str) -> bool:
    """Not the variants, nor single layers, nor parts of a row that is there whole."""
    others = ("fssd,", "displacement,", "relative displacement,", "mc dropout,")
    layer = name.startswith(("fssd ", "control: untrained,"))
    return not name.startswith(others) and (not layer or name.endswith("clean"))


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
            if allowed[best] > 0.5:
                pair = (methods[name], rows[best])
                found = metrics.paired(*(part for s in pair for part in (s.ind, s.ood)))
                facts |= {"against": best, **found._asdict()}
            tests.append(facts)
    return tests


def read(path: Path) -> Result:
    return json.loads((path / "metrics.json").read_text())


def seconds(path: Path) -> dict[str, float | None]:
    """Of scoring 1,000 images, by row."""
    timing = json.loads((path / "timing.json").read_text())
    return timing["scoring_seconds_per_1000_images"]


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
            metric: common.mean_and_deviation(
                [r[kind][name][metric] for r in results if name in r[kind]]
            )
            for metric in METRICS
        }
        for name in tables.row_names(results, kind)
    }


def _row(scored: Scored) -> dict[str, Any]:
    row = metrics.evaluate(scored.ind, scored.ood)._asdict()
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


def _write_csv(path: Path, result: Result) -> None:
    bounds = [f"{m}_{end}" for m in METRICS for end in ("low95", "high95")]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "name", *METRICS, *bounds, "fitted_on"])
        for kind in tables.KINDS:
            for name, row in result[kind].items():
                values = [row[m] for m in METRICS]
                ends = [end for m in METRICS for end in row[f"{m}_ci95"]]
                writer.writerow([kind[:-1], name, *values, *ends, row["fitted_on"]])


def _write_scores(path: Path, scored: dict[str, Scored]) -> None:
    """Arrays `<row>/ind` and `<row>/ood`, and the layers' before they are combined."""
    arrays = {}
    for name, s in scored.items():
        arrays |= {f"{name}/ind": s.ind, f"{name}/ood": s.ood}
        if s.layers is not None:
            arrays[f"{name}/layers_ind"] = s.layers.ind
            arrays[f"{name}/layers_ood"] = s.layers.ood
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _draw_layers(folder: Path, setting: Setting, found: LayerScores, facts) -> None:
    singularity = estimate_singularity(
        setting.feature_fn, setting.variables, setting.noise, unit_range=False
    )
    apply = partial(
        map_batches,
        apply_fn=setting.feature_fn,
        variables=setting.variables,
    )
    noise = np.asarray(setting.noise)
    distances = {
        "in-distribution": found.plain_ind,
        "OoD": found.plain_ood,
        "noise": apply(fssd, state=singularity, x=noise, unit_range=False),
    }
    titles = [f"AUROC {layer['auroc_no_step']:.3f}" for layer in facts]
    figure = plots.layer_histograms(distances, [f["name"] for f in facts], titles)
    plots.save(figure, folder / "layers")

    # The last hidden layer, if the last of all are the logits.
    layer = facts[max(len(facts) - 2, 0)]["name"]
    images = {
        "noise": noise[:SHOWN],
        "in-distribution": setting.test_ind[:SHOWN],
        "OoD": setting.test_ood[:SHOWN],
    }
    of_layer = partial(_feature, layer)
    features = {
        k: apply(of_layer, state=None, x=x, unit_range=False) for k, x in images.items()
    }
    basis = pca.fit(np.concatenate([features["in-distribution"], features["OoD"]]))
    points = {name: pca.project(basis, f) for name, f in features.items()}
    star = pca.project(basis, singularity.center[layer][None])[0]
    figure = plots.feature_scatter(points, star, basis.share, f"features of {layer}")
    plots.save(figure, folder / "features")

    if len(found.epsilons):
        criterion = {"auroc": "AUROC", "tnr95": "TNR at TPR 95 %"}
        name = criterion[setting.protocol.epsilon_choice]
        figure = plots.epsilon_choice(
            found.epsilons, found.criterion, found.epsilon, name
        )
        plots.save(figure, folder / "epsilon")


def _feature(layer, feature_fn, variables, _, x):
    return feature_fn(variables, x)[layer]
