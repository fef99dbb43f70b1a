"""What a builder loses before it becomes an item of its plan counts as the pictures that it is.

The entries of the quarantine list alone would hide it: a folder of a hundred pictures is one of them.
"""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.catalogue import load_builder, load_stand_in
from unilseg_jax.input_pipeline.conversion import read_report

COUNT = 4


def write_raw(tmp_path: Path, name: str, count: int = COUNT) -> Path:
    (tmp_path / "raw").mkdir()
    load_stand_in(name).write(tmp_path / "raw", count)
    return tmp_path / "raw"


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def remove(pattern: str):
    """Returns what removes the first file or folder of a pattern."""

    def spoil(raw: Path) -> None:
        path = min(raw.glob(pattern))
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def rename(pattern: str, name: bytes):
    """Returns what gives the first file of a pattern another name, which may be no UTF-8."""
    return lambda raw: (path := min(raw.glob(pattern))).rename(path.with_name(os.fsdecode(name)))


def lose_id(raw):
    edit(min(raw.rglob("train.json")), lambda content: content["images"][0].pop("id"))


def spoil_line(raw):
    path = raw / "ImageSets/480p/val.txt"
    path.write_text(path.read_text().replace("/JPEGImages", "/JPEG Images", 1))


def spoil_zip(raw):
    """Two archives of three pictures, and one that is none."""
    for name in ("one", "two"):
        with zipfile.ZipFile(raw / "train" / f"{name}.zip", "w") as file:
            for number in range(3):
                file.writestr(f"{number}.jpg", b"")
    (raw / "train" / "three.zip").write_bytes(b"no archive")


def remove_sequence(raw):
    for part in ("JPEGImages", "Annotations_unsupervised"):
        shutil.rmtree(raw / "DAVIS" / part / "480p" / "val-0")


def spoil_expressions(raw):
    for path in raw.glob("davis_text_annotations/*"):
        path.write_bytes(b"\n".join(line for line in path.read_bytes().splitlines() if not line.startswith(b"val-0")))


def spoil_videos(change):
    def change_first(content):
        videos = content["videos"]
        first = min(videos)
        videos[first] = change(videos[first])

    return lambda raw: edit(raw / "meta_expressions/train/meta_expressions.json", change_first)


NOT_UTF8 = b"\xff.jpg"


@pytest.mark.parametrize(
    ("name", "config", "spoil", "lost"),
    [
        ("coco", "instances", remove("val2017"), COUNT),
        ("coco", "panoptic", remove("train2017"), COUNT),
        ("coco_stuff", "pixelmaps", remove("val2017"), COUNT),
        ("coco_stuff", "pixelmaps", rename("stuffthingmaps_trainval2017/val2017/*", b"7.png"), 1),
        ("coco_stuff", "stuff_json", remove("train2017"), COUNT),
        ("objects365", "objects365", remove("val"), COUNT),
        ("part_imagenet", "seg", remove("images/val/*"), 1),
        ("part_imagenet", "seg", remove("annotations/test/*.png"), 1),
        ("part_imagenet", "seg", rename("images/val/*", b"\xff.JPEG"), 2),
        ("part_imagenet", "coco", lose_id, 1),
        ("salient", "duts", remove("DUTS-TE/DUTS-TE-Mask/*"), 1),
        ("salient", "duts", remove("DUTS-TR/DUTS-TR-Image/*"), 1),
        ("ade20k", "ade20k", rename("images/training/*", NOT_UTF8), 1),
        ("davis", "davis", spoil_line, 1),
        ("image_folder", "imagenet", rename("val/*", NOT_UTF8), 1),
        ("image_folder", "imagenet", spoil_zip, 3),
        ("ref_davis17", "ref_davis17", remove("DAVIS/JPEGImages/480p/val-0"), 3),
        # Of the others, one has 3 frames and two have 1.
        ("ref_davis17", "ref_davis17", remove_sequence, 2),
        ("ref_davis17", "ref_davis17", spoil_expressions, 3),
        ("ref_youtube_vos", "train", spoil_videos(lambda video: video | {"expressions": {}}), 3),
        ("ref_youtube_vos", "train", spoil_videos(lambda video: video | {"frames": []}), 1),
        ("ref_youtube_vos", "train", spoil_videos(lambda video: None), 1),
        ("ref_youtube_vos", "train", spoil_videos(lambda video: video | {"frames": [*video["frames"], "../x"]}), 1),
    ],
)
def test_what_is_lost_before_the_plan_counts_as_its_pictures(tmp_path, name, config, spoil, lost):
    raw = write_raw(tmp_path, name)
    spoil(raw)
    builder = load_builder(name)(data_dir=str(tmp_path / "out"), config=config)
    planned = sum(map(len, builder.plan(raw).values()))
    assert builder.conversion.lost_items == lost
    builder.conversion.expect("train", planned)
    # Many sound objects, among which entries do not count.
    builder.conversion.wrote("train", objects=10_000, phrases=0)
    with pytest.raises(UserError, match=rf"{lost} of {planned + lost} pictures or archives"):
        builder.conversion.check_skipped(0.01, tmp_path / "out" / "1.0.0")


@pytest.mark.parametrize("spoil", [remove("TrainVal_images/train_images/*"), remove("**/train_segmentations/*.png")])
def test_people_without_a_partner_are_items_where_no_list_names_them(tmp_path, spoil):
    raw = write_raw(tmp_path, "lip")
    for path in raw.rglob("*_id.txt"):
        path.unlink()
    spoil(raw)
    builder = load_builder("lip")(data_dir=str(tmp_path / "out"), config="lip")
    assert {split: len(items) for split, items in builder.plan(raw).items()} == {"train": COUNT, "val": COUNT}


def test_frame_that_is_lost_from_its_sequence_is_still_an_item(tmp_path):
    raw = write_raw(tmp_path, "ref_davis17")
    (raw / "DAVIS/JPEGImages/480p/val-0/00001.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 8 pictures or archives .*the first: val-0/00001"):
        prepare.main(["ref_davis17", "--raw", str(raw), "--out", str(tmp_path / "out"), "--max-skipped=0.1"])


@pytest.mark.parametrize("options", [[], ["--workers=1"]])
def test_set_without_one_of_its_folders_is_refused_and_converted_where_that_is_allowed(tmp_path, options):
    """The folder is one entry of 25, and half of the pictures."""
    raw = write_raw(tmp_path, "coco")
    shutil.rmtree(raw / "val2017")
    command = ["coco", "--raw", str(raw), "--out", str(tmp_path / "out"), "--config=instances", *options]
    with pytest.raises(UserError, match=r"4 of 8 pictures or archives \(50\.0%\) .*no folder of pictures val2017"):
        prepare.main([*command, "--max-skipped=0.4"])
    directory = tmp_path / "out/coco/instances/1.0.0"
    (entry,) = map(json.loads, directory.with_name("1.0.0.quarantine.jsonl").read_text().splitlines())
    assert (entry["split"], entry["pictures"]) == ("val", 4)
    assert not directory.exists()
    prepare.main([*command, "--max-skipped=0.5"])
    assert read_report(directory)[0]["train"].pictures == 4
