"""The command `predict`: what it writes, and that every mistake costs one line and exit code 2."""

import errno
import json
import os
import shutil
import sys
import tempfile
import warnings

import numpy as np
import pytest
from PIL import Image
from small_model import small_pretrained

from unilseg_jax import Segmenter, predict
from unilseg_jax.errors import UserError, run_command
from unilseg_jax.evaluation.presence import PresenceModel
from unilseg_jax.ops.masks import rle_to_mask
from unilseg_jax.training.model_directory import save_pretrained

PHRASES = ["the dog on the left", "all sky/clouds [blue]"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    save_pretrained(path, small_pretrained())
    return str(path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two pictures of the same stem and different sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, size in (("street.png", (50, 80)), ("other/street.jpg", (70, 60))):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    return [str(folder / "street.png"), str(folder / "other" / "street.jpg")]


def arguments(checkpoint, pictures, phrases, output, *more):
    images = [part for picture in pictures for part in ("--image", picture)]
    named = [part for phrase in phrases for part in ("--phrase", phrase)]
    return ["--checkpoint", checkpoint, *images, *named, "--output", str(output), *more]


@pytest.fixture(scope="module")
def output(checkpoint, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("output") / "new"
    predict.main(arguments(checkpoint, pictures, PHRASES, folder))
    return folder


@pytest.fixture(scope="module")
def entries(output):
    return json.loads((output / "predictions.json").read_text())["predictions"]


def test_every_picture_and_phrase_has_an_entry_in_order(entries, pictures):
    assert [(e["image"], e["phrase"]) for e in entries] == [(i, p) for i in pictures for p in PHRASES]
    assert {e["threshold"] for e in entries} == {0.35}
    assert {e["resize"] for e in entries} == {"letterbox"}


def test_pictures_may_follow_one_flag(checkpoint, pictures, entries, tmp_path):
    predict.main(["--checkpoint", checkpoint, "--image", *pictures, "--phrase", PHRASES[0], "--output", str(tmp_path)])
    found = json.loads((tmp_path / "predictions.json").read_text())["predictions"]
    assert found == [entry for entry in entries if entry["phrase"] == PHRASES[0]]


def test_masks_are_black_and_white_at_the_pictures_size_and_equal_their_run_lengths(entries, output):
    for entry in entries:
        mask = np.asarray(Image.open(output / entry["mask_file"]))
        with Image.open(entry["image"]) as picture:
            assert mask.shape == (picture.height, picture.width)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}
        rle = entry["segmentation"]
        np.testing.assert_array_equal(rle_to_mask(rle["counts"].encode(), *rle["size"]), mask // 255)
        assert entry["area"] == (mask == 255).sum()


def test_confidence_is_the_mean_inside_the_mask_or_null(entries):
    for entry in entries:
        if entry["area"]:
            assert entry["threshold"] < entry["mean_confidence"] <= 1
        else:
            assert entry["mean_confidence"] is None


def test_pictures_of_one_stem_do_not_overwrite_each_other(entries, output):
    masks = {entry["mask_file"] for entry in entries}
    overlays = {entry["overlay_file"] for entry in entries}
    assert len(masks) == 4
    assert len(overlays) == 2
    assert {path.name for path in output.iterdir()} == masks | overlays | {"predictions.json"}


def test_file_names_tell_picture_and_phrase(entries):
    assert entries[0]["mask_file"] == "street_01_the-dog-on-the-left.png"
    assert entries[1]["mask_file"] == "street_02_all-sky-clouds-blue.png"


def test_the_overlay_shows_picture_and_legend(entries, output):
    with Image.open(output / entries[0]["overlay_file"]) as overlay:
        assert overlay.width >= 320
        assert overlay.height > overlay.width * 50 // 80


def test_the_papers_protocol_and_a_threshold(checkpoint, pictures, tmp_path, capsys):
    predict.main(arguments(checkpoint, pictures[:1], PHRASES[:1], tmp_path, "--resize", "stretch"))
    report = json.loads((tmp_path / "predictions.json").read_text())
    assert (report["predictions"][0]["resize"], report["predictions"][0]["threshold"]) == ("stretch", 0.5)
    predict.main(arguments(checkpoint, pictures[:1], PHRASES[:1], tmp_path, "--threshold", "0.999999"))
    entry = json.loads((tmp_path / "predictions.json").read_text())["predictions"][0]
    assert entry["threshold"] == 0.999999
    assert (entry["area"], entry["mean_confidence"]) == (0, None)
    assert "nothing found" in capsys.readouterr().out


@pytest.fixture
def presence(checkpoint, tmp_path):
    """A file by which what covers less than some share of the picture is not there, by the released protocol alone."""

    def write(least_share, weights=None):
        path = tmp_path / "presence.json"
        rows = {"released": np.array([-100 * np.log(least_share), 0.0, 0.0, 100.0, 0.0])}
        weights = weights or Segmenter.from_pretrained(checkpoint).weights_sha256
        PresenceModel(coefficients=rows, fitted_on="grefcoco:train", weights_sha256=weights).save(path)
        return str(path)

    return write


def test_what_is_probably_not_there_gets_an_empty_mask(checkpoint, pictures, entries, presence, tmp_path, capsys):
    shares = {e["phrase"]: e["area"] / np.prod(e["segmentation"]["size"]) for e in entries[:2]}
    less, more = sorted(shares, key=shares.get)
    assert shares[less] < 0.95 * shares[more], "this test wants two masks of different sizes"
    file = presence(np.sqrt(shares[less] * shares[more]))
    predict.main(arguments(checkpoint, pictures[:1], PHRASES, tmp_path / "out", "--presence", file))
    found = {e["phrase"]: e for e in json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]}
    assert found[less]["presence"] < 0.5 < found[more]["presence"]
    assert (found[less]["area"], found[less]["mean_confidence"]) == (0, None)
    assert not np.asarray(Image.open(tmp_path / "out" / found[less]["mask_file"])).any()
    assert found[more]["area"] == next(e["area"] for e in entries if e["phrase"] == more)
    assert "presence" in capsys.readouterr().out
    assert "presence" not in entries[0]


def test_a_presence_score_of_another_model_or_protocol_is_refused(checkpoint, pictures, presence, tmp_path):
    given = checkpoint, pictures, PHRASES, tmp_path / "out", "--presence"
    with pytest.raises(UserError, match="was fitted for other weights"):
        predict.main(arguments(*given, presence(0.5, "0" * 64)))
    with pytest.raises(UserError, match="was fitted for the protocol released, not for paper"):
        predict.main(arguments(*given, presence(0.5), "--resize", "stretch"))


def test_a_picture_in_the_output_folder_is_not_overwritten(checkpoint, pictures, tmp_path):
    own = tmp_path / "a.png", tmp_path / "a_overlay.png"
    for path in own:
        Image.open(pictures[0]).save(path)
    before = [path.read_bytes() for path in own]
    predict.main(arguments(checkpoint, [str(path) for path in own], ["dog"], tmp_path))
    assert [path.read_bytes() for path in own] == before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
def test_a_file_name_that_is_not_utf_8_can_be_printed(checkpoint, pictures, tmp_path, capsys):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    shutil.copy(pictures[0], path)
    predict.main(arguments(checkpoint, [path], ["dog"], tmp_path / "out"))
    assert "caf?.png" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"][0]["image"] == path


def test_a_long_phrase_is_cut_and_said_so_once(checkpoint, pictures, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict.main(arguments(checkpoint, pictures, ["big dog " * 10], tmp_path))
    kept = ("big dog " * 10)[: len("big dog ") * 7 + 3]
    assert capsys.readouterr().err.count(f"warning: the phrase {'big dog ' * 10!r} is longer") == 1
    entry = json.loads((tmp_path / "predictions.json").read_text())["predictions"][0]
    assert entry["phrase_read"] == kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pictures": ["absent.jpg"]}, "no such image"),
        ({"pictures": ["{tmp}"]}, "is a folder"),
        ({"pictures": ["{tmp}/notes.jpg"]}, "is not a picture"),
        ({"phrases": [" "]}, "is empty"),
        ({"phrases": ["\u200b\u200b"]}, "has no words"),
        ({"phrases": ["dog", "?!"]}, "has no words"),
        ({"phrases": []}, "--phrase"),
        ({"checkpoint": "absent"}, "no such checkpoint"),
        ({"checkpoint": "{tmp}"}, "model.json"),
        ({"checkpoint": "{tmp}", "output": "{tmp}/out/of/here"}, "model.json"),
        ({"checkpoint": "{tmp}/notes.jpg"}, "notes.jpg"),
        ({"output": "{tmp}/notes.jpg"}, "notes.jpg' is a file, a folder is wanted\n"),
        ({"output": "{tmp}/notes.jpg/out"}, "notes.jpg' is a file, a folder is wanted there"),
        ({"output": "{tmp}/full"}, "predictions.json' is a folder"),
        ({"output": ""}, "--output: the path is empty"),
        ({"pictures": [""]}, "--image: the path is empty"),
        ({"checkpoint": ""}, "--checkpoint: the path is empty"),
        ({"more": ["--sharpen"]}, "--sharpen"),
        ({"more": ["--threshold", "1"]}, "between 0 and 1"),
        ({"more": ["--threshold", "nan"]}, "between 0 and 1"),
        ({"more": ["--resize", "crop"]}, "crop"),
        ({"more": ["--presence", "absent.json"]}, "no such presence file: 'absent.json'"),
        ({"more": ["--presence", "{tmp}/notes.jpg"]}, "notes.jpg' is no presence file"),
        ({"more": ["--presence", "{tmp}/notes.jpg", "--threshold", "0.4"]}, "not allowed with argument"),
    ],
)
def test_a_mistake_costs_one_line_and_exit_code_2(checkpoint, pictures, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.jpg").write_text("no picture")
    (tmp_path / "full" / "predictions.json").mkdir(parents=True)
    given = {"checkpoint": checkpoint, "pictures": pictures, "phrases": ["dog"], "output": "{tmp}/out"}
    given |= {"more": [], **change}

    def filled(value):
        if isinstance(value, list):
            return [filled(each) for each in value]
        return value.replace("{tmp}", str(tmp_path))

    checkpoint, pictures, phrases, output, more = map(filled, given.values())
    with pytest.raises(SystemExit) as caught:
        run_command(predict.main, arguments(checkpoint, pictures, phrases, output, *more))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert {path.name for path in tmp_path.iterdir()} == {"notes.jpg", "full"}


def test_help_says_what_the_confidence_is(capsys):
    with pytest.raises(SystemExit):
        predict.main(["--help"])
    assert "is the mean probability inside the mask" in " ".join(capsys.readouterr().out.split())


def test_a_folder_that_takes_no_files_is_refused_before_the_model_is_loaded(
    checkpoint, pictures, tmp_path, capsys, monkeypatch
):
    def refuse(*args, dir, **kwargs):
        assert dir == tmp_path
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda path: pytest.fail("the model was loaded"))
    with pytest.raises(SystemExit) as caught:
        run_command(predict.main, arguments(checkpoint, pictures, ["dog"], tmp_path))
    assert caught.value.code == 2
    line = f"error: cannot write into the folder {str(tmp_path)!r}: Permission denied; name another one\n"
    assert capsys.readouterr().err == line
