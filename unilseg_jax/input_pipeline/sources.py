"""Prepared data sets as random-access sources of triplets, for grain."""

import copy
import os
import sys
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt16
from rich.console import Console
from rich.progress import track

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.index import Index, IndexWriter, read_index, write_index
from unilseg_jax.input_pipeline.prepared import AGAIN, described_set, fault, find_set, one_line, split_sizes
from unilseg_jax.input_pipeline.triplet import Triplet, check_version, decode_record


@runtime_checkable
class Source(Protocol):
    """A random access collection of pictures with masks and phrases."""

    def __len__(self) -> int:
        """Returns the number of pictures."""

    def __getitem__(self, index: int) -> Triplet:
        """Returns a picture; the same one for the same index."""


@runtime_checkable
class RecordSource(Protocol):
    """A source whose records can be read without decoding them, and whose sizes are known beforehand."""

    @property
    def task(self) -> str:
        """One of `triplet.TASKS`."""

    @property
    def samples(self) -> np.ndarray:
        """Per record the number of objects to be learnt."""

    def __len__(self) -> int:
        """Returns the number of records."""

    def record(self, index: int) -> dict:
        """Returns a record, its picture still encoded."""


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
        self._rows: np.ndarray | None = None  # None: all
        self._opened: Any = None
        self._index: Index | None = None  # of the rows

    def __len__(self) -> int:
        return self._length if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> Triplet:
        record = self.record(index)
        try:
            return decode_record(record)
        except UserError as error:
            raise UserError(f"record {index} of {self!r}: {error}") from None

    def record(self, index: int) -> dict:
        """Returns the record number `index` as it lies on disk; its picture is still encoded.

        Raises:
            IndexError: there is none of this number.
            UserError: its file is damaged or may not be read, or it is of another schema version.
        """
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return self._read(index if self._rows is None else int(self._rows[index]))

    def select(self, keep: Bool[np.ndarray, " n"]) -> "TripletSource":
        """Returns the source of some of the records, in their order; nothing is read.

        Args:
            keep: for each record whether it stays.

        Raises:
            ValueError: it is not as long as the source.
        """
        if len(keep) != len(self):
            raise ValueError(f"{len(keep)} choices for {len(self)} records of {self!r}")
        chosen = copy.copy(self)
        chosen._rows = np.flatnonzero(keep) if self._rows is None else self._rows[keep]
        chosen._index = None if self._index is None else _some(self._index, keep)
        return chosen

    @property
    def index(self) -> Index:
        """The index of the records; a set that was prepared without one is read through once, with a progress bar.

        Raises:
            UserError: it belongs to other records.
        """
        if self._index is None:
            index = read_index(self.directory, self.split) or self._made_index()
            if len(index.samples) != self._length:
                raise UserError(
                    f"the index of {self!r} has {len(index.samples)} entries for {self._length} records; {AGAIN}"
                )
            self._index = index if self._rows is None else _some(index, self._rows)
        return self._index

    @property
    def samples(self) -> UInt16[np.ndarray, " n"]:
        """Per record the number of objects to be learnt."""
        return self.index.samples

    @property
    def task(self) -> str:
        """The task of the first record, one of `triplet.TASKS`; those of a data set have one task."""
        return bytes(self.record(0)["task"]).decode() if len(self) else "none"

    def _made_index(self) -> Index:
        """Makes the index, and writes it beside the records if that is allowed."""
        writer = IndexWriter()
        numbers = track(range(self._length), f"index of {self.split}", console=Console(file=sys.stderr))
        for number in numbers:
            writer.add(self._read(number))
        try:
            write_index(self.directory, self.split, writer.index())
        except OSError as error:
            print(f"the index is made anew each time, it cannot be written: {error}", file=sys.stderr)
        return writer.index()

    def _read(self, number: int) -> dict:
        """Returns the record of a number that counts all of the split."""
        reader = self._reader()
        try:
            serialized = reader[number]
            if not serialized:
                # What it gives for some records of a file that was cut short.
                raise EOFError("the record is empty")
            return parse_record(serialized)
        except UserError as error:
            raise UserError(f"record {number} of {self!r}: {error}") from None
        # ArrayRecord and protobuf report a missing or damaged file in their own ways.
        except Exception as error:
            reason = f"{str(self._file_of(number))!r} {fault(error)}"
            raise UserError(f"record {number} of {self!r} is not read: {reason}") from None

    def _reader(self) -> Any:
        if self._opened is None:
            import tensorflow_datasets as tfds

            as_written = tfds.decode.DeserializeMethod.RAW_BYTES
            builder = described_set(self.directory)
            try:
                self._opened = builder.as_data_source(split=self.split, deserialize_method=as_written)
            # Another file format, or sizes that make no sense.
            except Exception as error:
                raise UserError(f"{self!r} cannot be opened ({one_line(error)}); {AGAIN}") from None
        return self._opened

    def _file_of(self, number: int) -> Path:
        """Returns the file that holds a record, going by the description."""
        for part in described_set(self.directory).info.splits[self.split].file_instructions:
            if number < part.take:
                return Path(part.filename)
            number -= part.take
        return self.directory

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": None, "_index": None}

    def __repr__(self) -> str:
        return f"TripletSource({str(self.directory)!r}, split={self.split!r})"


def _some(index: Index, rows: np.ndarray) -> Index:
    return Index(*(column[rows] for column in index))


def parse_record(serialized: bytes) -> dict:
    """Reads a record as tfds wrote it.

    It is what tfds' own reader gives, in a seventh of its time, which is most of what reading a record takes.

    Args:
        serialized: a `tf.train.Example` in bytes.

    Returns:
        Numbers, bytes and lists of them by the names of `triplet`'s fields; `mask_boxes` is (m, 4) float32.

    Raises:
        UserError: it is of another schema version.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    features = tf_example_pb2.Example.FromString(serialized).features.feature
    # Fields of another version may have other forms, so nothing else is read before.
    version = features["schema_version"].int64_list.value if "schema_version" in features else ()
    check_version({"schema_version": next(iter(version), None)})
    record: dict[str, Any] = {}
    for name, feature in features.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        # All that is there once per mask or phrase is named like it.
        record[name] = values if name.startswith(("mask", "phrase")) else values[0]
    record["mask_boxes"] = np.array(record["mask_boxes"], np.float32).reshape(-1, 4)
    return record


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
        UserError: the data set or split is not there, is damaged, or is of another schema version.
    """
    directory = find_set(name, data_dir)
    sizes = split_sizes(directory)
    if split not in sizes:
        raise UserError(f"{name!r} has no split {split!r}; it has {', '.join(sizes)}")
    source = TripletSource(directory, split, sizes[split])
    # A record that this code cannot read is reported now, not in a worker process.
    _ = source[0]
    return source
