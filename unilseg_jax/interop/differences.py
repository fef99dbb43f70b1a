"""Compares the tensors of a file with those wanted and tells all differences at once."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from unilseg_jax.errors import UserError
from unilseg_jax.interop.layout import Entry, Transform
from unilseg_jax.ops.windows import relative_position_index


def differences(entries: Iterable[Entry], tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Returns one line for each tensor that is missing, surplus or of another shape, type or index.

    Args:
        entries: what is wanted.
        tensors: what was found.
    """
    wanted = {entry.name: entry for entry in entries}
    lines = []
    for name, entry in wanted.items():
        want = f"{entry.dtype} {entry.shape}"
        if name not in tensors:
            lines.append(f"missing: {name}, wanted {want}")
            continue
        value = tensors[name]
        kinds = "iu" if entry.dtype == "int64" else "f"
        if value.shape != entry.shape or value.dtype.kind not in kinds:
            lines.append(f"other shape or type: {name}, found {value.dtype} {value.shape}, wanted {want}")
        elif entry.transform is Transform.INDEX:
            if not np.array_equal(value, relative_position_index(math.isqrt(entry.shape[0]))):
                lines.append(f"other index: {name} does not number the positions of a window row by row")
    surplus = (f"surplus: {n}, found {v.dtype} {v.shape}" for n, v in tensors.items() if n not in wanted)
    return [*lines, *surplus]


def refuse(path: Path, lines: list[str], wanted: str) -> None:
    """Raises if there are differences.

    Args:
        path: the file.
        lines: the differences.
        wanted: what the file should be.

    Raises:
        UserError: `lines` is not empty; names all of them.
    """
    if lines:
        count = "1 tensor differs" if len(lines) == 1 else f"{len(lines)} tensors differ"
        head = f"{str(path)!r} is not {wanted}: {count}"
        raise UserError("\n  ".join([head, *lines]))
