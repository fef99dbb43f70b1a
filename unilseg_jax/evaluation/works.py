"""From what a user asks for to what is to be done: opens the data, chooses the judge, states the facts."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import jax

from unilseg_jax.errors import UserError, reason_of
from unilseg_jax.evaluation.benchmarks import Benchmark
from unilseg_jax.evaluation.judges import JUDGES
from unilseg_jax.evaluation.judges.referring import GeneralizedJudge, ReferringJudge
from unilseg_jax.evaluation.leakage_status import leakage_status, vocabulary_setting
from unilseg_jax.evaluation.passport import Facts
from unilseg_jax.evaluation.predictor import Predictor
from unilseg_jax.evaluation.presence import PresenceModel
from unilseg_jax.evaluation.protocols import PROTOCOLS, Protocol
from unilseg_jax.evaluation.runner import Work, data_identity, images_of
from unilseg_jax.input_pipeline.conversion import read_report
from unilseg_jax.input_pipeline.loader import make_source
from unilseg_jax.input_pipeline.sources import Source, TripletSource, open_source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a user decides for all works.

    Attributes:
        checkpoint: as it was named.
        output: folder that gets a folder per work.
        data: what `prepare` wrote.
        protocol: "both", or the name of one.
        max_images: only the first so many pictures or videos; None for all.
        dtype: of matrix products, for the passport.
    """

    checkpoint: str
    output: str
    data: str
    protocol: str = "both"
    max_images: int | None = None
    dtype: str = "float32"


def of_benchmark(
    options: Options,
    benchmark: Benchmark,
    split: str,
    predictor: Predictor,
    weights: str,
    presence: PresenceModel | None,
) -> Work:
    """Returns the work on a split of a benchmark.

    Args:
        options: of all works.
        benchmark: of the table.
        split: of its data set.
        predictor: the model.
        weights: their hash.
        presence: for expressions that may mean nothing.

    Raises:
        UserError: the data is not there, or the presence score does not fit.
    """
    source = open_source(benchmark.dataset, data_dir=options.data, split=split)
    protocols = [one for one in PROTOCOLS.values() if options.protocol in ("both", one.name)]
    more = {"presence": presence} if JUDGES[benchmark.task] is GeneralizedJudge else {}
    if presence and more:
        _check_presence(presence, f"{benchmark.name}:{split}", protocols)
    judge = JUDGES[benchmark.task](source, predictor, protocols, benchmark.vocabulary, **more)
    units = min(len(judge), options.max_images or len(judge))
    setting = {"setting": vocabulary_setting(options.checkpoint, benchmark.dataset)} if benchmark.vocabulary else {}
    fitted = {"presence_fitted_on": presence.fitted_on, "presence": _digest(presence)} if presence and more else {}
    facts = Facts(
        benchmark=benchmark.name,
        split=split,
        images=images_of(judge, units),
        complete=units == len(judge) and _is_whole(source, split, benchmark.pictures),
        weights_sha256=weights,
        input_size=predictor.input_size,
        dtype=options.dtype,
        leakage=leakage_status(options.checkpoint, benchmark.dataset, split),
        more={
            "remark": benchmark.remark,
            "data": data_identity(judge),
            "device": jax.default_backend(),
            **({"published_size": "unknown"} if not _has_published_size(source, split) else {}),
            **setting,
            **fitted,
        },
    )
    folder = Path(options.output) / f"{benchmark.name}-{split}"
    return Work(
        judge=judge, facts=facts, task=benchmark.task, checkpoint=options.checkpoint, folder=folder, units=units
    )


def of_run(options: Options, name: str, predictor: Predictor, weights: str) -> list[Work]:
    """Returns the work on the evaluations of a run's own config, with its ways of resizing and cutting.

    Args:
        options: of all works; the checkpoint is the run's directory.
        name: of one evaluation; "" for all.
        predictor: the model.
        weights: their hash.

    Raises:
        UserError: the checkpoint is no run, or has no such evaluation.
    """
    path = Path(options.checkpoint) / "config.json"
    if not path.is_file():
        raise UserError(f"--benchmark run wants the directory of a training run, {options.checkpoint!r} is none")
    try:
        evals = json.loads(path.read_text(encoding="utf-8"))["evals"]
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {reason_of(error)}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{str(path)!r} is damaged ({error}); restore it") from None
    if name and name not in evals:
        raise UserError(f"the run has no evaluation {name!r}; it has {', '.join(evals) or 'none'}")
    works = []
    for key in [name] if name else evals:
        entry = evals[key]
        protocol = _protocol(entry["resize"], entry["threshold"])
        source = make_source(entry["source"])
        judge = ReferringJudge(source, predictor, [protocol])
        limits = [limit for limit in (entry["max_images"], options.max_images) if limit]
        units = min([len(judge), *limits])
        dataset, split = entry["source"]["name"], entry["source"].get("split", key)
        facts = Facts(
            benchmark=f"run/{key}",
            split=split,
            images=units,
            complete=units == len(judge) and _is_whole(source, split),
            weights_sha256=weights,
            input_size=predictor.input_size,
            dtype=options.dtype,
            leakage=leakage_status(options.checkpoint, dataset, split),
            more={"data": data_identity(judge), "device": jax.default_backend()},
        )
        folder = Path(options.output) / f"run-{key}"
        works.append(
            Work(judge=judge, facts=facts, task="referring", checkpoint=options.checkpoint, folder=folder, units=units)
        )
    return works


def _check_presence(presence: PresenceModel, where: str, protocols: Sequence[Protocol]) -> None:
    """Refuses a score that was fitted for other protocols, or on what is judged."""
    for one in protocols:
        presence.check_protocol(one.name)
    if presence.fitted_on == where:
        raise UserError(f"the presence score was fitted on {where} itself; fit it on another split")


def _digest(presence: PresenceModel) -> str:
    """Returns a short hash of the coefficients, by which two fits on one split are told apart."""
    rows = {name: [float(one) for one in row] for name, row in presence.coefficients.items()}
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:12]


def _protocol(resize: str, threshold: float) -> Protocol:
    """Returns the protocol of that way of resizing and cutting; one that is neither has a name that says so."""
    known = next((one for one in PROTOCOLS.values() if (one.resize, one.threshold) == (resize, threshold)), None)
    return known or Protocol(name=f"{resize}, {threshold:g}", resize=resize, threshold=threshold)


def _has_published_size(source: TripletSource, split: str) -> bool:
    return split in read_report(source.directory)[1]


def _is_whole(source: Source, split: str, pictures: tuple[int, ...] = ()) -> bool:
    """Whether a split holds as much as its authors published; where they publish nothing, whether nothing was skipped.

    Args:
        source: of the split; scenes that are drawn are whole.
        split: its name.
        pictures: how many there may be; empty takes the published sizes.
    """
    if not isinstance(source, TripletSource):
        return True
    counts, published = read_report(source.directory)
    if split not in counts:
        return False
    found, wanted = counts[split], published.get(split)
    if pictures:
        return found.pictures in pictures
    if wanted is None:
        return not found.skipped
    sizes = ("pictures", "objects", "phrases", "videos", "expressions")
    pairs = [(getattr(found, name, None), getattr(wanted, name, None)) for name in sizes]
    # Of videos the plan is counted, so what was skipped would not show.
    return all(other is None or one == other for one, other in pairs) and not (wanted.videos and found.skipped)
