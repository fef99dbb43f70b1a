"""Conversion of COCO-Stuff: pixel maps of both numberings, JSON files of stuff, and what is skipped."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.catalogue import load_stand_in
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.sources import TripletSource, open_source
from unilseg_jax.ops.masks import segmentation_to_mask
from unilseg_jax.text.prompts import class_names

ORIGINAL, SQUEEZED = "000000000009", "000000000012"
NAMES = {name.label: name.phrase for name in class_names("coco_stuff")}


@pytest.fixture
def raw(tmp_path) -> Path:
    load_stand_in("coco_stuff").write(tmp_path / "raw", 2, seed=1)
    return tmp_path / "raw"


def convert(raw: Path, config: str = "pixelmaps", *options: str) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    out = raw.parent / "out"
    prepare.main(["coco_stuff", "--raw", str(raw), "--out", str(out), "--config", config, "--max-skipped=1", *options])
    return out / "coco_stuff" / config / "1.0.0"


def opened(raw: Path, config: str = "pixelmaps") -> TripletSource:
    return open_source(f"coco_stuff/{config}", data_dir=raw.parent / "out", split="train")


def skipped(directory: Path) -> list[dict]:
    file = directory / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def maps(raw: Path) -> Path:
    return raw / "stuffthingmaps_trainval2017" / "train2017"


def write_map(raw: Path, *values: int, name: str = ORIGINAL) -> None:
    """Writes a label map of columns of equal width."""
    row = np.repeat(np.array(values, np.uint8), 128 // len(values))
    Image.fromarray(np.tile(row, (96, 1))).save(maps(raw) / f"{name}.png")


def test_both_numberings_give_the_masks_of_their_map(raw):
    directory = convert(raw)
    assert read_report(directory)[0] == dict.fromkeys(("train", "val"), SplitCounts(pictures=2, objects=10, phrases=10))
    assert skipped(directory) == []
    source = opened(raw)
    numberings = (lambda label: label - 1, sorted(NAMES).index)
    for number, (file, value_of) in enumerate(zip((ORIGINAL, f"{SQUEEZED}_labelTrainIds"), numberings, strict=True)):
        values = np.asarray(Image.open(maps(raw) / f"{file}.png"))
        record, sample = source.record(number), source[number]
        assert record["coco_id"] == int(file[:12])
        assert len(sample.masks) == 5
        for label, phrase, mask in zip(record["mask_ids"], sample.phrases, sample.masks, strict=True):
            assert phrase == f"all {NAMES[label]}"
            assert np.array_equal(mask, values == value_of(label))
        assert np.array_equal(sample.masks.sum(axis=0), values != 255)


@pytest.mark.parametrize(
    ("name", "values", "phrases"),
    [
        (ORIGINAL, (0, 156, 181, 255), ["all person", "all sky", "all wood"]),
        (
            f"{SQUEEZED}_labelTrainIds",
            (0, 10, 11, 170),
            ["all person", "all fire hydrant", "all stop sign", "all wood"],
        ),
    ],
)
def test_values_of_the_two_numberings_mean_the_published_classes(raw, name, values, phrases):
    """COCO's ids have a gap at 12: `stop sign` is 13, and 11 among the classes without gaps."""
    write_map(raw, *values, name=name)
    convert(raw)
    (sample,) = [sample for sample in (opened(raw)[0], opened(raw)[1]) if sample.image_id == name[:12]]
    assert list(sample.phrases) == phrases
    assert [np.flatnonzero(mask[0]).tolist()[::31] for mask in sample.masks] == [
        [start, start + 31] for start in range(0, 32 * len(phrases), 32)
    ]


def test_original_map_is_taken_where_both_are_there(raw):
    write_map(raw, 0, 1, name=f"{ORIGINAL}_labelTrainIds")
    assert read_report(convert(raw))[0]["train"] == SplitCounts(pictures=2, objects=10, phrases=10)
    assert len(opened(raw)[0].masks) == 5


@pytest.mark.parametrize(("name", "value"), [(ORIGINAL, 11), (ORIGINAL, 182), (f"{SQUEEZED}_labelTrainIds", 171)])
def test_value_that_is_no_class_is_listed(raw, name, value):
    write_map(raw, 0, value, name=name)
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert f"the value {value}, which is no class" in entry["reason"]
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=1, objects=5, phrases=5, skipped=1)


def test_map_without_labels_is_a_record_without_masks(raw):
    write_map(raw, 255)
    convert(raw)
    assert len(opened(raw)[0].masks) == 0
    assert opened(raw)[0].phrases == ()


def spoil_size(raw):
    Image.new("L", (128, 95)).save(maps(raw) / f"{ORIGINAL}.png")


def spoil_colours(raw):
    Image.new("RGB", (128, 96)).save(maps(raw) / f"{ORIGINAL}.png")


def spoil_map(raw):
    (maps(raw) / f"{ORIGINAL}.png").write_bytes((maps(raw) / f"{ORIGINAL}.png").read_bytes()[:60])


def spoil_picture(raw):
    picture = raw / "train2017" / f"{ORIGINAL}.jpg"
    picture.write_bytes(picture.read_bytes()[:500])


def spoil_presence(raw):
    (raw / "train2017" / f"{ORIGINAL}.jpg").unlink()


def spoil_name(raw):
    (maps(raw) / f"{ORIGINAL}.png").rename(maps(raw) / "COCO_train2014_000000000009.png")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_size, "95 × 128"),
        (spoil_colours, "mode RGB"),
        (spoil_map, "broken"),
        (spoil_picture, "broken"),
        (spoil_presence, "not read"),
        (spoil_name, "not the id of a COCO picture"),
    ],
)
def test_bad_file_is_listed_and_the_rest_converted(raw, spoil, reason):
    spoil(raw)
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert reason in entry["reason"]
    counts, _ = read_report(directory)
    assert counts["train"] == SplitCounts(pictures=1, objects=5, phrases=5, skipped=1)
    assert counts["val"] == SplitCounts(pictures=2, objects=10, phrases=10)


def test_json_of_stuff_gives_stuff_without_the_rest(raw):
    directory = convert(raw, "stuff_json")
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=2, objects=4, phrases=4)
    assert skipped(directory) == []
    sample = opened(raw, "stuff_json")[0]
    assert set(sample.phrases) == {"all sky", "all grass"}
    values = np.asarray(Image.open(maps(raw) / f"{ORIGINAL}.png"))
    for number, phrase in enumerate(sample.phrases):
        assert np.array_equal(sample.mask(number), values == (156 if phrase == "all sky" else 123))


def convert_changed(raw, **change) -> tuple[dict, SplitCounts]:
    """Changes an annotation of stuff, and returns the one thing that is listed and the counts."""
    file = raw / "annotations" / "stuff_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0].update(change)
    file.write_text(json.dumps(content))
    directory = convert(raw, "stuff_json")
    (entry,) = skipped(directory)
    return entry, read_report(directory)[0]["train"]


def test_annotation_of_another_class_is_listed_and_the_others_kept(raw):
    entry, counts = convert_changed(raw, category_id=1)
    assert "category 1 is unknown" in entry["reason"]
    assert counts == SplitCounts(pictures=2, objects=3, phrases=3, skipped=1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"category_id": [1]}, "category_id is [1]"),
        ({"segmentation": {"size": [96, 128], "counts": "~~"}}, "not a compressed COCO string"),
        ({"segmentation": {"size": [96, 128], "counts": "0"}}, "0 pixels"),
        ({"segmentation": {"size": [95, 128], "counts": "0"}}, "96, 128"),
    ],
)
def test_picture_with_stuff_that_cannot_be_drawn_is_left_out(raw, change, reason):
    entry, counts = convert_changed(raw, **change)
    assert reason in entry["reason"]
    assert entry["file"] == f"{ORIGINAL}.jpg"
    assert counts == SplitCounts(pictures=1, objects=2, phrases=2, skipped=1)


def test_found_configurations_are_those_with_files(raw):
    builder = prepare.load_builder("coco_stuff")
    assert builder.found_configs(raw) == ["pixelmaps", "stuff_json"]
    shutil.rmtree(raw / "stuffthingmaps_trainval2017")
    assert builder.found_configs(raw) == ["stuff_json"]
    shutil.rmtree(raw / "annotations")
    with pytest.raises(UserError, match="stuffthingmaps_trainval2017"):
        convert(raw)


def test_names_are_those_of_the_published_list(shared_dir):
    lines = (shared_dir / "data" / "cocostuff" / "labels.txt").read_text().splitlines()
    published = {int(number): name for number, name in (line.split(": ") for line in lines)}
    natives = {name.label: name.native for name in class_names("coco_stuff")}
    assert natives.items() <= published.items()
    missing = {published[number] for number in published.keys() - natives.keys()}
    assert len(natives) == 171
    never = "street sign,hat,shoe,eye glasses,plate,mirror,window,desk,door,blender,hair brush"
    assert missing == {"unlabeled", *never.split(",")}


def test_real_sample_has_the_masks_of_its_annotations(shared_dir, tmp_path):
    """The sample's file is not named after a split; the picture of one of its two entries was not to be had."""
    sample = shared_dir / "data" / "cocostuff"
    raw = tmp_path / "raw"
    (raw / "annotations").mkdir(parents=True)
    (raw / "train2017").symlink_to(sample / "train2017")
    (raw / "annotations" / "stuff_train2017.json").symlink_to(sample / "annotations" / "stuff_examples.json")
    directory = convert(raw, "stuff_json")
    (entry,) = skipped(directory)
    assert entry["file"] == "000000013715.jpg"
    content = json.loads((sample / "annotations" / "stuff_examples.json").read_text())
    wanted = {entry["category_id"]: entry for entry in content["annotations"] if entry["image_id"] == 934}
    assert len(content["annotations"]) == 17
    other = wanted.pop(183)
    source = opened(raw, "stuff_json")
    record, triplet = source.record(0), source[0]
    assert set(record["mask_ids"]) == set(wanted)
    for label, mask in zip(record["mask_ids"], triplet.masks, strict=True):
        assert mask.sum() == wanted[label]["area"]
    rest = segmentation_to_mask(other["segmentation"], *triplet.image.shape[:2])
    assert not (triplet.masks.max(axis=0) & rest).any()
    assert round(float(triplet.masks.sum() + rest.sum()) / rest.size, 3) == 0.999
