"""The folder of a data set while it is converted: one process at a time, errors in one line, the old set kept."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from unilseg_jax.errors import UserError
from unilseg_jax.locks import held, take

LOCK_FILE = "lock"
# What ArrayRecord says of a file that it cannot write, in a `RuntimeError`.
_NOT_WRITTEN = re.compile(r"\w+\(\) failed: (?P<reason>[^;]*); writing (?P<file>[^;]*)")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Makes a `UserError` of what the file system refuses: a folder that is not to be written, a full disk.

    Raises:
        UserError: names the file and the reason.
    """
    try:
        yield
    # A reader of the output who has gone, or a cluster, is no fault of a file.
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise _refused(error.filename, error.strerror or str(error)) from None
    except RuntimeError as error:
        found = _NOT_WRITTEN.search(str(error))
        if not found:
            raise
        raise _refused(found["file"], found["reason"]) from None


def _refused(file: object, reason: str) -> UserError:
    shown = (
        f"{os.fsencode(file).decode('utf-8', 'backslashreplace')!r}"
        if isinstance(file, str | bytes | os.PathLike)
        else "a file"
    )
    said = " ".join(reason.split())
    return UserError(f"{shown} cannot be read or written: {said}; check the path, its rights and the free space")


@contextlib.contextmanager
def locked(work: Path) -> Iterator[None]:
    """Holds a working folder, which is made, for this process; the lock falls with the process, however it ends.

    A folder in which there is nothing but the lock afterwards is removed.

    Raises:
        UserError: another process holds it.
    """
    with _open_lock(work):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if os.listdir(work) == [LOCK_FILE]:
                    os.unlink(work / LOCK_FILE)
                    os.rmdir(work)


@contextlib.contextmanager
def _open_lock(work: Path) -> Iterator[None]:
    while True:
        work.mkdir(parents=True, exist_ok=True)
        try:
            lock = open(work / LOCK_FILE, "wb")
        except FileNotFoundError:
            if work.exists():
                raise
            # The process that held it has just removed it.
            continue
        with lock:
            take(lock.fileno(), UserError(f"another process converts into {str(work)!r}; wait for it, or end it"))
            if _is_same(work / LOCK_FILE, lock.fileno()):
                yield
                return


def _is_same(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def set_aside(directory: Path) -> Iterator[None]:
    """Keeps a data set that is to be replaced under another name until the new one is complete.

    If the process is killed meanwhile, `recover` brings it back.
    """
    if not directory.exists():
        yield
        return
    with _held(directory):
        old = _name_aside(directory)
        directory.rename(old)
        try:
            yield
        except BaseException:
            old.rename(directory)
            raise
        shutil.rmtree(old)


def recover(directory: Path) -> str | None:
    """Undoes what `set_aside` left if it was killed.

    Args:
        directory: of the data set.

    Returns:
        What was done, None if there was nothing to do.

    Raises:
        UserError: another process has set the data set aside.
    """
    old = _name_aside(directory)
    if not old.exists():
        return None
    with _held(old):
        if not directory.exists():
            old.rename(directory)
            return f"an interrupted --overwrite had set {directory} aside; it is restored"
        shutil.rmtree(old)
        return f"an interrupted --overwrite left {old}; it is removed, since the new data set is complete"


def _name_aside(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.old")


def _held(directory: Path) -> contextlib.AbstractContextManager[None]:
    """Holds a data set for this process, whatever its folder's name becomes."""
    return held(directory, UserError(f"another process replaces {str(directory)!r}; wait for it, or end it"))
