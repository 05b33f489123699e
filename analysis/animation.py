"""Figure 2 as something that moves: features and their speed through training.

Any run that a `Recorder` followed gives a page or a GIF by one call:

    recorder = Recorder(…, keep=["logits"])
    …
    animation.write_page("training.html", recorder.records, "logits")
    animation.write_gif("training.gif", recorder.records, "logits")
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from analysis import pages, pca
from analysis.dynamics import Record
from analysis.style import SETS, outline, page, style_of, styled
from fssd_jax.checks import InputError
from fssd_jax.extras import missing

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing("matplotlib", "pictures", error) from error

FILE = "training.npz"  # in a results folder, of `to_arrays`
SHOWN = 200  # images of each set, drawn evenly
BINS = 30
PAUSE, LAST = 350, 2000  # milliseconds that a moment and the last one stay
DPI = 100


class Movie(NamedTuple):
    """Of one layer, at some moments of training; see `movie`."""

    layer: str
    steps: np.ndarray  # [moment]
    points: dict[str, np.ndarray]  # set → [moment, n, 2], in principal components
    star: np.ndarray  # [moment, 2], F*
    share: np.ndarray  # [2] of the variance at the end
    speeds: dict[str, np.ndarray]  # set → [moment, n], ‖dF/dt‖


def movie(records: Sequence[Record], layer: str) -> Movie:
    """Features of a layer that was kept, in one basis, and its speeds.

    Args:
      records: of a `Recorder` that has the layer in `keep`.
      layer: its name.

    Raises:
      InputError: fewer than two records with speeds, or the layer was not kept.
    """
    followed = [r for r in records if all("speed" in m for m in r.movements.values())]
    if len(followed) < 2:
        raise InputError(
            f"records: {len(followed)} with a speed, expected two or more; let the "
            "recorder be called at more steps, with a batch or with data=(x, y)"
        )
    first = followed[0]
    kept = [set(of) for of in first.features.values()]
    if not all(layer in names for names in kept):
        raise InputError(
            f"layer: the features of {layer!r} were not kept, but those of "
            f"{sorted(set().union(*kept))}; make the recorder with keep=[{layer!r}]"
        )
    place = list(first.singularity.center).index(layer)
    return from_arrays(
        layer,
        np.array([r.step for r in followed]),
        {s: np.stack([r.features[s][layer] for r in followed]) for s in first.features},
        np.stack([np.ravel(r.singularity.center[layer]) for r in followed]),
        {
            s: np.stack([r.movements[s]["speed"][:, place] for r in followed])
            for s in first.movements
        },
    )


def from_arrays(
    layer: str,
    steps: np.ndarray,
    features: Mapping[str, np.ndarray],
    stars: np.ndarray,
    speeds: Mapping[str, np.ndarray],
) -> Movie:
    """The same of set → features [moment, n, dim] and speeds [moment, n].

    The basis is that of the last moment's features of all sets, as in Figure 2a.
    """
    flat = {s: np.reshape(f, (*f.shape[:2], -1)) for s, f in features.items()}
    basis = pca.fit(np.concatenate([f[-1] for f in flat.values()]))

    def shown(of):
        count = of.shape[1]
        chosen = np.linspace(0, count - 1, min(count, SHOWN)).round().astype(int)
        return of[:, chosen]

    def projected(of):
        return np.stack([pca.project(basis, f) for f in of])

    points = {s: projected(shown(f)) for s, f in flat.items()}
    speeds = {s: shown(v) for s, v in speeds.items()}
    star = pca.project(basis, stars)
    return Movie(layer, np.asarray(steps), points, star, basis.share, speeds)


# ---- as a page ----------------------------------------------------------------------


def write_page(path: str | Path, records: Sequence[Record], layer: str) -> Path:
    """A page with a slider over the steps; errors as of `movie`."""
    title = f"Training: features of {layer} and their speed"
    heading = f"<h2>{title}</h2>"
    inner = heading + as_part(movie(records, layer))
    pages.write(Path(path), title, pages.section("movie", inner), one=True)
    return Path(path)


def as_part(of: Movie) -> str:
    """HTML of it, for a page by `pages.write`."""
    heading = f"Training: features of {of.layer}, and how fast they move (Eq. 3)"
    return pages.holding("movie", heading, _told(of))


def to_arrays(of: Movie) -> dict[str, np.ndarray]:
    """Flat, as an .npz holds it."""
    found = {"layer": np.array(of.layer), "steps": of.steps}
    found |= {"star": of.star, "share": of.share}
    for name, points in of.points.items():
        found |= {f"points/{name}": points, f"speeds/{name}": of.speeds[name]}
    return {
        k: a.astype(np.float32) if a.dtype == float else a for k, a in found.items()
    }


def of_arrays(arrays: Mapping[str, np.ndarray]) -> Movie:
    """The inverse of `to_arrays`; a `KeyError` where something is missing."""
    sets = [name.partition("/")[2] for name in arrays if name.startswith("points/")]
    return Movie(
        str(arrays["layer"]),
        arrays["steps"],
        {s: arrays[f"points/{s}"] for s in sets},
        arrays["star"],
        arrays["share"],
        {s: arrays[f"speeds/{s}"] for s in sets},
    )


def _told(of: Movie) -> dict[str, Any]:
    return {
        "layer": of.layer,
        "steps": of.steps.tolist(),
        "sets": list(of.points),
        "points": [_rounded(p) for p in of.points.values()],
        "star": _rounded(of.star),
        "share": _rounded(of.share),
        "bars": [
            _bars([v[i] for v in of.speeds.values()]) for i in range(len(of.steps))
        ],
        "medians": [_rounded(np.median(v, axis=1)) for v in of.speeds.values()],
    }


def _bars(speeds: Sequence[np.ndarray]) -> dict[str, Any]:
    """Histograms of all sets at one moment, as shares in %."""
    edges = _edges(speeds)
    counts = [np.histogram(v, edges)[0] * (100 / len(v)) for v in speeds]
    return {"edges": _rounded(edges), "heights": [_rounded(c) for c in counts]}


def _edges(speeds: Sequence[np.ndarray]) -> np.ndarray:
    most = max(float(v.max()) for v in speeds)
    return np.linspace(0, most or 1, BINS + 1)


def _rounded(values: np.ndarray) -> list:
    """To four digits: less than a pixel."""
    flat = [float(f"{v:.4g}") for v in np.ravel(values).tolist()]
    return np.reshape(flat, np.shape(values)).tolist()


# ---- as a GIF -----------------------------------------------------------------------


def write_gif(path: str | Path, records: Sequence[Record], layer: str) -> Path:
    """An animated GIF, a frame a moment; errors as of `movie`."""
    return save_gif(Path(path), movie(records, layer))


@styled
def _frame(of: Movie, moment: int) -> Figure:
    figure, ((cloud, bars),) = page(1, 2, 3.2)
    speeds = [v[moment] for v in of.speeds.values()]
    edges = _edges(speeds)
    for place, (name, points) in enumerate(of.points.items()):
        style = style_of(name, SETS, place)
        told = {"s": 8, "alpha": 0.5, "label": name, **style.of_points()}
        cloud.scatter(*points[moment].T, **told)
        outline(bars, of.speeds[name][moment], edges, style, label=name)
    star = {"marker": "*", "color": "black", "edgecolor": "white", "label": "F*"}
    cloud.scatter(*of.star[moment], s=110, **star)
    every = np.concatenate([p.reshape(-1, 2) for p in of.points.values()])
    (left, low), (right, high) = every.min(0), every.max(0)
    cloud.set(
        title=f"features of {of.layer}, step {of.steps[moment]:,}",
        xlabel=f"first component ({of.share[0]:.0%} of variance at the end)",
        ylabel=f"second component ({of.share[1]:.0%})",
        xlim=_with_margin(left, right),
        ylim=_with_margin(low, high),
    )
    bars.set(
        title="their speed, Eq. (3)", xlabel="‖dF/dt‖", ylabel="density", yticks=[]
    )
    handles, labels = cloud.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _with_margin(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low) or 1
    return low - margin, high + margin


def save_gif(path: Path, of: Movie) -> Path:
    """The same, of a movie; each moment is drawn once, and the last stays longer."""
    frames = []
    for moment in range(len(of.steps)):
        canvas = FigureCanvasAgg(_frame(of, moment))
        canvas.figure.set_dpi(DPI)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("P"))
    pauses = [PAUSE] * (len(frames) - 1) + [LAST]
    told = {"save_all": True, "append_images": frames[1:], "duration": pauses}
    frames[0].save(path, "gif", loop=0, **told)
    return path
