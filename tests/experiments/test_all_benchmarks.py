"""`table2 --benchmark all`: what is there is run, of the others it is told why not."""

from pathlib import Path

from experiments import table2
from fssd_jax.checks import InputError
from fssd_jax.extras import FETCH


def only_some(monkeypatch, there):
    """Benchmarks that are not in `there` are not had; of the others, what was asked."""
    ran = []

    def load(name, data_dir):
        if name not in there:
            raise InputError(f"get {name} by hand")
        return name, data_dir

    def run_one(config, benchmark):
        ran.append((config.benchmark, *benchmark))
        return [{"failed": {}}]

    monkeypatch.setattr(table2, "load_benchmark", load)
    monkeypatch.setattr(table2, "run_one", run_one)
    return ran


def test_all_benchmarks_are_run_that_are_there(monkeypatch, tmp_path, capsys):
    ran = only_some(monkeypatch, ("digits", "fmnist", "genomes"))
    args = ["--benchmark", "all", "--out", str(tmp_path), "--data-dir", "/somewhere"]
    assert table2.main(args) == 0
    data = Path("/somewhere")
    assert ran == [
        ("digits", "digits", None),
        ("fmnist", "fmnist", data),
        ("genomes", "genomes", data),
    ]
    told = capsys.readouterr().err
    for name in ("fmnist6", "cifar10", "cifar6", "dogs", "genomics"):
        assert f"{name} is not run: get {name} by hand" in told
    assert told.count("is not run") == 8


def test_all_benchmarks_and_none_is_there(monkeypatch, tmp_path, capsys):
    only_some(monkeypatch, ())
    assert table2.main(["--benchmark", "all", "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "none was run" in told
    assert told.count("by hand") == 11


def test_of_what_is_not_in_the_data_dir_it_is_told_how_to_get_it(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(table2, "run_one", lambda *_: [{"failed": {}}])
    data = tmp_path / "data"
    args = ["--benchmark", "all", "--out", str(tmp_path), "--data-dir", str(data)]
    assert table2.main(args) == 0
    told = capsys.readouterr().err
    for benchmark, name, get in (
        ("fmnist", "fashion_mnist", f"`{FETCH}`"),
        ("cifar10", "cifar10", "TensorFlow Datasets"),
    ):
        folder = data / name / "train"
        assert (
            f"{benchmark} is not run: {name}/train: neither a folder {folder}" in told
        )
        assert f"put its images into {folder}/CLASS/, or leave data_dir" in told
        assert f"out: then {get} gets it" in told


def test_what_fails_when_it_is_run_does_not_pass_for_missing(
    monkeypatch, tmp_path, capsys
):
    ran = only_some(monkeypatch, ("digits", "fmnist"))
    run_one = table2.run_one

    def no_digits(config, benchmark):
        if config.benchmark == "digits":
            raise InputError("its checkpoint is damaged")
        return run_one(config, benchmark)

    monkeypatch.setattr(table2, "run_one", no_digits)
    assert table2.main(["--benchmark", "all", "--out", str(tmp_path)]) == 1
    assert [name for name, *_ in ran] == ["fmnist"]
    told = capsys.readouterr().err
    assert "digits failed: its checkpoint is damaged" in told
    assert "cifar10 is not run" in told


def test_what_is_of_one_benchmark_is_refused_of_all(tmp_path, capsys):
    args = ["--benchmark", "all", "--width", "8", "--out", str(tmp_path)]
    assert table2.main(args) == 1
    assert "--width: of one benchmark" in capsys.readouterr().err
