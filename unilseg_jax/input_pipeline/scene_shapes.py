"""What a scene is made of: object outlines, colours, textures and backgrounds, drawn with OpenCV.

Differs: the paper trains on photographs; this drawn stand-in has the same granularities of language.

Every object fits a square box of side `side` around its centre. Outlines are polygons in units of that box
(x to the right, y downwards, the box spans -0.5 to 0.5), so a scene looks alike at every picture size.
"""

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# RGB; neighbours in hue are kept more than 40 degrees apart, save orange, which lies between red and yellow.
COLOURS = {
    "red": (220, 30, 40),
    "green": (40, 165, 60),
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

# Parts that do not take the object's colour: dark or pale dull colours, none of which has a name above.
_PART_COLOURS = {
    "window": (205, 225, 232),
    "wheel": (28, 28, 32),
    "roof": (92, 58, 52),
    "door": (48, 38, 40),
    "trunk": (98, 64, 38),
}
_FIXED_POINT_BITS = 4


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
    "circle": (("", (_ellipse(0, 0, 0.48),)),),
    "square": (("", (_box(-0.42, -0.42, 0.42, 0.42),)),),
    "triangle": (("", (np.array([[0.0, -0.48], [0.46, 0.38], [-0.46, 0.38]]),)),),
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
        ("crown", (_ellipse(0, -0.2, 0.28), _ellipse(-0.2, 0.0, 0.23), _ellipse(0.2, 0.0, 0.23))),
    ),
}


def draw_background(rng: np.random.Generator, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Draws a dull greyish picture: a gradient, soft blobs and faint lines.

    Args:
        rng: source of randomness.
        size: side in pixels.
    """
    level, slopes = 75 + 110 * rng.random(), 60 * (rng.random(2) - 0.5)
    steps = np.linspace(-0.5, 0.5, 9, dtype=np.float32)
    coarse = level + slopes[0] * steps[:, None, None] + slopes[1] * steps[None, :, None]
    coarse = (
        coarse + 16 * (rng.random(3) - 0.5) + 34 * (rng.random((9, 9, 1)) - 0.5) + 10 * rng.random((9, 9, 3))
    )
    image = cv2.resize(coarse.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    image = np.clip(image, 0, 255).astype(np.uint8)
    lines = (rng.random((2 + int(4 * rng.random()), 5)) * [size, size, size, size, 1]).tolist()
    for x0, y0, x1, y1, shade in lines:
        grey = level + 50 * (shade - 0.5)
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
    scale, shift = (
        plan.side * 2**_FIXED_POINT_BITS,
        np.array([plan.x - 0.5, plan.y - 0.5]) * 2**_FIXED_POINT_BITS,
    )

    whole = np.zeros((height, width), np.uint8)
    parts: dict[str, np.ndarray] = {}
    for part, polygons in _OUTLINES[plan.category]:
        colour = _PART_COLOURS.get(part, COLOURS[plan.colour])
        colour = tuple(
            min(255.0, max(0.0, c + j)) * (1 - fading) + 128 * fading
            for c, j in zip(colour, jitter, strict=True)
        )
        mask = np.zeros((height, width), np.uint8)
        for polygon in polygons:
            points = np.rint(polygon @ turn * scale + shift).astype(np.int32)[None]
            cv2.fillPoly(mask, points, 1, shift=_FIXED_POINT_BITS)
            cv2.fillPoly(image, points, colour, shift=_FIXED_POINT_BITS)
        for below in parts.values():
            below[mask > 0] = 0
        whole |= mask
        parts[part] = mask
    if plan.texture in ("striped", "dotted"):
        pattern = _draw_pattern(plan, height, numbers[5:]) & whole
        light = tuple(0.3 * c + 0.7 * 255 for c in colour)
        image[pattern > 0] = light
    if plan.salient:
        ring = (
            cv2.dilate(whole, np.ones((3, 3), np.uint8), iterations=max(1, round(2 * height / 96))) & ~whole
        )
        image[ring > 0] = (255, 255, 255)
    return SceneObject(**vars(plan), mask=whole, parts={} if plan.texture else parts)


def _draw_pattern(plan: ObjectPlan, size: int, numbers: list[float]) -> UInt8[np.ndarray, "size size"]:
    """Returns 1 where stripes or dots fall, over the object's box.

    Args:
        plan: the object.
        size: side of the picture in pixels.
        numbers: three numbers from 0 to 1: direction and phase.
    """
    pattern = np.zeros((size, size), np.uint8)
    unit = size / 96
    fixed = 2**_FIXED_POINT_BITS
    reach = 0.75 * plan.side
    if plan.texture == "striped":
        angle, period = math.pi * numbers[0], 6.5 * unit
        along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
        for step in range(-math.ceil(reach / period), math.ceil(reach / period) + 1):
            offset = (step + numbers[1]) * period
            corners = [
                (
                    plan.x - 0.5 + (offset + side) * across[0] + end * along[0],
                    plan.y - 0.5 + (offset + side) * across[1] + end * along[1],
                )
                for side, end in ((0, -reach), (0, reach), (0.36 * period, reach), (0.36 * period, -reach))
            ]
            points = np.rint(np.array(corners) * fixed).astype(np.int32)[None]
            cv2.fillPoly(pattern, points, 1, shift=_FIXED_POINT_BITS)
        return pattern
    period, radius = 7.5 * unit, 1.7 * unit
    count = math.ceil(reach / period)
    for row in range(-count, count + 1):
        for column in range(-count, count + 1):
            x = plan.x - 0.5 + (column + 0.5 * (row % 2) + 0.5 * numbers[0]) * period
            y = plan.y - 0.5 + (row + 0.5 * numbers[1]) * period
            centre = (round(x * fixed), round(y * fixed))
            cv2.circle(pattern, centre, round(radius * fixed), 1, -1, shift=_FIXED_POINT_BITS)
    return pattern
