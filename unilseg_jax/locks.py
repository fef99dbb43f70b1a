"""Folders that one process at a time may change."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

# Of file systems that know no locks, or (NFS) none of a folder that is open for reading.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF)


@contextlib.contextmanager
def held(directory: str | os.PathLike, otherwise: Exception) -> Iterator[None]:
    """Holds a folder for this process, whatever its name becomes; it is free once the process has ended in any way.

    A file system that knows no such locks holds nothing.

    Args:
        directory: the folder.
        otherwise: raised if another process holds it.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        take(handle, otherwise)
        yield
    finally:
        os.close(handle)


def take(handle: int, otherwise: Exception) -> None:
    """Holds an open file or folder until it is closed; see `held`."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise otherwise from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
