"""What is told of growth; the measurements themselves are other processes'."""

import json

import pytest

from benchmarks import slopes


def points(sizes, power, gib=1.0):
    return [
        {"size": n, "seconds": 0.01 * n**power, "peak_gib": gib * (1 + n / 1e9)}
        for n in sizes
    ]


def test_the_slope_is_of_the_last_factor_of_four():
    steep = points([8, 16], 3) + points([32, 64, 128], 1)
    assert slopes.slope(steep, "seconds") == pytest.approx(1)
    assert slopes.slope(points([1, 2, 4], 2), "seconds") == pytest.approx(2)
    stopped = [*points([1, 2], 1), {"size": 4, "stopped": "memory", "peak_gib": 16.0}]
    assert slopes.slope(stopped, "seconds") is None


def test_what_is_worse_than_linear_fails():
    good = {"growths": {name: points(g.sizes, 1) for name, g in slopes.GROWTHS.items()}}
    assert slopes.missed(good) == []
    sizes = slopes.GROWTHS["layers"].sizes
    bad = {"growths": {"layers": points(sizes, 1.3)}}
    assert slopes.missed(bad) == ["layers: time grows by a slope of 1.30"]
    images = points((1024, 4096), 1)
    images[-1]["peak_gib"] = 1.3
    grown = {"growths": {"images, sweep": images}}
    assert slopes.missed(grown) == ["images, sweep: memory grows"]
    stopped = {"growths": {"layers": [{"size": 1, "stopped": "time", "peak_gib": 1.0}]}}
    assert slopes.missed(stopped) == ["layers: stopped"]


def test_main_leaves_a_table_and_a_picture(tmp_path, monkeypatch, capsys):
    def measured(worker, arguments, memory, seconds):
        assert "slopes import work" in worker
        size = arguments[1]
        return {"seconds": size / 100, "peak_gib": 1.0}

    monkeypatch.setattr(slopes, "watched", measured)
    monkeypatch.setattr(slopes.cli, "start", lambda: None)
    assert slopes.main(["--tiny", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "benchmarks"
    found = json.loads((folder / "slopes.json").read_text())
    assert list(found["growths"]) == list(slopes.GROWTHS)
    assert (folder / "slopes.png").exists()
    told = (folder / "slopes.md").read_text()
    assert "| 256 to 512 images | 2.56 s to 5.12 s | 1.00 | 1.00 to 1.00 GiB |" in told


@pytest.mark.parametrize("name", ["layers", "classes"])
def test_a_measurement(name, monkeypatch):
    monkeypatch.setattr(slopes.cli, "start", lambda: None)
    monkeypatch.setattr(slopes, "IMAGES", 64)
    assert slopes.work(name, slopes.GROWTHS[name].sizes[0])["seconds"] > 0
