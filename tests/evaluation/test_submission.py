"""The zip for the server of Ref-YouTube-VOS."""

import io
import itertools
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.submission import Submission, Wanted, check, entry_name, join
from unilseg_jax.interop import output

VIDEOS = {"0062f687f1": Wanted(("0", "1"), ("00000", "00005")), "00f88c4f0a": Wanted(("0",), ("00010",))}
ENTRIES = [(video, key, frame) for video, of in VIDEOS.items() for key in of.expressions for frame in of.frames]


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """Nothing here writes on in the background, which is what is waited for when a file is given up."""
    monkeypatch.setattr(output, "_SECONDS_OF_REST", 0.0)


def mask_of(entry):
    """Returns a mask of its own for each entry."""
    generator = np.random.default_rng([ord(letter) for letter in "/".join(entry)])
    return generator.random((30, 40)) < 0.5


def write(path, entries=ENTRIES):
    with Submission(path) as submission:
        for entry in entries:
            submission.add(*entry, mask_of(entry))
    return path


def rewrite(path, changes, mode="w"):
    """Writes a zip with entries replaced: a name maps to its bytes, or to None to leave it out."""
    with zipfile.ZipFile(path) as old:
        content = {name: old.read(name) for name in old.namelist()} | changes
    with zipfile.ZipFile(path, mode) as new:
        for name, data in content.items():
            if data is not None:
                new.writestr(name, data)


def png(array, **options):
    content = io.BytesIO()
    Image.fromarray(array).convert(**options).save(content, "PNG")
    return content.getvalue()


def test_the_layout_is_the_servers(tmp_path):
    path = write(tmp_path / "new" / "submission.zip")
    assert [entry.name for entry in path.parent.iterdir()] == ["submission.zip"]
    with zipfile.ZipFile(path) as submission:
        assert submission.testzip() is None
        assert submission.namelist() == [
            "Annotations/0062f687f1/0/00000.png",
            "Annotations/0062f687f1/0/00005.png",
            "Annotations/0062f687f1/1/00000.png",
            "Annotations/0062f687f1/1/00005.png",
            "Annotations/00f88c4f0a/0/00010.png",
        ]
        for entry, name in zip(ENTRIES, submission.namelist(), strict=True):
            with Image.open(io.BytesIO(submission.read(name))) as picture:
                assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (40, 30))
                assert np.array_equal(np.asarray(picture), np.where(mask_of(entry), 255, 0))
    check(path, VIDEOS)


def test_the_header_of_each_entry_is_fixed_byte_by_byte(tmp_path):
    """So that the bytes tell nothing of when, where and on what system they were written."""
    content = write(tmp_path / "a.zip", ENTRIES[:1]).read_bytes()
    name = b"Annotations/0062f687f1/0/00000.png"
    # Signature, version 2.0, no flags, stored, 00:00 of the 1st of January 1980.
    assert content[:14] == b"PK\3\4" + struct.pack("<HHHHH", 20, 0, 0, 0, 33)
    assert content[26:30] == struct.pack("<HH", len(name), 0)
    assert content[30 : 30 + len(name)] == name
    assert content[30 + len(name) :].startswith(b"\x89PNG\r\n\x1a\n")
    central = content[content.index(b"PK\1\2") :]
    assert central[4:8] == struct.pack("<BBH", 20, 3, 20)
    assert struct.unpack("<I", central[38:42]) == (0o100644 << 16,)
    assert content == write(tmp_path / "b.zip", ENTRIES[:1]).read_bytes()


@pytest.mark.parametrize("cuts", [(2,), (0, 3), (1, 2, 3, 4), ()])
def test_joined_parts_are_what_one_writer_writes(tmp_path, cuts):
    bounds = [0, *cuts, len(ENTRIES)]
    parts = [
        write(tmp_path / f"part {number}.zip", ENTRIES[first:last])
        for number, (first, last) in enumerate(itertools.pairwise(bounds))
    ]
    join(parts, tmp_path / "joined.zip")
    assert (tmp_path / "joined.zip").read_bytes() == write(tmp_path / "one.zip").read_bytes()


def test_parts_that_cannot_be_joined_are_refused(tmp_path):
    first, second = write(tmp_path / "1.zip", ENTRIES[:3]), write(tmp_path / "2.zip", ENTRIES[2:])
    (tmp_path / "cut.zip").write_bytes(first.read_bytes()[:-40])
    spoilt = bytearray(first.read_bytes())
    spoilt[200] ^= 255
    (tmp_path / "spoilt.zip").write_bytes(spoilt)
    for name in (
        "../evil.png",
        "Annotations/a/b/../c.png",
        "Annotations/a/b/.png",
        "other/a/b/c.png",
        "Annotations/a/b/c",
    ):
        write(tmp_path / "foreign.zip", ())
        rewrite(tmp_path / "foreign.zip", {name: b""})
        with pytest.raises(UserError, match="no place of a mask"):
            join([tmp_path / "foreign.zip"], tmp_path / "joined.zip")
    for parts, said in {
        (first, second): "'Annotations/0062f687f1/1/00000.png' already",
        (first, tmp_path / "none.zip"): "no such submission",
        (first, tmp_path / "cut.zip"): "cut.zip' is broken",
        (tmp_path / "spoilt.zip",): "spoilt.zip' is broken: Bad CRC",
    }.items():
        with pytest.raises(UserError, match=said):
            join(parts, tmp_path / "joined.zip")
    assert not (tmp_path / "joined.zip").exists()


@pytest.mark.parametrize("wrong", ["", ".", "..", "a/b", "..\\a", "a\0", "/etc", "\udc80"])
@pytest.mark.parametrize("place", range(3))
def test_names_that_lead_elsewhere_are_refused(wrong, place):
    names = ["video", "0", "00000"]
    names[place] = wrong
    with pytest.raises(UserError, match=f"the {('video', 'expression', 'frame')[place]}'s name"):
        entry_name(*names)


def test_a_refused_name_leaves_no_file(tmp_path):
    with pytest.raises(UserError, match=r"'\.\./evil'"):
        write(tmp_path / "a.zip", [ENTRIES[0], ("../evil", "0", "00000")])
    assert not list(tmp_path.iterdir())


def test_a_frame_that_comes_twice_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(UserError, match=r"has 'Annotations/0062f687f1/0/00000\.png' already"):
        write(tmp_path / "a.zip", [*ENTRIES, ENTRIES[0]])
    assert not list(tmp_path.iterdir())


def test_what_stood_there_is_kept_until_the_new_one_is_whole(tmp_path):
    old = write(tmp_path / "a.zip", ENTRIES[:1]).read_bytes()

    def entries():
        yield ENTRIES[1]
        assert (tmp_path / "a.zip").read_bytes() == old
        raise UserError("the checkpoint is gone")

    with pytest.raises(UserError, match="checkpoint"):
        write(tmp_path / "a.zip", entries())
    assert (tmp_path / "a.zip").read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "mask",
    [np.zeros((3, 4), np.uint8), np.zeros((3, 4), np.float32), np.zeros((0, 4), bool), np.zeros((1, 3, 4), bool)],
)
def test_what_is_no_mask_is_refused(tmp_path, mask):
    with pytest.raises(ValueError, match=r"bool \(h, w\) is wanted"), Submission(tmp_path / "a.zip") as submission:
        submission.add.__wrapped__(submission, *ENTRIES[0], mask)


def test_the_check_says_what_is_wrong_in_one_line(tmp_path):
    path = tmp_path / "a.zip"
    name = "Annotations/0062f687f1/0/00005.png"
    grey = np.full((30, 40), 255, np.uint8)
    grey[3, 4] = 254
    cases = [
        ({name: None, "Annotations/00f88c4f0a/0/00010.png": None}, rf"lacks 2 of 5 masks, the first one is '{name}'"),
        ({"Annotations/0062f687f1/0/00006.png": b""}, "has what is not wanted: 1 of 6 masks.*00006.png"),
        ({"note.txt": b"hello"}, "not wanted.*'note.txt'"),
        ({name: png(grey, mode="L")}, "levels between"),
        ({name: png(grey, mode="RGB")}, "mode RGB"),
        ({name: png(grey, mode="1")}, "mode 1"),
        ({name: png(grey, mode="L")[:50]}, "is no PNG"),
        ({name: b"GIF89a"}, "is no PNG"),
        ({name: png(np.zeros((31, 40), np.uint8), mode="L")}, "31 x 40 pixels, the video 30 x 40"),
    ]
    for changes, said in cases:
        rewrite(write(path), changes)
        with pytest.raises(UserError, match=said) as caught:
            check(path, VIDEOS)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="30 x 40 pixels, the video 60 x 80"):
        check(write(path), {video: of._replace(size=(60, 80)) for video, of in VIDEOS.items()})
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as twice:
        twice.writestr(name, b"")
    with pytest.raises(UserError, match=f"has twice 1 of 6 masks.*'{name}'"):
        check(path, VIDEOS)


def test_folders_in_the_zip_do_not_matter(tmp_path):
    """As `zip -r` makes them."""
    path = write(tmp_path / "a.zip")
    rewrite(path, {"Annotations/": b"", "Annotations/0062f687f1/": b""})
    check(path, VIDEOS)


def test_the_check_of_a_file_that_is_no_zip(tmp_path):
    (tmp_path / "a.zip").write_text("<html>")
    with pytest.raises(UserError, match=r"a\.zip' is broken"):
        check(tmp_path / "a.zip", VIDEOS)
