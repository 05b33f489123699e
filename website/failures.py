"""When each method fails: a sentence, whose numbers are read from the results."""

import json
import re

from website.measured import RESULTS, Cell

# Detector → what lets it fail; {row}: the AUROC of this row; and which results.
SENTENCES = {
    "ash": (
        "OoD images whose few largest features are as large as the data's pass, since "
        "the others are cut off: {ash}, where SCALE, which keeps them, has {scale}.",
        "cifar6/table2",
    ),
    "deep_ensemble": (
        "OoD images of whose class all networks are sure pass: {deep ensemble}, where "
        "the energy of one network has {energy}.",
        "fmnist/table2",
    ),
    "dice": (
        "OoD images that differ in features whose weights are cut off pass: {dice}, "
        "where the energy by all weights has {energy}.",
        "fmnist/default",
    ),
    "displacement": (
        "OoD images whose features training moved farther than the data's are ordered "
        "the wrong way: {displacement}.",
        "cifar10/table2-mnist",
    ),
    "energy": (
        "OoD images of large logits pass, however evenly these are spread over the "
        "classes: {energy}, where MSP, which compares them, has {msp}.",
        "fmnist6/default",
    ),
    "fdbd": (
        "OoD images as far from the boundaries as the data, relative to their distance "
        "to the mean, pass: {fdbd}, where nearest neighbours have {knn}.",
        "genomes/table2",
    ),
    "feature_norm": (
        "OoD images that excite the chosen block as much as the data do pass: "
        "{feature norm}.",
        "cifar6/table2-mnist",
    ),
    "fssd": (
        "A layer in which OoD images lie farther from F* than the data do orders the "
        "sets the wrong way: {fssd conv2} in conv2 and {fssd logits} in the logits.",
        "fmnist/table2",
    ),
    "fssd_mahalanobis": (
        "OoD images near a class and no nearer to F* than the data pass both: "
        "{fssd + mahalanobis}, where the energy has {energy}.",
        "cifar6/table2",
    ),
    "gen": (
        "OoD images that are classified with confidence pass, since it sees "
        "probabilities alone: {gen}, where Mahalanobis' distance of features has "
        "{mahalanobis clean}.",
        "cifar10/table2-photos",
    ),
    "gram": (
        "OoD images within the least and the largest that any training image of their "
        "class had pass: {gram}, chance.",
        "cifar6/table2",
    ),
    "kl_matching": (
        "Data that are more or less sure than usual lie as far from the classes' means "
        "as OoD images: {kl matching}, where MSP has {msp}.",
        "cifar6/table2",
    ),
    "knn": (
        "OoD images among the training features pass: {knn}, where the energy has "
        "{energy}.",
        "cifar6/table2",
    ),
    "mahalanobis": (
        "OoD images as near to a class's mean as the data pass: {mahalanobis clean}, "
        "no better than chance.",
        "cifar6/table2",
    ),
    "max_logit": (
        "OoD images with one large logit pass, whatever the others are: {max logit}, "
        "where MSP, which compares them, has {msp}.",
        "fmnist6/default",
    ),
    "mc_dropout": (
        "OoD images on which the passes agree more than on the data are ordered the "
        "wrong way by the variance: {mc dropout, variance}, and {mc dropout, mean} by "
        "the mean.",
        "cifar10/table2-mnist",
    ),
    "msp": (
        "OoD images that are classified with confidence pass; that all their logits "
        "are low it does not see: {msp}, where the energy, which does, has {energy}.",
        "fmnist/table2",
    ),
    "nnguide": (
        "It multiplies the energy by a likeness to the training set, and either can "
        "mislead it: {nnguide}, where the energy alone has {energy}.",
        "fmnist/default",
    ),
    "odin": (
        "OoD images whose margin the step raises as much as the data's stay as they "
        "are: {odin}, chosen by labelled OoD images, where the energy, which saw none, "
        "has {energy}.",
        "cifar6/table2",
    ),
    "react": (
        "OoD images whose features are no larger than the data's are not clipped more, "
        "and it is the energy then: {react}, and {energy} without clipping.",
        "cifar6/table2",
    ),
    "relative_mahalanobis": (
        "OoD images far from all data lie far from both Gaussians, and the difference "
        "can be small: {relative mahalanobis}, where the distance to the classes, of "
        "all layers, has {mahalanobis clean}.",
        "cifar10/table2-mnist",
    ),
    "scale": (
        "OoD images whose features are spread over more units than the data's are "
        "scaled up: {scale}, where the energy, which is not scaled, has {energy}.",
        "cifar6/table2",
    ),
    "she": (
        "OoD images of long features pass, since the product grows with their length: "
        "{she}, where nearest neighbours, of unit length, have {knn}.",
        "fmnist/default",
    ),
    "vim": (
        "What OoD images have within the principal space adds nothing to the virtual "
        "logit: {vim}, where the energy alone has {energy}.",
        "cifar6/table2",
    ),
}


def sentence(name: str) -> str:
    """Of a detector, with its numbers, the benchmark and the first of the files."""
    text, stem = SENTENCES[name]
    benchmark, cells = cells_of(stem)
    told = re.sub(r"\{(.*?)\}", lambda row: str(cells[row[1]]), text)
    told = told.replace("*", r"\*")
    return f"{told} (AUROC on `{benchmark}`: [{stem}](../results/{stem}-0.json).)"


def cells_of(stem: str) -> tuple[str, dict[str, Cell]]:
    """Its benchmark, and row → AUROC over the seeds of these results."""
    benchmark, found = "", {}
    for path in sorted(RESULTS.glob(f"{stem}-[0-9].json")):
        metrics = json.loads(path.read_text(encoding="utf-8"))
        benchmark = metrics["benchmark"]
        for row, facts in metrics["methods"].items():
            cell = found.get(row, Cell(()))
            found[row] = Cell((*cell.aurocs, facts["auroc"]))
    return benchmark, found
