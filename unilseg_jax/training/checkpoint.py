"""Checkpoints of a run, written and read with Orbax: in its directory, `checkpoints/<step>/`.

Orbax writes under another name and renames at the end, so that what is cut short is never taken for a checkpoint.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from unilseg_jax.errors import ExternalError, UserError, denial
from unilseg_jax.training import distributed
from unilseg_jax.training.model_directory import CHECKPOINTS
from unilseg_jax.training.silence import first_line
from unilseg_jax.training.state import TrainState


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
        """Returns the newest checkpoint that can be read; `state` as it is if there is none at all.

        Where an older one can be read by all processes and a newer one cannot, the newer one is damaged: it is renamed,
        and its steps are taken again.

        Args:
            state: arrays or `jax.ShapeDtypeStruct`s of the shapes, types and shardings that are wanted.
            warn: takes a line for each damaged checkpoint.

        Raises:
            UserError: there are checkpoints, and none can be read, or this user may not read one.
        """
        errors: dict[int, Exception] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._restore(step, state)
                found: Exception | None = None
            except Exception as error:  # Orbax and its storage raise many kinds
                if denied := denial(error):
                    raise UserError(f"the checkpoint of step {step} cannot be read: {denied}") from error
                restored, found = state, error
            if not distributed.all_say(found is None):
                errors[step] = found or ExternalError("another process cannot read it")
                continue
            for damaged, error in errors.items():
                warn(
                    f"warning: the checkpoint of step {damaged} is damaged and is called {_put_aside(damaged)} now; "
                    f"going on from step {step}: {first_line(error)}"
                )
                self._put_aside(damaged)
            return restored
        if errors:
            step, error = next(iter(errors.items()))
            raise UserError(
                f"the checkpoint of step {step} does not fit this config (another model or optimiser?) or is damaged; "
                f"use the run's own config, delete that step, or name another workdir: {first_line(error)}"
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
        if not self._manager.is_saving_in_progress():
            self.wait()

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


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which does not ask JAX whether the run shall stop.

    JAX agrees on the number after the last one that was asked about. Orbax would ask about a checkpoint's step when
    its writing ends, and where the run is further by then, it would never ask about the number that is agreed on.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


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
    return _Manager(directory.absolute(), options=options)


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
            f"a checkpoint cannot be written ({last}): {first_line(error)}; mend that and start the same command again"
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
