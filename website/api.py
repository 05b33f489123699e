"""Pages of the reference, from docstrings: a page a group of modules."""

from website import measured
from website.measured import ROOT

# Title → what it is for, and its modules.
GROUPS = {
    "FSSD": (
        "Eq. (1), F\\*, the input step, noise for F\\*, and how layers are combined.",
        ("fssd_jax.fssd", "fssd_jax.noise", "fssd_jax.ensemble", "fssd_jax.steps"),
    ),
    "Networks": (
        "From a network to features and logits: Linen, NNX, Equinox, PyTorch.",
        (
            *("fssd_jax.features", "fssd_jax.adapters", "fssd_jax.head"),
            *("fssd_jax.torch_weights", "fssd_jax.outputs"),
        ),
    ),
    "Scoring": (
        "Batches, tables, metrics, thresholds and files.",
        (
            *("fssd_jax.data.pipeline", "fssd_jax.questions", "fssd_jax.comparison"),
            *("fssd_jax.metrics", "fssd_jax.conformal", "fssd_jax.saving"),
            "fssd_jax.checks",
        ),
    ),
    "Training": (
        "Classifiers, and how they are trained.",
        ("fssd_jax.train", "fssd_jax.recipes", "fssd_jax.losses", "fssd_jax.models"),
    ),
    "Data": (
        "Sets, folders, records, reads of DNA, corruptions.",
        (
            *("fssd_jax.data.sources", "fssd_jax.data.inputs", "fssd_jax.data.folders"),
            *("fssd_jax.data.records", "fssd_jax.data.sequences"),
            *("fssd_jax.data.corruptions", "fssd_jax.data.imagenet_c"),
            *("fssd_jax.data.benchmark", "fssd_jax.data.benchmarks"),
        ),
    ),
    "Analysis": (
        "Eq. (3) and Eq. (4) along a training run.",
        (
            *("analysis.dynamics", "analysis.displacement"),
            *("analysis.kernel_regression", "analysis.linearised"),
            *("analysis.kernel_dynamics", "analysis.ntk_networks"),
        ),
    ),
    "Pictures": (
        "From arrays to matplotlib figures.",
        ("analysis.plots", "analysis.dynamics_plots", "analysis.feature_plots"),
    ),
}


def pages() -> dict[str, str]:
    made = {}
    lines = [
        "# Reference",
        "",
        "From docstrings. Each [method](../methods/index.md) has its own page.",
        "",
    ]
    for title, (told, modules) in GROUPS.items():
        parts = [f"# {title}", told, *(f"::: {module}" for module in modules)]
        made[f"reference/{title.lower()}.md"] = "\n\n".join(parts) + "\n"
        lines.append(f"- [{title}]({title.lower()}.md): {told}")
    made["reference/index.md"] = "\n".join(lines) + "\n"
    made["reference/commands.md"] = commands()
    return made


def commands() -> str:
    """The entry scripts, each by its docstring."""
    parts = [
        "# Commands",
        "`fssd NAME`, or `python -m fssd_jax NAME`; `fssd NAME --help` lists the "
        "options. [What they ask](../index.md#the-experiments); [examples]"
        "(../using.md#what-table2-leaves).",
    ]
    for path in sorted((ROOT / "experiments").glob("[!_]*.py")):
        text = measured.docstring(path)
        first, _, rest = text.partition("\n")
        parts += [
            f"## fssd {path.stem}",
            first,
            f"```text\n{rest.strip()}\n```" if rest.strip() else "",
        ]
    return "\n\n".join(part for part in parts if part) + "\n"
