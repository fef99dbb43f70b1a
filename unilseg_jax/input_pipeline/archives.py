"""Reads ZIP and TAR archives member by member; nothing is ever written, so no member can climb out of a folder.

A member that would, if somebody unpacked the archive, is a fault all the same: who made it meant harm, or erred.
"""

import abc
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath
from typing import Generic, NamedTuple, TypeVar

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.raw_files import note

MAX_MEMBER = 1 << 28
"""Bytes of the largest member that is read: no picture or annotation of one comes near it."""

ENDINGS = (".zip", ".tar")

InfoT = TypeVar("InfoT")  # how a library describes a member


class Member(NamedTuple):
    """A file of an archive.

    Attributes:
        name: its path in the archive, with single slashes and without a "." among its folders.
        size: in bytes.
    """

    name: str
    size: int


class Archive(abc.ABC, Generic[InfoT]):
    """An open archive.

    Attributes:
        path: of the archive.
        members: the files that can be read, by name, in the order of the archive.
        faults: name and reason of the members that are left out.
    """

    def __init__(self, path: Path):
        self.path = path
        self.members: dict[str, Member] = {}
        self.faults: list[tuple[str, str]] = []
        # By name: the library's own look-up returns the last member of a name, whatever it is.
        self._infos: dict[str, InfoT] = {}

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the file."""

    @abc.abstractmethod
    def _read(self, name: str) -> bytes:
        """Returns the content of a member, at most `MAX_MEMBER` bytes."""

    def read(self, name: str) -> bytes:
        """Returns the content of a member.

        Raises:
            UserError: the archive is damaged there, or packed in a way that is not read.
        """
        try:
            content = self._read(name)
        # Encrypted or of an unknown method: RuntimeError, NotImplementedError.
        except (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
            raise UserError(f"the member {name!r} is not read: {str(error) or type(error).__name__}") from None
        if len(content) != self.members[name].size:
            raise UserError(f"the member {name!r} has {len(content)} bytes, {self.members[name].size} are wanted")
        return content

    def _add(self, name: str, size: int, info: InfoT, *, plain: bool) -> None:
        """Takes a member up, or lists what is wrong with it."""
        shown = name.encode("utf-8", "backslashreplace").decode()
        if shown != name or "\0" in name:
            self.faults.append((shown, "the member's name is not UTF-8"))
        elif name.startswith("/") or "\\" in name or PureWindowsPath(name).drive or ".." in name.split("/"):
            self.faults.append((name, "the member's name leads out of the archive's folder"))
        elif not plain:
            self.faults.append((name, "the member is a link or a device, a file is wanted"))
        elif size > MAX_MEMBER:
            self.faults.append((name, f"the member has {size:,} bytes, at most {MAX_MEMBER:,} are read"))
        # `a.jpg` and `./a.jpg` unpack to one file.
        elif (path := "/".join(part for part in name.split("/") if part not in ("", "."))) in self.members:
            self.faults.append((name, "the member is there twice; the first one is kept"))
        else:
            self.members[path] = Member(path, size)
            self._infos[path] = info


class ZipArchive(Archive[zipfile.ZipInfo]):
    """A ZIP file."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._file = zipfile.ZipFile(path)
        for info in self._file.infolist():
            mode = info.external_attr >> 16
            if not info.is_dir():
                self._add(info.filename, info.file_size, info, plain=not mode or stat.S_IFMT(mode) in (0, stat.S_IFREG))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _read(self, name: str) -> bytes:
        with self._file.open(self._infos[name]) as file:
            return file.read(MAX_MEMBER)


class TarArchive(Archive[tarfile.TarInfo]):
    """A TAR file that is not compressed, so that members are found without reading all before them."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._file = tarfile.open(path, "r:")
        try:
            for info in self._file:
                if not info.isdir():
                    self._add(info.name, info.size, info, plain=info.isreg() and not info.issparse())
            # tarfile takes a header that is cut or overwritten for the end; the real end is a block of zeros.
            file = self._file.fileobj
            assert file is not None
            file.seek(self._file.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("the end is missing")
        except tarfile.TarError as error:
            read = len(self.members)
            self.faults.append((path.name, f"the archive is cut short or broken after {read} members ({error})"))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _read(self, name: str) -> bytes:
        file = self._file.extractfile(self._infos[name])
        assert file is not None, "only plain files become members"
        with file:
            return file.read(MAX_MEMBER)


def open_archive(path: Path) -> Archive:
    """Opens an archive by the ending of its name and lists its members.

    Args:
        path: ends in one of `ENDINGS`.

    Raises:
        UserError: it is missing, or no such archive.
    """
    kind = ZipArchive if path.suffix.lower() == ".zip" else TarArchive
    note(path)
    try:
        return kind(path)
    # A name that is marked as UTF-8 and is not: ValueError.
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError) as error:
        name = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise UserError(f"the archive {name!r} is not read: {getattr(error, 'strerror', None) or error}") from None
