"""The vocabulary is closed, and what is no results folder is said to be none."""

import json

import pytest

from experiments.harness import records
from experiments.harness.records import Record, record
from fssd_jax import InputError


@pytest.mark.parametrize(
    ("quantity", "keys", "told"),
    [
        ("auroc", {}, "quantity 'auroc' is none of AUROC, "),
        ("AUROC", {"set": "ind"}, "set 'ind' is none of in-distribution, "),
        ("speed", {"statistic": "mode"}, "statistic 'mode' is none of mean, "),
    ],
)
def test_a_word_of_no_vocabulary_is_an_error(quantity, keys, told):
    with pytest.raises(ValueError, match=told):
        record(quantity, 0.5, **keys)


def test_rows_have_the_unit_of_their_quantity_and_differ_in_more_than_the_number():
    speed = record("speed", 2, (1, 3), layer="fc1", step=0)
    (row,) = records.rows([speed])
    assert tuple(row) == Record._fields
    assert row["unit"] == "feature/time"
    assert (row["value"], row["low"], row["high"]) == (2.0, 1.0, 3.0)
    assert len(records.rows([speed, speed._replace(step=1)])) == 2
    with pytest.raises(ValueError, match="two records of one thing"):
        records.rows([speed, speed._replace(value=7.0)])


def test_reading_numbers_of_every_kind(tmp_path):
    """Missing widths leave widths whole numbers; what is being written is not read."""
    pandas = pytest.importorskip("pandas")
    numbers = [record("AUROC", 1, width=8), record("AUROC", 0.5, (0.25, 0.75))]
    for name in ("a-0-0123abcd", ".a-0-0123abcd.77.unfinished"):
        (tmp_path / name).mkdir()
        text = json.dumps({"records": records.rows(numbers)})
        (tmp_path / name / "metrics.json").write_text(text)
    frame = records.read(tmp_path)
    assert list(frame.folder) == ["a-0-0123abcd"] * 2
    assert list(frame.digest) == ["0123abcd"] * 2
    assert list(frame.value) == [1, 0.5]
    assert frame.low.isna()[0]
    assert frame.high[1] == 0.75
    assert frame.width[0] == 8
    assert frame.width[1] is pandas.NA
    assert records.read(tmp_path / "a-0-0123abcd" / "metrics.json").equals(frame)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "no metrics.json is there"),
        ("{", "cannot be read"),
        ("[]", "holds no records"),
        ('{"records": [1]}', "holds no records"),
    ],
)
def test_what_holds_no_records(tmp_path, text, told):
    pytest.importorskip("pandas")
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=told):
        records.read(tmp_path)


def test_a_folder_may_have_the_signs_of_a_pattern_in_its_name(tmp_path):
    folder = tmp_path / "results [1]*?"
    folder.mkdir()
    (folder / "metrics.json").write_text("{}")
    (tmp_path / "results 1").mkdir()  # which it would mean as a pattern
    assert records.metrics_files(folder) == [folder / "metrics.json"]
    assert records.metrics_files(tmp_path / "results*") == [folder / "metrics.json"]
