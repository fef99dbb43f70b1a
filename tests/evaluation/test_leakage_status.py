"""What a run's own files say about whether its weights have seen a benchmark's pictures."""

import json

import pytest
from denied_files import deny

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.leakage_status import leakage_status, vocabulary_setting

REFCOCO = {"name": "refcoco/refcoco", "split": "val"}
NO_INIT = {"model": "", "swin": "", "clip": ""}


def run(folder, *, trained=("coco/instances",), evals=None, benchmarks=None, init=NO_INIT, **found):
    """Writes what a run leaves; its evaluation `val` is of RefCOCO's."""
    sources = {f"source {number}": {"name": name} for number, name in enumerate(trained)}
    config = {
        "input": {"sources": sources},
        "evals": {"val": {"source": REFCOCO}} if evals is None else evals,
        "firewall": {"benchmarks": benchmarks or {}},
        "init": init,
    }
    found = {"mode": "drop", "init": None, "overlaps": {"source 0": {"val": 3}}, **found}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "leakage.json").write_text(json.dumps(found))
    return str(folder)


def status(checkpoint, dataset="refcoco/refcoco", split="val"):
    return leakage_status(checkpoint, dataset, split)


def test_a_run_that_left_them_out_is_clean(tmp_path):
    found = status(run(tmp_path))
    assert found == {"status": "clean", "reason": "its run looked for this split and left out 3 pictures"}


def test_a_run_that_kept_them_is_leaky(tmp_path):
    found = status(run(tmp_path, mode="paper"))
    assert found["status"] == "leaky"
    assert "trained on 3 pictures of this split" in found["reason"]


def test_a_run_that_kept_all_but_found_none_is_clean(tmp_path):
    assert status(run(tmp_path, mode="paper", overlaps={"source 0": {"val": 0}}))["status"] == "clean"


def test_pictures_of_all_sources_count(tmp_path):
    overlaps = {"source 0": {"val": 2, "other": 9}, "source 1": {"val": 5}}
    assert "left out 7 pictures" in status(run(tmp_path, overlaps=overlaps))["reason"]


@pytest.mark.parametrize(
    ("dataset", "split"), [("refcoco/refcoco", "testA"), ("refcoco/refcoco+", "val"), ("ade20k/ade20k", "val")]
)
def test_a_split_that_nobody_looked_for_is_unknown(tmp_path, dataset, split):
    found = status(run(tmp_path, mode="paper"), dataset, split)
    assert found["status"] == "unknown"
    assert "config.firewall.benchmarks" in found["reason"]


def test_what_the_firewall_alone_was_told_of_counts(tmp_path):
    benchmarks = {"ade": {"name": "ade20k", "split": "val"}}  # without its configuration
    checkpoint = run(tmp_path, benchmarks=benchmarks, overlaps={"source 0": {"val": 0, "ade": 4}}, mode="paper")
    assert status(checkpoint, "ade20k/ade20k")["status"] == "leaky"
    assert status(checkpoint)["status"] == "clean"


def test_scenes_alone_from_scratch_have_seen_no_picture(tmp_path):
    found = status(run(tmp_path, trained=("scenes",), evals={}, overlaps={}), "sod", "test")
    assert found == {"status": "clean", "reason": "trained from scratch on drawn scenes alone"}
    mixed = status(run(tmp_path, trained=("scenes", "coco/instances"), evals={}, overlaps={}), "sod", "test")
    assert mixed["status"] == "unknown"


def test_first_weights_make_it_unknown_or_leaky(tmp_path):
    before = {**NO_INIT, "model": "runs/before"}
    inherited = {"model": "runs/before", "leakage": "paper", "trained_on": 7}
    assert status(run(tmp_path, init=before))["status"] == "unknown"
    assert "runs/before" in status(run(tmp_path, init=before))["reason"]
    config = json.loads((tmp_path / "leakage.json").read_text())
    (tmp_path / "leakage.json").write_text(json.dumps({**config, "init": inherited}))
    assert status(str(tmp_path))["status"] == "leaky"


def test_weights_without_a_run_are_unknown(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    for checkpoint in (tmp_path, tmp_path / "weights.pth"):
        found = status(str(checkpoint))
        assert found == {"status": "unknown", "reason": "these weights do not say what they were trained on"}


@pytest.mark.parametrize("name", ["config.json", "leakage.json"])
def test_files_that_may_not_be_read_are_not_called_damaged(tmp_path, monkeypatch, name):
    run(tmp_path)
    deny(monkeypatch, name)
    with pytest.raises(UserError, match=rf"^cannot read .*{name}': Permission denied; allow the access or name"):
        status(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("leakage.json", b"\xff\xfe"),
        ("leakage.json", "{}"),
        ("leakage.json", '{"mode": "drop", "overlaps": [1]}'),
        ("config.json", "{}"),
        ("config.json", "[]"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, name, content):
    run(tmp_path)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match="damaged") as caught:
        status(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_benchmarks_of_the_run_were_looked_for(tmp_path):
    checkpoint = run(tmp_path, evals={}, overlaps={"source 0": {"grounds": 4}})
    config = json.loads((tmp_path / "config.json").read_text()) | {"benchmarks": {"grounds": {"name": "refcoco:val"}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert status(checkpoint) == {"status": "clean", "reason": "its run looked for this split and left out 4 pictures"}


@pytest.mark.parametrize(
    ("trained", "init", "wanted"),
    [
        (("ade20k", "coco/instances"), NO_INIT, "in vocabulary"),
        (("ade20k/ade20k",), {**NO_INIT, "model": "released.pth"}, "in vocabulary"),
        (("coco/instances",), NO_INIT, "open vocabulary"),
        (("coco/instances",), {**NO_INIT, "model": "released.pth"}, "unknown"),
        (("coco/instances",), {**NO_INIT, "swin": "swin.pth"}, "open vocabulary"),
    ],
)
def test_the_setting_is_what_was_trained_on(tmp_path, trained, init, wanted):
    assert vocabulary_setting(run(tmp_path, trained=trained, init=init), "ade20k/ade20k") == wanted


def test_the_setting_of_a_file_is_unknown(tmp_path):
    assert vocabulary_setting(str(tmp_path / "released.pth"), "ade20k/ade20k") == "unknown"


def test_a_split_that_was_trained_on_itself_is_leaky(tmp_path):
    checkpoint = run(tmp_path, evals={})
    config = json.loads((tmp_path / "config.json").read_text())
    config["input"]["sources"] = {"own": {"name": "salient/ecssd", "split": "test"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert status(checkpoint, "salient/ecssd", "test") == {"status": "leaky", "reason": "trained on this very split"}
    assert status(checkpoint, "salient/ecssd", "train")["status"] == "unknown"


def test_published_encoders_do_not_count(tmp_path):
    assert status(run(tmp_path, init={**NO_INIT, "swin": "swin.pth", "clip": "clip.pt"}))["status"] == "clean"


@pytest.mark.parametrize(("mode", "wanted"), [("drop", "clean"), ("paper", "leaky")])
def test_the_runs_before_count(tmp_path, mode, wanted):
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    before = run(tmp_path / "before", mode=mode)
    after = run(tmp_path / "after", init={**NO_INIT, "model": before})
    assert status(after)["status"] == wanted
    assert vocabulary_setting(after, "coco/instances") == "in vocabulary"
