"""The zip of masks that the server of Ref-YouTube-VOS takes.

One top folder, `Annotations/<video>/<expression id>/<frame>.png`; a PNG is grey (mode L), 0 or 255, of the frame's own
size. Names come from `meta_expressions.json`: keys of videos and expressions, and names of frames.
"""

import contextlib
import io
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from PIL import Image

from unilseg_jax.errors import UserError, checked_file
from unilseg_jax.input_pipeline.raw_files import plain_name
from unilseg_jax.interop.output import written_whole

TOP = "Annotations"
_DATE = (1980, 1, 1, 0, 0, 0)  # the first one that a zip can hold: equal masks make equal bytes
_UNIX, _FILE_MODE = 3, 0o100644


class Wanted(NamedTuple):
    """What a submission must hold of a video.

    Attributes:
        expressions: ids of the expressions.
        frames: names of the frames, without an ending.
        size: height and width of the frames in pixels; None where it is not known.
    """

    expressions: Sequence[str]
    frames: Sequence[str]
    size: tuple[int, int] | None = None


def entry_name(video: str, expression: str, frame: str) -> str:
    """Returns the place of a mask in the zip.

    Raises:
        UserError: a name would lead to another place.
    """
    parts = {"video": video, "expression": expression, "frame": frame}
    return "/".join([TOP, *(plain_name(name, what) for what, name in parts.items())]) + ".png"


class Submission:
    """Writes a submission mask by mask, in the order in which they come; none is kept in memory.

    To be used in a `with` statement: the file gets its name when the block ends well, else there is none. Equal masks
    in equal order make equal bytes.

    Args:
        path: zip to write; its folder is made if missing.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, path: Path):
        self._path = Path(path)
        self._names: set[str] = set()

    def __enter__(self) -> "Submission":
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(written_whole(self._path))
            # PNG is compressed already.
            self._zip = stack.enter_context(zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self._stack.__exit__(*error)

    def add(self, video: str, expression: str, frame: str, mask: Bool[np.ndarray, "h w"]) -> None:
        """Adds a mask.

        Args:
            video: name of the video.
            expression: its id within the video.
            frame: name of the frame, without an ending.
            mask: at the frame's own size.

        Raises:
            UserError: there is a mask of this frame already, or a name would lead to another place.
            ValueError: the mask is not bool, or has no pixel.
        """
        if mask.dtype != np.bool_ or mask.ndim != 2 or not mask.size:
            raise ValueError(f"the mask is {mask.dtype} {mask.shape}, bool (h, w) is wanted")
        content = io.BytesIO()
        Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(content, "PNG")
        self._write(entry_name(video, expression, frame), content.getvalue())

    def add_part(self, path: Path) -> None:
        """Adds all that another submission holds, in its order.

        Raises:
            UserError: it cannot be read, is no submission, or holds a mask that is there already.
        """
        with _opened(path) as part:
            for entry in part.infolist():
                if len(names := entry.filename.split("/")) != 4 or entry.filename != _as_written(names):
                    raise UserError(f"{str(path)!r} holds {entry.filename!r}, which is no place of a mask")
                self._write(entry.filename, part.read(entry))

    def _write(self, name: str, content: bytes) -> None:
        if name in self._names:
            raise UserError(f"the submission {str(self._path)!r} has {name!r} already; each frame is wanted once")
        self._names.add(name)
        entry = zipfile.ZipInfo(name, _DATE)
        entry.create_system, entry.external_attr = _UNIX, _FILE_MODE << 16
        self._zip.writestr(entry, content)


def join(parts: Sequence[Path], path: Path) -> None:
    """Puts submissions together, in the order given; the result is what a single writer would have written.

    Args:
        parts: what several processes wrote, or one process for each of its units of work.
        path: zip to write.

    Raises:
        UserError: a part cannot be read, two hold the same mask, or the result cannot be written.
    """
    with Submission(path) as whole:
        for part in parts:
            whole.add_part(part)


def check(path: Path, wanted: Mapping[str, Wanted]) -> None:
    """Reads a submission and compares it with what the server wants.

    Args:
        path: of the zip.
        wanted: by video.

    Raises:
        UserError: it cannot be read, lacks masks, has others, or one is no grey picture of 0 and 255 of the frames'
            size; says how many and the first of them.
    """
    due = {
        entry_name(video, expression, frame): video
        for video, entry in wanted.items()
        for expression in entry.expressions
        for frame in entry.frames
    }
    with _opened(path) as submission:
        names = [entry.filename for entry in submission.infolist() if not entry.is_dir()]
        found = set(names)
        _refuse(path, "lacks", [name for name in due if name not in found], len(due))
        _refuse(path, "has what is not wanted:", [name for name in names if name not in due], len(names))
        if len(found) < len(names):
            _refuse(path, "has twice", sorted({name for name in found if names.count(name) > 1}), len(names))
        sizes = {video: entry.size for video, entry in wanted.items()}
        for name, video in due.items():
            size = _size_of_mask(submission.read(name), f"{name!r} of {str(path)!r}")
            if (wanted_size := sizes[video]) is None:
                sizes[video] = size
            elif size != tuple(wanted_size):
                of = f"{wanted_size[0]} x {wanted_size[1]}"
                raise UserError(f"{name!r} of {str(path)!r} has {size[0]} x {size[1]} pixels, the video {of}")


def _refuse(path: Path, verb: str, names: Sequence[str], of: int) -> None:
    if names:
        raise UserError(f"{str(path)!r} {verb} {len(names)} of {of} masks, the first one is {names[0]!r}")


def _as_written(names: Sequence[str]) -> str:
    """Returns the place of a mask that is at `names`, or "" where none may be."""
    top, video, expression, file = names
    with contextlib.suppress(UserError):
        return entry_name(video, expression, file.removesuffix(".png")) if top == TOP else ""
    return ""


def _size_of_mask(content: bytes, what: str) -> tuple[int, int]:
    """Returns height and width of an encoded mask.

    Raises:
        UserError: it is none.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
            mode, levels = picture.mode, picture.histogram()
    # Pillow reports broken files by many classes.
    except (Image.DecompressionBombError, struct.error, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{what} is no PNG: {error}") from None
    if mode != "L" or any(levels[1:255]):
        found = f"of mode {mode}" if mode != "L" else "with levels between"
        raise UserError(f"{what} is a picture {found}, grey levels 0 and 255 (mode L) are wanted")
    return picture.height, picture.width


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip to be read; what is wrong with it, also found out later, is one line."""
    file = checked_file(path, "submission")
    try:
        with zipfile.ZipFile(file) as submission:
            yield submission
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        raise UserError(f"the submission {str(path)!r} is broken: {error}; write it again") from None
