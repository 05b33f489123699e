"""What a run keeps to be explored, and what its page is told of it."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from experiments.comparison import explorer
from experiments.comparison.answers import Answers
from experiments.comparison.rows import Scored
from experiments.harness import explored
from experiments.harness.files import save_arrays
from fssd_jax import InputError, metrics
from fssd_jax.data import load
from fssd_jax.data.folders import load_images
from tests.experiments import pages


def test_rates_at_the_sliders_places_are_those_of_metrics():
    """Of many equal scores."""
    for seed in range(3):
        ind, ood = pages.scores(seed)
        found = explored.at_levels(ind, ood)
        for k in (1, 7, 100, 160, 190, 200):
            tpr = k / explored.LEVELS
            assert found.ood[k - 1] / len(ood) == metrics.fpr_at(ind, ood, tpr).value
            threshold = found.threshold[k - 1]
            assert found.ind[k - 1] == sum(s >= threshold for s in ind)
            assert found.ind[k - 1] >= tpr * len(ind)
            above = ind[ind > threshold]
            assert len(above) < tpr * len(ind)  # none higher would have done


def test_the_images_own_places_on_the_curve_and_bars(tmp_path):
    told = explored.read(pages.write(tmp_path / "one-0", explored=True))
    for i, name in enumerate(pages.METHODS):
        ind, ood = pages.scores([0, i])
        row = told["rows"][name]
        own = np.concatenate([ind[0:42:6], ood[0:30:6]])
        np.testing.assert_array_equal(row["scores"], own)
        for counts, of in zip(row["images"], (ind, ood), strict=True):
            assert counts == [int((of >= s).sum()) for s in own]
        assert [sum(bars) for bars in row["bars"]] == [len(ind), len(ood)]
        assert row["auroc"] == metrics.auroc(ind, ood)
    assert told["shown"] == [7, 5]
    assert told["index"] == [*range(0, 42, 6), *range(0, 30, 6)]


@pytest.mark.parametrize(("channels", "side", "count"), [(1, 4, 30), (3, 40, 3)])
def test_each_image_is_found_in_the_sprite(channels, side, count):
    greys = np.linspace(0, 255, count).astype(np.uint8)
    shape = (count, side, side, channels)
    found = explored.sprite(np.broadcast_to(greys[:, None, None, None], shape))
    picture = base64.b64decode(found["url"].partition(",")[2])
    whole = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))
    for i, grey in enumerate(greys):
        row, column = divmod(i, found["columns"])
        tile = whole[row * side : (row + 1) * side, column * side : (column + 1) * side]
        assert abs(tile.astype(int) - int(grey)).max() <= (0 if side < 33 else 3)


def test_what_is_kept_of_a_run(setting):
    """Images and features of the places told, of the layer that pictures show."""
    scored = Scored(np.zeros(len(setting.test_ind)), np.zeros(len(setting.test_ood)))
    rows = {"fssd": scored, "fssd conv1": scored, "fssd clean": scored}
    found = Answers({"methods": rows}, {}, {}, {}, None)
    kept = explorer.kept(setting, found)
    assert kept["rows"].tolist() == ["fssd", "fssd clean"]
    for name, x in (("in-distribution", setting.test_ind), ("OoD", setting.test_ood)):
        at = kept[f"index/{name}"]
        assert len(at) == min(len(x), explorer.SHOWN)
        assert (at[0], at[-1]) == (0, len(x) - 1)
        assert set(np.diff(at)) <= {len(x) // len(at), -(-len(x) // len(at))}
        own = setting.tested[name].select(at)
        np.testing.assert_array_equal(own.x, x[at])
        labels = [f"class {y}" for y in own.y]
        assert kept[f"names/{name}"].tolist() == labels
        of = x[at] if x.dtype != np.uint8 else x[at] / 255
        np.testing.assert_allclose(kept[f"images/{name}"] / 255, of, atol=0.002)
        assert kept[f"points/{name}"].shape == (len(at), 2)
    # Principal components keep distances as well as any plane: along the first more.
    both = np.concatenate([kept["points/in-distribution"], kept["points/OoD"]])
    assert both[:, 0].var() > both[:, 1].var()
    np.testing.assert_allclose(both.mean(0), 0, atol=1e-3 * both.std())


def test_each_image_is_named_by_its_file_or_its_class(setting, tmp_path):
    """By the images themselves: one grey a class, and a file."""
    for grey in range(60):
        path = tmp_path / f"of {grey % 3}" / f"{grey:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((28, 28), grey, np.uint8)).save(path)
    folder = load_images(tmp_path, size=28, channels=1, limit=40, progress=False)
    known = load("digits", "test")
    some = np.random.default_rng(0).permutation(len(known.x))[:50]
    s = setting._replace(
        test_ind=folder.x[5:],
        test_ood=known.x[some],
        tested={"in-distribution": folder.select(slice(5, None)),
                "OoD": known.select(some)},
    )  # fmt: skip
    scored = Scored(np.zeros(35), np.zeros(50))
    kept = explorer.kept(s, Answers({"methods": {"fssd": scored}}, {}, {}, {}, None))
    greys = kept["images/in-distribution"][:, 0, 0, 0]
    expected = [f"of {grey % 3}/{grey:02}.png" for grey in greys]
    assert kept["names/in-distribution"].tolist() == expected
    at = some[kept["index/OoD"]]
    assert kept["names/OoD"].tolist() == [f"class {y}" for y in known.y[at]]
    assert not explorer.named(s._replace(tested={}), {})


def test_long_paths_are_cut_at_their_beginning():
    assert explorer._in_short("a" * 80) == "a" * 80
    cut = explorer._in_short("b" * 200 + "/c.png")
    assert (len(cut), cut[0], cut[-7:]) == (80, "…", "b/c.png")


def test_names_of_an_explorer_and_one_without_them(tmp_path):
    """Of before, and where one set's source knows nothing."""
    folder = pages.write(tmp_path / "old-0", explored=True)
    assert explored.read(folder)["names"] is None
    names = [f"class {i}" for i in range(7)]
    of = {"names/in-distribution": np.array(names)}
    save_arrays(folder / "explorer.npz", pages.kept() | of)
    assert explored.read(folder)["names"] == [*names, *5 * [""]]
    of = {"names/OoD": np.array(names)}
    save_arrays(folder / "explorer.npz", pages.kept() | of)
    with pytest.raises(InputError, match="7 names of 5 images"):
        explored.read(folder)


def test_large_images_are_made_small():
    wide = np.random.default_rng(0).uniform(size=(2, 50, 200, 3)).astype(np.float32)
    small = explorer.thumbnails(wide)
    assert small.shape == (2, 16, 64, 3)
    np.testing.assert_allclose(small.mean((1, 2)) / 255, wide.mean((1, 2)), atol=0.03)


def test_no_explorer_where_it_fails_and_the_reason_is_told(setting, capsys):
    scored = Scored(np.zeros(1), np.zeros(1))
    found = Answers({"methods": {"fssd": scored}}, {}, {}, {}, None)
    failed = {}
    assert explorer.written(setting._replace(test_ind=None), found, failed) == {}
    assert set(failed) == {"explorer"}
    assert "explorer failed" in capsys.readouterr().err
    of_nothing = Answers({"methods": {}}, {}, {}, {}, None)
    assert explorer.written(setting, of_nothing, {}) == {}


def test_a_set_in_the_order_of_its_classes_shows_all_of_them():
    y = np.repeat(np.arange(10), 100)
    at = explorer.evenly(len(y))
    assert (at[0], at[-1], len(set(at))) == (0, 999, explorer.SHOWN)
    np.testing.assert_array_equal(np.bincount(y[at]), np.full(10, 30))
    np.testing.assert_array_equal(explorer.evenly(7), np.arange(7))
