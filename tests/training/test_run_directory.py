"""What a run's directory may go on with."""

import json

import pytest

from unilseg_jax.config import base_config
from unilseg_jax.errors import UserError
from unilseg_jax.training import start


@pytest.fixture
def directory(tmp_path):
    """The directory of a run of `base_config()`."""
    (tmp_path / "config.json").write_text(base_config().to_json_best_effort())
    return tmp_path


def test_what_does_not_change_the_run_may_change(directory):
    config = base_config()
    config.steps, config.log_every, config.input.threads, config.input.workers = 7, 3, 5, 4
    config.xla_flags, config.compilation_cache, config.remat = "overlap", "cache", "full"
    assert start.check_directory(directory, config) == []


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
        ("loss.dice_weight", 2.0),
        ("ema.decay", 0.9),
        ("model.embed_dim", 96),
    ],
)
def test_another_run_is_refused(directory, key, value):
    config = base_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=rf"holds a run with another config\.{key.split('.')[0]}; name another workdir"):
        start.check_directory(directory, config)


def test_a_file_and_a_damaged_config_are_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="is a file; name a directory"):
        start.check_directory(file, base_config())
    (tmp_path / "config.json").write_text(json.dumps({"seed": 0})[:-3])
    with pytest.raises(UserError, match=r"config\.json' is damaged: .*; delete it or name another workdir"):
        start.check_directory(tmp_path, base_config())
