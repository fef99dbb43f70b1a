"""Reads what evaluations wrote, `results.json`, and refuses what is none."""

import json
import math
import os
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from unilseg_jax.errors import UserError, checked_file, reason_of

SCHEMA_VERSION = 1
RESULTS_FILE = "results.json"

_TEXT, _COUNT, _NUMBER, _NOTHING = (str,), (int,), (int, float), (type(None),)
_RESULTS = {"benchmark": _TEXT, "split": _TEXT, "task": _TEXT, "checkpoint": _TEXT, "numbers": (list,)}
_ENTRY = {"passport": (dict,), "headline": _TEXT, "metrics": (dict,), "intervals": (dict,)}
_PASSPORT = {
    "metric": _TEXT,
    "protocol": _TEXT,
    "resize": _TEXT + _NOTHING,
    "threshold": _NUMBER + _NOTHING,
    "prediction": _TEXT,
    "scored_at": _TEXT,
    "sentences": _TEXT + _NOTHING,
    "vocabulary": _COUNT + _NOTHING,
    "benchmark": _TEXT,
    "split": _TEXT,
    "images": _COUNT,
    "phrases": _COUNT + _NOTHING,
    "complete": (bool,),
    "weights_sha256": _TEXT,
    "input_size": _COUNT,
    "dtype": _TEXT,
    "leakage": (dict,),
    "versions": (dict,),
}
_NAMES = {str: "text", int: "a whole number", float: "a number", type(None): "null", bool: "true or false"} | {
    dict: "an object",
    list: "a list",
}


class Number(NamedTuple):
    """Numbers that were counted in one way.

    Attributes:
        path: of the file.
        passport: how they were counted, as in the file.
        headline: key of the number that papers print.
        metrics: by key: a float, an int (a count), or None where undefined.
        intervals: by key: low and high; none for some.
    """

    path: str
    passport: dict[str, Any]
    headline: str
    metrics: dict[str, float | int | None]
    intervals: dict[str, tuple[float, float]]


class Results(NamedTuple):
    """A file of results.

    Attributes:
        argument: what the user named, the file itself or a folder above it.
        path: of the file.
        task: such as "referring".
        checkpoint: as it was given to the evaluation.
        numbers: in the file's order.
    """

    argument: str
    path: str
    task: str
    checkpoint: str
    numbers: tuple[Number, ...]


def read_arguments(arguments: Sequence[str]) -> list[Results]:
    """Reads files, and all `results.json` in and below folders; there, those of which nothing is scored are left out.

    Args:
        arguments: paths of files and folders; one that is named twice is read once.

    Raises:
        UserError: there is no such file, it may not be read, or it is not one of results; names it and the place
            within.
    """
    found = []
    for argument in dict.fromkeys(arguments):
        results = [read_results(path, argument) for path in files_of(argument)]
        scored = [one for one in results if one.numbers]
        if not scored:
            raise _bad(Path(results[0].path), "has no numbers")
        found += scored
    return found


def files_of(argument: str) -> Iterator[Path]:
    """Yields the files that an argument names: itself, or those in and below a folder.

    Raises:
        UserError: there are none, or a folder may not be looked into.
    """
    path = Path(argument)
    if not path.is_dir():
        yield checked_file(argument, "results file")
        return
    found = sorted(
        Path(folder) / RESULTS_FILE
        for folder, _, names in os.walk(path, onerror=_refuse_folder)
        if RESULTS_FILE in names
    )
    if not found:
        raise UserError(f"no {RESULTS_FILE} in or below {argument!r}; name what evaluate wrote")
    yield from found


def _refuse_folder(error: OSError) -> NoReturn:
    """Refuses a folder that cannot be looked into: results in it would be missing without a word."""
    raise UserError(f"cannot look into the folder {error.filename!r}: {reason_of(error)}") from error


def read_results(path: Path, argument: str = "") -> Results:
    """Reads a file of results.

    Args:
        path: of the file.
        argument: what the user named, if not the file itself.

    Raises:
        UserError: it is not readable, no JSON, or not laid out as wanted.
    """
    content = _checked(path, _parsed(path), {}, "")
    version = content.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise _bad(path, f"has schema_version {_short(version)}, {SCHEMA_VERSION} is read here")
    _checked(path, content, _RESULTS, "")
    numbers = tuple(_number(path, entry, f"numbers[{index}]") for index, entry in enumerate(content["numbers"]))
    for index, number in enumerate(numbers):
        for key in ("benchmark", "split"):
            if number.passport[key] != content[key]:
                raise _bad(
                    path, f"is of {key} {content[key]!r}, but numbers[{index}].passport of {number.passport[key]!r}"
                )
    return Results(argument or str(path), str(path), content["task"], content["checkpoint"], numbers)


def _parsed(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read results file {str(path)!r}: {reason_of(error)}") from error
    # Bytes that are no text are a ValueError, too.
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"is no JSON ({' '.join(str(error).split())})") from None


def _number(path: Path, entry: object, place: str) -> Number:
    fields = _checked(path, entry, _ENTRY, place)
    passport = _checked(path, fields["passport"], _PASSPORT, f"{place}.passport")
    _checked(path, passport["leakage"], {"status": _TEXT}, f"{place}.passport.leakage")
    metrics, headline = fields["metrics"], fields["headline"]
    _checked(path, metrics, dict.fromkeys((headline, *metrics), _NUMBER + _NOTHING), f"{place}.metrics")
    intervals = {}
    for key, limits in fields["intervals"].items():
        pair = isinstance(limits, list) and len(limits) == 2 and all(_is(limit, _NUMBER) for limit in limits)
        if pair:
            intervals[key] = (float(limits[0]), float(limits[1]))
        elif limits is not None and limits != [None, None]:
            raise _bad(path, f"has {_short(limits)} at {place}.intervals.{key}, two numbers or null are wanted")
    defined = {key: value if _is(value, _NUMBER) and math.isfinite(value) else None for key, value in metrics.items()}
    return Number(str(path), passport, headline, defined, intervals)


def _checked(path: Path, value: object, wanted: dict[str, tuple[type, ...]], place: str) -> dict[str, Any]:
    """Returns `value` if it is an object whose `wanted` keys hold values of these kinds."""
    if not isinstance(value, dict):
        raise _bad(path, f"has {_short(value)} {f'at {place}' if place else 'as its whole'}, an object is wanted")
    dot = f"{place}." if place else ""
    for key, kinds in wanted.items():
        if key not in value:
            raise _bad(path, f"lacks {dot}{key}")
        if not _is(value[key], kinds):
            names = " or ".join(_NAMES[kind] for kind in kinds if not (kind is int and float in kinds))
            raise _bad(path, f"has {_short(value[key])} at {dot}{key}, {names} is wanted")
    return value


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    """Whether a value is of one of these kinds; true and false are no numbers."""
    return type(value) in kinds


def _short(value: object) -> str:
    return " ".join(reprlib.repr(value).split())


def _bad(path: Path, fault: str) -> UserError:
    return UserError(f"results file {str(path)!r} {fault}; name one that evaluate wrote, or evaluate again")
