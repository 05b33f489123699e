"""OpenOOD's table, of a few images in its layout; its metrics against definitions."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments import openood
from experiments.leaderboard import measured
from experiments.leaderboard.measured import METHODS, evaluate
from fssd_jax.data.openood import BENCHMARKS, open_list
from tests.experiments.recorded import recorded
from tests.open_ood import network, write_checkpoint, write_images

CIFAR = BENCHMARKS["cifar10"]


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_are_those_of_the_definitions(ties):
    rng = np.random.default_rng(0)
    ind, ood = rng.normal(0.7, 1, 60), rng.normal(0, 1, 40)
    if ties:
        ind, ood = ind.round(), ood.round()
    found = evaluate(ind, ood)
    pairs = ind[:, None] - ood[None]
    assert found.auroc == pytest.approx(np.mean((pairs > 0) + (pairs == 0) / 2))
    thresholds = np.unique([*ind, *ood])  # "OoD" is a score at most as high
    few = min(t for t in thresholds if np.mean(ood <= t) >= 0.95)
    assert found.fpr95 == pytest.approx(np.mean(ind <= few))

    def area(positive, negative):
        """Of precision over recall, by trapezoids, from recall 0 and precision 1."""
        recalls, precisions = [0.0], [1.0]
        for t in np.unique([*positive, *negative])[::-1]:
            hits, false = np.sum(positive >= t), np.sum(negative >= t)
            recalls.append(hits / len(positive))
            precisions.append(hits / (hits + false))
        return np.trapezoid(precisions, recalls)

    assert found.aupr_in == pytest.approx(area(ind, ood))
    assert found.aupr_out == pytest.approx(area(-ood, -ind))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A checkout of OpenOOD with two training runs."""
    root = tmp_path_factory.mktemp("openood")
    write_images(root / "data", "cifar10")
    for run in (0, 1):
        path = root / "results" / CIFAR.checkpoints / f"s{run}" / "best.ckpt"
        write_checkpoint(path, *network(CIFAR, run))
    return root


TRIED = (1, 3, 50)  # numbers of neighbours


def arrays(path):
    with np.load(path) as file:
        return dict(file)


ARGS = ["--benchmark", "cifar10", "--epsilons", "0", "0.02", "--noise", "20"]


@pytest.fixture(scope="module")
def results(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "NEIGHBOURS", TRIED)
        assert openood.main(["--root", str(root), *ARGS, "--out", str(out)]) == 0
    (path,) = out.glob("openood/cifar10-0-*/metrics.json")
    return path.parent


def test_the_table_is_made_of_the_scores(results):
    scores = arrays(results / "scores.npz")
    told = recorded(results)
    rows = openood.groups(CIFAR)
    assert [*rows][:4] == ["cifar100", "tin", "nearood", "mnist"]
    for method in METHODS:
        for run in ("s0", "s1"):
            each = {
                of: evaluate(
                    scores[f"{run}/test/{method}"], scores[f"{run}/{of}/{method}"]
                )
                for of in (*CIFAR.near, *CIFAR.far)
            }
            for row, sets in rows.items():
                keys = {"method": method, "network": run, "condition": row}
                mean = np.mean([each[of].aupr_out for of in sets])
                ((value, *_),) = told(quantity="AUPR out", **keys)
                assert value == pytest.approx(mean)
    text = (results / "metrics.md").read_text()
    apart = []
    for method in METHODS:
        near = [
            np.mean(
                [
                    evaluate(
                        scores[f"{run}/test/{method}"], scores[f"{run}/{of}/{method}"]
                    ).auroc
                    for of in CIFAR.near
                ]
            )
            for run in ("s0", "s1")
        ]
        # NumPy's deviation, of n, as by OpenOOD.
        apart.append(np.std(near))
        shown = f"{100 * np.mean(near):.2f} ± {100 * np.std(near):.2f}"
        assert f"| {method} | {shown} |" in text
    assert max(apart) > 0.01
    assert "not run" not in text


def test_scores_are_those_of_openoods_methods(root, results):
    scores = arrays(results / "scores.npz")
    model, variables = network(CIFAR, 1)

    def seen(listed):
        stream = open_list(root, CIFAR, listed)
        x = np.concatenate(list(stream)).astype(np.float32) / 255
        logits, kept = model.apply(
            variables, x, capture_intermediates=lambda m, _: m.name == "stage3"
        )
        (last,) = kept["intermediates"]["stage3"]["__call__"]
        return np.asarray(logits, np.float64), np.asarray(last).mean((1, 2)), stream.y

    logits, last, y = seen(CIFAR.ind["test"])
    highest = np.exp(logits).max(1) / np.exp(logits).sum(1)
    msp = scores["s1/test/MSP"]
    np.testing.assert_allclose(1 / (1 + np.exp(-msp)), highest, rtol=1e-4)
    energies = np.log(np.exp(logits).sum(1))
    np.testing.assert_allclose(scores["s1/test/EBO"], energies, rtol=1e-4)
    facts = json.loads((results / "metrics.json").read_text())
    accuracy = np.mean(logits.argmax(1) == y)
    assert facts["networks"]["s1"]["accuracy"] == pytest.approx(accuracy)

    _, train, labels = seen(CIFAR.ind["train"])
    means = np.stack([train[labels == c].mean(0) for c in range(10)])
    spread = np.cov((train - means[labels]).T, bias=True)
    # A ridge of ours, without which a dead unit has no inverse.
    inverse = np.linalg.inv(spread + 1e-6 * np.diag(spread).mean() * np.eye(16))
    apart = last[:, None] - means[None]
    mds = -np.einsum("ncd,de,nce->nc", apart, inverse, apart).min(1)
    np.testing.assert_allclose(scores["s1/test/MDS"], mds, rtol=1e-3)

    def unit(f):
        return f / np.linalg.norm(f, axis=1, keepdims=True)

    def neighbour(f, k):
        apart = np.linalg.norm(unit(f)[:, None] - unit(train)[None], axis=2)
        return -np.sort(apart, axis=1)[:, k - 1]

    _, val, _ = seen(CIFAR.ind["val"])
    _, val_ood, _ = seen(CIFAR.val_ood)
    aurocs = {
        k: evaluate(neighbour(val, k), neighbour(val_ood, k)).auroc for k in TRIED
    }
    k = max(aurocs, key=aurocs.__getitem__)
    assert facts["networks"]["s1"]["k"] == k
    knn = scores["s1/test/KNN"]
    np.testing.assert_allclose(knn, neighbour(last, k), rtol=1e-3, atol=1e-5)


def test_what_is_not_there_is_not_run(root, tmp_path, capsys):
    part = tmp_path / "part"
    shutil.copytree(root / "data", part)
    shutil.rmtree(part / "images_classic" / "svhn")
    (part / "images_classic" / "places365" / "class-1" / "9.png").unlink()
    shutil.rmtree(part / "images_classic" / "train")
    shutil.rmtree(part / "images_classic" / "val_ood")
    network_file = root / "results" / CIFAR.checkpoints / "s0" / "best.ckpt"
    args = ["--root", str(part), *ARGS, "--checkpoints", str(network_file)]
    assert openood.main([*args, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("openood/cifar10-0-*/metrics.md")
    lines = [line.split(" | ") for line in path.read_text().splitlines()]
    board = {cells[0][2:]: cells[1:] for cells in lines if len(cells) == 6}
    for method in ("MDS", "KNN", "FSSD, val OoD"):
        assert board[method][:4] == ["not run"] * 4
    for method in ("MSP", "EBO", "FSSD"):
        near, far = board[method][:2]
        assert 0 <= float(near) <= 100
        assert far == "not run"  # a mean of four sets, of which one is not there
    told = path.read_text()
    assert "test_svhn.txt lists it, and of 20 images 20 are missing" in told
    assert "/9.png: is not there; cifar10/test_places365.txt lists it" in told
    assert "of 20 images 1 are missing" in told
    cells = [line.split(" | ") for line in told.splitlines()]
    (mnist,) = (c for c in cells if c[:2] == ["| MSP", "mnist"])
    assert 0 <= float(mnist[2]) <= 100
    assert "KNN: not run: without train and val_ood" in told


def test_an_interrupted_run_goes_on(root, results, tmp_path, capsys, monkeypatch):
    part = tmp_path / "part"
    shutil.copytree(root, part)
    shutil.rmtree(part / "results" / CIFAR.checkpoints / "s1")
    broken = part / "data" / "images_classic" / "mnist" / "class-1" / "9.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    seen, look = [], measured.look

    def watched(*args, progress=False, **options):
        seen.extend([progress] if progress else [])
        return look(*args, progress=progress, **options)

    monkeypatch.setattr(measured, "look", watched)
    monkeypatch.setattr(measured, "NEIGHBOURS", TRIED)
    args = ["--root", str(part), *ARGS, "--out", str(tmp_path)]
    assert openood.main(args) == 1
    assert "9.png: cannot be read" in capsys.readouterr().err
    assert seen == ["test", "cifar100", "tin", "mnist"]
    broken.write_bytes(whole)
    for left in (["mnist", "svhn", "texture", "places365"], []):
        seen.clear()
        assert openood.main(args) == 0
        assert seen == left
        (path,) = tmp_path.glob("openood/cifar10-0-*/scores.npz")
        again, uninterrupted = arrays(path), arrays(results / "scores.npz")
        assert again.keys() == {k for k in uninterrupted if k.startswith("s0/")}
        for key, scores in again.items():
            np.testing.assert_allclose(scores, uninterrupted[key], rtol=1e-5)
        of = [
            json.loads((p / "metrics.json").read_text()) for p in (path.parent, results)
        ]
        first, other = (facts["networks"]["s0"] for facts in of)
        assert first == other


def test_a_network_or_set_that_is_another_is_scored_anew(root, results, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(root, part)
    out = tmp_path / "out"
    shutil.copytree(results.parent.parent, out)
    for run in (0, 1):
        path = part / "results" / CIFAR.checkpoints / f"s{run}" / "best.ckpt"
        path.unlink()
        path.parent.rmdir()
        write_checkpoint(path, *network(CIFAR, run + 5 * (run == 1)))
    image = part / "data" / "images_classic" / "mnist" / "class-1" / "9.png"
    Image.new("RGB", (32, 32), "white").save(image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "NEIGHBOURS", TRIED)
        args = ["--root", str(part), *ARGS, "--out", str(out)]
        assert openood.main(args) == 0
    (new,) = set(out.glob("openood/cifar10-0-*")) - {out / "openood" / results.name}
    before, after = arrays(results / "scores.npz"), arrays(new / "scores.npz")
    changed = {k for k in before if not np.allclose(before[k], after[k])}
    assert changed == {k for k in before if k.startswith(("s1/", "s0/mnist/"))}


def test_without_anything_the_table_says_so(tmp_path, capsys):
    assert openood.main(["--root", str(tmp_path), "--out", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "not run" in told.out
    cells = [row for row in told.out.splitlines() if row.startswith("│ ")]
    assert len(cells) == len(METHODS) * 9
    assert not any(character.isdigit() for row in cells for character in row[30:])
    assert "nothing could be run" in told.err
    assert not list(tmp_path.glob("openood/cifar10*"))


def test_lists_that_count_classes_from_one_are_refused(root, tmp_path, capsys):
    """An accuracy of 0 would stand in the table."""
    part = tmp_path / "part"
    shutil.copytree(root, part)
    for split in ("train", "test"):
        path = part / "data" / "benchmark_imglist" / CIFAR.ind[split].path
        lines = [line.split() for line in path.read_text().splitlines()]
        path.write_text("".join(f"{file} {int(y) + 1}\n" for file, y in lines))
    assert openood.main(["--root", str(part), *ARGS, "--out", str(tmp_path)]) == 1
    told = capsys.readouterr()
    shown = "".join(told.out.split())  # whatever lines it is broken into
    for split in ("train", "test"):
        assert f"{split}_cifar10.txt:itslabelsrunfrom1to10,expected0to9" in shown
    assert "nothing could be run, see above" in told.err


def test_a_network_of_other_classes_is_refused(root, tmp_path, capsys):
    other = tmp_path / "other" / "best.ckpt"
    write_checkpoint(other, *network(CIFAR._replace(num_classes=7), 0))
    args = ["--root", str(root), *ARGS, "--checkpoints", str(other)]
    assert openood.main([*args, "--out", str(tmp_path)]) == 1
    assert "tells 7 classes apart, expected 10" in capsys.readouterr().err
