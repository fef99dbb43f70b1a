"""Prepared data sets as folders: where they lie, and what they say of themselves."""

import difflib
import os
import re
from pathlib import Path
from typing import Any

from unilseg_jax.errors import UserError, denial
from unilseg_jax.input_pipeline.catalogue import builder_names
from unilseg_jax.input_pipeline.triplet import SCHEMA_VERSION

AGAIN = "prepare the data set again, with --overwrite"
_VERSION = re.compile(r"(\d+)\.\d+\.\d+")


def find_set(name: str, data_dir: str | os.PathLike) -> Path:
    """Returns the folder of a prepared data set, down to its version.

    Args:
        name: as for `sources.open_source`.
        data_dir: as there.

    Raises:
        UserError: it is not there, is of another schema version, or the name means several.
    """
    data_dir = Path(data_dir)
    base, _, config = name.partition("/")
    command = f"python -m unilseg_jax.prepare {base}" + (f" --config {config}" if config else "")
    wanted = f"prepare it with: {command} --raw DIR --out {data_dir}"
    configs = sorted(path.name for path in (data_dir / base).glob("*") if finished_versions(path))
    if not config and not finished_versions(data_dir / base):
        config = base if base in configs else configs[0] if len(configs) == 1 else ""
        if not config and configs:
            raise UserError(f"{name!r} has several configurations, name one: {base}/{'|'.join(configs)}")
    folder = data_dir / base / config
    versions = finished_versions(folder)
    if not versions:
        others = sorted(path.parent.name for path in data_dir.glob(f"*/{base}") if finished_versions(path))
        if others and not config:
            wanted = f"is {others[0]}/{base} meant?"
        elif base not in (known := builder_names()):
            close = difflib.get_close_matches(base, known, n=1)
            wanted = f"is {close[0]!r} meant?" if close else f"there are builders for {', '.join(known) or 'none'}"
        else:
            wanted += f" (a drawn stand-in: prepare {base} --synthetic 4 --raw NEW_DIR --out {data_dir})"
        elsewhere = ", or say where it lies (train: --config.data_dir=DIR, other commands: --data DIR)"
        raise UserError(
            f"no prepared data set {name!r} in {str(data_dir)!r}; {wanted}{'' if wanted.endswith('?') else elsewhere}"
        )
    readable = [path for path in versions if int(path.name.split(".")[0]) == SCHEMA_VERSION]
    if not readable:
        raise UserError(f"{str(versions[-1])!r} has another schema version, {SCHEMA_VERSION} is wanted; {wanted}")
    return readable[-1]


def finished_versions(folder: Path) -> list[Path]:
    """Returns the finished version folders, oldest first; one that is being written has another name."""
    found = [
        path
        for path in folder.glob("*.*.*")
        if _VERSION.fullmatch(path.name) and (path / "dataset_info.json").is_file()
    ]
    return sorted(found, key=lambda path: tuple(int(part) for part in path.name.split(".")))


def described_set(directory: Path) -> Any:
    """Opens what a prepared data set says of itself, as a tfds builder.

    Raises:
        UserError: `dataset_info.json` or `features.json` is damaged, missing or may not be read.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(os.fspath(directory))
    # tfds and its JSON and protobuf readers raise many kinds.
    except Exception as error:
        try:
            tfds.features.FeaturesDict.from_config(os.fspath(directory))
            file = "dataset_info.json"
        except Exception:
            file = "features.json"
        raise UserError(f"the description in {str(directory / file)!r} {fault(error)}") from None


def split_sizes(directory: Path) -> dict[str, int]:
    """Returns the number of records of each split of a prepared data set.

    Raises:
        UserError: its description is damaged.
    """
    sizes = {name: split.num_examples for name, split in described_set(directory).info.splits.items()}
    for split, size in sizes.items():
        if size < 1:
            file = str(directory / "dataset_info.json")
            raise UserError(f"the description in {file!r} is damaged ({split} has {size} records); {AGAIN}")
    return sizes


def fault(error: Exception) -> str:
    """Returns what is wrong with a file of a prepared set that was not read, and what to do."""
    if denied := denial(error):
        return f"cannot be read: {denied}"
    return f"is damaged ({one_line(error)}); {AGAIN}"


def one_line(error: Exception) -> str:
    """Returns the message of an error without its line breaks, or else its kind."""
    return " ".join(str(error).split())[:200] or type(error).__name__
