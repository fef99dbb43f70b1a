"""Conversion of DAVIS 2016: lists as splits, the foreground as the salient object, and what is skipped."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.index import read_index
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.input_pipeline.triplet import NOTHING
from unilseg_jax.text.prompts import SALIENT

COUNT = 3


@pytest.fixture
def raw(tmp_path) -> Path:
    prepare.main(["davis", "--synthetic", str(COUNT), "--raw", str(tmp_path / "raw")])
    return tmp_path / "raw"


def convert(raw: Path, *options: str) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    out = raw.parent / "out"
    prepare.main(["davis", "--raw", str(raw), "--out", str(out), "--max-skipped=1", *options])
    return out / "davis" / "davis" / "1.0.0"


def skipped(directory: Path) -> list[dict]:
    file = directory / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def open_split(directory: Path, split: str = "val"):
    return open_source("davis", data_dir=directory.parents[2], split=split)


def masks_folder(raw: Path, sequence: str = "val-blackswan") -> Path:
    return raw / "Annotations" / "480p" / sequence


def list_file(raw: Path, split: str = "val") -> Path:
    return raw / "ImageSets" / "480p" / f"{split}.txt"


def test_every_frame_has_its_foreground_as_drawn(raw):
    directory = convert(raw)
    counts, published = read_report(directory)
    assert counts == {split: SplitCounts(pictures=3, objects=3, phrases=3) for split in ("train", "val")}
    assert {split: sizes.pictures for split, sizes in published.items()} == {"train": 2079, "val": 1376}
    source = open_split(directory)
    assert [source[number].image_id for number in range(3)] == [
        "val-blackswan/00000",
        "val-camel/00000",
        "val-blackswan/00001",
    ]
    for number in range(3):
        sample = source[number]
        assert (sample.phrases, sample.kinds) == ((SALIENT,), ("salient",))
        drawn = np.asarray(Image.open(raw / "Annotations" / "480p" / f"{sample.image_id}.png"))
        np.testing.assert_array_equal(sample.mask(0), drawn == 255)


def test_record_names_video_and_frame(raw):
    record = open_split(convert(raw)).record(2)
    assert (record["video"], record["frame"]) == (b"val-blackswan", b"00001")
    assert (record["task"], record["coco_id"]) == (b"salient", -1)
    assert list(record["mask_kinds"]) == [b"salient"]
    picture = raw / "JPEGImages" / "480p" / "val-blackswan" / "00001.jpg"
    assert record["image"] == picture.read_bytes()


def test_every_list_is_a_split_but_the_union_of_two(raw):
    lines = list_file(raw).read_text().splitlines()
    list_file(raw, "my_part").write_text(lines[0] + "\n")
    list_file(raw, "trainval").write_text(list_file(raw, "train").read_text() + list_file(raw).read_text())
    assert {split: sizes.pictures for split, sizes in read_report(convert(raw))[0].items()} == {
        "my_part": 1,
        "train": 3,
        "val": 3,
    }


def test_a_list_called_all_is_named(raw):
    list_file(raw, "train").rename(list_file(raw, "all"))
    (entry,) = skipped(directory := convert(raw))
    assert entry == {"split": "", "file": "all.txt", "reason": "'all' is kept for all splits together; rename the list"}
    assert read_report(directory)[0]["val"].pictures == 3


def test_the_archives_own_folder_may_lie_in_the_raw_folder(raw):
    (raw.parent / "above").mkdir()
    raw.rename(raw.parent / "above" / "DAVIS")
    assert read_report(convert(raw.parent / "above"))[0]["val"].pictures == 3


def test_frame_without_foreground_matches_nothing(raw):
    path = masks_folder(raw) / "00000.png"
    Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    directory = convert(raw)
    assert skipped(directory) == []
    sample = open_split(directory)[0]
    assert (sample.phrases, sample.mask_index, sample.kinds) == ((SALIENT,), (NOTHING,), ("nothing",))
    # It is still a sample to learn from.
    assert read_index(directory, "val").samples.tolist() == [1, 1, 1]


def spoil_picture(raw):
    path = raw / "JPEGImages" / "480p" / "val-blackswan" / "00000.jpg"
    path.write_bytes(path.read_bytes()[:300])


def spoil_size(raw):
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(masks_folder(raw) / "00000.png")


def spoil_mask(raw):
    (masks_folder(raw) / "00000.png").unlink()


def add_line(raw, line):
    list_file(raw).write_text(list_file(raw).read_text() + line + "\n")


@pytest.mark.parametrize(
    ("spoil", "reason", "pictures"),
    [
        (spoil_picture, "picture is broken", 2),
        (spoil_size, "5 × 6, its picture 48 × 84", 2),
        (spoil_mask, "No such file", 2),
        (lambda raw: add_line(raw, "/JPEGImages/480p/val-camel/00000.jpg"), "line 4: .* 1 names", 3),
        (lambda raw: add_line(raw, "/JPEGImages/../../secret.jpg /x/y.png"), "line 4: .*'..'", 3),
        (lambda raw: add_line(raw, "/secret.jpg /x/y.png"), "line 4: .* no folder of a video", 3),
        (lambda raw: add_line(raw, list_file(raw).read_text().splitlines()[0]), "occurs twice", 3),
    ],
)
def test_bad_entry_is_listed_and_the_rest_converted(raw, spoil, reason, pictures):
    spoil(raw)
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert entry["split"] == "val"
    assert re.search(reason, entry["reason"])
    counts, _ = read_report(directory)
    assert counts["val"] == SplitCounts(pictures=pictures, objects=pictures, phrases=pictures, skipped=1)
    assert counts["train"].pictures == 3


def test_folder_without_lists_says_what_is_wanted(tmp_path):
    with pytest.raises(UserError, match=r"wanted: ImageSets/480p/val\.txt.*data/davis/README\.md"):
        prepare.main(["davis", "--raw", str(tmp_path), "--out", str(tmp_path / "out")])


def test_real_sample_has_the_counts_of_its_description(shared_dir, tmp_path):
    """The list of the whole is left out: it is the union of the two others, and would take as long again."""
    real, raw = shared_dir / "data" / "DAVIS", tmp_path / "raw"
    lists = raw / "ImageSets" / "480p"
    lists.mkdir(parents=True)
    for name in ("JPEGImages", "Annotations"):
        (raw / name).symlink_to(real / name)
    for split in ("small_train", "small_eval"):
        (lists / f"{split}.txt").symlink_to(list_file(real, split))
    prepare.main(["davis", "--raw", str(raw), "--out", str(tmp_path), "--max-skipped=0"])
    counts, _ = read_report(tmp_path / "davis" / "davis" / "1.0.0")
    sizes = {"small_train": 250, "small_eval": 99}
    assert counts == {split: SplitCounts(pictures=size, objects=size, phrases=size) for split, size in sizes.items()}
    assert len(list_file(real).read_text().splitlines()) == 349
    parts = {}
    for split, sequences in {"small_train": 14, "small_eval": 6}.items():
        source = open_source("davis", data_dir=tmp_path, split=split)
        parts[split] = {source.record(number)["video"] for number in range(len(source))}
        assert len(parts[split]) == sequences
    assert not parts["small_train"] & parts["small_eval"]
    sample = open_source("davis", data_dir=tmp_path, split="small_eval")[0]
    assert (sample.image_id, sample.image.shape) == ("blackswan/00000", (480, 854, 3))
    np.testing.assert_array_equal(
        sample.mask(0), np.asarray(Image.open(masks_folder(real, "blackswan") / "00000.png")) > 0
    )
