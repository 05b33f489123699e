"""Eq. (4) of Huang et al. (2021): is FSSD a kernel regression? No kernel is formed.

    F_T(x) − F_0(x) = −Σ_m ∫₀ᵀ Θ_t(x, x_m) ∂_mL dt      path form (exact)
                    ≈ −Σ_m Θ_0(x, x_m) ν_m,  ν_m = ∫ ∂_mL dt      frozen form

Path form: what one step adds is the integral of ∂F/∂θ · Δθ along the step, a Jacobian-
vector product at each node of a quadrature. That it is exact is the fundamental theorem
of calculus, of any path of the parameters and any smooth F: a test of this code, and no
evidence that training is a kernel regression. Domingos (2020, arXiv:2012.00152) writes
gradient flow's output so, as Σ_m a_m K(x, x_m) + F_0(x) with the kernel averaged along
the path, but a_m depends on x, too; Bell et al. (2023, arXiv:2308.00824) make it exact
for finite steps, with the test point's gradient taken along each step and the training
points' at its start. In neither is there one kernel that is known before the labels
are, and neither says which inputs move far, or that a fixed kernel would move them so:
the frozen form does, and the linearised network (`analysis.linearised`), and may fail.

Frozen form: u = Σ_t η J_0(X_B)ᵀ ∂L_B is summed up during training, and then
−Σ_m Θ_0(x, x_m) ν_m = −J_0(x) u. Time is linear in training steps and test points, and
memory is that of the parameters, once for each layer. It is for layers through which
all of the loss passes, as Eq. (2) supposes (`analysis.bottleneck`); elsewhere ∂L/∂θ is
not J(X)ᵀ∂L, and u is the sum of η ∂L/∂θ itself, which is θ_0 − θ_T.

Both follow a training run from its first step, or from step `start`: `train(...,
on_step=form)`, or a call after each step of a loop of yours, whose step must not donate
the variables before it.
"""

from collections import OrderedDict
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from analysis.bottleneck import GradientFn, Program
from analysis.displacement import (
    Features,
    displacement,
    joined,
    moved,
    relative_errors,
)
from analysis.dynamics import velocity
from analysis.jacobians import Pulled, pull, push
from analysis.parameters import (
    difference,
    directed,
    logit_fn_of,
    one_array,
    parameters,
    wide,
    with_parameters,
    zeros,
)
from analysis.steps import (
    TOLERANCE,
    Followed,
    check_initial,
    check_sgd,
    sgd_error,
    size,
)
from fssd_jax import losses
from fssd_jax.compiled import compiled
from fssd_jax.data.pipeline import batches
from fssd_jax.devices import apart
from fssd_jax.outputs import FeatureFn, Variables, features_of

# The forms that a layer may have in `FrozenForm`.
BOTTLENECK, PARAMETER_GRADIENT = "bottleneck", "parameter gradient"


class PathForm:
    """Accumulates Σ_t ∫₀¹ J(θ_t + sΔθ_t)(x) Δθ_t ds for the points x.

    For any optimiser, and with BatchNorm statistics, which move along. `value()` then
    equals F_T(x) − F_0(x), as calculus has it: with `nodes=0`, the kernel at the start
    of each step, up to an error that shrinks with the step; with a Gauss–Legendre
    quadrature up to rounding, if the network is smooth along the step. (Across the
    kinks of relu a quadrature converges slowly, and along a long step any.) `error()`
    tells how far it is off; for that the first and the last variables are kept.

    Args:
      feature_fn: the layers to follow, without dropout.
      x: points [n, ...].
      nodes: of the quadrature, each one Jacobian-vector product; 0: the step's start.
      batch_size: points per compiled call.
      start: τ, the step to begin with: earlier ones are ignored, and `value()` then
        equals F_T(x) − F_τ(x).
    """

    @apart
    def __init__(
        self, feature_fn: FeatureFn, x, *, nodes: int = 0, batch_size=64, start: int = 0
    ):
        self._feature_fn = feature_fn
        points = batches(x, batch_size, "points", unit_range=False)
        self._batches = [(jax.device_get(part), mask) for part, mask, _ in points]
        self._totals: list[Features | None] = [None] * len(self._batches)
        self._followed = Followed(start)
        self._ends = {}, {}  # variables before these steps, and after them
        self._rule = ((0.0, 1.0),)
        if nodes:
            at, weight = np.polynomial.legendre.leggauss(nodes)
            on_unit = np.stack([(at + 1) / 2, weight / 2], axis=1)
            self._rule = tuple(map(tuple, on_unit.tolist()))

    @apart
    def __call__(self, step: int, before: Variables, after: Variables, *_) -> None:
        if not self._followed.takes(step):
            return
        first = step == self._followed.start
        self._ends = before if first else self._ends[0], after
        for i, (x, _) in enumerate(self._batches):
            self._totals[i] = _add_step(
                self._feature_fn, self._rule, self._totals[i], before, after, x
            )

    @apart
    def value(self) -> OrderedDict[str, np.ndarray]:
        """The path form of every layer [n, dim]."""
        self._followed.check()
        return joined(self._totals, [mask for _, mask in self._batches])

    @apart
    def error(self) -> OrderedDict[str, float]:
        """layer → ‖path form − Δ‖/‖Δ‖ over all points, Δ = F_T(x) − F_0(x) of the run.

        More `nodes` make it less.
        """
        found = self.value()
        parts = [moved(self._feature_fn, *self._ends, x) for x, _ in self._batches]
        return relative_errors(found, joined(parts, [m for _, m in self._batches]))


@compiled(static=2, donate=(2,))
def _add_step(feature_fn, rule, total, before, after, x) -> Features:
    change = difference(after, before)
    for at, weight in rule:
        there = jax.tree.map(
            lambda v, d, s=at: v + s * d if jnp.issubdtype(v.dtype, jnp.inexact) else v,
            *(before, change),
        )
        part = velocity(feature_fn, there, change, x)
        part = jax.tree.map(lambda f, w=weight: w * f.astype(wide(f)), part)
        total = part if total is None else jax.tree.map(jnp.add, total, part)
    return total


def make_gradient_fn(
    model: nn.Module | Callable,
    feature_fn: FeatureFn,
    loss: Callable | None = losses.cross_entropy,
) -> GradientFn:
    """The gradient of a batch's mean loss by the parameters and by each feature.

    Args:
      model: a Linen module, called as in scoring, without dropout; or
        `(variables, x) -> logits`, as of NNX. Parameters are `variables["params"]`, or
        all of `variables` if there is no such entry.
      feature_fn: the layers, such as `fssd_jax.make_feature_fn(model, layers)`; a layer
        is found in the loss if both compute it by the same operations.
      loss: `(logits, y) -> scalar`, the one trained with; None if `model` is itself
        `(variables, x, y) -> scalar`.

    Raises (what is returned, when first called):
      InputError: the loss is not one number.
    """
    logit_fn = logit_fn_of(model)

    def loss_fn(variables, x, y):
        if loss is None:
            return logit_fn(variables, x, y)
        return loss(one_array(logit_fn(variables, x)), y)

    return GradientFn(loss_fn, feature_fn)


class FrozenForm:
    """−Σ_m Θ_0(x, x_m) ν_m of each layer, or as near to it as the layer allows.

    `forms`, known after the first step, maps each layer to
      "bottleneck"           −J_0(x) Σ_t η J_0(X_B)ᵀ ∂L_B, Eq. (4): all of the loss
                             passes through the layer, and J_0(X_B)ᵀ ∂L_B was ∇L at
                             the first step, as Eq. (2) says;
      "parameter gradient"   −J_0(x) Σ_t η ∇L = J_0(x) (θ_T − θ_0): the loss has other
                             ways to the layer's parameters, too.
    After one step both are the path form with the kernel of the step's start. Which a
    layer has is read off the program that computes the loss: see `analysis.bottleneck`.

    Plain SGD only: Eq. (4) has the loss gradients ∂_mL, and another optimiser, weight
    decay, dropout or moving statistics go elsewhere than along them.

    Args:
      feature_fn: the layers to follow.
      gradient_fn: see `make_gradient_fn`. Of another function that returns the like,
        the first step alone tells which layers are bottlenecks.
      initial: the variables before the first step that is followed, against which that
        step is checked; None takes them from there.
      rate: learning rate η, or `step -> η`.
      start: τ, the step to begin with: earlier ones are ignored, 0 above is τ, and
        `value()` stands for F_T(x) − F_τ(x) (Fort et al. 2020, arXiv:2010.15110).
    """

    @apart
    def __init__(
        self,
        feature_fn: FeatureFn,
        gradient_fn: GradientFn | Callable,
        initial: Variables | None,
        rate: float | Callable[[int], float],
        *,
        start: int = 0,
    ):
        self._feature_fn, self._gradient_fn = feature_fn, gradient_fn
        self._initial, self._rate = initial, rate
        self._total: Pulled = OrderedDict()
        self._through, self._after, self._followed = (), {}, Followed(start)
        self.forms: OrderedDict[str, str] = OrderedDict()

    @apart
    def __call__(self, step: int, before: Variables, after: Variables, x, y) -> None:
        if not self._followed.takes(step):
            return
        first = step == self._followed.start
        if first:
            self._initial = before if self._initial is None else self._initial
            check_initial(self._initial, before)
            self._through = self._candidates(before, x, y)
            nothing = zeros(parameters(before))
            self._total = OrderedDict(
                (k, jax.tree.map(jnp.copy, nothing)) for k in self._through
            )
        rate = float(self._rate(step) if callable(self._rate) else self._rate)
        self._total, error, gaps = _add_pullback(
            self._feature_fn,
            self._gradient_fn,
            self._through,
            self._total,
            self._initial,
            before,
            after,
            x,
            y,
            rate,
        )
        check_sgd(step, rate, error)
        if first:
            self._decide(x, gaps)
        self._after = after

    def _candidates(self, *batch) -> tuple[str, ...]:
        if isinstance(self._gradient_fn, GradientFn):
            return tuple(self._gradient_fn.bottlenecks(*batch))
        return tuple(jax.eval_shape(self._gradient_fn, *batch)[1])

    def _decide(self, x, gaps) -> None:
        """Known after the first step: where J(X)ᵀ∂L is ∇L."""
        self._through = tuple(k for k in self._through if float(gaps[k]) < TOLERANCE)
        self._total = OrderedDict((k, self._total[k]) for k in self._through)
        for layer in jax.eval_shape(self._feature_fn, self._initial, x):
            passes = layer in self._through
            self.forms[layer] = BOTTLENECK if passes else PARAMETER_GRADIENT

    @apart
    def value(self, x, batch_size: int = 64) -> OrderedDict[str, np.ndarray]:
        """The form of every layer [n, dim], see `forms`; linear in the points."""
        self._followed.check(bool(self.forms))
        parts, masks = [], []
        for part, mask, _ in batches(x, batch_size, "points", unit_range=False):
            ends = self._initial, self._after
            parts.append(_frozen(self._feature_fn, self._total, *ends, part))
            masks.append(mask)
        return joined(parts, masks)

    @apart
    def error(self, x, batch_size: int = 64) -> OrderedDict[str, float]:
        """layer → ‖value(x) − Δ‖/‖Δ‖ over these points, Δ = F_T(x) − F_0(x): how little
        of the run the kernel of its start explains."""
        found = self.value(x, batch_size)
        ends = self._initial, self._after
        return relative_errors(
            found, displacement(self._feature_fn, *ends, x, batch_size)
        )


@compiled(static=3, donate=(3,))
def _add_pullback(
    feature_fn, gradient_fn, layers, total, initial, before, after, x, y, rate
):
    """u of these layers with one batch more; how far the step is from −η∇L; and of each
    layer, which tells something at the first step, how far J_0(X)ᵀ∂L is from ∇L."""
    gradient, by_feature = gradient_fn(before, x, y)
    error = sgd_error(before, after, gradient, rate)
    nu = OrderedDict((k, by_feature[k]) for k in layers)
    pulled = pull(feature_fn, initial, nu, x)
    gaps = _gaps(feature_fn, initial, pulled, gradient, x)
    total = jax.tree.map(lambda u, g: u + rate * g, total, pulled)
    return total, error, gaps


def _gaps(feature_fn, variables, pulled, gradient, x) -> dict[str, Float[Array, ""]]:
    """layer → ‖J(X)ᵀ∂L − ∇L‖/‖∇L‖ over the parameters that the layer depends on."""

    def features(params, variables, x):
        return features_of(feature_fn, with_parameters(variables, params), x)

    program = Program(features, parameters(variables), variables, x)
    gaps, whole = {}, jax.tree.leaves(gradient)
    for layer, tree in pulled.items():
        behind = program.behind(program.outputs[layer])
        # The parameters are the first of the inputs.
        pairs = zip(program.inputs, jax.tree.leaves(tree), whole, strict=False)
        own = [(chained, true) for n, chained, true in pairs if n in behind]
        gap = size([chained - true for chained, true in own])
        gaps[layer] = jnp.where(gap > 0, gap / size([true for _, true in own]), 0)
    return gaps


@compiled(static=1)
def _frozen(feature_fn, total, initial, after, x) -> Features:
    change = difference(parameters(after), parameters(initial))
    # Under `jit`, of the layers in `total` this is not computed.
    found = velocity(feature_fn, initial, directed(initial, change), x)
    chained = push(feature_fn, initial, total, x)
    return OrderedDict(
        (k, -chained[k] if k in chained else f) for k, f in found.items()
    )
