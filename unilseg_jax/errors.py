"""Errors that a user can mend, and how a command reports them."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


class UserError(ValueError):
    """Bad input: one line that says what was got, what is wanted and what to do."""


def run_command(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Runs a command's `main`; a `UserError` becomes one line on stderr and exit code 2, divergence exit code 3.

    Args:
        main: takes the arguments after the program's name (None: those of the process).
        argv: the arguments to hand over.
    """
    try:
        main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(3) from None
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
