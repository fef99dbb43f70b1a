"""Broken and hostile input: nothing of it stops a conversion or reaches a record, and each piece is listed.

`test_refcoco.py` has truncated pictures, pictures of another size, short polygons, refs to missing annotations and
pickles that name a class; members of archives that climb out of their folder are tested with the archives.
"""

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refer_synthetic import HEIGHT, WIDTH, ReferFolder, make_refer_folder

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.input_pipeline.triplet import has_words

WHOLE = SplitCounts(pictures=1, objects=2, phrases=4)


@pytest.fixture
def raw(tmp_path) -> ReferFolder:
    return make_refer_folder(tmp_path / "raw")


def convert(raw: ReferFolder) -> Path:
    out = raw.root.parent / "out"
    prepare.main(["refcoco", "--raw", str(raw.root), "--out", str(out), "--max-skipped=1"])
    return out / "refcoco" / raw.folder / "1.0.0"


def skipped(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "quarantine.jsonl").read_text("ascii").splitlines()]


def png_header(width: int, height: int) -> bytes:
    """A PNG file that says to be huge and holds a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def spoil_header(raw):
    raw.picture(0).write_bytes(png_header(50_000, 50_000))


def spoil_header_less(raw):
    """Below Pillow's own limit."""
    raw.picture(0).write_bytes(png_header(9_000, 9_000))


def spoil_second_half(raw):
    """A truncated JPEG that ends in an end marker, which decoders fill up with grey."""
    content = raw.picture(0).read_bytes()
    raw.picture(0).write_bytes(content[: len(content) // 2] + b"\xff\xd9")


def spoil_kind(raw):
    raw.picture(0).write_text("no picture")


def spoil_to_nothing(raw):
    raw.picture(0).write_bytes(b"")


def spoil_to_folder(raw):
    raw.picture(0).unlink()
    raw.picture(0).mkdir()


def spoil_name_on_disk(raw):
    """A file whose name is Latin-1, as an archive from another system leaves it."""
    path = Path(os.fsdecode(os.fsencode(raw.pictures) + b"/caf\xe9.jpg"))
    os.rename(raw.picture(0), path)
    raw.instances["images"][0]["file_name"] = path.name


def spoil_name_in_json(raw):
    raw.instances["images"][0]["file_name"] = "caf\udce9.jpg"


def spoil_name_by_half_a_pair(raw):
    raw.instances["images"][0]["file_name"] = "\ud83d.jpg"


def spoil_name_by_zero(raw):
    raw.instances["images"][0]["file_name"] = "a\0.jpg"


def spoil_name_by_length(raw):
    raw.instances["images"][0]["file_name"] = "a" * 5000 + ".jpg"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_header, "exceeds limit"),
        (spoil_header_less, "9000 × 9000"),
        (spoil_second_half, "premature end"),
        (spoil_kind, "no JPEG, PNG, WebP or BMP"),
        (spoil_to_nothing, "no JPEG, PNG, WebP or BMP"),
        (spoil_to_folder, "not read"),
        (spoil_name_on_disk, "UTF-8"),
        (spoil_name_in_json, "not UTF-8"),
        (spoil_name_by_half_a_pair, "not UTF-8"),
        (spoil_name_by_zero, "plain file name"),
        (spoil_name_by_length, "not read"),
    ],
)
def test_picture_that_cannot_be_used_is_listed_and_left_out(raw, spoil, reason):
    spoil(raw)
    raw.save()
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert reason in entry["reason"]
    assert entry["file"] == raw.instances["images"][0]["file_name"]
    counts, _ = read_report(directory)
    assert counts["train"] == SplitCounts(skipped=1)
    assert counts["val"] == WHOLE


def run_lengths(height: int, width: int, counts: object) -> dict:
    return {"size": [height, width], "counts": counts}


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (run_lengths(HEIGHT, WIDTH, [5, HEIGHT * WIDTH - 4]), "12289 pixels"),
        (run_lengths(HEIGHT, WIDTH, [5, HEIGHT * WIDTH - 6]), "12287 pixels"),
        (run_lengths(HEIGHT, WIDTH, [-5, HEIGHT * WIDTH + 5]), "pixels"),
        (run_lengths(HEIGHT, WIDTH, [2**80, 1]), "larger"),
        (run_lengths(HEIGHT, WIDTH, [1.5, 3]), "no whole number"),
        (run_lengths(HEIGHT, WIDTH, "52203"), "pixels"),
        (run_lengths(HEIGHT, WIDTH, "no run lengths"), "COCO string"),
        (run_lengths(HEIGHT, WIDTH, []), "0 pixels"),
        (run_lengths(HEIGHT, WIDTH, [HEIGHT * WIDTH]), "no pixel"),
        (run_lengths(HEIGHT + 1, WIDTH, [5, (HEIGHT + 1) * WIDTH - 5]), r"mask of [97, 128]"),
        ([], "no polygon"),
        (None, "polygons or run lengths"),
        ([[1.0, 1.0, 9.0, 9.0]], "2 points"),
        ([[1.0, 1.0, 9.0, 9.0, 5.0]], "even count"),
        ([[1.0, 1.0, 9.0, 9.0, float("nan"), 5.0]], "no finite number"),
        ([[1.0, 1.0, 9.0, 9.0, 1e12, 5.0]], "no finite number"),
        ([[1.0, 1.0, 9.0, 9.0, 10**400, 5.0]], "no finite number"),
        ([[500.0, 500.0, 509.0, 500.0, 505.0, 509.0]], "no pixel"),
        (["polygon"], "flat list"),
    ],
)
def test_mask_that_cannot_be_drawn_is_listed_with_its_ref(raw, segmentation, reason):
    raw.instances["annotations"][0]["segmentation"] = segmentation
    raw.save()
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert reason in entry["reason"]
    assert entry["ref_id"] == raw.refs[0]["ref_id"]
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=1, objects=1, phrases=2, skipped=1)


@pytest.mark.parametrize("text", ["", "   ", "?!", "…", "\n", None, 7, ["left"], "left \ud83d"])
def test_phrase_that_says_nothing_is_listed_and_the_others_kept(raw, text):
    raw.refs[0]["sentences"][1]["sent"] = text
    raw.save()
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert "says nothing" in entry["reason"]
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=1, objects=2, phrases=3, skipped=1)


def test_sentence_with_the_id_of_another_is_listed_and_the_first_one_kept(raw):
    first, second = raw.refs[0]["sentences"]
    second["sent_id"] = first["sent_id"]
    raw.save()
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert f"the sent_id {first['sent_id']} of the sentence {second['sent']!r} occurs twice" in entry["reason"]
    assert read_report(directory)[0]["train"] == SplitCounts(pictures=1, objects=2, phrases=3, skipped=1)


def repeat_picture(raw):
    raw.instances["images"].append(raw.instances["images"][0] | {"file_name": "other.jpg"})


def repeat_category(raw):
    raw.instances["categories"].append({"id": 1, "name": "other"})


def repeat_annotation(raw):
    raw.instances["annotations"].append(raw.instances["annotations"][0] | {"segmentation": []})


def repeat_ref(raw):
    raw.refs.append(raw.refs[0] | {"ann_id": 7})


def enlarge_id(raw):
    """An id that no record could hold."""
    raw.instances["annotations"][2]["id"] = 2**70


def lose_id(raw):
    del raw.instances["annotations"][2]["id"]


def lose_list(raw):
    raw.instances["annotations"].append("annotation")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (repeat_picture, "twice"),
        (repeat_category, "twice"),
        (repeat_annotation, "twice"),
        (repeat_ref, "twice"),
        (enlarge_id, "whole number"),
        (lose_id, "whole number"),
        (lose_list, "whole number"),
    ],
)
def test_entry_with_a_bad_id_is_listed_and_the_first_one_kept(raw, spoil, reason):
    spoil(raw)
    raw.save()
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert reason in entry["reason"]
    counts = read_report(directory)[0]
    assert [(split.pictures, split.objects, split.phrases) for name, split in counts.items() if name] == [(1, 2, 4)] * 4


@pytest.mark.parametrize("word", ["all", "All"])
def test_ref_of_all_splits_is_listed(raw, word):
    raw.refs[0]["split"] = word
    raw.save()
    (entry,) = skipped(directory := convert(raw))
    assert entry["reason"] == f"the split of ref number 0 is {word!r}, a word kept for all splits together"
    assert read_report(directory)[0]["train"].objects == 1


@pytest.mark.parametrize("category", [99, None, [1], "person"])
def test_category_that_is_not_listed_leaves_its_object_without_one(raw, category):
    raw.instances["annotations"][0]["category_id"] = category
    raw.save()
    convert(raw)
    record = open_source("refcoco", data_dir=raw.root.parent / "out", split="train").record(0)
    assert list(record["mask_categories"]) == [b"", b"car"]


def test_two_pictures_of_one_name_in_a_split_become_one_record(raw):
    raw.instances["images"].append(raw.instances["images"][0] | {"id": 9})
    raw.instances["annotations"].append(raw.instances["annotations"][0] | {"id": 90, "image_id": 9})
    raw.refs.append(raw.refs[0] | {"ref_id": 90, "ann_id": 90, "image_id": 9})
    raw.save()
    directory = convert(raw)
    (entry,) = skipped(directory)
    assert "occurs twice" in entry["reason"]
    assert len(open_source("refcoco", data_dir=raw.root.parent / "out", split="train")) == 1


@pytest.mark.parametrize("read", [raw_files.read_label_map, raw_files.read_mask])
def test_drawn_mask_that_is_broken_huge_or_of_another_size_is_refused(tmp_path, read):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    path = tmp_path / "mask.png"
    path.write_bytes(buffer.getvalue())
    assert read(path, (20, 30)).shape == (20, 30)
    with pytest.raises(UserError, match="20 × 30"):
        read(path, (30, 20))
    path.write_bytes(buffer.getvalue()[:200])
    with pytest.raises(UserError, match="broken"):
        read(path, (20, 30))
    for side, message in ((50_000, "exceeds limit"), (9_000, "9000 × 9000")):
        path.write_bytes(png_header(side, side))
        with pytest.raises(UserError, match=message):
            read(path, (side, side))


def test_whatever_is_wrong_at_once_the_records_that_remain_are_sound(raw):
    """Every ref of the split has another fault, but for one sentence."""
    for spoil in (spoil_header, repeat_picture, repeat_annotation, repeat_ref, lose_id):
        spoil(raw)
    raw.picture(1).write_bytes(raw.picture(1).read_bytes()[:500])
    raw.refs[4]["ann_id"] = 7
    raw.refs[5]["sentences"][0]["sent"] = "..."
    raw.instances["annotations"][9]["segmentation"] = run_lengths(HEIGHT, WIDTH, [1, 2])
    raw.save()
    directory = convert(raw)
    assert len(skipped(directory)) == 9
    counts = {name: (split.pictures, split.objects, split.phrases) for name, split in read_report(directory)[0].items()}
    nothing = (0, 0, 0)
    assert counts == {"": nothing, "train": nothing, "val": nothing, "testA": (1, 1, 1), "testB": (1, 1, 2)}
    for split in ("testA", "testB"):
        sample = open_source("refcoco", data_dir=raw.root.parent / "out", split=split)[0]
        assert sample.masks.any(axis=(1, 2)).all()
        assert all(has_words(text) for text in sample.phrases)
