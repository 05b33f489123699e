"""Eq. (3) of Huang et al. (2021): how fast the features of any input move in training.

    dF_θ(x)/dt = ∂F_θ(x)/∂θ · dθ/dt = −Σ_m Θ_t(x, x_m) ∂_mL            (Eq. 3)

The sum over the training set is one Jacobian-vector product along −∇L, and the kernel
Θ is never formed. (So it is right where the sum is not, too: for layers beside which
the loss has another way to their parameters.) `Recorder` follows a training run:

    steps = log_steps(total, 20)
    recorder = Recorder(feature_fn, loss_fn, {"OoD": x, "noise": noise}, steps)
    train(..., on_step=recorder)      # or call it after each step of your own loop
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from analysis.forward import jvp
from analysis.gradients import LossFn, descent
from analysis.parameters import (
    difference,
    directed,
    has_entry,
    logit_fn_of,
    of_layer,
    one_array,
    parameters,
)
from analysis.steps import begins, later
from fssd_jax import checks
from fssd_jax.data.pipeline import map_batches
from fssd_jax.devices import apart
from fssd_jax.fssd import Singularity, distances, estimate_singularity, norm
from fssd_jax.outputs import FeatureFn, Variables, features_of, pool
from fssd_jax.shown import brief

NOISE = "noise"  # the probe set whose mean feature is F*

# Parts of one step's movement, to first order, and what that leaves out.
PARAMETERS, DECAY, STATISTICS = "parameter step", "weight decay", "statistics"
REMAINDER = "beyond first order"
STEP_SPEED = "step speed"


class Record(NamedTuple):
    """The state before one step, and what the step did.

    `movements` maps a probe set and one of these quantities to [n, layers]:
      "distance"            ‖F_t(x) − F*_t‖
      "displacement"        ‖F_t(x) − F_0(x)‖
      "speed"               ‖dF_t(x)/dt‖, Eq. (3), along −∇L
      "moved"               ‖F_{t+1}(x) − F_t(x)‖ by the step that the optimiser took,
      "step speed"          ‖∂F/∂θ · Δθ‖ · ‖∇L‖/‖Δθ‖, along its whole Δθ,
    and to first order its parts:
      "parameter step"      ‖∂F/∂θ · Δθ‖, less weight decay if that is told apart
      "weight decay"        if `decay` was given
      "statistics"          ‖∂F/∂s · Δs‖ of BatchNorm, if there are any
      "beyond first order"  the norm of what the parts do not explain

    "step speed" is "speed" in another direction, that of the step, at the length of the
    gradient: for plain SGD both are the same, at any rate, if the gradient is that of
    the step's batch. So Adam's and SGD's are on one scale, which a division by the rate
    would not do. (Divided by the rate, "parameter step" is the speed in the optimiser's
    own time.) It is 0 where a step changed no parameter.
    """

    step: int
    movements: dict[str, dict[str, np.ndarray]]
    singularity: Singularity  # F*_t
    features: dict[str, dict[str, np.ndarray]]  # set → kept layer → [n, dim]

    __repr__ = brief


def log_steps(total: int, count: int) -> list[int]:
    """About `count` different steps, log-spaced: 0, 1, … and `total` are among them."""
    checks.at_least_one("total", total)
    spaced = np.geomspace(1, total, max(count - 1, 1))
    return sorted({0, total, *np.rint(spaced).astype(int).tolist()})


def make_loss_fn(model: nn.Module | Callable, **call_kwargs) -> LossFn:
    """Cross-entropy of each example, without dropout unless `call_kwargs` ask for it.

    With BatchNorm in training mode give `train=True, mutable=["batch_stats"]`; the loss
    of an example then depends on its batch-mates, and a gradient is taken of all its
    images together: give `Recorder` or `descent` a `batch_size` no less than their
    number, or it is an error.

    Args:
      model: a Linen module, or `(variables, x) -> logits`.
      **call_kwargs: passed on with the call.
    """
    logit_fn = logit_fn_of(model, **call_kwargs)

    def loss_fn(variables, x, y):
        out = logit_fn(variables, x)
        logits = one_array(out[0] if call_kwargs.get("mutable") else out)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    return loss_fn


def velocity(
    feature_fn: FeatureFn, variables: Variables, tangent: Variables, x
) -> OrderedDict[str, Float[Array, "batch dim"]]:
    """∂F(x)/∂θ · tangent for every layer, flattened: one Jacobian-vector product.

    Args:
      feature_fn: see `fssd_jax.make_feature_fn`.
      variables: the network's variables.
      tangent: a direction in some or all of the collections of `variables`; with
        `descent(…)` the result is Eq. (3).
      x: [batch, ...].
    """
    moving, rest = variables, {}
    if jax.tree.structure(tangent) != jax.tree.structure(variables):
        tangent = {name: tangent[name] for name in tangent}
        moving, rest = {name: variables[name] for name in tangent}, variables

    def features(moving):
        whole = {**rest, **moving} if rest else moving
        return pool(features_of(feature_fn, whole, x), "flatten")

    return jvp(features, moving, tangent)[1]


def step_parts(before: Variables, after: Variables, decay: Any = None):
    """What one step of any optimiser changed: part → direction in the variables.

    The parts add up to `after` − `before`. Statistics are all collections but the
    parameters; without an entry "params" all are parameters.

    Args:
      before: the variables before the step.
      after: those after it.
      decay: the share of the parameters' change that is weight decay, a tree like
        the parameters, such as −ηλθ; None for none.
    """
    change = difference(after, before)
    params = parameters(change)
    parts = {}
    if decay is not None:
        parts[DECAY] = directed(before, decay)
        params = jax.tree.map(jnp.subtract, params, decay)
    parts[PARAMETERS] = directed(before, params)
    if has_entry(change) and len(change) > 1:
        parts[STATISTICS] = {k: change[k] for k in change if k != "params"}
    return parts


class Recorder:
    """Follows a training run at chosen steps; `records` has a `Record` for each.

    Called as `recorder(step, before, after, x, y)` after every step, which is what
    `fssd_jax.train.train(on_step=...)` does. A step of your own must not donate the
    variables before it. The state after the last step is recorded by `recorder(total,
    variables)`: "distance" and "displacement", and "speed" if there is `data`, or a
    batch is given too. Memory is that of one batch, and of what is kept.

    Args:
      feature_fn: the layers to follow, without dropout.
      loss_fn: of each example; see `make_loss_fn`.
      probes: images [n, ...] of each set; the set "noise" must be among them.
      steps: numbers of the steps to look at; see `log_steps`.
      data: (x, y) over which −∇L is taken; None for the batch of the step.
      keep: layers whose features are kept whole.
      decay: `(step, params) -> tree`, the share of a step that is weight decay, such
        as −ηλθ for SGD with η and λ; see `step_parts`.
      batch_size: images per compiled call; see `descent` for losses that depend on
        batch-mates.
      unit_range: whether probes outside [0, 1] are an error.
      start: τ, the step to begin with: earlier ones are ignored, and displacements are
        from the state before it.
    """

    @apart
    def __init__(
        self,
        feature_fn: FeatureFn,
        loss_fn: LossFn,
        probes: Mapping[str, Any],
        steps: Collection[int],
        *,
        data: tuple[Any, Any] | None = None,
        keep: Sequence[str] = (),
        decay: Callable[[int, Any], Any] | None = None,
        batch_size: int = 64,
        unit_range: bool = True,
        start: int = 0,
    ):
        if NOISE not in probes:
            raise checks.InputError(
                f"probes: {list(probes)} have no set {NOISE!r}, of which F* is the mean"
                " feature; see fssd_jax.uniform_noise"
            )
        self.records: list[Record] = []
        self._feature_fn, self._loss_fn = feature_fn, loss_fn
        self._probes, self._steps = dict(probes), set(steps)
        self._data, self._decay = data, decay
        self._sizes = {"batch_size": batch_size, "unit_range": unit_range}
        self._keep = {layer: partial(_feature, layer) for layer in keep}
        self._initial, self._start = None, start
        self._last: int | None = None

    @apart
    def __call__(self, step: SupportsIndex, before, after=None, x=None, y=None) -> None:
        step = later(self._last, step)
        if self._initial is None:
            if not begins(self._start, step, "displacements are from the state"):
                return
            self._initial = before
        self._last = step
        if step not in self._steps:
            return
        x, y = self._data or (x, y)
        gradient = None
        if x is not None and y is not None:
            gradient = descent(self._loss_fn, before, x, y, self._sizes["batch_size"])
        elif after is not None:
            raise checks.InputError(
                f"step {step}: no images for the gradient; call the recorder with the "
                "batch of the step, or make it with data=(x, y)"
            )
        singularity = estimate_singularity(
            self._feature_fn, before, self._probes[NOISE], **self._sizes
        )
        parts, scale = {}, None
        if after is not None:
            decay = self._decay and self._decay(step, parameters(before))
            parts = step_parts(before, after, decay)
            scale = _relative_length(gradient, before, after)
        states = self._initial, before, after
        # Ordered, because `jit` sorts the keys of a plain dict.
        directions = singularity, gradient, OrderedDict(parts), scale
        speed = () if gradient is None else ("speed",)
        step_names = ("moved", STEP_SPEED, *parts, REMAINDER)
        names = ("distance", "displacement", *speed, *step_names)
        movements = {}
        for name, images in self._probes.items():
            norms = self._map(_norms, states, directions, images, batch_axis=1)
            # Without a step there are but the first ones.
            movements[name] = dict(zip(names, norms, strict=False))
        features = {
            name: {k: self._map(f, before, None, images) for k, f in self._keep.items()}
            for name, images in self._probes.items()
        }
        self.records.append(Record(step, movements, singularity, features))

    def _map(self, score, variables, state, images, **kwargs) -> np.ndarray:
        return map_batches(
            score, self._feature_fn, variables, state, images, **self._sizes, **kwargs
        )


def _relative_length(gradient, before, after) -> Float[Array, ""]:
    """‖∇L‖/‖Δθ‖ over the parameters; 0 where none was changed."""
    change = difference(parameters(after), parameters(before))
    length = optax.tree.norm(change)
    moves = length > 0
    size = optax.tree.norm(parameters(gradient))
    return jnp.where(moves, size / jnp.where(moves, length, 1), 0)


def _norms(feature_fn, states, directions, x) -> Float[Array, "quantity batch layers"]:
    """The quantities of a `Record`, in its order."""
    _, before, after = states
    singularity, gradient, parts, scale = directions
    features = [
        pool(features_of(feature_fn, v, x), "flatten") for v in states if v is not None
    ]
    displacement = jax.tree.map(jnp.subtract, features[1], features[0])
    rows = [displacement]
    if gradient is not None:
        rows.append(velocity(feature_fn, before, gradient, x))
    if after is not None:
        speeds = {name: velocity(feature_fn, before, d, x) for name, d in parts.items()}
        moved = jax.tree.map(jnp.subtract, features[2], features[1])
        rest = jax.tree.map(lambda f, *of: f - sum(of), moved, *speeds.values())
        of_parameters = [v for name, v in speeds.items() if name != STATISTICS]
        along = jax.tree.map(lambda *of: scale * sum(of), *of_parameters)
        rows += [moved, along, *speeds.values(), rest]
    norms = [jnp.stack([norm(f) for f in row.values()], -1) for row in rows]
    return jnp.stack([distances(singularity, features[1]), *norms])


def _feature(layer, feature_fn, variables, _, x) -> Float[Array, "batch dim"]:
    return of_layer(pool(features_of(feature_fn, variables, x), "flatten"), layer)
