"""Images to corrupt, and how."""

import numpy as np

from fssd_jax.data.imagenet_c import corrupt


def image(height: int, width: int, channels: int) -> np.ndarray:
    """A smooth picture with an edge, uint8."""
    at = np.indices((height, width)).transpose(1, 2, 0) / (height, width)
    waves = [0.5 + 0.4 * np.sin(5 * at @ (c + 1, 2 - c)) for c in range(channels)]
    x = np.stack(waves, -1)
    x[height // 3 : height // 2, width // 4 : width // 2] = 0.95
    return (x * 255).astype(np.uint8)


GREY = np.stack([image(28, 28, 1)] * 3)
COLOUR = np.stack([image(32, 32, 3), image(32, 32, 3)[::-1]])


def made(images, kind, level=3, seed=0, **kwargs):
    return corrupt(images, kind, level, seed, workers=0, progress=False, **kwargs)
