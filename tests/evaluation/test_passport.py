"""What stands beside every number, and the hash that tells weights apart."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from planted_maps import FACTS

from unilseg_jax.evaluation import passport
from unilseg_jax.evaluation.bootstrap import intervals
from unilseg_jax.evaluation.judges.base import Judge, UnitResult, Variant
from unilseg_jax.evaluation.passport import entries, versions, weights_sha256
from unilseg_jax.evaluation.protocols import PROTOCOLS
from unilseg_jax.metrics.referring import ReferringMetric

PAPER = PROTOCOLS["paper"]
UNITS = [0, 0, 1, 2, 2, 2]
COUNTS = {"intersection": np.array([5, 6, 0, 9, 2, 4]), "union": np.array([10, 6, 8, 9, 4, 8])}
FIRST = np.array([True, False, True, True, False, False])
KINDS = np.array(["cat", "dog", "cat", "cat", "dog", "dog"])


class Counted(Judge):
    """A judge of given ways of counting, which judges nothing."""

    def __init__(self, *variants):
        self.given = variants

    @property
    def variants(self):
        return self.given

    @property
    def classes(self):
        return 12

    def judge(self, unit):
        raise NotImplementedError

    def draw(self, unit, number):
        raise NotImplementedError


VARIANT = Variant(
    rows="paper",
    metric=ReferringMetric,
    family="referring",
    headline="oiou",
    protocol=PAPER,
    prediction="mask",
    threshold=PAPER.threshold,
    sentences="all",
)


def found():
    samples = {"number": np.array([0, 1, 0, 0, 1, 2]), "unit": np.array(UNITS), "first": FIRST, "kind": KINDS}
    return UnitResult(samples, {"paper": COUNTS})


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(passport, "RESAMPLES", 50)


def test_every_field_is_there():
    facts = FACTS._replace(complete=True, more={"data": "abc", "device": "cpu"})
    (entry,) = entries(Counted(VARIANT), found(), facts)
    assert entry["passport"] == {
        "metric": "referring",
        "protocol": "paper",
        "resize": "stretch",
        "threshold": 0.5,
        "prediction": "mask",
        "scored_at": "original",
        "sentences": "all",
        "vocabulary": 12,
        "benchmark": "planted",
        "split": "val",
        "images": 2,
        "phrases": 6,
        "complete": True,
        "weights_sha256": "0" * 64,
        "input_size": 32,
        "dtype": "float32",
        "leakage": {"status": "unknown"},
        "versions": versions(),
        "data": "abc",
        "device": "cpu",
    }
    assert (entry["headline"], entry["metrics"]["oiou"], entry["metrics"]["count"]) == ("oiou", 26 / 45, 6)
    assert entry["groups"] == {}


def test_intervals_are_drawn_by_unit():
    (entry,) = entries(Counted(VARIANT), found(), FACTS)
    wanted = intervals(ReferringMetric().with_rows(COUNTS), np.array(UNITS), resamples=50)
    assert entry["intervals"] == {name: list(span) for name, span in wanted.items()}
    assert "count" not in entry["intervals"]


def test_a_variant_of_some_samples_counts_only_these():
    first = dataclasses.replace(VARIANT, sentences="first", only="first")
    whole, entry = entries(Counted(VARIANT, first), found(), FACTS)
    assert (entry["metrics"]["oiou"], entry["metrics"]["count"]) == (14 / 27, 3)
    assert (entry["passport"]["phrases"], whole["passport"]["phrases"]) == (3, 6)


def test_kinds_have_numbers_of_their_own_where_there_are_several():
    by_kind = dataclasses.replace(VARIANT, kinds=True)
    (entry,) = entries(Counted(by_kind), found(), FACTS)
    assert {name: group["oiou"] for name, group in entry["groups"].items()} == {"cat": 14 / 27, "dog": 12 / 18}
    alone = found()
    alone.samples["kind"][:] = "cat"
    assert entries(Counted(by_kind), alone, FACTS)[0]["groups"] == {}


def test_where_there_are_no_phrases_none_are_counted():
    (entry,) = entries(Counted(dataclasses.replace(VARIANT, sentences=None, threshold=None)), found(), FACTS)
    assert (entry["passport"]["phrases"], entry["passport"]["threshold"]) == (None, None)


def test_nothing_that_was_scored_is_no_entry():
    samples = {name: column[:0] for name, column in found().samples.items()}
    nothing = UnitResult(samples, {"paper": {name: column[:0] for name, column in COUNTS.items()}})
    assert entries(Counted(VARIANT), nothing, FACTS) == []


def test_a_variant_in_words_is_the_same_wherever_it_is_made():
    class Maker:
        def metric(self):
            return ReferringMetric()

    one, other = (dataclasses.replace(VARIANT, metric=Maker().metric) for _ in range(2))
    assert repr(one) != repr(other), "they hold addresses"
    assert one.described() == other.described()
    assert one.described() != dataclasses.replace(one, threshold=0.4).described()


WEIGHTS = {"params": {"a": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3)}, "b": {"bias": np.ones(3)}}}


def test_equal_weights_have_one_hash_wherever_they_lie():
    backwards = {"params": dict(reversed(WEIGHTS["params"].items()))}
    on_device = {"params": {**WEIGHTS["params"], "a": {"kernel": jnp.asarray(WEIGHTS["params"]["a"]["kernel"])}}}
    transposed = {"params": {**WEIGHTS["params"], "a": {"kernel": np.asfortranarray(WEIGHTS["params"]["a"]["kernel"])}}}
    assert len({weights_sha256(tree) for tree in (WEIGHTS, backwards, on_device, transposed)}) == 1


@pytest.mark.parametrize(
    "kernel",
    [
        np.arange(6.0, dtype=np.float32).reshape(3, 2),
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.nextafter(np.arange(6.0, dtype=np.float32).reshape(2, 3), np.float32(9)),
    ],
    ids=["shape", "type", "last bit"],
)
def test_other_weights_have_another_hash(kernel):
    changed = {"params": {**WEIGHTS["params"], "a": {"kernel": kernel}}}
    assert weights_sha256(changed) != weights_sha256(WEIGHTS)
    renamed = {"params": {**WEIGHTS["params"], "c": WEIGHTS["params"]["b"]}}
    renamed["params"].pop("b")
    assert weights_sha256(renamed) != weights_sha256(WEIGHTS)


def test_versions_name_what_computes():
    assert {"unilseg_jax", "jax", "jaxlib", "flax", "numpy", "pysodmetrics"} <= versions().keys()
