"""A user's file has no error of types that is ours: `py.typed` is true."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import README, ROOT, python_blocks

CALLS = """
methods = {
    "fssd": (fssd_jax.detectors.fssd.score, feature_fn, state),
    "msp": fssd_jax.Question(
        fssd_jax.detectors.msp.score,
        fssd_jax.make_logit_fn(model),
        fssd_jax.detectors.msp.fit(),
    ),
}
table = fssd_jax.compare(methods, variables, images, {"photos": photos})
low: float = table["msp", "photos"].auroc_ci95[0]
chosen: float = fssd_jax.threshold(scores).value
fitted = fssd_jax.Fitted("fssd", {"threshold": chosen}, state)
fssd_jax.save("detector.npz", fitted, variables)
method: str = fssd_jax.load("detector.npz", variables).method
fssd_jax.data.folders.load_images("photos", size=32, channels=3)

from analysis import plots
from analysis.dynamics import Recorder, log_steps, make_loss_fn

plots.roc(table.scores).savefig("roc.png")
plots.histogram(scores, of_photos)
Recorder(feature_fn, make_loss_fn(model), {"noise": noise}, log_steps(10, 3))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("more", "errors"), [("", 0), ("\nfssd_jax.nonsense\n", 1)])
def test_a_users_file_is_well_typed(more, errors, tmp_path):
    """And a name that is not there is still an error: `__getattr__` hides none."""
    pytest.importorskip("pyright")
    path = tmp_path / "own.py"
    path.write_text("\n".join([*python_blocks(README), CALLS, more]))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--outputjson"),
            *("--pythonpath", sys.executable, str(path)),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    serious = [d["message"] for d in found if d["severity"] == "error"]
    assert len(serious) == errors, serious
    assert all("nonsense" in message for message in serious)
    assert {Path(d["file"]).name for d in found} <= {path.name}
