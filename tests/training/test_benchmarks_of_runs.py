"""What a run's table of benchmarks refuses before anything is trained."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from unilseg_jax.config import benchmark
from unilseg_jax.errors import UserError
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.training.benchmarks import Benchmarks, numbers_of


def benchmarks_of(name, data_dir):
    table = ConfigDict({"mine": benchmark(name, data_dir=str(data_dir))})
    return Benchmarks(table, Path("run"), architecture=Architecture(), input_size=32, dtype="float32", timeout=1.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("refcocoo:val", r"config.benchmarks.mine.name: no benchmark 'refcocoo:val'"),
        ("ref_youtube_vos_submission:valid", r"'ref_youtube_vos_submission:valid' scores nothing"),
        ("ade20k:val", r"no prepared data set 'ade20k/ade20k'"),
    ],
)
def test_a_benchmark_that_cannot_be_judged_is_refused(name, message, tmp_path):
    with pytest.raises(UserError, match=message):
        benchmarks_of(name, tmp_path)


def test_the_headline_comes_first_and_counts_are_no_scores():
    entry = {"headline": "miou", "metrics": {"oiou": 0.5, "miou": 0.25, "count": 7, "pr_at_50": None}}
    assert list(numbers_of({"numbers": [entry, {"headline": "x", "metrics": {}}]}).items()) == [
        ("miou", 0.25),
        ("oiou", 0.5),
    ]
