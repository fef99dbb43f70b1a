"""Conversion of LIP: parts, sides of the person, layouts, and what is skipped."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.text.prompts import class_names

prepare.load_builder("lip")
from unilseg_jax_data_lip import synthetic  # noqa: E402  (loaded by the line above)

COUNT = 3
PARTS = COUNT * synthetic.PARTS
PICTURES = "TrainVal_images/train_images"
LABEL_MAPS = "TrainVal_parsing_annotations/train_segmentations"


@pytest.fixture
def raw(tmp_path) -> Path:
    synthetic.write(tmp_path / "raw", COUNT)
    return tmp_path / "raw"


def convert(raw: Path, *options: str) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    out = raw.parent / "out"
    prepare.main(["lip", "--raw", str(raw), "--out", str(out), "--max-skipped=1", *options])
    return out / "lip" / "lip" / "1.0.0"


def skipped(directory: Path) -> list[dict]:
    file = directory / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def open_split(directory: Path, split: str = "train"):
    return open_source("lip", data_dir=directory.parents[2], split=split)


def test_every_picture_has_its_parts_as_drawn(tmp_path):
    raw = tmp_path / "raw"
    synthetic.write(raw, 7)
    directory = convert(raw)
    counts, published = read_report(directory)
    assert counts == dict.fromkeys(("train", "val"), SplitCounts(pictures=7, objects=21, phrases=21))
    assert {split: sizes.pictures for split, sizes in published.items()} == {"train": 30462, "val": 10000}
    names = {row.label: f"all {row.phrase}" for row in class_names("lip")}
    seen = set()
    for split in ("train", "val"):
        source = open_split(directory, split)
        for number in range(len(source)):
            sample = source[number]
            folder = raw / "TrainVal_parsing_annotations" / f"{split}_segmentations"
            labels = np.asarray(Image.open(folder / f"{sample.image_id}.png"))
            present = [label for label in np.unique(labels).tolist() if label]
            assert sample.phrases == tuple(names[label] for label in present)
            assert set(sample.kinds) == {"part"}
            for index, label in enumerate(present):
                np.testing.assert_array_equal(sample.masks[sample.mask_index[index]], labels == label)
            seen |= set(present)
    assert seen == set(range(1, 20))


def test_record_keeps_labels_and_the_picture_of_coco(raw):
    record = open_split(convert(raw)).record(0)
    assert record["image"] == (raw / PICTURES / "77_471474.jpg").read_bytes()
    assert (record["image_id"], record["coco_id"]) == (b"77_471474", 77)
    assert list(record["mask_ids"]) == [1, 2, 3]
    assert list(record["mask_categories"]) == [b"hat", b"hair", b"gloves"]
    assert list(record["mask_kinds"]) == [b"part"] * 3
    assert (record["task"], record["source"]) == (b"part", b"lip/lip")


def test_phrases_keep_the_sides_of_the_person():
    phrases = {row.native: row.phrase for row in class_names("lip")}
    assert len(phrases) == 19
    for native in ("Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe", "Right-shoe"):
        assert phrases[native] == native.lower().replace("-", " ")
    assert phrases["UpperClothes"] == "upper clothes"


def test_order_is_that_of_the_list_of_ids(raw):
    ids = [f"{77 + number}_{471474 + number}" for number in (2, 0, 1)]
    (raw / "train_id.txt").write_text("\n".join(ids))
    source = open_split(convert(raw))
    assert [source[number].image_id for number in range(len(source))] == ids


def move(raw: Path, names: dict[str, str]) -> None:
    for old, new in names.items():
        (raw / new).parent.mkdir(parents=True, exist_ok=True)
        (raw / old).rename(raw / new)


@pytest.mark.parametrize(
    "names",
    [
        {
            "TrainVal_images/train_images": "TrainVal_images/TrainVal_images/train_images",
            "TrainVal_parsing_annotations/train_segmentations": "TrainVal_parsing_annotations/"
            "TrainVal_parsing_annotations/train_segmentations",
            "train_id.txt": "TrainVal_images/train_id.txt",
        },
        {
            "TrainVal_images/train_images": "train_images",
            "TrainVal_parsing_annotations/train_segmentations": "train_segmentations",
        },
    ],
)
def test_layouts_of_other_copies_are_found(raw, names):
    move(raw, names)
    assert read_report(convert(raw))[0]["train"].pictures == COUNT


def test_split_without_a_list_takes_its_label_maps(raw):
    (raw / "train_id.txt").unlink()
    (raw / "TrainVal_parsing_annotations/val_segmentations").rename(raw / "elsewhere")
    counts, _ = read_report(convert(raw))
    assert counts == {"train": SplitCounts(pictures=COUNT, objects=PARTS, phrases=PARTS)}


def test_pictures_may_lie_elsewhere(raw, tmp_path):
    (raw / "TrainVal_images").rename(tmp_path / "pictures")
    with pytest.raises(UserError, match="TrainVal_images/train_images"):
        convert(raw)
    with pytest.raises(UserError, match="--pictures is the folder of train_images"):
        convert(raw, "--pictures", str(tmp_path))
    assert read_report(convert(raw, "--pictures", str(tmp_path / "pictures")))[0]["val"].pictures == COUNT


def test_picture_without_a_part_stays_without_phrases(raw):
    nobody = np.zeros((synthetic.HEIGHT, synthetic.WIDTH), np.uint8)
    Image.fromarray(nobody).save(raw / LABEL_MAPS / "77_471474.png")
    directory = convert(raw)
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=COUNT, objects=PARTS - 3, phrases=PARTS - 3)
    assert open_split(directory)[0].phrases == ()


def spoil_picture(raw: Path):
    path = raw / PICTURES / "77_471474.jpg"
    path.write_bytes(path.read_bytes()[:300])


def spoil_size(raw: Path):
    path = raw / LABEL_MAPS / "77_471474.png"
    Image.open(path).crop((0, 0, 40, 72)).save(path)


def spoil_label(raw: Path):
    path = raw / LABEL_MAPS / "77_471474.png"
    labels = np.asarray(Image.open(path)).copy()
    labels[0, 0] = 20
    Image.fromarray(labels).save(path)


def spoil_colours(raw: Path):
    path = raw / LABEL_MAPS / "77_471474.png"
    Image.open(path).convert("RGB").save(path)


def spoil_map(raw: Path):
    (raw / LABEL_MAPS / "77_471474.png").unlink()


def spoil_name(raw: Path):
    ids = (raw / "train_id.txt").read_text()
    (raw / "train_id.txt").write_text(ids.replace("77_471474", "../77_471474"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_picture, "broken"),
        (spoil_size, "72 × 40, its picture 72 × 48"),
        (spoil_label, "label 20; 1 to 19 are classes, 0 stands for none"),
        (spoil_colours, "mode RGB; one channel"),
        (spoil_map, "No such file"),
        (spoil_name, "plain file name"),
    ],
)
def test_bad_picture_is_listed_and_the_rest_converted(raw, spoil, reason):
    spoil(raw)
    directory = convert(raw)
    counts, _ = read_report(directory)
    assert counts["train"] == SplitCounts(pictures=COUNT - 1, objects=PARTS - 3, phrases=PARTS - 3, skipped=1)
    assert counts["val"].pictures == COUNT
    (entry,) = skipped(directory)
    assert entry["split"] == "train"
    assert entry["file"].endswith("77_471474.jpg")
    assert reason in entry["reason"]


def test_id_that_is_listed_twice_is_skipped_once(raw):
    ids = (raw / "train_id.txt").read_text()
    (raw / "train_id.txt").write_text(ids + "77_471474\n")
    directory = convert(raw)
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=COUNT, objects=PARTS, phrases=PARTS, skipped=1)
    assert "twice" in skipped(directory)[0]["reason"]


def test_raw_folder_without_label_maps_is_one_clear_line(tmp_path):
    (tmp_path / "raw" / PICTURES).mkdir(parents=True)
    with pytest.raises(UserError, match=r"does not hold any configuration.*TrainVal_parsing_annotations"):
        convert(tmp_path / "raw")


def test_real_samples_have_the_counts_of_their_description(shared_dir, tmp_path):
    prepare.main(["lip", "--raw", str(shared_dir / "data" / "LIP"), "--out", str(tmp_path)])
    directory = tmp_path / "lip" / "lip" / "1.0.0"
    counts, _ = read_report(directory)
    assert {split: (sizes.pictures, sizes.skipped) for split, sizes in counts.items()} == {
        "train": (1, 0),
        "val": (1, 0),
    }
    record = open_split(directory, "val").record(0)
    # Its person is the annotation 185913 of COCO's picture 86.
    assert (record["image_id"], record["coco_id"]) == (b"86_185913", 86)
    labels = np.asarray(Image.open(next((shared_dir / "data" / "LIP").rglob("86_185913.png"))))
    assert list(record["mask_ids"]) == [label for label in np.unique(labels).tolist() if label]
