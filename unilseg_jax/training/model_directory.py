"""A model's directory: written whole, and read as NumPy arrays.

Be it a run or a converted file, it holds

    model.json             the architecture and the input size
    checkpoints/<step>/    Orbax: `variables` (params, batch_stats) and, for a run, `optimizer` and `ema`, if it has one
    carried.safetensors    tensors of the released layout that nothing computes with, if there were any

and a run's `best/` is such a directory again.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from safetensors.numpy import load_file, save_file

from unilseg_jax.errors import UserError, denial, reason_of
from unilseg_jax.interop.differences import leaves_by_path, variable_differences
from unilseg_jax.interop.output import check_new_folder, written_whole
from unilseg_jax.interop.pretrained import Pretrained, check_finite
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.training.silence import first_line, raised_only

MODEL_FILE = "model.json"
CARRIED_FILE = "carried.safetensors"
CHECKPOINTS = "checkpoints"
_AGAIN = "copy the folder again, or name another checkpoint"


def write_json(path: Path, value: dict | list) -> None:
    """Writes `value` to `path` in one move: a reader sees the old file or the new one."""
    text = json.dumps(value, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text + "\n")
    Path(file.name).chmod(0o644)
    os.replace(file.name, path)


def write_model_file(directory: Path, architecture: Architecture, input_size: int) -> None:
    """Writes what `load_pretrained` needs besides the weights."""
    sizes = dataclasses.asdict(architecture)
    write_json(Path(directory) / MODEL_FILE, {"architecture": sizes, "input_size": input_size})


def write_carried(directory: Path, carried: dict[str, np.ndarray]) -> None:
    """Writes the tensors that only an export will want; nothing if there are none."""
    if carried:
        partial = Path(directory) / f"{CARRIED_FILE}.partial"
        save_file(carried, partial)
        os.replace(partial, Path(directory) / CARRIED_FILE)


def save_pretrained(directory: str | os.PathLike, pretrained: Pretrained) -> None:
    """Writes a model directory, under a temporary name first.

    Raises:
        UserError: `directory` exists and is not empty, or cannot be written; nothing is left behind then.
    """
    directory = Path(directory)
    check_new_folder(directory)
    with written_whole(directory) as partial, raised_only():
        write_model_file(partial, pretrained.architecture, pretrained.input_size)
        write_carried(partial, pretrained.carried)
        options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
        with ocp.CheckpointManager((partial / CHECKPOINTS).absolute(), options=options) as manager:
            variables = ocp.args.StandardSave(pretrained.variables)
            manager.save(0, args=ocp.args.Composite(variables=variables))


def load_pretrained(directory: str | os.PathLike, *, with_carried: bool = True) -> Pretrained:
    """Reads the newest weights of a model directory, as NumPy arrays; the moving average, where a run kept one.

    Args:
        directory: of a training run or a converted model.
        with_carried: also read the tensors that only an export or another run wants.

    Raises:
        UserError: the directory is missing, is not a model's, holds no finished checkpoint, or its weights cannot be
            read, do not fit its description or are not all finite.
    """
    directory = Path(directory)
    if not directory.is_dir():
        if directory.exists():
            raise UserError(f"{str(directory)!r} is a file, a model directory is wanted as checkpoint")
        raise UserError(f"no such checkpoint directory: {str(directory)!r}; check the path")
    architecture, input_size = _read_model_file(directory)
    root = (directory / CHECKPOINTS).absolute()
    steps = ocp.utils.checkpoint_steps(root) if root.is_dir() else []
    if not steps:
        raise UserError(f"{str(directory)!r} holds no finished checkpoint yet")
    path = root / str(max(steps))
    item = "ema" if (path / "ema").is_dir() else "variables"
    # All items are named, so that Orbax does not warn of those that nobody reads.
    items = ocp.CompositeCheckpointHandler(
        **{name: ocp.StandardCheckpointHandler() for name in ("variables", "ema", "optimizer")}
    )
    try:
        os.listdir(path / item)  # Orbax takes a folder that may not be entered for an empty one
        with raised_only(), ocp.Checkpointer(items) as checkpointer:
            shapes = checkpointer.metadata(path).item_metadata[item]
            target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
            arguments = ocp.args.Composite(**{item: ocp.args.StandardRestore(target)})
            restored = checkpointer.restore(path, args=arguments)[item]
    except Exception as error:  # Orbax and its storage raise many kinds
        older = [step for step in steps if step < max(steps)]
        aside = f", or move {str(path)!r} away to take step {max(older)}" if older else ""
        raise _unreadable(directory, "the weights", error, f"{_AGAIN}{aside}") from error
    if lines := variable_differences(architecture, restored):
        head = f"the weights in {str(directory)!r} are not those of its {MODEL_FILE}; {len(lines)} variables differ"
        raise UserError("\n  ".join([head, *lines]))
    check_finite(directory, leaves_by_path(restored))
    return Pretrained(
        architecture=architecture,
        variables=jax.tree.map(np.asarray, dict(restored)),
        input_size=input_size,
        carried=_read_carried(directory) if with_carried else {},
    )


def _read_carried(directory: Path) -> dict[str, np.ndarray]:
    """Returns the tensors that were carried along, nothing if there are none."""
    file = directory / CARRIED_FILE
    try:
        return load_file(file) if file.exists() else {}
    except Exception as error:  # safetensors has kinds of its own
        raise _unreadable(directory, f"the tensors of {CARRIED_FILE}", error, _AGAIN) from error


def _unreadable(directory: Path, what: str, error: Exception, advice: str) -> UserError:
    """Returns what is wrong with a file of a model directory, and what to do: it is damaged, or may not be read."""
    what = f"{what} in {str(directory)!r}"
    if denied := denial(error):
        return UserError(f"{what} cannot be read: {denied}")
    return UserError(f"{what} are damaged or cut short ({first_line(error)}); {advice}")


def _read_model_file(directory: Path) -> tuple[Architecture, int]:
    """Returns the architecture and the input size that a model directory says."""
    file = directory / MODEL_FILE
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        sizes = {key: tuple(value) if isinstance(value, list) else value for key, value in _sizes(description)}
        for field in dataclasses.fields(Architecture):
            if field.name in sizes and not _is_like(sizes[field.name], field.default):
                raise TypeError(f"{field.name} = {sizes[field.name]!r}, wanted something like {field.default!r}")
        architecture, input_size = Architecture(**sizes), description["input_size"]
        if not _is_like(input_size, 1):
            raise TypeError(f"input_size = {input_size!r}, wanted a whole number")
    except FileNotFoundError:
        raise UserError(
            f"{str(directory)!r} is not a model directory: it has no {MODEL_FILE}; "
            "name a training run's workdir or what convert wrote"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {str(file)!r}: {reason_of(error)}") from error
    except KeyError as error:
        raise UserError(f"{str(file)!r} is damaged: it has no {error}; {_AGAIN}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{str(file)!r} is damaged: {error}; {_AGAIN}") from error
    return architecture, input_size


def _sizes(description: object) -> Iterable[tuple[str, object]]:
    if not isinstance(description, dict) or not isinstance(description["architecture"], dict):
        raise TypeError("wanted a table with a table of sizes as its architecture")
    return description["architecture"].items()


def _is_like(value: object, example: object) -> bool:
    """Whether a value read from JSON is of the kind of `example`: a truth value, a number, whole or not, or some."""
    if isinstance(example, tuple):
        return isinstance(value, tuple) and all(_is_like(each, example[0]) for each in value)
    kinds = (int, float) if isinstance(example, float) else type(example)
    return isinstance(value, kinds) and isinstance(value, bool) == isinstance(example, bool)
