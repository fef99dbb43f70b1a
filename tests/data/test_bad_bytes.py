"""Bytes that are not UTF-8: each spoils the line or the entry that it stands in, and not the file."""

import json
from pathlib import Path

import pytest
from refer_synthetic import make_refer_folder

from unilseg_jax import prepare
from unilseg_jax.input_pipeline.catalogue import load_stand_in
from unilseg_jax.input_pipeline.conversion import read_report
from unilseg_jax.input_pipeline.sources import open_source

COUNT = 2  # pictures per split
VOC_LIST = "VOC2010/ImageSets/SegmentationContext/train.txt"


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def convert(raw: Path, name: str, *options: str) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    name, _, config = name.partition("/")
    out = raw.parent / "out"
    chosen = ["--config", config] if config else []
    prepare.main([name, "--raw", str(raw), "--out", str(out), "--max-skipped=1", *chosen, *options])
    return next((out / name).glob("[!.]*/1.0.0"))


def listed(directory: Path) -> dict:
    """Returns the one entry of the quarantine list."""
    (line,) = (directory / "quarantine.jsonl").read_text("ascii").splitlines()
    return json.loads(line)


def pictures(directory: Path) -> dict[str, int]:
    return {split: counts.pictures for split, counts in read_report(directory)[0].items() if split}


@pytest.mark.parametrize(
    ("name", "file", "line"),
    [
        ("lip", "train_id.txt", b"caf\xe9"),
        ("pascal_context/png", VOC_LIST, b"caf\xe9"),
        ("pascal_context/mat", "labels.txt", b"460: caf\xe9"),
        ("davis", "ImageSets/480p/train.txt", b"/JPEGImages/480p/caf\xe9/0.jpg /Annotations/480p/caf\xe9/0.png"),
        ("ref_davis17", "DAVIS/ImageSets/2017/train.txt", b"caf\xe9"),
        ("image_folder/imagenet", "LOC_synset_mapping.txt", b"n01440764 caf\xe9"),
    ],
)
def test_line_that_is_not_utf_8_is_listed_and_the_rest_converted(raw, name, file, line):
    load_stand_in(name.split("/")[0]).write(raw, COUNT)
    with open(raw / file, "ab") as lines:
        lines.write(line + b"\n")
    directory = convert(raw, name)
    entry = listed(directory)
    assert "UTF-8" in entry["reason"]
    assert "caf\\udce9" in entry["reason"]
    assert set(pictures(directory).values()) == {COUNT}


def test_line_that_is_not_utf_8_is_listed_by_worker_processes_too(raw):
    load_stand_in("lip").write(raw, COUNT)
    with open(raw / "train_id.txt", "ab") as lines:
        lines.write(b"caf\xe9\n")
    directory = convert(raw, "lip", "--workers=2")
    assert listed(directory)["file"] == "caf\udce9.jpg"
    assert set(pictures(directory).values()) == {COUNT}


def test_mark_at_the_start_of_a_list_is_no_part_of_its_first_line(raw):
    load_stand_in("lip").write(raw, COUNT)
    file = raw / "train_id.txt"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert pictures(convert(raw, "lip"))["train"] == COUNT


def spoil(path: Path, value: str) -> None:
    """Puts a byte of Latin-1 into the first place where a JSON file has a value."""
    content, wanted = path.read_bytes(), json.dumps(value).encode()
    assert wanted in content
    path.write_bytes(content.replace(wanted, wanted[:-1] + b' caf\xe9"', 1))


@pytest.mark.parametrize("name", ["coco/instances", "objects365"])
def test_name_of_a_picture_that_is_not_utf_8_loses_this_picture(raw, name):
    load_stand_in(name.split("/")[0]).write(raw, COUNT)
    path = next(raw.rglob("instances_train2017.json" if name.startswith("coco") else "*train.json"))
    spoil(path, json.loads(path.read_bytes())["images"][0]["file_name"])
    directory = convert(raw, name)
    assert "UTF-8" in listed(directory)["reason"]
    assert pictures(directory) == {"train": COUNT - 1, "val": COUNT}


def test_name_of_a_category_that_is_not_utf_8_leaves_its_objects_without(raw):
    load_stand_in("coco").write(raw, COUNT)
    spoil(raw / "annotations/instances_train2017.json", "person")
    directory = convert(raw, "coco/instances")
    assert "the category's name 'person caf\\udce9' is not UTF-8" in listed(directory)["reason"]
    assert pictures(directory) == {"train": COUNT, "val": COUNT}


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("grefcoco", "grefcoco/grefs(unc).json", "the person on the left"),
        ("ref_youtube_vos/train", "meta_expressions/train/meta_expressions.json", "a dog that moves"),
    ],
)
def test_expression_that_is_not_utf_8_is_listed_and_the_others_kept(raw, name, file, text):
    load_stand_in(name.split("/")[0]).write(raw, COUNT)
    spoil(raw / file, text)
    directory = convert(raw, name)
    assert "says" in listed(directory)["reason"]
    assert set(pictures(directory).values()) == {COUNT}


def test_text_of_python_2_that_is_not_utf_8_is_kept_as_latin_1(tmp_path):
    raw = make_refer_folder(tmp_path / "raw")
    content = raw.refs_file.read_bytes()
    # Python 2's pickles hold byte strings: opcode U, one byte of length.
    assert content.count(b"X\x0b\x00\x00\x00left person") == 4
    raw.refs_file.write_bytes(content.replace(b"X\x0b\x00\x00\x00left person", b"U\x09left caf\xe9"))
    convert(raw.root, "refcoco/refcoco")
    source = open_source("refcoco", data_dir=tmp_path / "out", split="train")
    assert source[0].phrases[0] == "left café"
