"""Pictures of Eq. (4): FSSD against its kernel forms, and what the width does."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.plots import COLORS
from fssd_jax.extras import missing

try:
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error

FORMS = ("displacement", "path", "frozen")


def forms(sizes: Mapping[str, np.ndarray], layers: Sequence[str], title: str) -> Figure:
    """FSSD of every image against each form of Eq. (4), a row a form.

    Args:
      sizes: form → [image, layer]; in-distribution images first, then as many OoD.
      layers: names of the layers.
      title: of the picture.
    """
    figure, axes = plt.subplots(
        len(FORMS),
        len(layers),
        figsize=(2.9 * len(layers), 2.7 * len(FORMS)),
        layout="constrained",
        squeeze=False,
    )
    half = len(sizes["fssd"]) // 2
    halves = {"in-distribution": slice(half), "OoD": slice(half, None)}
    for row, form in zip(axes, FORMS, strict=True):
        for k, ax in enumerate(row):
            x, y = sizes[form][:, k], sizes["fssd"][:, k]
            for name, part in halves.items():
                ax.scatter(
                    *(x[part], y[part]),
                    s=7,
                    alpha=0.6,
                    linewidths=0,
                    color=COLORS[name],
                    label=name,
                )
            ax.axline((0, 0), slope=1, color="black", linewidth=0.7, linestyle=":")
            ax.set(xlim=(0, None), ylim=(0, None), xlabel=f"‖{form}‖")
            ax.set_title(f"{layers[k]}, r = {np.corrcoef(x, y)[0, 1]:.2f}")
        row[0].set_ylabel("FSSD")
    axes[0, 0].legend(fontsize="small")
    figure.suptitle(title)
    return figure


def against_width(facts: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> Figure:
    """Errors and kernel drift, a panel each; a line of slope −1/2 is drawn in.

    Args:
      facts: width → layer → what metrics.json tells of it.
    """
    panels = {
        "error of the path form": lambda of: of["forms"]["path"]["relative_error"],
        "error of the frozen form": lambda of: of["forms"]["frozen"]["relative_error"],
        "kernel drift ‖Θ_T − Θ_0‖/‖Θ_0‖": lambda of: of["kernel_drift"],
    }
    widths = sorted(facts)
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.3), layout="constrained")
    for ax, (title, number) in zip(axes, panels.items(), strict=True):
        for layer in facts[widths[0]]:
            values = [number(facts[w][layer]) for w in widths]
            ax.plot(widths, values, "o-", markersize=4, label=layer)
        top = max(number(of) for of in facts[widths[0]].values())
        guide = top * np.sqrt(widths[0] / np.array(widths))
        ax.plot(widths, guide, ":", color="black", label="∝ 1/√width")
        ax.set(title=title, xlabel="width", xscale="log", yscale="log")
        ax.set_xticks(widths, list(map(str, widths)))
        ax.xaxis.set_minor_locator(NullLocator())
    axes[0].legend(fontsize="small")
    return figure


def detectors(facts: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> Figure:
    """AUROC of FSSD, of its forms and terms, and the terms' shares, by width.

    Args:
      facts: as in `against_width`.
    """
    shown = {
        "FSSD": ("fssd", "-", "black"),
        "displacement ‖Δ‖": ("displacement", "-", "#0072B2"),
        "frozen form": ("frozen", "-", "#D55E00"),
        "infinite width": ("infinite", "-", "#009E73"),
        "offset ‖o‖ alone": ("offset", "--", "#CC79A7"),
        "FSSD, untrained": ("untrained", "--", "#999999"),
    }
    terms = {"moved": "#0072B2", "cross": "#E69F00", "offset": "#CC79A7"}
    widths = sorted(facts)
    layers = list(facts[widths[0]])
    figure, axes = plt.subplots(
        2,
        len(layers),
        figsize=(2.9 * len(layers), 5.2),
        layout="constrained",
        squeeze=False,
    )
    for layer, (top, bottom) in zip(layers, axes.T, strict=True):
        for name, (form, style, color) in shown.items():
            found = [facts[w][layer]["forms"] for w in widths]
            # The infinitely wide network is known by its logits alone.
            if form in found[0]:
                values = [of[form]["auroc"] for of in found]
                top.plot(
                    widths, values, style, color=color, label=name, marker="o", ms=3
                )
        top.axhline(0.5, color="black", linewidth=0.5)
        top.set(title=layer, ylim=(0, 1), xscale="log")
        for name, color in terms.items():
            values = [facts[w][layer]["shares"][name]["all"] for w in widths]
            bottom.plot(widths, values, color=color, label=name, marker="o", ms=3)
        bottom.axhline(0, color="black", linewidth=0.5)
        bottom.set(xlabel="width", xscale="log")
        for ax in (top, bottom):
            ax.set_xticks(widths, list(map(str, widths)))
            ax.xaxis.set_minor_locator(NullLocator())
    axes[0, 0].set_ylabel("AUROC")
    axes[1, 0].set_ylabel("share of FSSD²")
    # Of the last layer, which has the most lines.
    axes[0, -1].legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    axes[1, 0].legend(fontsize="x-small")
    return figure


def over_time(layers: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Drift and alignment of each layer's kernel while the network is trained."""
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.2), layout="constrained")
    for ax, fact in zip(axes, ("drift", "alignment"), strict=True):
        for layer, of in layers.items():
            ax.plot(of["steps"], of[fact], "o-", markersize=3, label=layer)
        ax.set_xscale("symlog", linthresh=1)
        ax.set(xlabel="step", ylim=(0, None))
    axes[0].set_ylabel("kernel drift ‖Θ_t − Θ_0‖/‖Θ_0‖")
    axes[1].set_ylabel("alignment with the labels")
    axes[0].legend(fontsize="small")
    return figure


def against_distance(
    layers: Mapping[str, Mapping[str, Any]],
    distances: np.ndarray,
    cosines: Mapping[str, Mapping[str, np.ndarray]],
) -> Figure:
    """The normalised kernel against ‖x − x_m‖, before and after, with its RBF.

    Args:
      layers: layer → "before" and "after" → "rbf", the fit.
      distances: [n, m] of test images, of which the first half is in-distribution, and
        training images.
      cosines: layer → "before" and "after" → [n, m], the normalised kernel.
    """
    d = distances[::5, ::10]  # a part of the pairs is enough for a picture
    half = len(d) // 2
    halves = {"in-distribution": slice(half), "OoD": slice(half, None)}
    figure, axes = plt.subplots(
        2, len(layers), figsize=(2.9 * len(layers), 5.2), layout="constrained",
        sharex=True, sharey=True, squeeze=False,
    )  # fmt: skip
    for column, (layer, of) in zip(axes.T, layers.items(), strict=True):
        for ax, when in zip(column, ("before", "after"), strict=True):
            cosine = cosines[layer][when][::5, ::10]
            for name, part in halves.items():
                ax.scatter(
                    *(d[part], cosine[part]),
                    s=6, alpha=0.5, lw=0, color=COLORS[name], label=name,
                )  # fmt: skip
            fit = of[when]["rbf"]
            along = np.linspace(d.min(), d.max(), 100)
            curve = np.exp(-(along**2) / (2 * fit["length"] ** 2))
            ax.plot(along, fit["amplitude"] * curve + fit["offset"], color="black")
            ax.set_title(f"{layer}, {when}: R² = {fit['r2']:.2f}", fontsize="medium")
        column[-1].set_xlabel("‖x − x_m‖, pixels")
    for ax in axes[:, 0]:
        ax.set_ylabel("normalised Θ(x, x_m)")
    axes[0, 0].legend(fontsize="x-small")
    return figure


def moved_by(
    tested: np.ndarray, top: np.ndarray, classes: np.ndarray, shares: np.ndarray
) -> Figure:
    """Test images, and beside each the training images that moved it most.

    Args:
      tested: [n, ...], of which the first half is in-distribution.
      top: [n, k, ...] training images.
      classes: [n, k], theirs.
      shares: [n, k] of what pushed the test image.
    """
    figure, axes = plt.subplots(
        len(tested), top.shape[1] + 1, layout="constrained",
        figsize=(1.15 * (top.shape[1] + 1), 1.35 * len(tested)),
    )  # fmt: skip
    for i, (row, image) in enumerate(zip(axes, tested, strict=True)):
        kind = "in-distribution" if i < len(tested) // 2 else "OoD"
        row[0].imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
        row[0].set_title(kind, fontsize="x-small", color=COLORS[kind])
        for j, ax in enumerate(row[1:]):
            ax.imshow(top[i, j].squeeze(), cmap="gray", vmin=0, vmax=1)
            told = f"class {classes[i, j]}: {shares[i, j]:.1%}"
            ax.set_title(told, fontsize="x-small")
    for ax in axes.ravel():
        ax.axis("off")
    return figure


def infinite_width(
    lines: Mapping[str, Mapping[str, Sequence[float]]],
    controls: Mapping[str, Sequence[float]],
) -> Figure:
    """Mean AUROC of what moves at infinite width, over time; controls have no time.

    Args:
      lines: name → time, as text → AUROC of each seed.
      controls: name → AUROC of each seed.
    """
    figure, ax = plt.subplots(figsize=(7.6, 4.0), layout="constrained")
    for name, of_times in lines.items():
        means = [np.mean(of_seeds) for of_seeds in of_times.values()]
        # Places in a row, because the last time may be infinite.
        ax.plot(list(of_times), means, "o-", markersize=4, label=name)
    for i, (name, of_seeds) in enumerate(controls.items()):
        grey = f"{0.1 + 0.6 * i / max(len(controls) - 1, 1):.2f}"
        ax.axhline(
            float(np.mean(of_seeds)), color=grey, linestyle="--", lw=1, label=name
        )
    ax.axhline(0.5, color="black", linewidth=0.5)
    ax.set(xlabel="ηt", ylabel="AUROC", ylim=(0, 1))
    ax.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure
