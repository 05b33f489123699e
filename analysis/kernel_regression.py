"""Eq. (4) of Huang et al. (2021): is FSSD a kernel regression? No kernel is formed.

    F_T(x) − F_0(x) = −Σ_m ∫₀ᵀ Θ_t(x, x_m) ∂_mL dt      path form (exact)
                    ≈ −Σ_m Θ_0(x, x_m) ν_m,  ν_m = ∫ ∂_mL dt      frozen form

Path form: what one step adds is the integral of ∂F/∂θ · Δθ along the step, a Jacobian-
vector product at each node of a quadrature (Domingos 2020, arXiv:2012.00152; with the
integral along each step it is exact: Bell et al. 2023, arXiv:2308.00824).

Frozen form: u = Σ_t η J_0(X_B)ᵀ ∂L_B is summed up during training, and then
−Σ_m Θ_0(x, x_m) ν_m = −J_0(x) u. Time is linear in training steps and test points, and
memory is that of the parameters, once for each layer.

Both follow a training run from its first step: `train(..., on_step=form)`, or a call
after each step of a loop of yours, whose step must not donate the variables before it.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from analysis.displacement import Features, joined
from analysis.dynamics import velocity
from fssd_jax import checks, losses
from fssd_jax.compiled import compiled
from fssd_jax.data.pipeline import batches
from fssd_jax.outputs import FeatureFn, Variables
from fssd_jax.shown import brief

Pulled = OrderedDict[str, Any]  # layer → a tree like the parameters
TOLERANCE = 1e-3  # relative, of a step against −η∇L
LOST = 0.9  # relative, what rounding may take from a step


class PathForm:
    """Accumulates Σ_t ∫₀¹ J(θ_t + sΔθ_t)(x) Δθ_t ds for the points x.

    For any optimiser, and with BatchNorm statistics, which move along. `value()` then
    equals F_T(x) − F_0(x): with `nodes=0`, the kernel at the start of each step, up to
    an error that shrinks with the step; with a Gauss–Legendre quadrature up to
    rounding, if the network is smooth along the step. (Across the kinks of relu a
    quadrature converges slowly.)

    Args:
      feature_fn: the layers to follow, without dropout.
      x: points [n, ...].
      nodes: of the quadrature, each one Jacobian-vector product; 0: the step's start.
      batch_size: points per compiled call.
    """

    def __init__(self, feature_fn: FeatureFn, x, *, nodes: int = 0, batch_size=64):
        self._feature_fn = feature_fn
        points = batches(x, batch_size, "points", unit_range=False)
        self._batches = [(jax.device_get(part), mask) for part, mask, _ in points]
        self._totals: list[Features | None] = [None] * len(self._batches)
        self._seen = 0
        self._rule = ((0.0, 1.0),)
        if nodes:
            at, weight = np.polynomial.legendre.leggauss(nodes)
            on_unit = np.stack([(at + 1) / 2, weight / 2], axis=1)
            self._rule = tuple(map(tuple, on_unit.tolist()))

    def __call__(self, step: int, before: Variables, after: Variables, *_) -> None:
        self._seen = in_turn(step, self._seen)
        for i, (x, _) in enumerate(self._batches):
            self._totals[i] = _add_step(
                self._feature_fn, self._rule, self._totals[i], before, after, x
            )

    def value(self) -> OrderedDict[str, np.ndarray]:
        """The path form of every layer [n, dim]."""
        return joined(self._totals, [mask for _, mask in self._batches])


@compiled(static=2, donate=(2,))
def _add_step(feature_fn, rule, total, before, after, x) -> Features:
    change = jax.tree.map(jnp.subtract, after, before)
    for at, weight in rule:
        there = jax.tree.map(lambda v, d, s=at: v + s * d, before, change)
        part = velocity(feature_fn, there, change, x)
        part = jax.tree.map(lambda f, w=weight: w * f, part)
        total = part if total is None else jax.tree.map(jnp.add, total, part)
    return total


# (variables, x, y) -> (∇_θL of the batch, layer → ∂L/∂F [batch, ...]).
GradientFn = Callable[[Variables, Array, Array], tuple[Variables, Features]]


def make_gradient_fn(
    model: nn.Module, feature_fn: FeatureFn, loss: Callable = losses.cross_entropy
) -> GradientFn:
    """The gradient of a batch's mean loss by the parameters and by each feature.

    ∂_mL of Eq. (3) is the gradient by a shift of zero, added to the layer's output.

    Args:
      model: any Linen module; called as in scoring, without dropout.
      feature_fn: `fssd_jax.make_feature_fn(model, layers)`, which names the layers.
      loss: `(logits, y) -> scalar`, the one trained with.
    """

    @jax.jit
    def gradient_fn(variables, x, y):
        shapes = jax.eval_shape(feature_fn, variables, x)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def loss_fn(params, shifts):
            calls = Counter()

            def shift(call, args, kwargs, context):
                out = call(*args, **kwargs)
                if context.method_name != "__call__":
                    return out
                path = "/".join(context.module.path)
                name = f"{path}#{calls[path]}"
                calls[path] += 1
                return out + shifts.get(name, shifts.get(path, 0))

            with nn.intercept_methods(shift):
                logits = model.apply({**variables, "params": params}, x)
            return loss(logits, y)

        return jax.grad(loss_fn, argnums=(0, 1))(variables["params"], zeros)

    return gradient_fn


class FrozenForm:
    """Accumulates u_k = Σ_t η_t J_0(X_B)ᵀ ∂L_B of each layer k; `value` is −J_0(x) u.

    Plain SGD only: Eq. (4) has the loss gradients ∂_mL, and another optimiser, weight
    decay, dropout or moving statistics go elsewhere than along them.

    Args:
      feature_fn: the layers to follow.
      gradient_fn: see `make_gradient_fn`.
      initial: the variables before the first step.
      rate: learning rate η, or `step -> η`.
    """

    def __init__(
        self,
        feature_fn: FeatureFn,
        gradient_fn: GradientFn,
        initial: Variables,
        rate: float | Callable[[int], float],
    ):
        self._feature_fn, self._gradient_fn = feature_fn, gradient_fn
        self._initial, self._rate, self._total = initial, rate, None
        self._seen = 0

    def __call__(self, step: int, before: Variables, after: Variables, x, y) -> None:
        self._seen = in_turn(step, self._seen)
        rate = float(self._rate(step) if callable(self._rate) else self._rate)
        self._total, error = _add_pullback(
            self._feature_fn,
            self._gradient_fn,
            self._total,
            self._initial,
            before,
            after,
            x,
            y,
            rate,
        )
        check_sgd(step, rate, error)

    def value(self, x, batch_size: int = 64) -> OrderedDict[str, np.ndarray]:
        """−Σ_m Θ_0(x, x_m) ν_m of every layer [n, dim]; linear in the points."""
        if self._total is None:
            raise checks.InputError("no step was followed yet: train(..., on_step=...)")
        parts, masks = [], []
        for part, mask, _ in batches(x, batch_size, "points", unit_range=False):
            moved = push(self._feature_fn, self._initial, self._total, part)
            parts.append(jax.tree.map(jnp.negative, moved))
            masks.append(mask)
        return joined(parts, masks)


@compiled(static=2, donate=(2,))
def _add_pullback(feature_fn, gradient_fn, total, initial, before, after, x, y, rate):
    """u with one batch more, and how far the step is from −η∇L."""
    gradient, by_feature = gradient_fn(before, x, y)
    error = sgd_error(before, after, gradient, rate)
    added = jax.tree.map(lambda g: rate * g, pull(feature_fn, initial, by_feature, x))
    total = added if total is None else jax.tree.map(jnp.add, total, added)
    return total, error


class StepError(NamedTuple):
    """Of a step against plain SGD's, relative to ‖η∇L‖."""

    gap: Float[Array, ""]  # what plain SGD, rounded like the step, does not explain
    lost: Float[Array, ""]  # what rounding takes from plain SGD's step

    __repr__ = brief


def sgd_error(before: Variables, after: Variables, gradient, rate) -> StepError:
    """How far a step is from fl(θ − η∇L), and that from θ − η∇L itself."""
    step = {name: jax.tree.map(jnp.zeros_like, v) for name, v in before.items()}
    step["params"] = jax.tree.map(lambda g: -rate * g, gradient)
    plain = jax.tree.map(jnp.add, before, step)
    gap = _size(jax.tree.map(jnp.subtract, after, plain))
    lost = _size(jax.tree.map(lambda p, b, s: (p - b) - s, plain, before, step))
    size = _size(step)
    # At rate 0 nothing may change.
    return StepError(*(jnp.where(e > 0, e / size, 0) for e in (gap, lost)))


def check_sgd(step: int, rate: float, error: StepError) -> None:
    """Raise `InputError` if a step was not one of plain SGD, or if none could tell."""
    gap, lost = map(float, error)
    # Where the step is near the spacing of floating-point numbers, an error of the
    # gradient in its last digits sends a few parameters to the next number.
    if not gap < TOLERANCE + lost / 50:
        raise checks.InputError(
            f"step {step} is not −{rate:g}·∇L, it differs by {gap:.1%} of it: "
            "this is for plain SGD, with this learning rate, without momentum, weight "
            "decay, dropout or BatchNorm in training; PathForm is for any"
        )
    if not lost < LOST:
        raise checks.InputError(
            f"step {step}: cannot tell whether it is one of plain SGD: rounding takes "
            f"{lost:.0%} of −{rate:g}·∇L; use a larger learning rate, or "
            "JAX_ENABLE_X64 with parameters in float64; PathForm follows any step"
        )


def in_turn(step: int, seen: int) -> int:
    """The number of steps seen, with this one; `InputError` if one was left out."""
    if step != seen:
        raise checks.InputError(
            f"called for step {step} after {seen} steps: the sum goes over all steps "
            "from 0 on, so a run that was resumed, or begun before, cannot be followed"
        )
    return seen + 1


@compiled(static=1)
def pull(feature_fn: FeatureFn, variables: Variables, nu: Features, x) -> Pulled:
    """J(X)ᵀν = Σ_m (∂F(x_m)/∂θ)ᵀ ν_m of each layer: layer → a tree like the parameters.

    Args:
      feature_fn: the layers; those of `nu` are used.
      variables: where J is taken.
      nu: layer → [batch, ...], of the shape of the feature.
      x: [batch, ...].
    """
    pulled: Pulled = OrderedDict()
    for layer, weights in nu.items():
        of_layer = partial(_feature, feature_fn, variables, x, layer)
        (pulled[layer],) = jax.vjp(of_layer, variables["params"])[1](weights)
    return pulled


@compiled(static=1)
def push(feature_fn: FeatureFn, variables: Variables, u: Pulled, x) -> Features:
    """J(x) u of each layer, flattened: with u = `pull(…)`, Σ_m Θ(x, x_m) ν_m."""
    # Under `jit`, of one layer's product nothing above that layer is computed.
    return OrderedDict(
        (k, velocity(feature_fn, variables, {"params": of}, x)[k])
        for k, of in u.items()
    )


def _feature(feature_fn, variables, x, layer, params):
    return feature_fn({**variables, "params": params}, x)[layer]


def _size(tree) -> Float[Array, ""]:
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree)))
