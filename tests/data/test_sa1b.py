"""Conversion of SA-1B: archives and folders, masks and scores without text, and what is listed."""

import io
import json
import os
import re
import shutil
import sys
import tarfile

import numpy as np
import pytest

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import stand_ins
from unilseg_jax.input_pipeline.catalogue import load_stand_in
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.input_pipeline.visits import DrawPhrases, Visit
from unilseg_jax.ops import masks


@pytest.fixture
def raw(tmp_path):
    """Four pictures: 223750 and 223751 in an archive, 223752 and 223753 in a folder."""
    folder = tmp_path / "raw"
    folder.mkdir()
    load_stand_in("sa1b").write(folder, 4)
    return folder


def convert(raw):
    out = raw.parent / "out"
    prepare.main(["sa1b", "--raw", str(raw), "--out", str(out), "--max-skipped=1", "--overwrite"])
    directory = out / "sa1b" / "sa1b" / "1.0.0"
    file = directory / "quarantine.jsonl"
    listed = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return open_source("sa1b", data_dir=out, split="train"), read_report(directory)[0]["train"], listed


def annotation(raw, number=223752):
    return json.loads((raw / "sa_000001" / f"sa_{number}.json").read_text())


def write_annotation(raw, content, number=223752):
    (raw / "sa_000001" / f"sa_{number}.json").write_text(json.dumps(content))


def add_member(raw, name, content=b"x", **kind):
    with tarfile.open(raw / "sa_000000.tar", "a") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for key, value in kind.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(content) if content else None)


def test_archive_and_folder_give_all_pictures_in_order(raw):
    source, counts, listed = convert(raw)
    assert (counts, listed) == (SplitCounts(pictures=4, objects=12), [])
    assert [source.record(i)["image_id"] for i in range(4)] == [f"sa_{223750 + i}".encode() for i in range(4)]


def test_masks_boxes_scores_and_ids_are_those_of_the_file(raw):
    source, _, _ = convert(raw)
    entries = annotation(raw)["annotations"]
    record, sample = source.record(2), source[2]
    for mask, entry in zip(sample.masks, entries, strict=True):
        assert (mask == masks.segmentation_to_mask(entry["segmentation"], *mask.shape)).all()
        assert mask.sum() == entry["area"] > 0
    assert record["mask_boxes"].tolist() == [entry["bbox"] for entry in entries]
    assert list(record["mask_ids"]) == [entry["id"] for entry in entries]
    clipped = [min(entry["predicted_iou"], 1) for entry in entries]
    np.testing.assert_allclose(record["mask_scores"], clipped, rtol=1e-6)
    assert {bytes(kind) for kind in record["mask_kinds"]} == {b"instance"}
    assert len(record["phrases"]) == 0
    assert record["task"] == b"none"
    assert (sample.masks[2] <= sample.masks[0]).all(), "a nested mask stays nested"


@pytest.mark.parametrize(("scores", "wanted"), [((10**400, 1, 1.04), [1 - 2**-24] * 3), ((-0.2, 0.5, 0), [0, 0.5, 0])])
def test_scores_are_clipped_to_below_that_of_a_human(raw, scores, wanted):
    """Patches of pictures with a score below 1 are hidden unless the config says otherwise."""
    content = annotation(raw)
    for entry, score in zip(content["annotations"], scores, strict=True):
        entry["predicted_iou"] = score
    write_annotation(raw, content)
    record = convert(raw)[0].record(2)
    assert record["mask_scores"] == wanted
    visit = Visit(picture=record, absent=("all dogs",))
    assert DrawPhrases(prompts=1).random_map(visit, np.random.default_rng(0)).hide


def test_id_that_no_record_could_hold_is_left_out_of_the_mask(raw):
    content = annotation(raw)
    content["annotations"][1]["id"] = 10**30
    write_annotation(raw, content)
    source, counts, listed = convert(raw)
    assert (counts, listed) == (SplitCounts(pictures=4, objects=12), [])
    assert source.record(2)["mask_ids"][1] == -1


@pytest.mark.parametrize("seed", range(20))
def test_boxes_out_of_run_lengths_are_tight(seed):
    """Random blobs, among them some that touch the edges and so run on into the next column."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((7, 9)) < rng.choice([0.03, 0.3, 0.97])).astype(np.uint8)
    mask[rng.integers(7), rng.integers(9)] = 1
    box = sys.modules[prepare.load_builder("sa1b").__module__]._box
    assert box(masks.rle_runs(masks.mask_to_rle(mask)), 7) == masks.mask_box(mask)


def spoil_size(entry):
    entry["segmentation"]["size"] = [180, 120]


def spoil_length(entry):
    entry["segmentation"]["counts"] = entry["segmentation"]["counts"][:-2]


def spoil_symbols(entry):
    entry["segmentation"]["counts"] += "é"


def spoil_sign(entry):
    # Runs of -1 and H * W + 1: the sum is right.
    entry["segmentation"]["counts"] = "OQSe0"


def spoil_score(entry):
    entry["predicted_iou"] = None


def spoil_not_a_number(entry):
    entry["predicted_iou"] = float("nan")


def spoil_empty(entry):
    entry["segmentation"]["counts"] = masks.mask_to_rle(np.zeros((120, 180), np.uint8)).decode()


def spoil_segmentation(entry):
    entry["segmentation"] = [[0, 0, 5, 5, 0, 5]]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_size, r"size is \[180, 120\]"),
        (spoil_length, "pixels, 21600 are wanted|cut short"),
        (spoil_symbols, "not a compressed"),
        (spoil_sign, "run lengths"),
        (spoil_score, "predicted_iou"),
        (spoil_not_a_number, "predicted_iou"),
        (spoil_empty, "no pixel"),
        (spoil_segmentation, "size is None"),
    ],
)
def test_bad_mask_is_listed_and_the_others_kept(raw, spoil, reason):
    content = annotation(raw)
    spoil(content["annotations"][1])
    write_annotation(raw, content)
    source, counts, (entry,) = convert(raw)
    assert counts == SplitCounts(pictures=4, objects=11, skipped=1)
    assert entry["file"] == "sa_000001/sa_223752.jpg"
    assert entry["id"] == content["annotations"][1]["id"]
    assert re.search(reason, entry["reason"])
    assert source.record(2)["mask_ids"] == [content["annotations"][i]["id"] for i in (0, 2)]


def cut_picture(folder):
    picture = folder / "sa_223752.jpg"
    picture.write_bytes(picture.read_bytes()[:400])


def other_size(folder):
    image, _ = stand_ins.draw(np.random.default_rng(0), 60, 60, 1)
    (folder / "sa_223752.jpg").write_bytes(stand_ins.jpeg(image))


def no_json(folder):
    (folder / "sa_223752.json").write_text("{")


def other_json(folder):
    (folder / "sa_223752.json").write_text('{"image": [], "annotations": {}}')


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut_picture, "broken"),
        (other_size, "60 × 60"),
        (no_json, "no file of SA-1B"),
        (other_json, "no file of SA-1B"),
        (lambda folder: (folder / "sa_223752.json").unlink(), "annotation is missing"),
        (lambda folder: (folder / "sa_223752.jpg").unlink(), "picture is missing"),
    ],
)
def test_bad_picture_is_listed_and_the_rest_converted(raw, spoil, reason):
    spoil(raw / "sa_000001")
    _, counts, (entry,) = convert(raw)
    assert counts == SplitCounts(pictures=3, objects=9, skipped=1)
    assert reason in entry["reason"]


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("../sa_9.jpg", {}, "leads out"),
        ("/etc/sa_9.jpg", {}, "leads out"),
        ("a\\..\\sa_9.jpg", {}, "leads out"),
        ("sa_9.jpg", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}, "link or a device"),
        ("sa_9.jpg", {"type": tarfile.LNKTYPE, "linkname": "sa_223750.jpg", "size": 0}, "link or a device"),
        ("sa_9.jpg", {"type": tarfile.CHRTYPE, "size": 0}, "link or a device"),
        ("./sa_223750.jpg", {}, "twice"),
        ("sa_9\udcff.jpg", {}, "not UTF-8"),
    ],
)
def test_bad_member_is_listed_and_nothing_written_anywhere(raw, name, kind, reason):
    add_member(raw, name, b"" if kind else b"x", **kind)
    before = sorted(path for path in raw.rglob("*"))
    _, counts, (entry,) = convert(raw)
    assert counts == SplitCounts(pictures=4, objects=12, skipped=1)
    assert entry["file"].startswith("sa_000000.tar/")
    assert reason in entry["reason"]
    assert sorted(raw.rglob("*")) == before
    assert not (raw.parent / "sa_9.jpg").exists()


def test_archive_that_is_cut_short_gives_what_is_whole(raw):
    tar = raw / "sa_000000.tar"
    with tarfile.open(tar) as archive:
        second = archive.getmembers()[2]
    os.truncate(tar, second.offset_data + 100)
    _, counts, listed = convert(raw)
    assert counts.pictures == 3
    assert "cut short" in listed[0]["reason"]


def test_archive_with_an_overwritten_header_is_listed(raw):
    tar = raw / "sa_000000.tar"
    with tarfile.open(tar) as archive:
        second = archive.getmembers()[2]
    with open(tar, "r+b") as file:
        file.seek(second.offset)
        file.write(b"\xff" * 512)
    _, counts, (entry,) = convert(raw)
    assert counts.pictures == 3
    assert "after 2 members" in entry["reason"]


def test_file_that_is_no_archive_is_listed(raw):
    (raw / "sa_000009.tar").write_bytes(b"no archive" * 200)
    _, counts, (entry,) = convert(raw)
    assert counts.pictures == 4
    assert entry["file"] == "sa_000009.tar"


def test_same_picture_in_two_places_is_kept_once(raw):
    shutil.copytree(raw / "sa_000001", raw / "sa_000002")
    _, counts, listed = convert(raw)
    assert counts == SplitCounts(pictures=4, objects=12, skipped=2)
    assert all("twice" in entry["reason"] for entry in listed)


def test_unpacked_archive_beside_the_archive_is_read_once(raw):
    (raw / "sa_000001").rename(raw / "sa_000000")
    _, counts, (entry,) = convert(raw)
    assert counts == SplitCounts(pictures=2, objects=6)
    assert "once more" in entry["reason"]


def test_odd_name_is_listed(raw):
    (raw / "sa_000001" / "sa_0007.jpg").write_bytes(b"")
    _, counts, (entry,) = convert(raw)
    assert counts.pictures == 4
    assert entry["file"] == "sa_0007.jpg"


@pytest.mark.parametrize(
    ("place", "file", "reason"),
    [
        ("sa_000007", "sa_000007", "to itself"),
        ("sa_000007.tar", "sa_000007.tar", "to itself"),
        ("sa_000001/sa_223752.jpg", "sa_000001/sa_223752.jpg", "Too many levels of symbolic links"),
        ("sa_000001/sa_223752.json", "sa_000001/sa_223752.jpg", "Too many levels of symbolic links"),
    ],
)
def test_link_to_itself_is_listed_and_counts_as_lost(raw, place, file, reason):
    link = raw / place
    sound = 3 if link.exists() else 4
    link.unlink(missing_ok=True)
    link.symlink_to(link.name)
    _, counts, (entry,) = convert(raw)
    assert counts.pictures == sound
    assert entry["file"] == file
    assert reason in entry["reason"]
    with pytest.raises(UserError, match=r"1 of \d pictures( or archives)? "):
        prepare.main(["sa1b", "--raw", str(raw), "--out", str(raw.parent / "other"), "--max-skipped=0.1"])


def test_archive_that_is_cut_short_counts_as_a_lost_one(raw):
    """Its second picture, of which a part is there, is an entry of 9 beside that of the archive."""
    tar = raw / "sa_000000.tar"
    os.truncate(tar, tar.stat().st_size // 2)
    with pytest.raises(UserError, match=r"1 of 2 pictures or archives \(50\.0%\)"):
        prepare.main(["sa1b", "--raw", str(raw), "--out", str(raw.parent / "out"), "--max-skipped=0.4"])


def test_picture_whose_only_member_is_left_out_counts_as_lost(raw):
    add_member(raw, "../sa_9.jpg", b"x")
    with pytest.raises(UserError, match=r"1 of 5 pictures \(20\.0%\)"):
        prepare.main(["sa1b", "--raw", str(raw), "--out", str(raw.parent / "out"), "--max-skipped=0.1"])


def test_empty_folder_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"does not hold any configuration of sa1b; wanted: sa_000000\.tar"):
        prepare.main(["sa1b", "--raw", str(tmp_path), "--out", str(tmp_path / "out")])


def test_real_annotation_decodes(shared_dir, tmp_path):
    """The data sheet's example, without its picture: a grey one of the same size stands in."""
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.copy(shared_dir / "data" / "SA-1B" / "sa_560.json", raw / "sa_560.json")
    (raw / "sa_560.jpg").write_bytes(stand_ins.jpeg(np.full((1500, 2250, 3), 128, np.uint8)))
    source, counts, listed = convert(raw)
    assert (counts, listed) == (SplitCounts(pictures=1, objects=1), [])
    assert source[0].masks.sum() == 7948
    assert source.record(0)["mask_boxes"].tolist() == [[1167, 157, 107 + 1, 129 + 1]]
    assert source.record(0)["mask_scores"][0] == pytest.approx(0.89732, abs=1e-5)
