"""From the visit of a picture to the network's input, in stages; only uint8 pictures and masks leave them.

| stage | takes | gives |
|---|---|---|
| `DrawPhrases` (random) | `Visit` | `Asked`: one phrase for each object |
| `Decode` | `Asked` | `Shown`: the picture, and only the masks that were asked for |
| `Flip` (random, off by default) | `Shown` | `Shown`: left and right swapped, in the phrases too |
| `ToSquare` | `Shown` | `Shown`: at the network's size |
| `HideAndSeek` (random, where the visit says so) | `Shown` | `Shown`: patches filled with the mean colour |
| `Tokenize` | `Shown` | the arrays that are put into a batch |

Differs: the paper names hide-and-seek without its grid; here it is a key of the config.
"""

import contextlib
import dataclasses
import io

import cv2
import grain
import numpy as np
import simplejpeg
from jaxtyping import Bool, UInt8

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.stored_pictures import MAX_PIXELS, decode_image
from unilseg_jax.input_pipeline.triplet import Triplet
from unilseg_jax.input_pipeline.visits import Asked, DrawPhrases, text_of
from unilseg_jax.ops.geometry import PIXEL_MEAN, RESIZES
from unilseg_jax.ops.masks import rle_to_mask
from unilseg_jax.text.tokenizer import tokenize

MEAN_COLOUR = tuple(round(255 * mean) for mean in PIXEL_MEAN)
"""What a hidden patch is filled with, RGB: zero after normalisation, up to rounding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """A decoded picture with its phrases.

    Attributes:
        image: RGB, 0 to 255.
        phrases: p raw texts.
        masks: {0, 1}, one per phrase; where the phrase matches nothing, all zeros or, before `ToSquare`, None.
        valid: false for repeats that only fill up.
        hide: whether patches are hidden.
    """

    image: UInt8[np.ndarray, "h w 3"]
    phrases: tuple[str, ...]
    masks: list[UInt8[np.ndarray, "h w"] | None]
    valid: Bool[np.ndarray, " p"]
    hide: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decode(grain.transforms.Map):
    """Decodes the picture, and of its masks those that were asked for."""

    def map(self, element: Asked) -> Shown:
        """Returns the decoded picture.

        Raises:
            UserError: the picture or a mask is broken; its record is named.
        """
        picture = element.picture
        if isinstance(picture, Triplet):
            image, found = picture.image, {mask: picture.masks[mask] for mask in set(element.masks) if mask >= 0}
        else:
            try:
                image = decode_stored(_encoded(picture["image"]))
                size = (int(picture["height"]), int(picture["width"]))
                if image.shape[:2] != size:
                    found = f"{image.shape[0]} × {image.shape[1]}"
                    raise UserError(f"the picture is {found}, its record says {size[0]} × {size[1]}")
                wanted = {mask for mask in element.masks if mask >= 0}
                found = {mask: rle_to_mask(text_of(picture["masks"][mask]).encode(), *size) for mask in wanted}
            except UserError as error:
                name = f"picture {text_of(picture['image_id'])!r} of {text_of(picture['source'])}"
                raise UserError(f"{name}: {error}") from None
        masks = [found.get(mask) for mask in element.masks]
        return Shown(image=image, phrases=element.phrases, masks=masks, valid=element.valid, hide=element.hide)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip(grain.transforms.RandomMap):
    """Mirrors pictures; in their phrases left and right change places.

    Attributes:
        probability: 0 to 1.
    """

    probability: float

    def random_map(self, element: Shown, rng: np.random.Generator) -> Shown:
        """Returns the picture or its mirror image."""
        if rng.random() >= self.probability:
            return element
        return mirrored(element)


def mirrored(element: Shown) -> Shown:
    """Returns the mirror image, with phrases that fit it."""
    from unilseg_jax.text.prompts import flip_sides

    return dataclasses.replace(
        element,
        image=cv2.flip(element.image, 1),
        masks=[None if mask is None else cv2.flip(mask, 1) for mask in element.masks],
        phrases=tuple(flip_sides(text) for text in element.phrases),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToSquare(grain.transforms.Map):
    """Brings picture and masks to the network's square.

    Attributes:
        size: side of the square in pixels.
        resize: a key of `geometry.RESIZES`: "stretch" (paper) or "letterbox" (as released).
    """

    size: int
    resize: str

    def map(self, element: Shown) -> Shown:
        """Returns the square picture with square masks."""
        resize = RESIZES[self.resize]
        done: dict[int, np.ndarray | None] = {}  # repeats share their mask
        for mask in element.masks:
            if id(mask) not in done:
                empty = mask is None
                square = np.zeros((self.size,) * 2, np.uint8) if empty else resize.mask_to_square(mask, self.size)
                done[id(mask)] = square
        masks = [done[id(mask)] for mask in element.masks]
        return dataclasses.replace(element, image=resize.to_square(element.image, self.size), masks=masks)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HideAndSeek(grain.transforms.RandomMap):
    """Hides patches of the square picture; what is asked for stays as it was.

    Attributes:
        grid: patches per side.
        probability: of each patch to be hidden.
    """

    grid: int
    probability: float

    def random_map(self, element: Shown, rng: np.random.Generator) -> Shown:
        """Returns the picture with patches filled with the mean colour, if its visit says so."""
        if not element.hide:
            return element
        hidden = rng.random((self.grid, self.grid)) < self.probability
        size = element.image.shape[0]
        patch = np.arange(size) * self.grid // size  # of each row and column
        image = element.image.copy()
        image[hidden[patch[:, None], patch[None]]] = MEAN_COLOUR
        return dataclasses.replace(element, image=image)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenize(grain.transforms.Map):
    """Turns phrases into tokens and gathers the arrays.

    Attributes:
        word_len: tokens per phrase.
    """

    word_len: int

    def map(self, element: Shown) -> dict[str, np.ndarray]:
        """Returns `image` (s, s, 3) uint8, `tokens` (p, l) int32, `mask` (p, s, s) uint8, `valid` (p,) bool."""
        return {
            "image": element.image,
            "tokens": tokenize(element.phrases, self.word_len, warn=False),
            "mask": np.stack([mask for mask in element.masks if mask is not None]),  # all are, once square
            "valid": element.valid,
        }


def make_stages(
    *,
    size: int,
    prompts: int,
    word_len: int,
    resize: str,
    flip: float = 0.0,
    hide_grid: int = 16,
    hide_probability: float = 0.2,
) -> tuple[grain.transforms.Map | grain.transforms.RandomMap, ...]:
    """Returns the stages of the module's table; the arguments are their attributes.

    Flipping is left out at probability 0.
    """
    stages = (
        DrawPhrases(prompts=prompts),
        Decode(),
        Flip(probability=flip) if flip else None,
        ToSquare(size=size, resize=resize),
        HideAndSeek(grid=hide_grid, probability=hide_probability),
        Tokenize(word_len=word_len),
    )
    return tuple(stage for stage in stages if stage is not None)


def decode_stored(encoded: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a picture that was seen to decode when its record was written; see `stored_pictures.decode_image`.

    The usual JPEG goes through libjpeg-turbo at once: the same pixels, in half the time or less. What it warns of, and
    JPEGs of other colours, go the slow way.

    Raises:
        UserError: it is broken after all.
    """
    if encoded.startswith(b"\xff\xd8\xff"):
        # A number of colours that it does not know: KeyError.
        with contextlib.suppress(ValueError, KeyError):
            height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
            if colours in ("YCbCr", "Gray") and height * width <= MAX_PIXELS:
                return simplejpeg.decode_jpeg(encoded, "RGB", strict=True)
    return decode_image(encoded)


def _encoded(value: bytes | io.BytesIO) -> bytes:
    return value.getvalue() if isinstance(value, io.BytesIO) else bytes(value)
