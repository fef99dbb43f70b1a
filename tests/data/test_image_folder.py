"""Conversion of folders and archives of pictures."""

import io
import json
import os
import shutil
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import stand_ins
from unilseg_jax.input_pipeline.catalogue import load_stand_in
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report
from unilseg_jax.input_pipeline.sources import open_source


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def picture(seed=0):
    return stand_ins.jpeg(stand_ins.draw(np.random.default_rng(seed), 40, 60, 1)[0])


def convert(raw, config="image_folder", split="train"):
    out = raw.parent / "out"
    prepare.main(["image_folder", "--raw", str(raw), "--out", str(out), "--max-skipped=1", "--overwrite"])
    directory = out / "image_folder" / config / "1.0.0"
    file = directory / "quarantine.jsonl"
    listed = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return open_source(f"image_folder/{config}", data_dir=out, split=split), read_report(directory)[0], listed


def ids(source):
    return [source.record(i)["image_id"].decode() for i in range(len(source))]


def test_stand_in_of_imagenet_has_both_splits_and_every_kind_of_file(raw):
    load_stand_in("image_folder").write(raw, 4)
    source, counts, listed = convert(raw, "imagenet")
    assert counts == {"train": SplitCounts(pictures=4), "val": SplitCounts(pictures=4)}
    assert listed == []
    assert ids(source)[0] == "train/n01440764/n01440764_0.JPEG"
    kinds = set()
    for i in range(4):
        record = source.record(i)
        with Image.open(io.BytesIO(record["image"])) as image:
            kinds.add((image.format, image.mode))
        assert record["image"] == (raw / record["image_id"].decode()).read_bytes()
        assert source[i].image.shape == (60, 80, 3)
        assert (len(record["masks"]), len(record["phrases"]), record["task"]) == (0, 0, b"none")
    assert kinds == {("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB")}


def test_classes_are_kept_in_the_report(raw):
    load_stand_in("image_folder").write(raw, 1)
    convert(raw, "imagenet")
    report = json.loads((raw.parent / "out/image_folder/imagenet/1.0.0/conversion.json").read_text())
    assert report["classes"]["n01440764"] == "tench, Tinca tinca"


def test_cmyk_picture_has_the_colours_of_the_drawing(raw):
    load_stand_in("image_folder").write(raw, 3)
    source, _, _ = convert(raw, "imagenet", "val")
    decoded = source[2].image.astype(int)
    bright = decoded[decoded.sum(axis=2) > 300]
    assert len(bright) > 100, "the object is bright on a dark ground; inverted it would be the ground"
    assert len(bright) < decoded[..., 0].size / 2


def test_unpacked_competition_archive_is_found(raw):
    load_stand_in("image_folder").write(raw, 2)
    inner = raw / "ILSVRC" / "Data" / "CLS-LOC"
    inner.mkdir(parents=True)
    for split in ("train", "val"):
        (raw / split).rename(inner / split)
    assert convert(raw, "imagenet")[1]["val"].pictures == 2


def test_any_folder_is_one_split_in_the_order_of_names(raw):
    for name in ("b.PNG", "a/z.jpg", "a/c.jpeg", ".hidden.jpg", "notes.txt", "a/.git/x.jpg"):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(picture())
    source, counts, listed = convert(raw)
    assert ids(source) == ["b.PNG", "a/c.jpeg", "a/z.jpg"]
    assert (counts, listed) == ({"train": SplitCounts(pictures=3)}, [])


def test_archives_count_as_folders(raw):
    with zipfile.ZipFile(raw / "one.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("deep/", "")
        file.writestr("deep/b.jpg", picture(1))
        file.writestr("a.jpg", picture(2))
        file.writestr("read.me", "x")
    with tarfile.open(raw / "two.tar", "w") as file:
        info = tarfile.TarInfo("c.jpg")
        info.size = len(picture(3))
        file.addfile(info, io.BytesIO(picture(3)))
    source, _, listed = convert(raw)
    assert ids(source) == ["one.zip/a.jpg", "one.zip/deep/b.jpg", "two.tar/c.jpg"]
    assert [source.record(i)["image"] for i in range(3)] == [picture(2), picture(1), picture(3)]
    assert listed == []


def tar_of(path, members):
    """Writes members (name, content); those without content are links to nothing."""
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.type, info.linkname = (tarfile.REGTYPE, "") if content else (tarfile.SYMTYPE, "nothing.jpg")
            file.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("other", ["./ok.jpg", ".//ok.jpg", "././ok.jpg"])
def test_two_spellings_of_one_member_are_one_picture(raw, other):
    tar_of(raw / "one.tar", [(other, picture(1)), ("ok.jpg", picture(2)), ("a//./b.jpg", picture(3))])
    source, _, (entry,) = convert(raw)
    assert ids(source) == ["one.tar/a/b.jpg", "one.tar/ok.jpg"]
    assert source.record(1)["image"] == picture(1), "the first one is kept"
    assert (entry["file"], "twice" in entry["reason"]) == ("one.tar/ok.jpg", True)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_members_of_one_name_the_first_one_is_read(raw):
    with zipfile.ZipFile(raw / "one.zip", "w") as file:
        for number in (1, 2):
            file.writestr("a.jpg", picture(number))
    source, _, (entry,) = convert(raw)
    assert source.record(0)["image"] == picture(1)
    assert "twice" in entry["reason"]


def test_link_does_not_take_the_place_of_a_file_of_its_name(raw):
    tar_of(raw / "one.tar", [("a.jpg", b""), ("a.jpg", picture(1))])
    source, _, (entry,) = convert(raw)
    assert source.record(0)["image"] == picture(1)
    assert "link" in entry["reason"]


def link(file):
    info = zipfile.ZipInfo("link.jpg")
    info.external_attr = 0o120777 << 16
    file.writestr(info, "/etc/passwd")


@pytest.mark.parametrize(
    ("add", "reason"),
    [
        (lambda file: file.writestr("../out.jpg", picture()), "leads out"),
        (lambda file: file.writestr("/out.jpg", picture()), "leads out"),
        (lambda file: file.writestr("C:\\out.jpg", picture()), "leads out"),
        (lambda file: file.writestr("a/../../out.jpg", picture()), "leads out"),
        (link, "link or a device"),
    ],
)
def test_bad_member_is_listed_and_nothing_written(raw, add, reason):
    with zipfile.ZipFile(raw / "one.zip", "w") as file:
        file.writestr("a.jpg", picture())
        add(file)
    source, _, (entry,) = convert(raw)
    assert ids(source) == ["one.zip/a.jpg"]
    assert reason in entry["reason"]
    assert entry["file"].startswith("one.zip/")
    assert {path.name for path in raw.parent.iterdir()} == {"raw", "out"}
    assert [path.name for path in raw.iterdir()] == ["one.zip"]


def test_damaged_and_encrypted_members_are_listed(raw):
    with zipfile.ZipFile(raw / "one.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            file.writestr(name, picture())
        places = {info.filename: info.header_offset for info in file.infolist()}
    content = bytearray((raw / "one.zip").read_bytes())
    content[places["a.jpg"] + 300 : places["a.jpg"] + 310] = bytes(10)
    # The bit "encrypted" of the directory's entry of b.jpg; its flags stand 8 bytes after the signature.
    entry = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    content[entry + 8] |= 1
    (raw / "one.zip").write_bytes(content)
    source, _, listed = convert(raw)
    assert ids(source) == ["one.zip/c.jpg"]
    assert [entry["file"] for entry in listed] == ["one.zip/a.jpg", "one.zip/b.jpg"]
    assert "encrypted" in listed[1]["reason"]


def test_member_that_unpacks_to_too_much_is_listed(raw, monkeypatch):
    monkeypatch.setattr("unilseg_jax.input_pipeline.archives.MAX_MEMBER", 10_000)
    with zipfile.ZipFile(raw / "one.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.jpg", picture())
        file.writestr("bomb.jpg", bytes(20_000))
    source, _, (entry,) = convert(raw)
    assert len(source) == 1
    assert "20,000 bytes" in entry["reason"]


def truncated():
    return picture()[:500]


def huge():
    """A PNG header of 50,000 × 50,000 pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99))))
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(truncated(), "broken"), (huge(), "2500000000 pixels"), (b"", "no JPEG"), (b"GIF89a", "no JPEG")],
    ids=["truncated", "huge", "empty", "gif"],
)
def test_bad_picture_is_listed(raw, content, reason):
    (raw / "a.jpg").write_bytes(picture())
    (raw / "b.jpg").write_bytes(content)
    source, counts, (entry,) = convert(raw)
    assert ids(source) == ["a.jpg"]
    assert counts["train"] == SplitCounts(pictures=1, skipped=1)
    assert entry["file"] == "b.jpg"
    assert reason in entry["reason"]


def test_name_that_is_not_utf8_is_listed(raw):
    (raw / "a.jpg").write_bytes(picture())
    with open(os.fsencode(raw) + b"/\xff.jpg", "wb") as file:
        file.write(picture())
    source, _, (entry,) = convert(raw)
    assert ids(source) == ["a.jpg"]
    assert entry["file"] == "\\xff.jpg"


def test_file_that_is_no_archive_is_listed(raw):
    (raw / "a.jpg").write_bytes(picture())
    (raw / "b.zip").write_bytes(b"no archive")
    assert "b.zip" in convert(raw)[2][0]["reason"]


def test_folder_without_pictures_is_one_clear_line(raw):
    (raw / "notes.txt").write_text("none")
    with pytest.raises(UserError, match="does not hold any configuration of image_folder"):
        convert(raw)


def test_real_pictures_of_imagenet(shared_dir, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(shared_dir / "data" / "imagenet", raw)
    source, counts, listed = convert(raw, "imagenet")
    assert (counts["train"], listed) == (SplitCounts(pictures=60), [])
    modes = []
    for i in range(60):
        with Image.open(io.BytesIO(source.record(i)["image"])) as image:
            modes.append(image.mode)
    assert modes.count("L") == 4
