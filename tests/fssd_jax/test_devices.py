"""Many devices, simulated on the processor, in a process of their own."""

from tests.eight_devices import all_the_same

PROGRAM = """
import re
from collections import OrderedDict
from functools import partial

import jax, jax.numpy as jnp, numpy as np
import fssd_jax
from fssd_jax import map_batches
from fssd_jax.data import pipeline
from fssd_jax.detectors import (
    deep_ensemble, displacement, energy, fssd, gram, knn, mahalanobis, max_logit,
    mc_dropout, msp, nnguide, odin, vim,
)

assert jax.device_count() == 8
RNG = np.random.default_rng(0)
X = RNG.random((45, 4, 4, 1), np.float32)
OOD = RNG.random((41, 4, 4, 1), np.float32) ** 3
Y = np.arange(45) % 3
W = {"a": RNG.normal(size=(16, 9)), "b": RNG.normal(size=(9, 3))}
W = jax.tree.map(jnp.float32, W)
INITIAL = jax.tree.map(lambda w: w * 0.5, W)

def feature_fn(v, x):
    h = jnp.tanh(x.reshape(len(x), -1) @ v["a"])
    return OrderedDict(h=h, logits=h @ v["b"])

def logit_fn(v, x):
    return feature_fn(v, x)["logits"]

def dropped(v, x, key):
    h = feature_fn(v, x)["h"]
    return (h * jax.random.bernoulli(key, 0.5, h.shape)) @ v["b"]

NOISE = np.asarray(fssd_jax.uniform_noise(jax.random.key(0), 50, (4, 4, 1)))
EPS = (0.0, 0.01)

def states():
    gaussians = mahalanobis.estimate_gaussians(feature_fn, W, X, Y, 3)
    last = fssd_jax.head.find(feature_fn, logit_fn, W, X)
    return {
        "vim": (vim, feature_fn, vim.fit(feature_fn, W, last, X)),
        "nnguide": (nnguide, feature_fn, nnguide.fit(feature_fn, W, X, "h", k=4)),
        "gram": (gram, feature_fn, gram.fit(feature_fn, W, X[:20], X[:20], orders=2)),
        "fssd": (fssd, feature_fn,
                 fssd.fit(feature_fn, W, NOISE, X, OOD, epsilons=EPS)),
        "noise": (fssd, feature_fn, fssd.fit(feature_fn, W, NOISE)),
        "mahalanobis": (mahalanobis, feature_fn, mahalanobis.fit(
            feature_fn, W, gaussians, X, OOD, epsilons=EPS)),
        "odin": (odin, logit_fn, odin.fit(logit_fn, W, X, OOD, epsilons=EPS)),
        "knn": (knn, feature_fn, knn.fit(feature_fn, W, X, "h", k=4)),
        "displacement": (displacement, feature_fn,
                         displacement.fit(feature_fn, W, INITIAL, X)),
        "msp": (msp, logit_fn, msp.fit()),
        "energy": (energy, logit_fn, energy.fit()),
        "max_logit": (max_logit, logit_fn, max_logit.fit()),
        "dropout": (mc_dropout, dropped, mc_dropout.fit(jax.random.key(1), 4)),
        "ensemble": (deep_ensemble, logit_fn, deep_ensemble.fit()),
    }

def scores(fitted, **options):
    both = deep_ensemble.stack([W, INITIAL])
    return {
        name: map_batches(m.score, fn, both if name == "ensemble" else W, state, X,
                          batch_size=16, **options)
        for name, (m, fn, state) in fitted.items()
    }

many = states()
many |= {f"{n}, step": (m, fn, s._replace(epsilon=jnp.float32(0.01)))
         for n, (m, fn, s) in many.items() if hasattr(s, "epsilon")}
texts, run = [], pipeline._score_shards

def watched(*args):
    program = jax.jit(partial(run.__wrapped__, *args[:4]))
    texts.append(program.lower(*args[4:]).compile().as_text())
    return run(*args)

pipeline._score_shards = watched
of_many = scores(many)
pipeline._score_shards = run
collectives = "all-reduce|all-gather|all-to-all|collective|reduce-scatter"
assert len(texts) >= len(many)
assert not any(re.search(collectives, text) for text in texts)
assert all("num_partitions=8" in text for text in texts)
swept = map_batches(fssd_jax.fssd.sweep, feature_fn, W, many["fssd"][2].singularity, X,
                    epsilons=jnp.asarray(EPS), batch_axis=1)
looked = fssd_jax.look({n: fssd_jax.Question(m.score, fn, s)
                        for n, (m, fn, s) in many.items() if n != "ensemble"}, W, X)
batch = next(pipeline.batches(X, 3))
assert len(batch.x) == 8 and len(batch.x.sharding.device_set) == 8
half = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
of_four = scores(many, mesh=half)

with jax.default_device(jax.devices()[0]):
    one = states()
    one |= {f"{n}, step": (m, fn, s._replace(epsilon=jnp.float32(0.01)))
            for n, (m, fn, s) in one.items() if hasattr(s, "epsilon")}
    of_one = scores(one)
    swept_one = map_batches(fssd_jax.fssd.sweep, feature_fn, W,
                            one["fssd"][2].singularity, X,
                            epsilons=jnp.asarray(EPS), batch_axis=1)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
for name, found in of_many.items():
    # A sum of relative deviations, of which many are 0 but for rounding.
    few = {"atol": 1e-4} if name == "gram" else {}
    close(found, of_one[name], err_msg=name, **few)
    close(of_four[name], of_one[name], err_msg=name, **few)
    if name in looked:
        close(looked[name], of_one[name], err_msg=name, **few)
close(swept, swept_one)
print("all the same")
"""


def test_scores_do_not_depend_on_the_number_of_devices():
    """Every detector fitted and scored on eight, four and one; nothing is sent."""
    all_the_same(PROGRAM)
