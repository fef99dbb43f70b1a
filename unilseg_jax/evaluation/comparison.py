"""Puts numbers of evaluations into columns, beside the paper's, and refuses to put unlike ones into one.

Paper: Tables 2 to 7. *Differs:* the paper's own columns hold numbers of several metrics and protocols; here a number
stands only under the metric that it is, and numbers of ours share a column only if their passports agree.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.paper_tables import NUMBERS, PaperRow, PaperTable, Place, Score, paper_table
from unilseg_jax.evaluation.results_files import Number, Results

UNKNOWN_F = "f_unknown"
"""The paper's numbers of salient objects of which nobody knows which F they are; nothing of ours stands there."""

MAIN = {
    "referring": ("oiou", "miou"),
    "generalized referring": ("giou", "ciou", "n_acc", "t_acc"),
    "video": ("j_and_f", "j", "f"),
    "semantic": ("miou",),
    "parts": ("miou", "miou_without_background"),
    "saliency": ("f_mean", "f_adaptive", "f_weighted", "mae"),
}
"""For each family of metrics what is shown unless other keys are asked for; of other families, the headline alone."""


class Field(NamedTuple):
    """A field of a passport that numbers of one column must agree in.

    Attributes:
        name: its key.
        reason: why numbers that differ in it cannot be compared.
        advice: what to do.
    """

    name: str
    reason: str
    advice: str


_ALIKE = "evaluate both alike, or compare them apart"
COMPARABLE = (
    Field("benchmark", "other pictures", "they have columns of their own"),
    Field("split", "other pictures", "they have columns of their own"),
    Field("metric", "a key of the same name counts something else in another family", _ALIKE),
    Field("prediction", "a soft map, a mask and a mask with a rule for empty ones score differently", _ALIKE),
    Field("sentences", "the first sentence of an object is an easier or harder sample than all of them", _ALIKE),
    Field("protocol", "masks made in another way are other masks", "take the same protocol of both (--protocol)"),
    Field("resize", "a letterboxed and a stretched picture are other inputs", _ALIKE),
    Field("threshold", "the cut decides how large a mask is", _ALIKE),
    Field("scored_at", "at another resolution a picture has another weight in sums of pixels", _ALIKE),
    Field("vocabulary", "with fewer classes to choose from there are fewer mistakes", _ALIKE),
    Field("complete", "a part of a split is not the split", "evaluate all pictures of both (without --max-images)"),
    Field("images", "other pictures", "evaluate the same pictures of both (the same --max-images, or none)"),
    Field("phrases", "other phrases", "evaluate the same prepared data with both"),
    Field("setting", "classes that were trained on are an easier task than unseen ones", "compare them apart"),
    Field("presence_fitted_on", "a score that was fitted on other data is another rule", _ALIKE),
    Field("data", "a part of another preparation has other pictures", "evaluate the same prepared data with both"),
)
"""What makes numbers comparable. Not in it, but shown: the weights and the leakage, which tell models apart;
`input_size`, which is the model's own choice as long as the score is counted at the picture's size (`scored_at`);
`dtype` and versions, which move a number by rounding only. `data` counts where a split is not complete. A field that a
passport lacks is null."""

VARIANT = ("metric", "prediction", "sentences")
"""Fields in which a file may hold several numbers of one benchmark; each such number has a column of its own."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A row of ours: one model, as one argument shows it.

    Attributes:
        checkpoint: as it was evaluated.
        argument: the file or folder that was named.
        weights: hash of its weights.
    """

    checkpoint: str
    argument: str
    weights: str


@dataclasses.dataclass
class Column:
    """Numbers that can be compared.

    Attributes:
        place: what they are.
        task: of the benchmark.
        variant: the values of `VARIANT`.
        ours: by model.
        alone: whether no other column has the same place.
        paper: the paper's rows that belong here, with their tables.
        notes: why some of the paper's are left out, and what else a reader must know.
    """

    place: Place
    task: str
    variant: tuple
    ours: dict[Model, Number]
    alone: bool = True
    paper: list[tuple[PaperTable, PaperRow, Score]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def columns(results: Sequence[Results], protocol: str, metrics: Sequence[str] | None = None) -> list[Column]:
    """Returns all columns, those of one benchmark and split one after the other.

    Args:
        results: files.
        protocol: whose numbers are taken, "paper" or "released".
        metrics: keys that are shown; None for those of `MAIN`, `["all"]` for all.

    Raises:
        UserError: numbers that would share a column differ in a field of `COMPARABLE`, or nothing is left to show.
    """
    _check_known(results, metrics)
    found: list[Column] = []
    for (benchmark, split), numbers in _by_split(results).items():
        taken = _of_protocol(numbers, protocol, f"{benchmark}:{split}")
        own: list[Column] = []
        for key in _keys(taken, metrics):
            task = next(result.task for _, result, _ in numbers)
            own += _columns_of(Place(benchmark, split, key), task, taken, rest=metrics == ["all"])
        for column in own:
            _check_alike(column)
            column.alone = sum(other.place == column.place for other in own) == 1
        variants = list(dict.fromkeys(column.variant for column in own))
        own.sort(key=lambda column: variants.index(column.variant))
        found += own + _beside_paper(own, protocol)
    if not found:
        others = {number.passport["protocol"] for result in results for number in result.numbers} - {protocol}
        which = " or ".join(sorted(others))
        raise UserError(f"no number of protocol {protocol!r} in these files; say --protocol {which}")
    return found


_Held = tuple[Model, Results, Number]


def _by_split(results: Sequence[Results]) -> dict[tuple[str, str], list[_Held]]:
    """Returns the numbers of each benchmark and split.

    Raises:
        UserError: two numbers would stand in the same cell.
    """
    held: dict[tuple[str, str], list[_Held]] = {}
    seen: dict[tuple, str] = {}
    for result in results:
        for number in result.numbers:
            passport = number.passport
            model = Model(result.checkpoint, result.argument, passport["weights_sha256"])
            place = passport["benchmark"], passport["split"]
            cell = (model, *place, *(passport[name] for name in ("protocol", *VARIANT)))
            if cell in seen:
                raise UserError(
                    f"{result.argument!r} has two numbers of {':'.join(place)} by one model, alike in protocol, "
                    f"{', '.join(VARIANT)}: in {seen[cell]!r} and in {number.path!r}; name one file"
                )
            seen[cell] = number.path
            held.setdefault(place, []).append((model, result, number))
    return held


def _check_known(results: Sequence[Results], metrics: Sequence[str] | None) -> None:
    keys = {key for result in results for number in result.numbers for key in number.metrics}
    for key in metrics or ():
        if key != "all" and key not in keys:
            raise UserError(f"no metric {key!r} in these files; there are: {', '.join(sorted(keys))}")


def _of_protocol(numbers: Sequence[_Held], protocol: str, where: str) -> list[tuple[Model, Number]]:
    """Returns the numbers of a protocol; who has only others must not silently drop out of the table."""
    taken = [(model, number) for model, _, number in numbers if number.passport["protocol"] == protocol]
    if not taken:
        model, _, number = numbers[0]
        raise UserError(
            f"{where} has no number of protocol {protocol} in {number.path!r}, only of {number.passport['protocol']}; "
            f"evaluate it, leave the file out, or compare --protocol {number.passport['protocol']}"
        )
    for model, _, number in numbers:
        if not any(model == other for other, _ in taken):
            raise _refusal(f"{where} {number.headline}", "protocol", taken[0][1], number)
    return taken


def _keys(numbers: Sequence[tuple[Model, Number]], metrics: Sequence[str] | None) -> list[str]:
    """Returns the keys that are shown, in order."""
    keys: list[str] = []
    for _, number in numbers:
        scores = [key for key, value in number.metrics.items() if not isinstance(value, int)]
        wanted = scores if metrics == ["all"] else metrics
        if wanted is None:
            wanted = dict.fromkeys((number.headline, *MAIN.get(number.passport["metric"], ())))
        keys += [key for key in wanted if key in number.metrics and key not in keys]
    return keys


def _columns_of(place: Place, task: str, numbers: Sequence[tuple[Model, Number]], *, rest: bool) -> Iterator[Column]:
    """Yields a column for each variant of a metric.

    Args:
        place: what is shown.
        task: of the benchmark.
        numbers: of the benchmark and split.
        rest: whether first sentences have a column even where every file has all of them.
    """
    by_variant: dict[tuple, dict[Model, Number]] = {}
    by_model: dict[Model, dict[tuple, Number]] = {}
    for model, number in numbers:
        if place.metric in number.metrics:
            variant = tuple(number.passport[name] for name in VARIANT)
            by_variant.setdefault(variant, {})[model] = number
            by_model.setdefault(model, {})[variant] = number
    for own in by_model.values():
        for other in by_model.values():
            if not own.keys() & other.keys():
                first, second = next(iter(own.values())), next(iter(other.values()))
                names = (name for name in VARIANT if first.passport[name] != second.passport[name])
                raise _refusal(f"{place.benchmark}:{place.split} {place.metric}", next(names), first, second)
    everywhere = all(any(variant[-1] == "all" for variant in own) for own in by_model.values())
    for variant, ours in by_variant.items():
        if rest or not everywhere or variant[-1] != "first":
            yield Column(place, task, variant, ours)


def _check_alike(column: Column) -> None:
    """Refuses a column whose numbers differ in what makes them comparable."""
    first, *others = column.ours.values()
    for other in others:
        for field in COMPARABLE:
            if field.name == "data" and first.passport["complete"]:
                continue
            if first.passport.get(field.name) != other.passport.get(field.name):
                place = column.place
                raise _refusal(f"{place.benchmark}:{place.split} {place.metric}", field.name, first, other)


def _refusal(where: str, name: str, first: Number, second: Number) -> UserError:
    """Returns the error that names the column, the field, both values with their files, and what to do."""
    field = next(field for field in COMPARABLE if field.name == name)
    values = [f"{json.dumps(number.passport.get(name))} in {number.path!r}" for number in (first, second)]
    return UserError(f"{where}: {name} is {values[0]} and {values[1]} ({field.reason}); {field.advice}")


def _beside_paper(own: Sequence[Column], protocol: str) -> list[Column]:
    """Adds the paper's rows to the columns of a benchmark and split.

    Returns:
        Further columns, for numbers of the paper of an unknown kind.
    """
    unknown: list[Column] = []
    for table in map(paper_table, NUMBERS):
        for column in own:
            rows = _rows_at(table, column.place)
            if not rows:
                continue
            if reason := _why_not(table, column):
                column.notes.append(f"the paper's rows (Table {table.number}) are left out: {reason}")
                continue
            column.paper += rows
            if protocol != "paper":
                column.notes.append(
                    "the paper states stretch and 0.5, the authors' released code does letterbox and 0.35; which of "
                    "them made the paper's numbers is not known, and they can differ by tenths of a point"
                )
        # At most one for a benchmark and split, beside a column that the paper's rows may stand in.
        beside = next((column for column in own if not _why_not(table, column)), None)
        if beside and (rows := _rows_at(table, beside.place._replace(metric=UNKNOWN_F))):
            place = beside.place._replace(metric=UNKNOWN_F)
            unknown.append(Column(place, beside.task, beside.variant, {}, paper=rows))
    return unknown


_SETTINGS = {4: "open vocabulary", 5: "in vocabulary"}
"""What the paper's tables of label maps are about."""


def _rows_at(table: PaperTable, place: Place) -> list[tuple[PaperTable, PaperRow, Score]]:
    return [(table, row, row.scores[place]) for row in table.rows if place in row.scores]


def _why_not(table: PaperTable, column: Column) -> str | None:
    """Returns why the paper's rows must not stand in a column, None if they may."""
    passport = next(iter(column.ours.values())).passport
    if not passport["complete"]:
        return f"{passport['images']:,} pictures are not the whole split"
    if passport.get("setting") and _SETTINGS.get(table.number, passport["setting"]) != passport["setting"]:
        return f"theirs are {_SETTINGS[table.number]}, these {passport['setting']}"
    if passport["prediction"] != table.prediction:
        return f"theirs are of a {table.prediction}"
    if None not in (passport["sentences"], table.sentences) and passport["sentences"] != table.sentences:
        return f"theirs are over {table.sentences} sentences"
    return None
