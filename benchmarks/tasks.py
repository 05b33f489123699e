"""What is timed, of how many images, and by whom."""

from benchmarks.gates import LOGISTIC, RELEASED, SHARED, SKLEARN, TANGENTS, TORCH
from benchmarks.ours import LAYERS
from fssd_jax.ensemble import EPSILONS

PEERS = {  # of each task: what `torch_peers` calls theirs
    "plain": {TORCH: "plain"},
    "one": {RELEASED: "one, released", SHARED: "one, shared"},
    "sweep": {RELEASED: "sweep, released", SHARED: "sweep, shared"},
    "training": {TORCH: "training"},
    "mahalanobis": {SKLEARN: "mahalanobis"},
    "regression": {LOGISTIC: "regression"},
    "kernel": {TANGENTS: "kernel"},
    **{"fit": {}, "metrics": {}, "import": {}, "first use": {}},
}
STEPPED = ("one", "sweep")  # what is scored lies behind an input step
# Of these tasks, what is imported after JAX: the package alone imports nothing.
IMPORTED = {"import": "fssd_jax", "first use": "fssd_jax.detectors.fssd"}
WHAT = {
    "plain": "plain scoring",
    "one": "scoring after one input step",
    "sweep": f"sweep over {len(EPSILONS)} ε",
    "training": "one training epoch, warm",
    "mahalanobis": "Mahalanobis: fit, and score",
    "regression": f"logistic regression of {LAYERS} layers, C by cross-validation",
    "kernel": "Eq. (4) at LeNet's fc1, as many test images",
    "fit": f"fit with OoD labels, {LAYERS} layers, {len(EPSILONS)} ε, given scores",
    "metrics": "metrics with intervals",
    **{task: f"import {what}, beyond import jax" for task, what in IMPORTED.items()},
}
COUNTS = {  # images; --quick takes a quarter
    "LeNet": {
        **{"plain": 16_384, "one": 4_096, "sweep": 1_024},
        **{"training": 16_384, "mahalanobis": 8_192},
    },
    "ResNet-20": {"plain": 4_096, "one": 1_024, "training": 4_096},
}
WITHOUT = {  # of no network, or of one alone
    **{"regression": 2_000, "kernel": 32},
    **{"fit": 2_000, "metrics": 2_000_000, "import": 1, "first use": 1},
}
BATCHES = 32, 64, 256
# Where the batch does not change the numbers.
BATCHED = "plain", "one", "sweep", "mahalanobis"
LAYOUTS = False, True  # channels last
