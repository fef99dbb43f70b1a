"""The numbers of the paper's Tables 2 to 7, each under the metric that it really is.

A table is `paper/tableN.tsv`: lines `# key: text` (see `PaperTable`), then a row per method with the columns `method`,
`note` (backbone), `metric` (what the row's numbers really are; empty: what the headings say), `remarks` (several are
parted by ` | `), and a column `BENCHMARK:SPLIT/METRIC` per number, headed as the paper has it. A cell is a number as
printed, `-` where the paper has none, or `?` where it was not read: what no source shows is left out, never guessed.

Differs: the paper's captions call numbers alike that are not (oIoU and mean IoU in Table 2, kinds of F in Table 6).
"""

import csv
import functools
import math
import re
from importlib import resources
from typing import NamedTuple

NUMBERS = (2, 3, 4, 5, 6, 7)
"""The paper's tables of results; Table 8 is its ablation, which configs/ablation.py repeats."""

_HEAD = ("title", "caption", "unit", "prediction", "sentences", "source", "missing")
_SCALES = {"percent": 100.0, "fraction": 1.0}
_FIRST = ("method", "note", "metric", "remarks")
_HEADING = re.compile(r"([^:/]+):([^:/]+)/([a-z0-9_]+)")


class Place(NamedTuple):
    """Which number it is.

    Attributes:
        benchmark: such as `refcoco+`.
        split: such as `testA`.
        metric: key of a metric's result, such as `oiou`; `f_unknown` where nobody knows.
    """

    benchmark: str
    split: str
    metric: str


class Score(NamedTuple):
    """A number of the paper.

    Attributes:
        printed: with the paper's digits, in the table's unit.
        value: as a fraction, 0 to 1.
    """

    printed: str
    value: float


class PaperRow(NamedTuple):
    """A row of a table.

    Attributes:
        method: its name in the paper.
        note: the backbone, or nothing.
        remarks: what a reader must know of its numbers.
        scores: the numbers that were read, each under the metric that it really is.
    """

    method: str
    note: str
    remarks: tuple[str, ...]
    scores: dict[Place, Score]


class PaperTable(NamedTuple):
    """A table of the paper.

    Attributes:
        number: of the table.
        title: the task.
        caption: what the paper says that the numbers are.
        unit: "percent" or "fraction", of the printed numbers.
        prediction: `prediction` of the passports that it stands beside.
        sentences: `sentences` of these; None where it does not apply.
        source: where the numbers were read.
        missing: what was not read, and why; None if nothing.
        places: what its headings name, whether or not a number was read.
        rows: in the paper's order.
    """

    number: int
    title: str
    caption: str
    unit: str
    prediction: str
    sentences: str | None
    source: str
    missing: str | None
    places: tuple[Place, ...]
    rows: tuple[PaperRow, ...]


@functools.cache
def paper_table(number: int) -> PaperTable:
    """Returns a table of the paper.

    Raises:
        ValueError: there is no such table.
    """
    if number not in NUMBERS:
        raise ValueError(f"no Table {number}, there are {', '.join(map(str, NUMBERS))}")
    file = resources.files("unilseg_jax.evaluation").joinpath("paper", f"table{number}.tsv")
    return parse_table(number, file.read_text(encoding="utf-8"))


def parse_table(number: int, text: str) -> PaperTable:
    """Returns a table from the text of its file; the layout is told at the top of this module.

    Args:
        number: of the table.
        text: of the file.

    Raises:
        ValueError: the text breaks the layout; names the row.
    """
    lines = text.splitlines()
    head = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    if tuple(head) != _HEAD or head["unit"] not in _SCALES:
        raise ValueError(f"table {number} has the head {', '.join(head)}; wanted: {', '.join(_HEAD)}, a known unit")
    body = [line for line in lines if not line.startswith("#")]
    # Without a value for cells that a row lacks, they are None.
    reader = csv.DictReader(body, delimiter="\t", quoting=csv.QUOTE_NONE)
    headings = tuple(reader.fieldnames or ())
    if headings[: len(_FIRST)] != _FIRST:
        raise ValueError(
            f"table {number} has the columns {', '.join(headings)}; it must begin with {', '.join(_FIRST)}"
        )
    places = {heading: _place(number, heading) for heading in headings[len(_FIRST) :]}
    rows = tuple(_row(number, row, places, _SCALES[head["unit"]]) for row in reader)
    return PaperTable(
        number=number,
        title=head["title"],
        caption=head["caption"],
        unit=head["unit"],
        prediction=head["prediction"],
        sentences=None if head["sentences"] == "-" else head["sentences"],
        source=head["source"],
        missing=None if head["missing"] == "nothing" else head["missing"],
        places=tuple(places.values()),
        rows=rows,
    )


def _place(number: int, heading: str) -> Place:
    """Returns what a heading names."""
    found = _HEADING.fullmatch(heading)
    if not found:
        raise ValueError(f"table {number}: the heading {heading!r} is not BENCHMARK:SPLIT/METRIC")
    return Place(*found.groups())


def _row(number: int, row: dict, places: dict[str, Place], scale: float) -> PaperRow:
    """Returns a row; `places` gives the headings' meaning, `scale` what the printed numbers are divided by."""
    method, metric = row["method"], row["metric"]
    if None in row or None in row.values():
        raise ValueError(f"table {number}: the row of {method!r} has too few or too many cells")
    scores = {}
    for heading, place in places.items():
        printed = row[heading]
        if printed in ("-", "?"):
            continue
        value = float(printed) / scale if re.fullmatch(r"\d+\.\d+", printed) else math.nan
        if not 0 <= value <= 1:
            raise ValueError(f"table {number}: {method!r} has {printed!r} under {heading}, which is no score")
        scores[place._replace(metric=metric or place.metric)] = Score(printed, value)
    remarks = tuple(filter(None, row["remarks"].split(" | ")))
    return PaperRow(method, row["note"], remarks, scores)
