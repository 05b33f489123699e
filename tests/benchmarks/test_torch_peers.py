"""PyTorch computes our numbers, by whichever procedure."""

from importlib.util import find_spec

import pytest

from benchmarks import ours
from benchmarks.gates import LOGISTIC, TANGENTS
from benchmarks.inputs import NETWORKS
from benchmarks.tasks import COUNTS, PEERS
from benchmarks.timed import check_equal

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(not find_spec("torch"), reason="needs PyTorch"),
]
CASES = [
    (network, task, theirs)
    for network in COUNTS
    for task, peers in PEERS.items()
    for peer, theirs in peers.items()
    if peer not in (LOGISTIC, TANGENTS)
    if task != "training" and (network, task) != ("ResNet-20", "sweep")
] + [(network, "steps", "steps") for network in COUNTS]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("network", "task", "theirs"), CASES)
def test_a_peer_computes_the_same(network, task, theirs, channels_last):
    from benchmarks import torch_peers

    count = 128 if task == "mahalanobis" else 12
    found = torch_peers.prepare(theirs, network, count, 8, channels_last)()
    check_equal(theirs, ours.prepare(task, network, count, 6)(), found)


@pytest.mark.parametrize("network", COUNTS)
def test_their_epoch_lowers_the_loss_as_ours_does(network):
    """The order and the dropout are random: near, not equal."""
    from benchmarks import torch_peers

    count = 2 * NETWORKS[network].batch
    (mine,) = ours.prepare("training", network, count)()
    (theirs,) = torch_peers.prepare("training", network, count)()
    assert theirs[0] == pytest.approx(mine[0], rel=0.3)
