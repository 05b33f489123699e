"""Whatever people bring comes in by one door, and comes out the same, or is refused."""

import itertools
from collections import OrderedDict, namedtuple
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fssd_jax
from fssd_jax import InputError
from fssd_jax.data.inputs import as_input, count_rows, is_array
from fssd_jax.data.pipeline import batches
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.detectors import displacement, fssd, knn, mahalanobis, odin

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (23, 3, 2, 1), np.uint8)
FLOATS = PIXELS / np.float32(255)
Y = (np.arange(23) % 2).astype(np.int64)


class Tensor:
    """As PyTorch's and TensorFlow's are: an array, but not NumPy's."""

    def __init__(self, a):
        self.a, self.shape, self.dtype, self.ndim = a, a.shape, str(a.dtype), a.ndim

    def __len__(self):
        return len(self.a)

    def __getitem__(self, index):
        return Tensor(self.a[index])

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.a, dtype)


class Loader:
    """Can be gone through again and again, and has no shape."""

    def __init__(self, *parts):
        self.parts = parts

    def __iter__(self):
        return iter(self.parts)


def cut(*arrays):
    """Batches of different sizes, one of them empty."""
    ends = 0, 5, 6, 16, len(arrays[0])
    parts = [tuple(a[i:j] for a in arrays) for i, j in itertools.pairwise(ends)]
    return [*parts, tuple(a[:0] for a in arrays)]


def memory_map(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


FORMS = {
    "array": lambda _: PIXELS,
    "floats": lambda _: FLOATS,
    "float64": lambda _: FLOATS.astype(np.float64),
    "jax": lambda _: jnp.asarray(FLOATS),
    "int64 in four axes": lambda _: PIXELS.astype(np.int64),
    "memory map": memory_map,
    "tensor": lambda _: Tensor(PIXELS),
    "numbers": lambda _: FLOATS.tolist(),
    "set": lambda _: ArrayDataset(PIXELS, Y, "name", "all", "made", "0"),
    "pair": lambda _: (PIXELS, Y),
    "pair and list": lambda _: (FLOATS, Y.tolist()),
    "TFDS": lambda _: {"image": PIXELS, "label": Y},
    "batches": lambda _: [x for (x,) in cut(PIXELS)],
    "batches of one": lambda _: Loader(*map(list, cut(Tensor(PIXELS)))),
    "pairs": lambda _: Loader(*cut(PIXELS, Y)),
    "lists of two": lambda _: Loader(*map(list, cut(Tensor(FLOATS), Tensor(Y)))),
    "TFDS batches": lambda _: [{"image": x, "label": y} for x, y in cut(PIXELS, Y)],
    "generator": lambda _: (x for (x,) in cut(FLOATS)),
    "one large batch": lambda _: iter([FLOATS]),
    "datasets": lambda _: [ArrayDataset(*p, *"nsm0") for p in cut(PIXELS, Y)],
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_the_same_rows(form, tmp_path):
    found = list(batches(FORMS[form](tmp_path), 8))
    assert [(len(b.x), int(b.mask.sum())) for b in found] == [(8, 8), (8, 8), (8, 7)]
    whole = np.concatenate([np.asarray(b.x)[b.mask] for b in found])
    np.testing.assert_allclose(whole, FLOATS, rtol=1e-6)
    assert whole.dtype == np.float32
    with_labels = ("set", "pair", "pairs", "TFDS", "TFDS batches", "lists", "data")
    if form.startswith(with_labels):
        y = np.concatenate([np.asarray(b.y)[b.mask] for b in found])
        np.testing.assert_array_equal(y, Y)
    else:
        assert {b.y is None for b in found} == {True}


def test_pixels_become_floats_and_ids_stay_what_they_are():
    ids = np.array([[0, 255], [30_000, 2**31 - 1]])
    for given in (ids, ids.astype(np.uint32), ids.astype(np.int32)):
        found = as_input(given)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, ids)
    assert as_input(np.array([[255, 51]], np.uint8)).tolist() == [[1, np.float32(0.2)]]
    assert as_input(np.array([[True, False]])).tolist() == [[1, 0]]
    assert as_input(jnp.ones((1, 2), jnp.bfloat16)).dtype == np.float32
    with pytest.raises(InputError, match="below 2³¹"):
        list(batches(ids + 1, 8))
    # Among several inputs three axes are not taken for images, as is said.
    (batch,) = batches({"ids": np.full((2, 3, 4), 300)}, 2)
    np.testing.assert_array_equal(batch.x["ids"], np.full((2, 3, 4), 300))


def features(variables, x):
    z = x.reshape(len(x), -1) * variables
    return OrderedDict(z=z, logits=jnp.sin(3 * z[:, :3]))


def logits(variables, x):
    return features(variables, x)["logits"]


def test_every_fit_takes_streams(tmp_path):
    """The same state as of arrays, from generators that are gone through once."""
    v, around = jnp.float32(2), np.asarray(RNG.random((30, 3, 2, 1)), np.float32)
    stream = lambda x, *y: (p if y else p[0] for p in cut(x, *y))  # noqa: E731
    ood = np.asarray(RNG.random((23, 3, 2, 1)) ** 3, np.float32)
    eps = (0.0, 0.01)

    def states(give):
        of = features, v
        yield fssd_jax.estimate_singularity(*of, give(around))
        yield fssd.fit(*of, give(around), give(FLOATS), give(ood), epsilons=eps)
        gaussians = mahalanobis.estimate_gaussians(*of, give(FLOATS), Y, 2)
        yield gaussians
        yield mahalanobis.fit(*of, gaussians, give(FLOATS), give(ood), epsilons=eps)
        yield odin.fit(logits, v, give(FLOATS), give(ood), epsilons=eps)
        yield knn.fit(*of, give(FLOATS), "z", k=3)
        yield displacement.fit(*of, jnp.float32(1.5), give(FLOATS[:, :1] * 0.9 + 0.05))

    features_of_one = list(states(lambda x: x))
    for whole, streamed in zip(features_of_one, states(stream), strict=True):
        close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
        jax.tree.map(close, whole, streamed)
    of_pairs = mahalanobis.estimate_gaussians(features, v, stream(FLOATS, Y), None, 2)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), of_pairs,
                 features_of_one[2])  # fmt: skip


Pair = namedtuple("Pair", ["a", "b"])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "got None"),
        ("photos/test", "the path photos/test; .*load_images"),
        (3, "got a int; give one array"),
        ([], r"empty; at least one batch.*make it anew"),
        (iter([]), "empty"),
        (FLOATS[:0], "empty"),
        ((FLOATS, FLOATS), r"a tuple of \[\[23, 3, 2, 1\], .*give one array"),
        ([(FLOATS, FLOATS)], r"batch 0: a tuple of .*which of them"),
        (((x, int(k)) for x, k in zip(FLOATS, Y, strict=True)), "DataLoader"),
        ((FLOATS, Y[:5]), "23 rows, and 5 labels"),
        ([(FLOATS, Y), (FLOATS, Y[:5])], "batch 1: 23 rows, and 5 labels"),
        ([(FLOATS, Y), (FLOATS, None)], "batch 1: labels stand beside some"),
        (np.ma.masked_greater(FLOATS, 0.9), r"values are masked; .*x\.filled"),
        ({"x": np.ma.masked_greater(FLOATS, 0.9)}, r"values are masked"),
        ({"a": FLOATS, "b": FLOATS[:4]}, "different numbers of rows"),
        (Pair(FLOATS, FLOATS[:4]), "different numbers of rows"),
        ({"a": "text"}, "a dict of"),
        ([FLOATS, FLOATS[:, :2]], r"batch 1: its rows are .*those before it"),
        ([FLOATS, PIXELS[..., 0]], r"batch 1: its rows are"),
        ([FLOATS, np.full_like(FLOATS, np.nan)], r"batch 1: image 23 holds NaN"),
        ([[0.1, 0.2], [0.3]], "expected an array"),
        (np.array(["a", "b"])[:, None], "expected integers"),
        ({"x": FLOATS * 7}, r"\['x'\]: float images must lie in \[0, 1\]"),
    ],
)
def test_what_is_no_data_is_told_so(data, told):
    with pytest.raises(InputError, match=f"(?s){told}"):
        list(batches(data, 8))


def test_a_generator_that_was_used_up_is_told_of():
    used = (x for (x,) in cut(FLOATS))
    assert len(list(batches(used, 8))) == 3
    with pytest.raises(InputError, match="gone through before: make it anew"):
        list(batches(used, 8))


def test_labels_come_as_they_are_collated():
    torch = pytest.importorskip("torch")
    named, weights = tuple("abc"), torch.ones(3, dtype=torch.bfloat16).requires_grad_()
    for y in (named, list(named), np.array(named), weights):
        (batch,) = batches([(FLOATS[:2], y[:2]), (FLOATS[2:3], y[2:])], 4)
        expected = np.ones(3) if y is weights else np.array(named)
        np.testing.assert_array_equal(np.asarray(batch.y)[batch.mask], expected)


def test_masked_arrays_without_a_mask_are_arrays():
    (batch,) = batches(np.ma.masked_array(FLOATS), 32)
    np.testing.assert_array_equal(np.asarray(batch.x)[batch.mask], FLOATS)


def test_rows_are_counted_where_that_needs_no_reading():
    assert count_rows(PIXELS) == count_rows((PIXELS, Y)) == 23
    assert count_rows({"a": FLOATS, "b": FLOATS}) == 23
    assert count_rows(iter([FLOATS])) is None


def test_memory_is_that_of_a_few_batches():
    """However many rows come: none is held longer than its batch."""
    alive, most = [0], [0]

    class Part(np.ndarray):
        def __del__(self):
            alive[0] -= 1

    def stream():
        for _ in range(200):
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            yield np.full((7, 2, 2, 1), 0.5, np.float32).view(Part)

    assert sum(int(b.mask.sum()) for b in batches(stream(), 16)) == 1400
    assert most[0] < 10


def test_scores_of_pixels_without_the_door_are_those_of_floats():
    """uint8 handed to a score itself, in which they were taken for 0 to 255."""
    state = fssd.fit(features, 1.0, FLOATS, FLOATS, FLOATS**3, epsilons=(0.0, 0.01))
    stepped = state._replace(epsilon=jnp.float32(0.01))
    for of in (state, stepped):
        np.testing.assert_allclose(
            fssd.score(features, 1.0, of, PIXELS),
            fssd.score(features, 1.0, of, FLOATS),
            rtol=1e-5,
            atol=1e-6,
        )
    step = odin.State(jnp.float32(1), jnp.float32(0.01), *odin.fit()[2:])
    np.testing.assert_allclose(
        odin.score(logits, 1.0, step, PIXELS),
        odin.score(logits, 1.0, step, FLOATS),
        rtol=1e-5,
    )


def test_what_has_a_shape_or_a_type_only_is_no_array():
    """A table that knows its size, a column that knows its type: rows, not numbers."""
    assert is_array(np.zeros(2))
    assert not is_array(SimpleNamespace(shape=(2,)))
    assert not is_array(SimpleNamespace(dtype=np.float32))
