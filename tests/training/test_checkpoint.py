"""Checkpoints of a run: what is written is read again, bit by bit."""

import errno
import shutil

import jax
import jax.numpy as jnp
import optax
import pytest
from training_states import TINY, UNFINISHED, assert_same, leave_unfinished, on_disk, restore, save, some_state

from unilseg_jax.errors import UserError
from unilseg_jax.training.checkpoint import Checkpointer
from unilseg_jax.training.model_directory import load_pretrained, write_model_file


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's directory with checkpoints of steps 3 and 6."""
    folder = tmp_path_factory.mktemp("run")
    save(folder, some_state(0, 3), some_state(1, 6))
    write_model_file(folder, TINY, 32)
    return folder


@pytest.fixture
def copied_run(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_the_newest_state_comes_back_with_its_shardings(run):
    wanted, fresh = some_state(1, 6), some_state(7, 0)
    restored = restore(run, fresh)
    assert_same(restored, wanted)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(fresh), strict=True):
        assert a.sharding == b.sharding


def test_without_a_checkpoint_the_state_stays(tmp_path):
    state = some_state(0, 0)
    assert restore(tmp_path, state) is state


def test_two_are_kept(run, copied_run):
    assert on_disk(run) == ["3", "6"]
    save(copied_run, some_state(2, 9))
    assert on_disk(copied_run) == ["6", "9"]


def test_one_may_be_kept(tmp_path):
    save(tmp_path, some_state(0, 1), some_state(0, 2), keep=1)
    assert on_disk(tmp_path) == ["2"]


def test_a_step_that_is_there_is_not_written_again(copied_run):
    save(copied_run, some_state(9, 6))
    assert_same(restore(copied_run, some_state(7, 0)), some_state(1, 6))


@pytest.mark.parametrize(
    "other",
    [
        some_state(0, 0, width=5),
        some_state(0, 0, optimizer=optax.sgd(1e-3, momentum=0.9)),
        some_state(0, 0).replace(params={"encoder": {"kernel": jnp.ones((2, 3))}}),
    ],
    ids=["another width", "another optimiser", "other parameters"],
)
def test_a_checkpoint_of_another_model_is_one_line(run, other):
    with pytest.raises(UserError, match="checkpoint of step 6 does not fit this config") as error:
        restore(run, other)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_may_not_be_read_is_no_damaged_one(run, monkeypatch):
    before, restored = on_disk(run), Checkpointer._restore

    def refuse(self, step, state):
        if step == 6:
            raise PermissionError(errno.EACCES, "Permission denied", f"checkpoints/{step}")
        return restored(self, step, state)

    monkeypatch.setattr(Checkpointer, "_restore", refuse)
    with pytest.raises(UserError, match=r"^the checkpoint of step 6 cannot be read: Permission denied; allow the"):
        restore(run, some_state(7, 0))
    assert on_disk(run) == before
    assert len(before) > 1


@pytest.mark.usefixtures("any_tree_is_a_model")
@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_checkpoint_is_ignored(copied_run, name):
    leave_unfinished(copied_run, 6, name)
    assert_same(load_pretrained(copied_run).variables["params"], some_state(1, 6).params)
    assert_same(restore(copied_run, some_state(7, 0)), some_state(1, 6))
    save(copied_run, some_state(5, 9))
    assert_same(restore(copied_run, some_state(7, 0)), some_state(5, 9))
