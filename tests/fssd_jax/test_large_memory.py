"""Memory of ImageNet's road: JPEGs are decoded, cropped, trained on and scored."""

import subprocess
import sys

import pytest

from tests import large_files

ROAD = """
import resource, sys
from functools import partial
import jax, numpy as np
import fssd_jax
from fssd_jax.allocator import keep_memory
from fssd_jax.data.crops import random_resized_crop
from fssd_jax.data.large_sets import Cut, find
from fssd_jax.detectors import fssd
from fssd_jax.models import MLP
from fssd_jax.train import train
keep_memory()
count, root = int(sys.argv[1]), sys.argv[2]
found = find("imagenet2012", "train", root)
numbers = np.arange(count) % len(found.y)
data = found.decoded("imagenet2012", "train", Cut(224, 256), numbers)
classes = len(found.names)
model = MLP(num_classes=classes, mean=(0.5,) * 3, std=(0.5,) * 3, hidden=(2, 2))
cropped = data.x.records(data.y, partial(random_resized_crop, size=224))
run = train(model, cropped, num_classes=classes, seed=0, epochs=1, progress=False)
feature_fn = fssd_jax.make_feature_fn(model)
noise = fssd_jax.uniform_noise(jax.random.key(0), 50, (224, 224, 3))
state = fssd.fit(feature_fn, run.variables, noise)
scores = fssd_jax.map_batches(fssd.score, feature_fn, run.variables, state, data.x)
assert scores.shape == (count,)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path):
    """20,000 crops of 224×224 are 2.9 GB as bytes; 400 files again and again."""
    large_files.imagenet(tmp_path, (50, 1))
    peaks = []
    for count in (2_000, 20_000):
        command = [sys.executable, "-c", ROAD, str(count), str(tmp_path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout.split()[-1]))
        print(f"{count:,} images: peak {peaks[-1]:.0f} MiB")
    assert peaks[1] < peaks[0] + 150  # malloc keeps some in pieces
