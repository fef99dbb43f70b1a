"""Conversion of gRefCOCO: one target, several, none, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from refer_synthetic import drawn_mask

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.catalogue import load_stand_in
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.index import read_index
from unilseg_jax.input_pipeline.sources import open_source

SPLITS = ("train", "val", "testA", "testB")
# What the stand-in has of a split with one picture: left object, both, nothing, right object with a crowd.
SIZES = SplitCounts(pictures=1, objects=3, phrases=4)


class GrefFolder:
    """The stand-in, opened: a test changes `refs` and `instances` and converts."""

    def __init__(self, root: Path):
        load_stand_in("grefcoco").write(root / "raw", 1)
        self.root = root
        self.refs_file = root / "raw/grefcoco/grefs(unc).json"
        self.instances_file = root / "raw/grefcoco/instances.json"
        self.refs = json.loads(self.refs_file.read_text())
        self.instances = json.loads(self.instances_file.read_text())

    def convert(self) -> Path:
        self.refs_file.write_text(json.dumps(self.refs))
        self.instances_file.write_text(json.dumps(self.instances))
        out = self.root / "out"
        prepare.main(["grefcoco", "--raw", str(self.root / "raw"), "--out", str(out), "--max-skipped=1"])
        return out / "grefcoco/grefcoco/1.0.0"

    def source(self, split: str = "train"):
        return open_source("grefcoco", data_dir=self.root / "out", split=split)


@pytest.fixture
def raw(tmp_path) -> GrefFolder:
    return GrefFolder(tmp_path)


def test_every_split_has_single_multiple_and_missing_targets(raw):
    directory = raw.convert()
    counts, published = read_report(directory)
    assert counts == dict.fromkeys(SPLITS, SIZES)
    assert sum(split.pictures for split in published.values()) == 19994
    sample = raw.source()[0]
    assert sample.phrases == ("the person on the left", "the person and the car", "the zebra", "the car on the right")
    assert sample.mask_index == (0, 1, -1, 2)
    assert sample.kinds == ("referring", "referring", "nothing", "referring")
    # Three masks and a phrase that matches nothing.
    assert read_index(directory, "train").samples.tolist() == [4]


def test_several_targets_are_one_mask_their_union_and_crowds_are_left_out(raw):
    raw.convert()
    sample = raw.source()[0]
    left, right = (drawn_mask(entry["segmentation"]) for entry in raw.instances["annotations"][:2])
    np.testing.assert_array_equal(sample.masks, [left, left | right, right])
    record = raw.source().record(0)
    assert list(record["mask_categories"]) == [b"person", b"", b"car"]
    keys = [entry["id"] for entry in raw.instances["annotations"][:2]]
    assert list(record["mask_ids"]) == [keys[0], -1, keys[1]]
    assert set(record["mask_kinds"]) == {b"instance"}


def test_a_single_id_without_a_list_is_accepted(raw):
    assert raw.refs[0]["ann_id"] == [raw.instances["annotations"][0]["id"]]
    raw.refs[0]["ann_id"] = raw.refs[0]["ann_id"][0]
    counts, _ = read_report(raw.convert())
    assert counts["train"] == SIZES


@pytest.mark.parametrize("value", [-1, [-1]])
def test_no_target_is_told_by_the_id_alone(raw, value):
    del raw.refs[2]["no_target"]
    raw.refs[2]["ann_id"] = value
    raw.convert()
    assert raw.source()[0].mask_index == (0, 1, -1, 2)


def test_a_picture_of_which_nothing_is_found_is_a_record(raw):
    raw.refs = [raw.refs[2], *raw.refs[4:]]
    counts, _ = read_report(raw.convert())
    assert counts["train"] == SplitCounts(pictures=1, objects=0, phrases=1)
    sample = raw.source()[0]
    assert sample.masks.shape == (0, 96, 128)
    assert not sample.mask(0).any()


def spoil_one_of_several(raw):
    raw.refs[1]["ann_id"][1] = 7


def spoil_owner(raw):
    raw.refs[1]["ann_id"] = raw.refs[5]["ann_id"]


def spoil_with_crowds_only(raw):
    raw.refs[3]["ann_id"] = raw.refs[3]["ann_id"][1:]


def spoil_with_nothing_among_targets(raw):
    raw.refs[1]["ann_id"].append(-1)


def spoil_no_target(raw):
    raw.refs[1]["no_target"] = True


def spoil_ids(raw):
    raw.refs[1]["ann_id"] = []


def spoil_type(raw):
    raw.refs[1]["ann_id"] = ["1"]


def spoil_sentence(raw):
    raw.refs[2]["sentences"][0]["sent"] = "?!"


def spoil_polygons(raw):
    raw.instances["annotations"][1]["segmentation"] = [[1.0, 2.0, 3.0, 4.0]]
    # The ref to this object alone is not in question here.
    del raw.refs[3]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_one_of_several, "annotation 7 is not"),
        (spoil_owner, "of picture 340001"),
        (spoil_with_crowds_only, "crowds only"),
        (spoil_with_nothing_among_targets, "has no target"),
        (spoil_no_target, "has no target"),
        (spoil_ids, r"an id, a list of them or \[-1\]"),
        (spoil_type, r"an id, a list of them or \[-1\]"),
        (spoil_sentence, "no sentence that says anything"),
        (spoil_polygons, "2 points"),
    ],
)
def test_bad_ref_is_listed_as_a_whole_and_the_rest_converted(raw, spoil, reason):
    """A union without one of its objects would be a wrong mask."""
    spoil(raw)
    directory = raw.convert()
    (entry,) = [json.loads(line) for line in (directory / "quarantine.jsonl").read_text().splitlines()]
    assert re.search(reason, entry["reason"])
    assert entry["split"] == "train"
    counts, _ = read_report(directory)
    assert counts["train"].phrases == len([ref for ref in raw.refs if ref["split"] == "train"]) - 1
    assert counts["val"] == SIZES


@pytest.mark.parametrize("content", ["{}", "[", ""])
def test_unreadable_refs_are_one_error(raw, content):
    raw.convert()
    raw.refs_file.write_text(content)
    with pytest.raises(UserError, match=r"grefs\(unc\)\.json") as caught:
        prepare.main(["grefcoco", "--raw", str(raw.root / "raw"), "--out", str(raw.root / "other")])
    assert "\n" not in str(caught.value)


def test_refs_joined_from_real_annotations_have_the_union_as_mask(shared_dir, tmp_path):
    """There is no real sample of gRefCOCO: real pictures, polygons and sentences, joined here."""
    refer = shared_dir / "data" / "refer"
    content = json.loads((refer / "refcoco/instances.json").read_text())
    image_id, keys = _picture_with_objects(content)
    sentence = {"sent": "all of them", "raw": "", "tokens": [], "sent_id": 0}
    refs = [
        {"ref_id": 0, "image_id": image_id, "split": "val", "ann_id": keys, "sentences": [sentence]},
        {"ref_id": 1, "image_id": image_id, "split": "val", "ann_id": [-1], "sentences": [sentence]},
    ]
    (tmp_path / "raw/grefcoco").mkdir(parents=True)
    (tmp_path / "raw/grefcoco/grefs(unc).json").write_text(json.dumps(refs))
    (tmp_path / "raw/grefcoco/instances.json").write_text(json.dumps(content))
    pictures = refer / "images/mscoco/images/train2014"
    options = ["--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--pictures", str(pictures)]
    prepare.main(["grefcoco", *options])
    sample = open_source("grefcoco", data_dir=tmp_path / "out", split="val")[0]
    areas = [entry["area"] for entry in content["annotations"] if entry["id"] in keys]
    assert sample.mask_index == (0, -1)
    # Objects may cover each other, and COCO counts an area in halves of pixels.
    assert max(areas) * 0.98 < sample.masks[0].sum() < sum(areas) * 1.02


def _picture_with_objects(content: dict) -> tuple[int, list[int]]:
    """Returns a picture with at least three objects, and their ids."""
    owned: dict[int, list[int]] = {}
    for entry in content["annotations"]:
        if not entry["iscrowd"]:
            owned.setdefault(entry["image_id"], []).append(entry["id"])
    return next((image_id, keys) for image_id, keys in owned.items() if len(keys) >= 3)
