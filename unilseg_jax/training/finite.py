"""A loss that is not finite stops the run before anything of it is saved or judged."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import jax

from unilseg_jax.training.model_directory import write_json

NOT_FINITE_FILE = "not_finite.json"


class FiniteLoss:
    """The terms of the steps since they were last looked at; until then they stay on the device, and nobody waits.

    Args:
        directory: of the run.
        samples: names the pictures of a step.
        silent: write nothing; of several processes only one writes.
    """

    def __init__(self, directory: Path, samples: Callable[[int], list[str]], *, silent: bool):
        self._file, self._samples, self._silent = directory / NOT_FINITE_FILE, samples, silent
        self._steps: list[tuple[int, Mapping[str, jax.Array]]] = []
        self._last: dict[str, float] = {}

    def add(self, step: int, terms: Mapping[str, jax.Array]) -> None:
        """Takes the terms of a step: scalars, `loss` and `grad_norm` among them."""
        self._steps.append((step, terms))

    def look(self) -> dict[str, float]:
        """Returns the terms of the last step, by the names that a run writes.

        Raises:
            FloatingPointError: those of a step are not finite; the step and its pictures are in `not_finite.json`.
        """
        steps, self._steps = self._steps, []
        for (step, _), terms in zip(steps, jax.device_get([terms for _, terms in steps]), strict=True):
            self._last = {f"train/{key}": float(value) for key, value in terms.items()}
            if not all(math.isfinite(value) for value in self._last.values()):
                self._stop(step)
        return dict(self._last)

    def _stop(self, step: int) -> None:
        samples = self._samples(step)
        if not self._silent:
            write_json(self._file, {"step": step, "samples": samples})
        loss, norm = self._last["train/loss"], self._last["train/grad_norm"]
        raise FloatingPointError(
            f"the loss is {loss}, the gradient's norm {norm} at step {step}; nothing was saved since; its pictures are "
            f"in {self._file.name}, such as {samples[0]}; lower optim.learning_rate, or train without them"
        )
