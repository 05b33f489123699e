"""The numbers of Eq. (4) as flat records."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.harness.records import Record, record, records
from experiments.kernel_study.forms import CORRELATIONS

ALIGNMENTS = {
    "alignment": "kernel alignment",
    "floor": "floor of kernel alignment",
    "debiased": "debiased kernel alignment",
    "p": "p",
}
SETS = {"all": "both", "ind": "in-distribution", "ood": "OoD"}  # as metrics.json has


def of_seed(facts: Mapping[str, Any]) -> list[Record]:
    """Of what metrics.json of `kernel_regression` holds; forms are methods."""
    keys = {
        "benchmark": facts["benchmark"],
        "network": facts["network"],
        "seed": facts["seed"],
        "condition": facts["loss"],
        "train_images": facts["preset"]["train"],
    }
    near = facts["nearest_pixels"]
    control = {"method": "control: nearest in pixels", **keys}
    numbers = [record("AUROC", near["auroc"], near["auroc_ci95"], **control)]
    for width, of in facts["widths"].items():
        at = {"width": int(width), "step": of["steps"], **keys}
        numbers += records({"parameters": of["parameters"], "loss": of["loss"]}, **at)
        for kind, name in (("training", "train_accuracy"), ("test", "test_accuracy")):
            numbers.append(record("accuracy", of[name], set=kind, **at))
        for layer, told in of["layers"].items():
            numbers += of_layer(told, layer=layer, **at)
    return numbers


def of_layer(told: Mapping[str, Any], **keys) -> list[Record]:
    """Of one layer's forms, shares and kernel."""
    numbers = []
    for form, of in told["forms"].items():
        at = {"method": form, **keys}
        numbers.append(record("AUROC", of["auroc"], of["auroc_ci95"], **at))
        numbers += records({"relative error": of.get("relative_error")}, **at)
        for name, other in (
            ("with_fssd", "FSSD"),
            ("with_displacement", "displacement"),
        ):
            for kind in CORRELATIONS if name in of else ():
                for part, r in of[name][kind].items():
                    of_part = {f"{kind} with {other}": r}
                    numbers += records(of_part, set=SETS[part], **at)
    for key, center in (("shares", ""), ("shares_moving", ", F* moving")):
        for term, shares in told[key].items():
            for part, share in shares.items():
                of_part = {"set": SETS[part], **keys}
                numbers.append(record(f"share of {term}{center}", share, **of_part))
    drifts = {"kernel drift": "kernel_drift", "kernel distance": "kernel_distance"}
    numbers += finite({name: told[key] for name, key in drifts.items()}, **keys)
    for when, at in (("before", {**keys, "step": 0}), ("after", keys)):
        of_labels = told[f"kernel_alignment_{when}"]
        named = {name: of_labels[key] for key, name in ALIGNMENTS.items()}
        numbers += finite(named, **at)
    return [*numbers, record("movement of F*", told["singularity_moved"], **keys)]


def finite(values: Mapping[str, float], **keys) -> list[Record]:
    """Of a dead layer's kernel there are none."""
    known = {name: value for name, value in values.items() if np.isfinite(value)}
    return records(known, **keys)
