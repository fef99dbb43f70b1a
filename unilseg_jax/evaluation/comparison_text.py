"""A comparison as Markdown: a table per task, the protocol of every column, footnotes.

Paper: Tables 2 to 7. *Differs:* salient objects in fractions, all else in percent, as there; the footnotes are ours.
"""

import json
from collections.abc import Iterable, Sequence

from unilseg_jax.evaluation.comparison import UNKNOWN_F, VARIANT, Column, Model
from unilseg_jax.evaluation.paper_tables import NUMBERS, PaperRow, PaperTable, paper_table
from unilseg_jax.evaluation.results_files import Number

_LABELS = {"oiou": "oIoU", "miou": "mIoU", "giou": "gIoU", "ciou": "cIoU", "n_acc": "N-acc", "t_acc": "T-acc"} | {
    "j_and_f": "J&F",
    "j": "J",
    "f": "F",
    "macc": "mAcc",
    "aacc": "aAcc",
    "mae": "MAE",
    UNKNOWN_F: "F, which one is unknown",
}
_FRACTIONS = ("saliency",)
_UNDEFINED = "–"
_HASH = 12  # letters of a hash that are shown
_OTHER = {"paper": "released", "released": "paper"}


class _Footnotes:
    """Numbers texts in the order in which they are first referred to."""

    def __init__(self):
        self._numbers: dict[str, int] = {}

    def marks(self, texts: Iterable[str]) -> str:
        """Returns the references to these texts."""
        return "".join(f"[^{self._numbers.setdefault(text, len(self._numbers) + 1)}]" for text in texts)

    def lines(self) -> list[str]:
        """Returns the texts."""
        return [f"[^{number}]: {_plain(text)}." for text, number in self._numbers.items()]


def as_markdown(columns: Sequence[Column], protocol: str) -> str:
    """Returns the whole comparison.

    Args:
        columns: see `comparison.columns`.
        protocol: whose numbers these are.
    """
    notes = _Footnotes()
    blocks = [
        f"# Comparison, protocol {protocol}",
        f"Numbers of the other protocol, where there are any: `--protocol {_OTHER[protocol]}`. In brackets the 95 % "
        "interval of a bootstrap over images, where there is one. What the paper prints stands under the metric that "
        "it really is.",
    ]
    for task in dict.fromkeys(column.task for column in columns):
        blocks += _section(task, [column for column in columns if column.task == task], notes)
    if lines := notes.lines():
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _section(task: str, columns: Sequence[Column], notes: _Footnotes) -> list[str]:
    """Returns the blocks of a task."""
    unit = "fractions" if _in_fractions(columns[0]) else "percent"
    rows = [["model", *(_heading(column) + notes.marks(column.notes) for column in columns)]]
    rows += [_own_row(model, columns, notes) for model in dict.fromkeys(m for column in columns for m in column.ours)]
    # By identity: a row holds a dictionary.
    theirs = {id(row): (table, row) for column in columns for table, row, _ in column.paper}
    order = [(table, row) for table in map(paper_table, NUMBERS) for row in table.rows if id(row) in theirs]
    rows += [_paper_row(*theirs[id(row)], columns, notes) for _, row in order]
    aligned = ":--", *("--:" for _ in columns)
    table = [f"| {' | '.join(row)} |" for row in (rows[0], aligned, *rows[1:])]
    lines = [*map(_protocol_line, _by_passport(columns)), *_table_lines(columns)]
    return [f"## {_plain(task)}, {unit}", "\n".join(table), "\n".join(lines)]


def _own_row(model: Model, columns: Sequence[Column], notes: _Footnotes) -> list[str]:
    cells = [f"{_plain(model.checkpoint)} ({_plain(model.argument)})"]
    for column in columns:
        number = column.ours.get(model)
        if number is None:
            cells.append("")
            continue
        leaky = number.passport["leakage"]["status"] == "leaky"
        cells.append(_score(column, number) + (notes.marks([_leak(number)]) if leaky else ""))
    return cells


def _score(column: Column, number: Number) -> str:
    """Returns a number with its interval."""
    scale, digits = (1, 3) if _in_fractions(column) else (100, 2)

    def shown(value: float) -> str:
        return f"{scale * value:.{digits}f}"

    value = number.metrics.get(column.place.metric)
    if value is None:
        return _UNDEFINED
    if isinstance(value, int):
        return f"{value:,}"
    limits = number.intervals.get(column.place.metric)
    return shown(value) + (f" ({shown(limits[0])}–{shown(limits[1])})" if limits else "")


def _paper_row(table: PaperTable, row: PaperRow, columns: Sequence[Column], notes: _Footnotes) -> list[str]:
    name = ", ".join(filter(None, (row.method, row.note)))
    cells = [f"{_plain(name)} (Table {table.number}){notes.marks(row.remarks)}"]
    for column in columns:
        scores = [score for _, other, score in column.paper if other is row]
        cells.append(scores[0].printed if scores else "")
    return cells


def _heading(column: Column) -> str:
    place = column.place
    name = f"{place.benchmark}:{place.split} {_label(place.metric)}"
    if column.alone:
        return _plain(name)
    details = dict(zip(VARIANT, column.variant, strict=True))
    sentences = f", {details['sentences']} sentences" if details["sentences"] else ""
    return _plain(f"{name}, {details['prediction']}{sentences}")


def _label(metric: str) -> str:
    if metric.startswith("pr_at_"):
        return f"P@{int(metric.removeprefix('pr_at_')) / 100:g}"
    return _LABELS.get(metric, metric)


def _by_passport(columns: Sequence[Column]) -> list[list[Column]]:
    """Returns the columns with numbers of ours in groups that share all passports, so that each is told once."""
    groups: dict[tuple, list[Column]] = {}
    for column in columns:
        if column.ours:
            groups.setdefault(tuple(id(number) for number in column.ours.values()), []).append(column)
    return list(groups.values())


def _protocol_line(columns: Sequence[Column]) -> str:
    """Returns how the numbers of some columns were counted, and by which weights."""
    first = next(iter(columns[0].ours.values())).passport
    facts = [
        f"{first['prediction']} of protocol {first['protocol']}",
        f"resize {first['resize'] or 'none'}",
        "nothing is cut" if first["threshold"] is None else f"cut at > {first['threshold']:g}",
        f"scored at: {first['scored_at']}",
        *([f"{first['sentences']} sentences"] if first["sentences"] else []),
        *([f"{first['vocabulary']:,} classes asked for"] if first["vocabulary"] else []),
        f"{first['images']:,} images",
        *([] if first["phrases"] is None else [f"{first['phrases']:,} phrases"]),
        "the whole split" if first["complete"] else "not the whole split",
    ]
    models = [
        f"{number.path}: weights {number.passport['weights_sha256'][:_HASH]}, {number.passport['input_size']} px, "
        f"{number.passport['dtype']}, leakage {number.passport['leakage']['status']}, {_versions(number)}"
        for number in columns[0].ours.values()
    ]
    return f"- {'; '.join(map(_heading, columns))}: {_plain(', '.join(facts))}. {_plain('; '.join(models))}."


def _versions(number: Number) -> str:
    return ", ".join(f"{name} {version}" for name, version in number.passport["versions"].items())


def _table_lines(columns: Sequence[Column]) -> list[str]:
    """Returns where the paper's numbers that stand there were read, and what of its tables is missing."""
    shown = {(column.place.benchmark, column.place.split) for column in columns}
    lines = []
    for table in map(paper_table, NUMBERS):
        if shown & {(place.benchmark, place.split) for place in table.places}:
            facts = [f"- The paper's Table {table.number}, {table.title}: {table.caption}."]
            stands = any(table is other for column in columns for other, *_ in column.paper)
            facts += [f"Read from: {table.source}."] if stands else []
            facts += [f"Not read: {table.missing}."] if table.missing else []
            if len(facts) > 1:
                lines.append(_plain(" ".join(facts)))
    return lines


def _leak(number: Number) -> str:
    leakage = number.passport["leakage"]
    more = ", ".join(f"{key}: {json.dumps(value)}" for key, value in leakage.items() if key != "status")
    return "leaky: pictures of this benchmark were trained on" + (f" ({more})" if more else "")


def _in_fractions(column: Column) -> bool:
    return column.variant[VARIANT.index("metric")] in _FRACTIONS


def _plain(text: str) -> str:
    """Returns text that does not break a table: in one line, without bars."""
    return " ".join(text.split()).replace("|", "\\|")
