"""The tutorials run, here for a few steps, and end in a picture.

`pytest -m slow tests/website` runs them whole, and compares what they print.
"""

import re

import numpy as np
import pytest

from fssd_jax import data
from fssd_jax.data import load
from fssd_jax.metrics import auroc
from website import tutorials


@pytest.fixture
def run(tmp_path, monkeypatch):
    """(what was printed, names) of a tutorial, with other constants."""
    monkeypatch.chdir(tmp_path)

    def shortened(name, constants=""):
        text = tutorials.script(name)
        if constants:
            names = constants.partition(" = ")[0]
            text, count = re.subn(rf"^{names} = .*$", constants, text, flags=re.M)
            assert count == 1, f"{name}: no {names}"
        printed, found = tutorials.run(text, name)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        return "".join(printed), found

    return shortened


def test_own_network(run):
    _, found = run("own_network")
    assert len(found["scores"]) == 719
    assert auroc(found["scores"], found["of_photos"]) > 0.7


def test_follow_training(run):
    printed, found = run("follow_training", "STEPS = 4")
    assert found["error"] < 0.03
    assert "step 3: median speed" in printed


def test_any_function(run):
    printed, found = run("any_function")
    assert list(found["tables"]) == ["NNX", "plain"]
    for name, table in found["tables"].items():
        assert table["fssd"].auroc > 0.7, name
    assert "plain: AUROC against photographs: fssd 0." in printed


def test_torch_checkpoint(run, monkeypatch):
    """What is read from the file is the network that was written."""
    few = lambda *of: load(*of).select(slice(200))  # noqa: E731
    monkeypatch.setattr(data, "load", few)
    _, found = run("torch_checkpoint", "EPOCHS = 1")
    ours = found["lenet"].apply(found["trained"].variables, found["images"][:5])
    theirs = found["model"].apply(found["variables"], found["images"][:5])
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert list(found["table"]) == ["fssd", "msp"]


@pytest.mark.slow
def test_text_and_signals(run):
    short = "TEXTS, SIGNALS, EPOCHS = 300, 300, 1"
    _, found = run("text_and_signals", short)
    assert found["text_in"].shape == found["text_ood"].shape == (600, 32)
    assert found["text_in"].dtype.kind == "i"
    assert list(found["of_signals"]) == ["msp", "fssd, uniform", "fssd, normal"]


def test_kernel_regression(run):
    """The wider network is nearer to its linearisation."""
    _, found = run("kernel_regression", "WIDTHS, EPOCHS, RATE = (16, 128), 3, 0.15")
    narrow, wide = (found["found"][width] for width in (16, 128))
    assert wide["error"]["logits"] < narrow["error"]["logits"] < 1
    assert wide["network"].shape == wide["linearised"].shape == (400, 2)
