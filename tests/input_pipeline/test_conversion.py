"""What every conversion has in common: faults that no builder expects, how much may be lost, and what stays behind."""

import json
from pathlib import Path

import pytest

from unilseg_jax import prepare
from unilseg_jax.input_pipeline.catalogue import load_builder, load_stand_in
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report


@pytest.fixture
def raw(tmp_path) -> Path:
    """Two pictures in each of two splits."""
    return stand_in(tmp_path, "image_folder", 2)


def stand_in(tmp_path: Path, name: str, count: int) -> Path:
    (tmp_path / "raw").mkdir()
    load_stand_in(name).write(tmp_path / "raw", count)
    return tmp_path / "raw"


def convert(raw: Path, *options: str, name: str = "image_folder", config: str = "imagenet") -> Path:
    prepare.main([name, "--raw", str(raw), "--out", str(raw.parent / "out"), "--config", config, *options])
    return raw.parent / "out" / name / config / "1.0.0"


def listed(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "quarantine.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("fault", [TypeError("a list is no number"), OverflowError("too large")])
def test_value_that_no_builder_expects_is_listed_with_its_class(raw, monkeypatch, fault):
    builder = load_builder("image_folder")
    records, first = builder.records, []

    def failing(self, split, item):
        first.append(item)
        if len(first) == 1:
            raise fault
        yield from records(self, split, item)

    monkeypatch.setattr(builder, "records", failing)
    directory = convert(raw, "--max-skipped=1")
    (entry,) = listed(directory)
    assert entry["reason"] == f"{type(fault).__name__}: {fault}"
    assert read_report(directory)[0] == {"train": SplitCounts(pictures=1, skipped=1), "val": SplitCounts(pictures=2)}
