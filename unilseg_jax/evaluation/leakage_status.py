"""What weights have seen of a benchmark, as far as their own run has written it down: its pictures, its classes."""

import json
from pathlib import Path
from typing import Any

from unilseg_jax.errors import UserError, reason_of
from unilseg_jax.evaluation.benchmarks import BENCHMARKS
from unilseg_jax.input_pipeline import leakage_files

SCENES = "scenes"


def leakage_status(checkpoint: str, dataset: str, split: str) -> dict[str, Any]:
    """Returns `status` and `reason`.

    "clean": the run looked for the benchmark's pictures and left them out, or found none, or was trained on drawn
    scenes alone, and so did the runs that its first weights come from. "leaky": it was trained on some. "unknown":
    nobody looked. Published encoders (`config.init.swin` and `clip`) do not count.

    Args:
        checkpoint: as it is evaluated; what the directory of a run says is read.
        dataset: the benchmark's prepared set, such as `refcoco/refcoco`.
        split: of it.

    Raises:
        UserError: a file of the run is damaged.
    """
    directory = Path(checkpoint)
    config, found = _read(directory / "config.json"), _read(directory / leakage_files.FILE)
    if config is None or found is None:
        return _status("unknown", "these weights do not say what they were trained on")
    try:
        before = (found.get("init") or {}).get("leakage")
        first = str(config.get("init", {}).get("model", ""))
        names = _entries_of(config, dataset, split)
        sources = list(config["input"]["sources"].values())
        trained = [entry["name"] for entry in sources]
        itself = any((_whole(one["name"]), one.get("split")) == (_whole(dataset), split) for one in sources)
        counts = [row.get(name, 0) for row in found["overlaps"].values() for name in names]
        kept = sum(counts) if found["mode"] == "paper" else 0
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{checkpoint!r}: its config.json or {leakage_files.FILE} is damaged ({error})") from None
    if kept:
        return _status("leaky", f"trained on {kept} pictures of this split (config.firewall.mode was paper)")
    if itself and not names:
        return _status("leaky", "trained on this very split")
    if before == "paper":
        return _status("leaky", "its first weights were trained on pictures of benchmarks")
    if first:
        earlier = leakage_status(first, dataset, split)
        if earlier["status"] != "clean":
            return _status(earlier["status"], f"started from {first}: {earlier['reason']}")
    if trained and all(name == SCENES for name in trained):
        return _status(
            "clean", "trained on drawn scenes alone" if first else "trained from scratch on drawn scenes alone"
        )
    if not names:
        return _status("unknown", "its run did not look for this split; name it in config.firewall.benchmarks")
    return _status("clean", f"its run looked for this split and left out {sum(counts)} pictures")


def vocabulary_setting(checkpoint: str, dataset: str) -> str:
    """Returns whether weights know a set's classes.

    "in vocabulary": they were trained on the set (paper Table 5). "open vocabulary": they were not (Table 4).
    "unknown": their run does not say all.

    Args:
        checkpoint: as it is evaluated.
        dataset: the benchmark's prepared set, such as `ade20k/ade20k`.

    Raises:
        UserError: a file of the run is damaged.
    """
    config = _read(Path(checkpoint) / "config.json")
    if config is None:
        return "unknown"
    try:
        trained = {entry["name"].partition("/")[0] for entry in config["input"]["sources"].values()}
        first = str(config.get("init", {}).get("model", ""))
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{checkpoint!r}: its config.json is damaged ({error})") from None
    if dataset.partition("/")[0] in trained:
        return "in vocabulary"
    return vocabulary_setting(first, dataset) if first else "open vocabulary"


def _entries_of(config: dict, dataset: str, split: str) -> list[str]:
    """Returns the names by which a run's firewall knows a split."""
    sources = {name: entry["source"] for name, entry in config.get("evals", {}).items()}
    sources |= config.get("firewall", {}).get("benchmarks", {})
    for name, entry in config.get("benchmarks", {}).items():
        benchmark, _, part = entry["name"].partition(":")
        sources[name] = {"name": BENCHMARKS[benchmark].dataset, "split": part}
    wanted = _whole(dataset), split
    return [name for name, one in sources.items() if (_whole(one["name"]), one.get("split")) == wanted]


def _whole(dataset: str) -> str:
    """Returns a set's name with its configuration, which may be left out if it is named like the set."""
    return dataset if "/" in dataset else f"{dataset}/{dataset}"


def _status(status: str, reason: str) -> dict[str, Any]:
    return {"status": status, "reason": reason}


def _read(path: Path) -> dict | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("an object is wanted")
        return content
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {reason_of(error)}") from None
    except ValueError as error:
        raise UserError(f"{str(path)!r} is damaged ({error}); restore it") from None
