"""The tables of `benchmarks.accelerator`, from what it found so far."""

from typing import Any

import numpy as np

from benchmarks.on_device import HIGHEST
from benchmarks.tasks import WHAT
from experiments.harness.sheets import Sheet

WHAT = WHAT | {"training": "a training step; from host: an epoch by `train`"}
NOT_TOLD = "not told"
NOT_RUN = "not run"
KINDS = {
    "float32": "float32, highest",
    "default": "float32, default (TF32 on many GPUs)",
    "bfloat16": "bfloat16",
}


def to_sheets(found: dict[str, Any]) -> list[Sheet]:
    networks = found["networks"]
    tables = [_device(found), _rates(networks), _roofline(found)]
    tables += [_precisions(networks), _peers(networks, found)]
    return [t for t in tables if t.rows]


def _device(found: dict[str, Any]) -> Sheet:
    reached, datasheet = found.get("ceilings"), found["datasheet"]
    rows = [["device", found["device"]]]
    if reached:
        rows += [
            [f"matrix product, {KINDS[kind]}", f"{reached[kind] / 1e12:,.3g} TFLOP/s"]
            for kind in KINDS
        ]
        rows.append(["a + 1, bytes read and written", _gbs(reached["bytes"])])
    if datasheet["tflops"]:
        rows.append(["datasheet: operations", f"{datasheet['tflops']:,g} TFLOP/s"])
    if datasheet["gbs"]:
        rows.append(["datasheet: bytes", f"{datasheet['gbs']:,g} GB/s"])
    rows += [[name, " ".join(v.split())] for name, v in found["versions"].items()]
    rows.append(["XLA_FLAGS", " ".join(found["numerics"]["xla_flags"]) or "none"])
    notes = []
    if found["not run"]:
        told = "; ".join(found["not run"])
        notes.append(
            f"warning: the {found['minutes']:g} minutes were over before {told}"
        )
    if "failed" in found:
        notes.append(f"warning: failed: {found['failed']}")
    return Sheet("The device, and what it reaches", ["", "found"], rows, notes)


def _gbs(value: float) -> str:
    return f"{value / 1e9:,.3g} GB/s"


def _rounded(value: float) -> str:
    """Three digits, or a whole number."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _spread(values: list[float]) -> str:
    """Median [smallest, largest]."""
    middle, *ends = float(np.median(values)), min(values), max(values)
    return f"{_rounded(middle)} [{', '.join(map(_rounded, ends))}]"


def _rates(networks: dict[str, Any]) -> Sheet:
    rows = []
    for name, tasks in networks.items():
        for task, of in tasks.items():
            for batch, found in of["batches"].items():
                if not batch.isdigit():
                    continue
                rates = [int(batch) / s for s in found["seconds"]]
                best = int(batch) == of.get("best")
                compiled = sum(found["compiled_in"].values())
                cells = [f"{batch}{' (best)' * best}", _spread(rates), ""]
                if best and "host" in of:
                    host = of["host"]
                    images = host["images"]
                    cells[2] = _spread([images / s for s in host["seconds"]["ours"]])
                    cells[2] += f" of {images:,}"
                rows.append([f"{name}: {WHAT[task]}", *cells, f"{compiled:,.1f} s"])
            for where in (of["batches"], of):
                for part, reason in where.get("failed", {}).items():
                    rows.append([f"{name}: {WHAT[task]}", part, f"{reason}", "", ""])
                for part in where.get("not run", []):
                    rows.append([f"{name}: {WHAT[task]}", part, NOT_RUN, "", ""])
    notes = [
        "Median [smallest, largest] of the rounds, float32 'highest'. On the device: "
        "the images are there, calls are sent after another, the last is waited for; "
        "one device. From host: `map_batches` or `train`, from NumPy to NumPy, on all "
        "devices, at the batch that is best on the device, or the recipe's. Compiled: "
        "tracing and compiling, less what JAX's cache on the disk had."
    ]
    for name, tasks in networks.items():
        for direction, told in tasks.get("sweep", {}).get("transfers", {}).items():
            notes.append(f"{name}: transfers inside a sweep, {direction}: {told}.")
    headings = ["task", "batch", "images/s on the device", "images/s from host"]
    return Sheet("Images a second", [*headings, "compiled in"], rows, notes)


def _roofline(found: dict[str, Any]) -> Sheet:
    rows: list[list[str]] = []
    ceilings: Any = found.get("ceilings")
    for name, tasks in found["networks"].items():
        for task, of in tasks.items():
            if "best" in of and ceilings:
                cells = _bound(of, ceilings)
                rows.append([f"{name}: {WHAT[task]}", str(of["best"]), *cells])
    headings = ["task", "batch", "10¹² operations/s", "bytes/s", "operations a byte"]
    headings += ["bound by", "share of that", "XLA's count over needed"]
    notes = [
        "Operations that are needed, by hand (benchmarks/work.py), and bytes as XLA "
        "counts them in the compiled programs (`cost_analysis`), over the median time "
        "on the device; in brackets the share of the ceiling measured in this run, "
        "with float32 'highest' products. XLA's own count of operations is far below "
        "the needed where it does not look into its kernels, such as cuDNN's. Bytes "
        "are of each kernel's arrays: what stays in a cache is counted, so that a "
        "share may exceed 100 %."
    ]
    if ceilings:
        ridge = ceilings[HIGHEST] / ceilings["bytes"]
        notes.append(f"The roofline's ridge: {ridge:,.1f} operations a byte.")
    return Sheet("Roofline: achieved over reached", headings, rows, notes)


def _bound(of: dict[str, Any], ceilings: dict[str, Any]) -> list[str]:
    best = of["batches"][str(of["best"])]
    seconds, moved = np.median(best["seconds"]), best["bytes"]
    needed, told = of["needed"] * of["best"], best["flops"]
    share = needed / seconds / ceilings[HIGHEST]
    cells = [f"{needed / seconds / 1e12:,.3g} ({share:.0%})", *[NOT_TOLD] * 5]
    if moved is not None:
        of_bytes = moved / seconds / ceilings["bytes"]
        by_operations = needed / moved > ceilings[HIGHEST] / ceilings["bytes"]
        cells[1] = f"{_gbs(moved / seconds)} ({of_bytes:.0%})"
        cells[2] = f"{needed / moved:,.1f}"
        cells[3] = "operations" if by_operations else "bytes"
        cells[4] = f"{share if by_operations else of_bytes:.0%}"
    if told is not None:
        cells[5] = f"{told / needed:.3f}"
    return cells


def _precisions(networks: dict[str, Any]) -> Sheet:
    rows = []
    for name, tasks in networks.items():
        for task, of in tasks.items():
            found = of.get("precisions", {})
            for kind, measured in found.items():
                pairs = zip(found[HIGHEST]["seconds"], measured["seconds"], strict=True)
                rates = [of["best"] / s for s in measured["seconds"]]
                cells = [KINDS[kind], _spread(rates)]
                cells.append(
                    "" if kind == HIGHEST else _spread([a / b for a, b in pairs])
                )
                for key, form in (("difference", ".2g"), ("spearman", ".6f")):
                    cells.append(f"{measured[key]:{form}}" if key in measured else "")
                rows.append([f"{name}: {WHAT[task].split(';')[0]}", *cells])
    headings = ["task", "precision", "images/s on the device", "times faster"]
    headings += ["largest difference of a score", "smallest rank correlation"]
    notes = [
        "At the best batch. Differences are shares of the score in float32 'highest'; "
        "correlations are Spearman's, of a layer's scores of one batch."
    ]
    return Sheet("Precision", headings, rows, notes)


def _peers(networks: dict[str, Any], found: dict[str, Any]) -> Sheet:
    rows = []
    for name, tasks in networks.items():
        for task, of in tasks.items():
            label = f"{name}: {WHAT[task].split(';')[0]}"
            for part, precision in (("beside", "float32"), ("beside in TF32", "TF32")):
                for peer, measured in of.get(part, {}).items():
                    seconds = measured["seconds"]
                    cells = [precision, *_ratio(seconds["ours"], seconds["theirs"], 1)]
                    error = " / ".join(f"{e:.1g}" for e in measured["error"])
                    cells += [_told(measured["setting"]), error]
                    rows.append([label, peer, "on the device", *cells])
            host = of.get("host")
            for peer, setting in host["settings"].items() if host else ():
                seconds, images = host["seconds"], host["images"]
                cells = _ratio(seconds["ours"], seconds[peer], images)
                where = "an epoch" if task == "training" else "from host"
                rows.append([label, peer, where, "float32", *cells, _told(setting), ""])
    notes = [
        "Median [smallest, largest] of the rounds' ratios, theirs over ours; each at "
        "its fastest batch (cl: channels last; resident: training images on the device "
        "before), cuDNN told to try algorithms. Equal: the error that 95 % of the "
        "scores keep below, as a share of the layer's largest, at most 10⁻³, with TF32 "
        "0.05; and the largest error, at most 0.1: after a step pixels differ whose "
        "derivative is all but 0, because its sign does."
    ]
    if found["torch"] is None:
        rows = [["PyTorch", *[NOT_RUN] * 8]] if networks else []
        notes = ["PyTorch is not installed, or has no such device."]
    headings = ["task", "peer", "images", "products in", "ours, images/s", "theirs"]
    headings += ["times faster", "their batch", "equal to"]
    return Sheet("Beside PyTorch on the same device", headings, rows, notes)


def _ratio(ours: list[float], theirs: list[float], images: int) -> list[str]:
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    rates = [_rounded(float(images / np.median(s))) for s in (ours, theirs)]
    return [*rates, _spread(ratios)]


def _told(setting: dict[str, Any]) -> str:
    kinds = ["cl"] * setting["channels_last"] + ["resident"] * setting["resident"]
    return ", ".join([str(setting["batch"]), *kinds])
