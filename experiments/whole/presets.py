"""What `fssd all` runs: the commands of each preset, one table a preset."""

from typing import NamedTuple


class Part(NamedTuple):
    name: str
    script: str  # of the menu
    args: str  # as in a shell; {out} is the folder of all results
    minutes: float  # about, on the preset's machine: only their ratios count for long
    needs: tuple[str, ...] = ()  # keys of `needed.CHECKS`
    takes: tuple[str, ...] = ()  # likewise, without which it does less
    reads: str = ""  # what it gathers, below OUT: it always runs if that is there


GREY = ("fashion_mnist", "mnist")
CIFAR = ("cifar10",)
FAR = ("svhn_cropped", *GREY)  # OoD sets of CIFAR-10
SVHN = (*CIFAR, "svhn_cropped")
FACES = ("ms1m", "imagenet")
OE = ("outliers",)  # of Outlier Exposure, which is one of all methods
TANGENT = "neural_tangents"
ALL = "--methods all --seeds 0 1 2"
BRIEF = "--epochs 4 --short-epochs 1"
METHODS = "--methods fssd fssd_clean msp"  # with a single network
SQUARED = "--loss squared --network"

TINY = (
    Part("table2-digits", "table2", "--benchmark digits --tiny", 0.6),
    Part("table2-clean", "table2", "--benchmark digits --protocol clean --tiny", 0.7),
    Part("table2-fmnist", "table2", "--benchmark fmnist --tiny", 1, GREY),
    Part("figure1", "figure1", "--preset tiny --benchmark digits", 0.3),
    Part(
        "figure2",
        "figure2",
        "--benchmark digits --epochs 2 --probes 20 --gradient 50 --moments 4",
        0.8,
    ),
    Part("figure3", "figure3", "--benchmark digits --seeds 0 --images 50", 0.4),
    Part("figure4", "figure4", "--preset tiny --benchmark digits", 1, takes=OE),
    Part("figure5", "figure5", "--preset tiny --benchmark digits", 0.5, takes=OE),
    Part("figure6", "figure6", "--preset tiny --benchmark digits", 0.3),
    Part("kernel_regression", "kernel_regression", "--preset tiny", 1.2, GREY),
    Part(
        "kernel_phases",
        "kernel_phases",
        "--preset tiny --benchmarks digits --networks perceptron --seeds 0 --no-twin",
        1.6,
    ),
    Part(
        "tangent_kernel",
        "tangent_kernel",
        "--benchmark digits --width 4 --train 100 --kernel 8 --steps 4 --moments 2 "
        "--directions 2 --examples 1",
        0.5,
    ),
    Part(
        "infinite_width",
        "infinite_width",
        "--benchmark digits --train 50 --points 20 --seeds 0",
        0.3,
        (TANGENT,),
    ),
    Part("leakage", "leakage", "--benchmark digits --tiny", 0.4),
    Part("gaps", "gaps", "--tiny", 1, (*GREY, "outliers")),
    Part("train_size", "train_size", "--benchmark digits --tiny --sizes 100 200", 1),
    Part("ablation_protocol", "ablation_protocol", "--benchmark digits --tiny", 0.5),
    Part("label_free", "label_free", "--families digits --seeds 0 --tiny", 2),
)

# Of one seed, with few epochs and images, so that all of it fits into an afternoon of
# one core: to see that everything works, and what it looks like. First what is soon
# done and what shows early that something is wrong; then the networks that others take
# up: figures 1 and 6, leakage, gaps, ablation_protocol.
SMALL = (
    Part("table2-digits", "table2", "--benchmark digits --methods all", 11, takes=OE),
    Part("figure3", "figure3", "", 1.5, GREY),
    Part("figure2", "figure2", "", 11, GREY),
    Part("tangent_kernel", "tangent_kernel", "--steps 400", 9, GREY),
    Part("infinite_width", "infinite_width", "--seeds 0", 1, (*GREY, TANGENT)),
    *(
        Part(
            f"kernel-{network}",
            "kernel_regression",
            f"--network {network} --widths {widths} --steps {steps}",
            5,
            GREY,
        )
        for network, widths, steps in (
            ("perceptron", "32 512", 400),
            ("convnet", "4 16", 200),
        )
    ),
    *(
        Part(
            f"kernel-{network}-squared",
            "kernel_regression",
            f"{SQUARED} {network} --widths {widths} --steps 200",
            5,
            (*GREY, TANGENT),
        )
        for network, widths in (("perceptron", "32 512"), ("strided", "16 64"))
    ),
    Part(
        "kernel_phases",
        "kernel_phases",
        "--benchmarks digits --networks perceptron --losses squared "
        "--parametrisations ntk standard --widths 32 512 --seeds 0 --no-twin",
        6,
    ),
    Part(
        "table2-fmnist6",
        "table2",
        f"--benchmark fmnist6 {METHODS} {BRIEF}",
        8,
        GREY[:1],
    ),
    Part("figure6", "figure6", "--epochs 4", 1, GREY),
    Part("leakage", "leakage", f"--benchmark fmnist6 {BRIEF}", 7, GREY[:1]),
    Part(
        "table2-fmnist",
        "table2",
        f"--benchmark fmnist {METHODS} energy knn vim odin mahalanobis {BRIEF}",
        24,
        GREY,
    ),
    Part("figure1", "figure1", "--epochs 4", 0.5, GREY),
    Part("ablation_protocol", "ablation_protocol", BRIEF, 20, GREY),
    Part(
        "gaps",
        "gaps",
        f"{BRIEF} --train-size 10000",
        23,
        (*GREY, "outliers"),
    ),
    Part(
        "table2-fmnist-clean",
        "table2",
        f"--benchmark fmnist --protocol clean {BRIEF}",
        1,
        GREY,
    ),
    Part(
        "train_size",
        "train_size",
        f"--benchmark fmnist --sizes 1000 10000 --methods fssd fssd_clean msp {BRIEF}",
        10,
        GREY,
    ),
    Part("figure4", "figure4", f"--images 50 {METHODS}", 3, GREY),
    Part("figure5", "figure5", METHODS, 2, GREY),
    Part("label_free", "label_free", "--families digits --seeds 0 1", 3),
    Part(
        "table2-cifar6",
        "table2",
        "--benchmark cifar6 --network cifar_resnet20 --width 8 --epochs 5 "
        f"--train-size 5000 {METHODS}",
        27,
        CIFAR,
        FAR,
    ),
    Part(
        "table2-genomes",
        "table2",
        "--benchmark genomes --epochs 2 --train-size 5000 --methods fssd_clean msp",
        3,
        ("genomes",),
    ),
)

LARGE = "accelerator"
PAPER = (
    Part("table2-digits", "table2", f"--benchmark digits {ALL}", 10, takes=OE),
    Part("table2-fmnist", "table2", f"--benchmark fmnist {ALL}", 30, GREY, OE),
    Part("table2-fmnist6", "table2", f"--benchmark fmnist6 {ALL}", 20, GREY[:1], OE),
    Part(
        "table2-fmnist-clean",
        "table2",
        f"--benchmark fmnist --protocol clean {ALL}",
        10,
        GREY,
        OE,
    ),
    Part(
        "table2-fmnist-released",
        "table2",
        f"--benchmark fmnist --protocol released {ALL}",
        10,
        GREY,
        OE,
    ),
    *(
        Part(f"figure{i}", f"figure{i}", "--preset paper", minutes, GREY, OE)
        for i, minutes in ((1, 2), (4, 60), (5, 30), (6, 2))
    ),
    Part("figure2", "figure2", "", 5, GREY),
    Part("figure3", "figure3", "", 5, GREY),
    Part("leakage", "leakage", "--benchmark fmnist6", 10, GREY[:1]),
    Part("gaps", "gaps", "", 20, (*GREY, "outliers")),
    Part("train_size", "train_size", "--benchmark fmnist --methods all", 30, GREY, OE),
    Part("ablation_protocol", "ablation_protocol", "", 10, GREY),
    Part("tangent_kernel", "tangent_kernel", "", 10, GREY),
    Part("infinite_width", "infinite_width", "", 10, (*GREY, TANGENT)),
    *(
        Part(
            f"kernel-{network}",
            "kernel_regression",
            f"--preset paper --network {network}",
            120,
            (*GREY, LARGE),
        )
        for network in ("perceptron", "convnet")
    ),
    *(
        Part(  # its form of infinite width has no larger preset
            f"kernel-{network}-squared",
            "kernel_regression",
            f"{SQUARED} {network}",
            20,
            (*GREY, TANGENT),
        )
        for network in ("perceptron", "strided")
    ),
    Part(
        "kernel_phases",
        "kernel_phases",
        "--preset paper",
        1500,
        (*GREY, TANGENT, LARGE),
    ),
    Part("label_free", "label_free", "", 120, (*GREY, *CIFAR)),
    Part(
        "table2-cifar10",
        "table2",
        f"--benchmark cifar10 {ALL}",
        900,
        (*CIFAR, LARGE),
        FAR,
    ),
    Part(
        "table2-cifar6",
        "table2",
        f"--benchmark cifar6 {ALL}",
        600,
        (*CIFAR, LARGE),
        FAR,
    ),
    *(
        Part(f"table2-{name}", "table2", f"--benchmark {name} {ALL}", m, (name, LARGE))
        for name, m in (
            ("dogs", 900),
            ("celeba", 600),
            ("genomics", 8000),
            ("ms1m", 10_000),
            ("imagenet", 24_000),
        )
    ),
    # The paper's own, of the networks that are trained by then.
    *(
        Part(name, name.partition("-")[0], f"--preset paper {args}", m, (*of, LARGE))
        for name, args, m, of in (
            ("figure1-ms1m", "--benchmark ms1m --pair ms1m_imagenet", 60, FACES),
            ("figure5-cifar10", "--benchmark cifar10", 300, SVHN),
            ("figure5-dogs", "--benchmark dogs", 300, ("dogs",)),
            ("figure6-dogs", "--benchmark dogs", 30, ("dogs", *SVHN)),
        )
    ),
    Part("table2-genomes", "table2", f"--benchmark genomes {ALL}", 60, ("genomes",)),
)
