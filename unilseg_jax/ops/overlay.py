"""Draws masks over their picture, with the phrases as a legend below."""

import colorsys
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

_TINT = 0.5
# Distinct also to colour-blind eyes; further colours are spread over the hues.
_COLOURS = ((230, 60, 40), (30, 120, 220), (245, 190, 20), (20, 160, 100), (200, 90, 190), (90, 200, 240))
_GOLDEN = 0.61803
_LEAST_WIDTH = 320
_ENLARGED_SIDE = 4 * _LEAST_WIDTH


def colour_of(prompt: int) -> tuple[int, int, int]:
    """Returns the RGB colour of prompt number `prompt`."""
    if prompt < len(_COLOURS):
        return _COLOURS[prompt]
    hue = (prompt * _GOLDEN) % 1.0
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 0.9))


def tint(
    image: UInt8[np.ndarray, "h w 3"], masks: Bool[np.ndarray, "p h w"], line: int = 2
) -> UInt8[np.ndarray, "h w 3"]:
    """Tints each mask in its prompt's colour and draws its outline; the last prompts lie on top.

    Args:
        image: RGB.
        masks: one per prompt, at the picture's size.
        line: width of the outlines in pixels.
    """
    out = image.copy()
    for prompt, mask in enumerate(masks):
        # A table of all levels: arithmetic on the pixels themselves takes many times their memory.
        levels = (1 - _TINT) * np.arange(256)[:, None] + _TINT * np.array(colour_of(prompt))
        np.copyto(out, cv2.LUT(out, levels.round().astype(np.uint8)[None]), where=mask[..., None])
    for prompt, mask in enumerate(masks):
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, outlines, -1, colour_of(prompt), line)
    return out


def font_for(texts: Iterable[str], size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Returns a font with the letters of `texts`; the default one has those of English alone.

    Args:
        texts: to be drawn; of Chinese, Japanese, Korean and Indian letters stays a box each.
        size: in pixels.
    """
    if all(text.isascii() for text in texts):
        return ImageFont.load_default(size=size)
    import matplotlib  # here: it takes a while, and has the font

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """Returns `text` on one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def legend(
    phrases: Sequence[str],
    notes: Sequence[str],
    width: int,
    text_size: int,
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> UInt8[np.ndarray, "h2 {width} 3"]:
    """Returns a strip with a line per prompt: its colour, its phrase, and a note in brackets.

    Args:
        phrases: one per prompt.
        notes: one per prompt, "" for none.
        width: of the strip, in pixels.
        text_size: in pixels.
        colours: RGB, one per prompt; None takes `colour_of` the prompt's number.
    """
    colours = [colour_of(prompt) for prompt in range(len(phrases))] if colours is None else colours
    font = font_for([*phrases, *notes], text_size)
    step, margin = round(1.6 * text_size), round(0.4 * text_size)
    strip = Image.new("RGB", (width, step * len(phrases) + 2 * margin), "white")
    draw = ImageDraw.Draw(strip)
    left = 2 * margin + text_size
    for prompt, (phrase, note) in enumerate(zip(phrases, notes, strict=True)):
        top = margin + prompt * step + (step - text_size) // 2
        draw.rectangle((margin, top, margin + text_size, top + text_size), colours[prompt], "black")
        note = f"  ({note})" if note else ""
        room = width - left - margin - font.getlength(note)
        middle = top + text_size / 2
        words = _fitted(phrase, font, room)
        draw.text((left, middle), words, fill="black", font=font, anchor="lm")
        if note:
            draw.text((left + font.getlength(words), middle), note, fill=(130, 130, 130), font=font, anchor="lm")
    return np.asarray(strip)


def draw_overlay(
    image: UInt8[np.ndarray, "h w 3"], masks: Bool[np.ndarray, "p h w"], phrases: Sequence[str]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Returns the picture with tinted masks and, below it, the phrases with their colours.

    A small picture is enlarged first, up to a width of 320 px and a height of at most 1280 px. A picture that is
    narrower than 320 px even so has white beside it, so that the phrases can be read.

    Args:
        image: RGB.
        masks: one per prompt, at the picture's size.
        phrases: one per prompt.
    """
    factor = min(-(-_LEAST_WIDTH // image.shape[1]), _ENLARGED_SIDE // image.shape[0])
    if factor > 1:
        image = image.repeat(factor, axis=0).repeat(factor, axis=1)
        masks = masks.repeat(factor, axis=1).repeat(factor, axis=2)
    width = image.shape[1]
    text_size = min(max(14, width // 40), 64)
    notes = ["" if mask.any() else "nothing found" for mask in masks]
    strip = legend(phrases, notes, max(width, _LEAST_WIDTH), text_size)
    picture = tint(image, masks, line=max(2, min(image.shape[:2]) // 250))
    right = strip.shape[1] - width
    picture = np.pad(picture, ((0, 0), (0, right), (0, 0)), constant_values=255)
    return np.concatenate([picture, strip])
