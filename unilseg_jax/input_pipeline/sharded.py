"""Converts a large data set shard by shard: in parallel, in bounded memory, and so that it can go on after a stop.

A shard is a run of the builder's items; it becomes one ArrayRecord file in a working folder (`shard_files`). When all
are there, the builder puts them together as a data set, with the records in the order of a conversion without shards.
"""

import contextlib
import dataclasses
import functools
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files, shard_files
from unilseg_jax.input_pipeline.builder import TripletBuilder
from unilseg_jax.input_pipeline.catalogue import load_builder
from unilseg_jax.input_pipeline.conversion import Conversion, SplitCounts, image_key
from unilseg_jax.input_pipeline.engines import Engine
from unilseg_jax.input_pipeline.index import Index, IndexWriter, write_index
from unilseg_jax.input_pipeline.output_folder import one_line_errors
from unilseg_jax.input_pipeline.shard_files import Shard


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A conversion, as every worker process must know it; the folders are absolute.

    Attributes:
        name: of the data set.
        config: name of its configuration.
        raw: folder of the downloaded files.
        out: folder of all prepared data sets.
        pictures: folder of the pictures, None if they are in the raw folder.
        shard_items: items per shard, None takes the builder's `SHARD_ITEMS`.
    """

    name: str
    config: str
    raw: Path
    out: Path
    pictures: Path | None = None
    shard_items: int | None = None


@contextlib.contextmanager
def converted_shards(
    job: Job, work: Path, engine: Engine, workers: int, on_shard: Callable[[int, int], None], max_skipped: float
) -> Iterator[Callable[[TripletBuilder], list[tfds.core.SplitInfo]]]:
    """Converts all shards that are not finished; what is yielded puts them together.

    The working folder is removed when the block ends well. If it does not, the next call goes on from there.

    Args:
        job: the conversion.
        work: the working folder, which the caller holds (`output_folder.locked`).
        engine: runs the shards.
        workers: shards at a time.
        on_shard: called as `on_shard(done, total)`, first with those that were finished before.
        max_skipped: share of the set that may be broken. After a refusal, shards of which something was skipped
            are converted again, unless more is allowed now than then.

    Yields:
        A builder's `gather`.

    Raises:
        UserError: nothing can be converted at all.
    """
    builder, shards = _plan(job)
    if max_skipped <= shard_files.refused_share(work):
        shard_files.forget_faulty(work, shards)
    shard_files.forget_others(work, shards)
    # What a shard left out because of another one is decided anew: the other may have changed.
    known = {name: (shard_files.read_report(work, shard) or {"known": 1})["known"] for name, shard in shards.items()}
    todo = {name: () for name, count in known.items() if count}
    before = len(shards) - len(todo)
    on_shard(before, len(shards))
    for done, _ in enumerate(engine(convert_shard, _tasks(job, work, shards, todo), workers), start=1):
        on_shard(before + done, len(shards))
    for _ in engine(convert_shard, _tasks(job, work, shards, _repeated(work, shards)), workers):
        pass
    try:
        yield functools.partial(_gather, work, shards, builder.conversion)
    except UserError:
        shard_files.note_refusal(work, max_skipped)
        raise
    # On NFS the lock, which is open, keeps its folder: that is no fault of the conversion, which is complete.
    shutil.rmtree(work, ignore_errors=True)


@one_line_errors()
def convert_shard(job: Job, work: str, name: str, digest: str, known: Sequence[int]) -> None:
    """Converts one shard, in a worker process that keeps its builder for the next one.

    Args:
        job: the conversion.
        work: the working folder.
        name: of the shard.
        digest: that the shard must have.
        known: keys of pictures that an earlier shard of the split holds.

    Raises:
        UserError: the raw folder has changed since the conversion began, or the shard cannot be written.
    """
    builder, shards = _own_plan(job)
    if name not in shards or shards[name].digest != digest:
        # The plan may be that of an earlier conversion: a cluster's processes live long.
        _own_plan.cache_clear()
        builder, shards = _own_plan(job)
    if name not in shards or shards[name].digest != digest:
        raise UserError(f"{str(job.raw)!r} has changed since the conversion began; run the command again")
    split, items = shards[name].split, shards[name].items
    builder.conversion = Conversion()
    builder.conversion.expect(split, len(items))
    index, keys, sizes = IndexWriter(), [], []

    def serialised() -> Iterator[tuple[int, bytes]]:
        for record in builder.checked_records(split, items, known):
            index.add(record)
            keys.append(image_key(record["image_id"]))
            encoded = builder.info.features.serialize_example(record)
            sizes.append(len(encoded))
            yield len(sizes), encoded

    with shard_files.renamed(Path(work) / f"{name}.array_record") as partial:
        _write_records(partial, serialised())
        file_size = partial.stat().st_size
    arrays = io.BytesIO()
    np.savez(arrays, keys=np.array(keys, np.uint64), **index.index()._asdict())
    shard_files.write(Path(work) / f"{name}.npz", arrays.getvalue())
    report = {
        "digest": digest,
        "records": len(sizes),
        "bytes": sum(sizes),
        "file_size": file_size,
        "known": len(known),
        "counts": {split: counts.sizes() for split, counts in builder.conversion.counts.items()},
        "skipped": builder.conversion.skipped,
        "lost_items": builder.conversion.lost_items,
        "lost_pictures": builder.conversion.lost_pictures,
    }
    shard_files.write(Path(work) / f"{name}.json", json.dumps(report).encode())


def _write_records(path: Path, records: Iterator[tuple[int, bytes]]) -> None:
    # TFDS's `ShardWriter` would keep all examples of a shard in memory to count them.
    tfds.core.ExampleWriter(tfds.core.FileFormat.ARRAY_RECORD).write(os.fspath(path), records)


def _plan(job: Job) -> tuple[TripletBuilder, dict[str, Shard]]:
    """Returns a builder that has made its plan, and the shards by name in the order of their records."""
    builder = load_builder(job.name)(data_dir=os.fspath(job.out), config=job.config)
    builder.pictures = job.pictures
    size = job.shard_items or builder.SHARD_ITEMS
    shards = {}
    with raw_files.noted_files() as files:
        plan = builder.plan(job.raw)
    made_of = (builder.version, builder.source, job.raw, job.pictures, shard_files.states(files))
    for split, items in plan.items():
        builder.conversion.expect(split, len(items))
        for number, start in enumerate(range(0, len(items), size)):
            name, part = f"{split}-{number:05d}", items[start : start + size]
            digest = shard_files.digest_of(*made_of, name, part)
            shards[name] = Shard(name, split, part, digest)
    return builder, shards


# A worker process gets one shard after the other, and a plan can mean to read an annotation file of gigabytes.
_own_plan = functools.lru_cache(maxsize=1)(_plan)


def _tasks(job: Job, work: Path, shards: Mapping[str, Shard], known: Mapping[str, Sequence[int]]) -> list[tuple]:
    """Returns the arguments of `convert_shard` for each shard that `known` names."""
    return [(job, os.fspath(work), name, shards[name].digest, keys) for name, keys in known.items()]


def _repeated(work: Path, shards: Mapping[str, Shard]) -> dict[str, tuple[int, ...]]:
    """Returns for each shard the keys of those of its pictures that an earlier shard of its split holds, if any."""
    found = {}
    for names in _by_split(shards).values():
        keys = [shard_files.read_arrays(work, name)[1] for name in names]
        owners = np.repeat(np.arange(len(names)), [len(part) for part in keys])
        # The first place of a value is in the earliest shard that holds it.
        values, first, counts = np.unique(np.concatenate(keys), return_index=True, return_counts=True)
        twice = dict(zip(values[counts > 1].tolist(), owners[first[counts > 1]].tolist(), strict=True))
        for number, (name, part) in enumerate(zip(names, keys, strict=True)) if twice else ():
            known = tuple(key for key in part.tolist() if twice.get(key, number) < number)
            if known:
                found[name] = known
    return found


def _by_split(shards: Mapping[str, Shard]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, shard in shards.items():
        names.setdefault(shard.split, []).append(name)
    return names


def _gather(
    work: Path, shards: Mapping[str, Shard], planned: Conversion, builder: TripletBuilder
) -> list[tfds.core.SplitInfo]:
    """Puts finished shards together in the builder's `data_dir`, which still has a temporary name.

    Raises:
        UserError: more than the builder's `max_skipped` was skipped.
    """
    directory, book = Path(builder.data_dir), builder.conversion
    book.merge(planned)
    reports = {name: shard_files.read_report(work, shard) or {} for name, shard in shards.items()}
    for report in reports.values():
        part = Conversion()
        part.counts = {split: SplitCounts(**counts) for split, counts in report["counts"].items()}
        part.skipped = report["skipped"]
        part.lost_items, part.lost_pictures = report["lost_items"], report["lost_pictures"]
        book.merge(part)
    # Before anything is copied; the builder's own check comes when all is there.
    book.check_skipped(builder.max_skipped, directory.with_name(str(builder.version)))
    splits = []
    for split, names in _by_split(shards).items():
        names = [name for name in names if reports[name]["records"]]
        if not names:
            continue
        template = tfds.core.ShardedFileTemplate(
            data_dir=directory, dataset_name=builder.name, split=split, filetype_suffix="array_record"
        )
        for number, name in enumerate(names):
            file = template.sharded_filepath(shard_index=number, num_shards=len(names))
            _link(work / f"{name}.array_record", Path(file))
        indices = [shard_files.read_arrays(work, name)[0] for name in names]
        write_index(directory, split, Index(*map(np.concatenate, zip(*indices, strict=True))))
        lengths = [reports[name]["records"] for name in names]
        size = sum(reports[name]["bytes"] for name in names)
        splits.append(
            tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)
        )
    return splits


def _link(source: Path, target: Path) -> None:
    """Gives a file a second name or, where the file system has no links, copies it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
