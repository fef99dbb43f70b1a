"""Conversion of ADE20K-150: masks and phrases of its label maps, and what is skipped."""

import json
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import catalogue
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.text.prompts import class_names

PICTURES = 3


@pytest.fixture
def raw(tmp_path) -> Path:
    catalogue.load_stand_in("ade20k").write(tmp_path / "raw", PICTURES)
    return tmp_path / "raw"


def convert(raw: Path, *options: str) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    out = raw.parent / "out"
    prepare.main(["ade20k", "--raw", str(raw), "--out", str(out), "--max-skipped=1", *options])
    return out / "ade20k" / "ade20k" / "1.0.0"


def skipped(directory: Path) -> list[dict]:
    file = directory / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def files(raw: Path) -> tuple[Path, Path]:
    """Returns the first training picture and its label map."""
    return (
        raw / "images" / "training" / "ADE_train_00000001.jpg",
        raw / "annotations" / "training" / "ADE_train_00000001.png",
    )


def test_masks_and_phrases_are_those_of_the_label_maps(raw):
    directory = convert(raw)
    counts, published = read_report(directory)
    assert counts["train"] == counts["val"] == SplitCounts(pictures=PICTURES, objects=12, phrases=12)
    assert (published["train"].pictures, published["val"].pictures) == (20210, 2000)
    assert skipped(directory) == []
    phrases = {name.label: name.phrase for name in class_names("ade20k")}
    for split, folder in {"train": "training", "val": "validation"}.items():
        source = open_source("ade20k", data_dir=raw.parent / "out", split=split)
        for number in range(PICTURES):
            sample = source[number]
            label_map = np.asarray(Image.open(raw / "annotations" / folder / f"{sample.image_id}.png"))
            labels = [label for label in np.unique(label_map) if label]
            assert sample.phrases == tuple(f"all {phrases[label]}" for label in labels)
            for phrase, label in enumerate(labels):
                assert np.array_equal(sample.mask(phrase), label_map == label)


def test_record_says_what_it_is(raw):
    convert(raw)
    record = open_source("ade20k", data_dir=raw.parent / "out", split="train").record(0)
    picture, label_map = files(raw)
    assert record["image"] == picture.read_bytes()
    assert record["image_id"] == b"ADE_train_00000001"
    assert (record["task"], record["source"]) == (b"semantic", b"ade20k/ade20k")
    assert set(record["mask_kinds"]) == set(record["phrase_kinds"]) == {b"category"}
    assert list(record["mask_ids"]) == sorted(set(np.asarray(Image.open(label_map)).flat) - {0})
    assert record["coco_id"] == -1


def test_pixels_that_are_not_evaluated_are_in_no_mask(raw):
    convert(raw)
    sample = open_source("ade20k", data_dir=raw.parent / "out", split="train")[0]
    label_map = np.asarray(Image.open(files(raw)[1]))
    assert (label_map == 0).any()
    assert np.array_equal(sample.masks.sum(axis=0), label_map > 0)


def test_picture_without_an_evaluated_class_is_a_record_without_masks(raw):
    Image.fromarray(np.zeros((96, 128), np.uint8)).save(files(raw)[1])
    directory = convert(raw)
    assert skipped(directory) == []
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=PICTURES, objects=8, phrases=8)
    sample = open_source("ade20k", data_dir=raw.parent / "out", split="train")[0]
    assert (sample.masks.shape, sample.phrases) == ((0, 96, 128), ())


def cut_picture(picture, label_map):
    picture.write_bytes(picture.read_bytes()[:400])


def cut_label_map(picture, label_map):
    label_map.write_bytes(label_map.read_bytes()[:60])


def lose_picture(picture, label_map):
    picture.unlink()


def lose_label_map(picture, label_map):
    label_map.unlink()


def change_size(picture, label_map):
    Image.open(label_map).resize((50, 40), Image.Resampling.NEAREST).save(label_map)


def add_colours(picture, label_map):
    Image.open(label_map).convert("RGB").save(label_map)


def reduce_zero_label(picture, label_map):
    """As other code bases store the maps: 0 becomes 255 and every class one less."""
    Image.fromarray(np.asarray(Image.open(label_map)) - np.uint8(1)).save(label_map)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_header(picture, label_map):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(b"\0")) + png_chunk(b"IEND", b"")
    label_map.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut_picture, "picture is broken"),
        (cut_label_map, "label map .* is broken"),
        (lose_picture, "no picture of the same name"),
        (lose_label_map, "no label map of the same name"),
        (change_size, "label map is 40 × 50, its picture 96 × 128"),
        (add_colours, "mode RGB"),
        (reduce_zero_label, "label 255; 1 to 150 are classes, 0 stands for none"),
        (huge_header, "50000|exceeds limit"),
    ],
)
def test_bad_picture_is_listed_and_the_rest_converted(raw, spoil, reason):
    spoil(*files(raw))
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert entry["file"] == "ADE_train_00000001.jpg"
    assert re.search(reason, entry["reason"])
    counts, _ = read_report(directory)
    assert counts["train"] == SplitCounts(pictures=PICTURES - 1, objects=8, phrases=8, skipped=1)
    assert counts["val"] == SplitCounts(pictures=PICTURES, objects=12, phrases=12)


def test_name_that_is_not_utf8_is_listed(raw):
    picture, _ = files(raw)
    try:
        os.rename(os.fsencode(picture), os.fsencode(picture.parent) + b"/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system has no such names")
    reasons = {entry["file"]: entry["reason"] for entry in skipped(convert(raw))}
    assert "UTF-8" in reasons["caf\\xe9.jpg"]
    assert "no picture" in reasons["ADE_train_00000001.jpg"]


def test_outer_folder_one_split_and_pictures_elsewhere(raw, tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    raw.rename(outer / "ADEChallengeData2016")
    for kind in ("images", "annotations"):
        folder = outer / "ADEChallengeData2016" / kind / "training"
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    (outer / "ADEChallengeData2016" / "images").rename(tmp_path / "pictures")
    with pytest.raises(UserError, match=r"folder .*validation.* is not read"):
        convert(outer)
    counts, _ = read_report(convert(outer, "--pictures", str(tmp_path / "pictures")))
    assert counts == {"val": SplitCounts(pictures=PICTURES, objects=12, phrases=12)}


def test_folder_without_the_set_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"does not hold any configuration of ade20k.*annotations/"):
        convert(tmp_path)


def test_stand_in_is_the_same_for_the_same_seed(raw, tmp_path):
    stand_in = catalogue.load_stand_in("ade20k")
    stand_in.write(tmp_path / "again", PICTURES)
    stand_in.write(tmp_path / "other", PICTURES, seed=1)
    maps = [tmp_path / folder / files(raw)[1].relative_to(raw) for folder in ("again", "other")]
    assert [path.read_bytes() == files(raw)[1].read_bytes() for path in maps] == [True, False]


def test_real_samples_have_their_classes(shared_dir, tmp_path):
    prepare.main(["ade20k", "--raw", str(shared_dir / "data" / "ADEChallengeData2016"), "--out", str(tmp_path)])
    counts, _ = read_report(tmp_path / "ade20k" / "ade20k" / "1.0.0")
    assert counts == {"val": SplitCounts(pictures=3, objects=25, phrases=25)}
    street = open_source("ade20k", data_dir=tmp_path, split="val")[2]
    assert street.image_id == "ADE_val_00000003"
    assert {"all bus", "all van", "all escalator", "all streetlight"} < set(street.phrases)
