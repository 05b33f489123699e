"""Small sets of random images in the real layout SPLIT/CLASS/NNNN.png."""

import numpy as np
from PIL import Image

# In sorted order, which is that of CIFAR-10's own numbers.
CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
SVHN = tuple("0123456789")


def write(folder, x, y, classes=CIFAR10):
    for i, (image, label) in enumerate(zip(x, y, strict=True)):
        of_class = folder / classes[label]
        of_class.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(of_class / f"{i:04}.png")


def drawn(seed, of_each, classes=10):
    """(x, y): noise around a colour of each class."""
    rng, y = np.random.default_rng(seed), np.repeat(np.arange(classes), of_each)
    colours = np.random.default_rng(0).integers(60, 196, (classes, 3))
    noise = rng.integers(-60, 61, (len(y), 32, 32, 3))
    return (colours[y][:, None, None] + noise).astype(np.uint8), y
