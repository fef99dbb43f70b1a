"""What a run's directory may go on with."""

import json
import re
from pathlib import Path

import pytest

from unilseg_jax.config import base_config, dataset_source, training_source
from unilseg_jax.errors import UserError
from unilseg_jax.training import start


@pytest.fixture
def directory(tmp_path):
    """The directory of a run of `base_config()`."""
    (tmp_path / "config.json").write_text(base_config().to_json_best_effort())
    return tmp_path


def test_what_does_not_change_the_run_may_change(directory):
    config = base_config()
    config.log_every, config.input.threads, config.input.workers = 3, 5, 4
    config.xla_flags, config.compilation_cache, config.remat = "overlap", "cache", "full"
    assert start.check_directory(directory, config) == []


def test_data_may_lie_elsewhere(tmp_path):
    config = base_config()
    source = dataset_source("refcoco", data_dir=config.get_ref("data_dir"), split="train")
    config.input.sources.train = training_source(source)
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    config.data_dir = "/scratch/prepared"
    (note,) = start.check_directory(tmp_path, config)
    assert note.startswith("note: config.input.sources.train.data_dir was 'prepared' and is '/scratch/prepared': ")
    config.input.sources.train.split = "val"
    with pytest.raises(UserError, match=r"another config\.input"):
        start.check_directory(tmp_path, config)


def test_another_length_moves_the_schedule_and_is_told(directory):
    config = base_config()
    config.steps = 7
    (note,) = start.check_directory(directory, config)
    assert note == (
        "note: config.steps was 10000 and is 7: the learning rate's schedule is that of the new length from here on"
    )


def test_a_run_that_is_older_than_a_key_did_what_its_default_does(directory):
    before = json.loads((directory / "config.json").read_text())
    del before["optim"]["eps"], before["ema"]
    (directory / "config.json").write_text(json.dumps(before))
    config = base_config()
    assert start.check_directory(directory, config) == []
    config.optim.eps = 1e-6
    with pytest.raises(UserError, match=r"another config\.optim"):
        start.check_directory(directory, config)


@pytest.mark.parametrize("address", ["gs://bucket/run", "s3://bucket/run"])
def test_an_address_is_refused(address):
    with pytest.raises(UserError, match="is an address; mount it, and name the folder where it is mounted"):
        start.check_directory(Path(address), base_config())


def test_other_micro_batches_change_no_samples_and_are_told(directory):
    config = base_config()
    config.optim.accumulate = 4
    (note,) = start.check_directory(directory, config)
    assert "config.optim.accumulate was 1 and is 4: the samples stay the same, noise and" in note
    config.optim.clip_norm = 1.0
    with pytest.raises(UserError, match=r"another config\.optim"):
        start.check_directory(directory, config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("dtype", "bfloat16"),
        ("batch_norm", "frozen"),
        ("input.batch_size", 4),
        ("optim.clip_norm", 1.0),
        ("optim.eps", 1e-6),
        ("optim.decay_at", (0.5, 0.75)),
        ("loss.dice_weight", 2.0),
        ("ema.decay", 0.9),
        ("model.embed_dim", 96),
    ],
)
def test_another_run_is_refused(directory, key, value):
    config = base_config()
    config.update_from_flattened_dict({key: value})
    given = re.escape(repr(value))
    with pytest.raises(UserError, match=rf"holds a run with another config\.{key}: .*, not {given}; name another"):
        start.check_directory(directory, config)


def test_a_model_that_is_no_runs_is_not_trained_in(tmp_path):
    (tmp_path / "model.json").touch()
    with pytest.raises(UserError, match=r"holds a model and no run; start from it with --config\.init\.model="):
        start.check_directory(tmp_path, base_config())
    (tmp_path / "metrics.jsonl").touch()  # of a run whose config was damaged and is deleted
    assert start.check_directory(tmp_path, base_config()) == []


def test_a_file_and_a_damaged_config_are_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="is a file; name a directory"):
        start.check_directory(file, base_config())
    for damaged in (
        json.dumps({"seed": 0})[:-3],
        "[]",
        '{"input": null}',
        '{"optim": 3}',
        '{"input": {"sources": []}}',
    ):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(UserError, match=r"config\.json' is damaged: .*; delete it or name another workdir"):
            start.check_directory(tmp_path, base_config())
