"""The command `evaluate` on stand-ins of every benchmark: what it writes and refuses, and what it does only once."""

import contextlib
import csv
import functools
import inspect
import io
import json
import os
import re
import signal
from unittest import mock

import jax
import numpy as np
import pytest
from evaluate_stand_ins import LEFT_OUT, SPLITS, numbers_of, prepare_all, results_of, save_tiny
from PIL import Image

from unilseg_jax import compare, evaluate
from unilseg_jax.errors import UserError, run_command
from unilseg_jax.evaluation import passport, predictor, runner, submission, works
from unilseg_jax.evaluation.benchmarks import BENCHMARKS
from unilseg_jax.evaluation.judges import JUDGES
from unilseg_jax.evaluation.judges.referring import ReferringJudge
from unilseg_jax.evaluation.label_map import LabelMap
from unilseg_jax.evaluation.predictor import Predictor
from unilseg_jax.evaluation.presence import PresenceModel
from unilseg_jax.evaluation.protocols import PROTOCOLS
from unilseg_jax.evaluation.results_files import read_results
from unilseg_jax.evaluation.submission import Wanted
from unilseg_jax.input_pipeline.sources import TripletSource, open_source
from unilseg_jax.input_pipeline.visits import text_of


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Compiles quickly and once, draws few resamples and few examples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passport, "RESAMPLES", 5)
        patch.setattr(passport, "CURVES_RESAMPLES", 2)
        patch.setattr(runner, "EXAMPLES", 1)
        patch.setattr(predictor, "_BUCKETS", {"cpu": (8,)})
        patch.setattr(predictor, "LabelMap", functools.partial(LabelMap, tile=64))
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Arguments that name the model and the data."""
    folder = tmp_path_factory.mktemp("place")
    return ["--checkpoint", save_tiny(folder), "--data", prepare_all(folder)]


def run(place, benchmark, output, *more):
    """Runs the command and returns stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    named = [part for name in benchmark.split() for part in ("--benchmark", name)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        evaluate.main([*place, *named, "--output", str(output), *map(str, more)])
    return out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def everything(place, tmp_path_factory):
    """(output folder, stdout, stderr) of all benchmarks."""
    output = tmp_path_factory.mktemp("everything") / "new"
    return output, *run(place, "all", output)


@pytest.fixture
def judged(monkeypatch):
    """Which units were judged, as (judge's class, unit); `before` is called with each."""

    class Judged(list):
        before = staticmethod(lambda unit: None)

    found = Judged()
    for judge in set(JUDGES.values()):

        def counted(self, unit, whole=judge.judge):
            found.before(unit)
            found.append((type(self).__name__, unit))
            return whole(self, unit)

        if "judge" in vars(judge):
            monkeypatch.setattr(judge, "judge", counted)
    return found


def test_every_benchmark_has_results_and_a_report(everything):
    output, out, err = everything
    assert {path.name for path in output.iterdir()} == {f"{name}-{split}" for name, split in SPLITS}
    for name, split in SPLITS:
        folder = output / f"{name}-{split}"
        files = {path.name for path in folder.iterdir()}
        task = BENCHMARKS[name].task
        wanted = {"results.json", "report.html", "samples.csv"}
        wanted |= {"curves.png"} if task == "salient" else set()
        wanted |= {f"submission-{one}.zip" for one in PROTOCOLS} if task == "video" else set()
        views = {"best.gif", "median.gif", "worst.gif"} if task.startswith("video") else set()
        wanted |= set() if name.endswith("_submission") else views
        assert files == wanted
        assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
        assert name.endswith("_submission") or f"{name}:{split}" in out
    for name in LEFT_OUT:
        assert f"left out: {name}:" in err
    assert str(output) in out


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_every_sample_has_a_line_with_its_score(everything, name, split):
    folder = everything[0] / f"{name}-{split}"
    with (folder / "samples.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert all(set(line) == {"image", "phrase", "kind", "score"} for line in lines)
    if name.endswith("_submission"):
        assert lines == []
        return
    scores = np.array([float(line["score"]) for line in lines])
    assert (scores >= 0).all()
    assert (scores <= 1).all()
    first = read_results(folder / "results.json").numbers[0]
    means = {"referring": "miou", "generalized": "giou", "video": "j_and_f", "video_objects": "j_and_f"}
    if BENCHMARKS[name].task in means:
        assert scores.mean() == pytest.approx(first.metrics[means[BENCHMARKS[name].task]])
    else:
        assert len(lines) == first.passport["images"]


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_results_hold_both_protocols_with_their_passports(everything, name, split):
    results = read_results(everything[0] / f"{name}-{split}" / "results.json")
    if name.endswith("_submission"):
        assert results.numbers == ()
        return
    assert results.task == BENCHMARKS[name].task
    for protocol in PROTOCOLS.values():
        numbers = [one for one in results.numbers if one.passport["protocol"] == protocol.name]
        assert numbers
        for number in numbers:
            assert number.metrics[number.headline] is not None
            assert number.passport["resize"] == protocol.resize
            assert number.passport["threshold"] in (None, protocol.threshold)
            assert number.passport["leakage"]["status"] == "unknown"
            assert number.passport["versions"] == passport.versions()
            # A stand-in is no benchmark; of PartImageNet's splits no sizes are published to tell it by.
            assert number.passport["complete"] is (name == "partimagenet")
            assert number.passport["data"]
            if results.task.startswith("video"):
                assert number.intervals == {}, "there is one video"
            else:
                low, high = number.intervals[number.headline]
                assert 0 <= low <= high <= 1
    first = results.numbers[0].passport
    assert first["images"] == 2, "videos, too, have two frames in all"
    vocabulary = {"ade20k": 150, "pascal_context59": 59, "partimagenet": 40}
    assert first["vocabulary"] == vocabulary.get(name)
    assert (first["phrases"] is None) == (BENCHMARKS[name].task in ("semantic", "parts", "salient"))


@pytest.mark.parametrize("name", ["ref_youtube_vos", "ref_youtube_vos_submission"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_submissions_are_what_the_server_wants(everything, place, name, protocol):
    source = open_source(BENCHMARKS[name].dataset, data_dir=place[-1], split="valid")
    wanted = {}
    for number in range(len(source)):
        record = source.record(number)
        ids = tuple(text_of(one) for one in record["phrase_ids"])
        before = wanted.get(text_of(record["video"]), Wanted(ids, (), (record["height"], record["width"])))
        wanted[text_of(record["video"])] = before._replace(frames=(*before.frames, text_of(record["frame"])))
    submission.check(everything[0] / f"{name}-valid" / f"submission-{protocol}.zip", wanted)


def test_videos_are_shown_frame_by_frame(everything):
    with Image.open(everything[0] / "ref_davis17-val" / "best.gif") as view:
        assert view.n_frames == numbers_of(everything[0], "ref_davis17-val")[0]["passport"]["images"]


def test_finished_work_is_not_done_again(everything, place, monkeypatch):
    output, out, _ = everything
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in output.rglob("*") if path.is_file()}
    monkeypatch.setattr(Predictor, "encode", lambda *_: pytest.fail("the model was asked"))
    again, err = run(place, "all", output)
    assert again == out
    assert err.count("is there already") == len(SPLITS)
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in output.rglob("*") if path.is_file()}
    assert after == before


def test_compare_reads_all_that_was_written(everything, capsys):
    compare.main([str(everything[0])])
    text = capsys.readouterr().out
    for name, split in SPLITS:
        assert name.endswith("_submission") or f"{name}:{split}" in text


def test_the_first_pictures_alone_are_not_the_whole_split(place, tmp_path, monkeypatch, judged):
    monkeypatch.setattr(works, "_is_whole", lambda source, split, pictures=(): True)
    run(place, "refcoco:val", tmp_path / "whole")
    run(place, "refcoco:val ref_davis17", tmp_path / "part", "--max-images", 1)
    assert judged == [("ReferringJudge", 0), ("ReferringJudge", 1), ("ReferringJudge", 0), ("VideoObjectsJudge", 0)]
    whole, part = (numbers_of(tmp_path / name, "refcoco-val") for name in ("whole", "part"))
    assert {entry["passport"]["complete"] for entry in whole} == {True}
    assert {entry["passport"]["complete"] for entry in part} == {False}
    assert [entry["passport"]["images"] for entry in part] == [1] * len(part)


def test_a_part_does_not_replace_results_of_more(place, tmp_path, judged):
    run(place, "sod", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    judged.clear()
    said = f"{str(tmp_path / 'sod-test')!r} holds results of 2 pictures, which those of the first 1 alone would replace"
    with pytest.raises(UserError, match=f"^{re.escape(said)}; name another --output$"):
        run(place, "refcoco:val sod", tmp_path, "--max-images", 1)
    assert judged == []
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_results_of_a_part_may_be_replaced(place, tmp_path):
    run(place, "sod", tmp_path, "--max-images", 1)
    run(place, "sod", tmp_path, "--max-images", 1, "--protocol=paper")
    run(place, "sod", tmp_path)
    assert {entry["passport"]["images"] for entry in numbers_of(tmp_path, "sod-test")} == {2}


def test_a_part_does_not_replace_a_whole_submission(tmp_path):
    """Nothing is scored there, so its results hold no numbers to tell it by."""
    work = mock.Mock(spec=runner.Work, judge=[0, 1], units=1, folder=tmp_path, fingerprint="new")
    work.facts = mock.Mock(images=2)
    (tmp_path / "results.json").write_text(json.dumps({"work": "old", "numbers": []}))
    (tmp_path / "submission-paper-part.zip").touch()
    runner.refuse_to_replace_more(work)
    (tmp_path / "submission-paper.zip").touch()
    with pytest.raises(UserError, match="holds results of the whole split"):
        runner.refuse_to_replace_more(work)


def test_other_settings_and_weights_are_other_work(place, tmp_path, judged):
    run(place, "sod", tmp_path, "--protocol", "paper")
    assert {entry["passport"]["protocol"] for entry in numbers_of(tmp_path, "sod-test")} == {"paper"}
    run(place, "sod", tmp_path)
    assert len(judged) == 4
    assert {entry["passport"]["protocol"] for entry in numbers_of(tmp_path, "sod-test")} == set(PROTOCOLS)
    run(place, "sod", tmp_path)
    assert len(judged) == 4


def test_an_interrupt_keeps_what_is_finished(place, tmp_path, judged, everything, capsys):
    def interrupt(unit):
        if unit == 1:
            raise KeyboardInterrupt

    judged.before = interrupt
    arguments = [*place, "--benchmark", "refcoco:val", "--output", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        run_command(evaluate.main, arguments)
    assert stop.value.code == 130
    assert not (tmp_path / "refcoco-val" / "results.json").exists()
    judged.before = lambda unit: None
    run(place, "refcoco:val", tmp_path)
    assert judged == [("ReferringJudge", 0), ("ReferringJudge", 1)]
    assert results_of(tmp_path)["refcoco-val"] == results_of(everything[0])["refcoco-val"]
    assert [path.name for path in (tmp_path / "refcoco-val").glob("work*")] == []


def test_sigterm_ends_the_work_with_one_line_and_it_goes_on(place, tmp_path, judged, everything, capsys):
    judged.before = lambda unit: os.kill(os.getpid(), signal.SIGTERM)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        run_command(evaluate.main, [*place, "--benchmark", "ade20k", "--output", str(tmp_path)])
    assert stop.value.code == 75
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stopped: ")]
    assert line.endswith("the same command goes on")
    assert signal.getsignal(signal.SIGTERM) is before
    judged.before = lambda unit: None
    run(place, "ade20k", tmp_path)
    assert judged == [("SemanticJudge", 0), ("SemanticJudge", 1)]
    assert results_of(tmp_path)["ade20k-val"] == results_of(everything[0])["ade20k-val"]


def test_a_file_that_cannot_be_written_leaves_the_work_to_be_gone_on_with(place, tmp_path, judged, monkeypatch):
    def full(*_):
        raise UserError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(runner.html_report, "write_report", full)
        with pytest.raises(UserError, match="no room"):
            run(place, "sod", tmp_path)
    assert not (tmp_path / "sod-test" / "results.json").exists()
    assert len(judged) == 2
    run(place, "sod", tmp_path)
    assert len(judged) == 2


@pytest.fixture(scope="module")
def fitted(place, tmp_path_factory):
    """(file, stdout) of a presence score that was fitted on gRefCOCO's training pictures."""
    folder = tmp_path_factory.mktemp("fitted")
    path = folder / "scores" / "presence.json"
    run(place, "grefcoco:train", folder / "out")
    path.parent.mkdir()
    out, _ = run(place, "grefcoco:train", folder / "out", "--fit-presence", path)
    return path, out


def test_a_presence_score_is_fitted_and_reported_beside_the_rule(fitted, place, tmp_path):
    path, out = fitted
    assert f"fitted on grefcoco:train: {path}" in out
    assert re.search(r"paper: there, [\d.]+% of \d+ told right; nothing there, [\d.]+% of \d+ \(on the split", out)
    assert PresenceModel.load(path).coefficients.keys() == PROTOCOLS.keys()
    run(place, "grefcoco:val", tmp_path, "--presence", path)
    entries = numbers_of(tmp_path, "grefcoco-val")
    assert [entry["passport"]["prediction"] for entry in entries[::2]] == [
        "mask, empty under 50 px",
        "mask",
        "mask, presence score",
    ]
    assert entries[0]["passport"]["presence_fitted_on"] == "grefcoco:train"


def test_the_score_does_not_judge_what_it_was_fitted_on(fitted, place, tmp_path):
    with pytest.raises(UserError, match="was fitted on grefcoco:train itself"):
        run(place, "grefcoco:train", tmp_path, "--presence", fitted[0])
    alone = json.loads(fitted[0].read_text())
    alone["coefficients"].pop("released")
    (tmp_path / "paper.json").write_text(json.dumps(alone))
    with pytest.raises(UserError, match="fitted for the protocol paper, not for released"):
        run(place, "grefcoco:val", tmp_path, "--presence", tmp_path / "paper.json")


def names_of(requests):
    return [(one.benchmark.name if one.benchmark else "run", one.split) for one in requests]


def test_what_is_asked_for_twice_is_done_once():
    asked = evaluate._requests(["refcocog:test", "refcocog", "run:a", "sod:test", "sod"])
    assert names_of(asked) == [("refcocog", "test"), ("refcocog", "val"), ("run", "a"), ("sod", "test")]
    assert names_of(evaluate._requests(["run:a", "run"])) == [("run", "")]
    with pytest.raises(UserError, match="no benchmark 'run:'"):
        evaluate._requests(["run:"])


def test_beside_all_what_was_named_must_be_there():
    by_name = {names_of([one])[0]: one.by_name for one in evaluate._requests(["all", "davis"])}
    assert by_name["davis", "val"]
    assert not by_name["refcocos", "test"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--benchmark": "refcocp"}, "no benchmark 'refcocp'; wanted is NAME or NAME:SPLIT"),
        ({"--benchmark": "refcoco:"}, "no benchmark 'refcoco:'"),
        ({"--benchmark": "refcoco:tset"}, "'refcoco/refcoco' has no split 'tset'; it has"),
        ({"--benchmark": "davis"}, "davis"),
        ({"--benchmark": "run"}, "wants the directory of a training run"),
        ({"--data": "{tmp}/nowhere"}, "nowhere"),
        ({"--data": "{tmp}/empty", "--benchmark": "all"}, "no benchmark is prepared in"),
        ({"--data": "{tmp}/nowhere"}, "is no folder; name what prepare was given as --out"),
        ({"--presence": "{tmp}/none.json"}, "no such presence file"),
        ({"--checkpoint": "absent"}, "no such checkpoint: 'absent'"),
        ({"--checkpoint": "{tmp}/file"}, "file"),
        ({"--checkpoint": "{tmp}/empty"}, "empty"),
        ({"--output": "{tmp}/file"}, "is a file, a folder is wanted"),
        ({"--output": "{tmp}/file/below"}, "is a file, a folder is wanted"),
        ({"--output": ""}, "--output: the path is empty"),
        ({"--protocol": "mine"}, "mine"),
        ({"--max-images": "0"}, "'0' is not a whole number of at least 1"),
        ({"--input-size": "7"}, "input_size"),
        ({"--timeout": "nan"}, "'nan' is not a number of seconds above 0"),
        ({"--presence": "{tmp}/absent.json"}, "no such presence file"),
        ({"--presence": "{tmp}/file"}, "is no presence file"),
        ({"--presence": "{tmp}/other.json"}, "was fitted for other weights; fit it again with --fit-presence"),
        ({"--benchmark": "grefcoco", "--fit-presence": "{tmp}/new.json"}, "wants one split of grefcoco"),
        ({"--benchmark": "sod", "--fit-presence": "{tmp}/new.json"}, "wants one split of grefcoco"),
        ({"--benchmark": "run", "--fit-presence": "{tmp}/new.json"}, "wants one split of grefcoco"),
        ({"--benchmark": "grefcoco:val", "--fit-presence": "{tmp}/file/new.json"}, "is a file, a folder is wanted"),
        ({"--fit-presence": "{tmp}/file"}, "file' is there and is no presence file; name a new one"),
        ({"--benchmark": "refcoco:val", "--presence": "{tmp}/other.json"}, "--presence is read for grefcoco alone"),
        ({"--benchmark": "run", "--presence": "{tmp}/other.json"}, "--presence is read for grefcoco alone"),
        ({"--num-processes": "2"}, "--num-processes and --process-id need --coordinator"),
        ({"--coordinator": "here"}, "--coordinator = 'here' must be host:port"),
        ({"--process-id": "x"}, "--process-id"),
        ({"--benchmarks": "all"}, "is --benchmark meant?"),
    ],
)
def test_a_mistake_costs_one_line_and_exit_code_2(place, tmp_path, capsys, change, message):
    (tmp_path / "file").write_text("no model, no score")
    (tmp_path / "empty").mkdir()
    row = np.zeros(5)
    PresenceModel(coefficients={"paper": row, "released": row}, fitted_on="a:b", weights_sha256="0" * 64).save(
        tmp_path / "other.json"
    )
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    given = {place[0]: place[1], place[2]: place[3], "--benchmark": "grefcoco:val", "--output": "{tmp}/out", **change}
    arguments = [part.replace("{tmp}", str(tmp_path)) for pair in given.items() for part in pair]
    with pytest.raises(SystemExit) as caught:
        run_command(evaluate.main, arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_what_is_missing_is_known_before_anything_is_judged(place, tmp_path, judged):
    with pytest.raises(UserError, match="davis"):
        run(place, "refcoco:val davis", tmp_path / "out")
    assert judged == []
    assert not (tmp_path / "out").exists()


def test_a_judge_of_the_command_is_a_judge_of_the_task():
    assert JUDGES["referring"] is ReferringJudge
    assert {one.task for one in BENCHMARKS.values()} <= JUDGES.keys()


def test_other_phrases_or_masks_are_other_data(place):
    source = open_source("refcoco/refcocog", data_dir=place[-1], split="val")
    judge = mock.Mock(source=source)
    data_identity = inspect.unwrap(runner.data_identity)
    known = data_identity(judge)
    runner._hash_of_records.cache_clear()
    assert data_identity(judge) == known
    read = TripletSource.record
    for field in ("phrases", "masks", "image"):

        def changed(self, index, field=field):
            record = dict(read(self, index))
            whole = record[field]
            record[field] = whole + b" " if field == "image" else [*whole[:-1], bytes(whole[-1]) + b"1"]
            return record

        runner._hash_of_records.cache_clear()
        with mock.patch.object(TripletSource, "record", changed):
            assert data_identity(judge) != known, field
    runner._hash_of_records.cache_clear()


def test_files_of_another_work_do_not_stay(place, tmp_path):
    run(place, "ref_youtube_vos", tmp_path)
    folder = tmp_path / "ref_youtube_vos-valid"
    assert (folder / "submission-released.zip").exists()
    run(place, "ref_youtube_vos", tmp_path, "--protocol=paper")
    assert {path.name for path in folder.glob("submission-*")} == {"submission-paper.zip"}
