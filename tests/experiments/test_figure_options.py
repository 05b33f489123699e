"""What Figures 1, 4, 5 and 6 are asked: images, kinds, methods, and mistakes."""

from pathlib import Path

import jax
import numpy as np
import pytest
import tyro

from experiments import figure1, figure4, figure5, figure6
from experiments.comparison import shifted
from experiments.comparison.figure_settings import ALL_METHODS, drawn
from experiments.comparison.shifted import KINDS
from experiments.whole import plan
from fssd_jax import InputError
from fssd_jax.data import frost_pictures, imagenet_c, load

SCRIPTS = {"figure4": figure4, "figure5": figure5}


def test_the_papers_figures_have_mc_dropout():
    """By default, and as `fssd all --preset paper` runs them."""
    for script in SCRIPTS:
        config = SCRIPTS[script].Config()
        assert "mc_dropout" in shifted.checked_methods(config.methods)
        parts = [p for p in plan.PRESETS["paper"] if p.script == script]
        for part in parts:
            words = plan.words(part, Path("out"), None)[1:]
            config = tyro.cli(SCRIPTS[script].Config, args=words)
            assert "mc_dropout" in shifted.checked_methods(config.methods)
        assert parts
    assert ALL_METHODS["small"].passes < ALL_METHODS["paper"].passes == 32


def test_labels_of_corrupted_images():
    """Every image is in one kind and level, and the kinds come about equally often."""
    x = load("digits", "test").x[:8]
    kinds = ("contrast", "pixelate")
    found = shifted.corrupted_validation(x, kinds, (1, 5), seed=3)
    assert found.shape == x.shape
    cells = [("contrast", 1), ("contrast", 5), ("pixelate", 1), ("pixelate", 5)]
    for i, cell in enumerate(cells):
        part = slice(2 * i, 2 * i + 2)
        expected = imagenet_c.corrupt(x[part], *cell, seed=3, workers=0)
        np.testing.assert_array_equal(found[part], expected)


def test_images_are_drawn_from_all_of_a_set():
    x = np.arange(1000)
    found = drawn(x, 100, jax.random.key(0))
    assert len(set(found.tolist())) == 100
    assert 400 < found.mean() < 600  # not the first hundred
    assert drawn(x, None, jax.random.key(0)) is x


def test_a_kind_that_cannot_be_made_is_left_out(monkeypatch):
    def nowhere():
        raise InputError("get the photographs")

    monkeypatch.setattr(frost_pictures, "folder", nowhere)
    kinds, without = shifted.available(None)
    assert kinds == tuple(kind for kind in KINDS if kind != "frost")
    assert without == {"frost": "get the photographs"}
    with pytest.raises(InputError, match="get the photographs"):
        shifted.available(["frost"])


def test_the_papers_methods_are_seven():
    found = shifted.checked_methods(["paper"])
    assert sorted(found) == sorted(shifted.PAPER)
    assert len(found) == 7
    assert set(shifted.checked_methods(["knn", "msp", "knn"])) == {"knn", "msp"}


@pytest.mark.parametrize(
    ("script", "args"),
    [
        (figure1, ["--images", "1"]),
        (figure1, ["--examples", "1"]),
        (figure1, ["--seed", "-1"]),
        (figure1, ["--pair", "digits"]),
        (figure4, ["--pair", "digits_far"]),
        (figure4, ["--kinds", "fog", "smoke"]),
        (figure4, ["--methods", "best"]),
        (figure5, ["--impulse", "2"]),
        (figure5, ["--gaussian", "-1"]),
        (figure6, ["--epochs", "0"]),
        (figure6, ["--width", "8", "--weights", "there"]),
        (figure6, ["--width", "1"]),
        (figure1, ["--dtype", "bfloat16"]),
        (figure5, ["--workers", "-1"]),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, script, args):
    assert script.main(["--benchmark", "digits", "--out", str(tmp_path), *args]) == 1
    assert args[0] in capsys.readouterr().err
