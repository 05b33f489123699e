"""What a results folder's records hold, for the tests of every experiment."""

import json

from experiments.harness.records import QUANTITIES, SETS, STATISTICS, Record


def recorded(folder):
    """The rows of metrics.json, each looked at, as a function of wanted fields.

    Returns:
      keys → (value, low, high) of every row that has them.
    """
    facts = json.loads((folder / "metrics.json").read_text())
    assert facts["interval"] == "ci95"
    rows = facts["records"]
    assert rows
    for row in rows:
        assert tuple(row) == Record._fields
        assert row["unit"] == QUANTITIES[row["quantity"]]
        assert row["set"] in (None, *SETS)
        assert row["statistic"] in (None, *STATISTICS)
        assert row["benchmark"], row
        assert (row["low"] is None) == (row["high"] is None)
        if row["low"] is not None:
            assert row["low"] <= row["value"] <= row["high"]
        if row["quantity"].startswith("AUROC"):
            assert 0 <= row["value"] <= 1

    def told(**keys):
        assert set(keys) <= set(Record._fields)
        return [
            (row["value"], row["low"], row["high"])
            for row in rows
            if all(row[key] == wanted for key, wanted in keys.items())
        ]

    return told
