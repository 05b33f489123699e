"""Small sets of random images and reads in the real layouts of the large benchmarks."""

import numpy as np
from PIL import Image

from fssd_jax.data.genomics import FILES
from fssd_jax.data.imagenet import BREEDS, DOGS

# Among ImageNet's 1,000: five of ours, the last breed, and what is no dog.
SYNSETS = ("n01440764", *DOGS[:3], DOGS[49], BREEDS[1], "n02114367", "n15075141")
PEOPLE = 4


def photograph(rng, height: int, width: int, colour) -> np.ndarray:
    """Noise of blocks around a colour: JPEG keeps it, and crops are not alike."""
    coarse = rng.integers(-60, 61, (height // 8 + 1, width // 8 + 1, 3))
    fine = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    return np.clip(np.asarray(colour) + fine, 0, 255).astype(np.uint8)


def jpegs(folder, count: int, size: tuple[int, int], seed: int, named="{:05}.JPEG"):
    """Of one class: around one colour, of heights and widths that differ."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    colour = np.random.default_rng(seed % 1000).integers(60, 196, 3)
    for i in range(count):
        x = photograph(rng, size[0] + i % 3, size[1] + i % 5, colour)
        Image.fromarray(x).save(folder / named.format(i), quality=95)


def imagenet(root, per_class=(4, 2), synsets=SYNSETS, size=(240, 270)):
    """train/SYNSET/ and val/SYNSET/, as the archives are usually unpacked."""
    for split, count in zip(("train", "val"), per_class, strict=True):
        for i, synset in enumerate(synsets):
            seed = i + 1000 * (split == "val")
            jpegs(root / "imagenet2012" / split / synset, count, size, seed)


def imagenet_c(root, kinds=("fog",), levels=(1, 5), count=2, synsets=SYNSETS):
    for kind in kinds:
        for level in levels:
            for i, synset in enumerate(synsets):
                folder = root / "imagenet_c" / kind / str(level) / synset
                jpegs(
                    folder, count, (224, 224), 2000 + i + 100 * len(kind) + 10 * level
                )


def celeb_a(root, per_person=6, people=PEOPLE, blurry=3):
    """As published: every third image is blurry."""
    root = root / "celeb_a"
    count = per_person * people
    jpegs(root / "img_align_celeba", count, (218, 178), 7, "{:06}.jpg")
    names = [f"{i:06}.jpg" for i in range(count)]
    rows = [f"{name}  1 {1 if i % blurry == 0 else -1}" for i, name in enumerate(names)]
    text = "\n".join([str(count), "Bald Blurry", *rows]) + "\n"
    (root / "list_attr_celeba.txt").write_text(text)
    people = [f"{name} {10 * (i // per_person) + 3}" for i, name in enumerate(names)]
    (root / "identity_CelebA.txt").write_text("\n".join(people) + "\n")


def ms1m(root, per_person=(4, 2), tested=("m.0b", "m.0c")):
    for i, person in enumerate(("m.0a", "m.0b", "m.0c")):
        jpegs(root / "ms1m" / "train" / person, per_person[0], (112, 112), i)
        if person in tested:
            jpegs(root / "ms1m" / "test" / person, per_person[1], (112, 112), 50 + i)
    jpegs(root / "ijb_c" / "test", 9, (130, 120), 90)


def genomics(root, counts=None, length=250):
    """Tables of reads: each genus likes letters of its own."""
    folder = root / "genomics_ood"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, name in FILES.items():
        rows = ["seq\tlabel\tseq_info\tdomain"]
        for i in range((counts or {}).get(split, 8)):
            genus = i % 4 + 4 * split.endswith("_ood")
            letters = rng.choice(list("ACGT"), length, p=rng.dirichlet([9 + genus] * 4))
            rows.append(f"{''.join(letters)}\tGenus{genus}\tNC_{i}\tin")
        (folder / name).write_text("\n".join(rows) + "\n")
