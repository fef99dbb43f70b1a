"""What a run says about its own speed: where the time goes, how fast the chips compute, how full they are."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from unilseg_jax.training.chips import chip_of

DATA, CHECKPOINT, EVALUATION = "data", "checkpoint", "evaluation"


class StepTimes:
    """Divides the time between two reports; what is not spent on data, checkpoints or evaluations is computing.

    The devices work while the next batch is fetched, so waiting for data costs nothing until it takes longer than a
    step; then computing takes no time of its own.
    """

    def __init__(self):
        self._start()

    def _start(self) -> None:
        self._began, self._spent = time.perf_counter(), dict.fromkeys((DATA, CHECKPOINT, EVALUATION), 0.0)

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Counts the time within as spent on `part`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._spent[part] += time.perf_counter() - began

    def report(self, steps: int) -> dict[str, float]:
        """Returns the seconds per step since the last report.

        Args:
            steps: taken since then, at least 1.
        """
        compute = time.perf_counter() - self._began - sum(self._spent.values())
        seconds = {"data": self._spent[DATA], "checkpoint": self._spent[CHECKPOINT], "compute": compute}
        self._start()
        return {f"train/{part}_s": spent / steps for part, spent in seconds.items()}


class Tracer:
    """Writes a trace of some steps, for TensorBoard or Perfetto; a context that ends it.

    Args:
        directory: to write to.
        steps: the first and the last; empty for none.
    """

    def __init__(self, directory: Path, steps: Sequence[int]):
        self._directory, (self._first, self._last), self._running = directory, steps or (0, 0), False

    def __enter__(self) -> "Tracer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False

    def before(self, step: int) -> None:
        """Starts the trace, if it is its first step."""
        if step == self._first:
            jax.profiler.start_trace(str(self._directory))
            self._running = True

    def after(self, step: int, result: Any) -> None:
        """Ends the trace, if it was its last step, once `result` is computed."""
        if self._running and step == self._last:
            jax.block_until_ready(result)
            self.__exit__()


def speed(images_per_s: float, flops: float, dtype: str) -> dict[str, float]:
    """Returns the model's FLOP/s over all devices and, where the chip is in the table, the share of their peak.

    Args:
        images_per_s: of the whole run.
        flops: per image, forward and backward, without what is computed again to save memory.
        dtype: that is computed in, `float32` or `bfloat16`.
    """
    rate = images_per_s * flops
    numbers = {"train/model_tflop_per_s": rate / 1e12}
    chip = chip_of(jax.devices()[0].device_kind)
    return numbers if chip is None else {**numbers, "train/utilisation": rate / chip.peak(dtype) / jax.device_count()}


def device_memory() -> dict[str, float]:
    """Returns the greatest memory in use so far of this process's fullest device, where the backend counts it."""
    counted = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    return {"train/peak_memory_gib": max(counted) / 2**30} if any(counted) else {}
