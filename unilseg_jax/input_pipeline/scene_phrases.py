"""What is said about a scene: phrases at every granularity of language (the paper's Table 1).

Differs: the phrases are written by rule instead of collected.

A description D of an object is [small | large] [plain | striped | dotted] [colour] category, any of them left
out; without a category the noun is "object". Only plain shapes have a texture. A is a description with a
category that fits one object. No phrase has more than `MAX_WORDS` words. The kinds and their wordings:

attribute: "the D", where D fits exactly one object. Preferred are descriptions all of whose words are needed.
relation: "the D left of | to the left of | on the left side of the A" (right likewise), "the D above | over
    the A", "the D below | under the A", where D fits two objects or more, of which exactly one stands so;
    "the leftmost D", "the D on the left", "the D at the top" and so on, where D fits two objects or more.
category: "all circle", the paper's form "all {}": the union of all objects of the category.
part: "all wheel", the union over the scene; "the roof of the A", the part of one object.
salient: "the most salient object", see `unilseg_jax.input_pipeline.scenes`.
nothing: any of these forms, naming what is not in the picture; its words mostly do occur in it, apart.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from unilseg_jax.input_pipeline.scene_shapes import (
    CATEGORIES,
    COLOURS,
    PARTS,
    SIZES,
    TEXTURES,
    ObjectPlan,
    pick,
)

KINDS = ("attribute", "relation", "category", "part", "salient", "nothing")
MAX_WORDS = 12
SALIENT_PHRASE = "the most salient object"

# A relation holds if the centres lie apart along its axis by at least HOLDS × the picture's side and
# DOMINANCE × their distance across it. It plainly fails if they lie apart by less than FAILS × the picture's
# side, or the other way round. In between a reader could doubt: no phrase rests on such a pair.
HOLDS, DOMINANCE, FAILS = 0.15, 1.25, 0.03

# Relation → (axis, sign): the target's coordinate on the axis, times the sign, is below the anchor's.
RELATIONS = {"left": (0, 1), "right": (0, -1), "above": (1, 1), "below": (1, -1)}
_BETWEEN = {
    "left": ("left of", "to the left of", "on the left side of"),
    "right": ("right of", "to the right of", "on the right side of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_SUPERLATIVES = {
    "left": ("the leftmost {}", "the {} on the left"),
    "right": ("the rightmost {}", "the {} on the right"),
    "above": ("the topmost {}", "the {} at the top"),
    "below": ("the lowest {}", "the {} at the bottom"),
}

# (size, texture, colour, category), None where nothing is said.
Description = tuple[str | None, str | None, str | None, str | None]
_SUBSETS = tuple(itertools.product((False, True), repeat=4))[1:]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phrase:
    """A phrase and what it names.

    Attributes:
        text: the phrase.
        kind: one of `KINDS`.
        objects: numbers of the objects that it names (their union is its mask); empty for "nothing".
        part: the part of those objects that it names; None for the whole objects.
    """

    text: str
    kind: str
    objects: tuple[int, ...] = ()
    part: str | None = None


def offset(target: ObjectPlan, anchor: ObjectPlan, relation: str) -> tuple[float, float]:
    """Returns how far `target` lies from `anchor` in the relation's direction and across it, in pixels."""
    axis, sign = RELATIONS[relation]
    steps = (anchor.x - target.x, anchor.y - target.y)
    return sign * steps[axis], abs(steps[1 - axis])


def write_phrases(rng: np.random.Generator, objects: Sequence[ObjectPlan], size: int) -> list[Phrase]:
    """Writes up to two different phrases for each kind that applies to the scene, in the order of `KINDS`.

    Args:
        rng: source of randomness.
        objects: the scene's objects.
        size: side of the picture in pixels.
    """
    writer = _Writer(rng, objects, size)
    kinds = (writer.attribute, writer.relation, writer.category, writer.part, writer.salient, writer.nothing)
    return [phrase for write in kinds for phrase in write()]


def _name(description: Description) -> str:
    return " ".join(word for word in (*description[:3], description[3] or "object") if word)


def _name_part(part: str, owner: str) -> str:
    # "all wheel" speaks of every wheel; of one car it is natural to say "the wheels".
    return f"the {part}{'s' if part == 'wheel' else ''} of {owner}"


def _is_one(bits: int) -> bool:
    return bits != 0 and not bits & (bits - 1)


class _Writer:
    """Writes the phrases of one scene."""

    def __init__(self, rng: np.random.Generator, objects: Sequence[ObjectPlan], size: int):
        self._rng = rng
        self._objects = objects
        self._size = size
        # Description → bit set of the objects that it fits. What is absent here fits none.
        self._fits: dict[Description, int] = {}
        for number, thing in enumerate(objects):
            for keep in _SUBSETS:
                if thing.texture or not keep[1]:
                    description = (
                        thing.size if keep[0] else None,
                        thing.texture if keep[1] else None,
                        thing.colour if keep[2] else None,
                        thing.category if keep[3] else None,
                    )
                    self._fits[description] = self._fits.get(description, 0) | 1 << number

    def attribute(self) -> list[Phrase]:
        """One object by its looks."""
        phrases: list[Phrase] = []
        candidates = list(self._unique())
        while candidates and len(phrases) < 2:
            description, number, _ = pick(self._rng, candidates, [weight for *_, weight in candidates])
            phrases.append(Phrase(text=f"the {_name(description)}", kind="attribute", objects=(number,)))
            candidates = [candidate for candidate in candidates if candidate[1] != number]
        return phrases

    def _unique(self) -> Iterator[tuple[Description, int, float]]:
        """Yields descriptions that fit exactly one object, the object, and a weight of their usefulness."""
        for description, bits in self._fits.items():
            if not _is_one(bits):
                continue
            said = 4 - description.count(None)
            needs_all = said > 1 and not any(
                _is_one(self._fits[*description[:place], None, *description[place + 1 :]])
                for place in range(4)
                if description[place]
            )
            weight = 4.0 if needs_all else (0.7, 1.5, 1.0, 0.5)[said - 1]
            yield description, bits.bit_length() - 1, weight if description[3] else 0.25 * weight

    def _name_anchor(self, number: int) -> str | None:
        """Returns a name with a category, mostly the shortest, that fits this object only, or None."""
        names = [name for name, bits in self._fits.items() if bits == 1 << number and name[3]]
        if not names:
            return None
        return f"the {_name(pick(self._rng, names, [8.0 ** name.count(None) for name in names]))}"

    def relation(self) -> list[Phrase]:
        """One object by its place."""
        phrases: list[Phrase] = []
        relative, extremes = list(self._relative()), list(self._extremes())
        for _ in range(8):
            if len(phrases) == 2 or not (relative or extremes):
                break
            if not relative or (extremes and phrases and self._rng.random() < 0.4):
                weights = [1.0 if description[3] else 0.3 for *_, description in extremes]
                target, direction, description = pick(self._rng, extremes, weights)
                text = pick(self._rng, _SUPERLATIVES[direction]).format(_name(description))
                extremes = [candidate for candidate in extremes if candidate[:2] != (target, direction)]
            else:
                target, anchor, relation, description = pick(self._rng, relative)
                between = pick(self._rng, _BETWEEN[relation])
                text = f"the {_name(description)} {between} {self._name_anchor(anchor)}"
                # A second phrase of this form names another object, so that the two differ in meaning.
                relative = [candidate for candidate in relative if candidate[0] != target]
            if len(text.split()) <= MAX_WORDS:
                phrases.append(Phrase(text=text, kind="relation", objects=(target,)))
        return phrases

    def _relative(self) -> Iterator[tuple[int, int, str, Description]]:
        """Yields (target, anchor, relation, ambiguous description that the relation makes unique)."""
        numbers = range(len(self._objects))
        ambiguous = [(name, bits) for name, bits in self._fits.items() if name[3] and not _is_one(bits)]
        named = {bits for name, bits in self._fits.items() if name[3] and _is_one(bits)}
        anchors = [number for number in numbers if 1 << number in named]
        for anchor, relation in itertools.product(anchors, RELATIONS):
            stands, fails = 0, 0
            for number in numbers:
                along, across = offset(self._objects[number], self._objects[anchor], relation)
                if along >= HOLDS * self._size and along >= DOMINANCE * across:
                    stands |= 1 << number
                elif along < FAILS * self._size and number != anchor:
                    fails |= 1 << number
            for description, bits in ambiguous:
                if _is_one(bits & stands) and not bits & ~(stands | fails):
                    yield (bits & stands).bit_length() - 1, anchor, relation, description

    def _extremes(self) -> Iterator[tuple[int, str, Description]]:
        """Yields (target, direction, ambiguous description whose outermost member the target is)."""
        for description, bits in self._fits.items():
            if _is_one(bits) or not (description[3] or description.count(None) == 3):
                continue
            numbers = [number for number in range(len(self._objects)) if bits >> number & 1]
            for direction, (axis, sign) in RELATIONS.items():
                places = sorted((sign * (self._objects[n].y if axis else self._objects[n].x), n) for n in numbers)
                is_clear = places[1][0] - places[0][0] >= HOLDS * self._size
                # What is called "on the left" also stands in the left half.
                if is_clear and places[0][0] < sign * 0.5 * self._size:
                    yield places[0][1], direction, description

    def category(self) -> list[Phrase]:
        """All objects of a category."""
        present = list(dict.fromkeys(thing.category for thing in self._objects))
        phrases = []
        while present and len(phrases) < 2:
            category = pick(self._rng, present)
            present.remove(category)
            members = tuple(n for n, thing in enumerate(self._objects) if thing.category == category)
            phrases.append(Phrase(text=f"all {category}", kind="category", objects=members))
        return phrases

    def part(self) -> list[Phrase]:
        """Parts of composed objects: of all of a category, and of one."""
        composed = [number for number, thing in enumerate(self._objects) if thing.category in PARTS]
        if not composed:
            return []
        category = self._objects[pick(self._rng, composed)].category
        part = pick(self._rng, PARTS[category])
        owners = tuple(n for n in composed if self._objects[n].category == category)
        phrases = [Phrase(text=f"all {part}", kind="part", objects=owners, part=part)]
        owner = pick(self._rng, composed)
        name, part = self._name_anchor(owner), pick(self._rng, PARTS[self._objects[owner].category])
        if name is not None:
            phrases.append(Phrase(text=_name_part(part, name), kind="part", objects=(owner,), part=part))
        return phrases

    def salient(self) -> list[Phrase]:
        """The salient object, if the scene has one."""
        numbers = tuple(number for number, thing in enumerate(self._objects) if thing.salient)
        return [Phrase(text=SALIENT_PHRASE, kind="salient", objects=numbers)] if numbers else []

    def nothing(self) -> list[Phrase]:
        """What is not in the picture."""
        forms = {"attribute": 2.0, "category": 1.0, "part": 1.0, "relation": 1.0}
        while True:
            text = self._name_absent(pick(self._rng, tuple(forms), tuple(forms.values())))
            if text is not None and len(text.split()) <= MAX_WORDS:
                return [Phrase(text=text, kind="nothing")]

    def _name_absent(self, form: str) -> str | None:
        """Returns a phrase of the given form that fits nothing; None if this try found none."""
        present = {thing.category for thing in self._objects}
        absent = [category for category in CATEGORIES if category not in present]
        if form == "category":
            return f"all {pick(self._rng, absent)}"
        if form == "part" and self._rng.random() < 0.5:
            owners = [category for category in absent if category in PARTS]
            return f"all {pick(self._rng, PARTS[pick(self._rng, owners)])}" if owners else None
        description = self._describe_absent()
        if description in self._fits or (form == "part" and description[3] not in PARTS):
            return None
        text = f"the {_name(description)}"
        if form == "part":
            return _name_part(pick(self._rng, PARTS[description[3]]), text)
        if form == "relation":
            between = pick(self._rng, _BETWEEN[pick(self._rng, tuple(_BETWEEN))])
            anchor = self._name_anchor(pick(self._rng, range(len(self._objects))))
            return f"{text} {between} {anchor}" if anchor else None
        return text

    def _describe_absent(self) -> Description:
        """Returns a present object's description with one word changed, mostly to another of the scene's."""
        thing, model = pick(self._rng, self._objects), pick(self._rng, self._objects)
        size = thing.size if self._rng.random() < 0.2 else None
        texture = thing.texture if self._rng.random() < 0.15 else None
        changed = pick(self._rng, ("colour", "category", "size", "texture"), (0.5, 0.35, 0.08, 0.07))
        is_near = self._rng.random() < 0.6
        if changed == "colour":
            return size, texture, model.colour if is_near else pick(self._rng, tuple(COLOURS)), thing.category
        if changed == "category":
            category = model.category if is_near else pick(self._rng, CATEGORIES)
            return size, None if category in PARTS else texture, thing.colour, category
        if changed == "size":
            return SIZES[1 - SIZES.index(thing.size)], texture, thing.colour, thing.category
        return size, pick(self._rng, TEXTURES) if thing.texture else None, thing.colour, thing.category
