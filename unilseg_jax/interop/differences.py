"""Compares tensors with those wanted, a file's or our own, and tells all differences at once."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from unilseg_jax.errors import UserError
from unilseg_jax.interop.layout import Entry, Transform, model_entries
from unilseg_jax.models.architecture import Architecture
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


def variable_differences(sizes: Architecture, variables: Mapping) -> list[str]:
    """Returns one line for each of our variables that is missing, surplus or of another shape.

    Args:
        sizes: of the model, with or without the modules of Table 8.
        variables: `params` and `batch_stats`, nested.
    """
    leaves = leaves_by_path(variables)
    wanted = {path: shape for entry in model_entries(sizes) for path, shape in our_shapes(entry).items()}
    lines = [f"missing: {path}" for path in wanted if path not in leaves]
    lines += [f"surplus: {path}" for path in leaves if path not in wanted]
    for path, shape in wanted.items():
        if path in leaves and tuple(leaves[path].shape) != shape:
            lines.append(f"other shape: {path}, found {tuple(leaves[path].shape)}, wanted {shape}")
    return lines


def leaves_by_path(variables: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
    """Returns the arrays of nested dictionaries by their paths, joined by slashes."""
    leaves = {}
    for name, value in variables.items():
        if isinstance(value, Mapping):
            leaves.update(leaves_by_path(value, f"{prefix}{name}/"))
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def our_shapes(entry: Entry) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the parameters that an entry holds, by path."""
    shape = entry.shape
    match entry.transform:
        case Transform.LINEAR:
            shape = shape[::-1]
        case Transform.CONV:
            shape = (shape[2], shape[3], shape[1], shape[0])
        case Transform.LINEAR_QKV:
            shape = (shape[1], shape[0] // 3)
        case Transform.BIAS_QKV:
            shape = (shape[0] // 3,)
    return dict.fromkeys(entry.paths, shape)


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
