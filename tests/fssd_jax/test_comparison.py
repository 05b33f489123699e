"""A row a method: the metrics of each method's own scores, by one look an image."""

import inspect
import re
import xml.etree.ElementTree as ElementTree
from collections import OrderedDict

import numpy as np
import pytest

import fssd_jax
from fssd_jax import (
    InputError,
    Question,
    compare,
    comparison,
    evaluate,
    map_batches,
)

RNG = np.random.default_rng(0)
IND = RNG.uniform(0.3, 1, (37, 2, 3)).astype(np.float32)
OOD = {
    "near": RNG.uniform(0, 1, (29, 2, 3)).astype(np.float32),
    "<far>": RNG.uniform(0, 0.4, (11, 2, 3)).astype(np.float32),
}
LOOKS = []


def feature_fn(variables, x):
    LOOKS.append(x.shape)  # as often as it is traced
    return OrderedDict(flat=variables["w"] * x.reshape(len(x), -1))


def total(feature_fn, variables, state, x):
    return feature_fn(variables, x)["flat"].sum(-1) + state


def spread(feature_fn, variables, state, x):
    return -feature_fn(variables, x)["flat"].std(-1)


METHODS = {
    "total": (total, feature_fn, np.float32(1)),
    "spread": Question(spread, feature_fn, None),
}
VARIABLES = {"w": np.float32(2)}


def test_rows_are_the_metrics_of_each_method_alone():
    table = compare(METHODS, VARIABLES, IND, OOD, batch_size=8)
    assert list(table) == [(m, s) for m in METHODS for s in OOD]
    for name, method in METHODS.items():
        score, fn, state = Question(*method)[:3]
        alone = [
            map_batches(score, fn, VARIABLES, state, x) for x in (IND, *OOD.values())
        ]
        ind, ood = table.scores[name]
        assert list(ood) == list(OOD)
        for found, expected in zip((ind, *ood.values()), alone, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5)
        for other, scores in ood.items():
            assert table[name, other] == evaluate(ind, scores)


def test_one_ood_set_has_rows_by_method():
    table = compare(METHODS, VARIABLES, IND, OOD["near"])
    assert list(table.rows) == list(METHODS)
    ind, ood = table.scores["total"]
    assert (ind.shape, ood.shape) == ((37,), (29,))
    assert table["total"] == evaluate(ind, ood) == table.rows["total"]


def test_all_methods_are_one_program_for_all_sets():
    """Of which XLA merges what is common: see `look`."""
    LOOKS.clear()
    images = [RNG.uniform(size=(5, 4, 4)).astype(np.float32) for _ in range(3)]
    compare(METHODS, VARIABLES, images[0], dict(a=images[1], b=images[2]))
    assert LOOKS == [(8, 4, 4)] * len(METHODS)


def test_the_printed_table_is_what_it_holds():
    table = compare(METHODS, VARIABLES, IND, OOD)
    heading, *lines, note = str(table).splitlines()
    assert heading.split() == ["method", "OoD", "AUROC", "AUPRC", "FPR80", "FPR95"]
    assert "95 %" in note
    for line, ((method, other), of) in zip(lines, table.items(), strict=True):
        assert line.split()[:2] == [method, other]
        shown = [float(number) for number in re.findall(r"\d+\.\d", line)]
        held = []
        for value in ("auroc", "auprc", "fpr80", "fpr95"):
            held += [getattr(of, value), *getattr(of, f"{value}_ci95")]
        np.testing.assert_allclose(shown, 100 * np.array(held), atol=0.0501)
    root = ElementTree.fromstring(f"<div>{table._repr_html_()}</div>")
    rows = [[cell.text for cell in row] for row in root.iter("tr")]
    assert rows[0] == heading.split()
    assert rows[1][:2] == ["total", "near"]
    assert rows[2][:2] == ["total", "<far>"]
    assert all(text in str(table) for row in rows for text in row)


def test_a_frame_has_a_row_a_method_and_set():
    pytest.importorskip("pandas")
    for ood, names in ((OOD, ["method", "ood"]), (OOD["near"], ["method"])):
        table = compare(METHODS, VARIABLES, IND, ood)
        frame = table.to_frame()
        assert list(frame.index.names) == names
        assert list(frame.index) == list(table)
        for row, of in table.items():
            assert frame.loc[row, "auroc"] == of.auroc
            ends = frame.loc[row, ["fpr95_low95", "fpr95_high95"]]
            assert tuple(ends) == of.fpr95_ci95


@pytest.mark.parametrize("several", [False, True])
def test_a_dict_of_arrays_is_one_input_or_several_sets(monkeypatch, several):
    """By its keys: those of `ind` are an input's."""
    ind, ood = ({"image": x, "mask": x > 0} for x in (IND, OOD["near"]))
    seen = []

    def look(questions, variables, x, **options):
        seen.append(x)
        return {"total": x["image"].sum((1, 2))}

    monkeypatch.setattr(comparison, "look", look)
    methods = {"total": METHODS["total"]}
    table = compare(methods, VARIABLES, ind, {"near": ood} if several else ood)
    assert seen == [ind, ood]
    assert list(table) == [("total", "near") if several else "total"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"methods": {}}, "methods: the mapping is empty"),
        ({"ood": {}}, "ood: the mapping is empty"),
        ({"methods": [(total, feature_fn, None)]}, "methods: got a list, expected a"),
        ({"methods": {"a": (total, feature_fn, total)}}, "its state is a function"),
        ({"methods": {"a": total}}, r"method 'a': expected \(score"),
        ({"methods": {"a": (total, feature_fn)}}, r"method 'a': expected \(score"),
        (
            {"methods": {"a": (lambda f, v, s, x: x, feature_fn, None)}},
            r"method 'a': its score has the shape \(37, 2, 3\)",
        ),
        (
            {"methods": {"a": (total, feature_fn, np.float32(np.nan))}},
            "a: scores of 37 of 37 images are NaN",
        ),
        ({"ind": IND + 1}, "unit_range=False"),
    ],
)
def test_what_cannot_be_compared_is_refused(changed, told):
    given = {"methods": METHODS, "variables": VARIABLES, "ind": IND, "ood": OOD}
    with pytest.raises(InputError, match=told):
        inspect.unwrap(compare)(**{**given, **changed})  # types are not checked


def test_a_row_that_is_not_there_is_told_with_those_that_are():
    table = compare(METHODS, VARIABLES, IND, OOD)
    with pytest.raises(KeyError, match=r"no row 'total', but \[\('total', 'near'\)"):
        table["total"]
    assert "total" not in table
    assert table.get("total") is None


def test_what_the_errors_advise_is_taken():
    table = compare(METHODS, VARIABLES, IND + 1, OOD, unit_range=False)
    assert table["total", "near"].auroc == 1
    assert fssd_jax.Comparison is type(table)
