"""The argument parser of all commands: a mistake costs one line, not a page."""

import argparse
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Parses arguments; an unknown or wrong one ends the process with one line and exit code 2.

    Flags must be written out: a shortened one would change its meaning when a flag is added.
    """

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

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
