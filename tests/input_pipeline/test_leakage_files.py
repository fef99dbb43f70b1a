"""What a run writes about leakage: on which records it goes on, the pictures by name, what first weights bring."""

import json

import numpy as np
import pytest
from memory_records import MemoryRecords

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import leakage, leakage_files
from unilseg_jax.input_pipeline.index import Index


def index(coco_ids, fingerprints=None, samples=None):
    """An index; without fingerprints they say nothing."""
    count = len(coco_ids)
    return Index(
        np.ones(count, np.uint16) if samples is None else np.array(samples, np.uint16),
        np.array(coco_ids, np.int64),
        np.zeros(count, np.uint64) if fingerprints is None else np.array(fingerprints, np.uint64),
    )


TRAIN, VAL = index([1, 2, 3]), index([2])
SOURCES = {"stuff": MemoryRecords(1, [1, 1, 1])}


def write(directory, train=TRAIN, benchmarks=None, mode="drop", **options):
    verdict = leakage.check({"stuff": train}, benchmarks or {"val": VAL}, mode)
    return leakage_files.write(verdict, directory, SOURCES, **options)


OTHERS = {
    "another benchmark": {"benchmarks": {"val": index([3])}},
    "another mode": {"mode": "paper"},
    "other pictures": {"train": index([4, 2, 5])},
    "pictures that look different": {"train": index([1, 2, 3], [0, 1, 0])},
    "other phrases": {"train": index([1, 2, 3], samples=[1, 1, 2])},
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_run_goes_on_only_with_the_same_records(tmp_path, other):
    write(tmp_path)
    # A further benchmark that takes nothing away changes nothing.
    write(tmp_path, benchmarks={"val": VAL, "test": index([7])}, goes_on=True)
    with pytest.raises(UserError, match="other training records"):
        write(tmp_path, **OTHERS[other], goes_on=True)


def test_a_damaged_file_of_a_run_is_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / "leakage.json"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="damaged"):
        write(tmp_path, goes_on=True)


def test_a_run_without_a_checkpoint_may_begin_with_other_records(tmp_path):
    write(tmp_path)
    write(tmp_path, mode="paper", benchmarks={"val": index([7])})
    assert json.loads((tmp_path / "leakage.json").read_text())["mode"] == "paper"
    assert not (tmp_path / "leakage.jsonl").exists(), "no picture is in a benchmark any more"
    write(tmp_path, mode="paper", benchmarks={"val": index([7])}, goes_on=True)


def test_each_picture_in_a_benchmark_is_named(tmp_path, monkeypatch):
    half, other = 0xFFFFFFFF, 0xFFFFFFFF << 32
    train = index([1, 2, -1], [other, half, half])
    write(tmp_path, train, {"val": index([2, -1], [0, half ^ 1]), "test": index([1])}, mode="paper")

    def lines():
        return [json.loads(line) for line in (tmp_path / "leakage.jsonl").read_text().splitlines()]

    keys = ("source", "record", "image_id", "coco_id", "benchmark", "by")
    assert [tuple(line[key] for key in keys) for line in lines()] == [
        ("stuff", 1, "1", 2, "val", "id"),
        ("stuff", 2, "2", -1, "val", "looks"),
        ("stuff", 0, "0", 1, "test", "id"),
    ]
    monkeypatch.setattr(leakage_files, "MOST_READ", 2)
    write(tmp_path, train, {"val": index([2, -1], [0, half ^ 1]), "test": index([1])}, mode="paper")
    assert [line["image_id"] for line in lines()] == ["1", "2", None]


def test_only_pictures_in_a_benchmark_are_read(tmp_path):
    source = MemoryRecords(1, [1, 1, 1])
    verdict = leakage.check({"stuff": TRAIN}, {"val": VAL, "again": VAL})
    leakage_files.write(verdict, tmp_path, {"stuff": source})
    assert source.reads == 1


# ---- First weights -------------------------------------------------------------------------------------


def test_weights_of_a_run_that_kept_what_leaks_hand_it_down(tmp_path):
    runs = [tmp_path / name for name in ("first", "second", "third")]
    for run in runs:
        run.mkdir()
    assert write(runs[0], mode="paper").inherited is None
    init = leakage_files.of_first_weights(str(runs[0]))
    assert init == {"model": str(runs[0]), "leakage": "paper", "trained_on": 1, "overlaps": {"stuff": {"val": 1}}}
    assert write(runs[1], init=init).inherited == 1
    init = leakage_files.of_first_weights(str(runs[1]))
    assert (init["leakage"], init["trained_on"]) == ("paper", 1)
    assert write(runs[2], mode="paper", init=init).inherited == 1
    assert leakage_files.of_first_weights(str(runs[2]))["trained_on"] == 2


def test_a_run_that_goes_on_keeps_what_it_was_started_with(tmp_path):
    init = {"model": "gone", "leakage": "paper", "trained_on": 4, "overlaps": {}}
    write(tmp_path, init=init)
    assert write(tmp_path, goes_on=True).inherited == 4
    assert json.loads((tmp_path / "leakage.json").read_text())["init"] == init


def test_clean_and_unknown_weights_mark_nothing(tmp_path):
    clean = tmp_path / "clean"
    clean.mkdir()
    write(clean)
    (tmp_path / "released.pth").touch()
    for model, said in {clean: "drop", tmp_path / "released.pth": "unknown", tmp_path: "unknown"}.items():
        run = tmp_path / f"run_{model.name}"
        run.mkdir()
        init = leakage_files.of_first_weights(str(model))
        assert write(run, init=init).inherited is None
        assert json.loads((run / "leakage.json").read_text())["init"]["leakage"] == said
        assert leakage_files.of_first_weights(str(run))["leakage"] == said
    assert leakage_files.of_first_weights("") is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"mode": "off", "in_any": {}, "overlaps": {}}'])
def test_a_damaged_file_of_the_first_weights_is_one_clear_line(tmp_path, text):
    (tmp_path / "leakage.json").write_text(text)
    with pytest.raises(UserError, match=r"leakage\.json' is damaged"):
        leakage_files.of_first_weights(str(tmp_path))
