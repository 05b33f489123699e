"""A checkpoint and images as somebody brings them, for `score`."""

import numpy as np
from PIL import Image

from experiments import score
from fssd_jax.data import load
from fssd_jax.data.inputs import as_input
from tests.fssd_jax.references import narrow, save_weights


def write(folder):
    """A narrow LeNet; digits and others as PNG files in class folders; photographs."""
    save_weights(folder / "lenet.safetensors", "lenet", narrow)
    digits = load("digits", "test")
    for name, part in (("digits", slice(240)), ("others", slice(240, 480))):
        x = np.rint(255 * as_input(digits.x[part])).astype(np.uint8)
        for i, (image, y) in enumerate(zip(x, digits.y[part], strict=True)):
            path = folder / name / str(y) / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(path)
    np.savez(folder / "photos.npz", x=load("photo_patches", "test").x[:60])
    return folder


def main(files, out, *args):
    fixed = ["--weights", str(files / "lenet.safetensors"), "--model", "lenet"]
    fixed += ["--mean", "0.2860", "--std", "0.3530"]
    fixed += ["--in", str(files / "digits"), "--ood", str(files / "photos.npz")]
    return score.main([*fixed, "--noise", "50", "--out", str(out), *args])
