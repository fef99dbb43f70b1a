"""A mixture of sources as one endless list of visits, addressed by number: the position in it is the data position.

An epoch has every sample (`visits`) of every source once. The samples of one picture are visited `prompts` at a time,
in groups that are dealt anew in each epoch, so that a picture with m samples is decoded and encoded
ceil(m / prompts) times an epoch. A picture that is drawn on the fly is one visit, whatever is said about it.

With weights each source runs through epochs of its own; weights are shares of the samples, not of the visits.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.sources import RecordSource, Source
from unilseg_jax.input_pipeline.visits import Groups, ReadAbsent, ReadGroup, ReadPicture

# Finite but out of reach: grain's endless datasets cannot be sliced.
_ENDLESS = 2**48
_EXHAUSTIVE_TASKS = ("semantic", "part")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A source with its place in the mixture.

    Attributes:
        name: its key in the table of sources.
        source: a `RecordSource`, or pictures drawn on the fly.
        weight: share of the samples, relative to those of the other parts; 0 for its natural size.
        hide_and_seek: whether patches of its pictures are hidden; None where a mask of the record has a score below 1.
    """

    name: str
    source: Source | RecordSource
    weight: float = 0.0
    hide_and_seek: bool | None = None


class PartSizes(NamedTuple):
    """Sizes of a part of the mixture, per epoch of its own.

    Attributes:
        pictures: records.
        samples: objects to be learnt; None where only drawing a picture tells.
        visits: of pictures.
    """

    pictures: int
    samples: int | None
    visits: int


class Mixture:
    """The visits of several sources.

    Args:
        parts: at least one.
        prompts: samples per visit, at least 1.
        seed: of the order and of the deals.
        negatives: share of the visits that ask only for what the picture does not hold, 0 to less than 1. They come
            in addition: an epoch still has every sample once.

    Raises:
        UserError: a part has nothing to learn from, only some parts have a weight, or no part can give negatives.
    """

    def __init__(self, parts: Sequence[Part], *, prompts: int, seed: int, negatives: float = 0.0):
        if not parts:
            raise UserError("there is nothing to train on; name a data set in config.input.sources")
        weighted = [part.name for part in parts if part.weight]
        if len(parts) > 1 and 0 < len(weighted) < len(parts):
            missing = next(part.name for part in parts if not part.weight)
            raise UserError(
                f"input.sources.{weighted[0]} has a weight, input.sources.{missing} has none; give one to every "
                "source, or to none to have each object once per epoch"
            )
        self._parts = tuple(parts)
        self._prompts = prompts
        self._seed = seed
        self._negatives = negatives
        self._weighted = len(parts) > 1 and bool(weighted)
        self._groups = [_groups_of(part, prompts) for part in parts]
        self._exhaustive = [number for number, part in enumerate(parts) if _can_give_negatives(part)]
        if negatives and not self._exhaustive:
            raise UserError(
                f"input.negatives = {negatives} needs a source in which every class is annotated (a task of "
                f"{' or '.join(_EXHAUSTIVE_TASKS)}) with at least 2 pictures; there is none, set it to 0"
            )

    def sizes(self) -> dict[str, PartSizes]:
        """Returns the sizes of each part by its name."""
        return {
            part.name: PartSizes(
                pictures=len(part.source),
                samples=groups.samples if isinstance(groups, Groups) else None,
                visits=len(groups),
            )
            for part, groups in zip(self._parts, self._groups, strict=True)
        }

    def shares(self) -> dict[str, float]:
        """Returns the share of each part in the visits that are no negatives."""
        sizes = self.sizes()
        visits = np.array([size.visits for size in sizes.values()], np.float64)
        if self._weighted:
            per_visit = [(size.samples or size.visits * self._prompts) / size.visits for size in sizes.values()]
            visits = np.array([part.weight for part in self._parts]) / per_visit
        return dict(zip(sizes, (visits / visits.sum()).tolist(), strict=True))

    def epoch_visits(self) -> int:
        """Returns the visits per epoch, negatives with them; 0 where each source has epochs of its own."""
        return 0 if self._weighted else round(sum(map(len, self._groups)) / (1 - self._negatives))

    def lines(self) -> list[str]:
        """Says in a line per part what is trained on."""
        shares = self.shares()
        return [
            f"training on {name}: {size.pictures:,} pictures, "
            + (f"{size.samples:,} objects, " if size.samples is not None else "")
            + f"{size.visits:,} visits per epoch, {shares[name]:.1%} of all visits"
            for name, size in self.sizes().items()
        ]

    def visits(self) -> grain.MapDataset:
        """Returns all visits of all epochs, in their order, seeded for what is drawn from them."""
        reads = [self._reads(number) for number in range(len(self._parts))]
        if self._weighted:
            shuffled = [_shuffled(dataset, self._seed_of(number)) for number, dataset in enumerate(reads)]
            visits = grain.MapDataset.mix(shuffled, list(self.shares().values()))
        else:
            visits = _shuffled(grain.MapDataset.concatenate(reads) if len(reads) > 1 else reads[0], self._seed)
        if not self._negatives:
            return visits.seed(self._seed) if self._weighted else visits
        absent = [_shuffled(self._reads_absent(number), self._seed_of(number, 1)) for number in self._exhaustive]
        shares = list(self.shares().values())
        negatives = grain.MapDataset.mix(absent, [shares[number] for number in self._exhaustive])
        mixed = grain.MapDataset.mix([visits, negatives], [1 - self._negatives, self._negatives])
        return mixed.seed(self._seed)

    def _reads(self, number: int) -> grain.MapDataset:
        """Returns one epoch of the visits of a part; numbers beyond it are later epochs."""
        source, groups, hide = self._parts[number].source, self._groups[number], self._parts[number].hide_and_seek
        if isinstance(source, RecordSource) and isinstance(groups, Groups):
            read = ReadGroup(source=source, groups=groups, seed=self._seed_of(number, 2), hide=hide)
        else:
            assert isinstance(source, Source)
            read = ReadPicture(source=source, hide=hide)
        return grain.MapDataset.range(len(groups)).map_with_index(read)

    def _reads_absent(self, number: int) -> grain.MapDataset:
        """Returns one epoch of the negatives of a part: each picture once."""
        source, hide = self._parts[number].source, self._parts[number].hide_and_seek
        assert isinstance(source, RecordSource)
        read = ReadAbsent(source=source, prompts=self._prompts, seed=self._seed_of(number, 3), hide=hide)
        return grain.MapDataset.range(len(read.candidates)).map_with_index(read)

    def _seed_of(self, number: int, purpose: int = 0) -> int:
        """Returns a seed of a part's own, so that parts of equal size have different orders."""
        return int(np.random.SeedSequence((self._seed, number, purpose)).generate_state(1)[0])


def _shuffled(dataset: grain.MapDataset, seed: int) -> grain.MapDataset:
    return dataset.seed(seed).shuffle().repeat(_ENDLESS // len(dataset))


def _groups_of(part: Part, prompts: int) -> Groups | range:
    """Returns the visits of an epoch of a part."""
    if not isinstance(part.source, RecordSource):
        if not len(part.source):
            raise UserError(f"input.sources.{part.name} holds no picture; check it, or train without it")
        return range(len(part.source))
    groups = Groups(part.source.samples, prompts)
    if not len(groups):
        raise UserError(
            f"input.sources.{part.name} has nothing to train on: none of its {len(part.source):,} pictures has a "
            "phrase with a known mask; annotate it first, or train without it"
        )
    return groups


def _can_give_negatives(part: Part) -> bool:
    source = part.source
    if not isinstance(source, RecordSource) or source.task not in _EXHAUSTIVE_TASKS:
        return False
    return bool(np.count_nonzero(source.samples) > 1)
