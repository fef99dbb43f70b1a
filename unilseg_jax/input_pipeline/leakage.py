"""The leakage firewall: training pictures that are also in a benchmark are found, counted and left out.

Data sets overlap: the pictures of RefCOCO's val and test lie in COCO's train2014, so that a model trained on
COCO's train2017 has seen them. A training record is a benchmark's picture if both have the same COCO id, or
perceptual hashes (`index.fingerprint`) of at most `DISTANCE` different bits.

`DISTANCE` is 4. Measured on 308 photographs of COCO and ImageNet: copies (JPEG of quality 90, 50 and 20, PNG,
WebP, grey, half the size, 256 and 1500 px, stretched to a square) differ in at most 4 bits, 99 of 100 in at most 2;
the 47,278 pairs of different pictures in at least 16. The tail of these pairs, carried on downwards, gives about one
false match in 10⁹ pairs. A copy cut by 2 % on each side is found in 70 of 100 cases, a mirrored one never.

A picture without structure (uniform, a ramp, stripes) has a hash that says nothing; only its COCO id is
compared. Pictures that are alike within one set do not matter here.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt64
from rich.console import Console
from rich.table import Table

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.index import Index
from unilseg_jax.input_pipeline.sources import TripletSource

FILE = "leakage.json"
MODES = ("drop", "paper")
DISTANCE = 4  # bits
# Half of the 64 coefficients lie above their median. Pictures without structure have equal ones and set at most 5 bits;
# a few ties may also happen in others.
LEAST_BITS = 28
ROWS, PAIRS = 1 << 20, 1 << 22  # compared at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the firewall found.

    Attributes:
        mode: one of `MODES`.
        kept: for each training source the records that may be trained on; None for a source without an index
            (scenes), all of it may.
        overlaps: for each training source the number of its records that are in each benchmark.
        in_any: for each training source the number of its records that are in any benchmark.
    """

    mode: str
    kept: dict[str, Bool[np.ndarray, " _n"] | None]
    overlaps: dict[str, dict[str, int]]
    in_any: dict[str, int]

    def mark(self, benchmark: str | None = None) -> dict[str, object]:
        """Returns what is written beside every number of the run.

        Args:
            benchmark: whose numbers they are; None for the whole run.

        Returns:
            `leakage`, the mode, and how many training records were found in the benchmark: under
            `leakage_dropped` if they were left out, under `leakage_trained_on` if not.
        """
        key = "leakage_dropped" if self.mode == "drop" else "leakage_trained_on"
        return {"leakage": self.mode, key: self._count(benchmark)}

    def numbers(self, benchmark: str) -> dict[str, int]:
        """Returns what a log of numbers has beside those of a benchmark: nothing, unless they are to be marked."""
        return {"leakage_trained_on": self._count(benchmark)} if self.mode == "paper" else {}

    def _count(self, benchmark: str | None) -> int:
        if benchmark is None:
            return sum(self.in_any.values())
        return sum(row.get(benchmark, 0) for row in self.overlaps.values())

    def show(self, console: Console) -> None:
        """Prints the matrix, training source × benchmark."""
        benchmarks = list(next(iter(self.overlaps.values()), {}))
        if not benchmarks:
            console.print("leakage firewall: nothing to compare (drawn scenes are in no benchmark)", highlight=False)
            return
        done = "left out" if self.mode == "drop" else "trained on, leakage=paper"
        console.print(f"training pictures that are in a benchmark: {done}", highlight=False)
        table = Table("source")
        for heading in (*benchmarks, "in any", "pictures"):
            table.add_column(heading, justify="right")
        for name, kept in self.kept.items():
            counts = () if kept is None else (*self.overlaps[name].values(), self.in_any[name], len(kept))
            cells = [f"{count:,}" for count in counts] or [*("-" for _ in benchmarks), "-", "drawn"]
            table.add_row(name, *cells)
        console.print(table)

    def write(self, directory: Path) -> None:
        """Writes what was found as `leakage.json`; a run that goes on must train on the same records.

        Args:
            directory: of the run.

        Raises:
            UserError: the run there was started with another choice of records.
        """
        digest = hashlib.sha256()
        for name, kept in self.kept.items():
            digest.update(f"{name} {None if kept is None else len(kept)}\n".encode())
            digest.update(b"" if kept is None else np.packbits(kept).tobytes())
        path = Path(directory) / FILE
        now = {"mode": self.mode, "overlaps": self.overlaps, "in_any": self.in_any, "records": digest.hexdigest()}
        if path.exists():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
                same = [before[key] for key in ("mode", "records")] == [now[key] for key in ("mode", "records")]
            except (ValueError, LookupError, TypeError) as error:
                raise UserError(f"{str(path)!r} is damaged ({error}); name another workdir") from None
            if not same:
                raise UserError(
                    f"{str(path)!r} says that this run was started with other training records; give the same sources, "
                    "benchmarks and config.firewall.mode, or name another workdir"
                )
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)


def check(sources: Mapping[str, Index | None], benchmarks: Mapping[str, Index | None], mode: str = "drop") -> Verdict:
    """Compares every training source with every benchmark.

    Args:
        sources: indices by name; None where the pictures are drawn on the fly (`index_of`).
        benchmarks: indices by name; those that are None are left out.
        mode: "drop" leaves out what is in a benchmark; "paper" keeps it, as the literature does, and every
            number of the run carries the mark.

    Raises:
        UserError: the mode is unknown, or nothing would be left of a source.
    """
    if mode not in MODES:
        raise UserError(f"config.firewall.mode = {mode!r} must be one of {', '.join(MODES)}")
    kept, overlap, in_any = {}, {}, {}
    for name, train in sources.items():
        if train is None:
            kept[name] = None
            continue
        found = {other: overlaps(train, index) for other, index in benchmarks.items() if index is not None}
        any_of_them = np.zeros(len(train.coco_id), bool)
        for matches in found.values():
            any_of_them |= matches
        if mode == "drop" and len(any_of_them) and any_of_them.all():
            where = ", ".join(other for other, matches in found.items() if matches.any())
            raise UserError(
                f"every picture of the training source {name!r} is in a benchmark ({where}); train on another split, "
                "take the benchmark out, or set config.firewall.mode=paper"
            )
        kept[name] = ~any_of_them if mode == "drop" else np.ones_like(any_of_them)
        overlap[name] = {other: int(matches.sum()) for other, matches in found.items()}
        in_any[name] = int(any_of_them.sum())
    return Verdict(mode=mode, kept=kept, overlaps=overlap, in_any=in_any)


def indices(sources: Mapping[str, object]) -> dict[str, Index | None]:
    """Returns the index of each source, by name; see `index_of`."""
    return {name: index_of(source) for name, source in sources.items()}


def index_of(source: object) -> Index | None:
    """Returns the index of a source, None if its pictures are drawn on the fly and so are in no benchmark.

    Raises:
        UserError: the index is damaged or belongs to other records.
    """
    return source.index if isinstance(source, TripletSource) else None


def overlaps(train: Index, benchmark: Index) -> Bool[np.ndarray, " n"]:
    """Says for each training record whether its picture is in the benchmark.

    Args:
        train: n records.
        benchmark: any number of records.
    """
    known = benchmark.coco_id[benchmark.coco_id >= 0]
    same_id = (train.coco_id >= 0) & np.isin(train.coco_id, known)
    return same_id | alike(train.fingerprint, benchmark.fingerprint)


def alike(
    fingerprints: UInt64[np.ndarray, " n"], others: UInt64[np.ndarray, " m"], distance: int = DISTANCE
) -> Bool[np.ndarray, " n"]:
    """Says for each hash whether any of the others differs from it in at most `distance` bits.

    Two hashes that differ in at most d bits agree in at least one of d + 1 bands of bits, so only pairs that agree
    in a band are compared: 11 million hashes with 50,000 in some 10 s on one core.

    Args:
        fingerprints: hashes; those that say nothing (fewer than `LEAST_BITS` bits) match nothing.
        others: hashes.
        distance: bits, at least 2.
    """
    others = np.unique(others[np.bitwise_count(others) >= LEAST_BITS])
    found = np.zeros(len(fingerprints), bool)
    edges = np.linspace(0, 64, distance + 2).astype(int)
    for low, high in itertools.pairwise(edges):
        shift, keys = np.uint64(low), 1 << int(high - low)
        keys_of_others = ((others >> shift) & np.uint64(keys - 1)).astype(np.int64)
        pile = others[np.argsort(keys_of_others, kind="stable")]
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys_of_others, minlength=keys))])
        for begin in range(0, len(fingerprints), ROWS):
            part, done = fingerprints[begin : begin + ROWS], found[begin : begin + ROWS]
            rows = np.flatnonzero((np.bitwise_count(part) >= LEAST_BITS) & ~done)
            band = ((part[rows] >> shift) & np.uint64(keys - 1)).astype(np.int64)
            first, count = starts[band], starts[band + 1] - starts[band]
            done[rows[_any_near(part[rows], pile, first, count, distance)]] = True
    return found


def _any_near(
    fingerprints: UInt64[np.ndarray, " r"],
    pile: UInt64[np.ndarray, " m"],
    first: Int64[np.ndarray, " r"],
    count: Int64[np.ndarray, " r"],
    distance: int,
) -> Bool[np.ndarray, " r"]:
    """Compares hash number i with `pile[first[i] : first[i] + count[i]]`, some millions of pairs at a time."""
    near = np.zeros(len(fingerprints), bool)
    ends = np.cumsum(count)
    begin = 0
    while begin < len(fingerprints):
        before = ends[begin - 1] if begin else 0
        stop = max(begin + 1, int(np.searchsorted(ends, before + PAIRS, side="right")))
        rows = np.repeat(np.arange(begin, stop), count[begin:stop])
        # The number of a pair within its row is its own number minus that of the row's first pair.
        places = np.arange(len(rows)) + np.repeat(
            first[begin:stop] - (ends[begin:stop] - count[begin:stop] - before), count[begin:stop]
        )
        close = np.bitwise_count(fingerprints[rows] ^ pile[places]) <= distance
        near[rows[close]] = True
        begin = stop
    return near
