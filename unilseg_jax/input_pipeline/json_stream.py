"""Large JSON files read entry by entry, in the memory of one entry."""

import codecs
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files

_CHUNK = 1 << 20
# No entry of any set comes near; what is longer is a broken file, not an entry that goes on.
_MAX_ENTRY = 1 << 26
_NO_BLANK = re.compile(r"[^ \t\r\n]")
_DECODER = json.JSONDecoder()


def list_entries(path: Path, lists: Collection[str], what: str) -> Iterator[tuple[str, object]]:
    """Parses the lists of a JSON object entry by entry; what else the object holds is passed over.

    Args:
        path: of the file, `{"NAME": [...], ...}`.
        lists: names of the lists that are wanted.
        what: names the file in the message ("annotation file").

    Yields:
        The name of a list and an entry of it, in the order of the file.

    Raises:
        UserError: the file is missing, is no JSON, or lacks one of the lists.
    """
    missing = set(lists)
    raw_files.note(path)
    try:
        with open(path, "rb") as file:
            text = _Text(file)
            text.take("{")
            while text.peek() != "}":
                name = text.value()
                text.take(":")
                if isinstance(name, str) and name in lists and text.peek() == "[":
                    missing.discard(name)
                    for entry in _entries(text):
                        yield name, entry
                else:
                    text.value()
                if text.peek() != "}":
                    text.take(",")
    except OSError as error:
        raise UserError(f"the {what} {str(path)!r} is not read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"the {what} {str(path)!r} is no JSON ({error})") from None
    if missing:
        raise UserError(f"the {what} {str(path)!r} has no list of {' and of '.join(sorted(missing))}")


def _entries(text: "_Text") -> Iterator[object]:
    text.take("[")
    while text.peek() != "]":
        yield text.value()
        if text.peek() != "]":
            text.take(",")
    text.take("]")


class _Text:
    """A window that moves over a JSON text; values are taken at its start."""

    def __init__(self, file: BinaryIO):
        self._file = file
        # Bytes that are not UTF-8 spoil the entry that they stand in, which its reader lists, and not the file.
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
        self._text = ""
        self._at = 0
        self._ended = False

    def peek(self) -> str:
        """Returns the next character that is no blank, "" at the end of the file."""
        while True:
            found = _NO_BLANK.search(self._text, self._at)
            if found:
                self._at = found.start()
                return found[0]
            self._at = len(self._text)
            if self._ended:
                return ""
            self._read(_CHUNK)

    def take(self, wanted: str) -> None:
        """Goes over a character."""
        found = self.peek()
        if found != wanted:
            raise ValueError(f"{found!r} where {wanted!r} is wanted" if found else "the file is cut short")
        self._at += 1

    def value(self) -> object:
        """Parses the next value."""
        if not self.peek():
            raise ValueError("the file is cut short")
        while True:
            left = len(self._text) - self._at
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Either the value goes on behind the window, or it is none.
                if self._ended or left > _MAX_ENTRY:
                    raise ValueError(error.msg if left > _MAX_ENTRY else "the file is cut short or broken") from None
            else:
                # A number at the window's end may go on.
                if end < len(self._text) or self._ended:
                    self._at = end
                    return value
            self._read(max(_CHUNK, left))

    def _read(self, size: int) -> None:
        chunk = self._file.read(size)
        self._ended = not chunk
        self._text = self._text[self._at :] + self._decode(chunk, self._ended)
        self._at = 0
