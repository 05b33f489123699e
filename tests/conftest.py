"""Shapes in signatures are checked in tests only, by jaxtyping's import hook."""

import gc
import os
import tempfile
from importlib.metadata import version

# One core a worker: two workers' threads of BLAS would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Many tests compile the same functions of the same networks, and xdist's workers, and
# what tests run in processes of their own, share what is compiled.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    COMPILED = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jaxtyping

# Most of the time goes into compiling: XLA's older emitters compile twice as fast as
# the newer ones, LLVM's level 1 faster than level 3, and level 0 what hardly runs. Cut
# into 32 modules for 32 threads, a network takes a third more processor time.
FASTER = ["--xla_backend_optimization_level=1"]
# At a flag that it does not know XLA ends the process.
if version("jaxlib") < "0.11":
    FASTER.append("--xla_cpu_use_fusion_emitters=false")
    FASTER.append("--xla_cpu_parallel_codegen_split_count=1")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FASTER])


def what_tells_shapes(check):
    """A decorator of functions: each definition that is checked costs a millisecond.

    Functions of modules and methods are checked if they are annotated at all, those
    within functions, which are defined again and again, if they tell shapes.
    """

    def decorate(function):
        annotations = getattr(function, "__annotations__", {}).values()
        inner = "<locals>" in function.__qualname__
        told = [a for a in annotations if not inner or "jaxtyping" in repr(a)]
        return check(function) if told or isinstance(function, type) else function

    return decorate


jaxtyped = jaxtyping.jaxtyped
jaxtyping.jaxtyped = lambda **kwargs: what_tells_shapes(jaxtyped(**kwargs))
jaxtyping.install_import_hook(["fssd_jax", "analysis"], "beartype.beartype")

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import pytest  # noqa: E402

import fssd_jax  # noqa: E402
from fssd_jax.allocator import keep_memory  # noqa: E402
from fssd_jax.convolutions import convolve_by_eigen  # noqa: E402
from fssd_jax.models import LeNet  # noqa: E402
from fssd_jax.train import train  # noqa: E402

# Tracing makes many objects that live, and compiling maps much memory: not to look for
# dead objects so often, and to keep the memory, takes a tenth less time.
gc.set_threshold(200_000, 20, 100)
keep_memory()
convolve_by_eigen()

# By default a GPU multiplies in TF32 and a TPU in bfloat16: no test is about that.
jax.config.update("jax_default_matmul_precision", "float32")

# A silently broadcast operand is a wrong formula in waiting.
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """First the files that take long, so that no worker waits for one at the end."""
    items.sort(key=lambda item: item.nodeid.startswith("tests/fssd_jax/"))
    items.sort(key=lambda item: not item.nodeid.startswith("tests/experiments/"))


# Networks are trained, or many images scored, for longer than it takes to compile.
RUN_LONG = ("docs", "failures", "gaps", "networks", "table2")


@pytest.fixture(autouse=True, scope="module")
def compiled_quickly(request):
    runs_long = request.path.stem.removeprefix("test_") in RUN_LONG
    jax.config.update("jax_disable_most_optimizations", not runs_long)
    # Of processes that a test starts, whose results may have to be the same.
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(not runs_long))


@pytest.fixture(autouse=True, scope="module")
def compiled_functions_are_let_go():
    """Each maps memory, and a process may have 65,530 maps: XLA crashes at the end."""
    yield
    jax.clear_caches()


class Tanh(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        return nn.tanh(nn.Dense(self.features)(x))


class Smooth(nn.Module):
    """A smooth network, so that finite differences are as good as they can be."""

    feature_layers = ("first", "second", "logits")

    @nn.compact
    def __call__(self, x, train=False):
        x = Tanh(7, name="first")(x.reshape(x.shape[0], -1))
        x = Tanh(5, name="second")(x)
        return nn.Dense(3, name="logits")(x)


@pytest.fixture(scope="session")
def smooth():
    """(feature_fn, variables, singularity, x) of a small smooth network."""
    model = Smooth()
    x = jax.random.uniform(jax.random.key(1), (6, 4, 4, 1))
    variables = model.init(jax.random.key(0), x)
    feature_fn = fssd_jax.make_feature_fn(model)
    noise = fssd_jax.uniform_noise(jax.random.key(2), 50, (4, 4, 1))
    singularity = fssd_jax.estimate_singularity(feature_fn, variables, noise)
    return feature_fn, variables, singularity, x


@pytest.fixture(scope="session")
def lenet():
    """(feature_fn, variables, singularity, images) of an untrained narrow LeNet."""
    model = LeNet(mean=(0.3,), std=(0.4,), width=8)
    images = np.random.default_rng(0).integers(0, 256, (23, 28, 28, 1), np.uint8)
    variables = model.init(jax.random.key(0), images[:1] / np.float32(255))
    feature_fn = fssd_jax.make_feature_fn(model)
    noise = fssd_jax.uniform_noise(jax.random.key(2), 40, (28, 28, 1))
    singularity = fssd_jax.estimate_singularity(feature_fn, variables, noise, 16)
    return feature_fn, variables, singularity, images


@pytest.fixture(scope="session")
def blobs():
    """A network trained on three classes, and a blob that it has never seen."""
    rng = np.random.default_rng(0)
    centers = rng.uniform(0.2, 0.8, (4, 4, 4, 1))

    def draw(which):
        noise = rng.normal(0, 0.03, (len(which), 4, 4, 1))
        return np.clip(centers[which] + noise, 0, 1).astype(np.float32)

    y = rng.integers(0, 3, 300).astype(np.int32)
    model = Smooth()
    trained = train(
        model,
        draw(y),
        y,
        num_classes=3,
        seed=0,
        epochs=40,
        recipe=lambda epochs, steps: optax.adam(0.01),
        progress=False,
    )
    sets = [draw(rng.integers(0, 3, 100)), draw(np.full(100, 3))]
    return model, trained.variables, sets, [draw(y[:60]), draw(np.full(60, 3))]


@pytest.fixture(scope="session")
def operators():
    """Names operators of torchvision that nothing here calls, where it lacks them.

    It imports with the build of PyTorch that it was compiled for alone: PyPI's is for
    CUDA, and beside a PyTorch for CPUs "operator torchvision::nms does not exist".
    """
    pytest.importorskip("torch")
    from torch import library

    operators = library.Library("torchvision", "FRAGMENT")
    try:
        pytest.importorskip("torchvision")
    except RuntimeError:
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        operators.define(f"nms{boxes}")
        operators.define(f"qnms{boxes}")
    return operators
