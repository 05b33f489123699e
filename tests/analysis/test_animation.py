"""Training in motion: what the page and the GIF show is what was recorded."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from analysis import animation
from analysis.dynamics import Record
from fssd_jax import InputError
from fssd_jax.fssd import Singularity

SETS = ("in-distribution", "OoD", "noise")
STEPS = (0, 1, 10)


def singularity(center):
    count = np.float32(1)
    fields = {"center": {"first": np.zeros(2), "logits": center}}
    others = {name: count for name in Singularity._fields if name != "center"}
    return Singularity(**fields, **others)


@pytest.fixture(scope="module")
def records():
    """Features [n, 5] that grow with the step, and speeds that tell set and step."""
    rng = np.random.default_rng(0)
    start = {name: rng.normal(size=(6, 5)) * (1 + i) for i, name in enumerate(SETS)}
    found = []
    for moment, step in enumerate(STEPS):
        features = {s: {"logits": f * (1 + moment)} for s, f in start.items()}
        speed = {s: np.full((6, 2), 10.0 * i + moment) for i, s in enumerate(SETS)}
        movements = {s: {"distance": v, "speed": v} for s, v in speed.items()}
        star = features["noise"]["logits"].mean(0)
        found.append(Record(step, movements, singularity(star), features))
    return found


def test_points_are_features_seen_along_two_directions(records):
    """The star is the mean of the noise there, too; nothing is farther than it was."""
    found = animation.movie(records, "logits")
    assert found.steps.tolist() == list(STEPS)
    noise = found.points["noise"]
    np.testing.assert_allclose(noise.mean(1), found.star, atol=1e-9)
    for s in SETS:
        for moment, record in enumerate(records):
            whole = record.features[s]["logits"]
            a, b = (
                whole[0] - whole[1],
                found.points[s][moment][0] - found.points[s][moment][1],
            )
            assert np.linalg.norm(b) <= np.linalg.norm(a) + 1e-9
    # As much of the variance at the end as the two largest eigenvalues have.
    last = np.concatenate([r["logits"] for r in records[-1].features.values()])
    values = np.linalg.eigvalsh(np.cov(last.T))[::-1]
    np.testing.assert_allclose(found.share, values[:2] / values.sum())
    np.testing.assert_allclose(found.speeds["OoD"], np.full((3, 6), [[10], [11], [12]]))


def test_arrays_are_read_as_they_were_written(records):
    found = animation.movie(records, "logits")
    again = animation.of_arrays(animation.to_arrays(found))
    assert (again.layer, list(again.points)) == ("logits", list(SETS))
    for name in ("steps", "star", "share"):
        np.testing.assert_allclose(
            getattr(again, name), getattr(found, name), rtol=1e-6
        )
    for s in SETS:
        np.testing.assert_allclose(
            again.points[s], found.points[s], rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(again.speeds[s], found.speeds[s])


def test_many_images_are_drawn_evenly():
    features = {"noise": np.arange(2 * 1000 * 3).reshape(2, 1000, 3).astype(float)}
    speeds = {"noise": np.tile(np.arange(1000.0), (2, 1))}
    features["noise"][:, ::2] *= -1
    found = animation.from_arrays("x", np.arange(2), features, np.zeros((2, 3)), speeds)
    chosen = found.speeds["noise"][0]
    assert len(chosen) == animation.SHOWN == found.points["noise"].shape[1]
    assert (chosen[0], chosen[-1]) == (0, 999)
    assert set(np.diff(chosen)) <= {5, 6}


def test_a_page_by_one_call(records, tmp_path):
    path = animation.write_page(tmp_path / "training.html", records, "logits")
    text = path.read_text()
    (told,) = map(json.loads, re.findall(r'json">(.*?)</script>', text))
    assert told["steps"] == list(STEPS)
    assert told["medians"] == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert [sum(h) for h in told["bars"][1]["heights"]] == pytest.approx([100] * 3)
    assert 'id="movie-parts"' in text
    assert 'id="explorer-parts"' not in text


def test_a_gif_of_all_moments_by_one_call(records, tmp_path):
    path = animation.write_gif(tmp_path / "training.gif", records, "logits")
    with Image.open(path) as picture:
        assert picture.format == "GIF"
        assert picture.n_frames == len(STEPS)
        frames, pauses = [], []
        for i in range(len(STEPS)):
            picture.seek(i)
            frames.append(np.asarray(picture.convert("L"), float))
            pauses.append(picture.info["duration"])
    assert pauses == [animation.PAUSE] * 2 + [animation.LAST]
    assert np.abs(frames[0] - frames[1]).max() > 50


def test_what_was_not_kept_is_told_with_what_to_do(records):
    with pytest.raises(InputError, match="keep=\\['fc1'\\]"):
        animation.movie(records, "fc1")
    with pytest.raises(InputError, match="1 with a speed, expected two"):
        animation.movie(records[:1], "logits")


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("count", [1, 4])
def test_features_without_two_directions_are_shown_too(tmp_path, count, width):
    """One logit, or probes that are all one image."""
    features = {s: {"logits": np.ones((count, width))} for s in SETS}
    speeds = {s: {"speed": np.zeros((count, 2))} for s in SETS}
    of = singularity(np.ones(width))
    records = [Record(step, speeds, of, features) for step in STEPS]
    text = animation.write_page(tmp_path / "a.html", records, "logits").read_text()
    (told,) = map(json.loads, re.findall(r'json">(.*?)</script>', text))
    assert told["share"] == [0, 0]
    assert animation.write_gif(tmp_path / "a.gif", records, "logits").stat().st_size
