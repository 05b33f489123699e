"""One page of all results: what is gathered, what is told of it, and what is not."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest

from analysis import animation
from analysis.pages import FILES, as_json
from experiments import report
from experiments.comparison import overview
from experiments.harness import explored, gathered, markup, page, sheets
from experiments.harness.files import save_arrays
from experiments.harness.sheets import Sheet
from fssd_jax import InputError
from fssd_jax.data.published import README, TABLE2
from tests.experiments import pages


def made(results, out):
    assert report.main(["--results", str(results), "--out", str(out)]) == 0
    return out.read_text()


def cells(text, *words):
    """Of the rows of any table that begin with these cells."""
    rows = re.findall(r"<tr.*?</tr>", text)
    found = [re.findall(r"<td.*?>(.*?)</td>", row) for row in rows]
    plain = [[re.sub("<.*?>", "", cell) for cell in row] for row in found]
    return [row for row in plain if row[: len(words)] == list(words)]


# ---- what is gathered ---------------------------------------------------------------


def test_folders_at_any_depth_by_name_but_hidden_ones(tmp_path):
    for name in ("b", "a/deep/er", "a/.c.1234.unfinished"):
        pages.write(tmp_path / name)
    assert [run.name for run in gathered.gather(tmp_path)] == ["a/deep/er", "b"]
    assert [run.name for run in gathered.gather(tmp_path / "b")] == ["b"]


def test_no_results_are_told_with_what_to_do(tmp_path, capsys):
    for where in (tmp_path / "none", tmp_path):
        args = ["--results", str(where), "--out", str(tmp_path / "page.html")]
        assert report.main(args) == 1
    errors = capsys.readouterr().err.splitlines()
    assert "there is no folder" in errors[0]
    assert "no metrics.json" in errors[1]
    assert not (tmp_path / "page.html").exists()


DAMAGED = {
    "cut": ('{"a": ', "cannot be read"),
    "list": ("[1]", "holds no mapping"),
    "foreign": ('{"name": "a package"}', "holds no result of ours"),
    "bytes": (b"\xff\xfe", "cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_or_foreign_is_a_row_that_says_so(tmp_path, name, capsys):
    content, why = DAMAGED[name]
    (tmp_path / "all" / name).mkdir(parents=True)
    whole = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "all" / name / "metrics.json").write_bytes(whole)
    pages.write(tmp_path / "all" / "whole-0")
    text = made(tmp_path / "all", tmp_path / "page.html")
    (row,) = cells(text, name)
    assert any(why in cell for cell in row)
    (other,) = cells(text, "whole-0")
    assert not any(why in cell for cell in other)
    assert "1 of them not whole" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["scores.npz", "explorer.npz", animation.FILE])
def test_arrays_that_are_cut_off_or_changed_are_told_and_the_rest_stays(
    tmp_path, name, capsys
):
    """Cut at any place, or of the full length with a byte changed; then as advised."""
    folder = pages.write(tmp_path / "all" / "cut-0", explored=True)
    pages.write(tmp_path / "all" / "whole-0")
    noise = np.random.default_rng(0).normal(size=(2, 4, 3))
    sets, speeds = {"noise": noise}, {"noise": np.ones((2, 4))}
    of = animation.from_arrays("fc1", np.arange(2), sets, noise.mean(1), speeds)
    save_arrays(folder / animation.FILE, animation.to_arrays(of))
    path, page = folder / name, tmp_path / "page.html"
    assert "Could not be read" not in made(folder, page)
    whole = path.read_bytes()
    middle = len(whole) // 2
    other = bytes([whole[middle] ^ 255])
    for content in (
        *(whole[:-1], whole[:middle], whole[:3], b""),
        whole[:middle] + other + whole[middle + 1 :],
    ):
        path.write_bytes(content)
        capsys.readouterr()
        text = made(tmp_path / "all", page)
        printed = capsys.readouterr()
        assert "2 runs, 1 of them not whole" in printed.out
        assert f"cut-0: {path}: cannot be read" in printed.err
        (row,) = cells(text, "cut-0")
        assert row[5].startswith(
            f"{100 * pages.facts()['methods']['fssd']['auroc']:.1f}"
        )
        assert row[6].startswith(f"{name}: cannot be read")
        assert row[6].endswith(f"delete {folder}, and run the experiment again")
        (other_row,) = cells(text, "whole-0")
        assert "cannot be read" not in other_row[6]
        section = markup.detail(gathered.read(folder), "run-0")
        assert section.count(f"<li>{path}: cannot be read") == 1
        assert cells(section, "msp")
    shutil.rmtree(folder)
    pages.write(folder, explored=True)
    made(tmp_path / "all", page)
    assert "2 runs, 0 of them not whole" in capsys.readouterr().out


CHANGES = (
    {"paired": 3},
    {"counts": None},
    {"model": {"name": "x"}},
    {"layers": [{"name": "fc1"}]},
    {"methods": {"msp": {"auroc": "high"}}},
    {"records": [{"value": None}, 7, {"quantity": "AUROC", "layer": "x", "value": 0}]},
    {"data": ["mnist"], "versions": None, "device": ["cpu"]},
    {"seed": [0, "1"], "benchmark": {"a": 1}},
)


@pytest.mark.parametrize("changes", CHANGES)
def test_no_content_of_metrics_stops_the_page(tmp_path, changes):
    """Of another version, or of another hand: the other runs are there."""
    pages.write(tmp_path / "all" / "other", changes=changes)
    pages.write(tmp_path / "all" / "whole-0")
    text = made(tmp_path / "all", tmp_path / "page.html")
    assert cells(text, "other")
    auroc = pages.facts()["methods"]["fssd"]["auroc"]
    assert cells(text, "whole-0")[0][5].startswith(f"{100 * auroc:.1f} [")


def test_damaged_images_are_told_and_the_rest_is_there(tmp_path):
    folder = pages.write(tmp_path / "all" / "one-0", explored=True)
    kept = folder / "explorer.npz"
    kept.write_bytes(kept.read_bytes()[:-40])
    section = markup.detail(gathered.read(folder), "run-0")
    assert "Could not be read" in section
    assert 'class="explorer"' not in section
    assert cells(section, "msp")
    np.savez(kept, **{**pages.kept(), "rows": np.array(["gone"])})
    with pytest.raises(InputError, match="not of one run"):
        explored.read(folder)


def test_training_that_was_followed_is_shown_and_a_damaged_one_told(tmp_path):
    folder = pages.write(tmp_path / "one-0")
    noise = np.random.default_rng(0).normal(size=(2, 4, 3))
    sets, speeds = {"noise": noise}, {"noise": np.ones((2, 4))}
    of = animation.from_arrays("fc1", np.arange(2), sets, noise.mean(1), speeds)
    arrays = animation.to_arrays(of)
    save_arrays(folder / animation.FILE, arrays)
    assert 'class="movie"' in markup.detail(gathered.read(folder), "run-0")
    arrays.pop("star")
    save_arrays(folder / animation.FILE, arrays)
    section = markup.detail(gathered.read(folder), "run-0")
    assert 'class="movie"' not in section
    assert f"{animation.FILE}: cannot be shown" in section


def test_fifty_folders_are_fifty_rows_and_sections(tmp_path):
    for i in range(50):
        pages.write(tmp_path / "all" / f"run-{i}-0123abcd", seed=i % 2)
    text = made(tmp_path / "all", tmp_path / "page.html")
    begin = '<section class="run" id="'
    sections = {s.partition('"')[0]: s for s in text.split(begin)[1:]}
    assert len(sections) == 50
    links = dict(re.findall(r'<a href="#([\w-]+)">(run-\d+-0123abcd)</a>', text))
    assert set(links.values()) == {f"run-{i}-0123abcd" for i in range(50)}
    for i, (link, name) in enumerate(links.items()):
        assert f"<dd>{name}</dd>" in sections[link], i
    rows = {row[0]: row for row in cells(text) if row}
    for i in range(50):
        auroc = pages.facts(i % 2)["methods"]["fssd"]["auroc"]
        assert rows[f"run-{i}-0123abcd"][5].startswith(f"{100 * auroc:.1f} ")


# ---- what is told -------------------------------------------------------------------


def test_sheets_are_read_as_they_were_written():
    both = [
        Sheet("a | b", ["x", "|"], [["1", ""], ["", "a | b"]], ["one", "warning: two"]),
        Sheet("of nothing", ["method"], [], []),
    ]
    text = "\n".join(map(sheets.to_markdown, both))
    assert sheets.of_markdown(text) == both


def test_published_numbers_stand_beside_ours_with_the_difference(tmp_path):
    """By the published tables themselves, for both seeds' mean."""
    for seed in (0, 1):
        pages.write(tmp_path / "all" / f"fmnist-paper-{seed}-0123abcd", seed)
    text = made(tmp_path / "all", tmp_path / "page.html")
    for metric in ("auroc", "auprc", "fpr80"):
        (row,) = cells(text, "fssd", metric.upper())[:1]
        values = [100 * pages.facts(s)["methods"]["fssd"][metric] for s in (0, 1)]
        assert row[2] == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
        for at, known in ((3, TABLE2["A"]), (5, README["A"])):
            theirs = 100 * known["fssd"][metric]
            assert row[at] == f"{theirs:.1f}"
            assert row[at + 1] == f"{np.mean(values) - theirs:+.1f}"


def test_what_was_not_run_says_so(tmp_path):
    pages.write(tmp_path / "all" / "fmnist-paper-0-0123abcd")
    text = made(tmp_path / "all", tmp_path / "page.html")
    # A has two of seven methods; B to G but D, which has no numbers, have none.
    without = sum(len(rows) for letter, rows in TABLE2.items() if letter != "A")
    assert "Published as box plots" in text
    missing = [row for row in cells(text) if "not run here" in row and len(row) > 3]
    assert {row[0] for row in missing} == set(TABLE2["A"])
    of_g = 1  # outlier exposure has no published row there, and is not run either
    assert len(missing) == 3 * (len(TABLE2["A"]) - 2 + without + of_g)
    assert all(not row[4] for row in missing)  # no difference


def test_pairs_of_d_are_assembled(tmp_path):
    """Apart: those of TFDS, and a second result of a pair and seed."""
    for name, pair in (
        *(("a", "fog_3"), ("b", "snow_1"), ("c", "snow_1_by_tfds"), ("d", "fog_3")),
    ):
        benchmark = f"imagenet_{pair}"
        changes = {"benchmark": benchmark}
        pages.write(tmp_path / "all" / f"{name}-0-0123abcd", changes=changes)
    text = made(tmp_path / "all", tmp_path / "page.html")
    assert "The paper&#x27;s A, B, C, E, F, G: not run here" in text
    assert text.count("Here: means over 2 of the 80 pairs") == 1
    assert text.count("Here: means over 1 of the 80 pairs") == 2
    of_d = "imagenet_KIND_LEVEL, protocol paper, seed 0: lenet, 10 training images"
    assert f"<summary>{of_d}</summary>" in text
    assert f"<summary>{of_d} (2)</summary>" in text
    of_tfds = of_d.replace("LEVEL", "LEVEL_by_tfds")
    inner = text.split(f"<summary>{of_tfds}</summary>")[1].split("</details>")[0]
    assert "ResNet-34: other images, which TFDS computed anew" in inner
    auroc = 100 * pages.facts()["methods"]["fssd"]["auroc"]
    inner = text.split(f"<summary>{of_d}</summary>")[1].split("</details>")[0]
    (row,) = cells(inner, "fssd")
    assert row[1].startswith(f"{auroc:.1f} / ")
    assert row[2:7] == [f"{auroc:.1f}", "", f"{auroc:.1f}", "", ""]


def test_what_is_not_the_papers_benchmark_says_so_beside_it(tmp_path):
    told = "warning: seed 1: not the paper&#x27;s benchmark, but"
    for seed, paper in ((0, {"paper": {}}), (1, None)):
        folder = tmp_path / "all" / f"fmnist-paper-{seed}-0123abcd"
        pages.write(folder, seed, changes={"paper": paper})
    assert told in made(tmp_path / "all", tmp_path / "page.html")


def test_a_protocol_that_saw_less_is_not_put_beside_the_papers(tmp_path):
    pages.write(
        tmp_path / "all" / "fmnist-clean-0-0123abcd", changes={"protocol": "clean"}
    )
    text = made(tmp_path / "all", tmp_path / "page.html")
    assert "beside the paper" not in text
    assert "The paper&#x27;s A, B, C, D, E, F, G: not run here" in text


def test_a_seed_that_is_there_twice_is_not_averaged_with_itself(tmp_path):
    for name in ("a", "b"):
        pages.write(tmp_path / f"{name}-0-0123abcd")
    pages.write(tmp_path / "a-1-0123abcd", seed=1)
    pages.write(tmp_path / "a-01-0123abcd", seed=1)
    runs = [overview.completed(run) for run in gathered.gather(tmp_path)]
    found = overview.grouped(runs)
    seeds = sorted([r.facts["seed"] for r in of] for of in found.values())
    assert seeds == [[0], [0, 1], [1]]


LAYERS = (("conv1", 0.44, 0.6), ("fc1", 0.7, 0.5), ("logits", 0.9, 0.499))


def test_layers_below_one_half_are_warned_of():
    rows = [
        {"quantity": q, "layer": name, "method": "fssd", "value": value}
        for name, *values in LAYERS
        for q, value in zip(("AUROC", "AUROC, ε = 0"), values, strict=True)
    ]
    rows += [{"quantity": "AUROC", "method": "msp", "value": 0.1}]
    rows += [{"quantity": "accuracy", "layer": "fc1", "value": 0.1}]
    assert gathered.inverted({"records": rows}) == [
        "conv1, fssd: AUROC 0.44",
        "logits, fssd: AUROC, ε = 0 0.499",
    ]


def test_text_of_others_is_no_markup(tmp_path):
    evil = "<img src=x onerror=alert(1)></script>"
    told = {"failed": {"msp": evil}, "device": evil}
    folder = pages.write(tmp_path / "all" / "one-0", changes=told)
    text = made(tmp_path / "all", tmp_path / "page.html")
    assert "<img src=x" not in text
    assert "</script>" not in as_json({"a": evil})
    assert json.loads(as_json({"a": evil})) == {"a": evil}
    assert "<b>table</b>" not in markup.detail(gathered.read(folder), "x")


def test_columns_of_numbers_sort_by_them():
    rows = [["a", "9.5 [1, 20]", "2026-01-02"], ["b", "10.1 ± 2", "2026-01-01"]]
    text = markup.table(Sheet("", ["x", "y", "date"], [*rows, ["c", "NA", ""]], []))
    assert re.findall(r'data-sort="(.*?)"', text) == ["9.5", "10.1"]
    assert text.count("data-sort-method") == 1
    told = ("-1.5", "−1.5", "1,024", "1e-05", "95.0 %", "100 in", "x", "")
    expected = [-1.5, -1.5, 1024, 1e-5, 95, None, None, None]
    assert [markup.number_of(cell) for cell in told] == expected


# ---- the page -----------------------------------------------------------------------


def test_the_page_of_a_run_is_the_section_of_the_whole_page(tmp_path):
    folder = pages.write(tmp_path / "all" / "one-0", explored=True)
    text = made(tmp_path / "all", tmp_path / "page.html")
    page.of_folder(folder, "one-0")
    (own,) = re.findall(
        "<section class.*</section>", (folder / "report.html").read_text(), re.S
    )
    assert own in text
    assert 'id="overview"' not in (folder / "report.html").read_text()


def test_nothing_is_asked_of_a_network(tmp_path):
    pages.write(tmp_path / "all" / "one-0", explored=True)
    text = made(tmp_path / "all", tmp_path / "page.html")
    scripts = re.findall("<script>.*?</script>", text, re.S)
    own = text
    for script in scripts:
        own = own.replace(script, "")
    addresses = re.findall(r"\b(?:src|href)=[\"']?([^\"'\s>]+)", own)
    assert addresses
    assert all(a.startswith(("#", "data:")) for a in addresses), addresses
    assert "default-src 'none'" in own
    assert "sourceMappingURL" not in text


def test_charts_are_bundled_only_where_there_is_something_to_explore(tmp_path):
    plain = pages.write(tmp_path / "a-0")
    rich = pages.write(tmp_path / "b-0", explored=True)
    for folder in (plain, rich):
        page.of_folder(folder, folder.name)
    sizes = [(f / "report.html").stat().st_size for f in (plain, rich)]
    assert sizes[0] < 50_000
    assert "Chart.js" in (rich / "report.html").read_text()


def test_bundled_libraries_are_those_that_the_list_tells():
    folder = FILES / "vendor"
    told = dict(
        re.findall(r"\| `(\S+)` .*`([0-9a-f]{64})`", (folder / "README.md").read_text())
    )
    found = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.js")
    }
    assert told == found
    assert sum(p.stat().st_size for p in folder.iterdir()) < 300_000
