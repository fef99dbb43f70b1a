"""Command: looks at prepared data sets.

Usage: python -m unilseg_jax.doctor --data DIR --preview NAME[/CONFIG][:SPLIT] [--count N] [--output FILE.png]
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from unilseg_jax.command_line import OneLineParser, positive_int
from unilseg_jax.errors import UserError, run_command
from unilseg_jax.input_pipeline import contact_sheet
from unilseg_jax.input_pipeline.sources import find_set, open_source


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with `argv`, or with the process's arguments.

    Raises:
        UserError: a folder, data set or split is not there, or the picture cannot be written.
    """
    arguments = _arguments(argv)
    data_dir = Path(arguments.data)
    if not data_dir.is_dir():
        raise UserError(f"no such folder: {arguments.data!r}; --data is the folder that prepare was given as --out")
    preview(arguments.preview, data_dir, arguments.count, arguments.output)


def preview(wanted: str, data_dir: Path, count: int, output: str | None) -> Path:
    """Writes a contact sheet of a prepared data set.

    Args:
        wanted: `NAME[/CONFIG][:SPLIT]`; without a split, `train` or else the first one.
        data_dir: folder of all prepared data sets.
        count: how many pictures, evenly spread over the split.
        output: PNG to write; None names it after data set and split, in the current folder.

    Returns:
        The file.

    Raises:
        UserError: the data set or split is not there, a record is broken, or the file cannot be written.
    """
    name, _, split = wanted.partition(":")
    directory = find_set(name, data_dir)
    if not split:
        import tensorflow_datasets as tfds

        splits = list(tfds.builder_from_directory(os.fspath(directory)).info.splits)
        split = "train" if "train" in splits else splits[0]
    source = open_source(name, data_dir=data_dir, split=split)
    set_name = "_".join(dict.fromkeys(directory.relative_to(data_dir).parts[:-1]))
    path = Path(output or f"{set_name}_{split}.png")
    if path.suffix.lower() != ".png":
        raise UserError(f"--output {str(path)!r} must end in .png")
    numbers = contact_sheet.spread(len(source), count)
    try:
        contact_sheet.write_sheet(path, source, numbers)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror or error}; name another --output") from error
    print(f"{len(numbers)} of {len(source)} pictures of {name}:{split} drawn to {path}")
    return path


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m unilseg_jax.doctor", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of all prepared data sets")
    parser.add_argument(
        "--preview",
        required=True,
        metavar="NAME[/CONFIG][:SPLIT]",
        help="write a contact sheet of this data set; without a split, of train or else the first one",
    )
    parser.add_argument("--count", type=positive_int, default=12, metavar="N", help="pictures on it; default 12")
    parser.add_argument("--output", metavar="FILE.png", help="the sheet; default: NAME_CONFIG_SPLIT.png")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
