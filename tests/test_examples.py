import runpy
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_own_network():
    scores = runpy.run_path(str(EXAMPLES / "own_network.py"))["main"]()
    assert scores.shape == (100,)
    assert np.isfinite(scores).all()
    assert np.ptp(scores) > 0
