"""What a run writes about leakage: `leakage.json`, and `leakage.jsonl` with a line per picture in a benchmark.

`leakage.json` holds the firewall's mode, the counts training source × benchmark (`overlaps`, `in_any`), a digest of
the records that are trained on (`records`), and what is known of the first weights (`init`, see `of_first_weights`).

A line of `leakage.jsonl` holds the training source and the number of the record in it, `image_id`, `coco_id`, the
benchmark, and what tells that it is the same picture: `by` "id" (COCO's) or "looks" (the hash alone).
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.leakage import MODES, Verdict
from unilseg_jax.input_pipeline.sources import RecordSource
from unilseg_jax.input_pipeline.visits import text_of

FILE = "leakage.json"
PICTURES_FILE = "leakage.jsonl"
MOST_READ = 20_000
"""Records per source that are read for their `image_id`, which takes seconds; it is null for further ones."""


def of_first_weights(model: str) -> dict | None:
    """Returns what is known of the data that a run's first weights were trained on.

    Args:
        model: `config.init.model`; what its run left as `leakage.json` is read.

    Returns:
        None if none are given; else `model`, `leakage` ("drop", "paper" if they or weights before them were trained
        on pictures of benchmarks, "unknown" for weights without that file), and for a run's weights `trained_on`,
        the number of such records, and `overlaps` of that run.

    Raises:
        UserError: the file is damaged.
    """
    if not model:
        return None
    path = Path(model) / FILE
    if not path.is_file():
        return {"model": str(model), "leakage": "unknown"}
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["mode"] not in MODES:
            raise ValueError(f"mode {run['mode']!r}")
        before, count = run.get("init") or {}, sum(run["in_any"].values()) if run["mode"] == "paper" else 0
        kinds = {run["mode"], before.get("leakage", "drop")}
        return {
            "model": str(model),
            "leakage": next(kind for kind in ("paper", "unknown", "drop") if kind in kinds),
            "trained_on": count + before.get("trained_on", 0),
            "overlaps": run["overlaps"],
        }
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise UserError(f"{str(path)!r} is damaged ({error}); restore it, or start from other weights") from None


def write(
    verdict: Verdict, directory: Path, sources: Mapping[str, object], *, init: dict | None = None, goes_on: bool = False
) -> Verdict:
    """Writes what was found; a run that goes on must train on the same records.

    Args:
        verdict: of the firewall.
        directory: of the run.
        sources: of the training by name, whole: what `check` was given the indices of.
        init: see `of_first_weights`; a run that goes on keeps what it was started with.
        goes_on: whether the run has a checkpoint. One that has none may start with other records.

    Returns:
        The verdict, with what is inherited from the first weights.

    Raises:
        UserError: the run there was started with another choice of records.
    """
    path = Path(directory) / FILE
    if goes_on and path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            same = (before["mode"], before["records"]) == (verdict.mode, verdict.records)
            init = before.get("init")
            inherited = _inherited(init)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{str(path)!r} is damaged ({error}); name another workdir") from None
        if not same:
            raise UserError(
                f"{str(path)!r} says that this run was started with other training records; give the same sources, "
                "benchmarks and config.firewall.mode, or name another workdir"
            )
    else:
        inherited = _inherited(init)
    counts = {"overlaps": verdict.overlaps, "in_any": verdict.in_any}
    now = {"mode": verdict.mode, "init": init, **counts, "records": verdict.records}
    _replace(Path(directory) / PICTURES_FILE, "".join(json.dumps(line) + "\n" for line in pictures(verdict, sources)))
    _replace(path, json.dumps(now, indent=2) + "\n")
    return dataclasses.replace(verdict, inherited=inherited)


def pictures(verdict: Verdict, sources: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Yields the lines of `leakage.jsonl`; only the records that are in a benchmark are read.

    Args:
        verdict: of the firewall.
        sources: see `write`.
    """
    for name, matches in verdict.matches.items():
        source, ids = sources[name], dict[int, str | None]()
        assert isinstance(source, RecordSource)
        for benchmark, found in matches.items():
            for row, coco_id, same_id in zip(found.rows.tolist(), found.coco_id.tolist(), found.same_id, strict=True):
                if row not in ids:
                    ids[row] = text_of(source.record(row)["image_id"]) if len(ids) < MOST_READ else None
                yield {
                    "source": name,
                    "record": row,
                    "image_id": ids[row],
                    "coco_id": coco_id,
                    "benchmark": benchmark,
                    "by": "id" if same_id else "looks",
                }


def _inherited(init: dict | None) -> int | None:
    return init["trained_on"] if init and init["leakage"] == "paper" else None


def _replace(path: Path, text: str) -> None:
    """Writes a file in one move; removes it if there is nothing to be written."""
    if not text:
        path.unlink(missing_ok=True)
        return
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
