"""Several detectors on the same images: a row of metrics each.

fssd_jax.compare({"fssd": (fssd.score, feature_fn, state),
                  "msp": (msp.score, logit_fn, msp.fit())}, variables, ind, ood)
"""

import html
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fssd_jax import extras
from fssd_jax.checks import InputError
from fssd_jax.metrics import Metrics, evaluate
from fssd_jax.outputs import Variables
from fssd_jax.questions import Question, look

# A row's name: the method's, or (method, OoD set) where there are several sets.
Row = str | tuple[str, str]
VALUES = ("auroc", "auprc", "fpr80", "fpr95")
HEADINGS = ("AUROC", "AUPRC", "FPR80", "FPR95")
NOTE = "In %, [95 % interval of new images]; in-distribution is positive."


class Comparison(Mapping[Row, Metrics]):
    """What `compare` found: row → `Metrics`, in the order that was asked for.

    Printed, and shown in a notebook, as a table in %; the metrics themselves are
    fractions.
    """

    def __init__(
        self,
        rows: Mapping[Row, Metrics],
        scores: Mapping[str, tuple[np.ndarray, Any]],
    ):
        self.rows = dict(rows)
        # Method → (in-distribution [n], OoD [m]); the latter by set if there are many.
        self.scores = dict(scores)

    def __getitem__(self, row: Row) -> Metrics:
        if row not in self.rows:
            raise KeyError(f"no row {row!r}, but {[*self.rows]}")
        return self.rows[row]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def _cells(self) -> list[list[str]]:
        """Headings, then the rows."""
        several = any(isinstance(row, tuple) for row in self.rows)
        table = [["method", *(["OoD"] if several else []), *HEADINGS]]
        for row, of in self.rows.items():
            names = list(row) if isinstance(row, tuple) else [row]
            table.append([*names, *(_cell(of, value) for value in VALUES)])
        return table

    def __repr__(self) -> str:
        table = self._cells()
        texts = len(table[0]) - len(HEADINGS)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for cells in table:
            padded = [
                cell.ljust(width) if i < texts else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            lines.append("  ".join(padded).rstrip())
        return "\n".join([*lines, NOTE])

    def _repr_html_(self) -> str:
        heading, *rows = (
            [html.escape(cell) for cell in cells] for cells in self._cells()
        )
        body = "".join(f"<tr><td>{'</td><td>'.join(cells)}</td></tr>" for cells in rows)
        return (
            f"<table><thead><tr><th>{'</th><th>'.join(heading)}</th></tr></thead>"
            f"<tbody>{body}</tbody></table><p>{html.escape(NOTE)}</p>"
        )

    def to_frame(self) -> Any:
        """A pandas DataFrame: a row a method (and OoD set), fractions, interval ends.

        Raises:
          MissingExtraError: pandas is not installed.
        """
        pandas = extras.need("pandas", "to_frame")
        records = []
        for row, of in self.rows.items():
            names = row if isinstance(row, tuple) else (row,)
            record: dict[str, Any] = dict(zip(("method", "ood"), names, strict=False))
            for value in VALUES:
                low, high = getattr(of, f"{value}_ci95")
                ends = {f"{value}_low95": low, f"{value}_high95": high}
                record |= {value: getattr(of, value), **ends}
            records.append(record)
        index = [name for name in ("method", "ood") if name in records[0]]
        return pandas.DataFrame(records).set_index(index)


def _cell(of: Metrics, value: str) -> str:
    low, high = getattr(of, f"{value}_ci95")
    return f"{100 * getattr(of, value):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def compare(
    methods: Mapping[str, Question | tuple[Callable, Callable, Any]],
    variables: Variables,
    ind: Any,
    ood: Any,
    *,
    batch_size: int = 64,
    unit_range: bool = True,
    progress: bool = False,
) -> Comparison:
    """Score the same images by several methods, by one look an image, and evaluate.

    It is no experiment. Nothing tells whether a method saw OoD images of the tested
    kind when it was fitted, and rows that did are not to be compared with rows that
    did not; images that a method was fitted on or chosen by must not be tested here.
    There is no control, such as the same network untrained, or pixels, without which a
    high AUROC says nothing of the network: `fssd score` has them. An interval is of new
    images for this one network, and holds no other seed. Intervals that overlap are no
    test of a difference: that is `metrics.paired`, on `scores`.

    Args:
      methods: name → `Question`, or its (score, feature_fn or logit_fn, state).
      variables: the network's variables, for all methods.
      ind: in-distribution test images [n, ...], as for `map_batches`.
      ood: OoD test images [m, ...], or name → images for several sets (a mapping with
        the keys of `ind`, if that is one, is one set).
      batch_size: images per compiled call.
      unit_range: whether floats outside [0, 1] are an error.
      progress: whether to show a progress bar.

    Returns:
      Rows by method, or by (method, OoD set) where `ood` is a mapping, in the order in
      which they were given.

    Raises:
      InputError: no method or no OoD set, unusable images, or a score that does not
        give one finite number an image.
    """
    if not isinstance(methods, Mapping):
        raise InputError(
            f"methods: got a {type(methods).__name__}, expected a mapping of name to "
            "(score, feature_fn or logit_fn, state)"
        )
    questions = {name: _question(name, method) for name, method in methods.items()}
    # An input may be a dict of arrays itself: then both have its keys.
    one_input = isinstance(ind, Mapping) and ind.keys() == getattr(ood, "keys", set)()
    several = isinstance(ood, Mapping) and not one_input
    sets: dict[str, Any] = dict(ood) if several else {"OoD": ood}
    for what, given in (("methods", questions), ("ood", sets)):
        if not given:
            raise InputError(f"{what}: the mapping is empty; give one entry or more")

    def scores_of(name: str, x) -> dict[str, np.ndarray]:
        answers = look(
            questions,
            variables,
            x,
            batch_size=batch_size,
            unit_range=unit_range,
            progress=progress and f"score {name}",
        )
        for method, scores in answers.items():
            if scores.ndim != 1:
                raise InputError(
                    f"method {method!r}: its score has the shape {scores.shape} for "
                    f"{len(scores)} images; give a score that returns one number an "
                    "image"
                )
        return answers

    of_ind = scores_of("in-distribution", ind)
    of_ood = {name: scores_of(name, x) for name, x in sets.items()}
    rows: dict[Row, Metrics] = {}
    scores: dict[str, tuple[np.ndarray, Any]] = {}
    for method, inside in of_ind.items():
        outside = {name: found[method] for name, found in of_ood.items()}
        for name, values in outside.items():
            try:
                found = evaluate(inside, values)
            except InputError as error:
                raise InputError(f"method {method!r}, {error}") from error
            rows[(method, name) if several else method] = found
        scores[method] = inside, outside if several else outside["OoD"]
    return Comparison(rows, scores)


def _question(name: str, method: Any) -> Question:
    if isinstance(method, tuple) and len(method) in (3, 4):
        if inspect.isfunction(method[2]):
            raise InputError(
                f"method {name!r}: its state is a function; give what fit returns, "
                "such as msp.fit()"
            )
        return Question(*method)
    raise InputError(
        f"method {name!r}: expected (score, feature_fn or logit_fn, state), got a "
        f"{type(method).__name__}; such as (msp.score, logit_fn, msp.fit())"
    )
