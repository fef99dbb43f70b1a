"""The argument parser of all commands: a mistake costs one line, not a page."""

import argparse
import difflib
import math
import sys
from collections.abc import Sequence
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Parses arguments; an unknown or wrong one ends the process with one line and exit code 2.

    Flags must be written out: a shortened one would change its meaning when a flag is added.
    """

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def flags(self) -> list[str]:
        """Returns all flags that were added, as they are written."""
        return list(self._option_string_actions)

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        """Parses arguments; a misspelt flag is named as such, not as the lack of the one that was meant."""
        args = list(sys.argv[1:] if args is None else args)
        for argument in args[: args.index("--")] if "--" in args else args:
            flag = argument.split("=")[0]
            if flag.startswith("--") and flag not in self.flags():
                close = difflib.get_close_matches(flag, self.flags(), n=1)
                self.error(f"unrecognized arguments: {flag}" + (f"; is {close[0]} meant?" if close else ""))
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends the process with the message in one line."""
        line = " ".join(message.split()).rstrip(".")
        self.exit(2, f"error: {line}; see `{self.prog} --help`\n")


def positive_int(text: str) -> int:
    """Returns a whole number of at least 1; for `type=` of an argument.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def positive_seconds(text: str) -> float:
    """Returns a time above 0; for `type=` of an argument.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def path_text(text: str) -> str:
    """Returns a path as it was given; for `type=` of an argument.

    An empty one would be taken for the current folder.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("the path is empty, a file or folder is wanted")
    return text
