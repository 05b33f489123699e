"""The last layer of a setting's network, if it is linear, found once."""

from collections import deque
from typing import Any, NamedTuple

from fssd_jax import head
from fssd_jax.checks import InputError
from fssd_jax.head import Head

LOOKED = 64  # images


class Found(NamedTuple):
    head: Head | None
    why: str  # there is none


_FOUND: deque = deque(maxlen=2)  # of the trained network and of the untrained


def head_of(feature_fn, logit_fn, variables, x: Any, batch_size: int) -> Found:
    """Args as of `head.find`; `logit_fn` may be None."""
    inputs = feature_fn, logit_fn, variables
    for known, found in _FOUND:
        if all(a is b for a, b in zip(known, inputs, strict=True)):
            return found
    if logit_fn is None:
        return Found(None, "there are no logits")
    try:
        last = head.find(*inputs, x[:LOOKED], batch_size=batch_size)
        found = Found(last, "")
    except InputError as error:
        found = Found(None, str(error).partition(";")[0])
    _FOUND.append((inputs, found))
    return found
