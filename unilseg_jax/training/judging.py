"""When a run is judged, by its evaluations and benchmarks, and where the numbers go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from unilseg_jax.evaluation import report
from unilseg_jax.input_pipeline.leakage import Verdict
from unilseg_jax.training import distributed
from unilseg_jax.training.benchmarks import Benchmarks, numbers_of
from unilseg_jax.training.best import BestCheckpoint
from unilseg_jax.training.evaluations import Evaluations
from unilseg_jax.training.signals import StopRequest
from unilseg_jax.training.state import TrainState
from unilseg_jax.training.writer import MetricWriter


class Judging:
    """Judges a run while it goes on; every process calls this.

    Args:
        config: of the run.
        directory: of the run.
        evaluations: of `config.evals`.
        benchmarks: of `config.benchmarks`.
        verdict: of the firewall.
        writer: of numbers.
        best: keeps the best weights; None keeps none.
        stop: whether somebody asked the run to stop.
        say: prints a line; None in processes that do not speak.
    """

    def __init__(
        self,
        config: ConfigDict,
        directory: Path,
        *,
        evaluations: Evaluations,
        benchmarks: Benchmarks,
        verdict: Verdict,
        writer: MetricWriter,
        best: BestCheckpoint | None,
        stop: StopRequest,
        say: Callable[[str], None] | None,
    ):
        self._config, self._directory, self._say = config, Path(directory), say
        self._evaluations, self._benchmarks = evaluations, benchmarks
        self._verdict, self._writer, self._best, self._stop = verdict, writer, best, stop
        self._every = {name: entry.every for name, entry in (*config.evals.items(), *config.benchmarks.items())}

    def is_due(self, step: int) -> bool:
        """Whether something is judged after a step that is not the last."""
        return any(self._is_due(name, step) for name in self._every)

    def _is_due(self, name: str, step: int) -> bool:
        every = self._every[name]
        return bool(every) and step % every == 0 and 0 < step < self._config.steps

    def judge_due(self, state: TrainState, *, resumed: bool = False) -> None:
        """Judges what is due after the state's step.

        Args:
            state: of the run.
            resumed: whether the run goes on from here, so that some of it may have been written down before.

        Raises:
            StoppedBySignal: a run of one process was asked to stop.
        """
        step = int(state.step)
        for name in (name for name in self._every if self._is_due(name, step)):
            if resumed and distributed.agreed(self._writer.has_any(step, f"{name}/")):
                continue
            if name in self._config.evals:
                score = self.evaluate(state, name)["all"]
                found = f"oIoU {score['oiou']:.4f}  mIoU {score['miou']:.4f}"
            else:
                scores = numbers_of(self._run_benchmark(state, name)[0])
                found = "  ".join(f"{key} {value:.4f}" for key, value in list(scores.items())[:3])
            if self._say:
                self._say(f"step {step}: {name} {found}{self._verdict.note()}")

    def evaluate(self, state: TrainState, name: str, *, shuffled: bool = False) -> dict:
        """Judges an evaluation, and writes what it found; see `Evaluations.run`."""
        step = self._begin(state)
        results, examples = self._evaluations.run(
            name, state.best_variables, shuffled=shuffled, before_each=self._stop.leave
        )
        label = f"{name}_shuffled" if shuffled else name
        self._write(state, label, results["all"] | self._verdict.numbers(name))
        if examples and self._say:
            report.draw_examples(self._directory / "pictures" / f"{label}_{step:07d}.png", examples)
        return results

    def _run_benchmark(self, state: TrainState, name: str) -> tuple[dict[str, Any], Path]:
        step = self._begin(state)
        results, folder = self._benchmarks.run(name, step, state.best_variables, before_each=self._stop.leave)
        self._write(state, name, numbers_of(results) | self._verdict.numbers(name))
        return results, folder

    def _begin(self, state: TrainState) -> int:
        step = int(state.step)
        if step == self._config.steps:
            self._stop.leave_after(step)
        return step

    def _write(self, state: TrainState, label: str, values: dict[str, Any]) -> None:
        numbers = {f"{label}/{key}": value for key, value in values.items()}
        if self._best:  # first, since an evaluation that is written down is not made again
            self._best.offer(state, numbers)
        self._writer.write(int(state.step), numbers)

    def judge_all(self, state: TrainState) -> dict[str, dict]:
        """Judges everything at the end of the run, and returns it for its summary.

        Raises:
            StoppedBySignal: the run was asked to stop.
        """
        evals = {
            name: {"honest": self.evaluate(state, name), **self._verdict.mark(name)}
            | ({"shuffled": self.evaluate(state, name, shuffled=True)} if entry.shuffled else {})
            for name, entry in self._config.evals.items()
        }
        benchmarks = {}
        for name in self._config.benchmarks:
            results, folder = self._run_benchmark(state, name)
            benchmarks[name] = {
                **numbers_of(results),
                "results": str(folder.relative_to(self._directory)),
                **self._verdict.mark(name),
            }
        return {"evals": evals} | ({"benchmarks": benchmarks} if benchmarks else {})
