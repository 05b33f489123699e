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
from fssd_jax import InputError, map_batches, noise
from fssd_jax.data.inputs import Watched, as_input, count_rows, is_array
from fssd_jax.data.pipeline import batches
from fssd_jax.data.sources import ArrayDataset
from fssd_jax.detectors import displacement, fssd, knn, mahalanobis, msp, odin

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


def of_two(variables, x):
    """A network of token ids and a mask, and of a number a row."""
    embedded = variables["table"][x["ids"]] * x["mask"][..., None]
    length = x["mask"].sum(1, keepdims=True)
    z = embedded.sum(1) / length + x["more"][:, None]
    return OrderedDict(z=z, logits=z @ variables["w"])


def test_several_arrays_are_one_input():
    n = 23
    data = {
        "ids": RNG.integers(0, 1000, (n, 6)),
        "mask": RNG.random((n, 6)) < 0.7,
        "more": RNG.normal(size=n),
    }
    data["mask"][:, 0] = True
    variables = {"table": RNG.normal(size=(1000, 4)), "w": RNG.normal(size=(4, 2))}
    variables = jax.tree.map(jnp.float32, variables)
    tokens = noise.random_tokens(jax.random.key(0), 40, (6,), 1000)
    around = {
        "ids": tokens,
        "mask": np.ones((40, 6), bool),
        "more": RNG.normal(size=40),
    }
    state = fssd.fit(of_two, variables, around)
    found = map_batches(fssd.score, of_two, variables, state, data, batch_size=8)

    def exact(d):
        embedded = np.float64(variables["table"])[d["ids"]] * d["mask"][..., None]
        z = embedded.sum(1) / d["mask"].sum(1, keepdims=True) + d["more"][:, None]
        return [z, z @ np.float64(variables["w"])]

    centers = [f.mean(0) for f in exact(jax.tree.map(np.asarray, around))]

    def far(d):
        pairs = zip(exact(d), centers, strict=True)
        return np.stack([np.linalg.norm(f - c, axis=1) for f, c in pairs], axis=1)

    d = far(data)
    got = map_batches(fssd.layer_scores, of_two, variables, state, data, batch_size=8)
    np.testing.assert_allclose(got, d, rtol=1e-4)
    parts = [jax.tree.map(lambda a, i=i: a[i : i + 5], data) for i in range(0, n, 5)]
    again = map_batches(fssd.score, of_two, variables, state, iter(parts))
    np.testing.assert_allclose(again, found, rtol=1e-5)
    # Numbers beside ids have a gradient, ids have none and stay.
    given = jax.tree.map(jnp.asarray, as_trees(data))
    of = of_two, variables, state.singularity
    stepped = fssd_jax.fssd.fssd(*of, given, jnp.float32(0.1))
    moved = [{**data, "more": data["more"] + s * 0.1} for s in (1, -1)]
    both = np.stack([far(m) for m in moved])
    assert np.isclose(both, np.asarray(stepped)[None], rtol=1e-4).any(0).all()
    assert (np.asarray(stepped) > d).mean() > 0.8


def as_trees(data):
    return {k: a if a.dtype == bool else as_input(a) for k, a in data.items()}


def test_ids_alone_have_no_step():
    table = jnp.asarray(RNG.normal(size=(50, 3)), jnp.float32)
    feature_fn = lambda v, x: OrderedDict(z=v[x].mean(1))  # noqa: E731
    ids = [RNG.integers(0, n, (40, 5)) for n in (50, 25)]
    tokens = noise.random_tokens(jax.random.key(0), 30, (5,), 50)
    with pytest.raises(InputError, match=r"epsilons=\(0\.,\)"):
        fssd.fit(feature_fn, table, tokens, *ids, epsilons=(0.0, 0.1))
    state = fssd.fit(feature_fn, table, tokens, *ids, epsilons=(0.0,))
    assert state.epsilon is None
    assert np.isfinite(map_batches(fssd.score, feature_fn, table, state, ids[0])).all()


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
        ([(x, int(k)) for x, k in zip(FLOATS, Y, strict=True)], "DataLoader"),
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


def test_what_a_network_raises_says_what_it_was_given():
    def embedded(variables, x):
        return OrderedDict(z=jnp.eye(9)[x].sum(1))

    def doubled(variables, x):
        return OrderedDict(z=x.reshape(len(x), -1))

    ids = np.arange(40, dtype=np.uint8).reshape(10, 4) % 9
    with pytest.raises(InputError, match=r"float32\[16, 4\].*give ids as int32"):
        fssd.fit(embedded, {}, ids)
    fssd.fit(embedded, {}, ids.astype(np.int32))
    named = {"pixel_values": FLOATS, "labels": Y}
    with pytest.raises(InputError, match=r"AttributeError .*'labels': .*beside"):
        fssd.fit(doubled, {}, named)
    fssd.fit(doubled, {}, (named["pixel_values"], named["labels"]))
    with pytest.raises(InputError, match=r"TypeError .*f\(variables, inputs\)"):
        map_batches(msp.score, lambda x: x, {}, msp.fit(), FLOATS)


def test_complex_numbers_and_no_layers_are_told_of():
    waves = lambda v, x: OrderedDict(z=jnp.fft.fft(x, axis=1))  # noqa: E731
    with pytest.raises(InputError, match=r"complex64\[32, 3, 2, 1\]; take their abs"):
        fssd.fit(waves, {}, FLOATS)
    with pytest.raises(InputError, match="returns no layers"):
        fssd.fit(lambda v, x: {}, {}, FLOATS)


# ---- networks whose rows are no rows of images -----------------------------------


def transposed(variables, x):
    return OrderedDict(z=features(variables, x)["z"].T)


@pytest.mark.parametrize("count", [6, 8])  # there are six numbers an image
def test_a_first_axis_that_is_not_the_batch_is_found(count):
    x = FLOATS[:count]
    with pytest.raises(
        InputError, match=r"first axis is not the batch|expected one arr"
    ):
        fssd.fit(transposed, 1.0, x, batch_size=count)


@pytest.mark.parametrize("wrong", [lambda v, x: x, lambda v, x: [x], lambda v, x: None])
def test_what_is_no_mapping_of_layers_is_refused(wrong):
    with pytest.raises(InputError, match="mapping of layer name"):
        fssd.fit(wrong, {}, FLOATS)


def test_a_plain_dict_keeps_its_order():
    feature_fn = lambda v, x: {"z": x.reshape(len(x), -1), "a": x.mean((1, 2))}  # noqa: E731
    state = fssd.fit(feature_fn, {}, FLOATS, FLOATS, FLOATS**3, epsilons=(0.01,))
    assert list(state.singularity.center) == ["z", "a"]
    assert np.isfinite(map_batches(fssd.score, feature_fn, {}, state, FLOATS)).all()


def mixed(variables, x):
    """As BatchNorm in training mode."""
    z = x.reshape(len(x), -1)
    return OrderedDict(z=z, normed=(z - z.mean(0, keepdims=True)) / z.std())


def placed(variables, x):
    """As dropout by a fixed key: what is dropped depends on the place in the batch."""
    z = x.reshape(len(x), -1)
    return OrderedDict(
        z=z, dropped=z * jax.random.bernoulli(jax.random.key(0), 0.5, z.shape)
    )


def relative(variables, x):
    """To the first row, which itself has the same feature in any batch."""
    z = x.reshape(len(x), -1)
    return OrderedDict(z=z, less=z - z[:1])


def rolled(variables, x):
    """The first row of a padded batch has its own feature, of the copy behind it."""
    z = x.reshape(len(x), -1)
    return OrderedDict(z=z, next=jnp.roll(z, 1, axis=0))


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        *((mixed, "normed"), (placed, "dropped")),
        *((relative, "less"), (rolled, "next")),
    ],
)
def test_rows_that_depend_on_their_batch_are_found(network, layer):
    told = rf"layer '{layer}' .*depend on what else.*train=False.*eval"
    of = network, {}
    with pytest.raises(InputError, match=told):
        fssd.fit(*of, FLOATS)
    # And by whatever does not look at features.
    with pytest.raises(InputError, match="depends on what else"):
        knn.fit(*of, FLOATS, layer, k=3)
    with pytest.raises(InputError, match="depends on what else"):
        map_batches(
            odin.score, lambda v, x: network(v, x)[layer], {}, odin.fit(), FLOATS
        )
    with pytest.raises(InputError, match=f"layer '{layer}'|depends on what else"):
        mahalanobis.estimate_gaussians(*of, FLOATS, Y, 2)


def test_features_and_logits_that_are_not_finite_are_told_of():
    feature_fn = lambda v, x: OrderedDict(z=jnp.log(x.reshape(len(x), -1) - v))  # noqa: E731
    with pytest.raises(InputError, match=r"layers \['z'\] .*NaN or infinite"):
        fssd.fit(feature_fn, 0.5, FLOATS)
    bright = FLOATS * 0.4 + 0.6
    state = fssd.fit(feature_fn, 0.5, bright)
    one = np.concatenate([bright, FLOATS[:1] * 0])
    with pytest.raises(InputError, match=r"1 of 24 images .*image 23"):
        map_batches(fssd.score, feature_fn, 0.5, state, one)
    overflow = lambda v, x: jnp.exp(1000 * x.reshape(len(x), -1))  # noqa: E731
    with pytest.raises(InputError, match="scores of 23 of 23 images"):
        map_batches(odin.score, overflow, {}, odin.fit(), FLOATS)


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


# ---- noise ------------------------------------------------------------------------


def test_noises_have_the_moments_they_say():
    key, shape = jax.random.key(0), (20, 10)
    uniform = fssd_jax.uniform_noise(key, 100, shape, low=-3.0, high=1.0)
    assert abs(uniform.mean() + 1) < 5 * 4 / 12**0.5 / 20000**0.5
    assert -3 <= uniform.min() < -2.99 < 0.99 < uniform.max() <= 1
    normal = noise.normal_noise(key, 100, shape, mean=2.0, std=0.5)
    assert abs(normal.mean() - 2) < 5 * 0.5 / 20000**0.5
    assert abs(normal.std() - 0.5) < 0.02
    tokens = noise.random_tokens(key, 100, shape, 5)
    counts = np.bincount(np.asarray(tokens).ravel(), minlength=5)
    assert len(counts) == 5
    assert abs(counts - 4000).max() < 5 * (20000 * 0.2 * 0.8) ** 0.5
    # Drawn piece by piece, they are the same.
    draws = {
        "uniform": partial(fssd_jax.uniform_noise, key, shape=shape),
        "normal": partial(noise.normal_noise, key, shape=shape),
        "tokens": partial(noise.random_tokens, key, shape=shape, vocabulary=9),
        "like": partial(noise.noise_like, key, data=FLOATS),
    }
    for draw in draws.values():
        np.testing.assert_array_equal(draw(n=5)[2:], draw(n=3, start=2))


def test_noise_like_data_is_in_their_range():
    data = {"x": RNG.uniform(-4, 9, (200, 8)), "ids": RNG.integers(3, 7, (200, 5))}
    data["mask"] = RNG.random((200, 3)) < 0.5
    found = noise.noise_like(jax.random.key(0), 500, data)
    low, high = data["x"].min(), data["x"].max()
    assert low <= found["x"].min() < low + 0.1
    assert high - 0.1 < found["x"].max() <= high
    assert set(np.unique(found["ids"])) == {3, 4, 5, 6}
    assert found["mask"].dtype == bool
    assert found["x"].shape == (500, 8)
    with pytest.raises(InputError, match="all numbers of the data are"):
        noise.noise_like(jax.random.key(0), 3, np.ones((4, 2)))


def test_noise_in_another_range_is_warned_of():
    signals = np.float32(RNG.uniform(8, 10, (60, 16)) * RNG.choice([-1, 1], (60, 16)))
    feature_fn = lambda v, x: OrderedDict(z=x @ v)  # noqa: E731
    weights = jnp.asarray(RNG.normal(size=(16, 4)), jnp.float32)
    fit = partial(fssd.fit, feature_fn, weights, unit_range=False)
    pixels = fssd_jax.uniform_noise(jax.random.key(0), 50, (16,))
    with pytest.warns(UserWarning, match=r"noise lies in .*noise_like"):
        fit(pixels, signals)
    with pytest.warns(UserWarning, match=r"unit_range=False, but noise lies in"):
        fit(pixels)
    # As advised: no warning, which would be an error here.
    matched = noise.noise_like(jax.random.key(0), 50, signals)
    fit(matched, signals * np.float32(1.5))
    fit(matched)
    fssd.fit(feature_fn, weights, pixels, np.float32(RNG.random((60, 16)) * 0.3 + 0.7))


def test_what_has_a_shape_or_a_type_only_is_no_array():
    """A table that knows its size, a column that knows its type: rows, not numbers."""
    assert is_array(np.zeros(2))
    assert not is_array(SimpleNamespace(shape=(2,)))
    assert not is_array(SimpleNamespace(dtype=np.float32))


def test_a_mask_that_is_true_throughout_has_noise():
    data = {"x": np.float32([[0, 1], [2, 3]]), "mask": np.ones((2, 40), bool)}
    found = noise.noise_like(jax.random.key(0), 3, data)["mask"]
    assert {*np.unique(found)} == {False, True}


def test_noise_on_both_sides_of_zero_is_not_taken_for_pixels():
    seen = Watched(None, "noise")
    for seen.range in ((-0.5, 0.5), (0.0, 5.0)):
        fssd._tell_range(seen, None, False)  # a warning would be an error
    for seen.range in ((0.0, 1.0), (0.2, 0.8)):
        with pytest.warns(UserWarning, match="are the data there"):
            fssd._tell_range(seen, None, False)


def test_some_layers_are_left_out_and_all_are_an_error():
    with pytest.warns(UserWarning, match=r"\['b'\] are left out"):
        fssd._tell_left_out(["b"], ["a", "b"])
    with pytest.raises(InputError, match="none of the layers"):
        fssd._tell_left_out(["a", "b"], ["a", "b"])
