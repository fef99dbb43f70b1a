"""Writes a model in the released layout, complete, so that the released code loads it with `strict=True`."""

import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from unilseg_jax.errors import UserError
from unilseg_jax.interop.differences import differences, leaves_by_path, variable_differences
from unilseg_jax.interop.files import SETTINGS, import_torch
from unilseg_jax.interop.infer import infer_image_tower
from unilseg_jax.interop.layout import Transform, released_entries
from unilseg_jax.interop.output import check_parents, written_whole
from unilseg_jax.interop.pretrained import Pretrained
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.ops.windows import relative_position_index

TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")


def export_released(pretrained: Pretrained) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns every tensor of the released layout, and notes on what the model itself did not hold.

    Args:
        pretrained: the model, with all of Table 8's modules.

    Returns:
        The tensors by released name without `module.` (`write_released` adds it where it belongs), and the
        notes, one line each.

    Raises:
        UserError: the model lacks a module of the released one, or its variables are not those of its
            architecture.
    """
    sizes = pretrained.architecture
    refuse_reduced(sizes)
    leaves = leaves_by_path(pretrained.variables)
    if lines := variable_differences(sizes, pretrained.variables):
        raise UserError("\n  ".join(["the variables are not those of the architecture:", *lines]))
    carried, notes = _complete(pretrained)
    tower = infer_image_tower({name: value.shape for name, value in carried.items()})
    tensors = {}
    for entry in released_entries(sizes, tower):
        if entry.transform is Transform.UNUSED:
            value = carried.get(entry.name, np.zeros(entry.shape, np.float32))
        elif entry.transform is Transform.COUNTER:
            value = np.asarray(carried.get(entry.name, 0), np.int64)
        elif entry.transform is Transform.INDEX:
            value = relative_position_index(math.isqrt(entry.shape[0])).astype(np.int64)
        else:
            ours = [np.asarray(leaves[path], np.float32) for path in entry.paths]
            value = to_released(entry.transform, ours)
        # np.ascontiguousarray would give a 0-d array an axis.
        tensors[entry.name] = np.asarray(value, order="C")
    return tensors, notes


def refuse_reduced(sizes: Architecture) -> None:
    """Raises if the released layout cannot hold such a model.

    Raises:
        UserError: a switch of Table 8 is off.
    """
    off = [name for name in ("pre_fusion", "language_path", "vision_path") if not getattr(sizes, name)]
    if off:
        raise UserError(
            f"the model was built without {', '.join(off)}; the released layout has no place for such a "
            "model, so it cannot be exported"
        )


def _complete(pretrained: Pretrained) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns what was carried, if it is of use, and the notes."""
    sizes, carried, notes = pretrained.architecture, dict(pretrained.carried), []
    tower = infer_image_tower({name: value.shape for name, value in carried.items()})
    unused = [entry for entry in released_entries(sizes, tower) if entry.transform is Transform.UNUSED]
    here = {name: value for name, value in carried.items() if not name.endswith("num_batches_tracked")}
    if not here:
        notes.append(
            f"CLIP's image tower ({len(unused)} tensors that no computation reads) was never imported: "
            "filled with zeros in the shapes of ViT-B/16"
        )
    elif lines := differences(unused, here):
        raise UserError("\n  ".join(["the unused tensors kept aside are not complete:", *lines]))
    return carried, notes


def to_released(transform: Transform, values: list[np.ndarray]) -> np.ndarray:
    """Returns the tensor of the released layout that holds these parameters: the inverse of `to_ours`."""
    match transform:
        case Transform.SAME:
            return values[0]
        case Transform.LINEAR:
            return values[0].T
        case Transform.CONV:
            return values[0].transpose(3, 2, 0, 1)
        case Transform.LINEAR_QKV:
            return np.concatenate([value.T for value in values])
        case Transform.BIAS_QKV:
            return np.concatenate(values)
    raise ValueError(f"{transform} holds no parameter")


def checked_output(path: str | os.PathLike) -> Path:
    """Returns `path` if a released file can be written there.

    Raises:
        UserError: its suffix is not one of `SUFFIXES`, it is a folder or below a file, or PyTorch is needed
            and absent.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"output {str(path)!r} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if path.is_dir():
        raise UserError(f"output {str(path)!r} is a folder; name a file")
    check_parents(path)
    if path.suffix in TORCH_SUFFIXES:
        import_torch(path)
    return path


def write_released(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], settings: Mapping[str, int] | None = None
) -> None:
    """Writes a released file, under a temporary name first.

    A `.pth` is what the released demo loads: a dictionary whose `state_dict` has every name prefixed with
    `module.`. A `.safetensors` has the names as they are in the table, without that trace of data-parallel
    training; reading accepts both.

    Args:
        path: ends in one of `SUFFIXES`.
        tensors: by released name without `module.`.
        settings: what to say beside the tensors, of `files.SETTINGS`.

    Raises:
        UserError: the file cannot be written.
    """
    path = checked_output(path)
    settings = {name: value for name, value in (settings or {}).items() if name in SETTINGS}
    with written_whole(path) as partial:
        if path.suffix in TORCH_SUFFIXES:
            torch = import_torch(path)
            # A copy: PyTorch wants arrays it may write to.
            state = {f"module.{name}": torch.from_numpy(np.array(v)) for name, v in tensors.items()}
            with partial.open("wb") as file:  # PyTorch's own writing does not say what the disk refused
                torch.save({"state_dict": state, **settings}, file)
        else:
            metadata = {"format": "pt", **{name: str(value) for name, value in settings.items()}}
            save_file(dict(tensors), partial, metadata)
        with contextlib.suppress(OSError):
            partial.chmod(0o644)
