"""PyTorch on the same kind of device as JAX, for `benchmarks.accelerator`."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import product
from typing import Any

import numpy as np

from benchmarks.inputs import NETWORKS
from benchmarks.tasks import LAYOUTS
from benchmarks.timed import Worker, nearly_equal

DEVICES = {"gpu": "cuda", "cpu": "cpu"}  # JAX's name and PyTorch's
# How near 95 % of its numbers must be, as a share of a layer's largest; True: in TF32.
WITHIN = {False: 1e-3, True: 5e-2}
# Weights are made by JAX in that process, which must not take the GPU's memory.
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Torch:
    """A process of PyTorch; `worker` is None if there is none on such a device."""

    def __init__(self, platform: str, threads: int):
        self.worker, self.device = None, DEVICES.get(platform)
        self._best: dict[tuple, dict[str, Any]] = {}
        if self.device is None or find_spec("torch") is None:
            return
        self.worker = Worker("benchmarks.torch_peers", threads, ENVIRONMENT)
        if self.device == "cuda" and not self.worker.prepare("cuda", "cuda", "", 0):
            self.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    def best(
        self, task: str, name: str, batches: Sequence[int], tf32: bool
    ) -> dict[str, Any]:
        """The batch and the layout of the fewest seconds an image; or, of training,
        whether the images are sent before."""
        task = task.replace("sweep", "one")  # the same operations, in less time
        training = task == "training"
        known = task, name, tf32
        if known not in self._best:
            batches = [NETWORKS[name].batch] if training else batches
            kinds = product(batches, LAYOUTS, LAYOUTS if training else [True])
            names = "batch", "channels_last", "resident"
            settings: list[dict[str, Any]] = [
                dict(zip(names, kind, strict=True)) for kind in kinds
            ]
            self._best[known] = min(settings, key=lambda s: self._tried(task, name, s))
        return self._best[known] | {"device": self.device, "tf32": tf32}

    def _tried(self, task: str, name: str, setting: dict[str, Any]) -> float:
        """Seconds an image; infinite if it does not fit."""
        count = setting["batch"] * (2 if task == "training" else 1)
        worker, given = self._running(), setting | {"device": self.device}
        try:
            worker.prepare("tried", task, name, count, **given)
            return min(worker.seconds("tried") for _ in range(2)) / count
        except RuntimeError as error:
            if "out of memory" not in str(error).lower():
                raise
            return float("inf")

    def _running(self) -> Worker:
        assert self.worker is not None
        return self.worker

    def check(
        self, what: str, task: str, name: str, ours: np.ndarray, setting: dict[str, Any]
    ) -> list[float]:
        """Raise unless it computes the same on as many images.

        Returns:
          The error that most of the numbers keep below, and the largest.
        """
        count = ours.shape[-2]
        theirs = self._running().prepare("checked", task, name, count, **setting)
        return nearly_equal(what, ours, theirs, WITHIN[setting["tf32"]])

    def prepare(self, task: str, name: str, count: int, **setting) -> None:
        self._running().prepare(task, task, name, count, **setting)

    def seconds(self, task: str) -> float:
        return self._running().seconds(task)
