"""The paper's tables: as printed where a source shows them, nothing where none does."""

import ast
import fnmatch
from pathlib import Path

import pytest

from unilseg_jax.evaluation.paper_tables import NUMBERS, Place, Score, paper_table, parse_table

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "unilseg_jax" / "evaluation" / "paper"


def scores(number, method, note=""):
    (row,) = (row for row in paper_table(number).rows if (row.method, row.note) == (method, note))
    return {":".join(place[:2]) + "/" + place.metric: score.printed for place, score in row.scores.items()}


@pytest.mark.parametrize("number", NUMBERS)
def test_every_table_says_what_it_is_and_where_it_was_read(number):
    table = paper_table(number)
    assert table.number == number
    assert table.title
    assert table.source
    assert len({(row.method, row.note) for row in table.rows}) == len(table.rows)
    assert all(0.1 < score.value < 1 for row in table.rows for score in row.scores.values())


@pytest.mark.parametrize("number", NUMBERS)
def test_a_table_with_cells_that_were_not_read_says_that_it_is_incomplete(number):
    rows = [line for line in (FOLDER / f"table{number}.tsv").read_text().splitlines() if not line.startswith("#")]
    if any("?" in row.split("\t") for row in rows):
        assert paper_table(number).missing
    else:
        assert number == 2


def test_table_2_is_whole():
    table = paper_table(2)
    assert table.missing is None
    assert len(table.rows) == 18
    assert len(table.places) == 8
    # Dashes: four rows without G-Ref, one without its test set, and SEEM but for one number.
    assert sum(len(row.scores) for row in table.rows) == 18 * 8 - 4 * 2 - 1 - 7


def test_the_last_rows_of_table_2():
    wanted = {
        "refcoco:val/oiou": "81.74",
        "refcoco:testA/oiou": "83.17",
        "refcoco:testB/oiou": "79.85",
        "refcoco+:val/oiou": "73.18",
        "refcoco+:testA/oiou": "78.29",
        "refcoco+:testB/oiou": "68.15",
        "refcocog:val/oiou": "79.27",
        "refcocog:test/oiou": "80.54",
    }
    assert scores(2, "UniLSeg-100", "Swin-B") == wanted
    assert list(scores(2, "UniLSeg-20", "Swin-B").values()) == [
        *("80.52", "81.83", "78.43", "72.70", "77.02", "66.99", "78.41", "79.47")
    ]


def test_rows_stand_under_the_metric_that_they_are():
    assert scores(2, "LAVT", "Swin-B")["refcoco:val/oiou"] == "72.73"
    assert list(scores(2, "CRIS", "ResNet101").items())[:3] == [
        ("refcoco:val/miou", "70.47"),
        ("refcoco:testA/miou", "73.18"),
        ("refcoco:testB/miou", "66.10"),
    ]
    assert scores(6, "F3Net") == {
        "ecssd:test/f_weighted": "0.912",
        "sod:test/f_weighted": "0.775",
        "pascal_s:test/f_weighted": "0.816",
    }
    assert scores(6, "RCSB") == {"ecssd:test/f_adaptive": "0.927", "pascal_s:test/f_adaptive": "0.842"}


def test_what_was_not_read_is_not_there():
    assert scores(3, "UniLSeg-100", "Swin-B") == {
        "ref_youtube_vos:valid/j_and_f": "64.9",
        "ref_youtube_vos:valid/j": "62.8",
        "ref_youtube_vos:valid/f": "67.0",
    }
    assert scores(3, "ReferFormer", "Video-Swin-T") == {"ref_youtube_vos:valid/j_and_f": "59.4"}
    assert scores(6, "UniLSeg") == {}
    assert not any(row.scores for number in (4, 5, 7) for row in paper_table(number).rows)


def test_values_are_fractions_of_one():
    row = paper_table(2).rows[0]
    assert row.scores[Place("refcoco", "val", "oiou")] == Score("61.47", pytest.approx(0.6147))
    row = paper_table(6).rows[0]
    assert row.scores[Place("ecssd", "test", "f_weighted")] == Score("0.912", pytest.approx(0.912))


def test_there_is_no_table_8():
    with pytest.raises(ValueError, match="no Table 8, there are 2, 3, 4, 5, 6, 7"):
        paper_table(8)


HEAD = (
    "# title: t\n# caption: c\n# unit: percent\n# prediction: mask\n# sentences: -\n# source: s\n# missing: nothing\n"
)
COLUMNS = "method\tnote\tmetric\tremarks\trefcoco:val/oiou\n"


def test_a_table_is_read_from_text():
    table = parse_table(2, HEAD + COLUMNS + "A\tR50\t\tfirst | second\t50.0\nB\t\tmiou\t\t-\n")
    assert (table.sentences, table.missing) == (None, None)
    assert table.rows[0].remarks == ("first", "second")
    assert table.rows[0].scores == {Place("refcoco", "val", "oiou"): Score("50.0", 0.5)}
    assert table.rows[1].scores == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (COLUMNS, "has the head"),
        (HEAD.replace("percent", "per mille") + COLUMNS, "a known unit"),
        (HEAD + "method\tremarks\n", "must begin with method, note"),
        (HEAD + COLUMNS.replace("/oiou", ""), "'refcoco:val' is not BENCHMARK:SPLIT/METRIC"),
        (HEAD + COLUMNS + "A\t\t\t\n", "the row of 'A' has too few or too many cells"),
        (HEAD + COLUMNS + "A\t\t\t\t50.0\t51.0\n", "the row of 'A' has too few or too many cells"),
        (HEAD + COLUMNS + "A\t\t\t\t5O.0\n", "'A' has '5O.0' under refcoco:val/oiou"),
        (HEAD + COLUMNS + "A\t\t\t\t500.0\n", "'A' has '500.0'"),
    ],
)
def test_text_that_breaks_the_layout_is_refused(text, said):
    with pytest.raises(ValueError, match="table 2") as caught:
        parse_table(2, text)
    assert said in str(caught.value)


def test_the_tables_are_installed_with_the_package():
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call)]
    (data,) = (word.value for call in calls for word in call.keywords if word.arg == "package_data")
    patterns = ast.literal_eval(data)["unilseg_jax.evaluation"]
    assert sorted(path.name for path in FOLDER.iterdir()) == [f"table{number}.tsv" for number in NUMBERS]
    for path in FOLDER.iterdir():
        assert any(fnmatch.fnmatch(f"paper/{path.name}", pattern) for pattern in patterns)
