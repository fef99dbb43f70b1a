"""Evaluates one split of a benchmark: shares the work, writes down what is finished, makes results and report."""

import csv
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation import curves, html_report, submission, video_view
from unilseg_jax.evaluation.journal import Journal
from unilseg_jax.evaluation.judged import choose
from unilseg_jax.evaluation.judges.base import Judge, Rows, UnitResult
from unilseg_jax.evaluation.judges.salient import SalientJudge
from unilseg_jax.evaluation.judges.video import VideoJudge
from unilseg_jax.evaluation.passport import Facts, entries, versions
from unilseg_jax.evaluation.report import without_nan
from unilseg_jax.evaluation.results_files import RESULTS_FILE, SCHEMA_VERSION
from unilseg_jax.input_pipeline.sources import TripletSource
from unilseg_jax.interop.output import written_whole

SAMPLES_FILE = "samples.csv"
FILES = ("report.html", SAMPLES_FILE, "curves.png", "*.gif", "submission-*.zip")
"""What there is in a result's folder beside its results."""
PART = "-part"
"""Ends the name of a submission that is not of all videos."""
EXAMPLES = 4
"""Predictions of each group in the report."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be done for one split.

    Attributes:
        judge: of the task, with source and model.
        facts: of all its numbers.
        task: name of the task.
        checkpoint: as the user named it.
        folder: where the results go.
        units: how many of the judge's units are judged, from the first on.
    """

    judge: Judge
    facts: Facts
    task: str
    checkpoint: str
    folder: Path
    units: int

    @property
    def fingerprint(self) -> str:
        """Tells this work from any other: weights, data, settings, versions."""
        described = json.dumps(
            [
                self.facts._asdict(),
                self.task,
                self.units,
                [one.described() for one in self.judge.variants],
                versions(),
            ],
            sort_keys=True,
        )
        return hashlib.sha256(described.encode()).hexdigest()[:12]

    @property
    def journal_folder(self) -> Path:
        """Where finished units are written down until there are results."""
        return self.folder / f"work-{self.fingerprint}"


def finished_results(work: Work) -> dict[str, Any] | None:
    """Returns the results of exactly this work if they are there, else None."""
    try:
        results = json.loads((work.folder / RESULTS_FILE).read_text(encoding="utf-8"))
        return results if results["work"] == work.fingerprint else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def refuse_to_replace_more(work: Work) -> None:
    """Refuses work on a part of a split whose results would replace those of more of it.

    Raises:
        UserError: names the folder.
    """
    if work.units == len(work.judge) or finished_results(work) is not None:
        return
    try:
        results = json.loads((work.folder / RESULTS_FILE).read_text(encoding="utf-8"))
        images = max((int(entry["passport"]["images"]) for entry in results["numbers"]), default=0)
    except (OSError, ValueError, LookupError, TypeError):
        images = 0
    # Where nothing is scored there are no numbers to tell it by.
    whole = any(not path.stem.endswith(PART) for path in work.folder.glob("submission-*.zip"))
    if images > work.facts.images or whole:
        held = f"{images} pictures" if images > work.facts.images else "the whole split"
        raise UserError(
            f"{str(work.folder)!r} holds results of {held}, which those of the first {work.facts.images} alone would "
            "replace; name another --output"
        )


def judge_share(
    work: Work, process: int, processes: int, leave: Callable[[], None], progress: Callable[[Iterable], Iterable]
) -> Journal:
    """Judges the units of this process that are not finished, and writes them down.

    Args:
        work: to be shared.
        process: number of this process.
        processes: that share the work: each takes every so many-th unit.
        leave: called before and after each unit; what it raises ends the work, and what is finished stays.
        progress: shows how far it is.
    """
    journal = Journal(work.journal_folder, process)
    if isinstance(work.judge, VideoJudge):
        work.judge.masks_folder = work.journal_folder
    done = journal.done()
    mine = [unit for unit in range(process, work.units, processes) if unit not in done]
    try:
        for unit in progress(mine):
            leave()
            journal.add(unit, work.judge.judge(unit))
        leave()
    finally:
        journal.flush()
    return journal


def write_results(work: Work, journal: Journal) -> dict[str, Any]:
    """Puts together what all processes found; `results.json` comes last, so that it stands for the whole folder.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: work is missing, or a file cannot be written.
    """
    found = journal.collect(work.units)
    for pattern in (RESULTS_FILE, *FILES):  # of another work
        for path in work.folder.glob(pattern):
            path.unlink()
    results = {
        "schema_version": SCHEMA_VERSION,
        "benchmark": work.facts.benchmark,
        "split": work.facts.split,
        "task": work.task,
        "checkpoint": work.checkpoint,
        "work": work.fingerprint,
        "numbers": without_nan(entries(work.judge, found, work.facts)),
    }
    chosen = _chosen(found)
    examples = {group: [work.judge.draw(*key) for key in keys] for group, keys in chosen.items()}
    saliency = None
    if isinstance(work.judge, SalientJudge):
        variant = work.judge.variants[0]
        saliency = variant.metric().with_rows(found.rows[variant.rows]).curves()
        curves.write_curves(work.folder / "curves.png", saliency, f"{work.facts.benchmark} {work.facts.split}")
    if isinstance(work.judge, VideoJudge):
        _write_videos(work, chosen)
    html_report.write_report(work.folder / "report.html", results, examples, saliency)
    _write_samples(work.folder / SAMPLES_FILE, found.samples)
    with written_whole(work.folder / RESULTS_FILE) as partial:
        partial.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    journal.remove()
    return results


def _write_samples(path: Path, samples: Rows) -> None:
    """Writes a line per sample, by which two models can be compared picture by picture."""
    names = ("image", "phrase", "kind", "score")
    with (
        written_whole(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        lines = csv.writer(file)
        lines.writerow(names)
        for *texts, score in zip(*(samples[name].tolist() for name in names), strict=True):
            lines.writerow([*texts, "" if math.isnan(score) else score])


def _chosen(found: UnitResult) -> dict[str, list[tuple[int, int]]]:
    """Returns the units and numbers of the best, the median and the worst samples."""
    keys = zip(found.samples["unit"].tolist(), found.samples["number"].tolist(), strict=True)
    scored = [(score, key) for score, key in zip(found.samples["score"].tolist(), keys, strict=True)]
    return choose([pair for pair in scored if not math.isnan(pair[0])], EXAMPLES)


def _write_videos(work: Work, chosen: dict[str, list[tuple[int, int]]]) -> None:
    """Writes the submissions, and a view of the best, the median and the worst expression.

    A submission of some of the videos says so in its name; each is checked against what it must hold.
    """
    judge = work.judge
    assert isinstance(judge, VideoJudge)
    if judge.writes_submissions:
        part = "" if work.units == len(judge) else PART
        wanted = judge.wanted_masks(work.units)
        for protocol in judge.protocols:
            parts = [judge.masks_file(protocol, unit) for unit in range(work.units)]
            path = work.folder / f"submission-{protocol.name}{part}.zip"
            submission.join(parts, path)
            submission.check(path, wanted)
    for group, keys in chosen.items():
        for key in keys[:1]:
            shown = judge.view(*key)
            video_view.write_video_view(
                work.folder / f"{group}.gif", shown.images, shown.predictions, shown.targets, shown.phrase
            )


def images_of(judge: Judge, units: int) -> int:
    """Returns how many pictures the first units hold."""
    if isinstance(judge, VideoJudge):
        return sum(len(frames) for _, frames in judge.videos[:units])
    return units


def headlines(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Returns for a table the headline of the first way of counting under each protocol, with its interval.

    Of expressions that may mean nothing, each rule for that has rows of its own.

    Returns:
        Benchmark with split, pictures, protocol, what is judged, number, value, interval.
    """
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for entry in results["numbers"]:
        passport, key = entry["passport"], entry["headline"]
        value, span = entry["metrics"].get(key), entry["intervals"].get(key)
        rows.setdefault(
            (passport["protocol"], passport["prediction"] if results["task"] == "generalized" else ""),
            (
                f"{results['benchmark']}:{results['split']}",
                f"{passport['images']}" + ("" if passport["complete"] else ", not the published split"),
                passport["protocol"],
                passport["prediction"],
                html_report.METRICS.get(key, key),
                "–" if value is None else f"{value:.4f}",
                "–" if span is None else f"{span[0]:.4f} to {span[1]:.4f}",
            ),
        )
    return list(rows.values())


def data_identity(judge: Judge) -> str:
    """Returns a hash of all records of the source: pictures, masks and phrases."""
    source = judge.source
    if not isinstance(source, TripletSource):
        return repr(source)
    return _hash_of_records(source.directory, source.split, len(source))


@functools.lru_cache(maxsize=64)
def _hash_of_records(directory: Path, split: str, length: int) -> str:
    """Returns the hash of a whole split; a run that judges it time and again reads it once."""
    source, digest = TripletSource(directory, split, length), hashlib.sha256()
    for number in range(length):
        record = source.record(number)
        for name in sorted(record):
            value = record[name]
            digest.update(name.encode())
            digest.update(value if isinstance(value, bytes) else repr(np.asarray(value).tolist()).encode())
    return digest.hexdigest()[:16]
