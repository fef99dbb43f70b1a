"""The share that each process has of an evaluation; processes are faked, `test_train_processes.py` has real ones."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from unilseg_jax.config import evaluation, parse_flags, scenes_source
from unilseg_jax.errors import UserError
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.training import evaluations, sharding

SCENES = 10


def evaluators_of(batch_size):
    """Returns the evaluator of a table with one entry."""
    config = parse_flags(["--config=configs/quickstart.py", "--workdir=unused"])[0]
    with config.unlocked():
        source = scenes_source(num_scenes=SCENES, seed=0, size=64)
        config.evals = {"val": evaluation(source, batch_size=batch_size)}
    return evaluations.make_evaluators(config.evals, size=64, word_len=14)


@pytest.fixture
def processes(monkeypatch):
    """Sets how many processes and devices there seem to be, and which process this is."""

    def set_to(count, devices, index=0):
        monkeypatch.setattr(jax, "process_count", lambda: count)
        monkeypatch.setattr(jax, "process_index", lambda: index)
        monkeypatch.setattr(jax, "local_device_count", lambda: devices)

    return set_to


@pytest.mark.parametrize(("count", "devices", "wanted"), [(1, 8, 192), (192, 1, 1), (24, 8, 8), (8, 1, 24)])
def test_the_batch_is_that_of_all_processes_together(processes, count, devices, wanted):
    processes(count, devices)
    assert evaluators_of(192)["val"].batch_size == wanted


def test_the_model_is_called_with_the_share_of_a_process(processes):
    judged = []

    def predict(images, tokens):
        assert len(images) == len(tokens) == 2
        return np.zeros((*tokens.shape[:2], 64, 64), np.float32)

    for index in range(2):
        processes(2, 1, index)
        counts, _ = evaluations._own_share(evaluators_of(4)["val"]).count(predict)
        judged.append(sum(len(empty) for _, empty in counts.values()))
    processes(1, 1)
    assert sum(judged) == sum(len(triplet.phrases) for triplet in evaluators_of(4)["val"].source)


@pytest.mark.parametrize(
    ("count", "devices", "message"),
    [
        (1, 8, "batch_size 12 does not divide among 8 devices; set it to a multiple of 8"),
        (8, 1, "batch_size 12 does not divide among 8 processes of 1 device(s) each; set it to a multiple of 8"),
        (2, 4, "batch_size 12 does not divide among 2 processes of 4 device(s) each; set it to a multiple of 8"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_with_what_does(processes, count, devices, message):
    processes(count, devices)
    with pytest.raises(UserError, match=re.escape(f"evals.val.{message}")):
        evaluators_of(12)


def test_weights_are_gathered_by_one_program_for_all_evaluations(processes, monkeypatch):
    mesh = sharding.make_mesh(8, fsdp=4)
    weights = jax.device_put(np.arange(2.0**17, dtype=np.float32).reshape(512, 256), NamedSharding(mesh, P("fsdp")))
    processes(2, 8)
    judge = evaluations.Evaluations({}, UniLSeg(Architecture()), mesh, seed=0, keep=0, timeout=1.0)
    monkeypatch.setattr(jax, "jit", None)  # a new one would be compiled again
    for factor in (1, 2):
        copied = judge._copied({"scale": weights * factor})["scale"]
        assert copied.sharding.is_fully_replicated
        np.testing.assert_array_equal(copied, factor * np.asarray(weights))
