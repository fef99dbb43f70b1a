"""Reads the files of downloaded data sets; whatever is wrong with one is a `UserError` that names it."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.stored_pictures import MAX_PIXELS, decode_image
from unilseg_jax.input_pipeline.triplet import is_utf8
from unilseg_jax.input_pipeline.whole_jpeg import check_whole


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


_NOTED: ContextVar[set[Path] | None] = ContextVar("noted files", default=None)


@contextlib.contextmanager
def noted_files() -> Iterator[set[Path]]:
    """Gathers the paths of the files that are read in the block."""
    paths: set[Path] = set()
    token = _NOTED.set(paths)
    try:
        yield paths
    finally:
        _NOTED.reset(token)


def note(path: Path) -> None:
    """Notes a file that is read in another way than with `read_bytes`."""
    if (noted := _NOTED.get()) is not None:
        noted.add(Path(path))


def read_bytes(path: Path, what: str = "file") -> bytes:
    """Returns a file's content.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    note(path)
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
    check_whole(encoded)
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
    return _read_drawing(path, size, _LABEL_MAP, lambda picture: np.asarray(picture).astype(np.int64))


def read_mask(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Reads a drawn mask as grey levels, 0 to 255, whatever the mode of its file.

    Colours, also those of a palette, count by their brightness; what is transparent is black.

    Args:
        path: of the file.
        size: height and width of its picture.

    Raises:
        UserError: it is missing, broken, of more than 8 bits, or of another size.
    """
    return _read_drawing(path, size, _MASK, _grey_levels)


class _Drawing(NamedTuple):
    """What a drawn file may be."""

    name: str
    formats: tuple[str, ...]
    modes: tuple[str, ...]
    wanted: str


_LABEL_MAP = _Drawing("label map", ("PNG", "TIFF", "BMP"), ("1", "L", "P", "I", "I;16"), "one channel of labels")
_MASK = _Drawing(
    "mask", ("PNG", "TIFF", "BMP", "JPEG"), ("1", "L", "LA", "P", "PA", "RGB", "RGBA"), "grey or colours of 8 bits"
)


def _read_drawing(
    path: Path, size: tuple[int, int], kind: _Drawing, to_array: Callable[[Image.Image], np.ndarray]
) -> np.ndarray:
    encoded = read_bytes(path, kind.name)
    try:
        with Image.open(io.BytesIO(encoded), formats=kind.formats) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise UserError(f"the {kind.name} says to be {picture.width} × {picture.height}, which is too large")
            if picture.mode not in kind.modes:
                raise UserError(f"the {kind.name} has mode {picture.mode}; {kind.wanted} is wanted")
            drawn = to_array(picture)
        check_whole(encoded, kind.name)
    except UserError:
        raise
    # Pillow reports broken files by many classes.
    except Exception as error:
        raise UserError(f"the {kind.name} {_shown(path)} is broken: {str(error) or type(error).__name__}") from None
    if drawn.shape != tuple(size):
        raise UserError(f"the {kind.name} is {drawn.shape[0]} × {drawn.shape[1]}, its picture {size[0]} × {size[1]}")
    return drawn


def _grey_levels(picture: Image.Image) -> np.ndarray:
    if picture.mode in ("1", "L") and "transparency" not in picture.info:
        return np.asarray(picture.convert("L"))
    black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
    return np.asarray(Image.alpha_composite(black, picture.convert("RGBA")).convert("L"))


class Listing(NamedTuple):
    """The files of a folder.

    Attributes:
        files: by stem, in the order of the stems.
        faults: name and reason of those that are left out.
    """

    files: dict[str, Path]
    faults: list[tuple[str, str]]


def list_files(folder: Path, endings: tuple[str, ...], *, nested: bool = False) -> Listing:
    """Lists a folder's files by stem; hidden ones are passed over.

    Args:
        folder: to be listed.
        endings: of the names, in lower case with the dot; case does not matter.
        nested: looks into the folder's own folders as well.

    Raises:
        UserError: the folder is missing or cannot be read.
    """
    try:
        folders = [folder, *(path for path in folder.iterdir() if nested and path.is_dir())]
        paths = [path for part in folders for path in part.iterdir() if path.suffix.lower() in endings]
    except OSError as error:
        raise UserError(f"the folder {_shown(folder)} is not read: {error.strerror or error}") from None
    listing = Listing({}, [])
    for path in sorted(paths, key=lambda path: (path.stem, path)):
        name = shown_name(path)
        if path.name.startswith("."):
            continue
        if name != path.name:
            listing.faults.append((name, "the file's name is not UTF-8"))
        elif path.stem in listing.files:
            listing.faults.append((name, f"a second file of the stem {path.stem!r}; the first one is kept"))
        else:
            listing.files[path.stem] = path
    return listing


def read_lines(path: Path, what: str) -> list[str]:
    """Returns the lines of a text file without the blanks around them; empty ones are left out.

    A byte that is not UTF-8 spoils its line and not the file: it becomes half of a surrogate pair, which
    `plain_name` refuses and `triplet.is_utf8` tells.

    Raises:
        UserError: it is missing.
    """
    lines = read_bytes(path, what).decode("utf-8-sig", "surrogateescape").splitlines()
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
        UserError: it is no text, not UTF-8, or would lead out of its folder.
    """
    if isinstance(name, str) and not is_utf8(name):
        raise UserError(f"the {what}'s name {name!r} is not UTF-8")
    if not isinstance(name, str) or not name or name in (".", "..") or set(name) & {"/", "\\", "\0"}:
        raise UserError(f"the {what}'s name is {name!r}, a plain file name is wanted")
    return name


def shown_name(path: Path) -> str:
    """Returns the last part of a path as text; bytes that are not UTF-8 become escapes."""
    # Such a name comes with surrogates, which could be neither printed nor written.
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")


def _shown(path: Path) -> str:
    # Half of a surrogate pair that stands for no byte, as JSON can name it, is in no file's name.
    return repr(str(path).encode("utf-8", "backslashreplace").decode())
