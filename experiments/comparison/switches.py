"""One switch at a time, from the paper's protocol to the released code's."""

from typing import Any, NamedTuple

import numpy as np

from experiments.comparison.protocols import PROTOCOLS, Protocol
from experiments.comparison.setting import Prepared, make_setting
from experiments.comparison.singular import run_fssd
from fssd_jax import metrics

# In the order of the procedure: F*, the weights, the choice of ε, the step, the test.
ORDER = (
    "noise",
    "samples",
    "ensemble",
    "split",
    "epsilon_choice",
    "epsilons",
    "perturbation",
    "truncate",
)


def switch_by_switch() -> list[tuple[str, Protocol]]:
    """(switch that changes, protocol) from `paper` to `released`."""
    protocol, end = PROTOCOLS["paper"], PROTOCOLS["released"]
    steps = [("paper", protocol)]
    for switch in ORDER:
        changed = {switch: getattr(end, switch)}
        if switch == "perturbation":  # the batch is a part of that perturbation
            changed["batch_size"] = end.batch_size
        protocol = protocol._replace(**changed)
        steps.append((switch, protocol))
    return steps


class Walked(NamedTuple):
    rows: list[dict[str, Any]]  # of metrics.json
    arrays: dict[str, np.ndarray]  # "SWITCH/ind" and "SWITCH/ood": scores


def walk(prepared: Prepared, pair: str, *, tiny: bool) -> Walked:
    """FSSD of one network and pair with every switch, and its difference."""
    rows: list[dict[str, Any]] = []
    arrays = {}
    for switch, protocol in switch_by_switch():
        (row,) = run_fssd(
            "fssd", make_setting(prepared, pair, protocol, tiny=tiny)
        ).values()
        found = metrics.evaluate(row.ind, row.ood)
        before = rows[-1]["auroc"] if rows else None
        assert row.layers is not None
        rows.append(
            {
                "switch": switch,
                "value": "" if switch == "paper" else _shown(protocol, switch),
                **found._asdict(),
                "difference": None if before is None else found.auroc - before,
                "epsilon": row.layers.epsilon,
                "alpha": row.layers.alpha.tolist(),
            }
        )
        arrays |= {f"{switch}/ind": row.ind, f"{switch}/ood": row.ood}
        print(f"{switch}: AUROC {found.auroc:.5f}", flush=True)
    return Walked(rows, arrays)


def _shown(protocol: Protocol, switch: str) -> str:
    value = getattr(protocol, switch)
    return f"{len(value)} values" if isinstance(value, tuple) else str(value)
