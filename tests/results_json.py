"""Results as an evaluation writes them, for tests of what reads them."""

import copy
import json
from pathlib import Path

PASSPORT = {
    "metric": "referring",
    "protocol": "paper",
    "resize": "stretch",
    "threshold": 0.5,
    "prediction": "mask",
    "scored_at": "original",
    "sentences": "all",
    "vocabulary": None,
    "benchmark": "refcoco",
    "split": "val",
    "images": 1500,
    "phrases": 10834,
    "complete": True,
    "weights_sha256": "0123456789abcdef" * 4,
    "input_size": 480,
    "dtype": "float32",
    "leakage": {"status": "clean"},
    "versions": {"unilseg_jax": "0.5.0", "jax": "0.10.0"},
}
METRICS = {"oiou": 0.6, "miou": 0.56, "pr_at_50": 0.66, "pr_at_90": 0.1, "count": 10834}
RELEASED = {"protocol": "released", "resize": "letterbox", "threshold": 0.35}
SALIENT = {"metric": "saliency", "prediction": "soft map", "threshold": None, "sentences": None, "phrases": None} | {
    "benchmark": "ecssd",
    "split": "test",
    "images": 1000,
}
SALIENT_METRICS = {"f_mean": 0.95, "f_adaptive": 0.94, "f_weighted": 0.9301, "mae": 0.0214, "count": 1000}


def entry(metrics=None, headline=None, **passport):
    """Returns an entry of `numbers`: that of a referring benchmark, but for the fields given."""
    metrics = dict(METRICS if metrics is None else metrics)
    return {
        "passport": copy.deepcopy(PASSPORT) | passport,
        "headline": headline or next(iter(metrics)),
        "metrics": metrics,
        "intervals": {"oiou": [0.59, 0.61]} if "oiou" in metrics else {},
        "groups": {},
    }


def salient(**passport):
    """Returns an entry of a benchmark of salient objects."""
    return entry(SALIENT_METRICS, **(SALIENT | passport))


def results(*entries, checkpoint="runs/a", task="referring"):
    """Returns the content of a file."""
    entries = entries or (entry(),)
    place = {key: entries[0]["passport"][key] for key in ("benchmark", "split")}
    return {"schema_version": 1, **place, "task": task, "checkpoint": checkpoint, "numbers": list(entries)}


def write(path: Path, content) -> str:
    """Writes a file of results and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)
