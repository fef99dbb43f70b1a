"""The command that converts: stand-ins, and arguments that do not fit."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from unilseg_jax import prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.catalogue import BUILDERS, builder_names, load_stand_in

ROOT = Path(__file__).resolve().parents[1]


def test_stand_in_alone_is_written_and_not_converted(tmp_path, capsys):
    prepare.main(["image_folder", "--synthetic", "2", "--raw", str(tmp_path / "raw")])
    assert len(list((tmp_path / "raw").rglob("*.JPEG"))) == 4
    assert "a stand-in of image_folder is written to" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_stand_in_is_the_same_each_time(tmp_path):
    for place in ("one", "two"):
        prepare.main(["sa1b", "--synthetic", "2", "--raw", str(tmp_path / place)])
    files = [sorted(path for path in (tmp_path / place).rglob("*") if path.is_file()) for place in ("one", "two")]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    for one, two in zip(*files, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_stand_in_is_not_mixed_with_other_files(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="is there and is no empty folder"):
        prepare.main(["image_folder", "--synthetic", "2", "--raw", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_missing_stand_in_is_one_clear_line(monkeypatch, tmp_path):
    folder = tmp_path / "data" / "bare"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "bare_dataset_builder.py").write_text("class Builder: pass\n")
    monkeypatch.setattr("unilseg_jax.input_pipeline.catalogue.BUILDERS", tmp_path / "data")
    with pytest.raises(UserError, match="no stand-in for the data set 'bare'; there are some for: none"):
        prepare.main(["bare", "--synthetic", "2", "--raw", str(tmp_path / "raw")])
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("name", ["../sa1b", "sa1b/synthetic", ""])
def test_name_does_not_lead_out_of_the_builders(name):
    with pytest.raises(UserError, match="no stand-in"):
        load_stand_in(name)


@pytest.fixture
def full_disk():
    """No file becomes larger than 3,000 bytes, in this process and those that it starts."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_stand_in_that_cannot_be_written_whole_is_taken_back(tmp_path, full_disk):
    with pytest.raises(UserError, match=r"File too large; check .* the free space") as caught:
        prepare.main(["coco", "--synthetic", "2", "--raw", str(tmp_path / "raw")])
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "raw").iterdir()) == []


@pytest.fixture
def raw(tmp_path) -> Path:
    (tmp_path / "raw").mkdir()
    load_stand_in("coco").write(tmp_path / "raw", 2)
    return tmp_path / "raw"


@pytest.mark.parametrize("options", [[], ["--workers=1"]])
def test_full_disk_is_one_line_and_leaves_nothing_that_looks_finished(raw, request, options):
    out = raw.parent / "out"
    command = ["coco", "--raw", str(raw), "--out", str(out), "--config=instances", *options]
    request.getfixturevalue("full_disk")
    with pytest.raises(UserError, match=r"coco/instances.* cannot be read or written: File too large; check") as caught:
        prepare.main(command)
    assert "\n" not in str(caught.value)
    # A worker that was ended may have left the part of a file that it was at.
    allowed = {"unfinished_1.0.0"} if options else set()
    assert {path.name for path in (out / "coco/instances").iterdir()} <= allowed


def link_to_itself(path: Path) -> Path:
    path.symlink_to(path.name)
    return path


@pytest.mark.parametrize("options", [[], ["--workers=1"]])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "raw/annotations/instances_val2017.json/sub", "Not a directory"),
        (lambda folder: folder / ("a" * 300), "File name too long"),
        (lambda folder: link_to_itself(folder / "loop"), "File exists"),
        (lambda folder: folder / os.fsdecode(b"\xe9"), r"--out is '.*xe9', which is not UTF-8; .* choose another"),
    ],
)
def test_folder_that_cannot_be_written_to_is_one_line(raw, make, message, options):
    with pytest.raises(UserError, match=message) as caught:
        prepare.main(["coco", "--raw", str(raw), "--out", str(make(raw.parent)), *options])
    assert "\n" not in str(caught.value)


def test_raw_folder_below_a_file_is_one_line_with_code_2(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "unilseg_jax.prepare", "coco", "--synthetic=1", "--raw", str(tmp_path / "file/x")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: '{tmp_path / 'file/x'}' cannot be read or written: Not a directory")
    assert result.stderr.count("\n") == 1


def test_folder_whose_name_is_not_utf8_is_shown_with_escapes(tmp_path):
    raw = os.fsencode(tmp_path) + b"/[/b]\xe9"
    command = [sys.executable, "-m", "unilseg_jax.prepare", "image_folder", "--synthetic=1", "--raw", raw]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, env=environment, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.endswith(b"/[/b]\\xe9\n")


def spoil(raw: Path, config: str) -> None:
    path = raw / "annotations" / f"{config}_train2017.json"
    path.write_text(path.read_text()[:-9])


def test_configurations_after_a_refused_one_are_converted(raw):
    spoil(raw, "instances")
    with pytest.raises(UserError, match=r"^coco/instances: .*instances_train2017") as caught:
        prepare.main(["coco", "--raw", str(raw), "--out", str(raw.parent / "out")])
    assert "\n" not in str(caught.value)
    assert [path.parent.name for path in (raw.parent / "out/coco").glob("*/1.0.0")] == ["panoptic"]


def test_every_refused_configuration_has_its_line(raw):
    for config in ("instances", "panoptic"):
        spoil(raw, config)
    command = [sys.executable, "-m", "unilseg_jax.prepare", "coco", "--raw", str(raw), "--out", str(raw.parent / "out")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [
        ["error", "coco/instances"],
        ["error", "coco/panoptic"],
    ]


def test_out_is_wanted_without_a_stand_in(tmp_path):
    with pytest.raises(UserError, match="--out is missing"):
        prepare.main(["image_folder", "--raw", str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "ray"], "are of conversions with --workers, which is missing"),
        (["--shard-items", "3"], "are of conversions with --workers, which is missing"),
        (["--workers", "0"], "not a whole number of at least 1"),
        (["--synthetic", "-1"], "not a whole number of at least 1"),
        (["--engine", "beam"], "invalid choice: 'beam'"),
    ],
)
def test_wrong_argument_is_one_line(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        prepare.main(["image_folder", "--raw", str(tmp_path), "--out", str(tmp_path / "out"), *arguments])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_configuration_is_no_part_of_the_name(tmp_path):
    with pytest.raises(UserError, match=r"'refcoco/refcoco'; say prepare refcoco --config refcoco$"):
        prepare.main(["refcoco/refcoco", "--raw", str(tmp_path), "--out", str(tmp_path / "out")])


def test_a_file_as_raw_folder_is_called_a_file(tmp_path):
    (tmp_path / "raw").touch()
    with pytest.raises(UserError, match="raw' is a file, a folder is wanted; --raw is the folder with the downloaded"):
        prepare.main(["refcoco", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")])


def test_help_names_every_option():
    command = [sys.executable, "-m", "unilseg_jax.prepare", "--help"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for option in ("--raw", "--out", "--synthetic", "--workers", "--engine", "--shard-items", "--max-skipped"):
        assert option in text


def test_report_names_source_and_licence(tmp_path):
    prepare.main(["sa1b", "--synthetic", "2", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out/sa1b/sa1b/1.0.0/conversion.json").read_text())
    assert (report["source"], report["schema_version"]) == ("sa1b/sa1b", 1)
    assert "research only" in report["licence"]


@pytest.mark.parametrize("name", builder_names())
def test_every_data_set_has_a_description(name):
    text = (BUILDERS / name / "README.md").read_text(encoding="utf-8")
    for wanted in ("| source |", "| licence |", "| command |", f"unilseg_jax.prepare {name}"):
        assert wanted in text
