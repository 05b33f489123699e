"""A few images in OpenOOD's layout, and networks as its checkpoints are."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from PIL import Image
from safetensors.numpy import save_file

from fssd_jax.data.openood import BENCHMARKS
from fssd_jax.models.resnet import ResNet
from fssd_jax.torch_formats import FORMATS, wanted

TRAIN, OTHERS = 60, 20  # images of each list; of one count, of which less is compiled


def write_images(root, name: str, seed: int = 0) -> None:
    """All lists of a benchmark, and their images: OoD ones are darker."""
    benchmark = BENCHMARKS[name]
    rng = np.random.default_rng(seed)
    for of, listed in benchmark.sets().items():
        lines = []
        for i in range(TRAIN if of == "train" else OTHERS):
            inside = of in benchmark.ind
            label = i % benchmark.num_classes if inside else -1
            path = f"{of}/class{label}/{i}.png"
            file = root / listed.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            x = rng.integers(0, 256 if inside else 160, (32, 32, 3), np.uint8)
            Image.fromarray(x).save(file)
            lines.append(f"{path} {label}\n")
        file = root / "benchmark_imglist" / listed.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines))


def network(benchmark, seed: int):
    """(model, variables) of narrow stages, one block each."""
    large = benchmark.model == "resnet"
    model = ResNet(
        stage_sizes=(1, 1, 1, 1) if large else (1, 1, 1),
        stem="imagenet" if large else "cifar",
        bottleneck=benchmark.num_classes == 1000,
        num_classes=benchmark.num_classes,
        width=4,
        mean=benchmark.mean,
        std=benchmark.std,
    )
    x = np.zeros((1, 32, 32, 3), np.float32)
    return model, model.init(jax.random.key(seed), x)


def write_checkpoint(path, model, variables) -> None:
    """As OpenOOD's networks name their entries: `fc`, not `linear`."""
    leaves = flatten_dict(variables)
    state = {}
    format = FORMATS["cifar_resnet" if model.stem == "cifar" else "resnet"]
    for key, entry in wanted(format, model).items():
        array = np.asarray(leaves[key])
        # Back from what `convert` makes of it.
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            array = array.T
        name = entry.name.replace("linear.", "fc.")
        state[name] = np.ascontiguousarray(array)
    path.parent.mkdir(parents=True)
    save_file(state, path)
