"""Reads the files of downloaded data sets; whatever is wrong with one is a `UserError` that names it."""

import io
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from PIL import Image

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.triplet import MAX_PIXELS, decode_image


class Picture(NamedTuple):
    """A picture file that was seen to decode.

    Attributes:
        encoded: the file's bytes.
        height: in pixels.
        width: in pixels.
    """

    encoded: bytes
    height: int
    width: int


def read_bytes(path: Path, what: str = "file") -> bytes:
    """Returns a file's content.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    # A name with a zero byte is a ValueError.
    except (OSError, ValueError) as error:
        raise UserError(f"the {what} {_shown(path)} is not read: {getattr(error, 'strerror', None) or error}") from None


def read_picture(path: Path, size: tuple[object, object] | None = None) -> Picture:
    """Reads a picture and decodes it once, so that no broken one reaches a record.

    Args:
        path: of the file.
        size: height and width that the annotations speak of; None takes the picture's own.

    Raises:
        UserError: it is missing, broken, too large, or of another size.
    """
    return check_picture(read_bytes(path, "picture"), size)


def check_picture(encoded: bytes, size: tuple[object, object] | None = None) -> Picture:
    """Decodes a picture that is in memory, say out of an archive; see `read_picture`."""
    height, width = decode_image(encoded).shape[:2]
    if size is not None and (height, width) != tuple(size):
        raise UserError(f"the picture is {height} × {width}, its annotations say {size[0]} × {size[1]}")
    return Picture(encoded, height, width)


def read_label_map(path: Path, size: tuple[int, int]) -> Int64[np.ndarray, "h w"]:
    """Reads a PNG of labels: one channel, or a palette whose indices are the labels.

    Args:
        path: of the file.
        size: height and width of its picture.

    Raises:
        UserError: it is missing, broken, has colours instead of labels, or is of another size.
    """
    encoded = read_bytes(path, "label map")
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "TIFF", "BMP")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise UserError(f"the label map says to be {picture.width} × {picture.height}, which is too large")
            if picture.mode not in ("1", "L", "P", "I", "I;16"):
                raise UserError(f"the label map has mode {picture.mode}; one channel of labels is wanted")
            labels = np.asarray(picture).astype(np.int64)
    except UserError:
        raise
    # Pillow reports broken files by many classes.
    except Exception as error:
        raise UserError(f"the label map {_shown(path)} is broken: {str(error) or type(error).__name__}") from None
    if labels.shape != tuple(size):
        raise UserError(f"the label map is {labels.shape[0]} × {labels.shape[1]}, its picture {size[0]} × {size[1]}")
    return labels


def read_json(path: Path, what: str) -> object:
    """Parses a JSON file.

    Args:
        path: of the file.
        what: names it in the message ("annotation file").

    Raises:
        UserError: it is missing or no JSON.
    """
    try:
        return json.loads(read_bytes(path, what))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"the {what} {_shown(path)} is no JSON ({error})") from None


def read_lines(path: Path, what: str) -> list[str]:
    """Returns the lines of a text file without the blanks around them; empty ones are left out.

    Raises:
        UserError: it is missing or not UTF-8.
    """
    try:
        lines = read_bytes(path, what).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"the {what} {_shown(path)} is not UTF-8 ({error})") from None
    return [line.strip() for line in lines if line.strip()]


def first_folder(raw: Path, names: tuple[str, ...], what: str) -> Path:
    """Returns the first of several folders that is there; data sets are unpacked in more than one way.

    Args:
        raw: the raw folder.
        names: relative to it, the most usual first.
        what: names it in the message ("pictures").

    Raises:
        UserError: none of them is there.
    """
    for name in names:
        if (raw / name).is_dir():
            return raw / name
    raise UserError(f"no folder of {what} in {str(raw)!r}: looked for {', '.join(names)}")


def plain_name(name: object, what: str = "file") -> str:
    """Returns a name that comes out of an annotation file, if it is one.

    Raises:
        UserError: it is no text, or would lead out of its folder.
    """
    if not isinstance(name, str) or not name or name in (".", "..") or set(name) & {"/", "\\", "\0"}:
        raise UserError(f"the {what}'s name is {name!r}, a plain file name is wanted")
    return name


def _shown(path: Path) -> str:
    # A name that is not UTF-8 comes with surrogates, which could be neither printed nor written.
    return repr(os.fsencode(path).decode("utf-8", "backslashreplace"))
