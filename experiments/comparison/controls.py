"""Rivals that know nothing of the trained network."""

from collections.abc import Callable
from functools import partial

import numpy as np

from analysis import pixels
from experiments.comparison.rows import Ask, Method, Rows, Scored
from experiments.comparison.setting import Setting
from experiments.comparison.singular import ask_fssd, ask_layers, run_fssd
from fssd_jax import logistic
from fssd_jax.data.inputs import as_input

MOST_PIXELS = 64  # a side, for a support vector machine
PART = 256  # images that are looked at together


def untrained(s: Setting) -> Rows:
    """The whole FSSD procedure on the network as it was before training."""
    return run_fssd("control: untrained", s.untrained())


def untrained_clean(name: str, s: Setting) -> list[Ask]:
    """The same where no OoD image may be seen."""
    return ask_fssd(name, s.untrained().under_clean())


def untrained_layers(s: Setting) -> list[Ask]:
    """Each layer alone of the network as it was before training."""
    return ask_layers("control: untrained, ", s.untrained())


def pixel_statistics(s: Setting) -> Rows:
    """Logistic regression on two numbers an image: mean and deviation of its pixels."""
    view = lambda flat: np.stack([flat.mean(1), flat.std(1)], axis=1)  # noqa: E731
    fit = lambda x, y: partial(logistic.decide, logistic.fit(x, y))  # noqa: E731
    row = _without_network(s, fit, view)
    return {"control: pixel stats": row}


def composition(s: Setting) -> Rows:
    """Logistic regression on how frequent each symbol is; of DNA, its GC content."""
    assert s.symbols is not None  # `needs`
    # The last one follows from the others.
    symbols = range(s.symbols - 1)
    view = lambda flat: np.stack([(flat == k).mean(1) for k in symbols], 1)  # noqa: E731
    fit = lambda x, y: partial(logistic.decide, logistic.fit(x, y))  # noqa: E731
    return {"control: composition": _without_network(s, fit, view)}


def raw_pixels(s: Setting) -> Rows:
    """A support vector machine on the pixels themselves, or on blocks' means."""
    from sklearn.svm import SVC  # slow: see `data.embedded`

    fit = lambda x, y: SVC().fit(x, y).decision_function  # noqa: E731
    height, width = s.test_ind.shape[1:3]
    block = -(-max(height, width) // MOST_PIXELS)
    row = _without_network(s, fit, lambda flat: flat, block)
    note = f"means of {block}×{block} pixels" if block > 1 else row.note
    return {"control: raw pixels": row._replace(note=note)}


def _without_network(
    s: Setting, fit: Callable, view: Callable, block: int = 1
) -> Scored:
    """A classifier of a view of the flat validation images; it scores the test sets.

    Args:
      fit: (rows, classes) → function of rows.
      block: side of the squares of which the means stand for the pixels.
    """
    assert s.val_ood is not None  # `needs`

    def seen(x):
        x = as_input(x)
        x = pixels.block_means(x, block) if block > 1 else x
        return view(x.reshape(len(x), -1).astype(np.float64))

    y = np.concatenate([np.ones(len(s.val_ind)), np.zeros(len(s.val_ood))])
    classify = fit(np.concatenate([seen(s.val_ind), seen(s.val_ood)]), y)
    tested = (
        np.concatenate(
            [classify(seen(x[i : i + PART])) for i in range(0, len(x), PART)]
        )
        for x in (s.test_ind, s.test_ood)
    )
    fitted_on = f"{len(s.val_ind)} in, {len(s.val_ood)} target OoD"
    return Scored(*tested, fitted_on=fitted_on, target_ood=True, passes="0")


def nearest_in_pixels(s: Setting) -> Rows:
    """Nearness to an in-distribution validation image."""
    near = partial(pixels.nearest, s.val_ind)
    tested = near(s.test_ind), near(s.test_ood)
    row = Scored(*tested, fitted_on=f"{len(s.val_ind)} in", passes="0")
    return {"control: nearest in pixels": row}


def brightness(s: Setting) -> Rows:
    tested = pixels.brightness(s.test_ind), pixels.brightness(s.test_ood)
    return {"control: brightness": Scored(*tested, passes="0")}


CONTROLS: dict[str, Method] = {
    "untrained": Method(
        partial(untrained_clean, "control: untrained"),
        untrained,
        needs=("val_ood", "initial"),
        network="initial",
    ),
    "untrained_clean": Method(
        partial(untrained_clean, "control: untrained, clean"),
        needs=("initial",),
        network="initial",
    ),
    "untrained_layers": Method(untrained_layers, needs=("initial",), network="initial"),
    "pixel_stats": Method(run=pixel_statistics, needs=("val_ood", "pixels")),
    "composition": Method(run=composition, needs=("val_ood", "symbols")),
    "raw_pixels": Method(run=raw_pixels, needs=("val_ood", "pixels")),
    "nearest_in_pixels": Method(run=nearest_in_pixels, needs=("pixels",)),
    "brightness": Method(run=brightness, needs=("pixels",)),
}
