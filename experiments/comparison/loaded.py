"""A trained network that somebody brought: weights of PyTorch's, or our training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fssd_jax import checkpoint, checks, torch_weights
from fssd_jax.data.image_files import located
from fssd_jax.outputs import Variables
from fssd_jax.torch_formats import fields_of

SHOWN = 3  # arrays that differ


class Network(NamedTuple):
    model: Any
    variables: Variables
    layers: list[str]  # of FSSD
    initial: Variables | None  # before training, if that is known


def load_network(
    weights: Path,
    name: str,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    part: str | None,
    dtype: str,
    layers: Sequence[str] | None,
) -> Network:
    """A PyTorch state dict, or the folder of a training of ours.

    Args: as of `torch_weights.load`.
    """
    if name == "lenet" and dtype != "float32":
        raise checks.InputError("--dtype: LeNet computes in float32 only")
    options = {} if name == "lenet" else {"dtype": jnp.dtype(dtype)}
    weights, initial = located(weights), None
    if weights.is_dir():
        if part is not None:
            raise checks.InputError(f"--part: {weights} is a training, without parts")
        torch_weights.check_normalisation(mean, std)
        variables, initial = checkpoint.trained(weights)
        _check_recorded(weights, mean=mean, std=std)
        model = _model_of(weights, name, variables, mean=mean, std=std, **options)
    else:
        model, variables = torch_weights.load(
            weights, name, mean=mean, std=std, part=part, **options
        )
    return Network(model, variables, list(layers or model.feature_layers), initial)


def _model_of(folder: Path, name: str, variables: Variables, **options: Any):
    """The network whose variables these are, which tell what they can of it."""
    format = torch_weights.FORMATS[name]
    model = format.build(**fields_of(format, variables), **options)
    one = jnp.zeros((1, format.side, format.side, len(model.mean)))
    expected = _shapes(jax.eval_shape(model.init, jax.random.key(0), one))
    found = _shapes(variables)
    differ = sorted(k for k in expected | found if expected.get(k) != found.get(k))
    if differ:
        told = [f"{k} {found.get(k)}, not {expected.get(k)}" for k in differ[:SHOWN]]
        raise checks.InputError(
            f"{folder} does not hold a {name} for {len(model.mean)} channels: "
            f"{len(differ)} arrays differ: {'; '.join(told)}; choose the --model that "
            "was trained, and its --mean and --std"
        )
    return model


def _check_recorded(folder: Path, **given: Sequence[float]) -> None:
    """Raise `InputError` where the training was with another normalisation."""
    recorded = checkpoint.recorded(folder)
    for name, values in given.items():
        known = recorded.get(name, values)
        if len(known) != len(values) or not np.allclose(known, values, atol=1e-3):
            raise checks.InputError(
                f"--{name} {' '.join(map(str, values))}: {folder} was trained with "
                f"{' '.join(map(str, known))}; give that"
            )


def _shapes(variables: Variables) -> dict[str, list[int]]:
    leaves = jax.tree.leaves_with_path(variables)
    named = (
        (jax.tree_util.keystr(k, simple=True, separator="/"), a) for k, a in leaves
    )
    return {name: list(jnp.shape(a)) for name, a in named}
