"""How each network is trained: `(epochs, steps_per_epoch) -> optimiser`.

With another number of epochs than the recipe's own, the rate falls at the same shares.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import optax


def lenet(epochs: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """Adadelta at rate 1, falling by 0.7 an epoch over 14 epochs (the released code).

    With another number of epochs the rate falls to the same end in as many steps.
    """

    def rate(step):
        epoch = jnp.asarray(step // steps_per_epoch, jnp.result_type(float))
        return 0.7 ** (epoch * (14 / epochs))

    return optax.adadelta(rate, rho=0.9, eps=1e-6)


def sgd(rate: float) -> Callable[[int, int], optax.GradientTransformation]:
    """A recipe of plain SGD at a constant rate, whose training Eq. (3) describes."""
    return lambda epochs, steps_per_epoch: optax.sgd(rate)


def finetune(epochs: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD from rate 0.001 along a cosine to 0 (Hendrycks et al. 2019, fine-tuning)."""
    rate = optax.cosine_decay_schedule(1e-3, epochs * steps_per_epoch)
    return optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(rate, momentum=0.9, nesterov=True)
    )


def _stepped(rate: float, decay: float, drops: Sequence[float]):
    """SGD with momentum 0.9; the rate falls tenfold after each share of the steps."""

    def recipe(epochs: int, steps_per_epoch: int) -> optax.GradientTransformation:
        after = {round(drop * epochs * steps_per_epoch): 0.1 for drop in drops}
        return optax.chain(
            optax.add_decayed_weights(decay),
            optax.sgd(optax.piecewise_constant_schedule(rate, after), momentum=0.9),
        )

    return recipe


def cifar(epochs: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD at 0.1, ÷10 at 150 and 250 of 350 epochs, weight decay 5e-4 (released code).

    For batches of 128, augmented by `augment.crop_and_flip`.
    """
    return _stepped(0.1, 5e-4, (150 / 350, 250 / 350))(epochs, steps_per_epoch)


def imagenet(epochs: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD at 0.1, ÷10 at 30 and 60 of 90 epochs, weight decay 1e-4, batches of 256.

    torchvision's reference; neither the paper nor the released code has a recipe.
    """
    return _stepped(0.1, 1e-4, (30 / 90, 60 / 90))(epochs, steps_per_epoch)


def face(epochs: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD at 0.1, ÷10 at 10, 15 and 18 of 20 epochs, weight decay 5e-4.

    For `losses.cosface`. Neither the paper nor the released code has a recipe; rate and
    decay are CosFace's (Wang et al. 2018), the epochs are our choice.
    """
    return _stepped(0.1, 5e-4, (10 / 20, 15 / 20, 18 / 20))(epochs, steps_per_epoch)


def lstm(epochs: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """Adam from rate 4e-3 along a cosine to 0, of gradients that are clipped to norm 1.

    Neither the paper nor the released code has a recipe; this is our choice.
    """
    rate = optax.cosine_decay_schedule(4e-3, epochs * steps_per_epoch)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
