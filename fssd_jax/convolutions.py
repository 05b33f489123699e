"""Convolve by Eigen: on two cores, a network's convolutions take half the time.

Since 0.10 JAX gives most convolutions on a CPU to YNNPACK, which computes each on one
core, and takes Eigen only for those of wider padding. Eigen shares a convolution out
among all cores, and on one is as fast.
"""

import os

import jax

_OPTION = "--xla_cpu_experimental_ynn_fusion_type"
# At an option that it does not know XLA ends the process, and it is experimental.
_KNOWN = ((0, 10), (0, 13))


def convolve_by_eigen() -> bool:
    """Tell XLA so for this process, before JAX is used; return whether it was told.

    For entry points: importing the library does not do this. Nothing happens with
    versions of JAX that are not known to have the option, or if XLA_FLAGS has it.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    oldest, newest = _KNOWN
    if _OPTION in flags or not oldest <= jax.__version_info__ < newest:
        return False
    os.environ["XLA_FLAGS"] = f"{flags} {_OPTION}=".strip()
    return True
