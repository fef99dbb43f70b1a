"""Command: evaluates a model on benchmarks; writes results.json, a report and what else belongs to the task.

Usage: python -m unilseg_jax.evaluate --checkpoint C --benchmark NAME[:SPLIT] [--benchmark ...] --data DIR --output DIR
"""

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from unilseg_jax.command_line import OneLineParser, path_text, positive_int, positive_seconds
from unilseg_jax.errors import StoppedBySignal, UserError, run_command
from unilseg_jax.evaluation import benchmarks
from unilseg_jax.interop.output import check_parents

if TYPE_CHECKING:  # main imports them once the arguments were checked: they bring JAX
    from unilseg_jax.evaluation.judges.base import UnitResult
    from unilseg_jax.evaluation.predictor import Predictor
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
    requests = _requests(arguments.benchmark)
    _check_paths(arguments, requests)
    with _Stop() as stop:
        _evaluate(arguments, requests, stop)


def _evaluate(arguments: argparse.Namespace, requests: "Sequence[_Request]", stop: "_Stop") -> None:
    output = Path(arguments.output)

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
        names=distributed.Names("--coordinator", "--num-processes", "--process-id"),
        stops_together=False,
        leave=stop.leave,
    )
    process, processes = jax.process_index(), jax.process_count()
    # The first process speaks for all.
    console = Console(stderr=True, emoji=False, quiet=process > 0)
    pretrained = _load(arguments.checkpoint)
    weights = weights_sha256(pretrained.variables)
    presence = None
    if arguments.presence:
        from unilseg_jax.evaluation.presence import PresenceModel

        presence = PresenceModel.of_weights(arguments.presence, weights)
    predictor = Predictor(pretrained, input_size=arguments.input_size, dtype=arguments.dtype)
    # Opened before any is judged: what is missing should be known now, not after hours.
    works = _works(arguments, requests, predictor, weights, presence, console)
    for work in works:
        runner.refuse_to_replace_more(work)
    stop.leave()
    done: list[dict[str, Any]] = []
    with _said_on_interrupt():
        for work in works:
            # Finished results do not hold what the presence score is fitted on.
            results = None if arguments.fit_presence else runner.finished_results(work)
            if results is None:
                _warn_of_other_results(work, console)
                title = f"{work.facts.benchmark}:{work.facts.split}"
                journal = runner.judge_share(
                    work, process, processes, stop.leave, lambda units, title=title: _shown(units, title, console)
                )
                distributed.wait_for_all(title, arguments.timeout, stop.leave)
                if process == 0:
                    if arguments.fit_presence:
                        _fit_presence(arguments.fit_presence, work, journal.collect(work.units), weights)
                    results = runner.write_results(work, journal)
                # One process writes the results, which takes as long as it takes; the others must not leave before.
                distributed.wait_for_all(f"the results of {title}", distributed.WEEK, stop.leave)
            else:
                console.print(f"{work.folder} is there already", highlight=False, markup=False, soft_wrap=True)
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
        "--timeout", type=positive_seconds, default=1800.0, metavar="S", help="how long they wait for one another"
    )
    return parser


def _check_paths(arguments: argparse.Namespace, requests: Sequence["_Request"]) -> None:
    """Refuses what cannot be read or written, before the model is loaded."""
    if not Path(arguments.checkpoint).exists():
        raise UserError(f"no such checkpoint: {arguments.checkpoint!r}; check the path")
    if any(one.benchmark for one in requests) and not Path(arguments.data).is_dir():
        raise UserError(f"--data {arguments.data!r} is no folder; name what prepare was given as --out")
    tasks = [one.benchmark.task if one.benchmark else RUN for one in requests]
    if arguments.presence and "generalized" not in tasks:
        raise UserError("--presence is read for grefcoco alone, which is not asked for; leave it out")
    if arguments.presence and not Path(arguments.presence).is_file():
        raise UserError(f"no such presence file: {arguments.presence!r}; make it with --fit-presence")
    output = Path(arguments.output)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {arguments.output!r} is a file, a folder is wanted")
    check_parents(output)
    if arguments.fit_presence:
        if tasks != ["generalized"]:
            raise UserError("--fit-presence wants one split of grefcoco and no other benchmark, such as grefcoco:train")
        if Path(arguments.fit_presence).is_dir():
            raise UserError(f"--fit-presence {arguments.fit_presence!r} is a folder, a file is wanted")
        check_parents(Path(arguments.fit_presence))
        _check_presence_file(Path(arguments.fit_presence))


def _check_presence_file(path: Path) -> None:
    """Refuses to replace what is no presence file."""
    if path.exists():
        from unilseg_jax.evaluation.presence import PresenceModel

        try:
            PresenceModel.load(path)
        except UserError:
            raise UserError(f"--fit-presence {str(path)!r} is there and is no presence file; name a new one") from None


class _Request(NamedTuple):
    """A split of a benchmark that is asked for.

    Attributes:
        benchmark: of the table; None stands for the run's own evaluations.
        split: of the benchmark, or the name of an evaluation, "" for all of them.
        by_name: whether it was named, not only meant by `all`.
    """

    benchmark: benchmarks.Benchmark | None
    split: str
    by_name: bool = True


def _requests(names: Sequence[str]) -> list[_Request]:
    """Returns what is asked for, each once."""
    found: dict[tuple[benchmarks.Benchmark | None, str], bool] = {}
    for name in names:
        first, colon, rest = name.partition(":")
        if first == RUN and (rest or not colon):
            pairs = [(None, rest)]
        else:
            pairs = benchmarks.find(name)
        for pair in pairs:
            found[pair] = found.get(pair, False) or name != benchmarks.ALL
    if (None, "") in found:  # they hold the others
        found = {pair: by_name for pair, by_name in found.items() if pair[0] or not pair[1]}
    return [_Request(*pair, by_name) for pair, by_name in found.items()]


def _load(checkpoint: str) -> "Pretrained":
    if Path(checkpoint).is_dir():
        from unilseg_jax.training.model_directory import load_pretrained

        return load_pretrained(checkpoint, with_carried=False)
    from unilseg_jax.interop.torch_import import load_released

    return load_released(checkpoint)


def _fit_presence(path: str, work: "Work", found: "UnitResult", weights: str) -> None:
    """Fits the presence score on what was found, writes it, and says how well it tells."""
    import numpy as np

    from unilseg_jax.evaluation import presence

    present = found.samples["present"]
    statistics = {
        protocol.name: np.stack([found.samples[f"{protocol.name}/{name}"] for name in presence.FEATURES], axis=1)
        for protocol in work.judge.protocols
    }
    fitted_on = f"{work.facts.benchmark}:{work.facts.split}"
    model = presence.PresenceModel(
        coefficients={protocol: presence.fit(rows, present) for protocol, rows in statistics.items()},
        fitted_on=fitted_on,
        weights_sha256=weights,
    )
    model.save(path)
    print(f"fitted on {fitted_on}: {path}")
    for protocol, rows in statistics.items():
        there_right, nothing_right = presence.quality(model, rows, present, protocol)
        print(
            f"  {protocol}: there, {there_right:.1%} of {present.sum():,} told right; nothing there, "
            f"{nothing_right:.1%} of {(~present).sum():,} (on the split that it was fitted on)"
        )


def _works(
    arguments: argparse.Namespace,
    requests: Sequence[_Request],
    predictor: "Predictor",
    weights: str,
    presence: "PresenceModel | None",
    console: Console,
) -> "list[Work]":
    """Returns what is to be done; of `all`, what is not prepared is named and left out."""
    from unilseg_jax.evaluation import works

    options = works.Options(
        checkpoint=arguments.checkpoint,
        output=arguments.output,
        data=arguments.data,
        protocol=arguments.protocol,
        max_images=arguments.max_images,
        dtype=arguments.dtype,
    )
    found, left_out = [], []
    for benchmark, split, by_name in requests:
        if benchmark is None:
            found += works.of_run(options, split, predictor, weights)
            continue
        try:
            found.append(works.of_benchmark(options, benchmark, split, predictor, weights, presence))
        except UserError as error:
            if by_name:
                raise
            left_out.append(f"left out: {benchmark.name}:{split}: {error}")
    if not found:
        raise UserError(f"no benchmark is prepared in {arguments.data!r}; name what prepare wrote with --data")
    for line in left_out:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return found


def _warn_of_other_results(work: "Work", console: Console) -> None:
    from unilseg_jax.evaluation.results_files import RESULTS_FILE

    if (work.folder / RESULTS_FILE).exists():
        console.print(
            f"note: {work.folder} holds results of other weights, data or settings; they are replaced once these are "
            "done (another --output keeps both)",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


@contextlib.contextmanager
def _said_on_interrupt() -> Iterator[None]:
    """Says that Ctrl-C loses nothing."""
    try:
        yield
    except KeyboardInterrupt:
        print("finished work is kept, the same command goes on", file=sys.stderr)
        raise


class _Stop:
    """Whether SIGTERM came, as a context."""

    def __init__(self):
        self._came = False

    def __enter__(self) -> "_Stop":
        self._before = signal.signal(signal.SIGTERM, self._received)
        return self

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

    table = Table("benchmark", "pictures", "protocol", "prediction", "number", "value", "95 % interval")
    for results in done:
        for row in runner.headlines(results):
            table.add_row(*row)
    Console(file=sys.stdout, width=max(120, Console().width)).print(table)
    print(f"all numbers, with how they were counted: {output}/*/results.json; to look at: {output}/*/report.html")


if __name__ == "__main__":
    run_command(main)
