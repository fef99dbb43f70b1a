"""Conversion of COCO 2017: unions of categories, crowds, panoptic maps, and what is skipped."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import json_stream
from unilseg_jax.input_pipeline.catalogue import load_stand_in
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.sources import TripletSource, open_source
from unilseg_jax.ops.masks import segmentation_to_mask
from unilseg_jax.text.prompts import class_names

FIRST = "000000000009"
NAMES = {name.label: name.phrase for table in ("coco_stuff", "coco_panoptic_merged") for name in class_names(table)}


@pytest.fixture
def raw(tmp_path) -> Path:
    load_stand_in("coco").write(tmp_path / "raw", 2, seed=1)
    return tmp_path / "raw"


def convert(raw: Path, config: str, *options: str) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    out = raw.parent / "out"
    prepare.main(["coco", "--raw", str(raw), "--out", str(out), "--config", config, "--max-skipped=1", *options])
    return out / "coco" / config / "1.0.0"


def opened(raw: Path, config: str, split: str = "train") -> TripletSource:
    return open_source(f"coco/{config}", data_dir=raw.parent / "out", split=split)


def skipped(directory: Path) -> list[dict]:
    file = directory / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def annotation_file(raw: Path, config: str = "instances") -> Path:
    return raw / "annotations" / f"{config}_train2017.json"


def change(raw: Path, config: str, spoil) -> dict:
    """Lets a function change the annotation file of train, and returns its content."""
    content = json.loads(annotation_file(raw, config).read_text())
    spoil(content)
    annotation_file(raw, config).write_text(json.dumps(content))
    return content


def test_every_category_is_one_mask_that_is_the_union_of_its_objects_and_crowds(raw):
    content = change(raw, "instances", lambda content: None)
    directory = convert(raw, "instances")
    assert read_report(directory)[0] == dict.fromkeys(("train", "val"), SplitCounts(pictures=2, objects=6, phrases=6))
    assert skipped(directory) == []
    sample = opened(raw, "instances")[0]
    assert sample.image_id == FIRST
    drawn: dict[str, np.ndarray] = {}
    for annotation in content["annotations"][:4]:
        phrase = f"all {NAMES[annotation['category_id']]}"
        mask = segmentation_to_mask(annotation["segmentation"], *sample.image.shape[:2])
        drawn[phrase] = drawn.get(phrase, 0) | mask
    assert set(sample.phrases) == set(drawn)
    for number, phrase in enumerate(sample.phrases):
        assert np.array_equal(sample.mask(number), drawn[phrase])


def test_record_names_the_picture_and_its_categories(raw):
    content = change(raw, "instances", lambda content: None)
    convert(raw, "instances")
    record = opened(raw, "instances").record(0)
    assert record["image"] == (raw / "train2017" / f"{FIRST}.jpg").read_bytes()
    assert record["coco_id"] == 9
    labels = sorted({annotation["category_id"] for annotation in content["annotations"][:4]})
    assert list(record["mask_ids"]) == labels
    assert [name.decode() for name in record["mask_categories"]] == [NAMES[label] for label in labels]
    assert set(record["mask_kinds"]) == set(record["phrase_kinds"]) == {b"category"}
    assert (record["task"], record["source"]) == (b"semantic", b"coco/instances")


def test_panoptic_masks_are_those_of_the_map(raw):
    content = change(raw, "panoptic", lambda content: None)
    directory = convert(raw, "panoptic")
    assert read_report(directory)[0] == dict.fromkeys(("train", "val"), SplitCounts(pictures=2, objects=10, phrases=10))
    sample = opened(raw, "panoptic")[0]
    colours = np.asarray(Image.open(raw / "annotations" / "panoptic_train2017" / f"{FIRST}.png")).astype(int)
    ids = colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]
    assert {"all sky", "all grass"} < set(sample.phrases)
    for number, phrase in enumerate(sample.phrases):
        segments = content["annotations"][0]["segments_info"]
        own = [segment["id"] for segment in segments if f"all {NAMES[segment['category_id']]}" == phrase]
        assert np.array_equal(sample.mask(number), np.isin(ids, own))
    assert (sample.masks.sum(axis=0)[:-1] == 1).all()
    assert not sample.masks[:, -1].any()


def test_picture_without_objects_is_a_record_without_masks(raw):
    change(raw, "instances", lambda content: content["annotations"].clear())
    directory = convert(raw, "instances")
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=2)
    assert opened(raw, "instances")[0].phrases == ()


def test_missing_and_truncated_pictures_are_listed(raw):
    (raw / "train2017" / f"{FIRST}.jpg").unlink()
    other = raw / "val2017" / "000000000139.jpg"
    other.write_bytes(other.read_bytes()[:400])
    directory = convert(raw, "instances")
    assert {entry["file"] for entry in skipped(directory)} == {f"{FIRST}.jpg", other.name}
    counts = read_report(directory)[0]
    assert counts["train"] == counts["val"] == SplitCounts(pictures=1, objects=3, phrases=3, skipped=1)


def test_split_without_a_folder_of_pictures_is_left_out_and_listed_once(raw):
    (raw / "val2017").rename(raw / "elsewhere")
    directory = convert(raw, "panoptic")
    (entry,) = skipped(directory)
    assert "no folder of pictures val2017" in entry["reason"]
    assert read_report(directory)[0]["train"].pictures == 2


def test_pictures_may_lie_elsewhere(raw, tmp_path):
    (tmp_path / "pictures").mkdir()
    for folder in ("train2017", "val2017"):
        (raw / folder).rename(tmp_path / "pictures" / folder)
    directory = convert(raw, "instances", "--pictures", str(tmp_path / "pictures"))
    assert read_report(directory)[0]["val"].pictures == 2


def test_found_configurations_are_those_with_files(raw):
    builder = prepare.load_builder("coco")
    assert builder.found_configs(raw) == ["instances", "panoptic"]
    for file in raw.glob("annotations/instances_*.json"):
        file.unlink()
    assert builder.found_configs(raw) == ["panoptic"]


def spoil_size(content):
    content["images"][0]["height"] += 1


def spoil_name(content):
    content["images"][0]["file_name"] = "../secret.jpg"


def spoil_picture_id(content):
    content["images"].append(dict(content["images"][0]))


def spoil_annotation_id(content):
    content["annotations"].append(dict(content["annotations"][0]))


def spoil_owner(content):
    content["annotations"].append({**content["annotations"][0], "id": 1, "image_id": 7})


def spoil_category(content):
    content["annotations"][0]["category_id"] = 12


def spoil_entry(content):
    content["annotations"].append("no annotation")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_size, "97 × 128"),
        (spoil_name, "plain file name"),
        (spoil_picture_id, "9 occurs twice"),
        (spoil_annotation_id, "900 occurs twice"),
        (spoil_owner, "picture 7 is not listed"),
        (spoil_category, "category 12 is unknown"),
        (spoil_entry, "whole number is wanted"),
    ],
)
def test_bad_entry_is_listed_and_the_rest_converted(raw, spoil, reason):
    change(raw, "instances", spoil)
    directory = convert(raw, "instances")
    (entry,) = skipped(directory)
    assert reason in entry["reason"]
    source = opened(raw, "instances")
    assert source[len(source) - 1].image_id == "000000000012"
    assert read_report(directory)[0]["val"] == SplitCounts(pictures=2, objects=6, phrases=6)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("segmentation", {"size": [96, 128], "counts": [5, 5]}, "10 pixels"),
        ("segmentation", {"size": [96, 127], "counts": [96 * 127]}, "[96, 128] is wanted"),
        ("segmentation", [[1, 2, 3, 4, 5, 6, 7]], "even count"),
        ("segmentation", [[1, 2, 3, 4, 5, 10**400]], "no finite number"),
        ("segmentation", "x", "polygons or run lengths"),
        ("segmentation", None, "polygons or run lengths"),
        ("category_id", [1], "category_id is [1]"),
    ],
)
def test_picture_with_an_object_that_cannot_be_drawn_is_left_out(raw, field, value, reason):
    """Without its category the picture would pass for one that does not show it, and be asked for it in vain."""
    change(raw, "instances", lambda content: content["annotations"][0].update({field: value}))
    directory = convert(raw, "instances")
    (entry,) = skipped(directory)
    assert entry["file"] == f"{FIRST}.jpg"
    assert entry["reason"].startswith("the annotation 900: ")
    assert reason in entry["reason"]
    assert opened(raw, "instances")[0].image_id != FIRST
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=1, objects=3, phrases=3, skipped=1)


@pytest.mark.parametrize("polygon", [[1, 1, 9, 9], [900, 900, 909, 900, 905, 909]])
def test_picture_with_a_category_of_no_pixel_is_left_out(raw, polygon):
    """The object 2 is the only one of its category."""
    change(raw, "instances", lambda content: content["annotations"][2].update(segmentation=[polygon]))
    directory = convert(raw, "instances")
    (entry,) = skipped(directory)
    assert "no pixel in the picture" in entry["reason"]
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=1, objects=3, phrases=3, skipped=1)


def test_polygon_without_area_is_listed_and_its_category_kept(raw):
    change(raw, "instances", lambda content: content["annotations"][0]["segmentation"].append([1, 1, 9, 9]))
    directory = convert(raw, "instances")
    (entry,) = skipped(directory)
    assert "fewer than 3 points" in entry["reason"]
    assert len(opened(raw, "instances")[0].phrases) == 3


def spoil_segment_category(content):
    content["annotations"][0]["segments_info"][0]["category_id"] = 183


def spoil_segment_id(content):
    content["annotations"][0]["segments_info"][0]["id"] = 5


def spoil_segments(content):
    content["annotations"][0]["segments_info"].pop()


def spoil_twice(content):
    content["annotations"][0]["segments_info"] *= 2


def spoil_map_name(content):
    content["annotations"][0]["file_name"] = "../x.png"


def spoil_annotation(content):
    del content["annotations"][0]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_segment_category, "category 183, which is unknown"),
        (spoil_segment_id, "does not list"),
        (spoil_segments, "does not list"),
        (spoil_twice, "listed twice"),
        (spoil_map_name, "plain file name"),
        (spoil_annotation, "no panoptic annotation"),
    ],
)
def test_picture_whose_panoptic_map_and_annotation_disagree_is_listed(raw, spoil, reason):
    change(raw, "panoptic", spoil)
    directory = convert(raw, "panoptic")
    (entry,) = skipped(directory)
    assert entry["file"] == f"{FIRST}.jpg"
    assert reason in entry["reason"]
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=1, objects=5, phrases=5, skipped=1)


@pytest.mark.parametrize(("mode", "size"), [("L", (128, 96)), ("RGB", (128, 95))])
def test_panoptic_map_of_another_kind_or_size_is_listed(raw, mode, size):
    Image.new(mode, size).save(raw / "annotations" / "panoptic_train2017" / f"{FIRST}.png")
    (entry,) = skipped(convert(raw, "panoptic"))
    assert "RGB, 96 × 128 is wanted" in entry["reason"]


def test_categories_with_other_numbers_are_one_error(raw):
    def renumber(content):
        content["categories"][0]["name"] = "fish"

    change(raw, "instances", renumber)
    with pytest.raises(UserError, match="category 1 of the annotation file is 'fish', 'person' is wanted"):
        convert(raw, "instances")


@pytest.mark.parametrize("content", ["", "[]", '{"images": [{"id": 1}, ', '{"images": [1}', '{"images": [], "a": 1}'])
def test_unreadable_annotation_file_is_one_error(raw, content):
    annotation_file(raw).write_text(content)
    with pytest.raises(UserError, match="instances_train2017"):
        convert(raw, "instances")


def test_annotation_file_is_read_in_pieces_of_any_size(raw, monkeypatch):
    path = annotation_file(raw)
    content = json.loads(path.read_text())
    content["info"] = {"a": [1, {"b": '}]\\" é'}], "annotations": [7]}
    content = {name: content[name] for name in ("annotations", "info", "images", "categories")}
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8-sig")
    lists = ("images", "annotations", "categories")
    wanted = [(name, entry) for name in content if name in lists for entry in content[name]]
    for chunk in (1, 7, 1 << 20):
        monkeypatch.setattr(json_stream, "_CHUNK", chunk)
        assert list(json_stream.list_entries(path, lists, "file")) == wanted


def test_entry_without_an_end_is_not_read_to_the_end_of_the_file(raw, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", 10)
    monkeypatch.setattr(json_stream, "_MAX_ENTRY", 100)
    annotation_file(raw).write_text('{"images": ["' + "x" * 10_000)
    reads = []
    original = json_stream._Text._read
    monkeypatch.setattr(json_stream._Text, "_read", lambda text, size: (reads.append(size), original(text, size))[1])
    with pytest.raises(UserError, match="no JSON"):
        list(json_stream.list_entries(annotation_file(raw), ("images",), "file"))
    assert sum(reads) < 1000


def test_names_of_all_categories_are_apart_and_as_in_the_published_lists(shared_dir):
    categories = json.loads((shared_dir / "data" / "coco" / "panoptic_coco_categories.json").read_text())
    tables = (*class_names("coco_stuff"), *class_names("coco_panoptic_merged"))
    natives = {name.label: name.native for name in tables}
    assert {entry["id"]: entry["name"] for entry in categories}.items() <= natives.items()
    assert len({NAMES[entry["id"]] for entry in categories}) == 133
    assert {entry["id"] for entry in categories if entry["isthing"]} == {label for label in natives if label < 91}


def test_real_samples_have_the_counts_of_their_description(shared_dir, tmp_path):
    folder = shared_dir / "data" / "coco"
    prepare.main(["coco", "--raw", str(folder), "--out", str(tmp_path)])
    instances, _ = read_report(tmp_path / "coco" / "instances" / "1.0.0")
    panoptic, _ = read_report(tmp_path / "coco" / "panoptic" / "1.0.0")
    assert {split: counts.pictures for split, counts in instances.items()} == {"train": 208, "val": 40}
    assert (panoptic["train"].pictures, panoptic["train"].skipped) == (100, 0)
    assert sum(counts.skipped for counts in instances.values()) == 0
    for split, objects in {"train": 1644, "val": 348}.items():
        content = json.loads((folder / "annotations" / f"instances_{split}2017.json").read_text())
        assert len(content["annotations"]) == objects
        pairs = {(entry["image_id"], entry["category_id"]) for entry in content["annotations"]}
        assert instances[split].objects == instances[split].phrases == len(pairs)
    content = json.loads((folder / "annotations" / "panoptic_train2017.json").read_text())
    areas: dict[tuple[int, int], int] = {}
    for entry in content["annotations"]:
        for segment in entry["segments_info"]:
            key = (entry["image_id"], segment["category_id"])
            areas[key] = areas.get(key, 0) + segment["area"]
    source = open_source("coco/panoptic", data_dir=tmp_path, split="train")
    found = {}
    for number in range(0, len(source), 7):
        record, sample = source.record(number), source[number]
        for label, mask in zip(record["mask_ids"], sample.masks, strict=True):
            found[int(record["coco_id"]), label] = int(mask.sum())
    assert len(found) > 50
    assert found.items() <= areas.items()
