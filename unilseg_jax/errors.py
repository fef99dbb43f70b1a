"""Errors that a user can mend, and how a command reports them."""

import errno
import os
import stat
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

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ADVICE = {
    errno.ENAMETOOLONG: "use a shorter one",
    errno.EACCES: "allow the access or name another path",
    errno.EPERM: "allow the access or name another path",
    errno.EROFS: "name another path",
    errno.ENOSPC: "make room or name another path",
    errno.EDQUOT: "make room or name another path",
    errno.EFBIG: "raise the limit (ulimit -f) or name another path",
}


def can_be_mended(error: OSError) -> bool:
    """Whether a user can mend what the system refused: it names a file, or has to do with the disk or rights."""
    return bool(error.strerror) and (_names_file(error) or error.errno in _ADVICE)


def _names_file(error: OSError) -> bool:
    return isinstance(error.filename, str | bytes | os.PathLike)


def reason_of(error: OSError) -> str:
    """Returns what the system says, and what to do about it."""
    said = " ".join((error.strerror or str(error)).split())
    return f"{said}; {_ADVICE.get(error.errno or 0, 'check the path')}"


def run_command(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Runs a command's `main`; an error of `EXIT_CODES`, or a full disk, becomes one line on stderr and its code.

    So does an `OSError` that the user can mend, wherever it comes from: a full disk names no file, and a folder that
    may not be entered and a name that is too long make even the question whether there is such a file fail.

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
        if not can_be_mended(error):
            raise
        place = f"{os.fspath(error.filename)!r}: " if _names_file(error) else ""
        print(f"error: {place}{reason_of(error)}", file=sys.stderr)
        code = EXIT_CODES[ExternalError if error.errno in _DISK_FULL else UserError]
        raise SystemExit(code) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def checked_file(path: str | os.PathLike, what: str) -> Path:
    """Returns `path` if it is a readable file.

    Args:
        path: the path as the user gave it.
        what: what the file is, for the message ("image", "checkpoint").

    Raises:
        UserError: there is no such file, it cannot be looked at, or it is a folder.
    """
    path = Path(path)
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    # A name with a zero byte: ValueError.
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UserError(f"no such {what}: {str(path)!r}; check the path") from None
    except OSError as error:
        raise UserError(f"cannot read {what} {str(path)!r}: {reason_of(error)}") from error
    if is_folder:
        raise UserError(f"{str(path)!r} is a folder, a file is wanted as {what}")
    return path
