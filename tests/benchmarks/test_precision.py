import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from benchmarks import precision
from tests import image_folders


def test_both_types_are_compared_on_the_same_images():
    rng = np.random.default_rng(0)
    one = {"ind": rng.normal(1, 1, 50), "ood": rng.normal(0, 1, 40)}
    other = {name: s + rng.normal(0, 0.3, len(s)) for name, s in one.items()}
    (found,) = precision.compared({"a": one}, {"a": other}).values()
    truth = np.repeat([1, 0], [50, 40])
    both = [np.concatenate([s["ind"], s["ood"]]) for s in (one, other)]
    aurocs = [roc_auc_score(truth, s) for s in both]
    np.testing.assert_allclose([found["float32"], found["bfloat16"]], aurocs)
    np.testing.assert_allclose(found["difference"], aurocs[1] - aurocs[0])
    assert found["ci95"][0] < found["difference"] < found["ci95"][1]
    assert found["rank correlation"] == pytest.approx(spearmanr(*both).statistic)


@pytest.mark.slow  # two types of six detectors are compiled
@pytest.mark.filterwarnings("ignore:at layers")  # of a network that is not trained
def test_main(tmp_path):
    for i, split in enumerate(("train", "test")):
        image_folders.write(tmp_path / "cifar10" / split, *image_folders.drawn(i, 50))
    args = ["--tiny", "--data-dir", str(tmp_path), "--out", str(tmp_path)]
    assert precision.main(args) == 0
    found = json.loads((tmp_path / "benchmarks" / "precision.json").read_text())
    # Activations of eight bits do not leave a score as it is, nor turn it round.
    for of in found["detectors"].values():
        assert 0.9 < of["rank correlation"] < 1
    assert found["counts"] == {"ind": 40, "ood": 40}
    assert "bfloat16" in (tmp_path / "benchmarks" / "precision.md").read_text()
