"""Small JSON files read as a whole, with what is wrong within them named by its place."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files


class _Repeating(dict):
    """A JSON object in which keys occur more than once, with their first values.

    Attributes:
        repeated: these keys.
    """

    def __init__(self, pairs: list[tuple[str, object]]):
        super().__init__()
        self.repeated: list[str] = []
        for key, value in pairs:
            if key in self:
                self.repeated.append(key)
            else:
                self[key] = value


def read_json(path: Path, what: str, report: Callable[[str], object]) -> object:
    """Parses a JSON file.

    Bytes that are not UTF-8 become halves of surrogate pairs, so that they spoil only the text that they stand in
    (`triplet.is_utf8`).

    Args:
        path: of the file.
        what: names it in the message ("annotation file").
        report: is told of each key that an object has twice; its first value is kept.

    Raises:
        UserError: it is missing or no JSON.
    """
    content = raw_files.read_bytes(path, what)
    found: list[_Repeating] = []

    def to_object(pairs: list[tuple[str, object]]) -> dict:
        plain = dict(pairs)
        if len(plain) == len(pairs):
            return plain
        found.append(_Repeating(pairs))
        return found[-1]

    try:
        text = content.decode(json.detect_encoding(content), "surrogateescape")
        parsed = json.loads(text, object_pairs_hook=to_object)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the {what} {str(path)!r} is no JSON ({error})") from None
    # Only now the place is known; mostly there is nothing to look for.
    for place, key in _repeated_keys(parsed) if found else ():
        report(f"the key {key!r} occurs twice in {place!r}; the first one is kept")
    return parsed


def _repeated_keys(content: object) -> Iterator[tuple[str, str]]:
    """Goes through a parsed file, and gives place (keys and numbers of entries, with slashes) and key."""
    waiting = [("", content)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, _Repeating):
            yield from ((place, key) for key in value.repeated)
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting += reversed([(f"{place}/{name}", part) for name, part in inner])
