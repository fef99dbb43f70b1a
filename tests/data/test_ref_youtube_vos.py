"""Conversion of Ref-YouTube-VOS: masks by object and by expression, frames without ground truth, faults."""

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
from unilseg_jax.input_pipeline.raw_files import read_label_map
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.input_pipeline.triplet import NOTHING, UNKNOWN
from unilseg_jax.input_pipeline.visits import sample_phrases

prepare.load_builder("ref_youtube_vos")
from unilseg_jax_data_ref_youtube_vos import meta_expressions, synthetic  # noqa: E402  (loaded by the line above)

COUNT = 4
TEXTS = ("a dog that moves", "the dog number 1", "a person that moves", "the person number 2")


@pytest.fixture
def raw(tmp_path) -> Path:
    """Two videos per split, of three frames and of one; the second object is out of the third frame."""
    synthetic.write(tmp_path / "raw", COUNT)
    return tmp_path / "raw"


def convert(raw: Path, config: str) -> Path:
    """Runs the command, which lets any share be broken, and returns the folder of the data set."""
    out = raw.parent / "out"
    options = ["--config", config, "--max-skipped=1"]
    prepare.main(["ref_youtube_vos", "--raw", str(raw), "--out", str(out), *options])
    return out / "ref_youtube_vos" / config / "1.0.0"


def skipped(directory: Path) -> list[dict]:
    file = directory / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def open_split(directory: Path):
    config = directory.parent.name
    split = "train" if config == "train" else "valid"
    return open_source(f"ref_youtube_vos/{config}", data_dir=directory.parents[2], split=split)


def edit(raw: Path, split: str, change) -> None:
    """Changes the videos of an expressions file."""
    path = meta_expressions.expressions_file(raw, split)
    content = json.loads(path.read_bytes())
    change(content["videos"])
    path.write_text(json.dumps(content))


def test_training_frames_have_the_masks_of_their_objects(raw):
    directory = convert(raw, "train")
    assert read_report(directory)[0] == {"train": SplitCounts(pictures=4, objects=7, phrases=16)}
    source = open_split(directory)
    for number in range(COUNT):
        sample = source[number]
        assert sample.phrases == TEXTS
        assert sample.phrase_ids == ("0", "1", "2", "3")
        assert set(sample.kinds) == {"referring"}
        labels = np.asarray(Image.open(raw / "train" / "Annotations" / f"{sample.image_id}.png"))
        for phrase in range(4):
            np.testing.assert_array_equal(sample.mask(phrase), labels == phrase // 2 + 1)
    record = source.record(0)
    assert (record["image_id"], record["task"]) == (b"train000000/00000", b"video")
    assert (record["video"], record["frame"]) == (b"train000000", b"00000")
    assert list(record["mask_categories"]) == [b"dog", b"person"]
    assert list(record["mask_ids"]) == [1, 2]


def test_object_out_of_the_frame_matches_nothing_and_stays_a_referring_phrase(raw):
    directory = convert(raw, "train")
    sample = open_split(directory)[2]
    assert sample.mask_index == (0, 0, NOTHING, NOTHING)
    assert sample.kinds == ("referring",) * 4
    # One object that is there, and one that is not, with two phrases each.
    assert read_index(directory, "train").samples.tolist() == [2, 2, 2, 2]
    record = open_split(directory).record(2)
    found = sample_phrases(record["phrase_masks"], record["phrase_objects"])
    assert found == [[0, 1], [2, 3]]


def test_frames_without_ground_truth_keep_their_expressions(raw):
    directory = convert(raw, "valid")
    assert read_report(directory)[0] == {"valid": SplitCounts(pictures=4, objects=0, phrases=16)}
    sample = open_split(directory)[0]
    assert (sample.image_id, sample.phrases) == ("valid000000/00000", TEXTS)
    assert sample.phrase_ids == ("0", "1", "2", "3")
    assert sample.mask_index == (UNKNOWN,) * 4
    with pytest.raises(UserError, match="no ground truth"):
        sample.mask(0)
    assert read_index(directory, "valid").samples.tolist() == [0] * 4


def test_ground_truth_of_the_benchmark_is_read_by_expression(raw):
    directory = convert(raw, "valid_with_masks")
    assert read_report(directory)[0] == {"valid": SplitCounts(pictures=4, objects=7, phrases=16)}
    source = open_split(directory)
    for number in range(COUNT):
        sample = source[number]
        video, frame = sample.image_id.split("/")
        for phrase, key in enumerate(sample.phrase_ids):
            drawn = np.asarray(Image.open(raw / "valid" / "Annotations" / video / key / f"{frame}.png"))
            np.testing.assert_array_equal(sample.mask(phrase), drawn == 255)
    assert [source[number].mask_index for number in (0, 2)] == [(0, 0, 1, 1), (0, 0, NOTHING, NOTHING)]


def test_frame_that_nobody_annotated_is_unknown_not_empty(raw):
    (raw / "valid" / "Annotations" / "valid000000" / "1" / "00000.png").unlink()
    directory = convert(raw, "valid_with_masks")
    assert skipped(directory) == []
    assert open_split(directory)[0].mask_index == (0, UNKNOWN, 1, 1)


def test_ground_truth_of_another_size_is_scaled_if_its_shape_is_the_frames(raw):
    folder = raw / "valid" / "Annotations" / "valid000000"
    drawn = Image.open(folder / "0" / "00000.png")
    drawn.resize((168, 96), Image.Resampling.NEAREST).save(folder / "0" / "00000.png")
    drawn.resize((168, 48), Image.Resampling.NEAREST).save(folder / "1" / "00000.png")
    directory = convert(raw, "valid_with_masks")
    (entry,) = skipped(directory)
    assert (entry["file"], entry["expression"]) == ("valid000000/00000", "1")
    assert "48 × 168, its frame 48 × 84" in entry["reason"]
    sample = open_split(directory)[0]
    assert sample.mask_index == (0, UNKNOWN, 1, 1)
    np.testing.assert_array_equal(sample.mask(0), np.asarray(drawn) > 0)


def test_expression_without_any_ground_truth_is_listed(raw):
    for frame in (raw / "valid" / "Annotations" / "valid000003" / "2").iterdir():
        frame.unlink()
    (raw / "valid" / "Annotations" / "valid000003" / "2").rmdir()
    (entry,) = skipped(convert(raw, "valid_with_masks"))
    assert entry["file"] == "Annotations/valid000003/2"
    assert "no ground truth" in entry["reason"]


def test_videos_and_expressions_stand_beside_the_published_numbers(raw):
    report = json.loads((convert(raw, "train") / "conversion.json").read_text())
    sizes = {"videos": 2, "published_videos": 3471, "expressions": 8, "published_expressions": 12913}
    assert report["videos"] == {"train": sizes}


def test_videos_and_expressions_that_are_off_are_reported(raw, capsys):
    convert(raw, "train")
    text = " ".join(capsys.readouterr().out.split())
    assert "warning: the set is not as published: train: 2 of 3,471 videos, 8 of 12,913 expressions" in text


def test_test_videos_are_taken_out_of_the_valid_file(raw):
    videos = meta_expressions.load_videos(meta_expressions.expressions_file(raw, "valid"), pytest.fail)
    assert any(name.startswith("test") for name in videos)
    source = open_split(convert(raw, "valid"))
    assert {source.record(number)["video"] for number in range(len(source))} == {b"valid000000", b"valid000003"}
    meta_expressions.expressions_file(raw, "test").unlink()
    with pytest.raises(UserError, match=r"test/meta_expressions\.json.* lists the test videos too"):
        convert(raw, "valid_with_masks")


def test_configurations_are_those_whose_files_are_there(raw):
    builder = prepare.load_builder("ref_youtube_vos")
    assert builder.found_configs(raw) == ["train", "valid", "valid_with_masks"]
    (raw / "valid" / "Annotations").rename(raw / "valid" / "elsewhere")
    assert builder.found_configs(raw) == ["train", "valid"]
    meta_expressions.expressions_file(raw, "train").unlink()
    assert builder.found_configs(raw) == ["valid"]


def test_missing_classes_leave_the_masks_without_and_are_listed(raw):
    (raw / "train" / "meta.json").unlink()
    directory = convert(raw, "train")
    (entry,) = skipped(directory)
    assert entry["file"] == "meta.json"
    assert list(open_split(directory).record(0)["mask_categories"]) == [b"", b""]


def spoil_picture(raw):
    path = raw / "train" / "JPEGImages" / "train000000" / "00000.jpg"
    path.write_bytes(path.read_bytes()[:300])


def spoil_mask_size(raw):
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(raw / "train" / "Annotations" / "train000000" / "00000.png")


def spoil_mask_colours(raw):
    path = raw / "train" / "Annotations" / "train000000" / "00000.png"
    Image.open(path).convert("RGB").save(path)


def with_expression(**fields):
    return lambda raw: edit(raw, "train", lambda videos: videos["train000000"]["expressions"]["0"].update(fields))


def with_frames(*frames):
    return lambda raw: edit(raw, "train", lambda videos: videos["train000000"]["frames"].extend(frames))


def with_video(name, entry):
    return lambda raw: edit(raw, "train", lambda videos: videos.update({name: entry}))


@pytest.mark.parametrize(
    ("spoil", "reason", "sizes"),
    [
        (spoil_picture, "picture is broken", (3, 5, 12)),
        (spoil_mask_size, "5 × 6, its picture 48 × 84", (3, 5, 12)),
        (spoil_mask_colours, "mode RGB", (3, 5, 12)),
        (with_expression(exp=""), "'' says nothing", (4, 7, 13)),
        (with_expression(exp=" ?!"), "says nothing", (4, 7, 13)),
        (with_expression(exp=["a dog"]), "says nothing", (4, 7, 13)),
        (with_expression(exp="a dog \ud83d"), "says nothing", (4, 7, 13)),
        (with_expression(obj_id="0"), "id is '0'", (4, 7, 13)),
        (with_expression(obj_id=None), "id is None", (4, 7, 13)),
        (with_frames("00000"), "listed twice", (4, 7, 16)),
        (with_frames("../00000"), "plain file name", (4, 7, 16)),
        (with_frames(7), "plain file name", (4, 7, 16)),
        (with_frames("00015"), "No such file", (4, 7, 16)),
        (with_frames("\udcff"), "No such file|UTF-8", (4, 7, 16)),
        (with_video("../secret", {"expressions": {}, "frames": []}), "plain file name", (4, 7, 16)),
        (with_video("empty", {"expressions": {}, "frames": ["00000"]}), "no expression", (4, 7, 16)),
        (with_video("odd", ["00000"]), "lacks expressions or frames", (4, 7, 16)),
    ],
)
def test_bad_entry_is_listed_and_the_rest_converted(raw, spoil, reason, sizes):
    spoil(raw)
    directory = convert(raw, "train")
    (entry,) = skipped(directory)
    assert re.search(reason, entry["reason"])
    pictures, objects, phrases = sizes
    counts, _ = read_report(directory)
    assert counts == {"train": SplitCounts(pictures=pictures, objects=objects, phrases=phrases, skipped=1)}


@pytest.mark.parametrize(
    ("file", "old", "new", "reason", "phrases"),
    [
        ("meta_expressions/train/meta_expressions.json", b'"1": {"exp"', b'"0": {"exp"', "'0' .*/train000000/exp", 13),
        ("meta_expressions/train/meta_expressions.json", b'"train000003"', b'"train000000"', "'train0+' .*/videos", 12),
        ("train/meta.json", b'"2"', b'"1"', "'1' .*/train000000/objects", 16),
    ],
)
def test_name_that_a_file_has_twice_is_listed_and_the_first_one_kept(raw, file, old, new, reason, phrases):
    path = raw / file
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    directory = convert(raw, "train")
    (entry,) = skipped(directory)
    assert re.search(reason, entry["reason"])
    assert entry["file"] == path.name
    assert read_report(directory)[0]["train"].phrases == phrases
    source = open_split(directory)
    assert source[0].phrases[0] == TEXTS[0]
    assert source.record(0)["mask_categories"][0] == b"dog"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"videos": []}', b"\xff"])
def test_unreadable_expressions_are_one_error(raw, content):
    meta_expressions.expressions_file(raw, "train").write_bytes(content)
    with pytest.raises(UserError, match=r"meta_expressions\.json") as caught:
        convert(raw, "train")
    assert "\n" not in str(caught.value)


def test_the_complete_valid_file_is_read(shared_dir):
    path = meta_expressions.expressions_file(shared_dir / "data" / "ref_youtube_vos", "valid")
    videos = meta_expressions.load_videos(path, pytest.fail)
    faults = []

    def report(*reason, **ids):
        faults.append((reason, ids))

    frames = {name: meta_expressions.video_frames(name, entry, None, report, report) for name, entry in videos.items()}
    assert faults == []
    assert len(frames) == 507
    assert sum(len(items[0].expressions) for items in frames.values()) == 2096
    assert sum(len(items) for items in frames.values()) == 13710
    first = frames["0062f687f1"]
    assert (first[1].image_id, len(first)) == ("0062f687f1/00005", 19)
    assert first[0].expressions[1].text == "a dog with puppies all around"


def test_palette_files_are_read_by_index(shared_dir):
    """Real files of the format that holds training masks, whose colours are no labels."""
    paths = sorted((shared_dir / "data" / "DAVIS17_palette_png").rglob("*.png"))
    assert len(paths) == 16
    seen = set()
    for path in paths:
        with Image.open(path) as picture:
            assert picture.mode == "P"
            labels = read_label_map(path, (picture.height, picture.width))
            rgb, colours = np.asarray(picture.convert("RGB")), picture.getpalette()
        for label in np.unique(labels).tolist():
            assert (rgb[labels == label] == colours[3 * label : 3 * label + 3]).all()
            seen.add(label)
    assert seen == set(range(max(seen) + 1))
    assert max(seen) >= 2
