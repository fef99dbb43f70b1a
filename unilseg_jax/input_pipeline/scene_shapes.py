"""What a scene is made of: object outlines, colours, textures and backgrounds, drawn with OpenCV.

Differs: the paper trains on photographs; this drawn stand-in has the same granularities of language.

Every object fits a square box of side `side` around its centre. Outlines are polygons in units of that box
(x to the right, y downwards, the box spans -0.5 to 0.5), so a scene looks alike at every picture size.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# RGB; neighbours in hue are kept more than 40 degrees apart, save orange, which lies between red and yellow.
COLOURS = {
    "red": (220, 30, 40),
    "green": (25, 170, 50),
    "blue": (35, 75, 225),
    "yellow": (250, 225, 40),
    "purple": (155, 45, 190),
    "orange": (250, 130, 10),
}
SHAPES = ("circle", "square", "triangle", "star")
PARTS = {"car": ("body", "window", "wheel"), "house": ("wall", "roof", "door"), "tree": ("trunk", "crown")}
CATEGORIES = (*SHAPES, *PARTS)
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted")

# RGB of parts that do not take the object's colour: dark or pale dull colours, none of them named above.
_PART_COLOURS = {
    "window": (205, 225, 232),
    "wheel": (28, 28, 32),
    "roof": (92, 58, 52),
    "door": (48, 38, 40),
    "trunk": (98, 64, 38),
}
# OpenCV takes points as integers in units of a sixteenth of a pixel.
_FIXED_POINT_BITS = 4
_FIXED = 2**_FIXED_POINT_BITS
_GREY = 128.0

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectPlan:
    """An object before it is drawn.

    Attributes:
        category: one of `CATEGORIES`.
        colour: a name in `COLOURS`; a composed object wears it on its body, wall or crown.
        size: "small" or "large".
        texture: one of `TEXTURES` for a plain shape, None for a composed object.
        x: centre to the right, in pixels.
        y: centre downwards, in pixels.
        side: side of the square box that holds the object, in pixels.
        salient: whether this is the scene's one salient object.
    """

    category: str
    colour: str
    size: str
    texture: str | None
    x: float = 0.0
    y: float = 0.0
    side: float = 0.0
    salient: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneObject(ObjectPlan):
    """An object as drawn.

    Attributes:
        mask: {0, 1}, the object's visible pixels.
        parts: for a composed object each part's visible pixels by the part's name; they tile `mask`.
    """

    mask: UInt8[np.ndarray, "h w"]
    parts: dict[str, UInt8[np.ndarray, "h w"]]


def pick(rng: np.random.Generator, items: Sequence[Item], weights: Sequence[float] | None = None) -> Item:
    """Returns a random item (an order of magnitude cheaper than the generator's own choice).

    Args:
        rng: source of randomness.
        items: at least one.
        weights: one per item, not all zero; None: all alike.
    """
    if weights is None:
        return items[int(rng.random() * len(items))]
    rest = rng.random() * sum(weights)
    for item, weight in zip(items, weights, strict=True):
        rest -= weight
        if rest < 0:
            return item
    return items[-1]


def _ellipse(x: float, y: float, radius: float) -> Float[np.ndarray, "k 2"]:
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def _box(left: float, top: float, right: float, bottom: float) -> Float[np.ndarray, "4 2"]:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _star() -> Float[np.ndarray, "10 2"]:
    angles = -math.pi / 2 + np.arange(10) * math.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 0.5, 0.23)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


# Category → (part, polygons) in drawing order; a shape's only part is called "".
_OUTLINES: dict[str, tuple[tuple[str, tuple[np.ndarray, ...]], ...]] = {
    "circle": (("", (_ellipse(0.0, 0.0, 0.48),)),),
    "square": (("", (_box(-0.42, -0.42, 0.42, 0.42),)),),
    "triangle": (("", (np.array([[0.0, -0.48], [0.44, 0.36], [-0.44, 0.36]]),)),),
    "star": (("", (_star(),)),),
    "car": (
        (
            "body",
            (
                _box(-0.49, -0.06, 0.49, 0.24),
                np.array([[-0.38, -0.06], [-0.28, -0.38], [0.16, -0.38], [0.34, -0.06]]),
            ),
        ),
        ("window", (np.array([[-0.25, -0.05], [-0.19, -0.28], [0.1, -0.28], [0.21, -0.05]]),)),
        ("wheel", (_ellipse(-0.26, 0.22, 0.165), _ellipse(0.26, 0.22, 0.165))),
    ),
    "house": (
        ("wall", (_box(-0.39, -0.08, 0.39, 0.47),)),
        ("roof", (np.array([[-0.48, -0.06], [0.0, -0.48], [0.48, -0.06]]),)),
        ("door", (_box(-0.13, 0.14, 0.13, 0.47),)),
    ),
    "tree": (
        ("trunk", (_box(-0.11, 0.1, 0.11, 0.48),)),
        ("crown", (_ellipse(0.0, -0.2, 0.28), _ellipse(-0.2, 0.0, 0.23), _ellipse(0.2, 0.0, 0.23))),
    ),
}


def draw_background(rng: np.random.Generator, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Draws a dull greyish picture: a gradient, soft blobs and faint lines.

    Args:
        rng: source of randomness.
        size: side in pixels.
    """
    level, slopes = 65 + 90 * rng.random(), 60 * (rng.random(2) - 0.5)
    steps = np.linspace(-0.5, 0.5, 9)
    gradient = level + slopes[0] * steps[:, None, None] + slopes[1] * steps[None, :, None]
    tint, blobs, stains = rng.random(3) - 0.5, rng.random((9, 9, 1)) - 0.5, rng.random((9, 9, 3)) - 0.5
    coarse = (gradient + 16 * tint + 36 * blobs + 12 * stains).astype(np.uint8)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    lines = rng.random((2 + int(5 * rng.random()), 5)) * [size, size, size, size, 1]
    for x0, y0, x1, y1, shade in lines.tolist():
        grey = level + 60 * (shade - 0.5)
        cv2.line(image, (int(x0), int(y0)), (int(x1), int(y1)), (grey, grey, grey), max(1, size // 96))
    return image


def draw_object(
    rng: np.random.Generator, image: UInt8[np.ndarray, "h w 3"], plan: ObjectPlan, fading: float
) -> SceneObject:
    """Draws an object into `image` (in place) and returns it with its masks.

    Args:
        rng: source of randomness: tilt, mirror image, colour jitter.
        image: RGB, the picture so far.
        plan: what to draw and where.
        fading: 0 to 1, the share of grey mixed into the object's colours.
    """
    height, width = image.shape[:2]
    numbers = rng.random(8).tolist()
    tilt = (0.4 if plan.texture else 0.1) * (numbers[0] - 0.5)
    mirror = 1 if numbers[1] < 0.5 else -1
    jitter = [30 * (number - 0.5) for number in numbers[2:5]]
    turn = np.array([[mirror * math.cos(tilt), mirror * math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    turn, shift = plan.side * _FIXED * turn, _FIXED * np.array([plan.x - 0.5, plan.y - 0.5])

    whole = np.zeros((height, width), np.uint8)
    parts: dict[str, np.ndarray] = {}
    for part, polygons in _OUTLINES[plan.category]:
        base = zip(_PART_COLOURS.get(part, COLOURS[plan.colour]), jitter, strict=True)
        colour = [min(255.0, max(0.0, c + j)) * (1 - fading) + _GREY * fading for c, j in base]
        mask = np.zeros((height, width), np.uint8)
        for polygon in polygons:
            points = np.rint(polygon @ turn + shift).astype(np.int32)[None]
            cv2.fillPoly(mask, points, 1, shift=_FIXED_POINT_BITS)
            cv2.fillPoly(image, points, colour, shift=_FIXED_POINT_BITS)
        for below in parts.values():
            below[mask > 0] = 0
        whole |= mask
        parts[part] = mask
    if plan.texture in ("striped", "dotted"):
        draw_pattern = _draw_stripes if plan.texture == "striped" else _draw_dots
        white = 255 * (1 - fading) + _GREY * fading
        image[draw_pattern(plan, height, *numbers[5:7]) & whole > 0] = [0.35 * c + 0.65 * white for c in colour]
    if plan.salient:
        thickness = max(1, round(2 * height / 96))
        ring = cv2.dilate(whole, np.ones((3, 3), np.uint8), iterations=thickness) - whole
        image[ring > 0] = 255
    return SceneObject(**vars(plan), mask=whole, parts={} if plan.texture else parts)


def _draw_stripes(plan: ObjectPlan, size: int, turn: float, phase: float) -> UInt8[np.ndarray, "size size"]:
    """Returns 1 where stripes fall over the object's box, in a picture of side `size`.

    Args:
        plan: the object.
        size: side of the picture in pixels.
        turn: 0 to 1, direction as a share of half a turn.
        phase: 0 to 1, shift as a share of the period.
    """
    pattern = np.zeros((size, size), np.uint8)
    period, reach = 7.0 * size / 96, 0.75 * plan.side
    cos, sin = math.cos(math.pi * turn), math.sin(math.pi * turn)
    for step in range(-math.ceil(reach / period), math.ceil(reach / period) + 1):
        away = (step + phase) * period
        ends = [(plan.x - away * sin + end * cos, plan.y + away * cos + end * sin) for end in (-reach, reach)]
        start, stop = [(round(_FIXED * (x - 0.5)), round(_FIXED * (y - 0.5))) for x, y in ends]
        cv2.line(pattern, start, stop, 1, max(1, round(2.3 * size / 96)), shift=_FIXED_POINT_BITS)
    return pattern


def _draw_dots(plan: ObjectPlan, size: int, right: float, down: float) -> UInt8[np.ndarray, "size size"]:
    """Returns 1 where dots fall over the object's box, in a picture of side `size`.

    Args:
        plan: the object.
        size: side of the picture in pixels.
        right: 0 to 1, shift as a share of half the period.
        down: 0 to 1, the same downwards.
    """
    pattern = np.zeros((size, size), np.uint8)
    period, radius = 7.0 * size / 96, round(_FIXED * 1.6 * size / 96)
    count = math.ceil(0.6 * plan.side / period)
    for row in range(-count, count + 1):
        y = plan.y - 0.5 + (row + 0.5 * down) * period
        for column in range(-count, count + 1):
            # Every other row is shifted by half a period.
            x = plan.x - 0.5 + (column + 0.5 * (row % 2) + 0.5 * right) * period
            cv2.circle(pattern, (round(_FIXED * x), round(_FIXED * y)), radius, 1, -1, shift=_FIXED_POINT_BITS)
    return pattern
