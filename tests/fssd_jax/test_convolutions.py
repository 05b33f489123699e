"""In processes of their own: XLA reads its flags once."""

import os
import subprocess
import sys

import pytest

from fssd_jax import convolutions

COMPILED = """
import jax
from fssd_jax.convolutions import convolve_by_eigen
told = convolve_by_eigen() if {call} else None
x, k = jax.numpy.ones((4, 26, 26, 32)), jax.numpy.ones((3, 3, 32, 64))
names = "NHWC", "HWIO", "NHWC"
f = lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "VALID", None, None, names)
print(told, "ynn" in jax.jit(f).lower(x, k).compile().as_text())
"""


def compiled(call: bool, flags: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", COMPILED.format(call=call)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=True,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


def test_convolutions_are_eigen_s_when_it_was_told():
    """And YNNPACK's else: when no longer, this package need not tell XLA."""
    assert compiled(True, "--xla_backend_optimization_level=1") == "True False"
    assert compiled(False, "") == "None True"


def test_what_the_user_says_stays():
    kind = "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    own = f"--xla_cpu_experimental_ynn_fusion_type={kind}"
    assert compiled(True, own) == "False True"


@pytest.mark.parametrize(
    ("version", "told"), [((0, 9, 2), False), ((0, 12, 1), True), ((0, 13, 0), False)]
)
def test_an_option_that_xla_may_not_know_is_not_given(version, told, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr("jax.__version_info__", version)
    assert convolutions.convolve_by_eigen() is told
    assert bool(os.environ["XLA_FLAGS"]) is told
