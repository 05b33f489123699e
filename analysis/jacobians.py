"""Products with the Jacobian J = ∂F/∂θ of each layer, from either side.

Together they are a product with the tangent kernel, Σ_m Θ(x, x_m) ν_m = J(x) J(X)ᵀν,
without the kernel.
"""

from collections import OrderedDict
from functools import partial
from typing import Any

import jax

from analysis.displacement import Features
from analysis.dynamics import velocity
from analysis.parameters import directed, of_layer, parameters, with_parameters
from fssd_jax.compiled import compiled
from fssd_jax.outputs import FeatureFn, Variables, features_of

Pulled = OrderedDict[str, Any]  # layer → a tree like the parameters


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
        feature = partial(_feature, feature_fn, variables, x, layer)
        (pulled[layer],) = jax.vjp(feature, parameters(variables))[1](weights)
    return pulled


@compiled(static=1)
def push(feature_fn: FeatureFn, variables: Variables, u: Pulled, x) -> Features:
    """J(x) u of each layer, flattened: with u = `pull(…)`, Σ_m Θ(x, x_m) ν_m."""
    # Under `jit`, of one layer's product nothing above that layer is computed.
    return OrderedDict(
        (k, velocity(feature_fn, variables, directed(variables, of), x)[k])
        for k, of in u.items()
    )


def _feature(feature_fn, variables, x, layer, params):
    found = features_of(feature_fn, with_parameters(variables, params), x)
    return of_layer(found, layer)
