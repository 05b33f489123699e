"""What the compiled programs compute, against a count by hand."""

import jax
import numpy as np
import pytest

from benchmarks import work
from benchmarks.work import convolution, needed
from fssd_jax.models import LeNet, cifar_resnet

SMALL = (12, 12, 1)


@pytest.fixture(scope="module")
def lenet():
    return work.programs(LeNet(), SMALL)


def test_a_sweep_does_one_forward_one_backward_a_layer_and_one_forward_a_step(lenet):
    """LeNet's products: two convolutions, then two dense layers; layer k ends the k-th.

    Going back from layer k there are k again, and going forward from its own step.
    """
    assert work.products(lenet["forward"]) == 4
    assert work.products(lenet["gradients"]) == 4 + (1 + 2 + 3 + 4)
    assert work.products(lenet["step"]) == 1 + 2 + 3 + 4


def test_a_training_step_goes_back_through_all_but_the_pixels(lenet):
    """By the weights of four layers, and by the features of three."""
    assert work.products(lenet["training"]) == 4 + 4 + 3


def test_that_of_a_resnet():
    """One block a stage, two convolutions each; the logits are no layer of it."""
    model = cifar_resnet((1, 1, 1), width=4, shortcut="pad")
    compiled = work.programs(model, (8, 8, 3))
    until = [1, 3, 5, 7]
    assert work.products(compiled["forward"]) == 7
    assert work.products(compiled["gradients"]) == 7 + sum(until)
    assert work.products(compiled["step"]) == sum(until)
    assert work.products(compiled["training"]) == 3 * (7 + 1) - 1
    by_hand = needed(work.resnet20(side=8, width=4, blocks=1), 21)
    for name, found in work.counted(compiled, 21, work.BATCH).items():
        # Narrow layers have more of what is no product.
        assert by_hand[name] <= found < 1.3 * by_hand[name], name


def test_xla_counts_what_is_needed_by_hand(lenet):
    by_hand = needed(work.lenet(side=12), 21)
    for name, found in work.counted(lenet, 21, work.BATCH).items():
        assert by_hand[name] <= found < 1.05 * by_hand[name], name


@pytest.mark.parametrize(("stride", "zeros"), [(1, 0), (1, 1), (2, 1), (2, 0)])
def test_operations_of_a_convolution(stride, zeros):
    """Of ones with ones each output counts the products that it is the sum of."""
    pixels, weights = np.ones((1, 1, 7, 7)), np.ones((1, 1, 3, 3))
    around = [(zeros, zeros)] * 2
    found = jax.lax.conv_general_dilated(pixels, weights, (stride, stride), around)
    count = 2 * 3 * 5 * float(found.sum())
    assert convolution(7, 3, 5, stride=stride, zeros=zeros) == count


def test_the_procedures():
    """Two layers of 10 and 1 operations, so that F is 10 and 11, and three ε."""
    found = needed([10, 1], 3)
    assert found == {
        "plain": 11,
        "gradients": 11 + 21,
        "one": 11 + 21 + 21,
        "sweep": 11 + 21 + 3 * 21,
        "released": 3 * 3 * 21,
        "training": 3 * 11 - 10,
    }
