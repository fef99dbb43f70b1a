"""Writes a file or a folder whole, or leaves nothing behind."""

import contextlib
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from unilseg_jax.errors import UserError, reason_of

_NAME_LENGTH = 40
_SECONDS_TO_REMOVE, _SECONDS_OF_REST = 10.0, 1.0


def check_parents(path: Path) -> None:
    """Refuses an output that would lie below a file.

    Raises:
        UserError: names that file.
    """
    for folder in path.absolute().parents:
        if folder.is_dir():
            return
        if folder.exists():
            raise UserError(f"output {str(path)!r}: {str(folder)!r} is a file, a folder is wanted there")


def check_new_folder(path: Path) -> None:
    """Refuses a folder for output that holds something, or cannot be made.

    Raises:
        UserError: says which.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"output {str(path)!r} exists and is not empty; name a new directory")
    check_parents(path)


@contextlib.contextmanager
def gone_on_failure(folder: Path) -> Iterator[None]:
    """Takes back, if the block fails, those of a folder and the ones above it that it made and that are empty."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    except BaseException:
        for each in made:
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its place when the block ends well.

    Args:
        path: of the file, or of a folder that is new or empty; folders above it are made.

    Raises:
        UserError: the block could not write all of it.
    """
    check_parents(path)
    target = path.absolute()
    with gone_on_failure(target.parent):
        temporary = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:_NAME_LENGTH]}-"))
            yield temporary / target.name
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                target.rmdir()
            os.replace(temporary / target.name, target)
        except UserError:
            raise
        # PyTorch and Orbax have no kinds of their own for what the disk refuses.
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            reason = _reason(error)
            if reason is None:
                raise
            raise UserError(f"cannot write {str(path)!r}: {reason}") from error
        finally:
            if temporary is not None:
                _remove(temporary)


def _reason(error: Exception) -> str | None:
    """Returns what the system refused, if the error, or one that it came from, has its number; else it is ours."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError):
            return reason_of(link)
        if number := re.search(r"os_error_code='(\d+)'|\(os error (\d+)\)", str(link)):
            code = int(number[1] or number[2])
            return reason_of(OSError(code, os.strerror(code)))
        link = link.__cause__ or link.__context__
    return None


def _remove(folder: Path) -> None:
    """Removes a folder; threads of a library that gave up may still be writing, and make it anew for a while."""
    with contextlib.suppress(OSError):
        folder.rmdir()  # what was written well has left it
        return
    give_up, gone_since = time.monotonic() + _SECONDS_TO_REMOVE, math.inf
    while time.monotonic() < min(give_up, gone_since + _SECONDS_OF_REST):
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
            gone_since = math.inf
        elif gone_since == math.inf:
            gone_since = time.monotonic()
        time.sleep(0.05)
