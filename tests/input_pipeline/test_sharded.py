"""Conversion shard by shard: the same data set as in one process, and going on after a stop."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import engines, sharded
from unilseg_jax.input_pipeline.catalogue import load_stand_in
from unilseg_jax.input_pipeline.index import read_index
from unilseg_jax.input_pipeline.sources import open_source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def raw(tmp_path):
    """Ten pictures in each of two splits, in folders of two classes."""
    return stand_in("image_folder", 10, tmp_path / "raw")


@pytest.fixture
def converted(monkeypatch):
    """Names of the shards that were converted, in this process."""
    names = []

    def run_here(function, tasks, workers):
        for task in tasks:
            function(*task)
            names.append(task[2])
            yield

    monkeypatch.setitem(engines.ENGINES, "local", run_here)
    return names


def stand_in(name, count, raw):
    raw.mkdir()
    load_stand_in(name).write(raw, count)
    return raw


def convert(raw, *options, name="image_folder", config="imagenet", out="out"):
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    out = raw.parent / out
    command = [name, "--raw", str(raw), "--out", str(out), "--config", config]
    prepare.main([*command, *([] if "--max-skipped=0" in options else ["--max-skipped=1"]), *options])
    return out / name / config / "1.0.0"


def in_shards(raw, *options, **more):
    items = [] if more.get("name") == "sa1b" else ["--shard-items=3"]
    return convert(raw, "--workers=2", *items, *options, **more)


def listed(directory):
    file = directory / "quarantine.jsonl"
    return sorted(file.read_text().splitlines()) if file.exists() else []


def assert_same(one, other):
    """Compares two data sets in everything but the number of files of a split."""
    names = [{path.name for path in folder.iterdir() if "array_record" not in path.name} for folder in (one, other)]
    assert names[0] == names[1]
    assert (one / "conversion.json").read_text() == (other / "conversion.json").read_text()
    assert listed(one) == listed(other)
    infos = [json.loads((folder / "dataset_info.json").read_text()) for folder in (one, other)]
    for info in infos:
        for split in info["splits"]:
            split["shardLengths"] = sum(int(length) for length in split["shardLengths"])
    assert infos[0] == infos[1]
    name = "/".join(one.parts[-3:-1])
    for split in (entry["name"] for entry in infos[0]["splits"]):
        sources = [open_source(name, data_dir=directory.parents[2], split=split) for directory in (one, other)]
        assert len(sources[0]) == len(sources[1]) > 0
        for i in range(len(sources[0])):
            for field, value in sources[0].record(i).items():
                np.testing.assert_array_equal(value, sources[1].record(i)[field], err_msg=field)
        for wanted, found in zip(*(read_index(directory, split) for directory in (one, other)), strict=True):
            np.testing.assert_array_equal(wanted, found)


@pytest.mark.usefixtures("converted")
@pytest.mark.parametrize(
    ("name", "config", "split"),
    [("image_folder", "imagenet", "val"), ("sa1b", "sa1b", "train"), ("refcoco", "refcocog", "val")],
)
def test_shards_give_the_data_set_of_one_process(tmp_path, name, config, split):
    raw = stand_in(name, 5, tmp_path / "raw")
    one = convert(raw, name=name, config=config, out="one")
    many = in_shards(raw, name=name, config=config, out="many")
    assert_same(one, many)
    assert len(list(many.glob(f"{name}-{split}.array_record-*-of-00002"))) == 2
    assert [path.name for path in many.parent.iterdir()] == ["1.0.0"]


def test_processes_of_this_machine_give_the_data_set_of_one(raw):
    (raw / "val" / "ILSVRC2012_val_00000004.JPEG").write_bytes(b"broken")
    one, many = convert(raw, out="one"), in_shards(raw, out="many")
    assert_same(one, many)
    assert len(listed(many)) == 1


@pytest.mark.slow
def test_ray_gives_the_data_set_of_one_process(raw):
    pytest.importorskip("ray", reason="RAY NOT TESTED: the extra `ray` is not installed")
    (raw / "val" / "ILSVRC2012_val_00000004.JPEG").write_bytes(b"broken")
    assert_same(convert(raw, out="one"), in_shards(raw, "--engine=ray", out="many"))


@pytest.mark.usefixtures("converted")
def test_pictures_that_two_shards_hold_are_kept_once_as_in_one_process(tmp_path):
    raw = stand_in("sa1b", 4, tmp_path / "raw")
    shutil.copytree(raw / "sa_000001", raw / "sa_000002")
    shutil.copy(raw / "sa_000000.tar", raw / "sa_000003.tar")
    names = {"name": "sa1b", "config": "sa1b"}
    assert_same(convert(raw, out="one", **names), in_shards(raw, out="many", **names))
    assert len(listed(in_shards(raw, out="many", **names))) == 4


@pytest.mark.usefixtures("converted")
def test_shard_of_which_nothing_is_left_has_no_file(raw):
    for number in (4, 5, 6):
        (raw / "val" / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(b"broken")
    many = in_shards(raw, out="many")
    assert_same(convert(raw, out="one"), many)
    names = sorted(path.name for path in many.glob("*val.array_record*"))
    assert names == [f"image_folder-val.array_record-{number:05d}-of-00003" for number in range(3)]


@pytest.mark.usefixtures("converted")
def test_file_system_without_links_gives_copies(raw, monkeypatch):
    def refuse(*_):
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert_same(convert(raw, out="one"), in_shards(raw, out="many"))


def interrupt(monkeypatch, raw, *options, **more):
    """Starts a conversion that is interrupted after three shards, and returns their names."""
    convert_shard, done = sharded.convert_shard, []

    def stopping(*task):
        if len(done) == 3:
            raise KeyboardInterrupt
        convert_shard(*task)
        done.append(task[2])

    with monkeypatch.context() as patch:
        patch.setattr(sharded, "convert_shard", stopping)
        with pytest.raises(KeyboardInterrupt):
            in_shards(raw, *options, **more)
    return done


def test_stopped_conversion_looks_unfinished_and_goes_on_with_the_rest(raw, converted, monkeypatch):
    before = interrupt(monkeypatch, raw, out="many")
    assert [path.name for path in (raw.parent / "many/image_folder/imagenet").iterdir()] == ["unfinished_1.0.0"]
    with pytest.raises(UserError, match="no prepared data set"):
        open_source("image_folder/imagenet", data_dir=raw.parent / "many", split="train")
    converted.clear()
    assert_same(convert(raw, out="one"), in_shards(raw, out="many"))
    assert before == ["train-00000", "train-00001", "train-00002"]
    assert converted == ["train-00003", "val-00000", "val-00001", "val-00002", "val-00003"]


def test_old_data_set_stays_until_the_new_one_is_complete(raw, converted, monkeypatch):
    directory = in_shards(raw)
    kept = (directory / "conversion.json").stat().st_mtime_ns
    interrupt(monkeypatch, raw, "--overwrite")
    assert (directory / "conversion.json").stat().st_mtime_ns == kept
    converted.clear()
    in_shards(raw, "--overwrite")
    assert len(converted) == 5
    assert [path.name for path in directory.parent.iterdir()] == ["1.0.0"]


def test_damaged_shard_is_converted_again(raw, converted, monkeypatch):
    interrupt(monkeypatch, raw)
    work = raw.parent / "out/image_folder/imagenet/unfinished_1.0.0"
    os.truncate(work / "train-00001.array_record", 10)
    (work / "train-00002.json").write_text("{")
    (work / "train-00007.json.99.partial").write_text("half")
    converted.clear()
    assert_same(convert(raw, out="one"), in_shards(raw))
    assert converted == [f"train-{n:05d}" for n in (1, 2, 3)] + [f"val-{n:05d}" for n in range(4)]


def test_other_raw_data_make_anew_only_what_they_change(tmp_path, converted, monkeypatch):
    """Of three archives the second changes, a fourth comes, and a folder goes."""
    raw = stand_in("sa1b", 2, tmp_path / "raw")
    names = {"name": "sa1b", "config": "sa1b"}
    for number in (2, 3):
        load_stand_in("sa1b").write(tmp_path, 1, seed=number)
        shutil.rmtree(tmp_path / "sa_000001")
        (tmp_path / "sa_000000.tar").rename(raw / f"sa_{number:06d}.tar")
    with monkeypatch.context() as patch:
        patch.setattr(sharded, "_gather", lambda *_: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            in_shards(raw, **names)
    # 0, 2 and 3 are archives, the last is the folder; 2 and 3 hold the picture of 0 once more.
    assert converted == [f"train-{n:05d}" for n in (0, 1, 2, 3)] + ["train-00001", "train-00002"]
    os.utime(raw / "sa_000000.tar", (1, 1))
    converted.clear()
    assert_same(convert(raw, out="one", **names), in_shards(raw, **names))
    # What was left out for the sake of another shard is decided anew, and left out again.
    assert converted == [f"train-{n:05d}" for n in (0, 1, 2)] + ["train-00001", "train-00002"]


def test_other_annotations_make_all_anew(tmp_path, converted, monkeypatch):
    """The items stay the same: what a shard takes from the annotations is read while it is converted."""
    names = {"name": "refcoco", "config": "refcocog"}
    raw = stand_in("refcoco", 9, tmp_path / "raw")
    interrupt(monkeypatch, raw, **names)
    path = raw / "refcocog" / "instances.json"
    content = json.loads(path.read_text())
    for entry in content["categories"]:
        entry["name"] += " of another name"
    path.write_text(json.dumps(content))
    converted.clear()
    many = in_shards(raw, **names)
    assert len(converted) == len(list(many.glob("*.array_record-*"))) > 3
    assert_same(convert(raw, out="one", **names), many)


def test_only_the_part_of_a_folder_that_changes_is_made_anew(tmp_path, converted, monkeypatch):
    """Three parts of one picture each: in the second a file is mended in place, to the third one is added."""
    raw, names = stand_in("sa1b", 2, tmp_path / "raw"), {"name": "sa1b", "config": "sa1b"}
    folder = raw / "sa_000001"
    (raw / "sa_000000.tar").unlink()
    for ending in (".jpg", ".json"):
        for number in (224001, 225001):
            shutil.copy(folder / f"sa_223751{ending}", folder / f"sa_{number}{ending}")

    def stop_when_all_is_converted():
        converted.clear()
        with monkeypatch.context() as patch:
            patch.setattr(sharded, "_gather", lambda *_: exec("raise KeyboardInterrupt"))
            with pytest.raises(KeyboardInterrupt):
                in_shards(raw, **names)
        return list(converted)

    assert stop_when_all_is_converted() == ["train-00000", "train-00001", "train-00002"]
    annotation = folder / "sa_224001.json"
    content = json.loads(annotation.read_text())
    content["annotations"].pop()
    annotation.write_text(json.dumps(content))
    assert stop_when_all_is_converted() == ["train-00001"]
    for ending in (".jpg", ".json"):
        shutil.copy(folder / f"sa_223751{ending}", folder / f"sa_225002{ending}")
    assert stop_when_all_is_converted() == ["train-00002"]


def test_another_raw_folder_makes_all_anew(raw, converted, monkeypatch):
    interrupt(monkeypatch, raw)
    other = raw.with_name("other")
    shutil.copytree(raw, other)
    converted.clear()
    in_shards(other)
    assert len(converted) == 8


def test_too_much_that_is_broken_is_an_error_and_what_is_mended_is_read_again(raw, converted):
    file = raw / "val" / "ILSVRC2012_val_00000004.JPEG"
    sound = file.read_bytes()
    file.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"1 of 20 entries .*1\.0\.0\.quarantine\.jsonl"):
        in_shards(raw, "--max-skipped=0", out="many")
    left = sorted(path.name for path in (raw.parent / "many/image_folder/imagenet").iterdir())
    assert left == ["1.0.0.quarantine.jsonl", "unfinished_1.0.0"]
    file.write_bytes(sound)
    converted.clear()
    assert_same(convert(raw, out="one"), in_shards(raw, "--max-skipped=0", out="many"))
    assert converted == ["val-00001"]


def test_broken_shards_are_kept_where_more_is_allowed_now(raw, converted):
    (raw / "val" / "ILSVRC2012_val_00000004.JPEG").write_bytes(b"broken")
    with pytest.raises(UserError, match="1 of 20 entries"):
        in_shards(raw, "--max-skipped=0", out="many")
    converted.clear()
    assert_same(convert(raw, out="one"), in_shards(raw, out="many"))
    assert converted == []


@pytest.mark.usefixtures("converted")
def test_nothing_convertible_is_an_error(raw):
    for file in raw.rglob("*.JPEG"):
        file.write_bytes(b"broken")
    with pytest.raises(UserError, match="nothing of image_folder/imagenet could be converted"):
        in_shards(raw)
    assert not (raw.parent / "out/image_folder/imagenet/1.0.0").exists()


@pytest.mark.usefixtures("converted")
def test_raw_folder_that_changes_meanwhile_is_an_error(raw, monkeypatch):
    convert_shard = sharded.convert_shard

    def changing(*task):
        (raw / "train" / "n01440764" / "a_new_one.JPEG").write_bytes(b"")
        convert_shard(*task)

    monkeypatch.setattr(sharded, "convert_shard", changing)
    with pytest.raises(UserError, match="has changed since the conversion began"):
        in_shards(raw)


@pytest.mark.usefixtures("converted")
def test_second_conversion_at_the_same_time_is_refused(raw):
    work = raw.parent / "out/image_folder/imagenet/unfinished_1.0.0"
    work.mkdir(parents=True)
    with open(work / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process converts into"):
            in_shards(raw)


def test_killed_conversion_leaves_no_process_and_goes_on_with_the_rest(tmp_path):
    """SIGKILL: nothing in the process can tidy up."""
    raw = stand_in("image_folder", 50, tmp_path / "raw")
    command = [sys.executable, "-m", "unilseg_jax.prepare", "image_folder", "--raw", str(raw), "--shard-items=1"]
    command += ["--workers=1", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    work = tmp_path / "out/image_folder/imagenet/unfinished_1.0.0"
    while len(list(work.glob("*.json"))) < 5:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker process outlives the conversion"
        time.sleep(0.01)
    finished = {path.stat().st_ino for path in work.glob("*.array_record") if path.with_suffix(".json").exists()}
    assert 5 <= len(finished) < 100
    with pytest.raises(UserError, match="no prepared data set"):
        open_source("image_folder/imagenet", data_dir=tmp_path / "out", split="train")
    many = convert(raw, "--shard-items=1", "--workers=1")
    # The finished files are those of the killed process: they were linked, not written again.
    assert finished <= {path.stat().st_ino for path in many.glob("*.array_record-*")}
    assert_same(convert(raw, out="one"), many)
