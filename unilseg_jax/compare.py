"""Command: prints the results of evaluations beside the paper's, like with like.

Usage: python -m unilseg_jax.compare A.json B.json ... [--protocol paper|released] [--metrics NAME,...]
    [--output FILE.md]

The exit code is 2 where numbers that would share a column are not comparable; nothing is printed or written then.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from unilseg_jax.command_line import OneLineParser, path_text
from unilseg_jax.errors import UserError, run_command
from unilseg_jax.evaluation.comparison import columns
from unilseg_jax.evaluation.comparison_text import as_markdown
from unilseg_jax.evaluation.results_files import files_of, read_arguments
from unilseg_jax.interop.output import check_parents, written_whole


def main(argv: Sequence[str] | None = None) -> None:
    """Reads all files, puts their numbers into columns, then prints them as Markdown.

    Raises:
        UserError: a file is not one of results, numbers differ in what makes them comparable, or the output cannot be
            written or is one of these files.
    """
    arguments = _parser().parse_args(argv)
    output = Path(arguments.output) if arguments.output else None
    if output:
        if output.is_dir():
            raise UserError(f"output {arguments.output!r} is a folder, a file is wanted")
        check_parents(output)
        _refuse_to_replace(output, arguments.results)
    found = columns(read_arguments(arguments.results), arguments.protocol, arguments.metrics)
    text = as_markdown(found, arguments.protocol)
    if output:
        with written_whole(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(text, end="")


def _refuse_to_replace(output: Path, results: Sequence[str]) -> None:
    """Refuses an output that is one of the files that are read."""
    if output.exists() and any(output.samefile(path) for argument in results for path in files_of(argument)):
        raise UserError(f"output {str(output)!r} is one of the files that are compared; name another one")


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m unilseg_jax.compare", description=__doc__.splitlines()[0].removeprefix("Command: ")
    )
    parser.add_argument(
        "results", nargs="+", type=path_text, metavar="A.json", help="a results.json, or a folder with some in it"
    )
    parser.add_argument(
        "--protocol",
        choices=("paper", "released"),
        default="paper",
        help="stretched pictures cut at 0.5 (default), or letterboxed ones cut at 0.35",
    )
    parser.add_argument(
        "--metrics", type=_names, metavar="NAME,...", help="keys of numbers to show, or all (default: the main ones)"
    )
    parser.add_argument("--output", type=path_text, metavar="FILE.md", help="a file to write as well")
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names parted by commas")
    return ["all"] if "all" in names else names


if __name__ == "__main__":
    run_command(main)
