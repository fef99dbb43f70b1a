"""Checkpoints that are damaged, or cannot be written: a run loses what they held and nothing else."""

import contextlib
import resource
import shutil
import time

import jax
import numpy as np
import pytest
from training_states import TINY, assert_same, on_disk, restore, save, some_state, tree

from unilseg_jax.errors import ExternalError, UserError
from unilseg_jax.training.checkpoint import Checkpointer
from unilseg_jax.training.model_directory import CHECKPOINTS, load_pretrained, write_model_file


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's directory with checkpoints of steps 3 and 6."""
    folder = tmp_path_factory.mktemp("run")
    save(folder, some_state(0, 3), some_state(1, 6))
    return folder


@pytest.fixture
def copied_run(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def cut_short(step_folder):
    for path in sorted(step_folder.rglob("*")):
        if path.is_file() and path.stat().st_size > 200:
            path.write_bytes(path.read_bytes()[:100])


def emptied(step_folder):
    for path in sorted((step_folder / "variables").rglob("*")):
        if path.is_file():
            path.write_bytes(b"")


def without_optimizer(step_folder):
    shutil.rmtree(step_folder / "optimizer")


def without_data(step_folder):
    shutil.rmtree(step_folder / "variables" / "d", ignore_errors=True)
    shutil.rmtree(step_folder / "variables" / "ocdbt.process_0", ignore_errors=True)


def overwritten(step_folder):
    # All of them: some are left over from joining the processes' files, and nobody reads those.
    for path in sorted(step_folder.rglob("d/*")):
        if path.is_file():
            path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


@pytest.mark.parametrize("damage", [cut_short, emptied, without_optimizer, without_data, overwritten])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(copied_run, damage):
    damage(copied_run / CHECKPOINTS / "6")
    checkpointer, warnings = Checkpointer(copied_run), []
    assert_same(checkpointer.restore_latest(some_state(7, 0), warnings.append), some_state(0, 3))
    (line,) = warnings
    assert line.startswith(
        "warning: the checkpoint of step 6 is damaged and is called damaged-6 now; going on from step 3: "
    )
    assert "\n" not in line
    assert on_disk(copied_run) == ["3", "damaged-6"]
    checkpointer.save(some_state(4, 6))  # the steps are taken again
    checkpointer.close()
    assert_same(restore(copied_run, some_state(7, 0)), some_state(4, 6))


def test_where_no_checkpoint_can_be_read_none_is_deleted(copied_run):
    for step in (3, 6):
        emptied(copied_run / CHECKPOINTS / str(step))
    with pytest.raises(UserError, match=r"checkpoint of step 6 .* is damaged"):
        restore(copied_run, some_state(7, 0))
    assert on_disk(copied_run) == ["3", "6"]


@pytest.mark.usefixtures("any_tree_is_a_model")
def test_an_average_is_kept_and_is_what_a_model_is_read_from(tmp_path):
    wanted = some_state(1, 6).replace(ema=tree(50))
    save(tmp_path, wanted)
    assert_same(restore(tmp_path, some_state(7, 0).replace(ema=tree(51))), wanted)
    write_model_file(tmp_path, TINY, 32)
    assert_same(load_pretrained(tmp_path).variables, jax.tree.map(np.asarray, tree(50)))


@contextlib.contextmanager
def no_room():
    """Lets the system refuse files of more than 200 bytes, as a full disk refuses them, to all threads."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("notice", ["check", "wait", "save"])
def test_what_the_writing_thread_meets_ends_the_run_with_one_line(copied_run, notice):
    checkpointer = Checkpointer(copied_run)
    checkpointer.check()
    with pytest.raises(ExternalError, match=r"cannot be written \(the one of step 6 stays\): .*too large") as error:  # noqa: PT012
        with no_room():
            checkpointer.save(some_state(2, 9))
            if notice == "check":
                for _ in range(200):  # as the training loop does, after every step
                    checkpointer.check()
                    time.sleep(0.05)
            elif notice == "wait":
                checkpointer.wait()
            else:
                checkpointer.save(some_state(3, 12))
    assert "\n" not in str(error.value)
    assert_same(restore(copied_run, some_state(7, 0)), some_state(1, 6))
