"""Reads a file of the released layout into ours."""

import logging
import os
from collections.abc import Iterable, Mapping

import numpy as np

from unilseg_jax.errors import UserError
from unilseg_jax.interop.differences import differences, refuse
from unilseg_jax.interop.files import TensorFile, read_tensors
from unilseg_jax.interop.infer import infer_architecture, infer_image_tower
from unilseg_jax.interop.layout import Entry, Transform, released_entries
from unilseg_jax.interop.pretrained import RELEASED_INPUT_SIZE, Pretrained, check_finite, check_input_size


def load_released(path: str | os.PathLike, *, word_len: int | None = None, input_size: int | None = None) -> Pretrained:
    """Reads a model in the released layout; what had to be changed is logged as a warning.

    Args:
        path: a `.pth` or `.safetensors` file.
        word_len: tokens of a phrase; by default what the file says, else 17.
        input_size: side of the network's input in pixels; by default what the file says, else 480.

    Raises:
        UserError: the file cannot be read, or its tensors are not exactly those of such a model (every
            missing, surplus and mis-shaped one is listed), some values are not finite, or the input size is not
            possible.
    """
    pretrained, notes = read_released(path, word_len=word_len, input_size=input_size)
    for note in notes:
        logging.getLogger(__name__).warning("%s: %s", path, note)
    return pretrained


def read_released(
    path: str | os.PathLike, *, word_len: int | None = None, input_size: int | None = None
) -> tuple[Pretrained, list[str]]:
    """Does what `load_released` does, and returns the notes beside the model."""
    file = read_tensors(path)
    return pretrained_of(file, word_len=word_len, input_size=input_size), file.notes


def pretrained_of(file: TensorFile, *, word_len: int | None = None, input_size: int | None = None) -> Pretrained:
    """Returns the model whose tensors `file` holds; see `load_released`."""
    shapes = {name: value.shape for name, value in file.tensors.items()}
    if input_size:
        check_input_size(input_size, "input_size")
    else:
        input_size = file.settings.get("input_size", RELEASED_INPUT_SIZE)
        check_input_size(input_size, f"the input_size that {str(file.path)!r} says")
    try:
        sizes = infer_architecture(shapes, word_len or file.settings.get("word_len"))
    except UserError as error:
        raise UserError(f"{str(file.path)!r}: {error}") from error
    entries = released_entries(sizes, infer_image_tower(shapes))
    refuse(file.path, differences(entries, file.tensors), "a complete model in the released layout")
    check_finite(file.path, file.tensors)
    carried = {}
    for entry in entries:
        if entry.transform is Transform.UNUSED:
            carried[entry.name] = file.tensors[entry.name]
        elif entry.transform is Transform.COUNTER:
            carried[entry.name] = file.tensors[entry.name].astype(np.int64)
    return Pretrained(
        architecture=sizes,
        variables=assemble(entries, file.tensors),
        input_size=input_size,
        carried=carried,
    )


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


def assemble(entries: Iterable[Entry], tensors: Mapping[str, np.ndarray]) -> dict:
    """Returns our nested dictionary of variables filled from `tensors` (all of them must be there)."""
    variables: dict = {}
    for entry in entries:
        values = to_ours(entry.transform, tensors[entry.name]) if entry.paths else []
        for path, value in zip(entry.paths, values, strict=True):
            node = variables
            *parents, leaf = path.split("/")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = np.ascontiguousarray(value)
    return variables
