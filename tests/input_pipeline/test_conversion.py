"""What every conversion has in common: faults that no builder expects, how much may be lost, and what stays behind."""

import fcntl
import json
import os
import tempfile
from pathlib import Path

import pytest

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.catalogue import load_builder, load_stand_in
from unilseg_jax.input_pipeline.conversion import Conversion, SplitCounts, likely_size, read_report


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


@pytest.mark.parametrize("options", [[], ["--workers=1"]])
def test_no_temporary_folder_is_left(raw, tmp_path, monkeypatch, options):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))  # of the workers
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    convert(raw, *options)
    assert not list(temporary.iterdir())


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


@pytest.mark.parametrize("options", [[], ["--workers=1", "--shard-items=2"]])
def test_pictures_count_as_pictures_however_many_masks_the_others_have(tmp_path, options):
    """4 of 20 are lost; with 3 masks in each of the others, they are 4 of 52 entries."""
    raw = stand_in(tmp_path, "coco", 10)
    for file in sorted((raw / "train2017").iterdir())[:4]:
        file.unlink()
    names = {"name": "coco", "config": "instances"}
    with pytest.raises(UserError, match=r"4 of 20 pictures or archives \(20\.0%\) are broken, at most 10\.0%"):
        convert(raw, "--max-skipped=0.1", *options, **names)
    assert read_report(convert(raw, "--max-skipped=0.2", *options, **names))[0]["train"].pictures == 6


@pytest.mark.parametrize("options", [[], ["--workers=1"]])
def test_pictures_in_archives_count_as_pictures(tmp_path, options):
    """1 of 4 is lost, of 2 items; with 3 masks in each of the others, it is 1 of 10 entries."""
    raw = stand_in(tmp_path, "sa1b", 4)
    (raw / "sa_000001" / "sa_223752.jpg").write_bytes(b"broken")
    names = {"name": "sa1b", "config": "sa1b"}
    with pytest.raises(UserError, match=r"1 of 4 pictures \(25\.0%\) are broken, at most 20\.0%"):
        convert(raw, "--max-skipped=0.2", *options, **names)
    assert read_report(convert(raw, "--max-skipped=0.25", *options, **names))[0]["train"].pictures == 3


def test_lost_archive_counts_as_one_of_the_archives(tmp_path):
    raw = stand_in(tmp_path, "sa1b", 4)
    (raw / "sa_000009.tar").write_bytes(b"no archive" * 200)
    with pytest.raises(UserError, match=r"1 of 3 pictures or archives \(33\.3%\)"):
        convert(raw, "--max-skipped=0.2", name="sa1b", config="sa1b")


def test_what_is_lost_before_the_plan_counts_as_its_pictures(tmp_path):
    planned, book = Conversion(), Conversion()
    planned.expect("train", 200)
    planned.lose_unplanned("val", "val2017", "it is missing", pictures=40)
    book.expect("train", 0)
    book.wrote("train", objects=100_000, phrases=0)
    book.merge(planned)
    assert book.skipped == [{"split": "val", "file": "val2017", "reason": "it is missing", "pictures": 40}]
    book.check_skipped(0.17, tmp_path / "1.0.0")
    with pytest.raises(
        UserError, match=r"40 of 240 pictures or archives \(16\.7%\) .*the first: val2017: it is missing"
    ):
        book.check_skipped(0.16, tmp_path / "1.0.0")


def test_what_nobody_can_count_counts_as_the_mean_of_its_kind():
    assert [likely_size(sizes) for sizes in ([], [0], [3, 4, 8])] == [1, 1, 5]


def test_second_conversion_at_the_same_time_is_refused_at_once(raw, monkeypatch):
    builder, refused = load_builder("image_folder"), []
    records = builder.records

    def convert_again(self, split, item):
        if not refused:
            with pytest.raises(UserError, match=r"another process converts into '.*unfinished_1\.0\.0'") as caught:
                convert(raw)
            refused.append(caught.value)
        yield from records(self, split, item)

    monkeypatch.setattr(builder, "records", convert_again)
    directory = convert(raw)
    assert len(refused) == 1
    assert [path.name for path in directory.parent.iterdir()] == ["1.0.0"]


def test_set_that_another_process_has_just_finished_is_not_converted_again(raw, monkeypatch, capsys):
    locked = prepare.locked

    def finish_first(work):
        monkeypatch.setattr(prepare, "locked", locked)
        convert(raw)
        return locked(work)

    monkeypatch.setattr(prepare, "locked", finish_first)
    directory = convert(raw)
    assert "already prepared" in capsys.readouterr().out
    assert [path.name for path in directory.parent.iterdir()] == ["1.0.0"]


def test_list_of_a_refused_conversion_goes_when_the_set_is_finished(raw):
    file = raw / "val" / "ILSVRC2012_val_00000001.JPEG"
    sound = file.read_bytes()
    file.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"1\.0\.0\.quarantine\.jsonl"):
        convert(raw)
    file.write_bytes(sound)
    directory = convert(raw)
    assert [path.name for path in directory.parent.iterdir()] == ["1.0.0"]


def test_data_set_that_a_killed_overwrite_had_set_aside_is_restored(raw, capsys):
    directory = convert(raw)
    kept = (directory / "conversion.json").stat().st_ino
    directory.rename(directory.with_name("1.0.0.old"))
    convert(raw)
    assert (directory / "conversion.json").stat().st_ino == kept
    assert [path.name for path in directory.parent.iterdir()] == ["1.0.0"]
    assert "it is restored" in capsys.readouterr().out


def test_what_a_killed_overwrite_left_of_the_old_data_set_is_removed(raw, capsys):
    directory = convert(raw)
    kept = (directory / "conversion.json").stat().st_ino
    directory.with_name("1.0.0.old").mkdir()
    convert(raw)
    assert (directory / "conversion.json").stat().st_ino == kept
    assert [path.name for path in directory.parent.iterdir()] == ["1.0.0"]
    assert "it is removed" in capsys.readouterr().out


def test_data_set_that_another_process_replaces_is_left_to_it(raw):
    directory = convert(raw)
    old = directory.rename(directory.with_name("1.0.0.old"))
    handle = os.open(old, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process replaces"):
            convert(raw, "--overwrite")
    finally:
        os.close(handle)
    assert [path.name for path in directory.parent.iterdir()] == ["1.0.0.old"]
