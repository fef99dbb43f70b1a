"""The visits of a source's pictures by number, and the phrases that are drawn for one.

A *sample* of a record is an object to be learnt: a mask that phrases name, or something that is not in the picture;
one of its phrases is drawn at random.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import grain
import numpy as np
from jaxtyping import Bool, Int64, UInt16

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.index import samples_of_phrases
from unilseg_jax.input_pipeline.sources import RecordSource, Source
from unilseg_jax.input_pipeline.triplet import NOTHING, Triplet
from unilseg_jax.text.prompts import includes

_ABSENT_KINDS = ("category", "part")
_PICTURES_ASKED = 16
"""How many other pictures are looked at for classes that one lacks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Visit:
    """A picture whose turn it is.

    Attributes:
        picture: a record as it lies on disk, or a picture that was drawn on the fly.
        samples: numbers of the record's samples to ask for (`sample_phrases`); None draws from all phrases, each kind
            as often as the others.
        absent: phrases for what the picture does not hold; asked instead of its samples, if there are any.
        hide: whether patches are hidden; None where any mask of the record has a score below 1, as pseudo-labels
            do: not only where such a mask is asked for, or hidden patches would tell that there is something.
    """

    picture: Mapping | Triplet
    samples: tuple[int, ...] | None = None
    absent: tuple[str, ...] = ()
    hide: bool | None = None


class Groups:
    """The visits of a source's pictures: picture by picture, the samples of each `prompts` at a time.

    Args:
        samples: number of samples of each picture.
        prompts: samples per visit, at least 1.

    Attributes:
        samples: number of all samples.
    """

    def __init__(self, samples: np.ndarray, prompts: int):
        self.samples = int(samples.sum(dtype=np.int64))
        self._samples = samples
        self._ends: Int64[np.ndarray, " n"] = np.cumsum(-(-samples.astype(np.int64) // prompts))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, number: int, epoch: int, seed: int) -> tuple[int, tuple[int, ...]]:
        """Returns the record of a visit and the samples that are its turn.

        Args:
            number: of the visit, less than the length.
            epoch: another one deals the samples otherwise.
            seed: as well.
        """
        record = int(np.searchsorted(self._ends, number, side="right"))
        first, end = (int(self._ends[record - 1]) if record else 0), int(self._ends[record])
        order = np.arange(self._samples[record])
        if end - first > 1:
            order = np.random.default_rng((seed, epoch, record)).permutation(order)
        # Strides, so that no visit is left with a single sample while the others are full.
        return record, tuple(order[number - first :: end - first].tolist())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadGroup(grain.transforms.MapWithIndex):
    """Reads the record of a visit. The number of the visit runs on from epoch to epoch."""

    source: RecordSource
    groups: Groups
    seed: int
    hide: bool | None

    def map_with_index(self, index: int, element: object) -> Visit:
        """Returns visit number `index`."""
        epoch, number = divmod(index, len(self.groups))
        record, samples = self.groups.locate(number, epoch, self.seed)
        return Visit(picture=self.source.record(record), samples=samples, hide=self.hide)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadPicture(grain.transforms.MapWithIndex):
    """Draws the picture of a visit."""

    source: Source
    hide: bool | None

    def map_with_index(self, index: int, element: object) -> Visit:
        """Returns visit number `index`."""
        return Visit(picture=self.source[index % len(self.source)], hide=bool(self.hide))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadAbsent(grain.transforms.MapWithIndex):
    """Reads a picture and asks only for classes of other pictures that it does not hold.

    The phrases are those of the other pictures, so they are worded as where there is something to be found. A
    picture that holds every class of the pictures looked at is asked for one of its own samples.
    """

    source: RecordSource
    prompts: int
    seed: int
    hide: bool | None
    counts: UInt16[np.ndarray, " r"] = dataclasses.field(init=False)
    candidates: Int64[np.ndarray, " n"] = dataclasses.field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "counts", self.source.samples)
        object.__setattr__(self, "candidates", np.flatnonzero(self.counts))

    def map_with_index(self, index: int, element: object) -> Visit:
        """Returns visit number `index`."""
        number = int(self.candidates[index % len(self.candidates)])
        rng = np.random.default_rng((self.seed, index))
        record = self.source.record(number)
        own, own_classes = {text_of(text) for text in record["phrases"]}, _classes(record)
        absent: list[str] = []
        for other in rng.choice(self.candidates, _PICTURES_ASKED).tolist():
            phrases = _class_phrases(self.source.record(other))
            # Where there is a brick wall, "all wall" is not absent, although the class "wall" is.
            held = {name for _, name in phrases if any(includes(name, own_class) for own_class in own_classes)}
            offered = {text for text, name in phrases if text not in own and name not in held} - set(absent)
            absent += rng.permutation(sorted(offered)).tolist()
            if len(absent) >= self.prompts:
                break
        samples = (int(rng.integers(self.counts[number])),)
        return Visit(picture=record, samples=samples, absent=tuple(absent[: self.prompts]), hide=self.hide)


def _classes(record: dict) -> set[str]:
    return {text_of(name) for name in record["mask_categories"]} - {""}


def _class_phrases(record: dict) -> list[tuple[str, str]]:
    """Returns the phrases of a record that name a class, each with the class of its mask."""
    rows = zip(record["phrases"], record["phrase_kinds"], record["phrase_masks"], strict=True)
    return [
        (text_of(text), text_of(record["mask_categories"][mask]))
        for text, kind, mask in rows
        if mask >= 0 and text_of(kind) in _ABSENT_KINDS
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A picture with the phrases that are asked, p of them.

    Attributes:
        picture: as in `Visit`.
        phrases: raw texts.
        masks: for each phrase the number of its mask, `NOTHING` where it matches nothing.
        valid: false for repeats that only fill up.
        hide: whether patches are hidden.
    """

    picture: Mapping | Triplet
    phrases: tuple[str, ...]
    masks: tuple[int, ...]
    valid: Bool[np.ndarray, " p"]
    hide: bool


def sample_phrases(
    phrase_masks: Sequence[int] | np.ndarray, phrase_objects: Sequence[int] | np.ndarray = ()
) -> list[list[int]]:
    """Returns the phrases of each sample of a record: of every mask that is named, then of what is absent.

    The arguments are those of `index.samples_of_phrases`; there are `index.sample_count` of them.
    """
    samples = samples_of_phrases(phrase_masks, phrase_objects)
    found: list[list[int]] = [[] for _ in range(max(samples, default=-1) + 1)]
    for phrase, sample in enumerate(samples):
        if sample >= 0:
            found[sample].append(phrase)
    return found


def draw_phrases(triplet: Triplet, prompts: int, rng: np.random.Generator) -> tuple[list[int], np.ndarray]:
    """Draws phrases of a picture, each kind as often as the others as long as there are any.

    Args:
        triplet: the picture.
        prompts: how many to draw.
        rng: decides.

    Returns:
        The phrases' numbers, filled up with repeats; and which of them are no repeats.

    Raises:
        UserError: nothing is said about the picture.
    """
    if not triplet.phrases:
        raise UserError(
            f"the picture {triplet.image_id!r} has no phrase; only pictures with phrases can be learnt from"
        )
    piles: dict[str, list[int]] = {}
    for number in rng.permutation(len(triplet.phrases)).tolist():
        piles.setdefault(triplet.kinds[number], []).append(number)
    order = [str(kind) for kind in rng.permutation(sorted(piles))]
    rounds = max(len(pile) for pile in piles.values())
    drawn = [piles[kind][turn] for turn in range(rounds) for kind in order if turn < len(piles[kind])]
    drawn = drawn[:prompts]
    valid = np.arange(prompts) < len(drawn)
    return [drawn[i % len(drawn)] for i in range(prompts)], valid


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawPhrases(grain.transforms.RandomMap):
    """Draws one phrase for each object of a visit.

    Attributes:
        prompts: phrases per visit; too few objects are filled up with repeats that are not valid.
    """

    prompts: int

    def random_map(self, element: Visit, rng: np.random.Generator) -> Asked:
        """Returns the picture with its phrases."""
        picture = element.picture
        if isinstance(picture, Triplet):
            drawn, valid = draw_phrases(picture, self.prompts, rng)
            phrases, masks = [picture.phrases[n] for n in drawn], [picture.mask_index[n] for n in drawn]
        elif element.absent:
            phrases, masks = self._filled(element.absent), [NOTHING] * self.prompts
            valid = np.arange(self.prompts) < len(element.absent)
        else:
            choices = sample_phrases(picture["phrase_masks"], picture.get("phrase_objects", ()))
            drawn = [choices[sample][rng.integers(len(choices[sample]))] for sample in element.samples or ()]
            valid = np.arange(self.prompts) < len(drawn)
            drawn = self._filled(drawn)
            phrases = [text_of(picture["phrases"][n]) for n in drawn]
            masks = [int(picture["phrase_masks"][n]) for n in drawn]
        hide = element.hide
        if hide is None:
            hide = not isinstance(picture, Triplet) and any(score < 1 for score in picture["mask_scores"])
        return Asked(picture=picture, phrases=tuple(phrases), masks=tuple(masks), valid=valid, hide=hide)

    def _filled(self, drawn: list | tuple) -> list:
        return [drawn[i % len(drawn)] for i in range(self.prompts)]


def text_of(value: bytes | str) -> str:
    """Returns a text of a record, whether it was just made or read back."""
    return value if isinstance(value, str) else bytes(value).decode()
