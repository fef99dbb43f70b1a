"""Keeps Orbax and its storage from saying more than one line of an error, and from printing tracebacks beside it."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator

_LOOP_IS_GONE = "Event loop is closed"
_UNFINISHED = "orbax-checkpoint-tmp"


def _is_no_echo(record: logging.LogRecord) -> bool:
    """Whether a record of asyncio's says more than what was raised already, of a checkpoint that was given up."""
    error = record.exc_info[1] if record.exc_info else None
    return _UNFINISHED not in str(error)


@contextlib.contextmanager
def raised_only() -> Iterator[None]:
    """What goes wrong in the block is raised, and not printed as well.

    Orbax logs an error in every thread that meets it. Where one array cannot be written, the storage reports each of
    the others to an event loop that is gone, and the loop's futures complain when they are collected: both may happen
    after the block, so after an error, and only then, these two reports stay silenced. Such blocks may lie within one
    another.
    """
    absl, loop = logging.getLogger("absl"), logging.getLogger("asyncio")
    level, hook = absl.level, sys.unraisablehook

    def filtered(unraisable):
        if _LOOP_IS_GONE not in str(unraisable.exc_value):
            hook(unraisable)

    def no_echo(record: logging.LogRecord) -> bool:  # of this block alone: a logger keeps no filter twice
        return _is_no_echo(record)

    absl.setLevel(logging.CRITICAL)
    loop.addFilter(no_echo)
    sys.unraisablehook = filtered
    try:
        yield
        sys.unraisablehook = hook
        loop.removeFilter(no_echo)
    finally:
        absl.setLevel(level)


def first_line(error: Exception) -> str:
    """Returns what an error says, without what the storage library adds for its makers."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    line = re.sub(r" \[(tensorstore_spec|os_error_code|source locations)=.*", "", line)
    return line if len(line) <= 300 else f"{line[:120]} … {line[-170:]}"
