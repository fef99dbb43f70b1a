"""From what a user asks for to what is to be done: opens the data, chooses the judge, states the facts."""

import argparse
import json
from pathlib import Path

import jax

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.benchmarks import Benchmark
from unilseg_jax.evaluation.judges import JUDGES
from unilseg_jax.evaluation.judges.referring import GeneralizedJudge, ReferringJudge
from unilseg_jax.evaluation.leakage_status import leakage_status
from unilseg_jax.evaluation.passport import Facts
from unilseg_jax.evaluation.predictor import Predictor
from unilseg_jax.evaluation.presence import PresenceModel
from unilseg_jax.evaluation.protocols import PROTOCOLS, Protocol
from unilseg_jax.evaluation.runner import Work, data_identity, images_of
from unilseg_jax.input_pipeline.conversion import read_report
from unilseg_jax.input_pipeline.loader import make_source
from unilseg_jax.input_pipeline.sources import TripletSource, open_source


def of_benchmark(
    arguments: argparse.Namespace,
    benchmark: Benchmark,
    split: str,
    predictor: Predictor,
    weights: str,
    presence: PresenceModel | None,
) -> Work:
    """Returns the work on a split of a benchmark.

    Args:
        arguments: of the command.
        benchmark: of the table.
        split: of its data set.
        predictor: the model.
        weights: their hash.
        presence: for expressions that may mean nothing.

    Raises:
        UserError: the data is not there.
    """
    source = open_source(benchmark.dataset, data_dir=arguments.data, split=split)
    protocols = [one for one in PROTOCOLS.values() if arguments.protocol in ("both", one.name)]
    more = {"presence": presence} if JUDGES[benchmark.task] is GeneralizedJudge else {}
    judge = JUDGES[benchmark.task](source, predictor, protocols, benchmark.vocabulary, **more)
    units = min(len(judge), arguments.max_images or len(judge))
    fitted = {"presence_fitted_on": presence.fitted_on} if presence and more else {}
    facts = Facts(
        benchmark=benchmark.name,
        split=split,
        images=images_of(judge, units),
        complete=units == len(judge) and _is_whole(source, split),
        weights_sha256=weights,
        input_size=predictor.input_size,
        dtype=arguments.dtype,
        leakage=leakage_status(arguments.checkpoint, benchmark.dataset, split),
        more={"remark": benchmark.remark, "data": data_identity(judge), "device": jax.default_backend(), **fitted},
    )
    folder = Path(arguments.output) / f"{benchmark.name}-{split}"
    return Work(
        judge=judge, facts=facts, task=benchmark.task, checkpoint=arguments.checkpoint, folder=folder, units=units
    )


def of_run(arguments: argparse.Namespace, name: str, predictor: Predictor, weights: str) -> list[Work]:
    """Returns the work on the evaluations of a run's own config, with its ways of resizing and cutting.

    Args:
        arguments: of the command; the checkpoint is the run's directory.
        name: of one evaluation; "" for all.
        predictor: the model.
        weights: their hash.

    Raises:
        UserError: the checkpoint is no run, or has no such evaluation.
    """
    path = Path(arguments.checkpoint) / "config.json"
    if not path.is_file():
        raise UserError(f"--benchmark run wants the directory of a training run, {arguments.checkpoint!r} is none")
    evals = json.loads(path.read_text(encoding="utf-8"))["evals"]
    if name and name not in evals:
        raise UserError(f"the run has no evaluation {name!r}; it has {', '.join(evals) or 'none'}")
    works = []
    for key in [name] if name else evals:
        entry = evals[key]
        protocol = _protocol(entry["resize"], entry["threshold"])
        source = make_source(entry["source"])
        judge = ReferringJudge(source, predictor, [protocol])
        limits = [limit for limit in (entry["max_images"], arguments.max_images) if limit]
        units = min([len(judge), *limits])
        dataset, split = entry["source"]["name"], entry["source"].get("split", key)
        facts = Facts(
            benchmark=f"run/{key}",
            split=split,
            images=units,
            complete=units == len(judge),
            weights_sha256=weights,
            input_size=predictor.input_size,
            dtype=arguments.dtype,
            leakage=leakage_status(arguments.checkpoint, dataset, split),
            more={"data": data_identity(judge), "device": jax.default_backend()},
        )
        folder = Path(arguments.output) / f"run-{key}"
        works.append(
            Work(
                judge=judge, facts=facts, task="referring", checkpoint=arguments.checkpoint, folder=folder, units=units
            )
        )
    return works


def _protocol(resize: str, threshold: float) -> Protocol:
    """Returns the protocol of that way of resizing and cutting; one that is neither has a name that says so."""
    known = next((one for one in PROTOCOLS.values() if (one.resize, one.threshold) == (resize, threshold)), None)
    return known or Protocol(name=f"{resize}, {threshold:g}", resize=resize, threshold=threshold)


def _is_whole(source: TripletSource, split: str) -> bool:
    """Whether a prepared split holds as much as its authors published, as far as they say."""
    counts, published = read_report(source.directory)
    wanted = published.get(split)
    if wanted is None or split not in counts:
        return False
    sizes = ("pictures", "objects", "phrases", "videos", "expressions")
    pairs = [(getattr(counts[split], name, None), getattr(wanted, name, None)) for name in sizes]
    return all(other is None or one == other for one, other in pairs)
