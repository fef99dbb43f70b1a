"""The best weights of a run, kept apart."""

import time

import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from tiny_run import ARCHITECTURE

from unilseg_jax.models.architecture import Architecture
from unilseg_jax.training import model_directory
from unilseg_jax.training.best import BEST, BestCheckpoint
from unilseg_jax.training.state import init_state

METRIC = "held_out/oiou"
pytestmark = pytest.mark.usefixtures("any_tree_is_a_model")


def state_of(step, ema=None):
    variables = {"params": {"scale": jnp.full(3, float(step))}, "batch_stats": {"mean": jnp.zeros(2)}}
    return init_state(variables, optax.sgd(0.1)).replace(step=jnp.int32(step), ema=ema)


def offer(run, *judged, metric=METRIC):
    """Offers (step, value) after one another, as one process of a run does."""
    model_directory.write_model_file(run, Architecture(**ARCHITECTURE), 32)
    best = BestCheckpoint(run, metric)
    for step, value in judged:
        best.offer(state_of(step), {metric: value, "glance/oiou": 1.0})
    best.close()


def kept(run):
    """Returns the step whose weights are kept, as they are read to predict with."""
    return int(model_directory.load_pretrained(run / BEST).variables["params"]["scale"][0])


def test_the_best_is_kept_and_nothing_else(tmp_path):
    offer(tmp_path, (1, 0.2), (2, 0.5), (3, 0.4), (4, float("nan")))
    assert kept(tmp_path) == 2
    assert [path.name for path in (tmp_path / BEST / model_directory.CHECKPOINTS).iterdir()] == ["2"]


@pytest.mark.parametrize(("value", "wanted"), [(0.4, 2), (0.5, 2), (0.6, 7)])
def test_a_run_that_goes_on_knows_how_good_the_best_was(tmp_path, value, wanted):
    offer(tmp_path, (1, 0.2), (2, 0.5))
    offer(tmp_path, (7, value))
    assert kept(tmp_path) == wanted


def test_steps_that_are_taken_again_change_nothing(tmp_path):
    offer(tmp_path, (4, 0.2), (8, 0.5))
    offer(tmp_path, (4, 0.2), (8, 0.5), (12, 0.3))
    assert kept(tmp_path) == 8


def test_another_metric_begins_anew(tmp_path):
    offer(tmp_path, (4, 0.9))
    offer(tmp_path, (6, 0.1), metric="held_out/miou")
    assert kept(tmp_path) == 6


def test_evaluations_of_other_sources_do_not_count(tmp_path):
    best = BestCheckpoint(tmp_path, METRIC)
    best.offer(state_of(1), {"glance/oiou": 0.9})
    best.close()
    assert not list((tmp_path / BEST / model_directory.CHECKPOINTS).iterdir())


def test_the_moving_average_is_kept_where_there_is_one(tmp_path):
    model_directory.write_model_file(tmp_path, Architecture(**ARCHITECTURE), 32)
    best = BestCheckpoint(tmp_path, METRIC)
    average = {"params": {"scale": jnp.full(3, 11.0)}, "batch_stats": {"mean": jnp.ones(2)}}
    best.offer(state_of(1, average), {METRIC: 0.5})
    best.close()
    assert kept(tmp_path) == 11
    mean = model_directory.load_pretrained(tmp_path / BEST).variables["batch_stats"]["mean"]
    np.testing.assert_array_equal(mean, 1)


def test_a_damaged_best_is_replaced(tmp_path):
    offer(tmp_path, (2, 0.5))
    for path in (tmp_path / BEST / model_directory.CHECKPOINTS / "2" / "score").rglob("*"):
        path.write_bytes(b"")
    offer(tmp_path, (4, 0.1))
    assert kept(tmp_path) == 4


def test_the_weights_are_on_disk_before_their_evaluation_is_written_down(tmp_path, monkeypatch):
    """The evaluation is not made again, so a kill in between must not lose them."""
    finalize = ocp.CheckpointManager._finalize

    def slow(*args, **options):
        time.sleep(0.5)
        return finalize(*args, **options)

    monkeypatch.setattr(ocp.CheckpointManager, "_finalize", slow)
    model_directory.write_model_file(tmp_path, Architecture(**ARCHITECTURE), 32)
    best = BestCheckpoint(tmp_path, METRIC)
    best.offer(state_of(1), {METRIC: 0.5})
    assert kept(tmp_path) == 1
    best.close()
