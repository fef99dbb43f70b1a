"""Scenes: pictures drawn on the fly with phrases about them, index → scene, for the quick start.

Differs: the paper trains on about 1.5 million photographs; this stand-in needs no download. Its phrases
take the forms of the paper's Table 1 ("all {}", "the most salient object", natural expressions), listed with
their wordings in `unilseg_jax.input_pipeline.scene_phrases`.

A scene holds three or four objects that neither touch nor leave the picture. Two of three scenes are planned
around a relation, two objects of the same category and colour on opposite sides of a third; where there is no
room for that the plan is given up in part, so a little under half of the scenes show it clearly.

The salient object: where there is one (in most scenes), it is large, vivid and ringed in white, while every
other object is faded towards grey and has no ring. Where there is none, all are vivid and none has a ring.
"""

import dataclasses
import operator
from typing import SupportsIndex

import cv2
import numpy as np
from jaxtyping import UInt8

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.scene_phrases import KINDS, Phrase, write_phrases
from unilseg_jax.input_pipeline.scene_shapes import (
    COLOURS,
    PARTS,
    SHAPES,
    TEXTURES,
    ObjectPlan,
    SceneObject,
    draw_background,
    draw_object,
    pick,
)
from unilseg_jax.input_pipeline.triplet import Triplet

__all__ = ["KINDS", "Scene", "SceneSource", "draw_scene"]

MIN_SIZE = 64
RELATION_SHARE, SALIENT_SHARE = 0.65, 0.75
_FADING = 0.25
# In pixels of a picture of side 96.
_GAP, _MARGIN = 3.0, 2.0
_SIDES = {"small": (21.0, 24.0), "large": (31.0, 36.0)}
_COMPOSED_SIDES = {"small": (22.0, 25.0), "large": (33.0, 38.0)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """A drawn picture with all that is known of it.

    Attributes:
        image: RGB, 0 to 255.
        objects: what stands in it.
        phrases: what is said about it.
    """

    image: UInt8[np.ndarray, "h w 3"]
    objects: tuple[SceneObject, ...]
    phrases: tuple[Phrase, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneSource:
    """A random access source of scenes (grain's protocol: length and item).

    Scene `index` is drawn from the counter-based generator Philox with the key (seed, index): it depends on
    nothing else, and two sources with different seeds share no stream of random numbers. So a held-out source
    is one with another seed.

    Attributes:
        num_scenes: how many scenes there are, at least 1.
        seed: 0 to 2**64 - 1; names the set of scenes.
        size: side of the square pictures in pixels, at least 64.

    Raises:
        UserError: a field is out of its range.
    """

    num_scenes: int
    seed: int
    size: int = 96

    def __post_init__(self):
        if self.num_scenes < 1:
            raise UserError(f"num_scenes is {self.num_scenes}, at least 1 is wanted")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"the scenes' seed is {self.seed}, 0 to 2**64 - 1 is wanted")
        if self.size < MIN_SIZE:
            raise UserError(f"the scenes' size is {self.size} pixels, at least {MIN_SIZE} is wanted")

    def __len__(self) -> int:
        return self.num_scenes

    def __getitem__(self, index: SupportsIndex) -> Triplet:
        """Draws scene number `index`.

        Raises:
            IndexError: there is no such scene.
        """
        index = operator.index(index)
        if not 0 <= index < self.num_scenes:
            raise IndexError(f"scene {index} of {self.num_scenes}")
        scene = draw_scene(self.seed, index, self.size)
        keys: dict[tuple, int] = {}
        masks: list[np.ndarray] = []
        mask_index = []
        for phrase in scene.phrases:
            key = (phrase.objects, phrase.part)
            if phrase.objects and key not in keys:
                keys[key] = len(masks)
                masks.append(_union(scene.objects, phrase))
            mask_index.append(keys[key] if phrase.objects else -1)
        return Triplet(
            image_id=f"scene-{self.seed}-{index}",
            image=scene.image,
            masks=np.stack(masks),
            phrases=tuple(phrase.text for phrase in scene.phrases),
            mask_index=tuple(mask_index),
            kinds=tuple(phrase.kind for phrase in scene.phrases),
        )


def draw_scene(seed: int, index: int, size: int = 96) -> Scene:
    """Draws a scene, with its objects listed.

    Args:
        seed: 0 to 2**64 - 1, the set of scenes.
        index: number of the scene, from 0.
        size: side of the picture in pixels.
    """
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))
    plans: list[ObjectPlan] = []
    while len(plans) < 3:
        plans = _plan_relation(rng, size) if rng.random() < RELATION_SHARE else _plan_freely(rng, size)
    large = [number for number, plan in enumerate(plans) if plan.size == "large"]
    if large and rng.random() < SALIENT_SHARE:
        number = pick(rng, large)
        plans[number] = dataclasses.replace(plans[number], salient=True)
    has_salient = any(plan.salient for plan in plans)

    image = draw_background(rng, size)
    objects = tuple(
        draw_object(rng, image, plan, _FADING if has_salient and not plan.salient else 0.0) for plan in plans
    )
    phrases = tuple(write_phrases(rng, objects, size))
    # Soft edges, as a camera has them, then the sensor's noise: last, as it alone takes more random numbers
    # for a larger picture.
    image = cv2.GaussianBlur(image, (3, 3), 0.6)
    noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape) & 15
    image = cv2.subtract(cv2.add(image, noise), (7, 7, 7, 0))
    return Scene(image=image, objects=objects, phrases=phrases)


def _union(objects: tuple[SceneObject, ...], phrase: Phrase) -> UInt8[np.ndarray, "h w"]:
    chosen = [objects[number] for number in phrase.objects]
    return np.bitwise_or.reduce([thing.parts[phrase.part] if phrase.part else thing.mask for thing in chosen])


def _pick_looks(rng: np.random.Generator, composed: float, size: str) -> ObjectPlan:
    """Returns an object without a place; with probability `composed` it is a composed one."""
    category = pick(rng, tuple(PARTS) if rng.random() < composed else SHAPES)
    return ObjectPlan(
        category=category,
        colour=pick(rng, tuple(COLOURS)),
        size=size,
        texture=None if category in PARTS else pick(rng, (*TEXTURES, "plain")),
    )


def _pick_extra(rng: np.random.Generator, others: list[ObjectPlan], composed: float = 0.45) -> ObjectPlan:
    """Returns a distractor: often it shares its category or its colour with an object already there."""
    looks = _pick_looks(rng, composed, "small" if rng.random() < 0.55 else "large")
    model, share = pick(rng, others), rng.random()
    if share < 0.35:
        looks = dataclasses.replace(looks, colour=model.colour)
    elif share < 0.7:
        texture = None if model.category in PARTS else looks.texture or pick(rng, TEXTURES)
        looks = dataclasses.replace(looks, category=model.category, texture=texture)
    # Never the double of another, or of two objects neither could be named.
    while any((looks.category, looks.colour) == (other.category, other.colour) for other in others):
        looks = dataclasses.replace(looks, colour=pick(rng, tuple(COLOURS)))
    return looks


def _pick_side(rng: np.random.Generator, looks: ObjectPlan, size: int) -> float:
    low, high = (_COMPOSED_SIDES if looks.category in PARTS else _SIDES)[looks.size]
    return (low + (high - low) * rng.random()) * size / 96


def _place(rng: np.random.Generator, looks: ObjectPlan, placed: list[ObjectPlan], size: int) -> ObjectPlan | None:
    """Returns the object at a random free place; None if none was found."""
    side, unit = _pick_side(rng, looks, size), size / 96
    near = side / 2 + _MARGIN * unit
    for x, y in (near + (size - 2 * near) * rng.random((24, 2))).tolist():
        if all(max(abs(x - other.x), abs(y - other.y)) >= (side + other.side) / 2 + _GAP * unit for other in placed):
            return dataclasses.replace(looks, x=x, y=y, side=side)
    return None


def _add_extras(rng: np.random.Generator, placed: list[ObjectPlan], count: int, size: int) -> list[ObjectPlan]:
    for _ in range(count):
        extra = _pick_extra(rng, placed) if placed else _pick_looks(rng, 0.7, "large")
        extra = _place(rng, extra, placed, size) or _place(rng, dataclasses.replace(extra, size="small"), placed, size)
        if extra is not None:
            placed = [*placed, extra]
    return placed


def _plan_freely(rng: np.random.Generator, size: int) -> list[ObjectPlan]:
    return _add_extras(rng, [], 3 + int(2 * rng.random()), size)


def _plan_relation(rng: np.random.Generator, size: int) -> list[ObjectPlan]:
    """Plans twins on opposite sides of an anchor, and at most one more object."""
    unit = size / 96
    sizes = [("small", "small"), ("small", "small"), ("large", "small"), ("large", "large")][int(4 * rng.random())]
    first = _pick_looks(rng, 0.35, sizes[0])
    second = dataclasses.replace(first, size=sizes[1])
    if first.texture and rng.random() < 0.3:
        second = dataclasses.replace(second, texture=pick(rng, TEXTURES))
    anchor = _pick_extra(rng, [first], composed=0.7)
    anchor = dataclasses.replace(anchor, size="small" if "large" in sizes else anchor.size)
    trio = [first, anchor, second] if rng.random() < 0.5 else [second, anchor, first]
    sides = [_pick_side(rng, looks, size) for looks in trio]
    gap, margin = _GAP * unit, _MARGIN * unit
    slack = size - 2 * margin - sum(sides) - 2 * gap
    if slack < 0:
        return []
    cuts = sorted((slack * rng.random(3)).tolist())
    along = [margin + cuts[0] + sides[0] / 2]
    along.append(along[0] + (sides[0] + sides[1]) / 2 + gap + cuts[1] - cuts[0])
    along.append(along[1] + (sides[1] + sides[2]) / 2 + gap + cuts[2] - cuts[1])
    # The three stand near one edge, so that others find room.
    start = margin + sides[1] / 2 + (size / 3) * rng.random()
    middle = start if rng.random() < 0.5 else size - start
    placed = []
    horizontal = rng.random() < 0.5
    for looks, side, place in zip(trio, sides, along, strict=True):
        reach = 0.55 * abs(place - along[1])
        across = middle + reach * (2 * rng.random() - 1)
        across = min(max(across, margin + side / 2), size - margin - side / 2)
        x, y = (place, across) if horizontal else (across, place)
        placed.append(dataclasses.replace(looks, x=x, y=y, side=side))
    return _add_extras(rng, placed, int(1.8 * rng.random()), size)
