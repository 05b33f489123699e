import runpy
from pathlib import Path

from fssd_jax.metrics import auroc

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_own_network():
    of_digits, of_photos = runpy.run_path(str(EXAMPLES / "own_network.py"))["main"]()
    assert len(of_digits) == 719
    assert auroc(of_digits, of_photos) > 0.7
