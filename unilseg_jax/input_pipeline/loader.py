"""Batches for training: an index-addressable pipeline, so that the data position is the step."""

import dataclasses
import difflib
import itertools
import math
import multiprocessing
import multiprocessing.resource_tracker
import os
import re
import signal
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import cv2
import grain
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from unilseg_jax.errors import ExternalError, UserError
from unilseg_jax.input_pipeline.catalogue import builder_names
from unilseg_jax.input_pipeline.mixture import Part
from unilseg_jax.input_pipeline.scenes import SceneSource
from unilseg_jax.input_pipeline.sources import Source, open_source

Stage = grain.transforms.Map | grain.transforms.RandomMap
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_RUN = 4
"""Rows that a thread makes at a time: handing over costs little then, and all threads have something to do."""


def make_source(description: Mapping | ConfigDict) -> Source:
    """Opens what a config describes.

    Args:
        description: `name` and, for `scenes`, the fields of `SceneSource`; else `data_dir` and `split`.

    Raises:
        UserError: the data set is not there, or a key does not belong.
    """
    options = dict(description)
    name = options.pop("name", "")
    if name == "scenes":
        wanted = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(SceneSource)}
    else:
        _check_name(name, options.get("data_dir"))
        wanted = {"data_dir": True, "split": True}
    wrong = [f"without {key}" for key, needed in wanted.items() if needed and key not in options]
    wrong += [f"with {key}, which it does not take" for key in options if key not in wanted]
    if wrong:
        raise UserError(f"source {name!r} is described {', '.join(wrong)}; wanted are name, {', '.join(wanted)}")
    return SceneSource(**options) if name == "scenes" else open_source(name, **options)


def _check_name(name: str, data_dir: str | None) -> None:
    """Refuses the name of a data set for which there is neither a builder nor a prepared folder."""
    base, builders = name.partition("/")[0], builder_names()
    if base in builders:
        return
    if base and data_dir:
        folder = Path(data_dir)
        prepared = (folder / base).is_dir() or any(folder.glob(f"*/{base}"))  # or a configuration's name alone
        if prepared or not builders:
            return
    names = ["scenes", *builders]
    close = difflib.get_close_matches(base, names, n=1)
    meant = f"is {close[0]!r} meant?" if close else f"there are {', '.join(names)}"
    raise UserError(f"no source is called {name!r}; {meant}")


def make_parts(sources: Mapping | ConfigDict) -> list[Part]:
    """Opens the table `config.input.sources`.

    Args:
        sources: descriptions by name, see `config.training_source`.

    Raises:
        UserError: a data set is not there, or a key does not belong.
    """
    parts = []
    for name, entry in sources.items():
        description = dict(entry)
        weight, hide = description.pop("weight", 0.0), description.pop("hide_and_seek", None)
        parts.append(Part(name=name, source=make_source(description), weight=weight, hide_and_seek=hide))
    return parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostRows:
    """The elements of a host: of every batch from step `start` on, the rows that are its share.

    Attributes:
        elements: of all hosts.
        batch_size: rows per batch, of all hosts.
        start: step of the first batch.
        host: number of this host.
        hosts: how many there are; they divide the batch.
    """

    elements: grain.MapDataset
    batch_size: int
    start: int
    host: int
    hosts: int

    def __len__(self) -> int:
        return (len(self.elements) // self.batch_size - self.start) * (self.batch_size // self.hosts)

    def __getitem__(self, index: int) -> object:
        share = self.batch_size // self.hosts
        step, row = divmod(int(index), share)
        return self.elements[(self.start + step) * self.batch_size + self.host * share + row]


class _Runs:
    """Runs of rows, each written into its batch by the thread that makes it.

    A batch is put together without being copied: at the end of a run its rows lie where they belong.

    Args:
        rows: of all batches, in order.
        share: rows per batch.
    """

    def __init__(self, rows: HostRows, share: int):
        self._rows, self._share = rows, share
        self._length = math.gcd(share, _RUN)
        self._batches: dict[int, dict[str, np.ndarray]] = {}  # by number, while they fill
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows) // self._length

    def __getitem__(self, index: int) -> int:
        first = int(index) * self._length
        for number in range(first, first + self._length):
            batch, row = divmod(number, self._share)
            element = self._rows[number]
            arrays = self._arrays(batch, element)
            for name, value in element.items():
                arrays[name][row] = value
        return first // self._share

    def _arrays(self, batch: int, element: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._lock:
            if batch not in self._batches:
                self._batches[batch] = {
                    name: np.empty((self._share, *value.shape), value.dtype) for name, value in element.items()
                }
            return self._batches[batch]

    def batches(self, threads: int) -> Generator[dict[str, np.ndarray], None, None]:
        """Yields the batches, one ahead."""
        per_batch = self._share // self._length
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=per_batch + threads)
        done = iter(grain.MapDataset.source(self).to_iter_dataset(options))
        for batch in itertools.count():
            for _ in range(per_batch):
                next(done)
            yield self._batches.pop(batch)


def _start_worker(number: int, count: int) -> None:
    """Prepares a worker process: pictures are made in parallel, not the rows of one.

    A signal that asks the run to save may reach all its processes; those that make pictures are needed until then. They
    end when the run tells them, or with it.
    """
    for each in _STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    """Ends a worker process whose parent was killed, and could not tell it to."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def training_batches(
    visits: grain.MapDataset,
    stages: Sequence[Stage],
    *,
    batch_size: int,
    start: int,
    threads: int,
    workers: int,
    host: int = 0,
    hosts: int = 1,
) -> Generator[dict[str, np.ndarray], None, None]:
    """Yields batches without end, from step `start` on; the same batch for the same step. Closed, it ends its workers.

    Threads write their rows into the batch; what processes make is put together here, in its order. A batch may span
    two epochs, so nothing is lost or repeated at the end of one. All hosts together hold the batches that one host
    alone would hold, in the same order of rows.

    Args:
        visits: of pictures, without end (`Mixture.visits`).
        stages: make network input of a visit (`transforms.make_stages`).
        batch_size: pictures per batch, of all hosts together.
        start: step of the first batch.
        threads: that read ahead, per worker.
        workers: processes; 0 reads in this one.
        host: number of this host.
        hosts: how many hosts there are.

    Raises:
        UserError: the batch does not divide among the hosts.
        ExternalError: from a batch on, a worker process has ended.
    """
    if batch_size % hosts:
        raise UserError(f"input.batch_size {batch_size} does not divide among {hosts} hosts; make it a multiple")
    for stage in stages:
        visits = visits.random_map(stage) if isinstance(stage, grain.transforms.RandomMap) else visits.map(stage)
    rows = HostRows(elements=visits, batch_size=batch_size, start=start, host=host, hosts=hosts)
    share = batch_size // hosts
    if not workers:
        return _Runs(rows, share).batches(threads)
    # grain's worker processes read absl's flags, which only absl's own main would have parsed.
    flags.FLAGS.mark_as_parsed()
    # One batch ahead, however it is divided among the workers.
    each = -(-share // workers)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=each + 2 * threads)
    iterable = grain.MapDataset.source(rows).to_iter_dataset(options)
    iterable = iterable.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=each), worker_init_fn=_start_worker
    )
    return _of_living_workers(iter(iterable.batch(share, drop_remainder=True)))


def _of_living_workers(
    batches: grain.DatasetIterator[dict[str, np.ndarray]],
) -> Generator[dict[str, np.ndarray], None, None]:
    """Yields what worker processes make, and ends them when it is closed.

    Raises:
        ExternalError: one of them has ended.
    """
    try:
        yield _first(batches)
        yield from batches
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):  # grain's words
            raise
        code = re.search(r"exit code (-?\d+)", str(error))
        raise ExternalError(
            f"a worker process that makes pictures ended by itself (exit code {code[1] if code else 'unknown'}; -9: "
            "killed, often for want of memory); set config.input.workers lower or make room, then start the same "
            "command again, it goes on from the last checkpoint"
        ) from None
    finally:
        batches.close()


def _first(batches: grain.DatasetIterator[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the first batch; a signal that comes while the workers start waits until they ignore it."""
    multiprocessing.resource_tracker.ensure_running()  # as it starts, it would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # processes inherit it
    try:
        return next(batches)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
