"""The doctor: what it finds of the data sets and the installation, its exit codes, and the contact sheets."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from denied_files import deny
from PIL import Image

from unilseg_jax import doctor, prepare
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import catalogue, inspection

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`raw` with the stand-in of RefCOCO inside `raw/refer`, and `out` with two of its configurations prepared."""
    folder = tmp_path_factory.mktemp("doctor")
    configs = ["--config=refcoco", "--config=refcocog"]
    raw, out = folder / "raw" / "refer", folder / "out"
    prepare.main(["refcoco", "--synthetic=4", "--raw", str(raw), "--out", str(out), *configs])
    return folder


@pytest.fixture
def out(folder, tmp_path):
    """A copy of the prepared sets that a test may damage."""
    shutil.copytree(folder / "out", tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def one_builder(monkeypatch):
    """What is shown depends on RefCOCO's builder alone."""
    monkeypatch.setattr(doctor, "builder_names", lambda: ["refcoco"])
    monkeypatch.setenv("COLUMNS", "160")


def rows(text):
    """Returns the table's rows of configurations by name; what stands below the table may begin with one too."""
    lines = [line.split() for line in text.splitlines() if line.startswith("  ")]
    return {words[0]: words[1:] for words in reversed(lines) if words}


def test_prepared_and_missing_sets_are_told_apart(folder, capsys):
    doctor.main(["--data", str(folder / "out"), "--raw", str(folder / "raw")])
    text = capsys.readouterr().out
    table = rows(text.partition("not as published:")[0])
    assert table["refcoco"][:7] == ["refer", "incomplete", "1", "train", "4", "of", "16,994"]
    assert table["refcocog_google"] == ["refer", "-"]
    assert "refcoco/refcoco val: 4 of 1,500 pictures, 8 of 3,811 objects, 16 of 10,834 phrases" in text
    command = f"unilseg_jax.prepare refcoco --config refcoco+ --raw {folder / 'raw' / 'refer'} --out {folder / 'out'}"
    assert command in text
    assert "licences:\n  refcoco: REFER: Apache-2.0" in text
    assert "to fetch" not in text
    assert "damaged" not in text


def test_what_is_missing_is_named_with_its_source(tmp_path, capsys):
    doctor.main(["--data", str(tmp_path)])
    text = capsys.readouterr().out
    assert "  refcoco/refcoco: refcoco.zip from https://github.com/lichengunc/refer; pictures: http://images" in text
    assert "raw files" not in text


def test_a_missing_configuration_of_a_set_is_named(folder, capsys):
    doctor.main(["--data", str(folder / "out")])
    text = capsys.readouterr().out
    listed = [line.partition(":")[0].strip() for line in text.partition("to fetch")[2].splitlines()[1:3]]
    assert listed == ["refcoco/refcoco+", "refcoco/refcocog_google"]


def test_a_split_that_was_not_there_is_to_be_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "builder_names", lambda: ["ade20k"])
    raw, out = tmp_path / "raw", tmp_path / "out"
    prepare.main(["ade20k", "--synthetic=1", "--raw", str(raw)])
    shutil.rmtree(raw / "annotations" / "training")
    prepare.main(["ade20k", "--raw", str(raw), "--out", str(out)])
    doctor.main(["--data", str(out), "--raw", str(raw)])
    text = capsys.readouterr().out
    assert "  ade20k/ade20k:train: http://data.csail.mit.edu/" in text.partition("to fetch")[2]
    assert "not prepared" not in text


def test_files_without_their_pictures_are_told_apart(folder, tmp_path, capsys):
    shutil.copytree(folder / "raw" / "refer" / "refcoco", tmp_path / "my files" / "refcoco")
    doctor.main(["--data", str(tmp_path), "--raw", str(tmp_path / "my files")])
    text = capsys.readouterr().out
    assert f"  refcoco/refcoco in '{tmp_path / 'my files'}': images/mscoco/images/train2014, " in text
    assert "unilseg_jax.prepare" not in text


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_any_name_of_a_folder_can_be_shown(folder, tmp_path, monkeypatch, encoding, errors):
    raw = tmp_path / "raw" / os.fsdecode(b"d\xc3\xa9j\xc3\xa0 [b] :train: caf\xe9")
    raw.parent.mkdir()
    raw.symlink_to(folder / "raw" / "refer")
    printed = io.TextIOWrapper(buffer := io.BytesIO(), encoding, errors)
    monkeypatch.setattr(sys, "stdout", printed)
    doctor.main(["--data", str(tmp_path), "--raw", str(raw.parent)])
    printed.flush()
    text = buffer.getvalue().decode(encoding)
    assert r"[b] :train: caf\xe9" in text.partition("not prepared:")[0], "the table"
    assert r"caf\xe9' --out" in text.partition("not prepared:")[2], "the command"


def test_a_complete_set_is_complete(folder, monkeypatch, capsys):
    builder = catalogue.load_builder("refcoco")
    published, _ = inspection.read_report(folder / "out" / "refcoco" / "refcocog" / "1.0.0")
    monkeypatch.setattr(inspection, "read_report", lambda _: (published, published))
    states = {state.config: state for state in inspection.inspect_set("refcoco", builder, folder / "out")}
    assert states["refcocog"].off == []
    monkeypatch.setattr(doctor, "inspect_sets", lambda *_: {"refcoco": [states["refcocog"]]})
    doctor.main(["--data", str(folder / "out")])
    assert rows(capsys.readouterr().out)["refcocog"][0] == "complete"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def forget_a_picture(path):
    report = json.loads(path.read_text())
    report["splits"]["val"]["pictures"] -= 1
    path.write_text(json.dumps(report))


@pytest.mark.parametrize(
    ("pattern", "harm", "message"),
    [
        ("index-val.npz", cut, "index-val.npz' is damaged"),
        ("conversion.json", cut, "no readable report"),
        ("conversion.json", Path.unlink, "no readable report"),
        ("conversion.json", forget_a_picture, "counts .*'val': 3.* the description .*'val': 4"),
        ("dataset_info.json", cut, "the description in .* is damaged"),
        ("*-val.array_record-*", Path.unlink, "record 0 of .* is not read"),
        ("*-val.array_record-*", cut, "record [03] of .* is not read"),
    ],
)
def test_a_damaged_set_is_named_and_the_exit_code_is_1(out, pattern, harm, message, capsys):
    directory = out / "refcoco" / "refcoco" / "1.0.0"
    (path,) = directory.glob(pattern)
    harm(path)
    with pytest.raises(SystemExit) as caught:
        doctor.main(["--data", str(out)])
    assert caught.value.code == 1
    text = capsys.readouterr().out
    (line,) = [line for line in text.partition("damaged; ")[2].splitlines()[1:] if line.strip()][:1]
    assert re.search(message, line)
    table = rows(text)
    assert table["refcoco"][0] == "damaged"
    assert table["refcocog"][0] == "incomplete"


@pytest.mark.parametrize("name", ["conversion.json", "dataset_info.json", "index-val.npz"])
def test_a_set_that_may_not_be_read_is_not_called_damaged(out, name, monkeypatch, capsys):
    shutil.rmtree(out / "refcoco" / "refcocog")
    deny(monkeypatch, name)
    with pytest.raises(SystemExit) as caught:
        doctor.main(["--data", str(out), "--raw", str(out)])
    assert caught.value.code == 1
    text = capsys.readouterr().out
    assert rows(text)["refcoco"][1] == "denied"
    (line,) = [line for line in text.partition("not to be read by you:")[2].splitlines()[1:] if line.strip()][:1]
    assert line.endswith(f"{name}' cannot be read: Permission denied; allow the access or name another path")
    assert "damaged" not in text
    assert "--overwrite" not in text


@pytest.mark.parametrize(
    ("pattern", "content", "message"),
    [
        ("*-val.array_record-*", b"", r"record 0 of .*val\.array_record-.*' is damaged"),
        ("dataset_info.json", b"{}", r"dataset_info\.json' is damaged"),
        ("features.json", b"{}", r"features\.json' is damaged"),
    ],
)
def test_the_preview_of_a_damaged_set_names_the_file(out, tmp_path, monkeypatch, pattern, content, message):
    monkeypatch.chdir(tmp_path)
    (path,) = (out / "refcoco" / "refcoco" / "1.0.0").glob(pattern)
    path.write_bytes(content)
    # Without a split, the description is read first to choose one.
    for wanted in ("refcoco:val", "refcoco")[: 2 if path.suffix == ".json" else 1]:
        with pytest.raises(UserError, match=f"{message}.*; prepare the data set again"):
            doctor.main(["--data", str(out), "--preview", wanted])


@pytest.mark.parametrize("sizes", [{"skipped": "x"}, {"skipped": None}, {"pictures": None}, {"objects": [1]}])
def test_a_size_that_is_no_number_is_damage(out, sizes, capsys):
    path = out / "refcoco" / "refcoco" / "1.0.0" / "conversion.json"
    report = json.loads(path.read_text())
    report["splits"]["val"] |= sizes
    path.write_text(json.dumps(report))
    with pytest.raises(SystemExit):
        doctor.main(["--data", str(out)])
    text = capsys.readouterr().out
    assert rows(text)["refcoco"][0] == "damaged"
    assert [f"({name} is {size!r}, a number is wanted)" in text for name, size in sizes.items()] == [True]


def test_a_set_without_an_index_is_not_damaged(out, capsys):
    (out / "refcoco" / "refcoco" / "1.0.0" / "index-val.npz").unlink()
    doctor.main(["--data", str(out)])
    text = capsys.readouterr().out
    assert "damaged" not in text
    assert "  refcoco/refcoco: val" in text.partition("without an index")[2].splitlines()
    assert rows(text)["refcoco"][0] == "incomplete"


def test_a_folder_of_another_set_is_not_offered_as_pictures(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "builder_names", lambda: ["image_folder", "refcoco"])

    def offered(raw):
        doctor.main(["--data", str(tmp_path), "--raw", str(raw)])
        return [line for line in capsys.readouterr().out.splitlines() if "unilseg_jax.prepare image_folder" in line]

    raw = tmp_path / "raw"
    shutil.copytree(folder / "raw", raw)
    assert any((raw / "refer").rglob("*.jpg"))
    assert offered(raw) == []
    assert offered(raw / "refer") == [], "nor are the folders in it"
    shutil.copytree(next((raw / "refer").rglob("*.jpg")).parent, raw / "own")
    (line,) = offered(raw)
    assert f"--raw {raw / 'own'} " in line


def test_another_schema_version_is_outdated_not_damaged(out, capsys):
    directory = out / "refcoco" / "refcoco" / "1.0.0"
    directory.rename(directory.with_name("0.0.0"))
    doctor.main(["--data", str(out)])
    assert rows(capsys.readouterr().out)["refcoco"][:2] == ["outdated", "0,"]


def test_what_an_interrupted_or_refused_conversion_left_is_listed(out, capsys):
    folder = out / "refcoco" / "refcoco+"
    for name in ("incomplete.ABC_1.0.0", "unfinished_1.0.0"):
        (folder / name).mkdir(parents=True)
    (folder / "1.0.0.quarantine.jsonl").write_text("{}\n")
    doctor.main(["--data", str(out)])
    listed = capsys.readouterr().out.partition("interrupted or refused:")[2].splitlines()[1:4]
    assert [Path(line.strip()).name for line in listed] == [
        "incomplete.ABC_1.0.0",
        "unfinished_1.0.0",
        "1.0.0.quarantine.jsonl",
    ]


def test_the_installation_is_shown(tmp_path, capsys):
    doctor.main(["--data", str(tmp_path)])
    text = capsys.readouterr().out
    for package in ("Python", "jax", "grain", "tensorflow-datasets", "torch"):
        assert f"│ {package} " in text
    assert "8 cpu (cpu)" in text
    assert "free disk in --data" in text


def test_a_missing_package_is_broken_and_a_missing_extra_is_not(tmp_path, monkeypatch, capsys):
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("torch", "transformers") else version(name))
    doctor.main(["--data", str(tmp_path)])
    assert "not installed" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "_version", lambda name: "0.1" if name == "grain" else version(name))
    with pytest.raises(SystemExit) as caught:
        doctor.main(["--data", str(tmp_path)])
    assert caught.value.code == 1


def test_preview_writes_a_sheet(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    doctor.main(["--data", str(folder / "out"), "--preview", "refcoco"])
    doctor.main(["--data", str(folder / "out"), "--preview", "refcoco/refcocog:test", "--count=2", "--output=a/b.png"])
    assert "4 of 4 pictures of refcoco:train drawn to refcoco_train.png" in capsys.readouterr().out
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == [
        "a/b.png",
        "refcoco_train.png",
    ]
    four, two = (np.asarray(Image.open(tmp_path / name)) for name in ("refcoco_train.png", "a/b.png"))
    assert four.shape[1] == 2 * two.shape[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "no such folder: 'nowhere'"),
        (["--data", ".", "--raw", "nowhere"], "no such folder: 'nowhere'; --raw"),
        (["--data", "{out}/refcoco/x.png"], "x.png' is a file, a folder is wanted; --data is"),
        (["--data", ".", "--preview", "refcoco"], "no prepared data set 'refcoco' in '.'; prepare it with: "),
        (
            ["--data", ".", "--preview", "refcoco"],
            r"\(a drawn stand-in: prepare refcoco --synthetic 4 --raw NEW_DIR",
        ),
        (["--data", ".", "--preview", "refcok"], "no prepared data set 'refcok' in '.'; is 'refcoco' meant\\?$"),
        (["--data", ".", "--preview", "nope"], "no prepared data set 'nope' in '.'; there are builders for ade20k, "),
        (["--data", "{out}", "--preview", "refcoco:testC"], "no split 'testC'"),
        (["--data", "{out}", "--preview", "refcoco:val", "--output", "a.jpg"], r"'a.jpg' must end in \.png"),
        (["--data", "{out}", "--preview", "refcoco:val", "--output", "{out}/refcoco/x.png/y.png"], "cannot write"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (folder / "out" / "refcoco" / "x.png").touch()
    with pytest.raises(UserError, match=message) as caught:
        doctor.main([argument.format(out=folder / "out") for argument in arguments])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [["--output=a.png"], ["--count=3"]])
def test_what_belongs_to_a_preview_is_refused_without_one(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        doctor.main(["--data", str(tmp_path), *arguments])
    assert caught.value.code == 2
    assert "--output and --count are of --preview, which is missing" in capsys.readouterr().err


def test_the_command_ends_with_code_2_for_bad_arguments():
    command = [sys.executable, "-m", "unilseg_jax.doctor", "--data", "nowhere"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: no such folder")
