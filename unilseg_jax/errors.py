"""Errors that a user can mend, and how a command reports them."""

import errno
import os
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn


class UserError(ValueError):
    """Bad input: one line that says what was got, what is wanted and what to do."""


class ExternalError(RuntimeError):
    """Something outside the program failed, such as a disk or another process of the run; one line."""


class StoppedBySignal(RuntimeError):
    """A signal asked the run to stop, and all it has done is saved; one line.

    Attributes:
        of_all: whether all processes of the run have agreed on it.
    """

    def __init__(self, line: str, *, of_all: bool = False):
        super().__init__(line)
        self.of_all = of_all


EXIT_CODES = {
    UserError: 2,
    FloatingPointError: 3,  # the loss is not finite
    ExternalError: 74,  # EX_IOERR of sysexits.h
    StoppedBySignal: 75,  # EX_TEMPFAIL of sysexits.h: start it again
}
"""How a command ends by the error that it ended with; all others are ours, with a traceback."""

_NO_DEVICE = "Unable to initialize backend"  # so JAX begins, in a RuntimeError
_NOT_INSTALLED = ("not in the list of known backends", "cannot open shared object file")
_DENIED = (errno.EACCES, errno.EPERM)
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


def of_system(what: str, error: OSError) -> UserError | ExternalError:
    """Returns the error of something that the system refused: with a full disk nothing given is wrong.

    Args:
        what: could not be done; begins the line.
        error: of the system.
    """
    kind = ExternalError if error.errno in _DISK_FULL else UserError
    return kind(f"{what}: {reason_of(error)}")


def denial(error: BaseException) -> str | None:
    """Returns `reason_of` where an error comes from a denied access, else None.

    Such a file is not damaged. Libraries raise errors of their own for it, which may only quote the system.
    """
    link: BaseException | None = error
    while link is not None:
        for number in _DENIED:
            if (isinstance(link, OSError) and link.errno == number) or os.strerror(number) in str(link):
                return reason_of(OSError(number, os.strerror(number)))
        link = link.__cause__ or link.__context__
    return None


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
    except SystemExit:
        raise
    except BaseException as error:
        line, code = _described(error)
        if _goes_after is not None and not _is_of_all(error):
            _leave_the_others(line or traceback.format_exc().rstrip(), 1 if code is None else code, _goes_after)
        if code is None:
            raise
        _say_last(line)
        raise SystemExit(code) from None


def _say_last(line: str) -> None:
    """Prints a line on stderr. A stream that can take no more is given up: Python would end with a code of its own."""
    for name, words in (("stderr", f"{line}\n"), ("stdout", "")):
        try:
            print(words, end="", file=getattr(sys, name), flush=True)
        except (OSError, ValueError):
            setattr(sys, name, open(os.devnull, "w"))


def _described(error: BaseException) -> tuple[str, int | None]:
    """Returns the line and the code of an error that can be mended; ("", None) for an error of ours."""
    if isinstance(error, tuple(EXIT_CODES)):
        code = next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
        return f"stopped: {error}" if isinstance(error, StoppedBySignal) else f"error: {error}", code
    if isinstance(error, OSError) and can_be_mended(error):
        place = f"{os.fspath(error.filename)!r}: " if _names_file(error) else ""
        code = EXIT_CODES[ExternalError if error.errno in _DISK_FULL else UserError]
        return f"error: {place}{reason_of(error)}", code
    if isinstance(no_device := _without_device(error), UserError | ExternalError):
        return _described(no_device)
    return ("interrupted", 130) if isinstance(error, KeyboardInterrupt) else ("", None)


def _without_device(error: BaseException) -> UserError | ExternalError | None:
    """Returns the error of a device that JAX cannot use, else None.

    JAX says the same of one that it does not know, of one that fails, and where another process of the run, with
    which it exchanges what devices there are, does not answer.
    """
    if isinstance(error, RuntimeError) and str(error).startswith(_NO_DEVICE):
        said = " ".join(str(error).split())[:400]
        if any(each in said for each in _NOT_INSTALLED):
            return UserError(f"{said}; install JAX for it, or set JAX_PLATFORMS to another (cpu)")
        return ExternalError(f"{said}; is the device there and free, and have all processes of the run come?")
    if isinstance(error, AssertionError) and not error.args and (jax := sys.modules.get("jax")):
        # Where no GPU is visible JAX asserts that there is one, and may have removed its frames from the traceback.
        try:
            jax.devices()
        except AssertionError:
            asked = f"JAX_PLATFORMS={jax.config.jax_platforms}"
            return UserError(f"{asked}: no such device is visible to this process; set it to another (cpu)")
        except RuntimeError:
            pass
    return None


def _is_of_all(error: BaseException) -> bool:
    """Whether all processes of a run end by this error, at one step."""
    return isinstance(error, FloatingPointError) or (isinstance(error, StoppedBySignal) and error.of_all)


_goes_after: float | None = None
_connected = False
_LAST_WORDS = 5.0


def one_of_several(*, is_first: bool, connected: bool = True) -> None:
    """Tells `run_command` that this process is one of several, and ends by an error of its own without the others.

    At its exit JAX would wait minutes for them, who may wait for this one, and then abort them all; their codes would
    say nothing.

    Args:
        is_first: whether the others end with it, as they do with JAX's coordinator; it leaves them a moment for what
            they may have to say themselves.
        connected: whether they have found one another, or still wait for it.
    """
    global _goes_after, _connected
    _goes_after, _connected = _LAST_WORDS if is_first else 0.0, connected


def alone() -> None:
    """Takes back `one_of_several`."""
    global _goes_after, _connected
    _goes_after, _connected = None, False


def is_one_of_several() -> bool:
    """Whether this process is connected to others of its run."""
    return _connected


def _leave_the_others(last_words: str, code: int, after: float) -> NoReturn:
    """Ends the process with a code, after some seconds, and leaves out what would wait for other processes.

    Nothing keeps it: no log that is full or that nobody reads, no signal.
    """
    try:
        at_last = threading.Timer(after + _LAST_WORDS, os._exit, [code])
        at_last.daemon = True
        at_last.start()
        _say_last(last_words)
        time.sleep(after)
    finally:
        os._exit(code)


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
