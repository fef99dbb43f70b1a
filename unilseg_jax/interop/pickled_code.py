"""Tells why PyTorch's safe reader refused a pickle, without unpickling it."""

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path

# What PyTorch's files of tensors name, and its safe reader takes.
_HARMLESS = ("torch", "collections", "_codecs")
_READ_PROTOCOL = 3
"""The greatest that PyTorch reads without running code; `torch.save` writes 2."""


def why_refused(path: Path) -> str | None:
    """Returns what keeps a sound pickle from being read, and what to do; None if it may well be damaged.

    Args:
        path: a pickle, or an archive of PyTorch's with one inside.
    """
    protocol = None
    # A damaged file can make the parser raise nearly anything; what was found before counts.
    try:
        with path.open("rb") as whole:
            if not zipfile.is_zipfile(whole):
                whole.seek(0)
                protocol = _protocol(whole)
                return _said(next(_code_names(whole), None), protocol)
        with zipfile.ZipFile(path) as archive:
            inner = next(name for name in archive.namelist() if name.split("/", 1)[-1] == "data.pkl")
            with archive.open(inner) as part:
                protocol = _protocol(part)
                return _said(next(_code_names(part), None), protocol)
    except Exception:
        return _said(None, protocol)


def _said(name: str | None, protocol: int | None) -> str | None:
    if name:
        return f"can only be read by running code ({name}), which is refused; save its tensors alone, as a dictionary"
    if protocol is not None and protocol > _READ_PROTOCOL:
        return (
            f"is a pickle of protocol {protocol}, which PyTorch only reads by running code; save its tensors with "
            "torch.save and leave pickle_protocol out"
        )
    return None


def _protocol(file: io.BufferedIOBase) -> int | None:
    start = file.read(2)
    file.seek(0)
    return start[1] if start[:1] == b"\x80" and len(start) == 2 else None


def _code_names(file: io.BufferedIOBase) -> Iterator[str]:
    """Yields the functions and classes that are named in pickles one after the other, but for tensors' own."""
    while True:
        pushed: list[str | None] = [None, None]
        memo: dict[int, str | None] = {}
        for code, value, _ in pickletools.genops(file):
            name = None
            if code.name == "GLOBAL":
                name = str(value).replace(" ", ".", 1)
            elif code.name == "STACK_GLOBAL":
                name = ".".join(text or "?" for text in pushed)
            elif code.name == "MEMOIZE":
                memo[len(memo)] = pushed[-1]
            elif code.name.endswith("PUT"):
                memo[int(value)] = pushed[-1]
            elif code.name.endswith("GET"):
                pushed = [pushed[-1], memo.get(int(value))]
            else:
                pushed = [pushed[-1], value if isinstance(value, str) else None]
            if name is not None:
                if name.split(".")[0] not in _HARMLESS:
                    yield name
                pushed = [pushed[-1], None]
