"""Which training images moved a test image: Eq. (3) told apart image by image."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Num

from analysis.displacement import displacement, relative_error
from analysis.forward import jvp
from analysis.gradients import LossFn, loss_of_each
from analysis.parameters import of_layer, parameters, with_parameters
from analysis.steps import Followed, check_sgd, sgd_error
from fssd_jax import checks
from fssd_jax.compiled import compiled
from fssd_jax.data.inputs import as_input, joined
from fssd_jax.devices import apart
from fssd_jax.outputs import FeatureFn, Variables, features_of, pool


@partial(jax.jit, static_argnames=("feature_fn", "loss_fn", "layer"))
def contributions(
    feature_fn: FeatureFn,
    loss_fn: LossFn,
    variables: Variables,
    layer: str,
    x: Num[Array | np.ndarray, "point ..."],
    directions: Float[Array | np.ndarray, "point dim"],
    x_batch: Num[Array | np.ndarray, "batch ..."],
    y_batch: Num[Array | np.ndarray, "batch ..."],
    rate: float | Float[Array, ""],
) -> Float[Array, "point batch"]:
    """What each image of an SGD step adds to the movement of ⟨F(x), v⟩, to first order.

        c_m = −(η/B) ⟨J(x)ᵀv, ∇ℓ_m⟩,    Σ_m c_m ≈ ⟨ΔF(x), v⟩

    which is −(η/B) vᵀ Θ(x, x_m) ∂_mℓ for a layer through which all of the loss passes.
    No kernel is formed: for each point there is a vector-Jacobian product of F, and a
    Jacobian-vector product of the losses.

    Args:
      feature_fn: see `fssd_jax.make_feature_fn`.
      loss_fn: each image's own loss ℓ_m; see `analysis.dynamics.make_loss_fn`.
      variables: before the step.
      layer: one of the layers of `feature_fn`, flattened.
      x: the points that are moved, floats as the network takes them; so is `x_batch`.
      directions: v, one for each point.
      x_batch: the images of the step.
      y_batch: their classes.
      rate: η, of plain SGD on the mean loss of the batch.

    Raises:
      InputError: an unknown layer, directions of another shape than its features, or
        losses that are not one of each image.
    """
    params = parameters(variables)

    def feature(point, params):
        whole = with_parameters(variables, params)
        found = features_of(feature_fn, whole, point[None])
        of = of_layer(found, layer)
        return pool(OrderedDict([(layer, of)]), "flatten")[layer][0]

    def losses(params):
        of = with_parameters(variables, params)
        return loss_of_each(loss_fn, of, x_batch, y_batch)

    dim = jax.eval_shape(feature, x[0], params).shape
    if directions.shape != (len(x), *dim):
        raise checks.InputError(
            f"directions: expected one for each point, flattened like the features of "
            f"{layer!r}, {(len(x), *dim)}, got {directions.shape}"
        )

    def of_one(point_and_direction):
        point, v = point_and_direction
        _, pull = jax.vjp(partial(feature, point), params)
        return jvp(losses, params, *pull(v))[1]

    # One after the other: a gradient has the size of all parameters.
    return -rate / len(x_batch) * jax.lax.map(of_one, (x, directions))


class Contributions:
    """Follows a run of plain SGD: `value()` is Σ_t c_m of every training image.

    Called after each step, as by `train(..., on_step=...)`. The sum over the training
    images is ⟨path form, v⟩ with the kernel at the start of each step (`PathForm` with
    `nodes=0`), up to rounding. That is along the path that all images made together,
    and not what another run without one of them would lack.

    Args:
      feature_fn: see `contributions`, as for the next four.
      loss_fn: without dropout, as the run must be.
      layer: of the features.
      x: points [point, ...].
      directions: [point, dim], such as F_T(x) − F_0(x) at length 1, of an equal run.
      train: all images that the steps are made of [n, ...]; of equal ones the last
        gets the contributions of all.
      rate: η, or `step -> η`.
      start: τ, the step to begin with: earlier ones are ignored.
    """

    @apart
    def __init__(
        self,
        feature_fn: FeatureFn,
        loss_fn: LossFn,
        layer: str,
        x,
        directions,
        train,
        rate: float | Callable[[int], float],
        *,
        start: int = 0,
    ):
        self._of_step = partial(contributions, feature_fn, loss_fn)
        self._feature_fn, self._loss_fn = feature_fn, loss_fn
        self._followed = Followed(start)
        self._layer, self._rate = layer, rate
        self._x, self._directions = as_input(x), np.asarray(directions)
        self._number = {image.tobytes(): i for i, image in enumerate(as_input(train))}
        self._total = np.zeros((len(x), len(train)))
        self._ends = {}, {}  # variables before these steps, and after them

    @apart
    def __call__(self, step: int, before: Variables, after: Variables, x, y) -> None:
        if not self._followed.takes(step):
            return
        first = step == self._followed.start
        self._ends = before if first else self._ends[0], after
        x = as_input(joined(x))
        try:
            numbers = [self._number[image.tobytes()] for image in x]
        except KeyError:
            raise checks.InputError(
                f"step {step} has an image that is not among the training images given"
            ) from None
        rate = float(self._rate(step) if callable(self._rate) else self._rate)
        error = _step_error(self._loss_fn, before, after, x, y, rate)
        check_sgd(step, rate, error)
        found = self._of_step(
            before, self._layer, self._x, self._directions, x, y, rate
        )
        # Not +=, which would count an image once that is twice in the batch.
        np.add.at(self._total.T, numbers, np.asarray(found).T)

    def value(self) -> np.ndarray:
        """[point, n]: what each training image added to ⟨F_T(x) − F_τ(x), v⟩."""
        self._followed.check()
        return self._total.copy()

    @apart
    def error(self) -> float:
        """‖Σ_m value − ⟨Δ, v⟩‖/‖⟨Δ, v⟩‖ over the points, Δ = F_T(x) − F_τ(x): what is
        beyond first order in the steps."""
        found = self.value().sum(1)
        moved = displacement(self._feature_fn, *self._ends, self._x)[self._layer]
        return relative_error(found, (moved * self._directions).sum(1))


@compiled(static=1)
def _step_error(loss_fn, before, after, x, y, rate):
    def mean_loss(params):
        return loss_of_each(loss_fn, with_parameters(before, params), x, y).mean()

    return sgd_error(before, after, jax.grad(mean_loss)(parameters(before)), rate)
