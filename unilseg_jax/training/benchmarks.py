"""Benchmarks of a run: its processes share them while it goes on, and judge as `evaluate` does.

What is finished is written down in the run's directory, so an evaluation that is broken off goes on where it was.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation import benchmarks, runner, works
from unilseg_jax.evaluation.passport import weights_sha256
from unilseg_jax.evaluation.predictor import Predictor
from unilseg_jax.evaluation.results_files import RESULTS_FILE
from unilseg_jax.input_pipeline.sources import Source, open_source
from unilseg_jax.interop.pretrained import Pretrained
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.training import distributed

FOLDER = "benchmarks"
"""In the run's directory; a folder for each evaluation."""


class Benchmarks:
    """Judges a model as it is; every process calls this, and each has the same results.

    Args:
        table: `config.benchmarks`.
        directory: of the run.
        architecture: of the model.
        input_size: side of the network's square in pixels.
        dtype: of matrix products.
        timeout: seconds that a process that is done waits for the others.

    Attributes:
        sources: what is judged, by the names of the table.

    Raises:
        UserError: there is no such benchmark, or its data is not there.
    """

    def __init__(
        self,
        table: ConfigDict,
        directory: Path,
        *,
        architecture: Architecture,
        input_size: int,
        dtype: str,
        timeout: float,
    ):
        self._table, self._directory, self._timeout = table, Path(directory), timeout
        self._architecture, self._input_size, self._dtype = architecture, input_size, dtype
        self._found = {name: _found(name, entry.name) for name, entry in table.items()}
        self.sources: dict[str, Source] = {
            name: open_source(benchmark.dataset, data_dir=table[name].data_dir, split=split)
            for name, (benchmark, split) in self._found.items()
        }

    def run(
        self, name: str, step: int, variables: dict, *, before_each: Callable[[], None] = lambda: None
    ) -> tuple[dict[str, Any], Path]:
        """Judges a benchmark.

        Args:
            name: of the table.
            step: of the run.
            variables: `params` and `batch_stats`, wherever their parts lie.
            before_each: called before each picture; what it raises ends the evaluation, and what is finished stays.

        Returns:
            What `results.json` holds, and its folder.
        """
        entry, (benchmark, split) = self._table[name], self._found[name]
        variables = distributed.on_host(variables)
        pretrained = Pretrained(architecture=self._architecture, variables=variables, input_size=self._input_size)
        options = works.Options(
            checkpoint=str(self._directory),
            output=str(self._directory / FOLDER / f"{name}_{step:07d}"),
            data=entry.data_dir,
            protocol=entry.protocol,
            max_images=entry.max_images or None,
            dtype=self._dtype,
        )
        predictor = Predictor(pretrained, dtype=self._dtype)
        work = works.of_benchmark(options, benchmark, split, predictor, weights_sha256(variables), None)
        if runner.finished_results(work) is None:
            self._judge(name, work, before_each)
        results = json.loads((work.folder / RESULTS_FILE).read_text(encoding="utf-8"))
        return results, work.folder

    def _judge(self, name: str, work: runner.Work, before_each: Callable[[], None]) -> None:
        process, processes = jax.process_index(), jax.process_count()
        journal = runner.judge_share(work, process, processes, before_each, lambda units: units)
        distributed.wait_for_all(f"the benchmark {name}", self._timeout)
        if process == 0:
            runner.write_results(work, journal)
        distributed.wait_for_all(f"the results of {name}", distributed.WEEK)


def numbers_of(results: dict[str, Any]) -> dict[str, float]:
    """Returns the scores of the first way of counting, the headline first."""
    first = results["numbers"][0]
    keys = dict.fromkeys([first["headline"], *first["metrics"]])
    return {key: first["metrics"][key] for key in keys if isinstance(first["metrics"].get(key), float)}


def _found(key: str, request: str) -> tuple[benchmarks.Benchmark, str]:
    try:
        benchmark, split = benchmarks.find(request)[0]
    except UserError as error:
        raise UserError(f"config.benchmarks.{key}.name: {error}") from None
    if not benchmark.scored:
        raise UserError(f"config.benchmarks.{key}.name = {request!r} scores nothing; name another benchmark")
    return benchmark, split
