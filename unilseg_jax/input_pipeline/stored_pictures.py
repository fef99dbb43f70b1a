"""The encoded pictures of data sets and of records: from their bytes to RGB, 0 to 255."""

import io
import struct

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.images import to_8_bits, white_of

# 2**26 pixels are far above every data set's pictures; what says more in its header is a decompression bomb.
MAX_PIXELS = 1 << 26


def decode_image(encoded: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a data set's picture as its annotators saw it: RGB, an EXIF orientation is not applied.

    Masks are drawn on the stored pixels; turning the picture would part it from them. Grey levels of 16 bits are
    scaled to 8, as for a user's picture (`images.read_image`).

    Args:
        encoded: a JPEG, PNG, WebP or BMP file.

    Raises:
        UserError: it is none of these, is cut short, says to have more than `MAX_PIXELS` pixels, or has pixels
            whose range is not known.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG", "WEBP", "BMP")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                size = f"{picture.width} × {picture.height}"
                raise UserError(f"the picture says to be {size}, at most {MAX_PIXELS} pixels are wanted")
            return np.asarray(to_8_bits(picture, white_of(picture), "the picture").convert("RGB"))
    except UnidentifiedImageError:
        raise UserError("the picture is no JPEG, PNG, WebP or BMP file") from None
    # Pillow reports broken files by many classes: OSError, SyntaxError (PNG), ValueError, struct.error.
    except UserError:
        raise
    except (Image.DecompressionBombError, struct.error, OSError, SyntaxError, ValueError, LookupError) as error:
        raise UserError(f"the picture is broken: {error}") from None
