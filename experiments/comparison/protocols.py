"""The paper's procedure, the released code's, and every switch between the two.

What the differences are worth: `fssd ablation_protocol`, and
docs/protocols.md.
"""

import warnings
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray

import fssd_jax
from fssd_jax import logistic, metrics
from fssd_jax.checks import InputError
from fssd_jax.compiled import by_parts
from fssd_jax.data.pipeline import map_batches
from fssd_jax.detectors import fssd
from fssd_jax.ensemble import (
    EPSILONS,
    Ensemble,
    EpsilonChoice,
    choose_epsilon,
    combine,
    first_best,
    fit_ensemble,
    standardise,
)
from fssd_jax.fssd import (
    Singularity,
    estimate_singularity,
    layer_distance,
    uniform_noise,
)
from fssd_jax.logistic import Weights, one_thread
from fssd_jax.memory import LEAST
from fssd_jax.noise import random_tokens
from fssd_jax.outputs import FeatureFn, Variables
from fssd_jax.questions import Question, look
from fssd_jax.steps import Scores, at_steps, gradients

RELEASED_EPSILONS = (
    *(0.2, 0.18, 0.16, 0.14, 0.12, 0.1, 0.08, 0.06, 0.04, 0.02, 0.01),
    *(0.008, 0.006, 0.004, 0.002, 0.001, 0.0008, 0.0006, 0.0004, 0.0002, 0.0001, 0.0),
)


class Protocol(NamedTuple):
    """How F*, the weights α and the step ε are found."""

    # U[0, 1] in pixels; or 0–254 to [−0.5, 0.496], fed past the normalisation.
    noise: Literal["uniform", "released"] = "uniform"
    samples: int = 1000  # how much noise
    # ε·sign(∇ₓd) for each image; or ε·z, z = −∇ₓd standardised over the whole batch.
    perturbation: Literal["sign", "standardised", "none"] = "sign"
    epsilons: tuple[float, ...] = EPSILONS  # a tie keeps the first
    epsilon_choice: Literal["auroc", "tnr95"] = "auroc"
    # Regression on standardised or on raw distances; or no regression at all.
    ensemble: Literal["standardised", "raw", "clean"] = "standardised"
    # Nested folds of all validation images; or one half for α, the other for ε.
    split: Literal["nested", "halves"] = "nested"
    truncate: bool = False  # no more OoD than in-distribution test images
    batch_size: int = 50  # matters only for the standardised perturbation


PROTOCOLS = {
    "paper": Protocol(),
    "released": Protocol(
        noise="released",
        samples=100,
        perturbation="standardised",
        epsilons=RELEASED_EPSILONS,
        epsilon_choice="tnr95",
        ensemble="raw",
        split="halves",
        truncate=True,
        batch_size=512,
    ),
    # Nothing is fitted or chosen on any OoD set.
    "clean": Protocol(perturbation="none", epsilons=(0.0,), ensemble="clean"),
}


def of_ids(protocol: Protocol) -> Protocol:
    """The same for token ids, which have no gradient: without input step.

    Raises:
      InputError: of `released`, whose noise is of images.
    """
    if protocol.noise == "released":
        raise InputError(
            "protocol released: its noise is of images, and these are token ids; "
            "choose paper or clean"
        )
    return protocol._replace(perturbation="none", epsilons=(0.0,))


def batched(protocol: Protocol, batch_size: int) -> Protocol:
    """The same in batches of a setting, but where the batch decides the numbers.

    At the default of a CPU its own are kept.
    """
    own = protocol.perturbation == "standardised" or batch_size == LEAST
    return protocol if own else protocol._replace(batch_size=batch_size)


def draw_noise(
    protocol: Protocol,
    key: PRNGKeyArray,
    shape: tuple[int, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    symbols: int | None = None,
) -> Num[Array, "samples ..."]:
    """Noise in raw pixel units; `mean` and `std` are those of the normalisation.

    Or token ids, each equally likely, if inputs are such of so many `symbols`.
    """
    if symbols is not None:
        return random_tokens(key, protocol.samples, shape, symbols)
    if protocol.noise == "uniform":
        return uniform_noise(key, protocol.samples, shape)
    whole = jax.random.randint(key, (protocol.samples, *shape), 0, 255)
    # The released code feeds this to the network as if it were normalised already.
    normalised = (whole.astype(jnp.float32) - 127.5) / 255
    per_channel = (1,) * len(shape) + (-1,)
    std_, mean_ = (jnp.asarray(a).reshape(per_channel) for a in (std, mean))
    return normalised * std_ + mean_


@by_parts
def standardised_sweep(
    feature_fn: FeatureFn,
    variables: Variables,
    singularity: Singularity,
    x: Float[Array, "batch ..."],
    epsilons: Float[Array, " epsilon"],
    mask: Bool[Array, " batch"],
) -> Float[Array, "epsilon batch layers"]:
    """Distances at x + ε·z, z = (g − mean g) / std g over the batch, g = −∇ₓFSSD.

    The released code's step: it lowers the distance, and an image's score depends on
    its batch-mates. Padded rows do not count.
    """
    scores = Scores(layer_distance, feature_fn, tuple(singularity.center))
    of = scores, (variables, singularity), x
    steps = [_standardised(-slope, mask) for slope in gradients(*of)]
    return at_steps(*of, steps, epsilons)


@jax.jit
def _standardised(
    g: Float[Array, "batch ..."], mask: Bool[Array, " batch"]
) -> Float[Array, "batch ..."]:
    rows = mask.reshape(-1, *(1,) * (g.ndim - 1))
    count = mask.sum() * g[0].size
    mean = jnp.where(rows, g, 0).sum() / count
    squares = jnp.where(rows, jnp.square(g - mean), 0).sum()
    return (g - mean) / jnp.sqrt(squares / (count - 1))


def fit(
    protocol: Protocol,
    feature_fn: FeatureFn,
    variables: Variables,
    noise,
    val_ind,
    val_ood,
    seed: int = 0,
) -> fssd.State:
    """Find F*, ε and α as the switches say.

    For the paper's switches this is `fssd_jax.detectors.fssd.fit` again (a test asserts
    it), for the clean ones `fit_clean`.
    """
    if protocol.ensemble == "clean":
        return fit_clean(feature_fn, variables, noise, val_ind)
    # Released noise may leave [0, 1]: it need only be finite.
    singularity = estimate_singularity(feature_fn, variables, noise, unit_range=False)
    fssd.check_alive(singularity)
    ind, ood = (
        sweep(protocol, feature_fn, variables, singularity, x, protocol.epsilons, title)
        for x, title in ((val_ind, "sweep ε, in"), (val_ood, "sweep ε, OoD"))
    )
    choice, weights = _choose(protocol, ind, ood, list(singularity.center), seed)
    return fssd.State(
        singularity,
        jnp.float32(choice.epsilon) if choice.epsilon else None,
        weights,
        jnp.asarray(protocol.epsilons, jnp.float32),
        jnp.asarray(choice.auroc, jnp.float32),
    )


def fit_clean(
    feature_fn: FeatureFn, variables: Variables, noise, val_ind, batch_size: int = 64
) -> fssd.State:
    """Protocol `clean`: layers standardised by in-distribution images, and summed.

    A layer where noise lies farther from F* than the data do is turned round, which may
    be worse than chance on what is far from both.
    """
    state = fssd.fit(feature_fn, variables, noise, batch_size=batch_size)
    singularity = state.singularity
    d = map_batches(
        *(fssd_jax.fssd.fssd, feature_fn, variables, singularity, val_ind),
        batch_size=batch_size,
    )
    sign = np.where(fssd.beyond_noise(singularity, d), 1.0, -1.0)
    return state._replace(ensemble=standardise(d, list(singularity.center), sign))


def _choose(
    protocol: Protocol, ind, ood, layers: list[str], seed: int
) -> tuple[EpsilonChoice, Ensemble]:
    """ε and α from swept validation distances [epsilon, n, layers]."""
    by = logistic.fit if protocol.ensemble == "standardised" else raw_regression
    criterion = CRITERIA[protocol.epsilon_choice]
    epsilons = protocol.epsilons
    if protocol.split == "nested":
        choice = choose_epsilon(ind, ood, epsilons, layers, seed, by, criterion)
    else:
        (ind, ind_held), (ood, ood_held) = (
            np.array_split(d, 2, axis=1) for d in (ind, ood)
        )
        values = []
        for e in range(len(epsilons)):
            weights = fit_ensemble(ind[e], ood[e], layers, by)
            held = (jnp.asarray(d[e], jnp.float32) for d in (ind_held, ood_held))
            values.append(criterion(*(np.asarray(combine(weights, d)) for d in held)))
        choice = first_best(epsilons, values)
    best = list(epsilons).index(choice.epsilon)
    return choice, fit_ensemble(ind[best], ood[best], layers, by)


def sweep(
    protocol: Protocol,
    feature_fn: FeatureFn,
    variables: Variables,
    singularity: Singularity,
    x,
    epsilons,
    progress: bool | str = False,
) -> np.ndarray:
    """Distances [epsilon, n, layers] of a data set, stepped as the protocol steps."""
    apply = partial(
        map_batches,
        apply_fn=feature_fn,
        variables=variables,
        state=singularity,
        x=x,
        batch_size=protocol.batch_size,
        progress=progress,
    )
    if not any(epsilons):
        return np.repeat(apply(fssd_jax.fssd.fssd)[None], len(epsilons), axis=0)
    steps = jnp.asarray(epsilons, jnp.float32)
    if protocol.perturbation == "standardised":
        return apply(standardised_sweep, epsilons=steps, batch_axis=1, with_mask=True)
    return apply(fssd_jax.fssd.sweep, epsilons=steps, batch_axis=1)


def plain_and_stepped(
    protocol: Protocol,
    feature_fn: FeatureFn,
    variables: Variables,
    singularity: Singularity,
    epsilon: float,
    x,
) -> tuple[np.ndarray, np.ndarray]:
    """Distances [n, layers] of a data set at ε = 0 and at the protocol's step."""
    of = partial(sweep, protocol, feature_fn, variables, singularity, x)
    if not epsilon or protocol.perturbation == "standardised":
        plain = of((0.0,))[0]
        return plain, of((epsilon,))[0] if epsilon else plain
    # The gradient's forward pass is that of ε = 0.
    step = singularity, jnp.float32(epsilon)
    questions = {
        "plain": Question(fssd_jax.fssd.fssd, feature_fn, singularity),
        "stepped": Question(_stepped, feature_fn, step),
    }
    found = look(questions, variables, x, batch_size=protocol.batch_size)
    return found["plain"], found["stepped"]


def _stepped(feature_fn, variables, state, x) -> Float[Array, "batch layers"]:
    singularity, epsilon = state
    return fssd_jax.fssd.fssd(feature_fn, variables, singularity, x, epsilon)


@one_thread
def raw_regression(d: np.ndarray, y: np.ndarray) -> Weights:
    """The released regression: nothing is standardised, and the solver stops early."""
    # Slow to import: see `fssd_jax.data.embedded`.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegressionCV

    model = LogisticRegressionCV(
        random_state=42,
        scoring="accuracy",
        l1_ratios=(0.0,),  # pyright: ignore[reportArgumentType]
        use_legacy_attributes=False,  # pyright: ignore[reportArgumentType]
    )
    with warnings.catch_warnings():
        # It stops at its 100 steps, for the authors as for us.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(d, y)
    columns = d.shape[1]
    alpha, intercept = model.coef_[0], float(model.intercept_[0])
    return Weights(np.zeros(columns), np.ones(columns), alpha, intercept)


def tnr95(ind, ood) -> float:
    """True negative rate at the first threshold with a true positive rate of 95 %."""
    return 1 - metrics.evaluate(ind, ood).fpr95


CRITERIA = {"auroc": metrics.auroc, "tnr95": tnr95}
