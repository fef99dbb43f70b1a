"""Archives of SA-1B whose members do not lie as in the published ones: nothing is paired wrongly or lost in silence."""

import io
import json
import tarfile

import pytest

from unilseg_jax import prepare
from unilseg_jax.input_pipeline.catalogue import load_stand_in
from unilseg_jax.input_pipeline.conversion import SplitCounts, read_report


@pytest.fixture
def raw(tmp_path):
    """Four pictures: 223750 and 223751 in an archive, 223752 and 223753 in a folder."""
    folder = tmp_path / "raw"
    folder.mkdir()
    load_stand_in("sa1b").write(folder, 4)
    return folder


def convert(raw):
    """Runs the command, which lets any share be broken, and returns the counts and what is listed."""
    out = raw.parent / "out"
    prepare.main(["sa1b", "--raw", str(raw), "--out", str(out), "--max-skipped=1"])
    directory = out / "sa1b" / "sa1b" / "1.0.0"
    lines = (directory / "quarantine.jsonl").read_text().splitlines()
    return read_report(directory)[0]["train"], [json.loads(line) for line in lines]


def rename_members(raw, name_of):
    """Writes the archive anew; `name_of` returns the members to make of one."""
    with tarfile.open(raw / "sa_000000.tar") as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}
    with tarfile.open(raw / "sa_000000.tar", "w") as tar:
        for old, content in members.items():
            for name in name_of(old.removeprefix("./")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def test_same_picture_in_two_folders_of_an_archive_is_kept_once(raw):
    rename_members(raw, lambda name: (f"a/{name}", f"b/{name}"))
    counts, listed = convert(raw)
    assert counts == SplitCounts(pictures=4, objects=12, skipped=2)
    assert [(entry["file"], "occurs twice" in entry["reason"]) for entry in listed] == [("sa_000000.tar", True)] * 2


def test_picture_and_annotation_of_two_folders_are_no_pair(raw):
    rename_members(raw, lambda name: [("a/" if name.endswith(".jpg") else "b/") + name])
    counts, listed = convert(raw)
    assert (counts.pictures, len(listed)) == (2, 4)
    assert {entry["file"]: entry["reason"] for entry in listed[:2]} == {
        "sa_000000.tar/a/sa_223750.jpg": "the annotation is missing",
        "sa_000000.tar/b/sa_223750.jpg": "the picture is missing",
    }


@pytest.mark.parametrize("name", ["sa_007.jpg", "deep/sa_1x.json", "sa_.JPG"])
def test_odd_name_in_an_archive_is_listed(raw, name):
    rename_members(raw, lambda old: [old, name] if old == "sa_223751.json" else [old])
    counts, (entry,) = convert(raw)
    assert counts.pictures == 4
    assert (entry["file"], "plain number" in entry["reason"]) == (f"sa_000000.tar/{name}", True)
