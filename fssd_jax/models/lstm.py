"""The bidirectional LSTM for the genome benchmark: 32 million parameters."""

from functools import partial
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from fssd_jax.checks import InputError


class Position(nn.Module):
    """One position of a sequence: a module, so that what it returns is a layer."""

    index: int

    def __call__(
        self, x: Float[Array, "batch length dim"]
    ) -> Float[Array, "batch dim"]:
        return x[:, self.index]


class BiLSTM(nn.Module):
    """Embedding, bidirectional LSTM of two layers, logits of its last state.

    Takes sequences of one-hot symbols, as floats, so that they have a gradient, or of
    ids, 0 to `symbols` − 1, as integers, which have none (of DNA: Ren et al. 2019, 250
    bases of ten bacteria). The LSTM is PyTorch's
    `nn.LSTM(embedding, hidden, num_layers, dropout=dropout, bidirectional=True)` from
    state zero, with its initial weights; its two biases of a gate are one here, their
    sum.

    Its layers are the embedding and the upper LSTM's [forward, backward] states at
    `positions`, counted from 0, and at the last position. There the backward half has
    read one symbol, as in PyTorch's `output[:, -1]`.
    """

    num_classes: int = 10
    symbols: int = 4
    embedding: int = 4
    hidden: int = 1000  # in each direction
    num_layers: int = 2
    dropout: float = 0.1  # between LSTM layers and before the logits
    positions: tuple[int, ...] = (100, 150, 200)
    # Of the LSTM's matrix products and gates. Its weights and states, and so all
    # layers and the logits, are float32 in any case.
    dtype: DTypeLike = jnp.float32

    @property
    def feature_layers(self) -> tuple[str, ...]:
        return ("embedding", *(f"position{i}" for i in self.positions), "last")

    @nn.compact
    def __call__(
        self,
        x: Num[Array | np.ndarray, "batch length *symbols"],
        train: bool = False,
    ) -> Float[Array, "batch {self.num_classes}"]:
        if x.ndim == 2 and jnp.issubdtype(x.dtype, jnp.integer):
            x = jax.nn.one_hot(x, self.symbols)
        self._check(x.shape)
        dropout = partial(nn.Dropout, self.dropout, deterministic=not train)
        # N(0, 1) is how PyTorch's Embedding begins; of a one-hot x the product is one.
        states = nn.Dense(
            self.embedding,
            use_bias=False,
            kernel_init=nn.initializers.normal(1.0),
            dtype=jnp.float32,
            name="embedding",
        )(x)
        for i in range(self.num_layers):
            if i:
                states = dropout()(states)
            forward, backward = (
                self._direction(f"{way}{i + 1}") for way in ("forward", "backward")
            )
            both = nn.Bidirectional(forward, backward, name=f"lstm{i + 1}")
            states = cast(Array, both(states))
        for index in self.positions:
            Position(index, name=f"position{index}")(states)
        last = Position(-1, name="last")(states)
        return nn.Dense(self.num_classes, name="logits")(dropout()(last))

    def _direction(self, name: str) -> nn.RNN:
        uniform = partial(_uniform, bound=self.hidden**-0.5)
        cell = nn.OptimizedLSTMCell(
            self.hidden,
            kernel_init=uniform,
            recurrent_kernel_init=uniform,
            bias_init=partial(_sum_of_two, init=uniform),
            dtype=self.dtype,
            name=name,
        )
        return nn.RNN(cell)

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3 or shape[-1] != self.symbols:
            raise InputError(
                f"BiLSTM expects one-hot sequences [batch, length, {self.symbols}], or "
                f"integer tokens [batch, length], got shape {shape}; make them of such "
                f"tokens with jax.nn.one_hot(tokens, {self.symbols})"
            )
        if not all(0 <= i < shape[1] for i in self.positions) or shape[1] == 0:
            raise InputError(
                f"BiLSTM has layers at positions {self.positions}, which a sequence of "
                f"length {shape[1]} does not have; positions count from 0: take longer "
                "sequences, or BiLSTM(positions=...) within them"
            )


def _uniform(key, shape, dtype=jnp.float32, *, bound: float):
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _sum_of_two(key, shape, dtype=jnp.float32, *, init):
    return sum(init(k, shape, dtype) for k in jax.random.split(key))
