"""Conversion of Pascal Context-59 from both forms of its label maps."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import catalogue
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.text.prompts import class_names

PICTURES = 3
CONFIGS = ("png", "mat")
FIRST = "2008_000002"  # the first training picture


@pytest.fixture
def raw(tmp_path) -> Path:
    catalogue.load_stand_in("pascal_context").write(tmp_path / "raw", PICTURES)
    return tmp_path / "raw"


def convert(raw: Path, config: str, *options: str) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    out = raw.parent / "out"
    prepare.main(
        ["pascal_context", "--raw", str(raw), "--out", str(out), "--max-skipped=1", "--config", config, *options]
    )
    return out / "pascal_context" / config / "1.0.0"


def skipped(directory: Path) -> list[dict]:
    file = directory / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def edit_labels(raw: Path, change) -> None:
    """Rewrites labels.txt line by line; a line for which `change` gives None is left out."""
    file = raw / "labels.txt"
    lines = (change(line) for line in file.read_text().splitlines())
    file.write_text("\n".join(line for line in lines if line is not None) + "\n")


def save_mat(path: Path, **variables) -> None:
    scipy.io.savemat(path, variables)


@pytest.mark.parametrize("config", CONFIGS)
def test_masks_and_phrases_are_those_of_the_label_maps(raw, config):
    counts, published = read_report(convert(raw, config))
    assert counts["train"] == counts["val"] == SplitCounts(pictures=PICTURES, objects=12, phrases=12)
    assert (published["train"].pictures, published["val"].pictures) == (4998, 5105)
    phrases = {name.label: name.phrase for name in class_names("pascal_context59")}
    for split in ("train", "val"):
        source = open_source(f"pascal_context/{config}", data_dir=raw.parent / "out", split=split)
        for number in range(PICTURES):
            sample = source[number]
            label_map = np.asarray(Image.open(raw / "VOC2010/SegmentationClassContext" / f"{sample.image_id}.png"))
            labels = [label for label in np.unique(label_map) if label]
            assert sample.phrases == tuple(f"all {phrases[label]}" for label in labels)
            for phrase, label in enumerate(labels):
                assert np.array_equal(sample.mask(phrase), label_map == label)


@pytest.mark.parametrize("config", CONFIGS)
def test_record_says_what_it_is(raw, config):
    convert(raw, config)
    record = open_source(f"pascal_context/{config}", data_dir=raw.parent / "out", split="train").record(0)
    assert record["image"] == (raw / "VOC2010" / "JPEGImages" / f"{FIRST}.jpg").read_bytes()
    assert record["image_id"] == FIRST.encode()
    assert (record["task"], record["source"]) == (b"semantic", f"pascal_context/{config}".encode())
    assert set(record["mask_kinds"]) == set(record["phrase_kinds"]) == {b"category"}


def test_both_forms_are_found_and_converted_without_being_named(raw):
    prepare.main(["pascal_context", "--raw", str(raw), "--out", str(raw.parent / "out")])
    samples = [open_source(f"pascal_context/{name}", data_dir=raw.parent / "out", split="val")[0] for name in CONFIGS]
    assert samples[0].phrases == samples[1].phrases
    assert np.array_equal(samples[0].masks, samples[1].masks)


def test_ids_are_mapped_by_name_whatever_their_numbers_and_spelling(raw):
    """The list of the 59 classes says diningtable where that of the 459 says table."""
    spelling = {"table": "diningtable", "bedclothes": "bedcloth", "cloth": "clothes"}
    before = read_report(convert(raw, "mat"))[0]

    def respell(line: str) -> str:
        number, name = line.split(": ")
        return f"{number}: {spelling.get(name, name)}"

    edit_labels(raw, respell)
    assert sum(line.split(": ")[1] in spelling.values() for line in (raw / "labels.txt").read_text().splitlines()) == 3
    assert read_report(convert(raw, "mat", "--overwrite"))[0] == before


def test_a_synonym_that_is_a_class_of_its_own_is_not_taken_for_the_class(raw):
    """Where the list has cloth and clothes, clothes are another class, which is not evaluated."""
    lines = (raw / "labels.txt").read_text().splitlines()
    (cloth,) = (int(line.split(": ")[0]) for line in lines if line.endswith(": cloth"))
    clothes = next(int(line.split(": ")[0]) for line in lines if ": other" in line)
    edit_labels(raw, lambda line: f"{clothes}: clothes" if line.startswith(f"{clothes}: ") else line)
    size = np.asarray(Image.open(raw / "VOC2010/JPEGImages" / f"{FIRST}.jpg")).shape[:2]
    label_map = np.full(size, cloth, np.uint16)
    label_map[:10] = clothes
    save_mat(raw / "trainval" / f"{FIRST}.mat", LabelMap=label_map)
    convert(raw, "mat")
    sample = open_source("pascal_context/mat", data_dir=raw.parent / "out", split="train")[0]
    assert sample.phrases == ("all cloth",)
    assert np.array_equal(sample.masks[0], label_map == cloth)


def test_list_without_a_class_is_one_clear_line(raw):
    edit_labels(raw, lambda line: None if line.endswith((": cow", ": sky")) else line)
    with pytest.raises(UserError, match=r"labels\.txt lacks cow, sky"):
        convert(raw, "mat")
    (raw / "labels.txt").unlink()
    with pytest.raises(UserError, match=r"no labels\.txt beside"):
        convert(raw, "mat")


def test_broken_line_of_the_list_is_listed(raw):
    edit_labels(raw, lambda line: f"{line}\n{line}\nno number: x" if line.startswith("1:") else line)
    first, second = skipped(convert(raw, "mat"))
    assert first["file"] == second["file"] == "labels.txt"
    assert "id 1 occurs twice" in first["reason"]
    assert "'no number: x'" in second["reason"]


def cut_mat(path):
    path.write_bytes(path.read_bytes()[:150])


def no_mat(path):
    path.write_bytes(b"no MATLAB file")


def other_variable(path):
    save_mat(path, Labels=np.ones((90, 120), np.uint16))


def cells(path):
    save_mat(path, LabelMap=np.array([["sky"]], dtype=object))


def other_size(path):
    save_mat(path, LabelMap=np.ones((90, 121), np.uint16))


def three_axes(path):
    save_mat(path, LabelMap=np.ones((90, 120, 3), np.uint16))


def unknown_id(path):
    save_mat(path, LabelMap=np.full((90, 120), 460, np.uint16))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut_mat, "is broken"),
        (no_mat, "is broken"),
        (other_variable, "holds nothing as LabelMap"),
        (cells, "holds cell as LabelMap"),
        (other_size, "label map is 90 × 121, its picture 90 × 120"),
        (three_axes, "label map is 90 × 120 × 3"),
        (unknown_id, "id 460, which is not in labels.txt"),
        (Path.unlink, "No such file"),
    ],
)
def test_bad_mat_is_listed_and_the_rest_converted(raw, spoil, reason):
    spoil(raw / "trainval" / f"{FIRST}.mat")
    directory = convert(raw, "mat")
    (entry,) = skipped(directory)
    assert entry["file"] == f"{FIRST}.jpg"
    assert reason in entry["reason"]
    counts, _ = read_report(directory)
    assert counts["train"] == SplitCounts(pictures=PICTURES - 1, objects=8, phrases=8, skipped=1)
    assert counts["val"].pictures == PICTURES


def cut_picture(raw):
    file = raw / "VOC2010" / "JPEGImages" / f"{FIRST}.jpg"
    file.write_bytes(file.read_bytes()[:500])


def class_too_many(raw):
    file = raw / "VOC2010" / "SegmentationClassContext" / f"{FIRST}.png"
    Image.fromarray(np.full_like(np.asarray(Image.open(file)), 60)).save(file)


def no_label_map(raw):
    (raw / "VOC2010" / "SegmentationClassContext" / f"{FIRST}.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut_picture, "picture is broken"),
        (class_too_many, "label 60; 1 to 59 are classes, 0 stands for none"),
        (no_label_map, "label map .* is not read"),
    ],
)
def test_bad_png_is_listed_and_the_rest_converted(raw, spoil, reason):
    spoil(raw)
    directory = convert(raw, "png")
    (entry,) = skipped(directory)
    assert re.search(reason, entry["reason"])
    assert read_report(directory)[0]["train"].pictures == PICTURES - 1


@pytest.mark.parametrize(
    ("line", "reason"), [("../../secret", "plain file name"), (FIRST, "twice"), ("2008_999999", "is not read")]
)
def test_bad_line_of_a_split_list_is_listed(raw, line, reason):
    with open(raw / "VOC2010/ImageSets/SegmentationContext/train.txt", "a") as file:
        file.write(f"{line}\n")
    directory = convert(raw, "png")
    (entry,) = skipped(directory)
    assert reason in entry["reason"]
    assert read_report(directory)[0]["train"].pictures == PICTURES


@pytest.mark.parametrize("config", CONFIGS)
def test_lists_of_voc_serve_and_pictures_may_lie_elsewhere(raw, tmp_path, config):
    before = read_report(convert(raw, config))[0]
    voc = raw / "VOCdevkit" / "VOC2010"
    voc.parent.mkdir()
    (raw / "VOC2010").rename(voc)
    (voc / "ImageSets" / "SegmentationContext").rename(voc / "ImageSets" / "Main")
    (voc / "JPEGImages").rename(tmp_path / "pictures")
    directory = convert(raw, config, "--overwrite", "--pictures", str(tmp_path / "pictures"))
    assert read_report(directory)[0] == before


def test_folder_without_lists_is_one_clear_line(raw):
    lists = raw / "VOC2010" / "ImageSets" / "SegmentationContext"
    for file in lists.iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"no train\.txt or val\.txt"):
        convert(raw, "png")
    lists.rmdir()
    with pytest.raises(UserError, match="no folder of split lists"):
        convert(raw, "png")


def test_stand_in_has_an_id_for_every_one_of_the_459_classes(raw):
    lines = (raw / "labels.txt").read_text().splitlines()
    assert [int(line.split(": ")[0]) for line in lines] == list(range(1, 460))
    stored = io.BytesIO((raw / "trainval" / f"{FIRST}.mat").read_bytes())
    ((name, _, kind),) = scipy.io.whosmat(stored)
    assert (name, kind) == ("LabelMap", "uint16")
