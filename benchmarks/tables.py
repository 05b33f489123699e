"""The tables of `benchmarks.all`."""

from typing import Any

import numpy as np

from benchmarks import gates
from benchmarks.gates import NOT_RUN
from benchmarks.ours import SIDE
from benchmarks.tasks import BATCHED, PEERS, WHAT
from experiments.harness.sheets import Sheet


def to_sheet(found: dict[str, Any], verdicts: list[gates.Verdict]) -> Sheet:
    judged = {(v.network, v.gate.task, v.gate.peer): v for v in verdicts}
    rows = []
    for network, tasks in found["tasks"].items():
        for task, of in tasks.items():
            for peer in PEERS[task] or [None]:
                verdict = judged.get((network, task, peer))
                rows.append(_row(network, task, of, peer, verdict))
    notes = [
        "Median seconds (batch; cl: channels last); a peer's seconds over ours: median "
        f"[smallest, largest] of {found['rounds']} rounds; {found['threads']} threads.",
        f"Of size {found['size']}, in {found['seconds'] / 60:.1f} minutes, by the code "
        f"of commit {found['commit'] or 'unknown'}.",
    ]
    if found["versions"]["torch"] == NOT_RUN:
        notes.append(f"warning: peers {NOT_RUN}; their gates are no passes")
    headings = ["task", "images", "ours", "peer", "theirs", "times faster", "gate"]
    return Sheet("Speed beside peers", headings, rows, notes)


def _row(network: str, task: str, of: dict, peer: str | None, verdict) -> list[str]:
    def cell(contender: str) -> str:
        if contender not in of["seconds"]:
            return "not run" if contender == gates.TANGENTS else NOT_RUN
        setting = of.get("settings", {}).get(contender, {})
        shown = [str(setting["batch"])] if task in BATCHED else []
        shown += ["cl"] * setting.get("channels_last", False)
        told = f" ({', '.join(shown)})" if shown else ""
        return f"{np.median(of['seconds'][contender]):.3g} s{told}"

    ratios = gates.measured(of["seconds"], peer) if peer else []
    spread = f" [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else ""
    gate = ""
    if verdict is not None:
        word = {True: "passed", False: "missed", None: "not run"}[verdict.passed]
        sign = "≥" if verdict.gate.at_least else "≤"
        unit = "" if peer else " s"
        gate = f"{sign} {verdict.gate.limit:g}{unit}: {word}"
    return [
        f"{network}: {WHAT[task]}" if network else WHAT[task],
        "" if of["images"] is None else f"{of['images']:,}",
        cell("ours"),
        peer or "",
        cell(peer) if peer else "",
        f"{np.median(ratios):.2f}{spread}" if ratios else "",
        gate,
    ]


def work_sheet(found: dict[str, Any]) -> Sheet:
    rows = [
        [
            f"{network}: {name}",
            f"{of['needed'] / 1e6:,.1f}",
            f"{of['counted'] / of['needed']:.3f}",
            f"{of['gflops']:,.0f}" if "gflops" in of else "",
        ]
        for network, procedures in found["work"].items()
        for name, of in procedures.items()
    ]
    return Sheet(
        "Operations of convolutions and matrix products, by hand and by XLA",
        ["procedure", "needed, 10⁶ an image", "XLA's count over it", "10⁹ a second"],
        rows,
        [
            "The formulas are in benchmarks/work.py; XLA counts ReLUs too. "
            f"A product of {SIDE:,} × {SIDE:,} matrices reaches "
            f"{found['matrix_product_gflops']:,.0f} · 10⁹ a second."
        ],
    )
