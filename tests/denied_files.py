"""Files that may not be read, not even by the superuser, for whom a file's mode counts nothing."""

import builtins
import errno
import io
import os


def deny(monkeypatch, name: str) -> None:
    """Refuses from now on to open files of this name."""
    opened = io.open

    def refusing(file, *arguments, **more):
        if isinstance(file, str | os.PathLike) and os.path.basename(file) == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(file))
        return opened(file, *arguments, **more)

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", refusing)
