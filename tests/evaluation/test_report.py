"""What people see of an evaluation: the sheet of pictures and the table."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from unilseg_jax.evaluation import pictures, report
from unilseg_jax.evaluation.evaluator import Example
from unilseg_jax.input_pipeline.triplet import Triplet

KINDS = ("attribute", "category", "nothing", "part", "relation", "salient")


def example(phrase="the red circle", *, size=(192, 192), image_id="a", colour=(0, 0, 0)) -> Example:
    """Returns a picture of one colour: the truth is its left half, the prediction its upper half."""
    height, width = size
    mask = np.zeros((1, height, width), np.uint8)
    mask[0, :, : width // 2] = 1
    prediction = np.zeros((height, width), bool)
    prediction[: height // 2] = True
    triplet = Triplet(
        image_id=image_id,
        image=np.full((height, width, 3), colour, np.uint8),
        masks=mask,
        phrases=(phrase,),
        mask_index=(0,),
        kinds=("attribute",),
    )
    return Example(triplet=triplet, phrase=0, prediction=prediction, iou=1 / 3)


def tile_of(sheet, row, column):
    """Returns the picture of a tile, as integers."""
    top, left = report.KEY + row * (report.TILE + report.CAPTION) + 4, column * (report.TILE + 8) + 4
    return np.asarray(sheet)[top : top + report.TILE, left : left + report.TILE].astype(int)


@pytest.mark.parametrize(
    ("counts", "columns", "rows"), [([1], 6, 1), ([5], 6, 1), ([6], 6, 2), ([7], 3, 4), ([2, 1, 3], 3, 4)]
)
def test_each_picture_of_a_sheet_begins_a_row(tmp_path, counts, columns, rows):
    path = tmp_path / "pictures" / "held_out.png"
    examples = [example(image_id=f"{number}") for number, count in enumerate(counts) for _ in range(count)]
    report.draw_examples(path, examples, columns)
    assert [entry.name for entry in path.parent.iterdir()] == ["held_out.png"]
    with Image.open(path) as sheet:
        sheet.load()
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        assert sheet.size == (columns * (report.TILE + 8), report.KEY + rows * (report.TILE + report.CAPTION))


def test_a_picture_stands_before_its_phrases_and_in_its_own_colours(tmp_path):
    path, red, blue = tmp_path / "sheet.png", (250, 10, 20), (10, 20, 250)
    examples = [example(colour=red), example(colour=red), example(colour=red), example(colour=blue, image_id="b")]
    report.draw_examples(path, examples, columns=3)
    sheet = Image.open(path)
    assert (tile_of(sheet, 0, 0) == red).all()
    assert (tile_of(sheet, 1, 0) == 255).all(), "the third phrase stands in a row without the picture"
    assert (tile_of(sheet, 2, 0) == blue).all()
    assert (tile_of(sheet, 1, 1) != 255).any()
    assert (tile_of(sheet, 1, 2) == 255).all()


def test_hits_misses_and_surplus_have_their_colours_on_grey(tmp_path):
    path = tmp_path / "sheet.png"
    report.draw_examples(path, [example(colour=(200, 0, 0))], columns=2)
    tile = tile_of(Image.open(path), 0, 1)
    quarter, three, grey = report.TILE // 4, 3 * report.TILE // 4, 0.299 * 200
    for (y, x), colour in {
        (quarter, quarter): pictures.HIT,
        (three, quarter): pictures.MISSED,
        (quarter, three): pictures.SURPLUS,
        (three, three): (grey, grey, grey),
    }.items():
        assert np.abs(tile[y, x] - 0.55 * np.array(colour) - 0.45 * grey).max() <= 2


@pytest.mark.parametrize("size", [(30, 400), (400, 30), (1, 1000), (29, 37)])
def test_pictures_of_any_shape_and_long_phrases_fit_their_tile(tmp_path, size):
    phrases = ["word " * 60, "x" * 300, "the dog, straße 木 🐕", ""]
    path = tmp_path / "sheet.png"
    report.draw_examples(path, [example(phrase, size=size) for phrase in phrases], columns=2)
    with Image.open(path) as sheet:
        assert sheet.size == (2 * (report.TILE + 8), report.KEY + 4 * (report.TILE + report.CAPTION))


def row(value):
    names = ("oiou", "miou", *(f"pr_at_{share}" for share in (50, 60, 70, 80, 90)), "nothing_found")
    return {**dict.fromkeys(names, value), "count": 12345}


@pytest.fixture
def summary():
    honest = {"all": row(0.6543), "kinds": {kind: row(0.1 * n + 0.0123) for n, kind in enumerate(KINDS)}}
    honest["kinds"]["nothing"]["oiou"] = math.nan
    shuffled = {"all": row(0.2345), "kinds": {kind: row(0.0777) for kind in KINDS}}
    return {
        "steps": 1200,
        "training_seconds": 312.4,
        "evals": {"held_out": {"honest": honest, "shuffled": shuffled}, "val": {"honest": honest}},
    }


def test_the_table_has_every_kind_and_its_numbers_in_full(summary, capsys):
    """Also where no terminal tells its width, as in a log: then 80 columns are assumed."""
    report.print_summary(summary)
    out = capsys.readouterr().out
    for kind in (*KINDS, "all"):
        assert kind in out, f"{kind} is cut"
    for number in ("0.6543", "0.2345", "0.0123", "0.5123", "0.0777", "12345"):
        assert number in out, f"{number} is cut"
    assert "nan" not in out


def test_an_evaluation_without_shuffled_phrases_has_no_column_for_them(summary, capsys):
    del summary["evals"]["held_out"]
    report.print_summary(summary)
    out = capsys.readouterr().out
    assert "0.0777" not in out
    assert "val after 1200 steps, 312 s of training" in out


def test_numbers_of_a_run_that_has_seen_the_benchmark_are_marked(summary, capsys):
    summary["evals"]["val"] |= {"leakage": "drop", "leakage_dropped": 47}
    report.print_summary(summary)
    assert "leakage" not in capsys.readouterr().out
    summary["evals"]["val"] |= {"leakage": "paper", "leakage_trained_on": 47}
    report.print_summary(summary)
    assert "leakage=paper: 47 training pictures" in " ".join(capsys.readouterr().out.split())
    summary["evals"]["val"] |= {"leakage": "drop", "leakage_inherited": 5}
    report.print_summary(summary)
    said = "leakage inherited: first weights saw 5 pictures of benchmarks"
    assert said in " ".join(capsys.readouterr().out.split())


def test_without_nan_gives_what_json_has():
    value = {"a": [1.5, math.nan, {"b": math.inf}], "c": (-math.inf, 3), "d": "nan", "e": None, "f": True}
    found = report.without_nan(value)
    assert found == {"a": [1.5, None, {"b": None}], "c": [None, 3], "d": "nan", "e": None, "f": True}
    json.dumps(found, allow_nan=False)
