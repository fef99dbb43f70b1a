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
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt64
from rich.console import Console
from rich.table import Table

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.index import Index
from unilseg_jax.input_pipeline.sources import TripletSource

MODES = ("drop", "paper")
DISTANCE = 4  # bits
# Half of the 64 coefficients lie above their median. Pictures without structure have equal ones and set at most 5 bits;
# a few ties may also happen in others.
LEAST_BITS = 28
ROWS, PAIRS = 1 << 20, 1 << 22  # compared at a time


class Matches(NamedTuple):
    """The training records that are in a benchmark, m of them.

    Attributes:
        rows: their numbers in the source.
        coco_id: as in the index.
        same_id: whether the COCO id tells it; if not, the hash alone.
    """

    rows: Int64[np.ndarray, " m"]
    coco_id: Int64[np.ndarray, " m"]
    same_id: Bool[np.ndarray, " m"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the firewall found.

    Attributes:
        mode: one of `MODES`.
        kept: for each training source the records that may be trained on; None for a source without an index
            (scenes), all of it may.
        matches: for each training source with an index its records that are in each benchmark.
        in_any: for each of these sources the number of its records that are in any benchmark.
        records: digest of all records of these sources and of the choice among them.
        inherited: number of records of benchmarks that the first weights were trained on in a run that kept them;
            None if nothing of the kind is known.
    """

    mode: str
    kept: dict[str, Bool[np.ndarray, " _n"] | None]
    matches: dict[str, dict[str, Matches]]
    in_any: dict[str, int]
    records: str
    inherited: int | None = None

    @property
    def overlaps(self) -> dict[str, dict[str, int]]:
        """For each training source the number of its records that are in each benchmark."""
        return {
            name: {other: len(found.rows) for other, found in matches.items()} for name, matches in self.matches.items()
        }

    def mark(self, benchmark: str | None = None) -> dict[str, object]:
        """Returns what is written beside every number of the run.

        Args:
            benchmark: whose numbers they are; None for the whole run.

        Returns:
            `leakage`, the mode, and how many training records were found in the benchmark: under
            `leakage_dropped` if they were left out, under `leakage_trained_on` if not; and `leakage_inherited`, how
            many the first weights were trained on, if such are known. An earlier run names its benchmarks as it
            likes, so these are those of all its benchmarks.
        """
        key = "leakage_dropped" if self.mode == "drop" else "leakage_trained_on"
        return {"leakage": self.mode, key: self._count(benchmark), **self._handed_down()}

    def numbers(self, benchmark: str) -> dict[str, int]:
        """Returns what a log of numbers has beside those of a benchmark: nothing, unless they are to be marked."""
        own = {"leakage_trained_on": self._count(benchmark)} if self.mode == "paper" else {}
        return own | self._handed_down()

    def note(self) -> str:
        """Returns what a printed number has beside it: nothing, unless it is to be marked."""
        words = ["leakage=paper"] * (self.mode == "paper") + ["leakage inherited"] * (self.inherited is not None)
        return "".join(f"  {word}" for word in words)

    def _handed_down(self) -> dict[str, int]:
        return {} if self.inherited is None else {"leakage_inherited": self.inherited}

    def _count(self, benchmark: str | None) -> int:
        if benchmark is None:
            return sum(self.in_any.values())
        return sum(row.get(benchmark, 0) for row in self.overlaps.values())

    def show(self, console: Console) -> None:
        """Prints how many pictures of each training source are in which benchmark; wraps on a narrow console."""
        if self.inherited is not None:
            said = f"first weights: trained on {self.inherited:,} pictures of benchmarks, leakage inherited"
            console.print(said, highlight=False)
        overlaps = self.overlaps
        benchmarks = list(next(iter(overlaps.values()), {}))
        if not benchmarks:
            console.print("leakage firewall: nothing to compare (drawn scenes are in no benchmark)", highlight=False)
            return
        done = "left out" if self.mode == "drop" else "trained on, leakage=paper"
        console.print(f"training pictures that are in a benchmark: {done}", highlight=False)
        console.print(f"compared with {', '.join(benchmarks)}", highlight=False)
        table = Table("source")
        for heading in ("pictures", "in any"):
            table.add_column(heading, justify="right")
        table.add_column("in which")
        for name, kept in self.kept.items():
            if kept is None:
                table.add_row(name, "drawn", "-", "")
            else:
                found = [f"{other} {count:,}" for other, count in overlaps[name].items() if count]
                table.add_row(name, f"{len(kept):,}", f"{self.in_any[name]:,}", ", ".join(found))
        console.print(table)


def check(sources: Mapping[str, Index | None], benchmarks: Mapping[str, Index | None], mode: str = "drop") -> Verdict:
    """Compares every training source with every benchmark.

    Args:
        sources: indices by name; None where the pictures are drawn on the fly (`index_of`).
        benchmarks: indices by name; those that are None are left out.
        mode: "drop" leaves out what is in a benchmark; "paper" keeps it, as the literature does, and every
            number of the run carries the mark.

    Raises:
        UserError: the mode is unknown, or nothing that can be learnt would be left of a source.
    """
    if mode not in MODES:
        raise UserError(f"config.firewall.mode = {mode!r} must be one of {', '.join(MODES)}")
    kept, matches, in_any, digest = {}, {}, {}, hashlib.sha256()
    for name, train in sources.items():
        digest.update(f"{name} {None if train is None else len(train.coco_id)}\n".encode())
        if train is None:
            kept[name] = None
            continue
        matches[name] = {other: _matches(train, index) for other, index in benchmarks.items() if index is not None}
        any_of_them = np.zeros(len(train.coco_id), bool)
        for found in matches[name].values():
            any_of_them[found.rows] = True
        if mode == "drop":
            _refuse_nothing_left(name, train, any_of_them, matches[name])
        kept[name] = ~any_of_them if mode == "drop" else np.ones_like(any_of_them)
        in_any[name] = int(any_of_them.sum())
        for column in (np.packbits(kept[name]), *train):
            digest.update(column.tobytes())
    return Verdict(mode=mode, kept=kept, matches=matches, in_any=in_any, records=digest.hexdigest())


def _refuse_nothing_left(
    name: str, train: Index, dropped: Bool[np.ndarray, " n"], matches: Mapping[str, Matches]
) -> None:
    """Refuses a source of which everything, or everything that can be learnt, would be left out."""
    learnable = train.samples > 0
    if not dropped.any() or not dropped[learnable].all():
        return
    if not learnable.any() and not dropped.all():
        return  # there was nothing to learn before; the mixture says it
    where = ", ".join(other for other, found in matches.items() if len(found.rows))
    which = "every picture" if dropped.all() else "every picture with a phrase to be learnt"
    raise UserError(
        f"{which} of the training source {name!r} is in a benchmark ({where}); train on another split, take the "
        "benchmark out, or set config.firewall.mode=paper"
    )


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
    found = np.zeros(len(train.coco_id), bool)
    found[_matches(train, benchmark).rows] = True
    return found


def _matches(train: Index, benchmark: Index) -> Matches:
    known = benchmark.coco_id[benchmark.coco_id >= 0]
    same_id = (train.coco_id >= 0) & np.isin(train.coco_id, known)
    rows = np.flatnonzero(same_id | alike(train.fingerprint, benchmark.fingerprint))
    return Matches(rows, train.coco_id[rows], same_id[rows])


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
