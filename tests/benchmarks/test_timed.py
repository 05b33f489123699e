import os

import numpy as np
import pytest

from benchmarks.timed import Worker, best, check_equal, in_turn, nearly_equal


def test_a_worker_is_a_process_that_does_what_it_prepared():
    worker = Worker("tests.benchmarks.contender", 1)
    (process,) = worker.prepare("long", "any", seconds=0.2)
    assert process != os.getpid()
    worker.prepare("short", "any")
    assert worker.seconds("long") >= 0.2 > worker.seconds("short")
    with pytest.raises(RuntimeError, match=r"contender, .*no such task"):
        worker.prepare("other", "unknown")
    assert worker.seconds("long") >= 0.2  # it goes on
    with pytest.raises(RuntimeError, match="process ended"):
        worker.prepare("other", "ends")
    worker.close()


def test_all_take_turns_and_none_is_always_first():
    order = []
    tasks = {name: lambda n=name: order.append(n) or float(len(order)) for name in "ab"}
    found = in_turn(tasks, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_the_best_setting_is_the_fastest():
    settings = [{"batch": b} for b in (1, 2, 3)]
    assert best(settings, lambda batch: abs(batch - 2)) == {"batch": 2}
    assert best(settings[:1], lambda batch: 1 / 0) == {"batch": 1}


def test_a_peer_must_compute_the_same():
    ours = np.array([[1.0, 100.0], [2.0, 200.0]])
    check_equal("x", ours, ours * (1 + 0.9e-4))
    with pytest.raises(AssertionError, match="plain: differs from ours"):
        check_equal("plain", ours, ours + np.array([2.1e-4, 0])[None])
    with pytest.raises(AssertionError, match=r"\(1, 2\) instead of \(2, 2\)"):
        check_equal("plain", ours, ours[:1])
    with pytest.raises(AssertionError, match="nan"):
        check_equal("plain", ours, ours * np.nan)


@pytest.mark.parametrize(("far", "within"), [((0.04, 3), 1e-3), ((0.2, 1), 0.5)])
def test_a_peer_may_differ_in_few_scores_and_not_by_much(far, within):
    """Of 40 scores of a layer one is 0.04 off: near. Three are, or one 0.2: not."""
    ours = np.ones((40, 2))
    theirs = ours.copy()
    theirs[0, 1] += 0.04
    close, largest = nearly_equal("", ours, theirs, 1e-3)
    assert close < 1e-12
    assert largest == pytest.approx(0.04)
    theirs[: far[1], 1] = 1 + far[0]
    with pytest.raises(AssertionError, match="layer by layer"):
        nearly_equal("", ours, theirs, within)
    theirs[0] = np.nan
    with pytest.raises(AssertionError):
        nearly_equal("", ours, theirs, 1e9)
