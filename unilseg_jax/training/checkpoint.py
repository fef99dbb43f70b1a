"""Checkpoints on disk, written and read with Orbax.

A model's directory, be it a run or a converted file, holds

    model.json             the architecture and the input size
    checkpoints/<step>/    Orbax: `variables` (params, batch_stats) and, for a run, `optimizer` and `ema`, if it has one
    carried.safetensors    tensors of the released layout that nothing computes with, if there were any

and a run's `best/` is such a directory again. Orbax writes under another name and renames at the end, so that what is
cut short is never taken for a checkpoint.
"""

import contextlib
import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from safetensors.numpy import load_file, save_file

from unilseg_jax.errors import ExternalError, UserError, reason_of
from unilseg_jax.interop.differences import variable_differences
from unilseg_jax.interop.output import check_new_folder, written_whole
from unilseg_jax.interop.pretrained import Pretrained
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.training import distributed
from unilseg_jax.training.silence import raised_only
from unilseg_jax.training.state import TrainState

MODEL_FILE = "model.json"
CARRIED_FILE = "carried.safetensors"
CHECKPOINTS = "checkpoints"


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


class Checkpointer:
    """The checkpoints of one run; with several processes all of them call everything.

    Args:
        directory: the run's directory.
        keep: how many of the newest checkpoints stay on disk.
    """

    def __init__(self, directory: Path, keep: int = 2):
        self._manager = make_manager(Path(directory) / CHECKPOINTS, keep)

    @property
    def started(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self._manager.latest_step() is not None

    def save(self, state: TrainState) -> None:
        """Starts to write `state` under its step; returns while the disk still works.

        Raises:
            ExternalError: it, or the one before, cannot be written.
        """
        step = int(state.step)
        items = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
        if step not in self._manager.all_steps():
            with writing(self._manager):
                self._manager.save(step, args=ocp.args.Composite(**items))

    def restore_latest(self, state: TrainState, warn: Callable[[str], None] = print) -> TrainState:
        """Returns the newest checkpoint that can be read; `state` if there is none at all.

        Where an older one can be read by all processes and a newer one cannot, the newer one is damaged: it is renamed,
        and its steps are taken again.

        Args:
            state: has the shapes, types and shardings that are wanted.
            warn: takes a line for each damaged checkpoint.

        Raises:
            UserError: there are checkpoints, and none can be read.
        """
        errors: dict[int, Exception] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._restore(step, state)
                found: Exception | None = None
            except Exception as error:  # Orbax and its storage raise many kinds
                restored, found = state, error
            if not distributed.all_say(found is None):
                errors[step] = found or ExternalError("another process cannot read it")
                continue
            for damaged, error in errors.items():
                warn(
                    f"warning: the checkpoint of step {damaged} is damaged and is called {_put_aside(damaged)} now; "
                    f"going on from step {step}: {_first_line(error)}"
                )
                self._put_aside(damaged)
            return restored
        if errors:
            step, error = next(iter(errors.items()))
            raise UserError(
                f"the checkpoint of step {step} does not fit this config (another model or optimiser?) or is damaged; "
                f"use the run's own config, delete that step, or name another workdir: {_first_line(error)}"
            ) from error
        return state

    def _put_aside(self, step: int) -> None:
        """Gives a checkpoint a name under which nobody looks for it."""
        if jax.process_index() == 0:
            folder = Path(self._manager.directory)
            (folder / str(step)).replace(folder / _put_aside(step))
        distributed.agreed(True)  # the others wait for it
        self._manager.reload()

    def _restore(self, step: int, state: TrainState) -> TrainState:
        items = {
            name: ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, tree))
            for name, tree in _items(state).items()
        }
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return state.replace(
            step=jax.device_put(np.int32(step), state.step.sharding),
            opt_state=restored["optimizer"]["opt_state"],
            ema=restored["ema"] if state.ema is not None else None,
            **restored["variables"],
        )

    def check(self) -> None:
        """Looks whether the writing thread has failed; waits for nothing.

        Raises:
            ExternalError: it has.
        """
        check(self._manager)

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
            ExternalError: it cannot be written.
        """
        with writing(self._manager):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the directory; raises as `wait`."""
        self.wait()
        self._manager.close()


def _put_aside(step: int) -> str:
    return f"damaged-{step}"


def _items(state: TrainState) -> dict[str, dict]:
    """Returns what a checkpoint of a run holds, by the names of its folders."""
    items = {"variables": state.variables, "optimizer": {"opt_state": state.opt_state}}
    return items if state.ema is None else {**items, "ema": state.ema}


def make_manager(directory: Path, keep: int) -> ocp.CheckpointManager:
    """Returns Orbax's manager of a folder of checkpoints, which is made if missing; it writes in another thread.

    Args:
        directory: with a folder for each step.
        keep: how many of the newest stay.
    """
    processes = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
        # Where the processes are named, Orbax's threads wait for one another through JAX's coordinator. Otherwise they
        # do so by a computation on the devices, which comes between those of the training in another order in each
        # process: all of them would wait for ever.
        processes = ocp.options.MultiprocessingOptions(
            active_processes=set(range(jax.process_count())), barrier_sync_key_prefix=directory.parent.name
        )
    directory.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        enable_async_checkpointing=True,
        create=False,
        cleanup_tmp_directories=True,
        multiprocessing_options=processes,
    )
    return ocp.CheckpointManager(directory.absolute(), options=options)


def check(manager: ocp.CheckpointManager) -> None:
    """Raises what a manager's writing thread has met, without waiting for it; see `writing`."""
    if not manager.is_saving_in_progress():
        with writing(manager):
            manager.wait_until_finished()


@contextlib.contextmanager
def writing(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turns what goes wrong while a checkpoint is written, by this thread or another, into one line.

    Raises:
        ExternalError: with that line.
    """
    try:
        yield
    except Exception as error:  # Orbax and its storage raise many kinds
        kept = ocp.utils.checkpoint_steps(manager.directory)
        last = f"the one of step {max(kept)} stays" if kept else "there is none yet"
        raise ExternalError(
            f"a checkpoint cannot be written ({last}): {_first_line(error)}; mend that and start the same command again"
        ) from error


@contextlib.contextmanager
def finished_on_error(*writers: Any) -> Iterator[None]:
    """Lets what is being written come to its end before an error ends the process, which would cut it short.

    Several processes can do so only where the error is that of all of them: a loss that is not finite.

    Args:
        writers: what has a `close`.
    """
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1 or isinstance(error, FloatingPointError):
            for writer in writers:
                with contextlib.suppress(ExternalError):  # it may be what the run ends of
                    writer.close()
        raise


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
        UserError: the directory is missing, is not a model's, holds no finished checkpoint, or its weights do not fit
            its description.
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
    path, carried_file = root / str(max(steps)), directory / CARRIED_FILE
    item = "ema" if (path / "ema").is_dir() else "variables"
    # All items are named, so that Orbax does not warn of those that nobody reads.
    items = ocp.CompositeCheckpointHandler(
        **{name: ocp.StandardCheckpointHandler() for name in ("variables", "ema", "optimizer")}
    )
    try:
        with ocp.Checkpointer(items) as checkpointer:
            shapes = checkpointer.metadata(path).item_metadata[item]
            target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
            arguments = ocp.args.Composite(**{item: ocp.args.StandardRestore(target)})
            restored = checkpointer.restore(path, args=arguments)[item]
        carried = load_file(carried_file) if with_carried and carried_file.exists() else {}
    except Exception as error:  # Orbax, its storage and safetensors raise many kinds
        raise UserError(f"the weights in {str(directory)!r} are damaged or cut short: {_first_line(error)}") from error
    if lines := variable_differences(architecture, restored):
        head = f"the weights in {str(directory)!r} are not those of its {MODEL_FILE}; {len(lines)} variables differ"
        raise UserError("\n  ".join([head, *lines]))
    return Pretrained(
        architecture=architecture,
        variables=jax.tree.map(np.asarray, dict(restored)),
        input_size=input_size,
        carried=carried,
    )


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
        raise UserError(f"{str(file)!r} is damaged: it has no {error}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{str(file)!r} is damaged: {error}") from error
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


def _first_line(error: Exception) -> str:
    """Returns what an error says, without what the storage library adds for its makers."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    line = re.sub(r" \[(tensorstore_spec|os_error_code|source locations)=.*", "", line)
    return line if len(line) <= 300 else f"{line[:120]} … {line[-170:]}"
