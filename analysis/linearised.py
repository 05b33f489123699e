"""The network that is linear in its parameters: what a kernel that stays would do.

    F_lin(x; θ) = F_τ(x) + J_τ(x) (θ − θ_τ)

for every layer F, the logits too, by one Jacobian-vector product. Trained by its own
gradients it is kernel regression with Θ_τ: under gradient descent on the squared loss,
with n images X and targets Y,

    f_t(x) − f_0(x) = Θ(x, X) Θ⁻¹ (I − (I − ηΘ/n)^t) (Y − f_0(X)),   Θ = Θ_τ(X, X)

Lee et al. (2019, arXiv:1902.06720), at τ = 0; Fort et al. (2020, arXiv:2010.15110), who
linearise after some training. The frozen form (`analysis.kernel_regression`) is another
thing: there the network's own loss gradients meet the kernel Θ_τ.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from analysis.displacement import displacement, relative_errors
from analysis.forward import jvp
from analysis.parameters import logit_fn_of, one_array, parameters, with_parameters
from analysis.steps import Followed
from fssd_jax import checks, losses
from fssd_jax.checks import as_input
from fssd_jax.compiled import compiled
from fssd_jax.devices import apart
from fssd_jax.features import make_feature_fn
from fssd_jax.outputs import FeatureFn, LogitFn, Variables
from fssd_jax.shown import brief

START = "start"  # the collection of the variables at which the network is linearised


class Linearised(NamedTuple):
    """A network like others, that all functions take which take a network.

    Its variables are {"params": θ, "start": the network's variables at θ_τ}: what is
    linearised elsewhere is the same function with other variables.
    """

    feature_fn: FeatureFn  # the layers of the network's feature_fn
    logit_fn: LogitFn
    variables: Variables  # at θ = θ_τ
    model: nn.Module  # for `fssd_jax.train.train(model, ..., initial=variables)`

    __repr__ = brief


def linearise(
    model: nn.Module | Callable,
    variables: Variables,
    feature_fn: FeatureFn | None = None,
) -> Linearised:
    """The network linearised at these variables, as it evaluates: without dropout.

    BatchNorm's statistics are constants, those of `variables`.

    Args:
      model: a Linen module, or `(variables, x) -> logits`.
      variables: its variables at θ_τ; the parameters are those of
        `analysis.parameters.parameters`.
      feature_fn: the layers; by default `make_feature_fn(model)`.

    Raises:
      InputError: no Linen module, and no feature_fn.
    """
    feature_fn = _layers(model, feature_fn)
    logits = logit_fn_of(model)
    logit_fn = _linearised(lambda variables, x: one_array(logits(variables, x)))
    whole = linearised_at(variables)
    return Linearised(_linearised(feature_fn), logit_fn, whole, _Linen(logit_fn))


def _layers(model: nn.Module | Callable, feature_fn: FeatureFn | None) -> FeatureFn:
    if feature_fn is not None:
        return feature_fn
    if not isinstance(model, nn.Module):
        raise checks.InputError(
            f"linearise: a {type(model).__name__} is no flax.linen.Module, so that "
            "its layers are not known; give its feature_fn, too"
        )
    return make_feature_fn(model)


def linearised_at(variables: Variables) -> Variables:
    """Variables of a linearised network at θ = θ_τ, from the network's own there."""
    # Copied, because a step that donates its parameters would take the start along.
    params = jax.tree.map(jnp.copy, parameters(variables))
    return {"params": params, START: variables}


def _linearised(function: Callable) -> Callable:
    """F_τ(x) + J_τ(x) (θ − θ_τ) of one `(variables, x) -> arrays`."""

    def linear(variables: Variables, x: Any) -> Any:
        # It does not move, and so no derivative goes through it.
        start = jax.lax.stop_gradient(variables[START])
        at = parameters(start)
        change = jax.tree.map(jnp.subtract, variables["params"], at)
        of = lambda params: function(with_parameters(start, params), x)  # noqa: E731
        return jax.tree.map(jnp.add, *jvp(of, at, change))

    return linear


class _Linen(nn.Module):
    """A function of variables in a module's place."""

    logit_fn: Callable

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Array:
        del train
        if START not in self.variables:
            raise checks.InputError(
                "a linearised network begins at the weights where it is linearised: "
                "give initial=linearise(model, variables).variables"
            )
        return self.logit_fn(self.variables, x)


def largest_rate(
    model: nn.Module | Callable, variables: Variables, x: Any, *, steps: int = 100
) -> float:
    """2/λ, the learning rate above which the linearised network's dynamics diverge.

    λ is the largest eigenvalue of Θ(X, X)/n of the logits, by which each step of full
    batches on the squared loss ½‖f − Y‖²/n multiplies what is left of the error: by
    1 − ηλ. It is found by power iteration, v → J Jᵀv, without the kernel.

    Args:
      model: see `linearise`.
      x: the n training images; they pass the network at once.
      steps: of the iteration. λ is from below, so that the rate is from above.
    """
    logits, x = logit_fn_of(model), as_input(x)
    return float(2 / _largest(logits, steps, variables, x))


@compiled(static=2)
def _largest(logits, steps, variables, x):
    def of(params):
        return one_array(logits(with_parameters(variables, params), x))

    def step(v, _):
        (pulled,) = pull(v)
        found = jvp(of, at, pulled)[1] / len(x)
        length = jnp.linalg.norm(found)
        return found / length, length

    at = parameters(variables)
    value, pull = jax.vjp(of, at)
    first = jax.random.normal(jax.random.key(0), value.shape, value.dtype)
    return jax.lax.scan(step, first / jnp.linalg.norm(first), length=steps)[1][-1]


class LinearisedRun:
    """Trains the linearised network beside a run: each of its steps takes the batch.

    Called after each step of the run, as by `train(..., on_step=...)`, it linearises
    the network before step `start`, and from then on the two see the same batches.
    `network` is the linearised one as it is after the last step.

    Args:
      model: see `linearise`; so is `feature_fn`.
      optimiser: of the linearised network, such as that of the run: it begins afresh.
      loss: `(logits, y) -> scalar`, of a batch.
      start: τ, the step before which the network is linearised.
    """

    def __init__(
        self,
        model: nn.Module | Callable,
        optimiser: optax.GradientTransformation,
        loss: Callable = losses.cross_entropy,
        *,
        feature_fn: FeatureFn | None = None,
        start: int = 0,
    ):
        self._feature_fn, self._after = _layers(model, feature_fn), {}
        self._linearise = partial(linearise, model, feature_fn=self._feature_fn)
        self._optimiser, self._loss = optimiser, loss
        self._followed, self._opt_state = Followed(start), None
        self._network: Any = None

    @apart
    def __call__(self, step: int, before: Variables, after: Variables, x, y) -> None:
        if not self._followed.takes(step):
            return
        self._after = after
        if step == self._followed.start:
            jax.eval_shape(self._feature_fn, before, x)  # or a whole run would be lost
            self._network = self._linearise(before)
            params = self._network.variables["params"]
            self._opt_state = self._optimiser.init(params)
        functions = self._network.logit_fn, self._optimiser.update, self._loss
        state = self._network.variables, self._opt_state
        variables, self._opt_state = _step(*functions, *state, x, y)
        self._network = self._network._replace(variables=variables)

    @property
    @apart
    def network(self) -> Linearised:
        """As trained so far.

        Raises:
          InputError: no step was followed yet.
          DivergedError: its weights are not finite.
        """
        self._followed.check()
        params = self._network.variables["params"]
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
            raise checks.DivergedError(
                "the weights of the linearised network are not finite: its kernel "
                "stays, where the network's may have fallen; lower the learning rate"
            )
        return self._network

    @apart
    def error(self, x, batch_size: int = 64) -> OrderedDict[str, float]:
        """layer → ‖F_lin(x) − F_T(x)‖/‖F_T(x) − F_τ(x)‖ over these points."""
        linear, variables = self.network.feature_fn, self.network.variables
        start = variables[START]
        found = displacement(linear, linearised_at(start), variables, x, batch_size)
        ends = start, self._after
        return relative_errors(
            found, displacement(self._feature_fn, *ends, x, batch_size)
        )


@compiled(static=3)
def _step(logit_fn, update, loss, variables, opt_state, x, y):
    def loss_fn(params):
        return loss(logit_fn({**variables, "params": params}, x), y)

    params = variables["params"]
    updates, opt_state = update(jax.grad(loss_fn)(params), opt_state, params)
    return {**variables, "params": optax.apply_updates(params, updates)}, opt_state
