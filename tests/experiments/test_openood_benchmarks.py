"""`fssd openood` on benchmarks of OpenOOD, of a few images in its layout."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

import fssd_jax.__main__
from experiments.leaderboard.measured import METHODS
from fssd_jax.data import idx
from fssd_jax.data.openood import BENCHMARKS
from fssd_jax.data.sources import fetched_dir
from tests.experiments.recorded import recorded
from tests.open_ood import network, write_checkpoint

SMALL = ("mnist", "svhn", "texture", "places365")
LARGE = (("ssb_hard", "ninco"), ("inaturalist", "textures", "openimage_o"))
GROUPS = {
    "cifar10": (("cifar100", "tin"), SMALL),
    "cifar100": (("cifar10", "tin"), SMALL),
    "imagenet200": LARGE,
    "imagenet": LARGE,
}
QUANTITIES = ("FPR@95", "AUROC", "AUPR in", "AUPR out")  # as the evaluator has them
IND = ("train", "val", "test")
IMAGES = 20  # of each list; of the training list more, because each class has some


def folder_of(name, of):
    """Of a set, as what OpenOOD's script downloads is called."""
    small = name.startswith("cifar")
    if of in IND:
        return name if small else "imagenet_1k"
    called = {"textures": "texture", "val_ood": "tin" if small else "openimage_o"}
    return called.get(of, of)


def real(of, split):
    """Files of CIFAR-10, class after class, or arrays of MNIST, where they are here."""
    if of == "cifar10":
        folders = sorted((fetched_dir() / of / split).glob("*/"))
        each = [sorted(folder.iterdir())[: 2 * IMAGES] for folder in folders]
        return [file for files in zip(*each, strict=True) for file in files]
    there = idx.find(fetched_dir() / "mnist", split) if of == "mnist" else None
    return list(idx.read(*there)[0][:IMAGES, ..., 0]) if there else []


def made(rng, of, large):
    """Patches of colour, of MNIST in grey; large images are of any shape."""
    patches = rng.integers(0, 256 if of in IND else 200, (4, 4, 3), np.uint8)
    sides = (28, 28) if of == "mnist" else (32, 32)
    if large:
        sides = tuple(int(side) for side in rng.integers(40, 120, 2))
    image = Image.fromarray(patches).resize(sides, Image.Resampling.BICUBIC)
    return image.convert("L") if of == "mnist" else image


def write(root, name, rng):
    """All lists of a benchmark, and their images.

    Returns:
      the list of test images, and the folder that its paths are in.
    """
    benchmark = BENCHMARKS[name]
    large = benchmark.size > 32
    for of, listed in benchmark.sets().items():
        split = "train" if of == "train" else "test"
        # MDS asks how images of a class differ.
        count = benchmark.num_classes + 50 if of == "train" else IMAGES
        there = real(folder_of(name, of), split)[IMAGES if of == "val" else 0 :]
        ending = "jpg" if large or (there and of != "mnist") else "png"
        lines = []
        for i in range(count):
            y = i % benchmark.num_classes if of in IND else -1
            path = f"{folder_of(name, of)}/{of}/{y:03}/{i:04}.{ending}"
            file = root / listed.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if not there:
                made(rng, of, large).save(file)
            elif of == "mnist":
                Image.fromarray(there[i]).save(file)
            else:
                shutil.copyfile(there[i], file)
            lines.append(f"{path} {y}\n")
        path = root / "benchmark_imglist" / listed.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines))
    listed = benchmark.ind["test"]
    return root / "benchmark_imglist" / listed.path, root / listed.folder


def shown(benchmark, file):
    """What torchvision's Resize and CenterCrop make of an image, in [0, 1]."""
    image = Image.open(file).convert("RGB")
    short = min(image.size)
    sides = [benchmark.resize * side // short for side in image.size]
    image = image.resize(sides, Image.Resampling.BILINEAR)
    left, top = (round((side - benchmark.size) / 2) for side in sides)
    size = benchmark.size
    return np.float32(image.crop((left, top, left + size, top + size))) / 255


def by_sklearn(ind, ood):
    outside, scores = np.repeat([0, 1], [len(ind), len(ood)]), np.append(ind, ood)
    fpr, tpr, _ = roc_curve(outside, -scores, drop_intermediate=False)
    of_ind = precision_recall_curve(outside == 0, scores)
    of_ood = precision_recall_curve(outside, -scores)
    areas = [auc(recall, precision) for precision, recall, _ in (of_ind, of_ood)]
    values = fpr[tpr >= 0.95][0], roc_auc_score(outside, -scores), *areas
    return dict(zip(QUANTITIES, values, strict=True))


def labelled(test, folder, benchmark, networks):
    """Logits of the test images, of which the first network is right on every other."""
    paths = [line.split()[0] for line in test.read_text().splitlines()]
    x = np.stack([shown(benchmark, folder / path) for path in paths])
    logits = [np.asarray(model.apply(of, x), np.float64) for model, of in networks]
    y = (logits[0].argmax(1) + np.arange(IMAGES) % 2) % benchmark.num_classes
    lines = (f"{path} {label}\n" for path, label in zip(paths, y, strict=True))
    test.write_text("".join(lines))
    return logits


def told_in_percent(values):
    mean = f"{100 * np.mean(values):.2f}"
    return f"{mean} ± {100 * np.std(values):.2f}" if len(values) > 1 else mean


# More classes take more images, and of 224×224 pixels each function long to compile.
OTHERS = [pytest.param(n, marks=pytest.mark.slow) for n in GROUPS if n != "cifar10"]


@pytest.mark.parametrize("name", ["cifar10", *OTHERS])
def test_each_benchmark_from_its_lists_to_its_table(name, tmp_path):
    benchmark, root = BENCHMARKS[name], tmp_path / "OpenOOD"
    listed = write(root / "data", name, np.random.default_rng(0))
    args = ["--root", str(root), "--benchmark", name, "--out", str(tmp_path)]
    runs = ["s0", "s1"] if benchmark.checkpoints else ["s0"]
    files = [root / "results" / benchmark.checkpoints / s / "best.ckpt" for s in runs]
    if name == "imagenet":
        files = [tmp_path / "torchvision" / "resnet50.safetensors"]
        args += ["--checkpoints", str(files[0])]
    networks = [network(benchmark, seed) for seed in range(len(runs))]
    for file, of in zip(files, networks, strict=True):
        write_checkpoint(file, *of)
    logits = labelled(*listed, benchmark, networks)

    args += ["--noise", "20", "--batch-size", "20", "--epsilons", "0"]
    args += [] if benchmark.size > 32 else ["0.02"]
    assert fssd_jax.__main__.main(["openood", *args]) == 0
    (out,) = tmp_path.glob(f"openood/{name}-0-*")
    facts = json.loads((out / "metrics.json").read_text())
    assert facts["missing"] == {}
    assert {key for of in facts["networks"].values() for key in of["not run"]} <= {
        "FSSD, warning"  # untrained networks tell noise from images either way round
    }
    assert facts["networks"]["s0"]["accuracy"] == 0.5

    near, far = GROUPS[name]
    with np.load(out / "scores.npz") as file:
        scores = dict(file)
    of_run = {f"{of}/{m}" for of in ("test", *near, *far) for m in METHODS}
    assert scores.keys() == {f"{run}/{key}" for run in runs for key in of_run}
    assert {s.shape for s in scores.values()} == {(IMAGES,)}
    for run, of in zip(runs, logits, strict=True):
        energies = np.log(np.exp(of).sum(1))
        np.testing.assert_allclose(scores[f"{run}/test/EBO"], energies, rtol=1e-4)
    agrees(out, name, runs, scores)


def agrees(out, name, runs, scores):
    """Rows and records, in the order of the groups, are scikit-learn's metrics."""
    near, far = GROUPS[name]
    rows = {of: (of,) for of in near} | {"nearood": near}
    rows |= {of: (of,) for of in far} | {"farood": far}
    records, expected = recorded(out), {}
    for method in METHODS:
        for row, sets in rows.items():
            cells = {quantity: [] for quantity in QUANTITIES}
            for run in runs:
                ind = scores[f"{run}/test/{method}"]
                each = [by_sklearn(ind, scores[f"{run}/{of}/{method}"]) for of in sets]
                keys = {"benchmark": name, "network": run, "condition": row}
                for quantity, values in cells.items():
                    values.append(np.mean([of[quantity] for of in each]))
                    ((stored, *_),) = records(method=method, quantity=quantity, **keys)
                    assert stored == pytest.approx(values[-1])
            expected[method, row] = [told_in_percent(v) for v in cells.values()]
    lines = (out / "metrics.md").read_text().splitlines()
    table = [line.strip("| ").split(" | ") for line in lines]
    found = {(c[0], c[1]): c[2:6] for c in table if len(c) == 7 and c[0] in METHODS}
    assert found == expected
    assert [*found] == [*expected]
