"""Phase diagrams: where, in width and training time, a form predicts the network."""

from collections.abc import Mapping, Sequence

import numpy as np

from fssd_jax.extras import missing

try:
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error

# quantity → its file's name
QUANTITIES = {"error": "error", "rank": "rank", "AUROC": "auroc"}
HOW = {
    "error": ("relative error of $F_t(x) − F_0(x)$", LogNorm(0.01, 10), "cividis_r"),
    "rank": (
        "rank correlation with FSSD, mean of both sets",
        Normalize(0, 1),
        "cividis",
    ),
    "AUROC": ("its AUROC less the network's", Normalize(-0.3, 0.3), "PuOr"),
}


def phases(
    panels: Mapping[tuple[str, str, str], np.ndarray],
    quantity: str,
    widths: Sequence[int],
    times: Sequence[float],
    title: str,
) -> Figure:
    """A row a form; a column a parametrisation and layer; time to the right, width up.

    Args:
      panels: (form, parametrisation, layer) → [width, time]; NaN is left white.
      quantity: of `QUANTITIES`.
      widths: in ascending order.
      times: ηt.
      title: of the picture.
    """
    forms = list(dict.fromkeys(form for form, _, _ in panels))
    least = 1e-9 if quantity == "error" else -np.inf  # a logarithm has no 0
    columns = list(dict.fromkeys((layer, kind) for _, kind, layer in panels))
    if quantity == "error":  # before training nothing has moved: it is 1 everywhere
        forms = [form for form in forms if form != "untrained"]
    label, norm, colours = HOW[quantity]
    figure, axes = plt.subplots(
        len(forms), len(columns), sharex=True, sharey=True, squeeze=False,
        figsize=(6.9, 0.9 + 0.95 * len(forms)), layout="constrained",
    )  # fmt: skip
    image = None
    last = len(forms) - 1
    for i, (row, form) in enumerate(zip(axes, forms, strict=True)):
        for j, (ax, (layer, kind)) in enumerate(zip(row, columns, strict=True)):
            image = ax.imshow(
                np.maximum(panels[form, kind, layer], least), norm=norm, cmap=colours,
                origin="lower", aspect="auto", interpolation="nearest",
            )  # fmt: skip
            if j == 0:
                ax.set_ylabel(f"{form}\nwidth", fontsize=7)
            if i == 0:
                ax.set_title(f"{layer}\n{kind}", fontsize=7)
            if i == last:
                ax.set_xlabel("ηt", fontsize=7)
            shown = range(0, len(times), 2)
            ax.set_xticks(list(shown), [f"{times[i]:g}" for i in shown], rotation=60)
            ax.set_yticks(range(len(widths)), list(map(str, widths)))
            ax.tick_params(labelsize=7)
    bar = figure.colorbar(image, ax=axes, aspect=40, pad=0.01)
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=8)
    return figure
