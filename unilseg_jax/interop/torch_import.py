"""Reads weights of the released layout into ours."""

from collections.abc import Mapping

import numpy as np

from unilseg_jax.interop.layout import Entry, Transform


def to_ours(transform: Transform, value: np.ndarray) -> list[np.ndarray]:
    """Returns the parameters that one tensor of the released layout holds."""
    match transform:
        case Transform.SAME:
            return [value]
        case Transform.LINEAR:
            return [value.T]
        case Transform.CONV:
            return [value.transpose(2, 3, 1, 0)]
        case Transform.LINEAR_QKV:
            return [part.T for part in np.split(value, 3)]
        case Transform.BIAS_QKV:
            return np.split(value, 3)
    return []


def assemble(entries: list[Entry], tensors: Mapping[str, np.ndarray]) -> dict:
    """Returns our nested dictionary of variables filled from `tensors` (all of them must be there)."""
    variables: dict = {}
    for entry in entries:
        for path, value in zip(entry.paths, to_ours(entry.transform, tensors[entry.name]) if entry.paths else [], strict=True):
            node = variables
            *parents, leaf = path.split("/")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = np.ascontiguousarray(value)
    return variables
