"""A contact sheet of a prepared data set: pictures with their masks in colours and the phrases as legend.

It is there to be looked at after a conversion: each mask must lie on what its phrases say.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from unilseg_jax.input_pipeline.sources import TripletSource
from unilseg_jax.input_pipeline.triplet import NOTHING, UNKNOWN, Triplet
from unilseg_jax.ops.overlay import colour_of, legend, tint

TILE = 400  # px, longer side of a picture, and width of its legend
GAP = 8  # px between tiles
COLUMNS = 4
LINES = 14  # of a legend; how many more there are stands in its last one
TEXT = 13  # px
GREY, WHITE = (150, 150, 150), (255, 255, 255)
NOTES = {NOTHING: "matches nothing", UNKNOWN: "mask not published"}


def spread(length: int, count: int) -> list[int]:
    """Returns up to `count` numbers below `length`, evenly spread, in rising order."""
    if count >= length:
        return list(range(length))
    return [(2 * number + 1) * length // (2 * count) for number in range(count)]


def write_sheet(path: Path, source: TripletSource, numbers: Sequence[int]) -> None:
    """Draws records of a source as a sheet; the file gets its name when it is whole.

    Args:
        path: PNG to write; its folder is made if missing.
        source: a split of a prepared data set.
        numbers: of the records, in the order to be drawn; at least one.

    Raises:
        UserError: a record is broken.
    """
    tiles = []
    for number in numbers:
        categories = [name.decode() for name in source.record(number)["mask_categories"]]
        tiles.append(draw_record(source[number], categories))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    Image.fromarray(_sheet(tiles)).save(partial, "PNG")
    partial.replace(path)


def draw_record(triplet: Triplet, categories: Sequence[str]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Draws one record: larger masks lie under smaller ones, so that a part is seen on its whole.

    Args:
        triplet: the record, decoded.
        categories: of its masks; they stand in brackets where a mask has no phrase.
    """
    order = sorted(range(len(triplet.masks)), key=lambda mask: -int(triplet.masks[mask].sum()))
    colours = {mask: colour_of(place) for place, mask in enumerate(order)}
    image, masks = _scaled(triplet.image, triplet.masks[order] > 0)
    title = f"{triplet.image_id}: masks: {len(masks)}, phrases: {len(triplet.phrases)}"
    lines = _lines(triplet, categories)
    shown = lines if len(lines) <= LINES else lines[: LINES - 1]
    notes = [NOTES.get(mask, "") for _, mask in shown]
    texts = [title, *(text for text, _ in shown)]
    boxes = [WHITE, *(colours.get(mask, GREY) for _, mask in shown)]
    if len(shown) < len(lines):
        texts, boxes, notes = [*texts, f"and {len(lines) - len(shown)} more"], [*boxes, WHITE], [*notes, ""]
    strip = legend(texts, ["", *notes], TILE, TEXT, boxes)
    picture = tint(image, masks, line=1)
    left = (TILE - picture.shape[1]) // 2
    sides = (left, TILE - picture.shape[1] - left)
    return np.concatenate([np.pad(picture, ((0, 0), sides, (0, 0)), constant_values=255), strip])


def _lines(triplet: Triplet, categories: Sequence[str]) -> list[tuple[str, int]]:
    """Returns the legend's texts with their masks: first one phrase of every mask, then their second ones, ..."""
    turns: Counter[int] = Counter()
    lines = []
    for text, mask in zip(triplet.phrases, triplet.mask_index, strict=True):
        # Phrases without a mask all come in the first turn.
        lines.append((turns[mask] if mask >= 0 else 0, text, mask))
        turns[mask] += 1
    unnamed = [mask for mask in range(len(triplet.masks)) if not turns[mask]]
    lines += [(0, f"[{categories[mask] or 'no phrase'}]", mask) for mask in unnamed]
    return [(text, mask) for _, text, mask in sorted(lines, key=lambda line: line[0])]


def _scaled(
    image: UInt8[np.ndarray, "h w 3"], masks: Bool[np.ndarray, "m h w"]
) -> tuple[UInt8[np.ndarray, "h2 w2 3"], Bool[np.ndarray, "m h2 w2"]]:
    """Brings a picture's longer side to `TILE` pixels, and its masks with it."""
    scale = TILE / max(image.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    out = np.zeros((len(masks), *small.shape[:2]), bool)
    for number, mask in enumerate(masks):
        out[number] = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return small, out


def _sheet(tiles: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """Puts tiles of one width in rows; a row is as high as its highest tile."""
    columns = min(COLUMNS, len(tiles))
    rows = []
    for start in range(0, len(tiles), columns):
        row = tiles[start : start + columns]
        height = max(tile.shape[0] for tile in row) + GAP
        strip = np.full((height, columns * (TILE + GAP), 3), 255, np.uint8)
        for number, tile in enumerate(row):
            strip[: tile.shape[0], number * (TILE + GAP) :][:, :TILE] = tile
        rows.append(strip)
    return np.concatenate(rows)
