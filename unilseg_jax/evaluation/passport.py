"""What stands beside every number: how it was counted, of what, by which weights, and whether they knew the pictures.

`results.json` of a benchmark holds one entry per way of counting, each with a passport of its own; `results_files`
reads it and says what it must hold.
"""

import functools
import hashlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from unilseg_jax.evaluation.bootstrap import intervals
from unilseg_jax.evaluation.judges.base import Judge, Rows, UnitResult, Variant
from unilseg_jax.version import __version__

LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "opencv-python-headless", "pysodmetrics")
"""Whose versions a number may depend on."""
CURVES_RESAMPLES, RESAMPLES = 300, 1000
"""Draws of the bootstrap: fewer where each draw averages curves."""


class Facts(NamedTuple):
    """What all numbers of a benchmark share.

    Attributes:
        benchmark: name as users type it.
        split: of it.
        images: pictures that were judged.
        complete: whether these are all of the split, and as many as its authors published.
        weights_sha256: see `weights_sha256`.
        input_size: side of the network's square in pixels.
        dtype: of matrix products.
        leakage: `status` ("clean", "leaky" or "unknown") and why.
        more: further entries of the passport.
    """

    benchmark: str
    split: str
    images: int
    complete: bool
    weights_sha256: str
    input_size: int
    dtype: str
    leakage: dict[str, Any]
    more: dict[str, Any]


def weights_sha256(variables: Mapping) -> str:
    """Returns a hash of all weights by name, whichever file they came from.

    Args:
        variables: `params` and `batch_stats`, nested.
    """
    digest = hashlib.sha256()

    def add(tree: Mapping, path: str) -> None:
        for name in sorted(tree):
            if isinstance(tree[name], Mapping):
                add(tree[name], f"{path}/{name}")
            else:
                array = np.ascontiguousarray(tree[name])
                digest.update(f"{path}/{name} {array.dtype} {array.shape}\n".encode())
                digest.update(array.data)

    add(variables, "")
    return digest.hexdigest()


@functools.cache  # each takes a search of all that is installed
def versions() -> dict[str, str]:
    """Returns the versions of this package and of the libraries that compute."""
    found = {"unilseg_jax": __version__}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def entries(judge: Judge, found: UnitResult, facts: Facts) -> list[dict[str, Any]]:
    """Returns the `numbers` of results.json; NaN stands for what is not defined.

    Args:
        judge: of the task.
        found: samples and rows of all units.
        facts: what the entries share.
    """
    return [
        entry
        for variant in judge.variants
        if (entry := _entry(judge, variant, found, facts))["metrics"].get("count", 1)
    ]


def _entry(judge: Judge, variant: Variant, found: UnitResult, facts: Facts) -> dict[str, Any]:
    chosen = found.samples[variant.only] if variant.only else np.ones(len(found.samples["number"]), bool)
    rows = {name: column[chosen] for name, column in found.rows[variant.rows].items()}
    metric = variant.metric().with_rows(rows)
    numbers = metric.compute()
    curves = any(column.ndim > 1 and column.dtype == np.float64 for column in rows.values())
    spans = intervals(metric, found.samples["unit"][chosen], resamples=CURVES_RESAMPLES if curves else RESAMPLES)
    groups = judge.groups(variant, numbers)
    if variant.kinds:
        groups |= _by_kind(variant, rows, found.samples["kind"][chosen])
    return {
        "passport": _passport(judge, variant, facts, phrases=int(chosen.sum())),
        "headline": variant.headline,
        "metrics": {name: value for name, value in numbers.items() if not isinstance(value, np.ndarray)},
        "intervals": {name: list(span) for name, span in spans.items()},
        "groups": groups,
    }


def _by_kind(variant: Variant, rows: Rows, kinds: np.ndarray) -> dict[str, dict[str, float]]:
    """Returns the numbers of each kind of phrase, where there is more than one."""
    names = np.unique(kinds).tolist()
    if len(names) < 2:
        return {}
    return {
        name: variant.metric().with_rows({key: column[kinds == name] for key, column in rows.items()}).compute()
        for name in names
    }


def _passport(judge: Judge, variant: Variant, facts: Facts, phrases: int) -> dict[str, Any]:
    return {
        "metric": variant.family,
        "protocol": variant.protocol.name,
        "resize": variant.protocol.resize,
        "threshold": variant.threshold,
        "prediction": variant.prediction,
        "scored_at": "original",
        "sentences": variant.sentences,
        "vocabulary": judge.classes,
        "benchmark": facts.benchmark,
        "split": facts.split,
        "images": facts.images,
        "phrases": phrases if variant.sentences else None,
        "complete": facts.complete,
        "weights_sha256": facts.weights_sha256,
        "input_size": facts.input_size,
        "dtype": facts.dtype,
        "leakage": facts.leakage,
        "versions": versions(),
        **facts.more,
    }
