"""Conversion of RefCOCOs: boxes that name objects of COCO, expressions that match nothing, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from refer_synthetic import drawn_mask

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.catalogue import load_stand_in
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.sources import open_source


class Folder:
    """The stand-in with two pictures, opened: a test changes `items` and converts."""

    def __init__(self, root: Path):
        load_stand_in("refcocos").write(root / "raw", 2)
        self.root = root
        self.file = root / "raw/refcocos_test.json"
        self.items = json.loads(self.file.read_text())

    def convert(self) -> Path:
        self.file.write_text(json.dumps(self.items))
        out = self.root / "out"
        prepare.main(["refcocos", "--raw", str(self.root / "raw"), "--out", str(out), "--max-skipped=1"])
        return out / "refcocos/refcocos/1.0.0"

    def source(self):
        return open_source("refcocos", data_dir=self.root / "out", split="test")


@pytest.fixture
def raw(tmp_path) -> Folder:
    return Folder(tmp_path)


def test_expressions_of_one_object_share_its_mask_and_null_matches_nothing(raw):
    counts, _ = read_report(raw.convert())
    assert counts == {"test": SplitCounts(pictures=2, objects=4, phrases=8)}
    sample = raw.source()[1]
    assert sample.image_id == "000000350001"
    assert raw.source().record(1)["coco_id"] == 350001
    assert sample.mask_index == (0, 0, 1, -1)
    assert sample.phrases[-1] == "the zebra"
    assert sample.phrase_ids == ("350001_4", "350001_5", "350001_6", "350001_7")
    assert sample.kinds == ("referring", "referring", "referring", "nothing")
    annotations = json.loads((raw.root / "raw/instances_val2017.json").read_text())["annotations"]
    wanted = [drawn_mask(entry["segmentation"]) for entry in annotations[3:5]]
    np.testing.assert_array_equal(sample.masks, wanted)


def test_object_whose_box_is_out_of_all_bounds_is_no_target(raw):
    file = raw.root / "raw/instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][3]["bbox"][2] = 10**400
    file.write_text(json.dumps(content))
    counts, _ = read_report(raw.convert())
    assert (counts["test"].objects, counts["test"].skipped) == (3, 1)


def test_annotations_may_lie_where_coco_has_them(raw):
    (raw.root / "raw/annotations").mkdir()
    (raw.root / "raw/instances_val2017.json").rename(raw.root / "raw/annotations/instances_val2017.json")
    assert read_report(raw.convert())[0]["test"].pictures == 2


def spoil_box(raw):
    """As for a box that was drawn by hand."""
    raw.items[2]["solution"][0] += 3


def test_boxes_drawn_by_hand_may_be_more_than_one_in_a_hundred(tmp_path):
    load_stand_in("refcocos").write(tmp_path / "raw", 3)
    items = json.loads((tmp_path / "raw/refcocos_test.json").read_text())
    items[2]["solution"][0] += 3
    (tmp_path / "raw/refcocos_test.json").write_text(json.dumps(items))
    arguments = ["refcocos", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    prepare.main(arguments)
    counts, _ = read_report(tmp_path / "out/refcocos/refcocos/1.0.0")
    assert counts["test"] == SplitCounts(pictures=3, objects=5, phrases=11, skipped=1)
    with pytest.raises(UserError, match="--max-skipped"):
        prepare.main([*arguments, "--overwrite", "--max-skipped", "0.1"])


def spoil_box_type(raw):
    raw.items[2]["solution"] = "left"


def spoil_box_size(raw):
    raw.items[2]["solution"][0] = 10**400


def spoil_caption(raw):
    raw.items[2]["normal_caption"] = "  "


def spoil_caption_away(raw):
    del raw.items[2]["normal_caption"]


def spoil_name(raw):
    raw.items[2]["file_name"] = "picture.jpg"


def spoil_name_type(raw):
    raw.items[2]["file_name"] = 350000


def spoil_twice(raw):
    raw.items[2] = dict(raw.items[0])


def spoil_item(raw):
    raw.items[2] = None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_box, "0 objects of COCO"),
        (spoil_box_type, "a box"),
        (spoil_box_size, "a box"),
        (spoil_caption, "no sentence that says anything"),
        (spoil_caption_away, "normal_caption"),
        (spoil_name, "no picture of COCO"),
        (spoil_name_type, "no picture of COCO"),
        (spoil_twice, "twice"),
        (spoil_item, "item number 2"),
    ],
)
def test_bad_item_is_listed_and_the_rest_converted(raw, spoil, reason):
    spoil(raw)
    directory = raw.convert()
    (entry,) = [json.loads(line) for line in (directory / "quarantine.jsonl").read_text().splitlines()]
    assert reason in entry["reason"]
    assert read_report(directory)[0]["test"] == SplitCounts(pictures=2, objects=3, phrases=7, skipped=1)


@pytest.mark.parametrize("content", ["{}", "[", ""])
def test_unreadable_list_is_one_error(raw, content):
    raw.file.write_text(content)
    with pytest.raises(UserError, match=r"refcocos_test\.json") as caught:
        prepare.main(["refcocos", "--raw", str(raw.root / "raw"), "--out", str(raw.root / "out")])
    assert "\n" not in str(caught.value)


def test_missing_annotation_file_is_one_clear_line(raw):
    (raw.root / "raw/instances_val2017.json").unlink()
    with pytest.raises(UserError, match=r"instances_val2017\.json"):
        raw.convert()


def test_real_sample_has_the_counts_of_its_description(shared_dir, tmp_path):
    prepare.main(["refcocos", "--raw", str(shared_dir / "data" / "refcocos"), "--out", str(tmp_path)])
    counts, _ = read_report(tmp_path / "refcocos/refcocos/1.0.0")
    # Two of the 24 expressions mean the same person.
    assert counts == {"test": SplitCounts(pictures=22, objects=23, phrases=24)}
    source = open_source("refcocos", data_dir=tmp_path, split="test")
    content = json.loads((shared_dir / "data/refcocos/instances_val2017.json").read_text())
    boxes = {entry["id"]: entry["bbox"] for entry in content["annotations"]}
    for number in range(len(source)):
        record = source.record(number)
        wanted = np.array([boxes[key] for key in record["mask_ids"]])
        # A rasterised box is whole pixels; a mask can be cut by its outline being thin there.
        np.testing.assert_allclose(record["mask_boxes"], wanted, atol=2)
