import runpy
from pathlib import Path

from fssd_jax.metrics import auroc

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_own_network():
    of_digits, of_photos = runpy.run_path(str(EXAMPLES / "own_network.py"))["main"]()
    assert len(of_digits) == 719
    assert auroc(of_digits, of_photos) > 0.7


def test_follow_training(capsys):
    main = runpy.run_path(str(EXAMPLES / "follow_training.py"))["main"]
    assert main(steps=4) < 0.03
    assert "step 3: median speed" in capsys.readouterr().out


def test_any_function(capsys):
    main = runpy.run_path(str(EXAMPLES / "any_function.py"))["main"]
    results = main()
    assert list(results) == ["NNX", "plain"]
    for name, aurocs in results.items():
        assert aurocs["fssd"] > 0.7, name
    assert "plain: AUROC against photographs: fssd 0." in capsys.readouterr().out
