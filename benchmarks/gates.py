"""What must be reached, and whether it was."""

from typing import Any, NamedTuple

import numpy as np

NOT_RUN = "not run: pip install torch"


class Gate(NamedTuple):
    name: str
    task: str
    peer: str | None  # whose time over ours is the ratio; None: seconds of ours
    limit: float
    at_least: bool


TORCH, RELEASED, SHARED = "PyTorch", "PyTorch, released", "PyTorch, shared"
SKLEARN = "PyTorch and scikit-learn"
LOGISTIC, TANGENTS = "scikit-learn", "neural-tangents"  # without a gate
# One step is compared with the faster peer: at one ε there is no gradient to share over
# ε, but the released procedure takes a forward pass a layer more.
GATES = (
    Gate("plain scoring", "plain", TORCH, 1.15, True),
    Gate("one ε", "one", SHARED, 1.5, True),
    Gate("21-value sweep", "sweep", RELEASED, 5, True),
    Gate("21-value sweep, shared gradient", "sweep", SHARED, 1.4, True),
    Gate("training epoch, warm", "training", TORCH, 1, True),
    Gate("Mahalanobis, fit and score", "mahalanobis", SKLEARN, 1.5, True),
    Gate("fit with OoD labels, images not counted", "fit", None, 3, False),
    Gate("metrics of 2 million scores", "metrics", None, 5, False),
    Gate("import beyond JAX's", "import", None, 1.5, False),
    Gate("import of a detector beyond JAX's", "first use", None, 1.5, False),
)


class Verdict(NamedTuple):
    gate: Gate
    network: str
    found: list[float]  # of the rounds; none if it was not run

    @property
    def median(self) -> float:
        return float(np.median(self.found))

    @property
    def passed(self) -> bool | None:
        """None: not run, which is no pass."""
        if not self.found:
            return None
        over = self.median >= self.gate.limit
        return over if self.gate.at_least else self.median <= self.gate.limit

    @property
    def told(self) -> str:
        """Found and wanted."""
        gate, times = self.gate, f"× {self.gate.peer}" if self.gate.peer else "s"
        where = ", ".join(filter(None, (self.network, gate.name)))
        wanted = f"at {'least' if gate.at_least else 'most'} {gate.limit:g}"
        found = f"{self.median:.2f}" if self.found else "not run"
        return f"{where}: {found} {times}, {wanted}"


def verdicts(tasks: dict[str, dict[str, Any]]) -> list[Verdict]:
    """Of every gate whose task was tried, by network.

    Args:
      tasks: network → task → {"seconds": contender → a number a round}.
    """
    return [
        Verdict(gate, network, measured(of[gate.task]["seconds"], gate.peer))
        for network, of in tasks.items()
        for gate in GATES
        if gate.task in of
    ]


def measured(seconds: dict[str, list[float]], peer: str | None) -> list[float]:
    """Ratios, theirs over ours, of paired rounds; without a peer, our seconds."""
    if peer is None:
        return seconds["ours"]
    pairs = zip(seconds.get(peer, []), seconds["ours"], strict=False)
    return [theirs / ours for theirs, ours in pairs]


def conclusion(found: list[Verdict], strict: bool) -> tuple[bool, str]:
    """Whether to fail, and the last line of a run."""
    missed = [v.told for v in found if v.passed is False]
    not_run = [v.told for v in found if v.passed is None]
    if missed:
        return True, f"missed: {'; '.join(missed)}"
    if not_run:
        what = f"gates passed: {len(found) - len(not_run)}; not run, which is no pass: "
        return strict, f"{what}{len(not_run)} (pip install torch)"
    return False, f"all {len(found)} gates passed"
