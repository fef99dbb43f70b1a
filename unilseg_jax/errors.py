"""Errors that a user can mend, and how a command reports them."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


class UserError(ValueError):
    """Bad input: one line that says what was got, what is wanted and what to do."""


class ExternalError(RuntimeError):
    """Something outside the program failed, such as a disk or another process of the run; one line."""


class StoppedBySignal(RuntimeError):
    """A signal asked the run to stop, and all it has done is saved; one line."""


EXIT_CODES = {
    UserError: 2,
    FloatingPointError: 3,  # the loss is not finite
    ExternalError: 74,  # EX_IOERR of sysexits.h
    StoppedBySignal: 75,  # EX_TEMPFAIL of sysexits.h: start it again
}
"""How a command ends by the error that it ended with; all others are ours, with a traceback."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def run_command(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Runs a command's `main`; an error of `EXIT_CODES`, or a full disk, becomes one line on stderr and its code.

    Args:
        main: takes the arguments after the program's name (None: those of the process).
        argv: the arguments to hand over.
    """
    try:
        main(argv)
    except tuple(EXIT_CODES) as error:
        code = next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
        print(f"stopped: {error}" if isinstance(error, StoppedBySignal) else f"error: {error}", file=sys.stderr)
        raise SystemExit(code) from None
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        print(f"error: {error}; make room and start the same command again", file=sys.stderr)
        raise SystemExit(EXIT_CODES[ExternalError]) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def checked_file(path: str | os.PathLike, what: str) -> Path:
    """Returns `path` if it is a readable file.

    Args:
        path: the path as the user gave it.
        what: what the file is, for the message ("image", "checkpoint").

    Raises:
        UserError: there is no such file, or it is a folder.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such {what}: {str(path)!r}; check the path")
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder, a file is wanted as {what}")
    return path
