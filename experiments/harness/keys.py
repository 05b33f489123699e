"""What each random key is for: one registry, so that no two draws share a key unseen.

A number is folded into the key of a seed (`of_seed`) or, where the draw is the same for
every seed, is the key itself (`fixed`). Weights are drawn by the seed's own key, and
training folds 0 to 3 into it.
"""

from enum import IntEnum, unique

import jax
from jaxtyping import PRNGKeyArray


@unique
class Use(IntEnum):
    TRAINING_SUBSET = (
        0  # as itself, the key of seed 0's weights: nothing is made of both
    )
    # comparison: a trained network on a pair of sets.
    NOISE = 100
    SPLIT_IND = 101
    SPLIT_OOD = 102
    MC_DROPOUT = 104
    SHUFFLED_PIXELS = 105
    CORRUPTED = 106
    SCALED_NOISE = 107
    PHOTOGRAPHS = 108
    BATCH_STATISTICS = 109
    JIGSAWS = 110
    FIGURE_IND = 111
    FIGURE_OOD = 112
    # kernel_study: networks of NTK parametrisation.
    KERNEL_NOISE = 200
    KERNEL_DIRECTIONS = 201
    KERNEL_TRAIN = 202
    KERNEL_IND = 203
    KERNEL_OOD = 204
    TANGENT_DIRECTIONS = 205
    TANGENT_PERMUTATIONS = 206
    # Figure 3: networks before training.
    UNTRAINED_NOISE = 300
    UNTRAINED_IND = 301
    UNTRAINED_OOD = 302
    # Figure 2: a network while it is trained.
    PROBE_NOISE = 400
    PROBE_IND = 401
    PROBE_OOD = 402
    PROBE_GRADIENT = 403
    # score: a network that somebody brought.
    BROUGHT_NOISE = 500
    BROUGHT_SPLIT = 501
    # label_free: centres, and sets made of training images.
    MIXED = 700
    MIXED_CLASSES = 701
    TILES = 702
    CENTRE_IMAGES = 703
    SELF_MADE = 704
    # openood: the networks of OpenOOD.
    OPENOOD_NOISE = 600


def of_seed(seed: int, use: Use) -> PRNGKeyArray:
    """The key of one seed for one use."""
    return jax.random.fold_in(jax.random.key(seed), int(use))


def fixed(use: Use) -> PRNGKeyArray:
    """The key of a draw that is the same for every seed."""
    return jax.random.key(int(use))
