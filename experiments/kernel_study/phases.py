"""One network, and what predicts it, trained side by side: several seeds at once.

At moments of a run of plain SGD, for every layer and point,
  network         F_t(x), and F*_t, the mean feature of noise
  frozen          F_0(x) − J_0(x) Σ η J_0(X_B)ᵀ ∂L_B, with the loss gradients ∂L_B of
                  the network itself: the second line of Eq. (4)
  linearised τ    F_τ(x) + J_τ(x)(θ − θ_τ), trained by itself on the same batches from
                  step τ on: a regression with the kernel of step τ, and nothing else
and each of them has its own F*. Beside them stands what needs no kernel:
  undone          0, of logits the mean of the targets: f_0 is undone, nothing learned
`analysis.kernel_regression` and `analysis.linearised`
do this step by step for any run; here it is one compiled program for a grid of runs.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import fssd_jax
from analysis.bottleneck import GradientFn
from analysis.jacobians import Pulled, pull, push
from analysis.kernel_regression import make_gradient_fn
from analysis.linearised import Linearised, linearise, linearised_at
from analysis.parameters import with_parameters
from experiments.kernel_study.setting import LOSSES, Data
from fssd_jax.checks import InputError
from fssd_jax.features import make_init_fn
from fssd_jax.outputs import FeatureFn, Variables, pool

UNTRAINED, NETWORK, FROZEN = "untrained", "network", "frozen"
UNDONE = "undone"
POINTS = 100  # looked at at once
Features = OrderedDict[str, jax.Array]  # layer → [point, dim]


class Run(NamedTuple):
    """What stays; arrays have a leading axis of seeds."""

    feature_fn: FeatureFn
    gradient_fn: GradientFn
    linear: Linearised  # its functions; its variables are those of the first seed
    loss: Callable
    rate: float
    through: tuple[str, ...]  # the layers that all of the loss passes through
    initial: Variables
    x: jax.Array  # [seed, n, ...]
    y: jax.Array  # [seed, n]


class State(NamedTuple):
    """What moves, with a leading axis of seeds."""

    variables: Variables
    pulled: Pulled  # Σ η J_0(X_B)ᵀ ∂L_B of each layer in `Run.through`
    linear: OrderedDict[str, Variables]  # name → of a linearised network


def named(start: int) -> str:
    """Of the network that is linearised at step `start`."""
    return f"linearised {start}"


def begin(
    model: nn.Module,
    loss: str,
    rate: float,
    starts: Sequence[int],
    seeds: Sequence[int],
    data: Sequence[Data],
) -> tuple[Run, State]:
    """Untrained networks, one for each seed and its data.

    Args:
      starts: τ of each linearised network.
    """
    feature_fn, loss_fn = fssd_jax.make_feature_fn(model), LOSSES[loss]
    gradient_fn = make_gradient_fn(model, feature_fn, loss_fn)
    init = make_init_fn(model)
    drawn = [init(jax.random.key(s), d.x[:1]) for s, d in zip(seeds, data, strict=True)]
    through = tuple(gradient_fn.bottlenecks(drawn[0], data[0].x[:2], data[0].y[:2]))
    initial = _stacked(drawn)
    x, y = (jnp.stack([getattr(d, name) for d in data]) for name in "xy")
    linear = linearise(model, drawn[0], feature_fn)
    run = Run(feature_fn, gradient_fn, linear, loss_fn, rate, through, initial, x, y)
    nothing = jax.tree.map(jnp.zeros_like, initial["params"])
    state = State(
        initial,
        OrderedDict((layer, nothing) for layer in through),
        # Before its start it takes no part, and is compiled all the same.
        OrderedDict((named(start), linearised_at(initial)) for start in starts),
    )
    return run, state


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def orders(seeds: Sequence[int], n: int, batch_size: int, steps: int) -> np.ndarray:
    """The images of every step [step, seed, batch]: epoch after epoch, shuffled."""
    batches = n // batch_size
    of_seeds = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        epochs = [
            rng.permutation(n)[: batches * batch_size] for _ in range(0, steps, batches)
        ]
        of_seeds.append(np.concatenate(epochs).reshape(-1, batch_size)[:steps])
    return np.stack(of_seeds, axis=1)


def follow(
    advance: Callable, run: Run, state: State, order: np.ndarray, moments: Sequence[int]
) -> Iterator[tuple[int, State]]:
    """The state after so many steps, at each moment.

    A linearised network begins where its start is a moment.

    Args:
      advance: see `make_advance`; of this run, or of another one of the same network.
      order: see `orders`.
      moments: in ascending order.

    Raises:
      InputError: a start that is no moment.
    """
    late = set(state.linear) - {named(moment) for moment in moments}
    if late:
        raise InputError(
            f"{sorted(late)}: their starts are none of the moments {list(moments)}"
        )
    done = 0
    for moment in moments:
        state = advance(
            state, run.initial, run.x, run.y, jnp.asarray(order), done, moment
        )
        done = moment
        if named(moment) in state.linear:
            fresh = {named(moment): linearised_at(state.variables)}
            state = state._replace(linear=OrderedDict({**state.linear, **fresh}))
        yield moment, state


def make_advance(run: Run) -> Callable:
    """`(state, initial, x, y, order, first, last) -> state`."""

    def step(i, state, initial, x, y, order):
        def of_seed(state, initial, x, y, numbers):
            return _step(run, state, initial, x[numbers], y[numbers])

        return jax.vmap(of_seed)(state, initial, x, y, order[i])

    @jax.jit
    def rolled(state, initial, x, y, order, first, last):
        one = partial(step, initial=initial, x=x, y=y, order=order)
        return jax.lax.fori_loop(first, last, one, state)

    if jax.default_backend() != "cpu":
        return rolled
    jitted = jax.jit(step)  # loops around convolutions are slow when they are rolled

    def unrolled(state, initial, x, y, order, first, last):
        for i in range(first, last):
            state = jitted(i, state, initial, x, y, order)
        return state

    return unrolled


def _step(run: Run, state: State, initial: Variables, x, y) -> State:
    """One step of plain SGD of one seed's networks."""
    gradient, by_feature = run.gradient_fn(state.variables, x, y)
    nu = OrderedDict((layer, by_feature[layer]) for layer in run.through)
    pulled = pull(run.feature_fn, initial, nu, x)

    def descended(variables, gradient):
        moved = jax.tree.map(
            lambda p, g: p - run.rate * g, variables["params"], gradient
        )
        return with_parameters(variables, moved)

    def loss(params, variables):
        return run.loss(run.linear.logit_fn({**variables, "params": params}, x), y)

    return State(
        descended(state.variables, gradient),
        jax.tree.map(lambda u, g: u + run.rate * g, state.pulled, pulled),
        OrderedDict(
            (name, descended(of, jax.grad(loss)(of["params"], of)))
            for name, of in state.linear.items()
        ),
    )


def predicted(run: Run, state: State, initial: Variables, x) -> dict[str, Features]:
    """The network's features, what each form says of them, and those before training.

    Of one seed. A layer that the loss passes by has the frozen form J_0(x)(θ_t − θ_0).
    """
    first, now = (
        pool(run.feature_fn(v, x), "flatten") for v in (initial, state.variables)
    )
    change = jax.tree.map(jnp.subtract, state.variables["params"], initial["params"])
    ways = OrderedDict(
        (layer, jax.tree.map(jnp.negative, state.pulled[layer]))
        if layer in run.through
        else (layer, change)
        for layer in first
    )
    moved = push(run.feature_fn, initial, ways, x)
    return {
        UNTRAINED: first,
        NETWORK: now,
        FROZEN: OrderedDict((k, first[k] + moved[k]) for k in first),
        **{
            name: pool(run.linear.feature_fn(of, x), "flatten")
            for name, of in state.linear.items()
        },
    }


def make_look(run: Run) -> Callable[..., dict[str, np.ndarray]]:
    """`(state, initial, points, noise) -> "QUANTITY/FORM" → [seed, point, layer]`.

    Points are [seed, point, ...], noise likewise. The quantities, of each form:
      fssd           ‖F(x) − F*‖
      displacement   ‖F(x) − F_0(x)‖
      relative       ‖F(x) − F* − F_0(x) + F*_0‖, the displacement against that of F*
      gap            ‖F(x) − F_t(x)‖, F_t that of the network; of `UNDONE` this alone
    """

    @jax.jit
    def centers(state, initial, noise):
        def of_seed(state, initial, noise):
            total = None
            for part in _parts(noise):
                found = predicted(run, state, initial, part)
                sums = jax.tree.map(lambda f: f.sum(0), found)
                total = sums if total is None else jax.tree.map(jnp.add, total, sums)
            return jax.tree.map(lambda f: f / len(noise), total)

        return jax.vmap(of_seed)(state, initial, noise)

    @jax.jit
    def measure(state, initial, stars, x):
        def of_seed(state, initial, stars, x):
            forms = predicted(run, state, initial, x)
            first, now = forms[UNTRAINED], forms[NETWORK]
            ended = [jnp.linalg.norm(f, axis=-1) for f in now.values()]
            out = {f"gap/{UNDONE}": jnp.stack(ended, -1)}
            for name, features in forms.items():
                lengths = _lengths(features, first, now, stars[name], stars[UNTRAINED])
                out |= {f"{quantity}/{name}": of for quantity, of in lengths.items()}
            return out

        return jax.vmap(of_seed)(state, initial, stars, x)

    def look(state, initial, points, noise):
        stars = centers(state, initial, noise)
        parts = [
            jax.device_get(measure(state, initial, stars, points[:, i : i + POINTS]))
            for i in range(0, points.shape[1], POINTS)
        ]
        return {k: np.concatenate([p[k] for p in parts], axis=1) for k in parts[0]}

    return look


def _lengths(features, first, now, star, first_star) -> dict[str, jax.Array]:
    """The quantities of `make_look` [point, layer]."""
    of_layers: dict[str, list] = {}
    for layer, f in features.items():
        moved = f - first[layer]
        vectors = {
            "fssd": f - star[layer][None],
            "displacement": moved,
            "relative": moved - (star[layer] - first_star[layer])[None],
            "gap": f - now[layer],
        }
        for quantity, vector in vectors.items():
            of_layers.setdefault(quantity, []).append(jnp.linalg.norm(vector, axis=-1))
    return {quantity: jnp.stack(of, -1) for quantity, of in of_layers.items()}


def _parts(x):
    return [x[i : i + POINTS] for i in range(0, len(x), POINTS)]
