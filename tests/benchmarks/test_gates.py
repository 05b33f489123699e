import pytest

from benchmarks import gates, tasks
from benchmarks.gates import GATES, RELEASED, SHARED

SWEEP = {"ours": [1.0, 2.0, 1.0], RELEASED: [6.0, 8.0, 9.0], SHARED: [1.5, 2.6, 1.3]}


def test_the_ratio_is_the_median_of_paired_rounds():
    released, shared = gates.verdicts({"LeNet": {"sweep": {"seconds": SWEEP}}})
    assert released.found == [6, 4, 9]
    assert released.passed
    assert shared.found == [1.5, 1.3, 1.3]
    assert shared.passed is False
    assert shared.told == (
        "LeNet, 21-value sweep, shared gradient: 1.30 × PyTorch, shared, at least 1.4"
    )


@pytest.mark.parametrize("strict", [False, True])
def test_a_missed_gate_fails_with_the_reason(strict):
    found = gates.verdicts({"LeNet": {"sweep": {"seconds": SWEEP}}})
    fail, told = gates.conclusion(found, strict)
    assert fail
    assert told.startswith("missed: LeNet, 21-value sweep, shared gradient: 1.30")
    assert RELEASED not in told


@pytest.mark.parametrize("strict", [False, True])
def test_what_was_not_run_is_no_pass(strict):
    of = {"plain": {"seconds": {"ours": [1.0]}}, "fit": {"seconds": {"ours": [2.9]}}}
    fail, told = gates.conclusion(gates.verdicts({"": of}), strict)
    assert fail is strict
    assert told == ("gates passed: 1; not run, which is no pass: 1 (pip install torch)")


def test_seconds_are_at_most():
    for seconds, passed in ((3.0, True), (3.1, False)):
        of = {"": {"fit": {"seconds": {"ours": [seconds]}}}}
        (found,) = gates.verdicts(of)
        assert found.passed is passed


def test_every_gate_names_a_task_and_one_of_its_peers():
    for gate in GATES:
        assert gate.peer is None or gate.peer in tasks.PEERS[gate.task]
    assert set(tasks.PEERS) == set(tasks.WHAT)
    assert set(tasks.PEERS) - {gate.task for gate in GATES} == {"regression", "kernel"}
