"""Results for people: a table on the terminal, pictures of predictions."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from unilseg_jax.evaluation.evaluator import Example
from unilseg_jax.evaluation.pictures import HIT, MISSED, SURPLUS, errors, paint, shrink
from unilseg_jax.ops.overlay import font_for

TILE = 192  # px, side of a drawn picture
KEY = 24  # px, height of the line that says what the colours mean
LINE, CAPTION = 14, 66  # px, of a line below a picture, and of all of them with the gap to the next row


def without_nan(value):
    """Returns nested results with None in place of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_summary(summary: dict) -> None:
    """Prints a table per evaluation: a row for all phrases, one per kind, shuffled phrases beside them."""
    console = Console()
    for name, results in summary["evals"].items():
        honest, shuffled = results["honest"], results.get("shuffled")
        title = f"{name} after {summary['steps']} steps, {summary['training_seconds']:.0f} s of training"
        if results.get("leakage") == "paper":
            title += f"; leakage=paper: {results['leakage_trained_on']} training pictures are in it"
        if "leakage_inherited" in results:
            title += f"; leakage inherited: first weights saw {results['leakage_inherited']} pictures of benchmarks"
        table = Table(title=title)
        table.add_column("phrases")
        columns = ["count", "oIoU", "mIoU", "P@0.5", "P@0.9", "empty"]
        for column in columns + (["shuffled"] if shuffled else []):
            table.add_column(column, justify="right")
        for kind in ("all", *honest["kinds"]):
            row = honest["all"] if kind == "all" else honest["kinds"][kind]
            cells = [f"{row['count']}"]
            cells += [_number(row[key]) for key in ("oiou", "miou", "pr_at_50", "pr_at_90", "nothing_found")]
            if shuffled:
                other = shuffled["all"] if kind == "all" else shuffled["kinds"][kind]
                cells.append(_number(other["oiou"]))
            table.add_row(kind, *cells)
        console.print(table)
    console.print("empty: share of phrases for which nothing was found: right where they match nothing")
    if any("shuffled" in results for results in summary["evals"].values()):
        console.print("shuffled: oIoU when pictures are asked with the phrases of other pictures")


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"


def draw_examples(path: Path, examples: Sequence[Example], columns: int = 6) -> None:
    """Writes a sheet of judged phrases: pictures in the first column, their phrases in the others, on grey.

    Green is right, blue was missed, red is surplus.

    Args:
        path: PNG to write.
        examples: in the order to be drawn, those of a picture together.
        columns: tiles per row, at least 2; a picture with more phrases takes further rows.
    """
    captions = [text for each in examples for text in (each.triplet.image_id, *each.triplet.phrases)]
    font = font_for(captions, 11)
    rows: list[list[Image.Image | None]] = []
    for image_id, group in itertools.groupby(examples, key=lambda example: example.triplet.image_id):
        judged = list(group)
        first = _tile(shrink(judged[0].triplet.image, TILE, enlarge=True), image_id, "", font)
        tiles = [_judged_tile(example, font) for example in judged]
        for start in range(0, len(tiles), columns - 1):
            rows.append([None if start else first, *tiles[start : start + columns - 1]])
    width, height = TILE + 8, TILE + CAPTION
    sheet = Image.new("RGB", (columns * width, KEY + len(rows) * height), "white")
    _draw_key(sheet, font)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            if tile is not None:
                sheet.paste(tile, (column * width, KEY + row * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.png")
    sheet.save(partial)
    partial.replace(path)


def _draw_key(sheet: Image.Image, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> None:
    """Writes at the top of a sheet what its colours mean."""
    draw, left = ImageDraw.Draw(sheet), 4
    for colour, meaning in ((HIT, "right"), (MISSED, "missed"), (SURPLUS, "surplus")):
        draw.rectangle((left, 6, left + 12, 18), colour)
        draw.text((left + 18, 6), meaning, fill="black", font=font)
        left += 80


def _judged_tile(example: Example, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> Image.Image:
    """Draws one example: hits, misses and surplus over the grey picture, phrase and IoU below."""
    triplet = example.triplet
    target = triplet.mask(example.phrase) > 0
    if target.any():
        verdict = f"IoU {example.iou:.2f}"
    else:
        verdict = "wrong: nothing is there" if example.prediction.any() else "right: nothing is there"
    picture = paint(triplet.image, errors(example.prediction, target), TILE, enlarge=True, grey=True)
    return _tile(picture, triplet.phrases[example.phrase], verdict, font)


def _tile(
    picture: UInt8[np.ndarray, "h w 3"], text: str, note: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> Image.Image:
    """Puts two lines of text and a note below a picture of at most `TILE` pixels a side."""
    image = Image.fromarray(picture)
    tile = Image.new("RGB", (TILE + 8, TILE + CAPTION), "white")
    tile.paste(image, (4 + (TILE - image.width) // 2, 4 + TILE - image.height))
    draw = ImageDraw.Draw(tile)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) > TILE and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    top = TILE + 6
    for line, colour in (*((line, "black") for line in lines[:2]), (note, (90, 90, 90))):
        draw.text((4, top), line, fill=colour, font=font)
        top += LINE
    return tile
