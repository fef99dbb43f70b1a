"""Pictures for imitations of data sets: what their `synthetic.py` files draw before they write their own formats."""

import io

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image


def draw(
    rng: np.random.Generator, height: int, width: int, objects: int
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "n h w"]]:
    """Draws a picture with objects that do not touch: ellipses in columns of their own.

    Args:
        rng: decides.
        height: in pixels.
        width: in pixels, at least 12 per object.
        objects: how many.

    Returns:
        The picture, RGB, and a {0, 1} mask per object, from left to right.
    """
    # An uneven background, so that the perceptual hashes of two pictures differ.
    coarse = rng.integers(0, 80, (4, 4, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    image += rng.integers(0, 20, (height, width, 1), dtype=np.uint8)
    masks = np.zeros((objects, height, width), np.uint8)
    column = width / max(objects, 1)
    for number, mask in enumerate(masks):
        centre = (int((number + 0.5) * column), int(height * rng.uniform(0.4, 0.6)))
        axes = (int(column * rng.uniform(0.25, 0.4)), int(height * rng.uniform(0.2, 0.35)))
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, thickness=-1)
        image[mask > 0] = rng.integers(120, 256, 3)
    return image, masks


def jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Returns a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def polygon(mask: UInt8[np.ndarray, "h w"]) -> list[float]:
    """Returns the outline of a mask of one piece as COCO writes it: `[x0, y0, x1, y1, ...]` in pixels."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [float(value) for value in max(outlines, key=cv2.contourArea).reshape(-1)]
