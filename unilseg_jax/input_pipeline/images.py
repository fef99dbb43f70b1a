"""Reads a user's picture of any common kind as RGB, 0 to 255.

Differs: the released demo reads with OpenCV, which ignores transparency; here a transparent picture is laid
on white, as viewers show it. Whole numbers of more than 8 bits are scaled so that white becomes 255, and rounded.
White is 65535 in a file of 16 bits and 4095 in one of 12. No 32-bit picture says what its white is: if its
greatest value is at most 255, the values are taken as they are, else as 16 bits.
"""

import os
import struct
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from unilseg_jax.errors import UserError, checked_file

ImageSource = str | os.PathLike | Image.Image | np.ndarray
"""A path, a PIL image, or uint8 RGB of shape (h, w, 3)."""

MAX_PIXELS = 178_956_970
"""A picture that says to have more is refused as a decompression bomb; Pillow's own limit for an error."""
MAX_SIDE = 32_766
"""Pixels; OpenCV's warps count rows and columns in 16 bits."""

# By name: some other formats that Pillow reads run a foreign program (PostScript).
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO")
_BITS_PER_SAMPLE = 258  # TIFF's tag
# Pillow reports broken files by many classes.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    struct.error,
)


def read_image(image: ImageSource) -> UInt8[np.ndarray, "h w 3"]:
    """Returns RGB, 0 to 255, upright.

    The EXIF orientation is obeyed, transparency is laid on white, more than 8 bits are scaled to 8 (see the
    module's text for 32 bits); of an animation the first picture is taken. An array is taken as it is.

    Args:
        image: a path, a PIL image, or uint8 RGB of shape (h, w, 3).

    Raises:
        UserError: there is no such file, it is not a picture, is cut short, has no defined range of values,
            or is larger than `MAX_PIXELS` or `MAX_SIDE`; or an array is not uint8 (h, w, 3).
    """
    if isinstance(image, np.ndarray):
        _check_array(image)
        return np.ascontiguousarray(image)
    with warnings.catch_warnings():
        # Pillow warns at half its limit, and before it fails; we read, or refuse in one line.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        return _read(image)


def _read(image: str | os.PathLike | Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Does what `read_image` does, for what is not an array."""
    if isinstance(image, Image.Image):
        return _decode(image, "the PIL image")
    if not isinstance(image, str | os.PathLike):
        raise UserError(f"an image is a {type(image).__name__}; a path, a PIL image or a uint8 array is wanted")
    if not os.fspath(image):
        raise UserError("the path of the image is empty; name a picture")
    path = checked_file(image, "image")
    name = f"image {str(path)!r}"
    with _opened(path, name) as picture:
        return _decode(picture, name)


def _check_array(image: np.ndarray) -> None:
    """Refuses what is not uint8 (h, w, 3)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UserError(
            f"an image array is {image.dtype} of shape {image.shape}; uint8 RGB of shape (h, w, 3) is wanted"
        )
    _check_size(image.shape[1], image.shape[0], "the image array")


def _check_size(width: int, height: int, name: str) -> None:
    """Refuses what is too large to unpack or to warp."""
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{name} says to be {width} x {height} px, at most {MAX_PIXELS} pixels are read; shrink it first"
        )
    if max(width, height) > MAX_SIDE:
        raise UserError(f"{name} is {width} x {height} px, a side is at most {MAX_SIDE} px; shrink it first")


def _opened(path: Path, name: str) -> Image.Image:
    """Opens a file without unpacking its pixels."""
    try:
        return Image.open(path, formats=[each for each in _FORMATS if each in _known_formats()])
    except UnidentifiedImageError:
        raise UserError(f"{name} is not a picture that can be read (JPEG, PNG, WebP, TIFF, ...)") from None
    except Image.DecompressionBombError:
        raise UserError(
            f"{name} says to have more than {MAX_PIXELS} pixels (a decompression bomb?); shrink it first"
        ) from None
    except _BROKEN as error:
        raise UserError(f"{name} cannot be read: {_reason(error)}") from None


def _known_formats() -> list[str]:
    """Returns the formats that this build of Pillow has."""
    Image.init()
    return Image.ID


def _decode(picture: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Unpacks, turns upright and converts."""
    _check_size(*picture.size, name)
    if 0 in picture.size:
        raise UserError(f"{name} is empty ({picture.width} x {picture.height} px)")
    try:
        picture.load()
        white = white_of(picture)  # a picture that was turned does not tell
        return np.asarray(_to_rgb(to_8_bits(_upright(picture), white, name)))
    except UserError:
        raise
    except _BROKEN as error:
        raise UserError(f"{name} is broken or cut short: {_reason(error)}") from None


def _upright(picture: Image.Image) -> Image.Image:
    """Returns a copy that obeys the EXIF orientation; unreadable EXIF data are no reason to refuse a picture."""
    try:
        return ImageOps.exif_transpose(picture)
    except _BROKEN:
        return picture.copy()


def white_of(picture: Image.Image) -> int | None:
    """Returns the value that means white in a picture of whole numbers, as it was opened; None if it does not say."""
    bits = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (0,))[0]
    if bits == 12:
        return 4095
    # Some versions of Pillow hold 16 bits of a PNG in 32.
    return 65535 if bits == 16 or picture.mode != "I" or picture.format in ("PNG", "PPM") else None


def to_8_bits(picture: Image.Image, white: int | None, name: str) -> Image.Image:
    """Returns a picture of more than 8 bits as one of 8: Pillow's own conversion clips at 255 instead of scaling.

    Args:
        picture: of any mode; one of 8 bits or fewer is returned as it is.
        white: see `white_of`; None finds it by the greatest value.
        name: for the message.

    Raises:
        UserError: the range of its values is not known.
    """
    if picture.mode == "F":
        raise UserError(f"{name} has floating-point pixels without a defined range; 8 or 16 bits are wanted")
    if picture.mode != "I" and not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture).astype(np.int32)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UserError(f"{name} has values {low} to {high}; 8 or 16 bits are wanted, scale it first")
    if white is None:
        white = 255 if high <= 255 else 65535
    grey = ((values * 255 + white // 2) // white).clip(max=255).astype(np.uint8)
    if "transparency" in picture.info:
        grey[values == picture.info["transparency"]] = 255
    return Image.fromarray(grey)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Converts a picture of at most 8 bits, of any mode."""
    if picture.has_transparency_data:
        clear = picture.info.get("transparency")
        if picture.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:
            # A PNG of 16 bits, of which Pillow keeps the upper 8 of the pixels, but not of this colour.
            picture.info["transparency"] = tuple(part >> 8 for part in clear)
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _reason(error: BaseException) -> str:
    """Returns an error's first line, or its class if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
