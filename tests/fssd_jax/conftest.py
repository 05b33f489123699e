"""Tests against PyTorch: against its stored outputs, and as `peers` against itself."""

import pytest

from tests.fssd_jax import references


@pytest.fixture(
    scope="session", params=["stored", pytest.param("live", marks=pytest.mark.peers)]
)
def reference(request):
    """`part` → its arrays."""
    return {"stored": references.read, "live": references.make}[request.param]
