"""What a run leaves behind while it goes: `metrics.jsonl`, TensorBoard events, a progress line."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

METRICS_FILE = "metrics.jsonl"
SECONDS = "train/seconds"
"""Name of the training time so far, over all processes of a run."""


class MetricWriter:
    """Writes numbers by step to `metrics.jsonl` and to TensorBoard.

    Args:
        directory: the run's directory.
        first_step: where the run goes on; what stands in the file from later steps is dropped, since these
            steps are taken again.
        total_steps: where it ends; the evaluations that stand there are dropped, since they are made again.
        silent: write nothing; of several processes only one writes.

    Attributes:
        seconds_before: of training, up to where the run goes on; 0 for a new one.
    """

    def __init__(self, directory: Path, first_step: int, total_steps: int, *, silent: bool = False):
        self._file = self._board = None
        self._kept: list[str] = []
        self.seconds_before = 0.0
        if silent:
            return
        from tensorboardX import SummaryWriter

        path = Path(directory) / METRICS_FILE
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _is_kept(line, first_step, total_steps)]
            partial = path.with_suffix(".partial")
            partial.write_text("".join(f"{line}\n" for line in kept))
            partial.replace(path)
            self._kept = kept
            self.seconds_before = max((json.loads(line).get(SECONDS) or 0.0 for line in kept), default=0.0)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(Path(directory) / "tensorboard"), purge_step=first_step + 1)

    def has_any(self, step: int, prefix: str) -> bool:
        """Returns whether the run had written a value of such a name at `step` before it went on."""
        lines = (line for line in map(json.loads, self._kept) if line["step"] == step)
        return any(name.startswith(prefix) for line in lines for name in line)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes `values` of `step`; names with a slash are grouped by TensorBoard."""
        if self._file is None or self._board is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes both files."""
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()


def _is_kept(line: str, first_step: int, total_steps: int) -> bool:
    """Whether a line of `metrics.jsonl` stays when a run goes on; one that was cut short does not."""
    try:
        values = json.loads(line)
        step = values.pop("step")
    except (ValueError, KeyError):
        return False
    is_training = any(name.startswith("train/") for name in values)
    return step <= first_step and (step < total_steps or is_training)


class ProgressLine:
    """Loss, images per second and time left: a live bar on a terminal, plain lines elsewhere.

    Its clock starts when it is made: once the step is compiled.

    Args:
        first_step: where the run starts or goes on.
        total_steps: where it ends.
        batch_size: images per step.
        seconds: of training, spent by processes before this one.
        silent: show nothing.

    Attributes:
        seconds: of training up to the last `update`, without pauses.
    """

    def __init__(
        self, first_step: int, total_steps: int, batch_size: int, seconds: float = 0.0, *, silent: bool = False
    ):
        self.seconds, self._silent = seconds, silent
        self._seconds_before, self._first = seconds, first_step
        self._batch_size, self._total = batch_size, total_steps
        self._last = (time.perf_counter(), first_step)
        self._paused_at = 0.0
        self._console = Console(file=sys.stdout)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[found]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=silent or not self._console.is_terminal,
        )
        # Until the first update there are no numbers to show.
        self._task = self._bar.add_task("training", total=total_steps, completed=first_step, found="starting")

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
        self.seconds += now - before
        found = f"loss {loss:.4f}  {speed:.1f} images/s"
        self._bar.update(self._task, completed=step, found=found)
        if not self._silent and not self._console.is_terminal:
            # By the mean of all steps: the latest ones alone let it jump.
            per_step = (self.seconds - self._seconds_before) / max(step - self._first, 1)
            left = (self._total - step) * per_step
            print(f"step {step}/{self._total}  {found}  {left:.0f} s of training left", flush=True)
        return speed

    def pause(self) -> None:
        """Forgets the time that passes until the next `resume`, which was not spent on training."""
        self._paused_at = time.perf_counter()

    def resume(self) -> None:
        """See `pause`."""
        before, step = self._last
        self._last = (before + time.perf_counter() - self._paused_at, step)
