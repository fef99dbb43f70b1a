"""The working folder of a conversion shard by shard: what is finished, and for which raw data.

The folder `unfinished_VERSION` lies beside the data set's place and holds for every finished shard:

| file | content |
|---|---|
| `SPLIT-NUMBER.array_record` | the records |
| `SPLIT-NUMBER.npz` | their index (`index.Index`), and `keys` (`conversion.image_key`) that show doubles |
| `SPLIT-NUMBER.json` | the shard's report, written last: counts, what was skipped, and the digest of its items |
| `refused` | only after a refusal: the share that was allowed to be broken |

A shard is finished if its report has the digest of what is to be converted now: items, configuration, folders,
this package's version, and the files that the plan is made of (annotations, lists: size and time). So another
file of annotations makes all shards anew, but a picture more makes anew only the shards that it changes. Of a
picture's content the digest knows what the builder puts into its items (say size and time).
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

from unilseg_jax.input_pipeline.index import Index
from unilseg_jax.input_pipeline.output_folder import LOCK_FILE
from unilseg_jax.version import __version__


class Shard(NamedTuple):
    """A run of items of a split.

    Attributes:
        name: `SPLIT-NUMBER`, names its files.
        split: name of the split.
        items: of the builder's plan.
        digest: changes when what the shard is made of changes (`digest_of`).
    """

    name: str
    split: str
    items: Sequence
    digest: str


def digest_of(*made_of: object) -> str:
    """Returns what stands for values; they are told apart by their `repr`."""
    return hashlib.sha256(repr((__version__, *made_of)).encode("utf-8", "backslashreplace")).hexdigest()


def states(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Returns path, size (bytes) and time of change (ns) of those files that are there, in the order of the paths."""
    found = []
    for path in sorted(files):
        with contextlib.suppress(OSError, ValueError):
            state = path.stat()
            found.append((os.fspath(path), state.st_size, state.st_mtime_ns))
    return found


def read_report(work: Path, shard: Shard) -> dict | None:
    """Returns the report of a finished shard; None if it is not finished, or was made of something else."""
    try:
        report = json.loads((work / f"{shard.name}.json").read_bytes())
        whole = (work / f"{shard.name}.array_record").stat().st_size == report["file_size"]
    except (OSError, ValueError, LookupError):
        return None
    return report if whole and report["digest"] == shard.digest else None


def forget_others(work: Path, shards: Mapping[str, Shard]) -> None:
    """Removes everything but the lock, the note of a refusal, and the files of finished shards."""
    finished = {name for name, shard in shards.items() if read_report(work, shard) is not None}
    for path in work.iterdir():
        name, _, ending = path.name.partition(".")
        kept = name in finished and ending in ("array_record", "npz", "json")
        if not kept and path.name not in (LOCK_FILE, "refused"):
            path.unlink()


def forget_faulty(work: Path, shards: Mapping[str, Shard]) -> None:
    """Makes unfinished the shards of which something was skipped: whoever mends it wants it to be read again."""
    for shard in shards.values():
        report = read_report(work, shard)
        if report and report["skipped"]:
            (work / f"{shard.name}.json").unlink()


def note_refusal(work: Path, max_skipped: float) -> None:
    """Notes that a conversion was refused with this share allowed to be broken."""
    write(work / "refused", repr(max_skipped).encode())


def refused_share(work: Path) -> float:
    """Returns the share with which the conversion was refused at last, -1 if it was not."""
    try:
        return float((work / "refused").read_bytes())
    except (OSError, ValueError):
        return -1.0


def read_arrays(work: Path, name: str) -> tuple[Index, UInt64[np.ndarray, " n"]]:
    """Returns the index of a finished shard, and the keys of its pictures."""
    with np.load(work / f"{name}.npz", allow_pickle=False) as arrays:
        return Index(*(arrays[field] for field in Index._fields)), arrays["keys"]


def write(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name first."""
    with renamed(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def renamed(path: Path) -> Iterator[Path]:
    """Gives a temporary name for a file; when the block ends well, the file takes its own name."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
