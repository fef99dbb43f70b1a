"""Conversion of Ref-DAVIS17: four expressions per object, names and encodings of the files, and what is skipped."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.input_pipeline.triplet import NOTHING, decode_record

COUNT = 4
# Two sequences per split, of three frames and of one; the second object is out of the third frame.
WHOLE = SplitCounts(pictures=4, objects=7, phrases=32)
TEXTS = (
    ("annot1-1", "a car that moves"),
    ("annot1_full_video-1", "the car that moves to the left"),
    ("annot2-1", "the car beside the café"),
    ("annot2_full_video-1", "a car seen first"),
    ("annot1-2", "a person that moves"),
    ("annot1_full_video-2", "the person that moves to the left"),
    ("annot2-2", "the person beside the café"),
    ("annot2_full_video-2", "a person seen first"),
)


@pytest.fixture
def raw(tmp_path) -> Path:
    prepare.main(["ref_davis17", "--synthetic", str(COUNT), "--raw", str(tmp_path / "raw")])
    return tmp_path / "raw"


def convert(raw: Path) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    out = raw.parent / "out"
    prepare.main(["ref_davis17", "--raw", str(raw), "--out", str(out), "--max-skipped=1"])
    return out / "ref_davis17" / "ref_davis17" / "1.0.0"


def skipped(directory: Path) -> list[dict]:
    file = directory / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def open_split(directory: Path, split: str):
    return open_source("ref_davis17", data_dir=directory.parents[2], split=split)


def expressions_file(raw: Path, annotator: str = "annot1") -> Path:
    return raw / "davis_text_annotations" / f"Davis17_{annotator}.txt"


def add_line(raw: Path, line: str) -> None:
    expressions_file(raw).write_text(expressions_file(raw).read_text() + line + "\n")


def label_map(raw: Path, image_id: str) -> Path:
    return raw / "DAVIS" / "Annotations_unsupervised" / "480p" / f"{image_id}.png"


def test_every_object_has_the_expressions_of_four_annotators(raw):
    directory = convert(raw)
    counts, published = read_report(directory)
    assert counts == {"train": WHOLE, "val": WHOLE}
    assert {split: sizes.pictures for split, sizes in published.items()} == {"train": 4209, "val": 1999}
    assert skipped(directory) == []
    source = open_split(directory, "val")
    for number in range(COUNT):
        sample = source[number]
        assert tuple(zip(sample.phrase_ids, sample.phrases, strict=True)) == TEXTS
        assert set(sample.kinds) == {"referring"}
        labels = np.asarray(Image.open(label_map(raw, sample.image_id)))
        for phrase in range(8):
            np.testing.assert_array_equal(sample.mask(phrase), labels == phrase // 4 + 1)
    assert source[2].mask_index == (0,) * 4 + (NOTHING,) * 4
    assert source.samples.tolist() == [2] * COUNT, "an absent object is one sample, whatever is said about it"
    record = source.record(0)
    assert (record["video"], record["frame"], record["task"]) == (b"val-0", b"00000", b"video")
    assert list(record["mask_categories"]) == [b"car", b"person"]


def test_names_that_the_files_get_wrong_are_those_of_davis(raw):
    assert "clasic-car" in expressions_file(raw).read_text()
    source = open_split(convert(raw), "train")
    assert {source.record(number)["video"] for number in range(len(source))} == {b"classic-car", b"dogs-scale"}


def test_one_annotator_alone_is_converted_and_the_missing_files_listed(raw):
    for annotator in ("annot1_full_video", "annot2", "annot2_full_video"):
        expressions_file(raw, annotator).unlink()
    directory = convert(raw)
    assert open_split(directory, "val")[0].phrase_ids == ("annot1-1", "annot1-2")
    assert [entry["file"] for entry in skipped(directory)] == [
        "Davis17_annot1_full_video.txt",
        "Davis17_annot2.txt",
        "Davis17_annot2_full_video.txt",
    ]


def test_classes_are_optional(raw):
    (raw / "DAVIS" / "davis_semantics.json").unlink()
    directory = convert(raw)
    assert skipped(directory) == []
    assert list(open_split(directory, "val").record(0)["mask_categories"]) == [b"", b""]


def test_one_split_alone_is_converted(raw):
    (raw / "DAVIS" / "ImageSets" / "2017" / "train.txt").unlink()
    directory = convert(raw)
    assert read_report(directory)[0] == {"val": WHOLE}
    (raw / "DAVIS" / "ImageSets" / "2017" / "val.txt").unlink()
    (raw.parent / "out").rename(raw.parent / "elsewhere")
    with pytest.raises(UserError, match=r"no lists of sequences in .*train\.txt or val\.txt"):
        convert(raw)


def spoil_picture(raw):
    path = raw / "DAVIS" / "JPEGImages" / "480p" / "val-0" / "00000.jpg"
    path.write_bytes(path.read_bytes()[:300])


def spoil_mask_size(raw):
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(label_map(raw, "val-0/00000"))


def spoil_mask(raw):
    label_map(raw, "val-0/00000").unlink()


def spoil_classes(raw):
    (raw / "DAVIS" / "davis_semantics.json").write_text("[]")


def list_sequence(raw, name):
    path = raw / "DAVIS" / "ImageSets" / "2017" / "val.txt"
    path.write_text(path.read_text() + f"{name}\n")


def empty_sequence(raw):
    (raw / "DAVIS" / "JPEGImages" / "480p" / "silent").mkdir()
    list_sequence(raw, "silent")


@pytest.mark.parametrize(
    ("spoil", "reason", "lost"),
    [
        (spoil_picture, "picture is broken", 1),
        (spoil_mask_size, "5 × 6, its picture 48 × 84", 1),
        (spoil_mask, "No such file", 1),
        (spoil_classes, "no sequences by name; the masks have no category", 0),
        (lambda raw: add_line(raw, "val-0 1"), "line 9: .* wanted is: sequence object", 0),
        (lambda raw: add_line(raw, 'val-0 3 " ... "'), "line 9: .* says nothing", 0),
        (lambda raw: add_line(raw, 'val-0 one "a car"'), "line 9: .* id is 'one'", 0),
        (lambda raw: add_line(raw, 'val-0 1 "a car"'), "line 9: a second expression for object 1", 0),
        (lambda raw: add_line(raw, 'nowhere 1 "a car"'), "no list has the sequence 'nowhere'", 0),
        (lambda raw: list_sequence(raw, "missing"), "is not read", 0),
        (lambda raw: list_sequence(raw, "../secret"), "plain file name", 0),
        (lambda raw: list_sequence(raw, "missing\0"), "is not read|plain file name", 0),
        (empty_sequence, "no expressions", 0),
    ],
)
def test_bad_entry_is_listed_and_the_rest_converted(raw, spoil, reason, lost):
    spoil(raw)
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert re.search(reason, entry["reason"])
    counts, _ = read_report(directory)
    assert counts["train"] == WHOLE
    assert (counts["val"].pictures, counts["val"].phrases) == (4 - lost, 8 * (4 - lost))


def test_folder_without_expressions_says_what_is_wanted(tmp_path):
    with pytest.raises(UserError, match=r"davis_text_annotations/Davis17_annot1\.txt"):
        prepare.main(["ref_davis17", "--raw", str(tmp_path), "--out", str(tmp_path / "out")])


def test_pixels_that_are_not_evaluated_are_a_mask_that_no_expression_names(raw):
    directory = convert(raw)
    image_id = open_split(directory, "val")[0].image_id
    path = label_map(raw, image_id)
    with Image.open(path) as picture:
        labels, palette = np.asarray(picture).copy(), picture.getpalette()
    labels[:3] = 255
    changed = Image.fromarray(labels, "P")
    changed.putpalette(palette + [0] * (768 - len(palette)))  # a short one would cost the label its upper bits
    changed.save(path)
    prepare.main(["ref_davis17", "--raw", str(raw), "--out", str(raw.parent / "out"), "--max-skipped=1", "--overwrite"])
    record = open_split(directory, "val").record(0)
    assert bytes(record["mask_kinds"][-1]) == b"ignored"
    sample = decode_record(record)
    np.testing.assert_array_equal(sample.masks[-1], labels == 255)
    assert len(sample.masks) - 1 not in sample.mask_index
