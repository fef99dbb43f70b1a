"""Results for people: a table on the terminal, pictures of predictions."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from unilseg_jax.evaluation.evaluator import Example
from unilseg_jax.evaluation.pictures import errors, paint

TILE = 192  # px, side of a drawn picture


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
    console.print("shuffled: oIoU when pictures are asked with the phrases of other pictures")


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _tile(example: Example, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> Image.Image:
    """Draws one example: hits, misses and surplus over the picture, phrase and IoU below."""
    triplet = example.triplet
    target = triplet.mask(example.phrase) > 0
    picture = paint(triplet.image, errors(example.prediction, target), TILE, enlarge=True)
    image = Image.fromarray(picture)
    tile = Image.new("RGB", (TILE + 8, TILE + 44), "white")
    tile.paste(image, (4 + (TILE - image.width) // 2, 4 + (TILE - image.height) // 2))
    draw = ImageDraw.Draw(tile)
    words, lines = triplet.phrases[example.phrase].split(), [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) > TILE and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    draw.text((4, TILE + 6), "\n".join(lines[:2]), fill="black", font=font, spacing=1)
    verdict = (
        f"IoU {example.iou:.2f}"
        if target.any()
        else ("nothing, right" if not example.prediction.any() else "nothing is there")
    )
    draw.text((4, TILE + 31), verdict, fill=(90, 90, 90), font=font)
    return tile


def draw_examples(path: Path, examples: Sequence[Example], columns: int = 6) -> None:
    """Writes a sheet of judged phrases: green is right, blue was missed, red is surplus.

    Args:
        path: PNG to write.
        examples: in the order to be drawn.
        columns: tiles per row.
    """
    font = ImageFont.load_default(size=11)
    tiles = [_tile(example, font) for example in examples]
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * width, index // columns * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.png")
    sheet.save(partial)
    partial.replace(path)
