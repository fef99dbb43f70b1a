"""Command: evaluates a model on benchmarks; writes results.json, a report and what else belongs to the task.

Usage: python -m unilseg_jax.evaluate --checkpoint C --benchmark NAME[:SPLIT] [--benchmark ...] --data DIR --output DIR
"""

import argparse
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from unilseg_jax.command_line import OneLineParser, path_text, positive_int
from unilseg_jax.errors import StoppedBySignal, UserError, run_command
from unilseg_jax.evaluation import benchmarks

if TYPE_CHECKING:  # main imports them once the arguments were checked: they bring JAX
    from unilseg_jax.evaluation.presence import PresenceModel
    from unilseg_jax.evaluation.runner import Work
    from unilseg_jax.interop.pretrained import Pretrained

RUN = "run"
"""In place of a benchmark: the evaluations of the run's own config."""


def main(argv: Sequence[str] | None = None) -> None:
    """Checks the arguments, loads the model, then evaluates split by split; what is finished is not done again.

    Raises:
        UserError: a benchmark, its data, the checkpoint or the output folder cannot be used.
        StoppedBySignal: SIGTERM came; the same command goes on.
    """
    arguments = _parser().parse_args(argv)
    if not Path(arguments.checkpoint).exists():
        raise UserError(f"no such checkpoint: {arguments.checkpoint!r}; check the path")
    requests = [pair for name in dict.fromkeys(arguments.benchmark) for pair in _find(name)]
    output = Path(arguments.output)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {arguments.output!r} is a file, a folder is wanted")
    if arguments.fit_presence and [task.task for task, _ in requests if task] != ["generalized"]:
        raise UserError("--fit-presence wants one split of grefcoco and no other benchmark, such as grefcoco:train")

    # Imported here: JAX takes seconds, a mistake in the arguments should not.
    import jax

    from unilseg_jax.evaluation import runner
    from unilseg_jax.evaluation.passport import weights_sha256
    from unilseg_jax.evaluation.predictor import Predictor
    from unilseg_jax.training import distributed

    distributed.connect(
        output,
        coordinator=arguments.coordinator,
        num_processes=arguments.num_processes,
        process_id=arguments.process_id,
        timeout=arguments.timeout,
    )
    process, processes = jax.process_index(), jax.process_count()
    console = Console(stderr=True, emoji=False)
    pretrained = _load(arguments.checkpoint)
    weights = weights_sha256(pretrained.variables)
    presence = _presence(arguments.presence, weights)
    predictor = Predictor(pretrained, input_size=arguments.input_size, dtype=arguments.dtype)
    stop = _Stop()
    done: list[dict[str, Any]] = []
    for work in _works(arguments, requests, predictor, weights, presence, console):
        results = runner.finished_results(work)
        if results is None:
            title = f"{work.facts.benchmark}:{work.facts.split}"
            with stop:
                journal = runner.judge_share(
                    work, process, processes, stop.leave, lambda units, title=title: _shown(units, title, console)
                )
            distributed.wait_for_all(title, arguments.timeout)
            if process == 0:
                if arguments.fit_presence:
                    _fit_presence(arguments.fit_presence, work, journal.collect(work.units), weights)
                results = runner.write_results(work, journal)
        elif process == 0:
            console.print(f"{work.folder} is there already", highlight=False)
        if results is not None:
            done.append(results)
    if process == 0:
        _print_table(done, output)


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m unilseg_jax.evaluate", description=__doc__.splitlines()[0].split(": ", 1)[1])
    parser.add_argument("--checkpoint", required=True, type=path_text, metavar="C", help="as for predict")
    parser.add_argument(
        "--benchmark",
        required=True,
        action="append",
        metavar="NAME[:SPLIT]",
        help=f"repeatable; {', '.join(benchmarks.BENCHMARKS)}; all; or run: the evaluations of the run's own config",
    )
    parser.add_argument("--data", type=path_text, default="prepared", metavar="DIR", help="what prepare wrote")
    parser.add_argument("--output", required=True, type=path_text, metavar="DIR", help="a folder per split goes there")
    parser.add_argument(
        "--protocol",
        choices=("both", "paper", "released"),
        default="both",
        help="paper: stretched, cut at 0.5; released: letterboxed, cut at 0.35 (default: both, in one pass)",
    )
    parser.add_argument("--max-images", type=positive_int, metavar="N", help="only the first N pictures (or videos)")
    parser.add_argument("--input-size", type=positive_int, metavar="PX", help="default: as the model was trained")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of matrix products")
    parser.add_argument("--presence", type=path_text, metavar="FILE", help="calibrated score of what is there at all")
    parser.add_argument("--fit-presence", type=path_text, metavar="FILE", help="fit it on this split and write it")
    several = parser.add_argument_group("several processes that share the work and see one --output")
    several.add_argument("--coordinator", default="", metavar="HOST:PORT", help="of process 0; or auto")
    several.add_argument("--num-processes", type=positive_int, default=0, metavar="N")
    several.add_argument("--process-id", type=int, default=-1, metavar="I")
    several.add_argument(
        "--timeout", type=float, default=1800.0, metavar="S", help="how long they wait for one another"
    )
    return parser


def _find(name: str) -> list[tuple[benchmarks.Benchmark | None, str]]:
    """Returns benchmarks with their splits; None stands for the run's own evaluations."""
    if name.partition(":")[0] == RUN:
        return [(None, name.partition(":")[2])]
    return list(benchmarks.find(name))


def _load(checkpoint: str) -> "Pretrained":
    if Path(checkpoint).is_dir():
        from unilseg_jax.training.checkpoint import load_pretrained

        return load_pretrained(checkpoint, with_carried=False)
    from unilseg_jax.interop.torch_import import load_released

    return load_released(checkpoint)


def _presence(path: str | None, weights: str) -> "PresenceModel | None":
    from unilseg_jax.evaluation.presence import PresenceModel

    if path is None:
        return None
    model = PresenceModel.load(path)
    if model.weights_sha256 != weights:
        raise UserError(f"--presence {path!r} was fitted for other weights; fit it again with --fit-presence")
    return model


def _fit_presence(path: str, work: "Work", found, weights: str) -> None:
    """Fits the presence score on what was found, and writes it."""
    import numpy as np

    from unilseg_jax.evaluation import presence

    coefficients = {
        protocol.name: presence.fit(
            np.stack([found.samples[f"{protocol.name}/{name}"] for name in presence.FEATURES], axis=1),
            found.samples["present"],
        )
        for protocol in work.judge.protocols
    }
    fitted_on = f"{work.facts.benchmark}:{work.facts.split}"
    presence.PresenceModel(coefficients=coefficients, fitted_on=fitted_on, weights_sha256=weights).save(path)
    print(f"fitted on {fitted_on}: {path}")


def _works(arguments: argparse.Namespace, requests, predictor, weights: str, presence, console) -> "Iterator[Work]":
    """Yields what is to be done; of `all`, what is not prepared is named and left out."""
    from unilseg_jax.evaluation import works

    own = [split for benchmark, split in requests if benchmark is None]
    for split in own:
        yield from works.of_run(arguments, split, predictor, weights)
    for benchmark, split in requests:
        if benchmark is None:
            continue
        try:
            yield works.of_benchmark(arguments, benchmark, split, predictor, weights, presence)
        except UserError as error:
            if arguments.benchmark != [benchmarks.ALL]:
                raise
            console.print(f"left out: {benchmark.name}:{split}: {error}", highlight=False, markup=False)


class _Stop:
    """Whether SIGTERM came, as a context."""

    def __init__(self):
        self._came = False

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, self._received)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self._came = True

    def leave(self) -> None:
        """Ends the work if the signal came."""
        if self._came:
            raise StoppedBySignal("SIGTERM came; finished work is kept, the same command goes on")


def _shown(units: Sequence[int], title: str, console: Console) -> Iterator[int]:
    """Yields units under a progress bar with the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as display:
        yield from display.track(units, description=title)


def _print_table(done: Iterable[dict[str, Any]], output: Path) -> None:
    from unilseg_jax.evaluation import runner

    table = Table("benchmark", "protocol", "prediction", "number", "value", "95 % interval")
    for results in done:
        for row in runner.headlines(results):
            table.add_row(*row)
    Console(file=sys.stdout, width=max(120, Console().width)).print(table)
    print(f"all numbers, with how they were counted: {output}/*/results.json; to look at: {output}/*/report.html")


if __name__ == "__main__":
    run_command(main)
