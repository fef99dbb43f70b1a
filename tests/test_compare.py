"""The command that compares: like beside like, the paper's rows under what they really are, unlike refused."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from results_json import RELEASED, entry, results, salient, write

from unilseg_jax.compare import main
from unilseg_jax.errors import run_command
from unilseg_jax.evaluation import comparison
from unilseg_jax.evaluation.comparison import COMPARABLE
from unilseg_jax.evaluation.paper_tables import parse_table


def printed(capsys, *arguments) -> str:
    run_command(main, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def refused(capsys, *arguments) -> str:
    """Runs the command, which must refuse; returns its line."""
    with pytest.raises(SystemExit) as caught:
        run_command(main, [str(argument) for argument in arguments])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def table(text: str, task: str = "referring") -> dict[str, dict[str, str]]:
    """Returns the cells of a task's table by row and heading, footnote marks included."""
    section = text.split(f"## {task}", 1)[1].split("\n## ", 1)[0]
    lines = [line.replace("\\|", "¦") for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert all(len(row) == len(cells[0]) for row in cells), "every row has a cell for each column"
    return {row[0].split("[^")[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


def footnotes(text: str) -> dict[str, str]:
    lines = (line.split(": ", 1) for line in text.splitlines() if line.startswith("[^"))
    return dict(lines)


@pytest.fixture
def one(tmp_path):
    return write(tmp_path / "a.json", results(entry(), entry(**RELEASED)))


# ---- What is printed ---------------------------------------------------------------------------------------


def test_a_number_stands_beside_the_papers_with_its_interval(one, capsys):
    rows = table(printed(capsys, one))
    assert rows[f"runs/a ({one})"] == {
        "model": f"runs/a ({one})",
        "refcoco:val oIoU": "60.00 (59.00–61.00)",
        "refcoco:val mIoU": "56.00",
    }
    assert rows["UniLSeg-100, Swin-B (Table 2)"]["refcoco:val oIoU"] == "81.74"
    assert rows["LSCM, ResNet101 (Table 2)"]["refcoco:val oIoU"] == "61.47"
    assert "SEEM, FocalT (Table 2)" not in rows, "it has no number in this column"


def test_the_papers_rows_stand_under_the_metric_that_they_are(one, capsys):
    text = printed(capsys, one)
    row = table(text)["CRIS, ResNet101 (Table 2)"]
    assert (row["refcoco:val oIoU"], row["refcoco:val mIoU"]) == ("", "70.47")
    remark = footnotes(text)["[^" + row["model"].split("[^")[1]]
    assert "mean IoU, though the caption says oIoU" in remark


def test_every_column_tells_its_protocol_in_one_line(one, capsys):
    (line,) = [line for line in printed(capsys, one).splitlines() if line.startswith("- refcoco:val")]
    for said in ("resize stretch", "cut at > 0.5", "all sentences", "1,500 images", "10,834 phrases", "original"):
        assert said in line
    for said in (f"{one}: weights 0123456789ab,", "480 px", "float32", "leakage clean", "jax 0.10.0"):
        assert said in line


def test_the_released_protocol_is_shown_when_asked_for(one, capsys):
    text = printed(capsys, one, "--protocol=released")
    assert "resize letterbox, cut at > 0.35" in text
    (heading, _) = [key for key in table(text)[f"runs/a ({one})"] if key != "model"]
    assert heading == "refcoco:val oIoU[^1]"
    assert "which of them made the paper's numbers is not known" in footnotes(text)["[^1]"]


def test_salient_objects_are_fractions_and_each_prediction_has_its_column(tmp_path, capsys):
    path = write(tmp_path / "s.json", results(salient(), salient(prediction="mask", threshold=0.5), task="salient"))
    text = printed(capsys, path)
    rows = table(text, "salient, fractions")
    own = rows[f"runs/a ({path})"]
    assert own["ecssd:test f_weighted, soft map"] == "0.930"
    assert own["ecssd:test MAE, soft map"] == "0.021"
    icon = rows["ICON (Table 6)"]
    assert {key for key, cell in icon.items() if cell == "0.936"} == {"ecssd:test f_weighted, soft map"}
    assert rows["RCSB (Table 6)"]["ecssd:test f_adaptive, soft map"] == "0.927"
    # The paper's numbers are of soft maps: beside a mask's there is a footnote in their place.
    (heading,) = [key for key in own if key.startswith("ecssd:test f_weighted, mask")]
    assert "theirs are of a soft map" in footnotes(text)["[^" + heading.split("[^")[1]]
    assert "UniLSeg was also trained on ECSSD" in text
    assert "Not read: the numbers of MFABA and of UniLSeg" in text


def test_numbers_of_an_unknown_kind_have_a_column_of_their_own(tmp_path, capsys, monkeypatch):
    head = "# title: t\n# caption: c\n# unit: fraction\n# prediction: soft map\n# sentences: -\n# source: s\n"
    row = "X\t\tf_unknown\tnobody knows\t0.957\n"
    heading = "# missing: nothing\nmethod\tnote\tmetric\tremarks\tecssd:test/f_mean\n"
    known = parse_table(6, head + heading + row)
    monkeypatch.setattr(comparison, "paper_table", lambda _: known)
    monkeypatch.setattr(comparison, "NUMBERS", (6,))
    monkeypatch.setattr("unilseg_jax.evaluation.comparison_text.paper_table", lambda _: known)
    monkeypatch.setattr("unilseg_jax.evaluation.comparison_text.NUMBERS", (6,))
    path = write(tmp_path / "s.json", results(salient(), task="salient"))
    rows = table(printed(capsys, path), "salient")
    assert rows["X (Table 6)"]["ecssd:test F, which one is unknown"] == "0.957"
    assert rows["X (Table 6)"]["ecssd:test f_mean"] == ""
    assert rows[f"runs/a ({path})"]["ecssd:test F, which one is unknown"] == ""


def test_two_files_have_a_row_each_and_a_folder_one(tmp_path, capsys):
    write(tmp_path / "a" / "refcoco-val" / "results.json", results(entry()))
    other = entry({"oiou": 0.5, "miou": None}, split="testA", images=750, phrases=5657)
    write(tmp_path / "a" / "refcoco-testA" / "results.json", results(other))
    b = write(tmp_path / "b.json", results(entry({"oiou": 0.7, "miou": 0.5}, weights_sha256="f" * 64)))
    rows = table(printed(capsys, tmp_path / "a", b))
    assert rows[f"runs/a ({tmp_path / 'a'})"]["refcoco:testA oIoU"].startswith("50.00")
    assert rows[f"runs/a ({tmp_path / 'a'})"]["refcoco:testA mIoU"] == "–", "undefined"
    assert rows[f"runs/a ({tmp_path / 'a'})"]["refcoco:val oIoU"].startswith("60.00")
    assert rows[f"runs/a ({b})"]["refcoco:val oIoU"].startswith("70.00")
    assert rows[f"runs/a ({b})"]["refcoco:testA oIoU"] == ""


def test_what_does_not_make_a_number_another_may_differ(tmp_path, capsys):
    a = write(tmp_path / "a.json", results(entry()))
    others = {"weights_sha256": "e" * 64, "input_size": 512, "dtype": "bfloat16", "versions": {"jax": "0.11"}}
    b = write(tmp_path / "b.json", results(entry(**others, leakage={"status": "unknown"})))
    text = printed(capsys, a, b)
    assert f"{b}: weights eeeeeeeeeeee, 512 px, bfloat16, leakage unknown, jax 0.11." in text


def test_leaky_results_are_marked(tmp_path, capsys):
    path = write(tmp_path / "a.json", results(entry(leakage={"status": "leaky", "trained_on": 33})))
    text = printed(capsys, path)
    cell = table(text)[f"runs/a ({path})"]["refcoco:val oIoU"]
    assert cell.startswith("60.00 (59.00–61.00)[^")
    assert "trained on (trained_on: 33)" in footnotes(text)["[^" + cell.split("[^")[1]]


def test_parts_of_a_split_are_compared_among_themselves_without_the_paper(tmp_path, capsys):
    few = {"complete": False, "images": 100, "phrases": 700}
    paths = [write(tmp_path / f"{name}.json", results(entry(**few), checkpoint=name)) for name in "ab"]
    text = printed(capsys, *paths)
    assert "(Table 2)[^" not in text
    assert "the paper's rows (Table 2) are left out: 100 pictures are not the whole split" in text
    assert len(table(text)) == 2


def test_first_sentences_are_shown_where_asked_for_or_where_there_is_nothing_else(tmp_path, capsys):
    both = write(tmp_path / "both.json", results(entry(), entry({"oiou": 0.4}, sentences="first", phrases=3811)))
    first = write(tmp_path / "first.json", results(entry({"oiou": 0.4}, sentences="first", phrases=3811)))
    assert "first sentences" not in printed(capsys, both)
    assert "refcoco:val oIoU, mask, first sentences" in printed(capsys, both, "--metrics=all")
    assert "theirs are over all sentences" in printed(capsys, first)
    rows = table(printed(capsys, both, first))
    assert len(rows[f"runs/a ({first})"]) == 4, "oIoU of all and of first sentences, mIoU of all"


def test_metrics_can_be_chosen(one, capsys):
    assert set(table(printed(capsys, one, "--metrics=pr_at_50,oiou"))[f"runs/a ({one})"]) == {
        "model",
        "refcoco:val P@0.5",
        "refcoco:val oIoU",
    }
    assert "P@0.9" in printed(capsys, one, "--metrics", "all")
    assert "refcoco:val count" not in printed(capsys, one, "--metrics", "all"), "it is no score"
    assert "no metric 'iou' in these files; there are: count, miou, oiou" in refused(capsys, one, "--metrics=iou")


def test_bars_in_names_do_not_break_the_table(tmp_path, capsys):
    path = write(tmp_path / "a.json", results(entry(), checkpoint="runs/a|b\nc"))
    assert f"runs/a¦b c ({path})" in table(printed(capsys, path))


def test_the_output_file_holds_what_is_printed(one, tmp_path, capsys):
    text = printed(capsys, one, "--output", tmp_path / "new" / "table.md")
    assert (tmp_path / "new" / "table.md").read_text(encoding="utf-8") == text
    assert "is a folder, a file is wanted" in refused(capsys, one, "--output", tmp_path)


# ---- What is refused ---------------------------------------------------------------------------------------

UNLIKE = {
    "metric": "generalized referring",
    "prediction": "soft map",
    "sentences": "first",
    "protocol": "released",
    "resize": "letterbox",
    "threshold": 0.35,
    "scored_at": "480x480",
    "vocabulary": 150,
    "complete": False,
    "images": 1499,
    "phrases": 10833,
    "setting": "open vocabulary",
    "presence_fitted_on": "grefcoco:train",
}


def test_every_field_that_matters_is_tried_here():
    assert set(UNLIKE) == {field.name for field in COMPARABLE} - {"benchmark", "split", "data"}
    assert all(field.reason and field.advice for field in COMPARABLE)
    text = (Path(__file__).resolve().parents[1] / "docs" / "evaluation.md").read_text()
    table = text.partition("### What shares a column")[2].partition("###")[0]
    assert not [field.name for field in COMPARABLE if f"`{field.name}`" not in table]


@pytest.mark.parametrize("field", UNLIKE)
def test_unlike_numbers_are_refused_naming_column_field_values_and_files(one, tmp_path, capsys, field):
    other = write(tmp_path / "b.json", results(entry(**{field: UNLIKE[field]})))
    line = refused(capsys, one, other, "--output", tmp_path / "table.md")
    old = json.loads((tmp_path / "a.json").read_text())["numbers"][0]["passport"].get(field)
    assert (
        f"refcoco:val oiou: {field} is {json.dumps(old)} in {one!r} and {json.dumps(UNLIKE[field])} in {other!r}"
        in line
    )
    assert next(each.advice for each in COMPARABLE if each.name == field) in line
    assert not (tmp_path / "table.md").exists()


def test_a_file_of_another_protocol_alone_needs_the_flag(tmp_path, capsys):
    path = write(tmp_path / "a.json", results(entry(**RELEASED)))
    line = refused(capsys, path)
    assert "refcoco:val has no number of protocol paper in" in line
    assert "compare --protocol released" in line
    other = write(tmp_path / "b.json", results(salient()))
    assert "refcoco:val has no number of protocol paper in" in refused(capsys, other, path), "it must not drop out"


def test_parts_of_different_preparations_are_refused_whole_splits_are_not(tmp_path, capsys):
    def pair(**more):
        return [
            write(tmp_path / f"{data}.json", results(entry(data=data, **more), checkpoint=data))
            for data in ("a1", "b2")
        ]

    line = refused(capsys, *pair(complete=False, images=100))
    assert 'refcoco:val oiou: data is "a1" in' in line
    assert len(table(printed(capsys, *pair()))) > 2


def test_two_results_of_one_model_in_a_folder_are_refused(tmp_path, capsys):
    paths = [write(tmp_path / name / "results.json", results()) for name in "ab"]
    line = refused(capsys, tmp_path)
    assert "two numbers of refcoco:val by one model" in line
    assert all(repr(path) in line for path in paths)
    twice = write(tmp_path / "twice.json", results(entry(), entry()))
    assert "two numbers of refcoco:val" in refused(capsys, twice)


def test_a_file_may_be_named_twice(one, capsys):
    assert printed(capsys, one, one) == printed(capsys, one)


def spoilt(**changes):
    content = results()
    content.update(changes)
    return content


def without(*path):
    content = results()
    *parents, last = path
    place = content
    for key in parents:
        place = place[key]
    del place[last]
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "has [] as its whole, an object is wanted"),
        (without("schema_version"), "has schema_version None, 1 is read here"),
        (spoilt(schema_version=2), "has schema_version 2, 1 is read here"),
        (spoilt(schema_version=True), "has schema_version True"),
        (without("numbers"), "lacks numbers"),
        (spoilt(numbers=[]), "has no numbers"),
        (spoilt(numbers=[3]), "has 3 at numbers[0], an object is wanted"),
        (spoilt(checkpoint=None), "has None at checkpoint, text is wanted"),
        (spoilt(benchmark="refcoco+"), "is of benchmark 'refcoco+', but numbers[0].passport of 'refcoco'"),
        (without("numbers", 0, "passport", "threshold"), "lacks numbers[0].passport.threshold"),
        (results(entry(threshold="half")), "'half' at numbers[0].passport.threshold, a number or null is wanted"),
        (results(entry(images=True)), "True at numbers[0].passport.images, a whole number is wanted"),
        (results(entry(complete=1)), "1 at numbers[0].passport.complete, true or false is wanted"),
        (results(entry(leakage={})), "lacks numbers[0].passport.leakage.status"),
        (results(entry({"oiou": 0.5}, headline="giou")), "lacks numbers[0].metrics.giou"),
        (results(entry({"oiou": "0.5"})), "'0.5' at numbers[0].metrics.oiou"),
        (spoilt(numbers=[entry() | {"intervals": {"oiou": [1]}}]), "[1] at numbers[0].intervals.oiou, two numbers"),
    ],
)
def test_files_that_are_laid_out_otherwise_cost_one_line(tmp_path, capsys, content, said):
    path = write(tmp_path / "a.json", content)
    line = refused(capsys, path)
    assert repr(path) in line
    assert said in line
    assert "name one that evaluate wrote, or evaluate again" in line


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000], ids=["empty", "cut", "bytes", "deep"])
def test_files_that_are_no_json_cost_one_line(tmp_path, capsys, content):
    (tmp_path / "a.json").write_bytes(content)
    assert "a.json' is no JSON" in refused(capsys, tmp_path / "a.json")


def test_undefined_numbers_are_shown_as_such(tmp_path, capsys):
    number = entry({"oiou": float("nan"), "miou": 0.5}) | {"intervals": {"oiou": [None, None], "miou": None}}
    path = write(tmp_path / "a.json", results(number))
    row = table(printed(capsys, path))[f"runs/a ({path})"]
    assert (row["refcoco:val oIoU"], row["refcoco:val mIoU"]) == ("–", "50.00")


def test_a_folder_that_may_not_be_looked_into_is_named(one, tmp_path, capsys, monkeypatch):
    write(tmp_path / "all" / "a" / "results.json", results())
    locked, scandir = tmp_path / "all" / "b", os.scandir
    locked.mkdir()

    def refusing(path):
        if os.fspath(path) == str(locked):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    said = f"cannot look into the folder {str(locked)!r}: Permission denied; allow the access or name another path"
    for folder in (locked, locked.parent):
        assert said in refused(capsys, folder)


def test_the_output_is_none_of_the_files_that_are_read(one, tmp_path, capsys):
    folder = tmp_path / "all"
    nested = write(folder / "a" / "results.json", results())
    (tmp_path / "link.md").symlink_to(one)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    for named, output in ((one, one), (one, tmp_path / "link.md"), (folder, nested)):
        assert "is one of the files that are compared; name another one" in refused(capsys, named, "--output", output)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before
    (tmp_path / "table.md").write_text("an older table")
    assert printed(capsys, one, "--output", tmp_path / "table.md") == (tmp_path / "table.md").read_text("utf-8")


def test_bad_arguments_cost_one_line(one, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((), "required: A.json"),
        ((tmp_path / "absent.json",), "no such results file"),
        ((tmp_path / "empty",), "no results.json in or below"),
        ((one, "--protocol=lavt"), "invalid choice: 'lavt'"),
        ((one, "--metrics=oiou,"), "is not a list of names"),
        ((one, "--metric=oiou"), "is --metrics meant?"),
        ((one, "--output", f"{one}/x.md"), "is a file, a folder is wanted there"),
    ):
        assert said in refused(capsys, *arguments)


def test_the_command_needs_no_accelerator_library(one):
    code = f"import sys; from unilseg_jax.compare import main\nmain([{one!r}])\nprint('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nFalse\n")
