"""The tangent kernels of any layers while a network is trained.

    recorder = KernelRecorder(feature_fn, x, log_steps(total, 20), key, y=y)
    train(..., on_step=recorder)      # or call it after each step of your own loop

`analysis.dynamics.Recorder` follows features in the same way.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple, SupportsIndex

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from analysis.kernel_statistics import (
    Null,
    alignment,
    alignment_floor,
    drift,
    effective_rank,
    kernel_distance,
    permutation_null,
    spectrum,
    stable_rank,
)
from analysis.ntk import Images, sketched_kernel, tangent_kernel, trace_directions
from analysis.parameters import of_layer
from analysis.steps import begins, later
from fssd_jax import checks
from fssd_jax.checks import InputError
from fssd_jax.data.inputs import as_input, joined
from fssd_jax.devices import apart
from fssd_jax.outputs import FeatureFn, Variables, features_of
from fssd_jax.shown import brief

NO_NULL = Null(np.nan, np.nan, np.nan, np.nan, 0)


class KernelStatistics(NamedTuple):
    """Of one layer's trace kernel Θ_t; see `analysis.kernel_statistics`.

    What a kernel does not have is NaN, as the alignment of a layer whose gradient is 0.
    The last three are None without labels.
    """

    trace_mean: float  # tr Θ_t / n, the mean of Θ_t(x, x)
    drift: float  # ‖Θ_t − Θ_0‖/‖Θ_0‖
    distance: float  # 1 − cos(Θ_t, Θ_0), of Fort et al. (2020)
    effective_rank: float
    stable_rank: float
    alignment: float | None  # centred, with the labels
    alignment_floor: float | None  # its mean over permuted labels
    debiased_alignment: Null | None  # with what it is for permuted labels

    __repr__ = brief


class KernelRecord(NamedTuple):
    """The kernels before one step."""

    step: int
    statistics: OrderedDict[str, KernelStatistics]  # by layer
    kernels: dict[str, np.ndarray]  # of each layer that is kept [n, n]

    __repr__ = brief


class KernelRecorder:
    """Follows a training run at chosen steps; `records` has a `KernelRecord` for each.

    Called as `recorder(step, before, after, x, y)` after every step, which is what
    `fssd_jax.train.train(on_step=...)` does. Only the first two are looked at, so that
    the end is recorded by `recorder(total, variables)`. Between steps it holds Θ_0 of
    each layer, which is taken at step 0 even if that is not among the steps, and what
    is kept.

    Args:
      feature_fn: the layers, without dropout; see `analysis.ntk` for what is constant.
      x: images [n, ...] between which kernels are taken.
      steps: numbers of the steps to look at; see `analysis.dynamics.log_steps`.
      key: of the directions and the permutations, which are the same at every step.
      y: what to align with: class indices [n], or a kernel [n, n]; None: nothing.
      layers: their names; None for all.
      directions: how many the trace of a wide layer's kernel is estimated from, exact
        for layers with no more units: see `sketched_kernel`. None: exact for all, by
        neural-tangents.
      permutations: of the labels, for the null of the debiased alignment.
      keep: layers whose kernels are kept in the records.
      batch_size: images on either side of a block of the kernel.
      start: τ, the step to begin with: earlier ones are ignored, and Θ_0 is Θ_τ.
    """

    @apart
    def __init__(
        self,
        feature_fn: FeatureFn,
        x: Images,
        steps: Collection[int],
        key: PRNGKeyArray,
        *,
        y: Any = None,
        layers: Sequence[str] | None = None,
        directions: int | None = 32,
        permutations: int = 199,
        keep: Sequence[str] = (),
        batch_size: int = 32,
        start: int = 0,
    ):
        if directions is not None:
            checks.at_least_one("directions", directions)
        checks.at_least_one("permutations", permutations)
        self.records: list[KernelRecord] = []
        self._feature_fn, self._x, self._steps = feature_fn, joined(x), set(steps)
        self._y = None if y is None else _labels(y, len(self._x))
        self._layers, self._keep = layers, set(keep)
        self._directions, self._batch_size = directions, batch_size
        self._direction_key, null_key = jax.random.split(checks.random_key(key))
        self._null = partial(permutation_null, key=null_key, count=permutations)
        self._kernel_fns: dict[str, Callable] = {}
        self._start = start
        self._first: dict[str, np.ndarray] | None = None
        self._last: int | None = None

    @apart
    def __call__(self, step: SupportsIndex, before, after=None, x=None, y=None) -> None:
        step = later(self._last, step)
        if self._first is None:
            if not begins(self._start, step, "kernels are compared with those"):
                return
            self._kernel_fns = self._of_layers(before)
            kernels = self._first = self._kernels(before)
        elif step in self._steps:
            kernels = self._kernels(before)
        self._last = step
        if step in self._steps:
            self.records.append(
                KernelRecord(
                    step,
                    OrderedDict(
                        (k, statistics(self._first[k], of, self._y, self._null))
                        for k, of in kernels.items()
                    ),
                    {k: of for k, of in kernels.items() if k in self._keep},
                )
            )

    def _kernels(self, variables: Variables) -> dict[str, np.ndarray]:
        return {layer: of(variables) for layer, of in self._kernel_fns.items()}

    def _of_layers(self, variables: Variables) -> dict[str, Callable]:
        """layer → variables → Θ [n, n]."""
        of = partial(features_of, self._feature_fn)
        found = jax.eval_shape(of, variables, as_input(self._x[:1]))
        layers = list(found) if self._layers is None else list(self._layers)
        for layer in self._keep - set(layers):
            of_layer(dict.fromkeys(layers), layer)
        fns = {}
        for number, layer in enumerate(layers):
            dim = math.prod(of_layer(found, layer).shape[1:])
            options: dict[str, Any] = {"batch_size": self._batch_size}
            kernel_fn = tangent_kernel
            if self._directions is not None:
                kernel_fn = sketched_kernel
                key = jax.random.fold_in(self._direction_key, number)
                options["directions"] = trace_directions(key, self._directions, dim)
            fns[layer] = partial(
                kernel_fn, self._feature_fn, layer=layer, x1=self._x, **options
            )
        return fns


def statistics(
    start: np.ndarray, kernel: np.ndarray, y: Any = None, null: Callable | None = None
) -> KernelStatistics:
    """Of one kernel [n, n]; what it does not have is NaN.

    Args:
      start: Θ_0.
      kernel: Θ_t.
      y: class indices [n], or a kernel; None: nothing to align with.
      null: `(kernel, y) -> Null`, such as a partial of `permutation_null`.
    """
    of_labels: dict[str, Any] = dict.fromkeys(KernelStatistics._fields[-3:])
    if y is not None:
        of_labels = {
            "alignment": _or(np.nan, alignment, kernel, y),
            "alignment_floor": _or(np.nan, alignment_floor, kernel, y),
            "debiased_alignment": _or(NO_NULL, null, kernel, y) if null else None,
        }
    effective, stable = _or((np.nan, np.nan), _ranks, kernel)
    return KernelStatistics(
        trace_mean=float(np.diag(kernel).mean(dtype=np.float64)),
        drift=drift(start, kernel) if start.any() else np.nan,
        distance=_or(np.nan, kernel_distance, start, kernel),
        effective_rank=effective,
        stable_rank=stable,
        **of_labels,
    )


def _ranks(kernel: np.ndarray) -> tuple[float, float]:
    p = spectrum(kernel)
    return effective_rank(p), stable_rank(p)


def _or(instead: Any, of: Callable, *args) -> Any:
    """`of(*args)`, or `instead` where there is none: no run ends for a dead layer."""
    try:
        return of(*args)
    except InputError:
        return instead


def _labels(y: Any, count: int) -> np.ndarray:
    y = checks.to_numpy(y, "labels")
    classes = np.issubdtype(y.dtype, np.integer)
    if y.shape != ((count,) if classes else (count, count)):
        raise InputError(
            f"labels: expected class indices, one for each of the {count} images, or a "
            f"kernel {(count, count)} of floats, got {y.dtype} of shape {y.shape}"
        )
    if count < 4:
        raise InputError(
            f"labels: {count} images are too few to align with; give four or more"
        )
    return y
