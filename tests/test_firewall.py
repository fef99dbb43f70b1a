"""The leakage firewall in a run: what is trained on, and what its numbers carry."""

import json

import numpy as np
import pytest
import tiny_run
from no_learning import no_learning_in

from unilseg_jax import prepare, train
from unilseg_jax.config import dataset_source, evaluation, parse_flags, training_source
from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.loader import make_source
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.training import start

CONFIGS = ("refcocog", "refcocog_google")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Stand-ins: the pictures of Google's val are UMD's train, three of them; UMD's val has pictures of its own."""
    folder = tmp_path_factory.mktemp("refcoco")
    configs = [f"--config={name}" for name in CONFIGS]
    prepare.main(["refcoco", "--synthetic=3", "--raw", str(folder / "raw"), "--out", str(folder / "out"), *configs])
    return folder / "out"


@pytest.fixture(scope="module")
def every_set(tmp_path_factory):
    """Stand-ins of RefCOCO, RefCOCO+ and RefCOCOg."""
    folder = tmp_path_factory.mktemp("refcocos")
    configs = [f"--config={name}" for name in ("refcoco", "refcoco+", "refcocog")]
    prepare.main(["refcoco", "--synthetic=2", "--raw", str(folder / "raw"), "--out", str(folder / "out"), *configs])
    return folder / "out"


def config_of(prepared, *, benchmark, **changes):
    """Returns a config that trains on UMD's train and test split and evaluates on Google's or UMD's val."""
    more = {"steps": 1, "checkpoint_every": 1, "input__batch_size": 8, **changes}
    config, _ = parse_flags(tiny_run.flags("unused", **more))

    def source(name, split):
        return dataset_source(f"refcoco/{name}", data_dir=str(prepared), split=split)

    with config.unlocked():
        config.input.sources = {
            "umd": training_source(source("refcocog", "train")).to_dict(),
            "other": training_source(source("refcocog", "test")).to_dict(),
        }
        config.evals = {"val": evaluation(source(benchmark, "val"), batch_size=8).to_dict()}
    return config


def test_what_is_in_a_benchmark_is_not_trained_on(prepared):
    benchmark = open_source("refcoco/refcocog_google", data_dir=prepared, split="val")
    benchmark = benchmark.select(np.array([True, False, True]))
    seen = {benchmark.record(number)["coco_id"] for number in range(2)}
    parts, verdict, _ = start.parts_to_train_on(config_of(prepared, benchmark="refcocog"), {"val": benchmark})
    ids = {part.name: [int(part.source.record(i)["coco_id"]) for i in range(len(part.source))] for part in parts}
    assert {name: len(found) for name, found in ids.items()} == {"umd": 1, "other": 3}
    assert not seen & set(ids["umd"])
    assert verdict.mark("val") == {"leakage": "drop", "leakage_dropped": 2}


@pytest.mark.parametrize(
    ("choice", "splits"),
    [("cpu", "val testA testB"), ("cpu,refcoco+", "val testA testB"), ("cpu,refcocog", "val test")],
)
def test_finetuning_keeps_away_from_every_test_split_of_its_set(every_set, choice, splits):
    config, _ = parse_flags([f"--config={tiny_run.ROOT / 'configs' / 'finetune_refcoco.py'}:{choice}", "--workdir=w"])
    for entry in (config.input.sources.train, config.evals.val.source, *config.firewall.benchmarks.values()):
        entry.data_dir = str(every_set)
    val = make_source(config.evals.val.source)
    _, verdict, _ = start.parts_to_train_on(config, {"val": val})
    assert list(verdict.overlaps["train"]) == splits.split()


def test_a_source_of_which_nothing_is_left_ends_the_run_before_it_starts(prepared, tmp_path):
    with pytest.raises(UserError, match="every picture of the training source 'umd' is in a benchmark"):
        train.train(config_of(prepared, benchmark="refcocog_google"), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def no_learning(monkeypatch):
    """See `no_learning_in`."""
    no_learning_in(monkeypatch)


@pytest.mark.usefixtures("no_learning")
def test_a_run_that_keeps_them_is_marked_wherever_it_gives_a_number(prepared, tmp_path, capsys):
    config = config_of(prepared, benchmark="refcocog_google", firewall__mode="paper")
    summary = train.train(config, str(tmp_path))
    mark = {"leakage": "paper", "leakage_trained_on": 3}
    assert mark.items() <= summary.items()
    assert mark.items() <= summary["evals"]["val"].items()
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (scores,) = [line for line in lines if "val/oiou" in line]
    assert scores["val/leakage_trained_on"] == 3
    found = json.loads((tmp_path / "leakage.json").read_text())
    assert found["overlaps"] == {"umd": {"val": 3}, "other": {"val": 0}}
    assert "leakage=paper: 3 training pictures" in " ".join(capsys.readouterr().out.split())
    pictures = [json.loads(line) for line in (tmp_path / "leakage.jsonl").read_text().splitlines()]
    assert [(line["source"], line["benchmark"], line["by"]) for line in pictures] == [("umd", "val", "id")] * 3
    config.firewall.mode = "drop"
    config.evals.val.source.name = "refcoco/refcocog"
    (tmp_path / "checkpoints" / "1").mkdir()
    with pytest.raises(UserError, match="other training records"):
        train.train(config, str(tmp_path))


@pytest.mark.usefixtures("no_learning")
def test_weights_that_have_seen_a_benchmark_mark_the_numbers_of_the_next_run(prepared, tmp_path, monkeypatch, capsys):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    train.train(config_of(prepared, benchmark="refcocog_google", firewall__mode="paper"), str(first))
    monkeypatch.setattr("unilseg_jax.training.start.first_weights", lambda variables, *_, **__: (variables, {}, []))
    config = config_of(prepared, benchmark="refcocog", init__model=first)
    capsys.readouterr()
    summary = train.train(config, str(second))
    mark = {"leakage": "drop", "leakage_dropped": 0, "leakage_inherited": 3}
    assert mark.items() <= summary.items()
    assert mark.items() <= summary["evals"]["val"].items()
    assert "leakage inherited" in " ".join(capsys.readouterr().out.split())
    lines = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    assert [line["val/leakage_inherited"] for line in lines if "val/oiou" in line] == [3]
    found = json.loads((second / "leakage.json").read_text())["init"]
    assert (found["model"], found["leakage"], found["trained_on"]) == (str(first), "paper", 3)
    config.init.model = str(second)
    assert train.train(config, str(third))["leakage_inherited"] == 3


@pytest.mark.usefixtures("no_learning")
def test_a_run_that_failed_before_its_first_step_may_start_with_other_records(prepared, tmp_path):
    config = config_of(prepared, benchmark="refcocog", firewall__mode="paper")

    def fail(*_, **__):
        raise UserError("no space")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unilseg_jax.training.model_directory.write_carried", fail)
        with pytest.raises(UserError, match="no space"):
            train.train(config, str(tmp_path))
    assert json.loads((tmp_path / "leakage.json").read_text())["mode"] == "paper"
    config.firewall.mode = "drop"
    train.train(config, str(tmp_path))
    assert json.loads((tmp_path / "leakage.json").read_text())["mode"] == "drop"
