"""Prepared data sets as random-access sources of triplets, for grain."""

import os
import re
from pathlib import Path

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.triplet import SCHEMA_VERSION, Triplet, decode_record

_VERSION = re.compile(r"(\d+)\.\d+\.\d+")


class TripletSource:
    """One split of a prepared data set: `source[i]` is the triplet number i.

    The records are opened at the first access and never pickled, so a source is small to send and each worker
    process reads through files of its own. Workers must be spawned, as grain does it: ArrayRecord's threads
    do not survive a fork, and a forked reader waits for them for ever.

    Args:
        directory: of the prepared data set, down to its version.
        split: name of the split.
        length: number of its records.
    """

    def __init__(self, directory: Path, split: str, length: int):
        self.directory = Path(directory)
        self.split = split
        self._length = length
        self._opened: object = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Triplet:
        try:
            return decode_record(self.record(index))
        except UserError as error:
            raise UserError(f"record {index} of {self!r}: {error}") from None

    def record(self, index: int) -> dict:
        """Returns the record number `index` as it lies on disk; its picture is still encoded."""
        index = int(index)
        if not 0 <= index < self._length:
            raise IndexError(f"record {index} of {self._length}")
        return self._reader()[index]

    def _reader(self) -> object:
        if self._opened is None:
            import tensorflow_datasets as tfds

            builder = tfds.builder_from_directory(os.fspath(self.directory))
            decoders = {"image": tfds.decode.SkipDecoding()}
            self._opened = builder.as_data_source(split=self.split, decoders=decoders)
        return self._opened

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": None}

    def __repr__(self) -> str:
        return f"TripletSource({str(self.directory)!r}, split={self.split!r})"


def open_source(name: str, *, data_dir: str | os.PathLike, split: str) -> TripletSource:
    """Opens a split of a prepared data set.

    Args:
        name: `NAME` or `NAME/CONFIG`, such as `refcoco/refcocog`; without a configuration the one that is
            named like the data set, or the only one.
        data_dir: the folder that `unilseg_jax.prepare` was given as `--out`.
        split: name of the split, such as `train`.

    Returns:
        The source; its first record was read.

    Raises:
        UserError: the data set or split is not there, or is of another schema version.
    """
    directory = find_set(name, data_dir)
    import tensorflow_datasets as tfds

    splits = tfds.builder_from_directory(os.fspath(directory)).info.splits
    if split not in splits:
        raise UserError(f"{name!r} has no split {split!r}; it has {', '.join(splits)}")
    source = TripletSource(directory, split, splits[split].num_examples)
    # A record that this code cannot read is reported now, not in a worker process.
    _ = source[0]
    return source


def find_set(name: str, data_dir: str | os.PathLike) -> Path:
    """Returns the folder of a prepared data set, down to its version.

    Args:
        name: as for `open_source`.
        data_dir: as for `open_source`.

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
        raise UserError(f"no prepared data set {name!r} in {str(data_dir)!r}; {wanted}")
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
