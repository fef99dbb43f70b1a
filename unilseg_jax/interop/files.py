"""Reads files of tensors without running Python code that they bring along."""

import dataclasses
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes  # teaches NumPy bfloat16, which safetensors then reads
import numpy as np
import safetensors

from unilseg_jax.errors import UserError, checked_file
from unilseg_jax.interop.pickled_code import why_refused

SETTINGS = ("word_len", "input_size")
"""What our exports say beside the tensors, since no shape tells it."""

ZIP_START = b"PK\x03\x04"
PICKLE_START = 0x80
NEED_TORCH = "needs PyTorch: pip install 'unilseg_jax[torch]', or use a .safetensors file"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorFile:
    """What a file holds.

    Attributes:
        path: where it lies, for messages.
        tensors: by name, without the prefix `module.`; floating point numbers as float32.
        notes: what was changed on the way, one line each.
        settings: those of `SETTINGS` that the file says.
    """

    path: Path
    tensors: dict[str, np.ndarray]
    notes: list[str]
    settings: dict[str, int]


def read_tensors(path: str | os.PathLike) -> TensorFile:
    """Reads `.safetensors`, or what PyTorch saved: a dictionary of tensors or a TorchScript archive.

    The kind is told by the content. In a dictionary of several things the tensors are under `state_dict` or
    `model`.

    Raises:
        UserError: there is no such file, it is of no known kind, cut short, needs code to be unpickled, or
            PyTorch is needed and absent.
    """
    path = checked_file(path, "checkpoint")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from error
    settings: Mapping = {}
    if size == 0:
        raise UserError(f"{str(path)!r} is empty; copy it again")
    if start[:4] == ZIP_START:
        found, settings = _read_zip(path)
    elif start[0] == PICKLE_START:
        found, settings = _unwrap(path, _torch_load(path))
    elif start[8:9] == b"{":
        found, settings = _read_safetensors(path)
    else:
        raise UserError(_unknown(path, start))
    if not found:
        raise UserError(f"{str(path)!r} holds no tensors")
    tensors, notes = _as_float32(found)
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    said = {name: str(settings.get(name, "")) for name in SETTINGS}
    numbers = {name: int(text) for name, text in said.items() if re.fullmatch(r"[1-9][0-9]{0,5}", text)}
    return TensorFile(path=path, tensors=tensors, notes=notes, settings=numbers)


def find_weights(path: str | os.PathLike) -> Path:
    """Returns the file of weights: `path` itself, or the one in a Hugging Face folder.

    Raises:
        UserError: the folder holds none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return path / name
    raise UserError(f"the folder {str(path)!r} holds neither model.safetensors nor pytorch_model.bin")


def import_torch(path: Path):
    """Returns the module `torch`.

    Args:
        path: what it is wanted for.

    Raises:
        UserError: it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise UserError(f"{str(path)!r} {NEED_TORCH}") from None
    return torch


def _unknown(path: Path, start: bytes) -> str:
    wanted = "wanted a .pth, .pt, .bin or .safetensors file"
    if start.startswith(b"version https://git-lfs"):
        return f"{str(path)!r} is a Git LFS pointer, not the file itself: run `git lfs pull`"
    if path.suffix == ".safetensors":
        return f"{str(path)!r} is not a safetensors file, or is cut short; {wanted}"
    return f"{str(path)!r} is not a checkpoint (its content is of no known kind); {wanted}"


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], Mapping]:
    arrays, unreadable = {}, []
    try:
        with safetensors.safe_open(path, "np") as file:
            for name in file.keys():
                try:
                    arrays[name] = file.get_tensor(name)
                except (TypeError, AttributeError):  # numbers that NumPy lacks
                    unreadable.append(f"{name} ({file.get_slice(name).get_dtype()})")
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        what = f"is not a safetensors file, or is cut short ({_first_line(error)}); copy it again"
        raise UserError(f"{str(path)!r} {what}") from error
    if unreadable:
        raise UserError(_unreadable(path, unreadable))
    return arrays, metadata


def _read_zip(path: Path) -> tuple[dict, Mapping]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{str(path)!r} is cut short or damaged; copy it again") from error
    inner = {name.split("/", 1)[-1] for name in names}
    if "data.pkl" not in inner:
        raise UserError(f"{str(path)!r} is a zip archive, but PyTorch did not write it; wanted a checkpoint")
    # Only TorchScript archives have these; torch.load warns about them and then fails.
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return _numpy(path, _torch_script(path)), {}
    return _unwrap(path, _torch_load(path))


def _torch_script(path: Path) -> dict:
    torch = import_torch(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive can raise nearly anything
        what = "is a TorchScript archive that cannot be read; it may be damaged"
        raise UserError(f"{str(path)!r} {what}: {_first_line(error)}") from error


def _torch_load(path: Path) -> object:
    torch = import_torch(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        text = str(error)
        blocked = re.search(r"GLOBAL (\S+)", text) or re.search(r"class `?([\w.]+)`? ", text)
        if isinstance(error, pickle.UnpicklingError) and blocked:
            raise UserError(
                f"{str(path)!r} can only be read by running code ({blocked[1]}), which is refused; "
                "save its tensors alone, as a dictionary"
            ) from error
        what = why_refused(path) if isinstance(error, pickle.UnpicklingError) else None
        what = what or "is not a checkpoint, is cut short or is damaged; copy it again"
        raise UserError(f"{str(path)!r} {what}") from error


def _unwrap(path: Path, content: object) -> tuple[dict[str, np.ndarray], Mapping]:
    settings: Mapping = {}
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content, settings = content[key], content
    if not isinstance(content, Mapping):
        raise UserError(f"{str(path)!r} holds a {type(content).__name__}; a dictionary of tensors is wanted")
    return _numpy(path, content), settings


def _numpy(path: Path, values: Mapping) -> dict[str, np.ndarray]:
    torch = import_torch(path)
    arrays, strange, unreadable = {}, [], []
    for name, value in values.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.is_quantized:
            strange.append(f"{name!s} ({type(value).__name__})")
            continue
        try:
            arrays[name] = _array(torch, value.detach())
        # Numbers that NumPy lacks, lazily conjugate ones, tensors without data.
        except (TypeError, RuntimeError, ValueError):
            unreadable.append(f"{name} ({str(value.dtype).removeprefix('torch.')}, {value.device.type})")
    if strange:
        raise UserError(f"{str(path)!r} is not a dictionary of tensors: it holds {_shown(strange)}")
    if unreadable:
        raise UserError(_unreadable(path, unreadable))
    return arrays


def _array(torch, value) -> np.ndarray:
    value = value.to_dense() if value.layout is not torch.strided else value
    # NumPy has no bfloat16 of its own; the bits are handed over.
    half = value.dtype is torch.bfloat16
    array = value.cpu().contiguous()
    return array.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if half else array.numpy()


def _unreadable(path: Path, names: list[str]) -> str:
    return f"{str(path)!r} holds tensors that NumPy cannot take: {_shown(names)}; save them as float32"


def _shown(items: list[str]) -> str:
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def _as_float32(found: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    tensors, casts = {}, {}
    for name, value in found.items():
        if value.dtype != np.float32 and (value.dtype.kind == "f" or value.dtype == ml_dtypes.bfloat16):
            casts[value.dtype.name] = casts.get(value.dtype.name, 0) + 1
            value = value.astype(np.float32)
        tensors[name] = value
    notes = [f"{count} tensors of {kind} were turned into float32" for kind, count in casts.items()]
    return tensors, notes


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
