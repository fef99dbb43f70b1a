"""The benchmarks by name."""

import pytest

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.benchmarks import ALL, BENCHMARKS, find
from unilseg_jax.evaluation.judges import JUDGES
from unilseg_jax.evaluation.paper_tables import NUMBERS, paper_table
from unilseg_jax.text.prompts import class_names

ISSUE = "refcoco refcoco+ refcocog grefcoco ref_youtube_vos ref_davis17 ade20k pascal_context59 ecssd sod pascal_s"
NAMED = (*ISSUE.split(), "partimagenet")


def test_all_that_the_paper_reports_on_are_there():
    assert set(NAMED) <= BENCHMARKS.keys()
    assert {BENCHMARKS[name].table for name in NAMED} == {0, 2, 3, 4, 5, 6, 7}
    places = {
        (place.benchmark, place.split) for number in NUMBERS for row in paper_table(number).rows for place in row.scores
    }
    splits = {(name, split) for name, benchmark in BENCHMARKS.items() for split in benchmark.splits}
    assert places <= splits, "the paper's rows stand beside numbers of the same name and split"


def test_each_has_a_judge_and_its_names_of_classes():
    for benchmark in BENCHMARKS.values():
        assert benchmark.task in JUDGES
        assert (benchmark.task in ("semantic", "parts")) == bool(benchmark.vocabulary)
        if benchmark.vocabulary:
            assert class_names(benchmark.vocabulary)


def test_a_name_means_all_its_splits():
    assert [(one.name, split) for one, split in find("refcoco+")] == [
        ("refcoco+", "val"),
        ("refcoco+", "testA"),
        ("refcoco+", "testB"),
    ]
    assert [split for _, split in find("refcocog")] == ["val", "test"]


def test_one_split_by_name_also_one_that_is_no_benchmarks():
    assert [(one.name, split) for one, split in find("refcoco:testB")] == [("refcoco", "testB")]
    assert [(one.name, split) for one, split in find("grefcoco:train")] == [("grefcoco", "train")]


def test_all_means_every_split_once():
    found = [(one.name, split) for one, split in find(ALL)]
    assert len(set(found)) == len(found)
    assert {name for name, _ in found} == set(BENCHMARKS)


@pytest.mark.parametrize("request_", ["refcocp", "refcoco:", "", ":val", "all:val", "RefCOCO", "refcoco/refcoco"])
def test_a_misspelt_name_is_told_what_there_is(request_):
    with pytest.raises(UserError, match="no benchmark") as caught:
        find(request_)
    assert repr(request_) in str(caught.value)
    assert all(name in str(caught.value) for name in BENCHMARKS)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_nearly_one_is_asked_about():
    with pytest.raises(UserError, match=r"or run; is refcoco meant\?$"):
        find("refcocp")
