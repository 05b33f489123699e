"""What an error tells the caller to pass, and what a docstring says, is there.

`ADVICE` knows from which functions a message with an argument is seen; a new argument
in a message wants a row, and every function in the row must have it.
"""

import ast
import dataclasses
import importlib
import inspect
import re
from collections import OrderedDict
from pathlib import Path

import flax.linen as nn
import numpy as np
import pytest

from analysis import (
    concentration,
    contributions,
    dynamics,
    gradients,
    kernel_regression,
    linearised,
    ntk,
    ntk_networks,
)
from fssd_jax import (
    comparison,
    ensemble,
    features,
    fssd,
    models,
    questions,
    torch_weights,
    train,
)
from fssd_jax.checks import InputError
from fssd_jax.data import crops, folders, imagenet_c, pipeline, records
from fssd_jax.detectors import displacement, knn, mahalanobis, odin
from fssd_jax.detectors import fssd as fssd_detector


def torch_load(path, map_location=None, weights_only=True):
    """As of PyTorch, which need not be here."""


ROOT = Path(__file__).parents[1]
FILES = [*(ROOT / "fssd_jax").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]
FILES.remove(ROOT / "analysis" / "pages.py")  # its strings are HTML, with attributes

SCORED = [
    *(pipeline.map_batches, pipeline.batches, questions.look),
    *(comparison.compare, fssd.estimate_singularity, train.accuracy),
    *(fssd_detector.fit, mahalanobis.fit, mahalanobis.estimate_gaussians, knn.fit),
    *(displacement.fit, odin.fit),
    *(dynamics.Recorder, concentration.concentration, concentration.each),
]
# Argument that a message names → the functions that the message is seen from, or that
# it names.
ADVICE = {
    "direct": [ntk.tangent_kernel],
    "unit_range": SCORED,
    "ood": [fssd_detector.fit],
    "epsilons": [fssd_detector.fit, mahalanobis.fit, odin.fit],
    "ridge": [mahalanobis.estimate_gaussians],
    "features": [OrderedDict],
    "output": [features.make_logit_fn, features.make_stochastic_logit_fn],
    "train": [features.make_feature_fn],  # of the network, by **call_kwargs
    "weights_only": [torch_load],
    "folder": [train.train],
    "part": [torch_weights.load],
    "batch_size": [dynamics.Recorder, gradients.descent],
    "initial": [kernel_regression.FrozenForm, train.train],
    "start": [
        *(kernel_regression.FrozenForm, kernel_regression.PathForm),
        *(contributions.Contributions, linearised.LinearisedRun),
    ],
    "layers": [features.make_feature_fn],
    "on_step": [train.train],
    "data": [dynamics.Recorder],
    "keep": [dynamics.Recorder],
    "activation": [ntk_networks.Perceptron, ntk_networks.ConvNet],
    "parametrisation": [ntk_networks.Perceptron, ntk_networks.ConvNet],
    "max_pool": [ntk_networks.ConvNet],
    "strides": [ntk_networks.ConvNet],
    "positions": [models.BiLSTM],
    "variable_axes": [nn.scan],
    "resize": [folders.load_images],
    "augment": [train.train],
    "workers": [imagenet_c.corrupt, imagenet_c.noisy, records.Records],
    "transform": [records.Records],
    "size": [crops.centre_crop, folders.image_records],
    "allow_pickle": [np.load],  # told within an error of ours
    "x": [np.savez],
    "y": [np.savez],
}
ARGUMENT = re.compile(r"(?<![\w.\-\"'{`])([a-z_]+)=(?!=)|`([a-z_]+)`")


def messages(path):
    """Strings of a source that are no docstrings."""
    tree = ast.parse(path.read_text())
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, owners) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                yield node.value


def told():
    """Argument → files with a message that names it."""
    found = {}
    for path in FILES:
        for message in messages(path):
            for named in ARGUMENT.findall(message):
                (argument,) = filter(None, named)
                found.setdefault(argument, set()).add(path.name)
    found.pop("feature_layers")  # an attribute of a model
    return found


def test_every_argument_that_a_message_names_is_known():
    unknown = {k: v for k, v in told().items() if k not in ADVICE}
    assert not unknown, "add rows to ADVICE: from which functions are they seen?"
    assert set(ADVICE) <= set(told()), "rows that no message needs any more"


def takes(function, argument):
    if function is OrderedDict:  # which has no signature
        return True
    parameters = inspect.signature(function).parameters
    kinds = {p.kind for p in parameters.values()}
    return argument in parameters or inspect.Parameter.VAR_KEYWORD in kinds


@pytest.mark.parametrize("argument", ADVICE)
def test_who_is_told_to_pass_an_argument_can(argument):
    for function in ADVICE[argument]:
        assert takes(function, argument), f"{function} has no {argument}"


# ---- the range of images: told from wherever they are checked -----------------------

DOORS = {"checks.images", "batches", "map_batches", "scored_batches"}
# These pass no `unit_range` on, and are provoked below; `Recorder` does, among others.
# `read` is that of array_files, which `load_images` calls.
PENDING = {"feed", "read", "Recorder"}


def reaches(function, doors):
    """Whether it passes images to one of these and leaves the range to its default."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "partial":
                called = ast.unparse(node.args[0])
            if called in doors and "unit_range" not in [k.arg for k in node.keywords]:
                return True
    return False


def test_nobody_hides_the_range_of_images():
    """Who checks images takes `unit_range`, or says which range."""
    hiding = set()
    for path in FILES:
        functions = {
            node.name: node
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        doors, before = DOORS, None
        while doors != before:  # a module's private functions pass it on
            before = doors
            found = {name for name, node in functions.items() if reaches(node, doors)}
            doors = doors | {name for name in found if name.startswith("_")}
        hiding |= found - doors
    assert hiding <= PENDING


def provoked(function, call):
    with pytest.raises(InputError) as raised:
        call()
    return "unit_range" not in str(raised.value) or takes(function, "unit_range")


def test_training_on_images_out_of_range():
    x, y = np.full((4, 8, 8, 1), 200, np.float32), np.arange(4)
    settings = {"num_classes": 4, "seed": 0, "epochs": 1, "progress": False}
    assert provoked(train.train, lambda: train.train(models.MLP(), x, y, **settings))


def test_loading_images_out_of_range(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, x=np.full((4, 8, 8, 1), 200, np.float32))
    load = folders.load_images
    assert provoked(load, lambda: load(path, size=8, channels=1))


# ---- advice that is followed --------------------------------------------------------


def test_layers_that_are_told_to_be_left_out_can_be():
    """Where a layer is dead, at each place that says so."""
    model = Half()
    x = np.random.default_rng(0).uniform(size=(24, 2, 2, 1)).astype(np.float32)
    y = np.arange(24) % 2
    variables = {}
    both, alive = (
        features.make_feature_fn(model, layers=layers)
        for layers in (["dead", "alive"], ["alive"])
    )
    calls = [
        lambda f: fssd_detector.fit(f, variables, x),
        lambda f: mahalanobis.estimate_gaussians(f, variables, x, y, 2),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"make_feature_fn\(model, layers="):
            call(both)
        assert call(alive)
    d = np.stack([np.ones(24), np.arange(24)], 1)
    with pytest.raises(InputError, match=r"make_feature_fn\(model, layers="):
        ensemble.standardise(d, ["dead", "alive"])


class Half(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Keep(name="alive")(x)
        return Flatten(name="dead")(x)


class Keep(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x.reshape(len(x), -1)


class Flatten(nn.Module):
    @nn.compact
    def __call__(self, x):
        return 0 * x + 3


# ---- options of scripts -------------------------------------------------------------


def options(config):
    """--names of a script."""
    found = set()
    for field in dataclasses.fields(config):
        told = getattr(field.type, "__metadata__", ())
        name = next((arg.name for arg in told if getattr(arg, "name", None)), None)
        found.add(f"--{(name or field.name).replace('_', '-')}")
    return found


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("[!_]*.py")), ids=lambda path: path.stem
)
def test_options_that_a_script_names_are_its_own(path):
    script = importlib.import_module(f"experiments.{path.stem}")
    own = options(script.Config)
    assert "--out" in own  # which messages of the harness name
    for message in messages(path):
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", message):
            assert option in own, f"{path.name}: {message}"


# ---- docstrings ---------------------------------------------------------------------

# What they are is the same everywhere.
OBVIOUS = {
    *("feature_fn", "variables", "state", "layer", "x", "name"),
    *("batch_size", "unit_range", "progress"),
}


def documented():
    """(where, names in the `Args:` section, names of the signature, docstring)."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            docstring = ast.get_docstring(node) or ""
            section = re.search(r"^Args:.*\n((?:  .*\n?|\n)*)", docstring, re.MULTILINE)
            if not section:
                continue
            rows = re.findall(r"^  (\*{0,2}\w+(?:, \w+)*):", section[1], re.MULTILINE)
            names = [n.strip("* ") for row in rows for n in row.split(",")]
            yield f"{path.name}: {node.name}", names, parameters(node), docstring


def parameters(node):
    if isinstance(node, ast.ClassDef):
        inits = [n for n in node.body if getattr(n, "name", "") == "__init__"]
        if not inits:
            return [n.target.id for n in node.body if isinstance(n, ast.AnnAssign)]
        (node,) = inits
    args = node.args
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    return [a.arg for a in every if a is not None and a.arg != "self"]


def test_what_args_sections_name_are_the_parameters():
    found = list(documented())
    assert len(found) > 60
    for where, names, signature, docstring in found:
        assert set(names) <= set(signature), where
        order = [n for n in signature if n in names]
        assert names == order, f"{where}: in another order"
        for name in set(signature) - set(names) - OBVIOUS:
            elsewhere = re.search(rf"`[^`]*\b{name}\b[^`]*`", docstring)
            as_in = re.search(r"^Args: as in `", docstring, re.MULTILINE)
            assert elsewhere or as_in, f"{where}: {name} is not documented"
