"""Keeps Orbax and its storage from saying more than one line of an error, and from printing tracebacks beside it."""

import contextlib
import functools
import logging
import re
import sys
from collections.abc import Iterator

_LOOP_IS_GONE = "Event loop is closed"
_UNFINISHED = "orbax-checkpoint-tmp"


class _Watch:
    """What is silenced, while blocks are open and for good once one has ended by an error."""

    def __init__(self):
        self.open, self.failed, self._hook = 0, False, sys.unraisablehook
        logging.getLogger("asyncio").addFilter(self._passes)
        sys.unraisablehook = self._report

    @property
    def _silences(self) -> bool:
        return self.failed or self.open > 0

    def _passes(self, record: logging.LogRecord) -> bool:
        """Whether a record of asyncio's says more than what was raised already, of a checkpoint that was given up."""
        error = record.exc_info[1] if record.exc_info else None
        return not self._silences or _UNFINISHED not in str(error)

    def _report(self, unraisable) -> None:
        if not self._silences or _LOOP_IS_GONE not in str(unraisable.exc_value):
            self._hook(unraisable)


_watch = functools.cache(_Watch)


@contextlib.contextmanager
def raised_only() -> Iterator[None]:
    """What goes wrong in the block is raised, and not printed as well.

    Orbax logs an error in every thread that meets it. Where one array cannot be written, the storage reports each of
    the others to an event loop that is gone, and the loop's futures complain when they are collected: both may happen
    after the block, so after an error, and only then, these two reports stay silenced. Such blocks may lie within one
    another.
    """
    absl, watch = logging.getLogger("absl"), _watch()
    level = absl.level
    absl.setLevel(logging.CRITICAL)
    watch.open += 1
    try:
        yield
    except BaseException:
        watch.failed = True
        raise
    finally:
        watch.open -= 1
        absl.setLevel(level)


def first_line(error: Exception) -> str:
    """Returns what an error says, without what the storage library adds for its makers."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    line = re.sub(r" \[(tensorstore_spec|os_error_code|source locations)=.*", "", line)
    return line if len(line) <= 300 else f"{line[:120]} … {line[-170:]}"
