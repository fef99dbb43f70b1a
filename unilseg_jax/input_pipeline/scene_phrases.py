"""What is said about a scene: phrases at every granularity of language (the paper's Table 1).

Differs: the phrases are written by rule instead of collected; the wordings are listed here.

Description of an object: [small | large] [plain | striped | dotted] [colour] category, any of them left out;
without a category the noun is "object". Only plain shapes have a texture. Only as many words as
`MAX_WORDS` allows.

kind        wordings
attribute   "the small striped red circle", "the blue object": the description fits exactly one object
relation    "D left of A", "D to the left of A", "D on the left side of A" (and right); "D above A", "D over A";
            "D below A", "D under A", where A fits one object and D at least two, of which exactly one stands so;
            "the leftmost D", "the D on the left", "the D at the top", ...: D fits at least two
category    "all circle", the paper's form "all {}": the union of every object of the category
part        "all wheel": the union over the scene; "the roof of A": the part of one object
salient     "the most salient object", see `unilseg_jax.input_pipeline.scenes`
nothing     any of the above forms, naming what is not in the picture
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from unilseg_jax.input_pipeline.scene_shapes import (
    CATEGORIES,
    COLOURS,
    PARTS,
    SIZES,
    TEXTURES,
    ObjectPlan,
)

KINDS = ("attribute", "relation", "category", "part", "salient", "nothing")
MAX_WORDS = 12
SALIENT_PHRASE = "the most salient object"

# A relation holds if the centres lie apart along its axis by at least HOLDS × the picture's side and DOMINANCE ×
# the distance across it; it plainly fails if they lie apart by less than FAILS (or the other way round).
# In between a reader could doubt, and no phrase is made of it.
HOLDS, DOMINANCE, FAILS = 0.15, 1.25, 0.03

# Relation → (axis, sign): the target's coordinate on that axis, times the sign, is below the anchor's.
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
        objects: numbers of the objects that it names (whose union is its mask); empty for "nothing".
        part: the part of those objects that it names; None for the whole objects.
    """

    text: str
    kind: str
    objects: tuple[int, ...]
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
    return [
        *writer.attribute(),
        *writer.relation(),
        *writer.category(),
        *writer.part(),
        *writer.salient(),
        *writer.nothing(),
    ]


def _noun_phrase(description: Description) -> str:
    return " ".join(word for word in (*description[:3], description[3] or "object") if word)


def _short(text: str) -> bool:
    return len(text.split()) <= MAX_WORDS


class _Writer:
    """Writes the phrases of one scene."""

    def __init__(self, rng: np.random.Generator, objects: Sequence[ObjectPlan], size: int):
        self._rng = rng
        self._objects = objects
        self._size = size
        # Description → bit set of the objects that it fits. What is absent fits none.
        self._fits: dict[Description, int] = {}
        for number, thing in enumerate(objects):
            words = (thing.size, thing.texture, thing.colour, thing.category)
            for keep in _SUBSETS:
                if keep[1] and thing.texture is None:
                    continue
                description = tuple(word if kept else None for word, kept in zip(words, keep, strict=True))
                self._fits[description] = self._fits.get(description, 0) | 1 << number

    def _pick(self, items: Sequence, weights: Sequence[float] | None = None):
        """Returns a random item (cheaper than the generator's own choice)."""
        if weights is None:
            return items[int(self._rng.random() * len(items))]
        rest = self._rng.random() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            rest -= weight
            if rest < 0:
                return item
        return items[-1]

    def _unique(self) -> list[tuple[Description, int, float]]:
        """Returns descriptions that fit exactly one object: description, object, weight of its usefulness."""
        found = []
        for description, bits in self._fits.items():
            if bits & (bits - 1):
                continue
            said = sum(word is not None for word in description)
            # Without any one of its words the description would be ambiguous: every word has to be read.
            minimal = said > 1 and all(
                self._fits[shorter] & (self._fits[shorter] - 1)
                for place in range(4)
                if description[place]
                for shorter in [(*description[:place], None, *description[place + 1 :])]
            )
            weight = 4.0 if minimal else 1.5 if said == 2 else 1.0 if said == 3 else 0.5
            if description[3] is None:
                weight *= 0.25
            elif said == 1:
                weight = 0.7
            found.append((description, bits.bit_length() - 1, weight))
        return found

    def attribute(self) -> list[Phrase]:
        """One object by its looks."""
        phrases: list[Phrase] = []
        candidates = self._unique()
        while candidates and len(phrases) < 2:
            description, number, _ = self._pick(candidates, [weight for *_, weight in candidates])
            phrases.append(
                Phrase(text=f"the {_noun_phrase(description)}", kind="attribute", objects=(number,))
            )
            candidates = [candidate for candidate in candidates if candidate[1] != number]
        return phrases

    def _anchor_name(self, number: int) -> str | None:
        """Returns a description with a category that fits the object and no other; None if there is none."""
        names = [
            description
            for description, bits in self._fits.items()
            if bits == 1 << number and description[3] is not None
        ]
        if not names:
            return None
        weights = [0.12 ** sum(word is not None for word in name) for name in names]
        return f"the {_noun_phrase(self._pick(names, weights))}"

    def _relative(self) -> list[tuple[int, int, str, Description]]:
        """Returns (target, anchor, relation, ambiguous description that the relation makes unique)."""
        found = []
        numbers = range(len(self._objects))
        for anchor, relation in itertools.product(numbers, RELATIONS):
            stands, fails = 0, 0
            for number in numbers:
                if number == anchor:
                    continue
                along, across = offset(self._objects[number], self._objects[anchor], relation)
                if along >= HOLDS * self._size and along >= DOMINANCE * across:
                    stands |= 1 << number
                elif along < FAILS * self._size:
                    fails |= 1 << number
            if not stands:
                continue
            for description, bits in self._fits.items():
                hit = bits & stands
                if (
                    description[3]
                    and hit
                    and bits & (bits - 1)
                    and not hit & (hit - 1)
                    and bits == hit | (bits & fails)
                ):
                    found.append((hit.bit_length() - 1, anchor, relation, description))
        return found

    def _extremes(self) -> list[tuple[int, str, Description]]:
        """Returns (target, direction, ambiguous description whose extreme member in that direction it is)."""
        found = []
        for description, bits in self._fits.items():
            if not bits & (bits - 1) or (
                description[3] is None and sum(word is not None for word in description) > 1
            ):
                continue
            numbers = [number for number in range(len(self._objects)) if bits >> number & 1]
            for direction, (axis, sign) in RELATIONS.items():
                places = sorted(
                    (sign * (self._objects[n].y if axis else self._objects[n].x), n) for n in numbers
                )
                middle = sign * 0.5 * self._size
                if places[1][0] - places[0][0] >= HOLDS * self._size and places[0][0] < middle:
                    found.append((places[0][1], direction, description))
        return found

    def relation(self) -> list[Phrase]:
        """One object by its place."""
        phrases: list[Phrase] = []
        relative, extremes = self._relative(), self._extremes()
        for _ in range(6):
            if len(phrases) == 2 or not (relative or extremes):
                break
            superlative = not relative or (extremes and phrases and self._rng.random() < 0.6)
            if superlative:
                target, direction, description = self._pick(
                    extremes, [1.0 if description[3] else 0.3 for *_, description in extremes]
                )
                text = self._pick(_SUPERLATIVES[direction]).format(_noun_phrase(description))
            else:
                target, anchor, relation, description = self._pick(relative)
                name = self._anchor_name(anchor)
                if name is None:
                    relative = [candidate for candidate in relative if candidate[1] != anchor]
                    continue
                text = f"the {_noun_phrase(description)} {self._pick(_BETWEEN[relation])} {name}"
            if _short(text) and text not in {phrase.text for phrase in phrases}:
                phrases.append(Phrase(text=text, kind="relation", objects=(target,)))
        return phrases

    def category(self) -> list[Phrase]:
        """All objects of a category."""
        present = list(dict.fromkeys(thing.category for thing in self._objects))
        phrases = []
        while present and len(phrases) < 2:
            category = self._pick(present)
            present.remove(category)
            members = tuple(n for n, thing in enumerate(self._objects) if thing.category == category)
            phrases.append(Phrase(text=f"all {category}", kind="category", objects=members))
        return phrases

    def part(self) -> list[Phrase]:
        """Parts of composed objects: of all of them, and of one."""
        composed = [number for number, thing in enumerate(self._objects) if thing.category in PARTS]
        if not composed:
            return []
        category = self._objects[self._pick(composed)].category
        part = self._pick(PARTS[category])
        owners = tuple(n for n in composed if self._objects[n].category == category)
        phrases = [Phrase(text=f"all {part}", kind="part", objects=owners, part=part)]
        owner = self._pick(composed)
        name, part = self._anchor_name(owner), self._pick(PARTS[self._objects[owner].category])
        if name is not None:
            # "all wheel" speaks of every wheel; of one car it is natural to say "the wheels".
            plural = "s" if part == "wheel" else ""
            phrases.append(
                Phrase(text=f"the {part}{plural} of {name}", kind="part", objects=(owner,), part=part)
            )
        return phrases

    def salient(self) -> list[Phrase]:
        """The salient object, if the scene has one."""
        numbers = tuple(number for number, thing in enumerate(self._objects) if thing.salient)
        return [Phrase(text=SALIENT_PHRASE, kind="salient", objects=numbers)] if numbers else []

    def _absent(self) -> Description | None:
        """Returns the description of a present object with one word changed so that it fits nothing."""
        thing = self._pick(self._objects)
        use_size, use_texture = self._rng.random() < 0.2, self._rng.random() < 0.15
        words = [
            thing.size if use_size else None,
            thing.texture if use_texture else None,
            thing.colour,
            thing.category,
        ]
        place = self._pick((2, 3, 0, 1), (0.5, 0.35, 0.08, 0.07))
        if place == 0:
            words[0] = SIZES[1 - SIZES.index(thing.size)]
        elif place == 1 and thing.texture:
            words[1] = self._pick(TEXTURES)
        elif place == 3:
            # Mostly another category of this very picture: its colour is seen, its shape is seen, not together.
            other = self._pick(self._objects).category if self._rng.random() < 0.6 else self._pick(CATEGORIES)
            words[1] = None if other in PARTS else words[1]
            words[3] = other
        else:
            hard = self._rng.random() < 0.6
            words[2] = self._pick(self._objects).colour if hard else self._pick(tuple(COLOURS))
        return None if tuple(words) in self._fits else tuple(words)

    def nothing(self) -> list[Phrase]:
        """What is not in the picture, close to what is."""
        texts: list[str] = []
        forms = ["attribute", "category", "part", "relation"]
        for _ in range(30):
            if len(texts) == 2:
                break
            form = self._pick(forms, [{"attribute": 2.0}.get(form, 1.0) for form in forms])
            text = self._nothing(form)
            if text is not None and _short(text):
                texts.append(text)
                forms.remove(form)
        return [Phrase(text=text, kind="nothing", objects=()) for text in texts]

    def _nothing(self, form: str) -> str | None:
        present = {thing.category for thing in self._objects}
        absent_categories = [category for category in CATEGORIES if category not in present]
        if form == "category":
            return f"all {self._pick(absent_categories)}" if absent_categories else None
        if form == "part" and self._rng.random() < 0.5:
            owners = [category for category in absent_categories if category in PARTS]
            return f"all {self._pick(PARTS[self._pick(owners)])}" if owners else None
        description = self._absent()
        if description is None:
            return None
        text = f"the {_noun_phrase(description)}"
        if form == "attribute":
            return text
        if form == "part":
            if description[3] not in PARTS:
                return None
            part = self._pick(PARTS[description[3]])
            return f"the {part}{'s' if part == 'wheel' else ''} of {text}"
        name = self._anchor_name(int(self._rng.random() * len(self._objects)))
        return None if name is None else f"{text} {self._pick(_BETWEEN[self._pick(tuple(_BETWEEN))])} {name}"
