"""What a run leaves behind while it goes: `metrics.jsonl`, TensorBoard events, a progress line."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

METRICS_FILE = "metrics.jsonl"


class MetricWriter:
    """Writes numbers by step to `metrics.jsonl` and to TensorBoard.

    Args:
        directory: the run's directory.
        first_step: where the run goes on; what stands in the file from later steps is dropped, since these
            steps are taken again.
    """

    def __init__(self, directory: Path, first_step: int):
        from tensorboardX import SummaryWriter

        path = Path(directory) / METRICS_FILE
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= first_step]
            partial = path.with_suffix(".partial")
            partial.write_text("".join(f"{line}\n" for line in kept))
            partial.replace(path)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(Path(directory) / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes `values` of `step`; names with a slash are grouped by TensorBoard."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        self._board.close()


def _step_of(line: str) -> float:
    """Returns the step of a line of `metrics.jsonl`; infinity if the line was cut short."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")


class ProgressLine:
    """Loss, images per second and time left: a live bar on a terminal, plain lines elsewhere.

    Args:
        first_step: where the run starts or goes on.
        total_steps: where it ends.
        batch_size: images per step.
    """

    def __init__(self, first_step: int, total_steps: int, batch_size: int):
        self._batch_size, self._total = batch_size, total_steps
        self._last = (time.perf_counter(), first_step)
        self._console = Console(file=sys.stdout)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[speed]:.1f} images/s"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(
            "training", total=total_steps, completed=first_step, loss=float("nan"), speed=0.0
        )

    def __enter__(self) -> "ProgressLine":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, step: int, loss: float) -> float:
        """Shows a step and returns the images per second since the last call."""
        now, (before, last_step) = time.perf_counter(), self._last
        speed = (step - last_step) * self._batch_size / max(now - before, 1e-9)
        self._last = (now, step)
        self._bar.update(self._task, completed=step, loss=loss, speed=speed)
        if not self._console.is_terminal:
            left = (self._total - step) * self._batch_size / max(speed, 1e-9)
            print(
                f"step {step}/{self._total}  loss {loss:.4f}  {speed:.1f} images/s  {left:.0f} s left",
                flush=True,
            )
        return speed

    def pause(self) -> None:
        """Forgets the time that passes until the next `resume`, which was not spent on training."""
        self._paused = time.perf_counter()

    def resume(self) -> None:
        """See `pause`."""
        before, step = self._last
        self._last = (before + time.perf_counter() - self._paused, step)
