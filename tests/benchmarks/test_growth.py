import json

import jax
import numpy as np
import pytest

from benchmarks import growth, networks


def test_the_transformer_is_of_the_shape_of_vit_b():
    """85,798,656 of ViT-B/16 without head, less its class token and its position."""
    x = growth.of_shape(1, 224, 224, 3)
    shapes = jax.eval_shape(growth.ViT().init, jax.random.key(0), x)["params"]
    head = 768 * 1000 + 1000
    count = sum(np.prod(a.shape) for a in jax.tree.leaves(shapes))
    assert count - head == 85_798_656 - 2 * 768


@pytest.mark.parametrize("script", [growth, networks])
def test_an_unknown_network_is_one_line(tmp_path, capsys, script):
    assert script.main(["--networks", "nope", "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: --networks: ['nope']; choose from ['LeNet', ")
    assert not list(tmp_path.iterdir())


def test_main(tmp_path, monkeypatch):
    flag = "jax_enable_compilation_cache"
    monkeypatch.setattr(growth.cli, "start", lambda: None)
    args = ["--tiny", "--networks", "ViT-B", "--batch-size", "1"]
    try:
        assert growth.main([*args, "--out", str(tmp_path)]) == 0
    finally:
        jax.config.update(flag, True)
    found = json.loads((tmp_path / "benchmarks" / "growth.json").read_text())
    assert found["networks"]["ViT-B"]["layers"] == 2
    told = (tmp_path / "benchmarks" / "growth.md").read_text()
    assert "traced in" in told
