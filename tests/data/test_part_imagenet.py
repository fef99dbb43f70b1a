"""Conversion of PartImageNet: label maps, annotation files, names, and what is skipped."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.input_pipeline.triplet import Triplet, decode_record
from unilseg_jax.ops.masks import polygons_to_mask
from unilseg_jax.text.prompts import class_names

prepare.load_builder("part_imagenet")
from unilseg_jax_data_part_imagenet import synthetic  # noqa: E402  (loaded by the line above)

COUNT = 3
SPLITS = ("train", "val", "test")
WHOLE = SplitCounts(pictures=COUNT, objects=2 * COUNT, phrases=2 * COUNT)
FIRST = "n01440764_10029"


@pytest.fixture
def raw(tmp_path) -> Path:
    synthetic.write(tmp_path / "raw", COUNT)
    return tmp_path / "raw"


def convert(raw: Path, config: str, *options: str) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    out = raw.parent / "out"
    command = ["part_imagenet", "--raw", str(raw), "--out", str(out), "--config", config, "--max-skipped=1"]
    prepare.main([*command, *options])
    return out / "part_imagenet" / config / "1.0.0"


def skipped(directory: Path) -> list[dict]:
    file = directory / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def open_split(directory: Path, split: str = "train"):
    name = f"part_imagenet/{directory.parent.name}"
    return open_source(name, data_dir=directory.parents[2], split=split)


def samples(directory: Path, split: str = "train") -> list[Triplet]:
    source = open_split(directory, split)
    return [source[number] for number in range(len(source))]


def edit(raw: Path, split: str = "train"):
    """Returns the content of an annotation file and a function that writes it back."""
    path = raw / "annotations" / split / f"{split}.json"
    content = json.loads(path.read_text())
    return content, lambda: path.write_text(json.dumps(content))


@pytest.mark.parametrize("config", ["seg", "coco"])
def test_both_forms_give_all_of_every_part_as_drawn(raw, config):
    directory = convert(raw, config)
    assert read_report(directory)[0] == dict.fromkeys(SPLITS, WHOLE)
    names = {row.label: row.phrase for row in class_names("part_imagenet")}
    for split in SPLITS:
        for sample in samples(directory, split):
            labels = np.asarray(Image.open(raw / "annotations" / split / f"{sample.image_id}.png"))
            present = [label for label in np.unique(labels).tolist() if label != synthetic.BACKGROUND]
            assert sample.phrases == tuple(f"all {names[label]}" for label in present)
            assert set(sample.kinds) == {"part"}
            for index, label in enumerate(present):
                mask, drawn = sample.masks[sample.mask_index[index]] > 0, labels == label
                if config == "seg":
                    np.testing.assert_array_equal(mask, drawn)
                else:
                    # An outline runs through the middle of the pixels on the edge.
                    assert (mask & drawn).sum() > 0.85 * (mask | drawn).sum()


def test_first_label_is_a_part_and_not_the_background(raw):
    record = open_split(convert(raw, "seg")).record(0)
    assert list(record["mask_ids"]) == [0, 1]
    assert list(record["mask_categories"]) == [b"quadruped head", b"quadruped body"]
    assert list(record["phrases"]) == [b"all quadruped head", b"all quadruped body"]
    assert list(record["mask_kinds"]) == [b"part", b"part"]
    assert (record["image_id"], record["task"]) == (FIRST.encode(), b"part")
    assert (record["coco_id"], record["source"]) == (-1, b"part_imagenet/seg")
    assert record["image"] == (raw / f"images/train/{FIRST}.JPEG").read_bytes()


def test_names_are_language():
    names = {row.label: (row.native, row.phrase) for row in class_names("part_imagenet")}
    assert sorted(names) == list(range(40))
    assert names[6] == ("Biped Hand", "biped hand")
    assert names[25] == ("Car Tier", "car tire")
    assert names[30] == ("Bicycle Tier", "bicycle tire")
    assert names[26][1] == "car side mirror"
    assert len({phrase for _, phrase in names.values()}) == 40


def test_names_are_those_of_the_authors(shared_dir):
    listed = json.loads((shared_dir / "data/label_lists/partimagenet_categories.json").read_text())
    assert [(row.label, row.native) for row in class_names("part_imagenet")] == [
        (entry["id"], entry["name"]) for entry in listed
    ]


def test_ignored_pixels_are_a_mask_that_no_phrase_names(raw):
    path = raw / f"annotations/train/{FIRST}.png"
    labels = np.asarray(Image.open(path)).copy()
    labels[:, :5] = 255
    Image.fromarray(labels).save(path)
    directory = convert(raw, "seg")
    record = open_split(directory).record(0)
    sample = decode_record(record)
    assert [bytes(kind).decode() for kind in record["mask_kinds"]] == ["part", "part", "ignored"]
    assert list(record["mask_ids"])[-1] == 255
    np.testing.assert_array_equal(sample.masks[-1], labels == 255)
    assert not sample.masks[:2, :, :5].any()
    assert sorted(sample.mask_index) == [0, 1]
    assert read_report(directory)[0]["train"].objects == 2 * COUNT, "what is ignored is no object"


def test_picture_without_a_part_stays_without_phrases(raw):
    path = raw / f"annotations/train/{FIRST}.png"
    Image.fromarray(np.full((synthetic.HEIGHT, synthetic.WIDTH), 40, np.uint8)).save(path)
    directory = convert(raw, "seg")
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=COUNT, objects=4, phrases=4)
    assert samples(directory)[0].phrases == ()


def test_masks_of_whole_objects_are_passed_over(raw):
    whole = raw / "annotations/train_whole"
    whole.mkdir()
    Image.new("L", (90, 60), 158).save(whole / f"{FIRST}.png")
    assert read_report(convert(raw, "seg"))[0]["train"] == WHOLE


def test_annotations_of_a_part_are_one_mask(raw):
    """The stand-in's outer two drawings are one part: two annotations, one mask."""
    content, _ = edit(raw)
    assert [entry["category_id"] for entry in content["annotations"][:3]] == [0, 1, 0]
    sample = samples(convert(raw, "coco"))[0]
    assert sample.phrases == ("all quadruped head", "all quadruped body")
    polygons = [entry["segmentation"][0] for entry in content["annotations"][:3]]
    size = (synthetic.HEIGHT, synthetic.WIDTH)
    np.testing.assert_array_equal(sample.masks[0], polygons_to_mask(polygons[::2], *size))
    np.testing.assert_array_equal(sample.masks[1], polygons_to_mask(polygons[1:2], *size))


def test_names_of_the_file_decide_over_its_ids(raw):
    content, save = edit(raw)
    for entry in content["categories"]:
        entry["id"] += 1
    for entry in content["annotations"]:
        entry["category_id"] += 1
    save()
    record = open_split(convert(raw, "coco")).record(0)
    assert list(record["mask_ids"]) == [0, 1]
    assert list(record["phrases"]) == [b"all quadruped head", b"all quadruped body"]


def nest(raw: Path) -> None:
    for path in list(raw.glob("images/*/*.JPEG")):
        folder = path.parent / path.name.split("_")[0]
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)


def first_release(raw: Path) -> None:
    """As PartImageNet_OOD unpacks."""
    nest(raw)
    for split in SPLITS:
        (raw / "annotations" / split / f"{split}.json").rename(raw / f"{split}.json")
        (raw / "images" / split).rename(raw / split)


def beside(raw: Path) -> None:
    for split in SPLITS:
        (raw / "annotations" / split / f"{split}.json").rename(raw / "annotations" / f"{split}.json")


def archive(raw: Path) -> None:
    (raw / "PartImageNet").mkdir()
    for name in ("images", "annotations"):
        (raw / name).rename(raw / "PartImageNet" / name)


@pytest.mark.parametrize("layout", [nest, first_release, beside, archive])
@pytest.mark.parametrize("config", ["seg", "coco"])
def test_layouts_of_the_releases_are_found(raw, layout, config):
    layout(raw)
    assert read_report(convert(raw, config))[0] == dict.fromkeys(SPLITS, WHOLE)


def test_file_name_may_hold_the_folder_of_its_class(raw):
    nest(raw)
    content, save = edit(raw)
    for entry in content["images"]:
        entry["file_name"] = entry["file_name"].split("_")[0] + "/" + entry["file_name"]
    save()
    directory = convert(raw, "coco")
    assert read_report(directory)[0]["train"] == WHOLE
    assert samples(directory)[0].image_id == FIRST


@pytest.mark.parametrize("parts", [("images",), ("images", "test")])
def test_pictures_may_lie_elsewhere(raw, tmp_path, parts):
    (raw / Path(*parts)).rename(tmp_path / "pictures")
    assert read_report(convert(raw, "seg", "--pictures", str(tmp_path / "pictures")))[0]["test"] == WHOLE


def spoil_picture(raw: Path):
    path = raw / f"images/train/{FIRST}.JPEG"
    path.write_bytes(path.read_bytes()[:300])


def spoil_map_size(raw: Path):
    path = raw / f"annotations/train/{FIRST}.png"
    Image.open(path).crop((0, 0, 80, 60)).save(path)


def spoil_label(raw: Path):
    path = raw / f"annotations/train/{FIRST}.png"
    Image.new("L", (90, 60), 158).save(path)


def spoil_map(raw: Path):
    (raw / f"annotations/train/{FIRST}.png").unlink()


def spoil_no_picture(raw: Path):
    (raw / f"images/train/{FIRST}.JPEG").unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_picture, "broken"),
        (spoil_map_size, "60 × 80, its picture 60 × 90"),
        (spoil_label, "label 158; 0 to 39 are classes, 40 or 255 stands for none"),
        (spoil_map, "no label map of its stem"),
        (spoil_no_picture, "no picture of its stem"),
    ],
)
def test_bad_picture_of_label_maps_is_listed_and_the_rest_converted(raw, spoil, reason):
    spoil(raw)
    directory = convert(raw, "seg")
    counts, _ = read_report(directory)
    assert counts["train"] == SplitCounts(pictures=COUNT - 1, objects=4, phrases=4, skipped=1)
    assert counts["val"] == counts["test"] == WHOLE
    (entry,) = skipped(directory)
    assert entry["file"].startswith(FIRST)
    assert reason in entry["reason"]


def spoil_polygon(content: dict):
    content["annotations"][1]["segmentation"] = [[1, 1, 9, 9]]


def spoil_half_a_part(content: dict):
    content["annotations"][2]["segmentation"] = [[1, 1, 9, 9, 1, 9, 5]]


def spoil_category(content: dict):
    content["annotations"][1]["category_id"] = 40


def spoil_category_type(content: dict):
    content["annotations"][1]["category_id"] = [1]


def spoil_run_lengths(content: dict):
    content["annotations"][1]["segmentation"] = {"size": [60, 90], "counts": [5, 5]}


def spoil_picture_id(content: dict):
    content["annotations"][1]["image_id"] = 99


def spoil_annotation_id(content: dict):
    content["annotations"][1]["id"] = 0


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_category, "category 40 is none"),
        (spoil_picture_id, "picture 99 is not listed"),
        (spoil_annotation_id, "twice"),
    ],
)
def test_annotation_that_belongs_to_no_part_is_listed_and_the_others_kept(raw, spoil, reason):
    content, save = edit(raw)
    spoil(content)
    save()
    directory = convert(raw, "coco")
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=COUNT, objects=5, phrases=5, skipped=1)
    assert samples(directory)[0].phrases == ("all quadruped head",)
    (entry,) = skipped(directory)
    assert reason in entry["reason"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_polygon, "no pixel in the picture"),
        (spoil_half_a_part, "7 numbers"),
        (spoil_category_type, "category_id is [1]"),
        (spoil_run_lengths, "10 pixels, 5400"),
    ],
)
def test_picture_with_a_part_that_cannot_be_drawn_is_left_out(raw, spoil, reason):
    content, save = edit(raw)
    spoil(content)
    save()
    directory = convert(raw, "coco")
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=COUNT - 1, objects=4, phrases=4, skipped=1)
    (entry,) = skipped(directory)
    assert entry["file"] == "image 0"
    assert reason in entry["reason"]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("file_name", "../n01440764_10029.JPEG", "plain file name"),
        ("file_name", 7, "plain file name"),
        ("file_name", "n01440764_0.JPEG", "No such file"),
        ("height", 61, "its annotations say 61 × 90"),
    ],
)
def test_bad_picture_of_an_annotation_file_is_listed(raw, field, value, reason):
    content, save = edit(raw)
    content["images"][0][field] = value
    save()
    directory = convert(raw, "coco")
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=COUNT - 1, objects=4, phrases=4, skipped=1)
    (entry,) = skipped(directory)
    assert entry["file"] == "image 0"
    assert reason in entry["reason"]


def test_both_configurations_are_found_and_neither_without_annotations(raw, tmp_path):
    builder = prepare.load_builder("part_imagenet")
    assert builder.found_configs(raw) == ["seg", "coco"]
    for path in list(raw.glob("annotations/*/*.png")):
        path.unlink()
    assert builder.found_configs(raw) == ["coco"]
    with pytest.raises(UserError, match="does not hold the configuration 'seg'"):
        convert(raw, "seg")
    with pytest.raises(UserError, match="does not hold the configuration 'coco'"):
        convert(tmp_path, "coco")


def test_published_sizes_are_those_of_the_authors():
    coco = {config.name: config.published for config in prepare.load_builder("part_imagenet").BUILDER_CONFIGS}["coco"]
    assert sum(counts.pictures for counts in coco.values()) == 24095
