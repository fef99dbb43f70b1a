"""The command that converts: stand-ins, and arguments that do not fit."""

import json
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
