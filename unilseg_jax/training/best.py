"""The best weights of a run by one of its evaluations, kept apart from the checkpoints that it goes on from."""

import contextlib
import math
import shutil
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from unilseg_jax.training.checkpoint import make_manager, writing
from unilseg_jax.training.model_directory import CARRIED_FILE, CHECKPOINTS, MODEL_FILE
from unilseg_jax.training.state import TrainState

BEST = "best"


class BestCheckpoint:
    """The weights of the best evaluation so far, in a model directory of their own.

    Args:
        directory: the run's directory; it holds `best/`.
        metric: name of what is judged by, such as `held_out/oiou`; the greater, the better.
    """

    def __init__(self, directory: Path, metric: str):
        self._run, self._metric = Path(directory), metric
        self._manager = make_manager(self._run / BEST / CHECKPOINTS, keep=1)
        self._value = self._value_on_disk()

    def _value_on_disk(self) -> float:
        step = self._manager.latest_step()
        if step is None:
            return -math.inf
        with contextlib.suppress(Exception):  # damaged: the next evaluation is the best
            score = self._manager.restore(step, args=ocp.args.Composite(score=ocp.args.JsonRestore()))["score"]
            return score["value"] if score["metric"] == self._metric else -math.inf
        return -math.inf

    def offer(self, state: TrainState, values: dict[str, float]) -> None:
        """Keeps the state's weights to predict with, if its evaluation is the best; returns once they are on disk.

        An evaluation that is written down is not made again, so its weights must be there before.

        Args:
            state: that was judged.
            values: of its evaluation by name; nothing happens if the metric is not among them.

        Raises:
            ExternalError: the weights, or those before, cannot be written.
        """
        value, step = values.get(self._metric, math.nan), int(state.step)
        if not value > self._value or step in self._manager.all_steps():
            return
        if jax.process_index() == 0:
            for name in (MODEL_FILE, CARRIED_FILE):
                if (self._run / name).exists():
                    shutil.copyfile(self._run / name, self._run / BEST / name)
        variables = ocp.args.StandardSave(state.best_variables)
        score = ocp.args.JsonSave({"metric": self._metric, "value": value})
        with writing(self._manager):
            # The same run may have been further before, under a metric of another name.
            self._manager.save(step, args=ocp.args.Composite(variables=variables, score=score), force=True)
            self._manager.wait_until_finished()
        self._value = value

    def close(self) -> None:
        """Lets go of the directory."""
        self._manager.close()
