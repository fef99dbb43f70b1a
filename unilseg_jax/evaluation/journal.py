"""Finished work on disk: an evaluation that was killed goes on with what is missing, and processes add up there.

The folder holds files `part-PROCESS-NUMBER.npz`, each with the results of some units. Its name says what the work is
of, so that results of other weights or other settings never mix.
"""

import io
import os
import shutil
import struct
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from unilseg_jax.errors import ExternalError, UserError, reason_of
from unilseg_jax.evaluation.judges.base import Rows, UnitResult

FLUSH_SECONDS = 20.0
"""How much work may be lost when a process is killed."""
_SEPARATOR = "|"


class Journal:
    """What one process writes down, and what all of them have.

    Args:
        folder: of the work; made if it is not there.
        process: number of this process.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path, process: int = 0):
        self.folder, self._process = Path(folder), process
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {str(folder)!r}: {error.strerror}; name another --output") from None
        self._waiting: list[tuple[int, UnitResult]] = []
        self._flushed = time.monotonic()

    def done(self) -> set[int]:
        """Returns the units that are written down, by any process; damaged files are removed, with their units.

        Raises:
            ExternalError: a file cannot be read for another reason.
        """
        found: set[int] = set()
        for path in self._parts():
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    found |= {unit for unit, _ in _split(dict(arrays))}
            # A flipped bit can make a zip look encrypted (RuntimeError) or packed in a way that nobody knows.
            except (ValueError, LookupError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile):
                path.unlink(missing_ok=True)
            except OSError as error:  # a share that fails for a moment must not cost finished work
                raise ExternalError(f"cannot read {str(path)!r}: {reason_of(error)}") from error
        return found

    def add(self, unit: int, result: UnitResult) -> None:
        """Takes the result of a unit; it is on disk within `FLUSH_SECONDS` of further work."""
        self._waiting.append((unit, result))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes down what waits, under a temporary name first."""
        if self._waiting:
            result = merged(self._waiting)
            counts = [len(one.samples["number"]) for _, one in self._waiting]
            arrays = {
                "units": np.array([unit for unit, _ in self._waiting], np.int64),
                "counts": np.array(counts, np.int64),
                **{_SEPARATOR.join(("samples", name)): column for name, column in result.samples.items()},
                **{
                    _SEPARATOR.join(("rows", table, name)): column
                    for table, rows in result.rows.items()
                    for name, column in rows.items()
                },
            }
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            path = self.folder / f"part-{self._process:04}-{time.time_ns()}.npz"
            partial = path.with_suffix(".partial")
            partial.write_bytes(buffer.getvalue())
            os.replace(partial, path)
            self._waiting = []
        self._flushed = time.monotonic()

    def collect(self, units: int) -> UnitResult:
        """Returns the results of all units in their order, with `unit` among the samples.

        Args:
            units: how many there are.

        Raises:
            UserError: some are not there.
        """
        found: dict[int, UnitResult] = {}
        for path in self._parts():
            with np.load(path, allow_pickle=False) as arrays:
                for unit, result in _split(dict(arrays)):
                    found.setdefault(unit, result)
        missing = sorted(set(range(units)) - found.keys())
        if missing:
            raise UserError(
                f"{len(missing)} of {units} units of work are not in {str(self.folder)!r}, such as number "
                f"{missing[0]}; all processes must see one --output folder"
            )
        return merged(sorted((unit, found[unit]) for unit in range(units)))

    def remove(self) -> None:
        """Removes the folder; what it held is in the results."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.npz"))


def merged(results: Iterable[tuple[int, UnitResult]]) -> UnitResult:
    """Returns the results of several units as one, with `unit` among the samples."""
    results = list(results)
    units = np.concatenate([np.full(len(one.samples["number"]), unit, np.int64) for unit, one in results])
    parts = [one for _, one in results]
    samples = _joined([one.samples for one in parts]) | {"unit": units}
    return UnitResult(samples, {table: _joined([one.rows[table] for one in parts]) for table in parts[0].rows})


def _joined(parts: list[Rows]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _split(arrays: Rows) -> Iterator[tuple[int, UnitResult]]:
    """Yields the units of a file."""
    units, ends = arrays.pop("units"), np.cumsum(arrays.pop("counts"))
    for unit, start, end in zip(units.tolist(), [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        samples: Rows = {}
        rows: dict[str, Rows] = {}
        for key, column in arrays.items():
            kind, *names = key.split(_SEPARATOR)
            if kind == "samples":
                samples[names[0]] = column[start:end]
            else:
                rows.setdefault(names[0], {})[names[1]] = column[start:end]
        samples.pop("unit", None)
        yield unit, UnitResult(samples, rows)
