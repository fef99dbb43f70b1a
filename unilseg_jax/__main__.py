"""`python -m unilseg_jax`: says which commands there are."""

import sys
from collections.abc import Sequence
from pathlib import Path

from unilseg_jax.errors import UserError, run_command
from unilseg_jax.version import __version__

_MARK = '"""Command: '


def commands() -> dict[str, str]:
    """Returns the names of all commands, each with the first line of its module; nothing is imported for it."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        with path.open(encoding="utf-8") as file:
            line = file.readline().strip()
        if line.startswith(_MARK):
            found[path.stem] = line.removeprefix(_MARK)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the commands.

    Raises:
        UserError: there are arguments.
    """
    argv = sys.argv[1:] if argv is None else argv
    if list(argv) not in ([], ["-h"], ["--help"]):
        raise UserError(
            f"unexpected argument {argv[0]!r}; run python -m unilseg_jax.COMMAND, of {', '.join(commands())}"
        )
    print(f"unilseg_jax {__version__}; python -m unilseg_jax.COMMAND --help says more\n")
    width = max(map(len, commands()))
    for name, line in commands().items():
        print(f"  {name:<{width}}  {line}")


if __name__ == "__main__":
    run_command(main)
