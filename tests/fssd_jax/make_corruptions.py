"""Writes what imagecorruptions-imaug makes of a photograph into tests/references.

python -m venv OTHER && OTHER/bin/pip install imagecorruptions-imaug==1.1.5  # 700 MB
OTHER/bin/python tests/fssd_jax/make_corruptions.py

The photograph is scikit-image's of Eileen Collins (NASA, public domain), made smaller.
"""

from pathlib import Path

import cv2
import imagecorruptions
import numpy as np
from imagecorruptions import corruptions
from PIL import Image
from skimage import data

PATH = Path(__file__).parent.parent / "references" / "corruptions.npz"
SIDE = 44  # of which no enlargement of snow is cut, which the package does at a corner
SEED, SEEDS = 3, 200
FLAT = (30, 120, 220)  # the colour of each picture of frost
DRAWN = "gaussian_noise shot_noise impulse_noise speckle_noise glass_blur motion_blur"
DRAWN = (*DRAWN.split(), "snow", "fog", "elastic_transform")
FIXED = "defocus_blur zoom_blur brightness contrast pixelate jpeg_compression frost"


def corrupt(image, kind, level, seed):
    """Numbers are drawn from NumPy's legacy stream, but for impulse noise."""
    np.random.seed(seed)  # noqa: NPY002
    seeded = {"seed": seed} if kind in ("impulse_noise", "glass_blur") else {}
    return imagecorruptions.corrupt(image, level, kind, **seeded)


def moments(image, kind, level):
    """Of the change's mean and standard deviation: mean and spread over seeds."""
    of_seeds = []
    for seed in range(SEEDS):
        change = corrupt(image, kind, level, seed).astype(float) - image
        of_seeds.append((change.mean(), change.std()))
    return np.mean(of_seeds, 0), np.std(of_seeds, 0, ddof=1)


def main():
    shuffle = corruptions._shuffle_pixels_njit_glass_blur
    corruptions._shuffle_pixels_njit_glass_blur = shuffle.py_func  # NumPy's numbers
    picture = np.full((300, 300, 3), FLAT[::-1], np.uint8)
    cv2.imread = lambda path: picture
    face = Image.fromarray(data.astronaut()[:220, 110:330])
    image = np.asarray(face.resize((SIDE, SIDE), Image.Resampling.BOX))
    made = {"image": image}
    for kind in (*DRAWN, *FIXED.split()):
        of_levels = [corrupt(image, kind, level, SEED) for level in range(1, 6)]
        made[kind] = np.stack(of_levels)[:, ::3, ::3]
        if kind in DRAWN:
            of_levels = [moments(image, kind, level) for level in range(1, 6)]
            made[f"{kind} moments"] = np.float32(of_levels)
    small = image[:32, :32]  # of which 1.3 is not 1.3000000000000003
    made["zoom_blur of 32"] = corrupt(small, "zoom_blur", 5, SEED)
    np.savez_compressed(PATH, **made)
    print(f"{PATH}: {PATH.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
