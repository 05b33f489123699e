"""Weights of PyTorch networks, for the Flax networks of `fssd_jax.models`.

    model, variables = load(
        "resnet34.pth", "cifar_resnet34",
        mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010),
    )

A network is looked for in the file by its names, below whatever dicts and wrappers it
stands. There every entry must be used, and every weight of the network be found: a
state dict that fits only partly is an error that lists what does not.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from fssd_jax.checks import InputError
from fssd_jax.outputs import Variables
from fssd_jax.torch_files import SHOWN, read
from fssd_jax.torch_formats import FORMATS, KINDS, Entry, Format, wanted

# Parts that wrappers put into names, before all of them or in between: DataParallel,
# torch.compile, FSDP, activation checkpoints.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
LONGEST = 12  # parts of a network's names, with wrappers in between
# What says of a part that its weights are a mean of the network's.
AVERAGE = re.compile(r"(?i)(^|[._])(ema|swa|avg|averaged?|shadow)([._]|$)")
# Beside a network, what is no layer that reads it.
LOSS = re.compile(r"(?i)loss|criterion|optim")
LAST = ("logits", "kernel")


def load(
    path: str | Path,
    model: str,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    part: str | None = None,
    **options: Any,
) -> tuple[nn.Module, Variables]:
    """A Flax network with the weights of a PyTorch state dict.

    The number of classes and the width are those of the file. A warning tells what else
    the file holds: an optimiser's state, a loss's weights, averaged weights.

    Args:
      path: what `torch.save` or safetensors wrote, whatever its ending. The former is
        read with `weights_only=True`, and only where PyTorch is installed. The state
        dict may stand in dicts ("state_dict", "model", …), and its names behind those
        of wrappers ("module.", "_orig_mod.", "model.", …), in any order.
      model: "lenet" (as released); "cifar_resnet18", 34, 50, 101, 152
        (github.com/kuangliu/pytorch-cifar, the released code, OpenOOD);
        "cifar_resnet20", 32, 44, 56, 110 (He et al.; their shortcuts with weights or
        padded by zeros, as the file has them); "wrn28_10", "wrn40_2" (Outlier Exposure,
        OpenOOD); "resnet18", 34, 50, 101, 152, "wide_resnet50_2", "wide_resnet101_2",
        "resnext50" (or "resnext50_32x4d"), "resnext101_32x8d", "resnext101_64x4d"
        (torchvision, timm); "face_resnext50" (the released one). "cifar_resnet", "wrn"
        and "resnet": such a one of any depth and sort of block, as the file has it.
      mean: by which the images were normalised when the network was trained, for each
        channel, of images in [0, 1]. Nothing in the file tells.
      std: likewise.
      part: keys to the network in the file, joined by dots, if it holds several:
        "state_dict_ema". By default the one that is there; of a network and its
        averaged weights (EMA, SWA) the former.
      **options: other fields of the Flax model, such as `dtype`.

    Returns:
      The model and its variables, float32.

    Raises:
      InputError: no such file or model; entries that are missing, surplus or of
        another shape, all listed; several networks; weights that are not finite.
    """
    if model not in FORMATS:
        raise InputError(f"unknown model {model!r}; choose from {sorted(FORMATS)}")
    check_normalisation(mean, std)
    format, state = FORMATS[model], read(path)
    found = _find(path, format, state, part)
    options = {"mean": tuple(mean), "std": tuple(std), **options}
    network, entries = _build(format, found, options)
    wrong = _wrong(found, entries)
    if wrong:
        hint = _hint(model, state, found, options)
        wrong |= {"beside it": set(_parts(found.beside, found.prefix))}
        lines = "\n  ".join(_listed(k, names) for k, names in wrong.items() if names)
        raise InputError(f"{path} does not fit {model}{hint}\n  {lines}")
    if part is None:
        _check_beside(path, found, entries)
        _tell_beside(path, found)
    leaves = {}
    for key, entry in entries.items():
        array = found.state[entry.name]
        if not np.isfinite(array).all():
            raise InputError(f"{path}: {entry.name} holds NaN or infinite values")
        leaves[key] = jax.device_put(entry.convert(array), may_alias=False)
    return network, unflatten_dict(leaves)


def check_normalisation(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise `InputError` unless they are of pixels in [0, 1]."""
    if not all(0 <= m <= 1 for m in mean) or not all(0 < s <= 1 for s in std):
        raise InputError(
            f"mean {mean} and std {std}: expected those of pixels in [0, 1]; constants "
            "for 0 to 255 are to be divided by 255"
        )


class Found(NamedTuple):
    prefix: str  # of the network's names in the file, "" or with a dot at its end
    state: dict[str, np.ndarray]  # by the format's names
    original: dict[str, str]  # format's name → the file's, behind the prefix
    beside: dict[str, np.ndarray]  # what else the file holds, by its whole names
    others: list[str]  # prefixes of networks that were not taken


def _find(path, format: Format, state: Mapping, part: str | None) -> Found:
    """The network in a file that may hold more.

    Raises:
      InputError: there are several, or no such part.
    """
    prefixes = _prefixes(format, state)
    if part is not None:
        part = f"{part.rstrip('.')}." if part else ""
        prefixes = [p for p in prefixes if p.startswith(part)] or [part]
        if not any(name.startswith(part) for name in state):
            raise InputError(
                f"{path}: has no part {part[:-1]!r}, but {_parts(state, '')}"
            )
    plain = [p for p in prefixes if not AVERAGE.search(p)] or prefixes
    # What stands within a network is a part of it, and surplus.
    plain = [p for p in plain if not any(p != q and p.startswith(q) for q in plain)]
    if len(plain) > 1:
        names = ", ".join(repr(p[:-1]) for p in plain[:SHOWN])
        raise InputError(
            f"{path}: holds {len(plain)} networks, {names}; choose one by part="
        )
    prefix = plain[0] if plain else ""
    return _behind(format, state, prefix, [p for p in prefixes if p != prefix])


def _behind(format: Format, state: Mapping, prefix: str, others=()) -> Found:
    """The names that stand behind a prefix, as the format calls them."""
    behind = {
        name.removeprefix(prefix): name for name in state if name.startswith(prefix)
    }
    original: dict[str, str] = {}
    for name in behind:
        ours = _ours(format, name)
        # Two of one name: neither can be the other's, so that one is surplus.
        taken = ours in original or (ours != name and ours in behind)
        original[name if taken else ours] = name
    return Found(
        prefix,
        {ours: state[behind[name]] for ours, name in original.items()},
        original,
        {name: a for name, a in state.items() if not name.startswith(prefix)},
        list(others),
    )


def _ours(format: Format, name: str) -> str:
    """What the format calls an entry of a file."""
    aliases = dict(format.aliases)
    parts = [aliases.get(p, p) for p in name.split(".") if p not in WRAPPERS]
    return ".".join(parts)


def _prefixes(format: Format, state: Iterable[str]) -> list[str]:
    """Before which names the most of the format's landmarks stand."""
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for i in range(max(0, len(parts) - LONGEST), len(parts)):
            # A wrapper's part before all names belongs to the prefix.
            if parts[i] in WRAPPERS:
                continue
            if _ours(format, ".".join(parts[i:])) in format.landmarks:
                counts["".join(f"{p}." for p in parts[:i])] += 1
    most = max(counts.values(), default=0)
    found = [prefix for prefix, count in counts.items() if count == most]
    # With only some of them a place is no network, but what comes nearest to one.
    return found if most == len(format.landmarks) else sorted(found, key=len)[:1]


def _build(format: Format, found: Found, options: Mapping[str, Any]):
    network = format.build(**{**format.tell(found.state), **options})
    return network, wanted(format, network)


def _wrong(found: Found, entries: Mapping[tuple, Entry]) -> dict[str, set[str]]:
    """What does not fit, by kind, by the file's names."""
    state, shapes = found.state, {e.name: e.shape for e in entries.values()}
    # BatchNorm's counters are integers, but for those of a file that was cast.
    surplus = {
        found.original[name]
        for name in state.keys() - shapes.keys()
        if not name.endswith("num_batches_tracked")
    }
    of_another = {
        f"{found.original[name]} {state[name].shape}, expected {shape}"
        for name, shape in shapes.items()
        if name in state and state[name].shape != shape
    }
    wrong = {
        "missing": shapes.keys() - state.keys(),
        "surplus": surplus,
        "of another shape": of_another,
    }
    return {kind: names for kind, names in wrong.items() if names}


def _listed(kind: str, names: set[str]) -> str:
    more = f", … and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{kind} ({len(names)}): {', '.join(sorted(names)[:SHOWN])}{more}"


def _hint(model: str, state: Mapping, found: Found, options) -> str:
    """Where the network stands, and which it is, if it is one that is known."""
    at = f" below {found.prefix[:-1]!r}" if found.prefix else ""
    sizes = {name: options[name] for name in ("mean", "std")}
    for kind in KINDS:
        format = FORMATS[kind]
        for prefix in _prefixes(format, state)[:1]:
            other = _behind(format, state, prefix)
            network, entries = _build(format, other, sizes)
            if not _wrong(other, entries):
                names = [
                    name
                    for name, own in FORMATS.items()
                    if name != kind
                    and own.renames == format.renames
                    and own.build(**{**own.tell(other.state), **sizes}) == network
                ]
                return f"{at}; its entries are those of {' or '.join(names) or kind}"
    return at


# ---- what stands beside the network --------------------------------------------------


def _check_beside(path, found: Found, entries: Mapping[tuple, Entry]) -> None:
    """Raise an `InputError` where the network's output may go on into another layer."""
    (last,) = (e.shape for key, e in entries.items() if key[1:] == LAST)
    own = {name.split(".")[0] for name in found.original.values()}
    for name, array in found.beside.items():
        if LOSS.search(name) or name.startswith(tuple(found.others)):
            continue
        first = name[len(_common(name, found.prefix)) :].split(".")[0]
        reads = name.endswith("weight") and array.ndim > 1 and array.shape[1] in last
        if first in own or reads:
            raise InputError(
                f"{path}: the network below {found.prefix[:-1]!r} is whole, but beside "
                f"it stands {name} {array.shape}, which may read its features or "
                f"logits; if it is to be left out: part={found.prefix[:-1]!r}"
            )


def _tell_beside(path, found: Found) -> None:
    """Warn of weights that are passed over."""
    if not found.beside:
        return
    other = "".join(
        f"; part={prefix[:-1]!r} would take that network" for prefix in found.others
    )
    warnings.warn(
        f"{path}: the network stands below {found.prefix[:-1]!r}; passed over: "
        f"{', '.join(_parts(found.beside, found.prefix))}{other}",
        stacklevel=3,
    )


def _common(name: str, prefix: str) -> str:
    """The parts that a name and a prefix begin with, with a dot at the end."""
    common = ""
    for part in prefix.split("."):
        if not name.startswith(f"{common}{part}."):
            break
        common += f"{part}."
    return common


def _parts(state: Iterable[str], prefix: str) -> list[str]:
    """What a file holds beside a network: by the first key that differs."""
    found: Counter[str] = Counter()
    for name in state:
        common = _common(name, prefix)
        found[common + name[len(common) :].split(".")[0]] += 1
    return [
        f"{name} ({n} {'array' if n == 1 else 'arrays'})" for name, n in found.items()
    ][:SHOWN]
