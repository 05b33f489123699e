"""A benchmark of token ids: which methods there are, and of what F* is made."""

import json
from functools import partial

import numpy as np
import pytest

from experiments import table2
from experiments.comparison import controls, networks, variants
from experiments.comparison.protocols import PROTOCOLS
from experiments.comparison.setting import Options, make_setting, prepare
from fssd_jax.data.benchmarks import Benchmark
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.models import BiLSTM

LENGTH = 10
OWN = networks.bilstm  # which the tests take a smaller one for


def ids(seed: int, chances, count: int) -> ArrayDataset:
    """Half of class 0, which has `chances`, and half of class 1, the other way."""
    rng, y = np.random.default_rng(seed), np.arange(count) % 2
    x = np.stack([rng.choice(4, LENGTH, p=chances[:: 1 - 2 * label]) for label in y])
    name = str(seed)
    return ArrayDataset(x.astype(np.int8), y.astype(np.int32), name, "all", "", name)


def benchmark(name="genomes", data_dir=None) -> Benchmark:
    known, other = (0.6, 0.2, 0.1, 0.1), (0.1, 0.4, 0.4, 0.1)
    sets = [ids(i, p, n) for i, p, n in enumerate_sets(known, other)]
    train, test, ood, held, held_ood = sets
    shared = {"num_classes": 2, "mean": (), "std": (), "epochs": 1, "save_every": 1}
    return Benchmark(
        name=name,
        train=train,
        test=test,
        ood={"genomes": ood},
        validation=40,
        paper=None,
        symbols=4,
        held={"test": held, "genomes": held_ood},
        **shared,
    )


def enumerate_sets(known, other):
    chances = (known, known, other, known, other)
    return zip(range(5), chances, (64, 50, 50, 40, 40), strict=True)


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        narrow = partial(BiLSTM, 2, 4, hidden=3, num_layers=1, positions=(4,))
        patch.setattr(networks, "bilstm", lambda benchmark, hidden: narrow())
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("ids")


@pytest.fixture(scope="module")
def setting(out):
    options = Options(tiny=True, out=out)
    prepared = prepare(benchmark(), 0, options)
    return make_setting(prepared, "genomes", PROTOCOLS["paper"], tiny=True)


def test_noise_is_of_ids_and_there_is_no_step(setting):
    assert np.issubdtype(setting.noise.dtype, np.integer)
    counts = np.bincount(np.ravel(setting.noise), minlength=4)
    chance = counts / counts.sum()
    assert np.abs(chance - 1 / 4).max() < 5 * (3 / 16 / counts.sum()) ** 0.5
    assert setting.protocol.epsilons == (0.0,)
    # Drawn of the validation set of its own, in its order.
    held = [*map(bytes, benchmark().held["genomes"].x)]
    at = [held.index(bytes(row)) for row in setting.val_ood]
    assert len(at) == 20
    assert at == sorted(set(at))


def test_a_center_of_ood_validation_ids_is_their_mean(setting):
    (ask,) = variants.singularities(setting)
    features = setting.feature_fn(setting.variables, setting.val_ood.astype(np.int32))
    for layer, center in ask.question.state.center.items():
        mean = features[layer].mean(0).ravel()
        np.testing.assert_allclose(center, mean, 0, 1e-5)


def test_composition_tells_what_the_frequencies_tell(setting):
    row = controls.composition(setting)["control: composition"]
    assert (len(row.ind), len(row.ood)) == (50, 50)
    assert row.target_ood
    # It depends on nothing but the counts of symbols.
    turned = setting._replace(test_ind=setting.test_ind[:, ::-1])
    again = controls.composition(turned)["control: composition"]
    np.testing.assert_array_equal(row.ind, again.ind)
    assert row.ind.mean() > row.ood.mean()


def test_table2_runs_and_says_what_there_is_not(
    setting, out, monkeypatch, undrawn, capsys
):
    monkeypatch.setattr(table2, "load_benchmark", benchmark)
    asked = ["odin", "mahalanobis", "outlier_exposure", "ensembles"]
    rivals = ["vim", "ash", "she", "gram", "nnguide", "relative_mahalanobis"]
    asked += [*rivals, "feature_norm"]
    options = ["--benchmark", "genomes", "--tiny", "--out", str(out)]
    assert table2.main([*options, "--methods", *asked]) == 0
    (folder,) = (p for p in (out / "table2").iterdir() if p.is_dir())
    told = json.loads((folder / "metrics.json").read_text())
    assert told["failed"] == {}
    assert set(told["left_out"]) == {"outlier_exposure", "ensembles", "feature_norm"}
    assert {name.replace("_", " ") for name in rivals} <= set(told["methods"])
    assert told["methods"]["odin"]["note"].endswith("ε = 0")
    assert told["methods"]["mahalanobis"]["passes"] == "1"
    assert "control: composition" in told["controls"]
    assert not any("pixels" in name for name in told["controls"])
    assert "Inputs are token ids" in capsys.readouterr().out


def test_released_is_refused_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table2, "load_benchmark", benchmark)
    monkeypatch.setattr(table2, "prepare", None)  # would fail if called
    options = ["--benchmark", "genomes", "--tiny", "--out", str(tmp_path)]
    assert table2.main([*options, "--protocol", "released"]) != 0
    assert "choose paper or clean" in capsys.readouterr().err


def test_the_network_is_the_paper_s_but_for_its_units():
    """250 bases have its positions, 100, 150 and 200."""
    for length, positions in ((250, (100, 150, 200)), (LENGTH, (4, 6, 8))):
        data = benchmark()
        x = np.zeros((1, length), np.int8)
        model = OWN(data._replace(train=data.train._replace(x=x)))
        paper = BiLSTM(num_classes=2, hidden=model.hidden, positions=positions)
        assert model == paper
    assert OWN(benchmark(), dropout=0.3).dropout == 0.3
