"""Conversion of Objects365: boxes that no phrase may name, what is left out by rule, and what is skipped."""

import json
from pathlib import Path

import numpy as np
import pytest

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import triplet
from unilseg_jax.input_pipeline.catalogue import load_stand_in
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.index import read_index
from unilseg_jax.input_pipeline.sources import TripletSource, open_source
from unilseg_jax.ops.masks import mask_to_rle

FIRST = 420917


@pytest.fixture
def raw(tmp_path) -> Path:
    load_stand_in("objects365").write(tmp_path / "raw", 2, seed=1)
    return tmp_path / "raw"


def convert(raw: Path, *options: str) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    out = raw.parent / "out"
    prepare.main(["objects365", "--raw", str(raw), "--out", str(out), "--max-skipped=1", *options])
    return out / "objects365" / "objects365" / "1.0.0"


def record_of(raw: Path, image_id: str = f"objects365_v1_{FIRST:08d}", split: str = "train") -> tuple[dict, np.ndarray]:
    """Returns a picture's record and its masks."""
    source: TripletSource = open_source("objects365", data_dir=raw.parent / "out", split=split)
    (number,) = [number for number in range(len(source)) if source[number].image_id == image_id]
    return source.record(number), source[number].masks


def skipped(directory: Path) -> list[dict]:
    file = directory / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def change(raw: Path, spoil) -> list[dict]:
    """Lets a function change the file of train, given the objects of the first picture; returns these."""
    path = raw / "zhiyuan_objv2_train.json"
    content = json.loads(path.read_text())
    own = [entry for entry in content["annotations"] if entry["image_id"] == FIRST]
    own.sort(key=lambda entry: entry["id"])
    spoil(content, own)
    path.write_text(json.dumps(content))
    return own


def nothing(content, own):
    """Leaves the file as it is."""


def test_objects_are_boxes_without_phrases_and_fakes_are_left_out(raw):
    own = change(raw, nothing)
    directory = convert(raw)
    assert read_report(directory)[0] == dict.fromkeys(("train", "val"), SplitCounts(pictures=2, objects=6, phrases=0))
    assert skipped(directory) == []
    record, masks = record_of(raw)
    assert [entry["isfake"] for entry in own] == [0, 0, 0, 1]
    assert list(record["mask_ids"]) == [entry["id"] for entry in own[:3]]
    assert record["mask_boxes"].tolist() == [entry["bbox"] for entry in own[:3]]
    assert set(record["mask_kinds"]) == {b"box"}
    assert (record["task"], list(record["phrases"]), record["coco_id"]) == (b"none", [], -1)
    for entry, mask in zip(own, masks, strict=False):
        x, y, width, height = entry["bbox"]
        drawn = np.zeros_like(mask)
        drawn[int(y) : int(np.ceil(y + height)), int(x) : int(np.ceil(x + width))] = 1
        assert np.array_equal(mask, drawn)


def test_nothing_of_it_is_offered_to_a_learner(raw):
    assert read_index(convert(raw), "train").samples.tolist() == [0, 0]


def test_a_phrase_that_names_a_box_is_refused():
    counts = mask_to_rle(np.ones((4, 5), np.uint8))
    box = triplet.RecordMask(counts=counts, box=(0.0, 0.0, 5.0, 4.0), category="dog", kind="box")
    phrase = triplet.RecordPhrase(text="all dog", mask_index=0, kind="category")
    more = {"image": b"", "image_id": "1", "height": 4, "width": 5, "task": "none", "source": "s", "licence": "l"}
    assert triplet.encode_record(masks=[box], phrases=[], **more)["mask_kinds"] == ["box"]
    with pytest.raises(UserError, match=r"'all dog' names a mask of kind 'box'"):
        triplet.encode_record(masks=[box], phrases=[phrase], **more)


@pytest.mark.parametrize(
    ("native", "category"),
    [("Picture/Frame", "picture"), ("Dinning Table", "dining table"), ("Other Shoes", "shoes"), ("SUV", "suv")],
)
def test_categories_are_named_as_people_say_it(raw, native, category):
    def rename(content, own):
        content["categories"] = [{"id": entry["id"], "name": native} for entry in content["categories"]]

    change(raw, rename)
    convert(raw)
    assert [name.decode() for name in record_of(raw)[0]["mask_categories"]] == [category] * 3


@pytest.mark.parametrize(("fault", "listed"), [({"iscrowd": 1}, 0), ({"bbox": [1, 2, 3]}, 1)])
def test_category_that_is_not_complete_is_left_out_of_its_picture(raw, fault, listed):
    """The objects 0 and 2 share a category; the first is a crowd or broken."""

    def spoil(content, own):
        for entry, category in zip(own, (1, 2, 1), strict=False):
            entry["category_id"] = category
        own[0].update(fault)

    own = change(raw, spoil)
    directory = convert(raw)
    assert len(skipped(directory)) == listed
    assert list(record_of(raw)[0]["mask_ids"]) == [own[1]["id"]]
    assert read_report(directory)[0]["train"].objects == 4


def test_box_is_cut_at_the_edge_of_the_picture(raw):
    change(raw, lambda content, own: own[0].update(bbox=[-5, 90.5, 10, 20]))
    convert(raw)
    record, masks = record_of(raw)
    assert record["mask_boxes"][0].tolist() == [0, 90.5, 5, 5.5]
    assert masks[0].sum() == 5 * 6


def spoil_inside(content, own):
    own[0]["bbox"] = [150, 3, 4, 5]


def spoil_numbers(content, own):
    own[0]["bbox"] = [1, 2, float("nan"), 4]


def spoil_width(content, own):
    own[0]["bbox"] = [1, 2, 0, 4]


def spoil_presence(content, own):
    del own[0]["bbox"]


def spoil_category(content, own):
    own[0]["category_id"] = 400


def spoil_owner(content, own):
    own[0]["image_id"] = 7


def spoil_id(content, own):
    own[0]["id"] = 1 << 70


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_inside, "no part in the picture"),
        (spoil_numbers, "width and height above 0"),
        (spoil_width, "width and height above 0"),
        (spoil_presence, "width and height above 0"),
        (spoil_category, "category is unknown"),
        (spoil_owner, "picture is not listed"),
        (spoil_id, "whole number is wanted"),
    ],
)
def test_bad_box_is_listed_and_the_rest_converted(raw, spoil, reason):
    own = change(raw, spoil)
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert reason in entry["reason"]
    assert list(record_of(raw)[0]["mask_ids"]) == [entry["id"] for entry in own[1:3]]
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=2, objects=5, phrases=0, skipped=1)


def test_second_entries_of_an_id_are_listed(raw):
    def repeat(content, own):
        content["annotations"].append({**own[0], "bbox": [1, 1, 1, 1]})
        content["images"].append(dict(content["images"][0]))

    own = change(raw, repeat)
    directory = convert(raw)
    assert ["twice" in entry["reason"] for entry in skipped(directory)] == [True, True]
    assert record_of(raw)[0]["mask_boxes"][0].tolist() == own[0]["bbox"]


@pytest.mark.parametrize("name", ["images/v1/patch0/../x.jpg", "x.jpg", "images/v1/../x.jpg", "patch0/..", None, 5])
def test_picture_name_of_another_form_is_listed(raw, name):
    def rename(content, own):
        for entry in content["images"]:
            entry["file_name"] = name if entry["id"] == FIRST else entry["file_name"]

    change(raw, rename)
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert "is wanted" in entry["reason"]
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=1, objects=3, phrases=0, skipped=1)


def test_missing_picture_is_listed_and_one_of_the_unpacked_archives_found(raw):
    (raw / "train" / "patch0" / f"objects365_v1_{FIRST:08d}.jpg").unlink()
    (raw / "val" / "images" / "v1").mkdir(parents=True)
    (raw / "val" / "patch0").rename(raw / "val" / "images" / "v1" / "patch0")
    (raw / "zhiyuan_objv2_val.json").rename(raw / "val" / "zhiyuan_objv2_val.json")
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert entry["file"] == f"images/v1/patch0/objects365_v1_{FIRST:08d}.jpg"
    counts, _ = read_report(directory)
    assert (counts["train"].pictures, counts["val"].pictures) == (1, 2)


def test_broken_annotation_file_is_one_error(raw):
    path = raw / "zhiyuan_objv2_train.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match="zhiyuan_objv2_train"):
        convert(raw)


def test_empty_annotation_list_gives_pictures_without_boxes(raw):
    change(raw, lambda content, own: content["annotations"].clear())
    assert read_report(convert(raw))[0]["train"] == SplitCounts(pictures=2, objects=0, phrases=0)
