"""A run that is asked to stop, or that cannot write: what it says, and that going on changes nothing."""

import json
import os
import re
import resource
import signal

import jax
import pytest
from tiny_run import (
    CHECKPOINT_EVERY,
    EVALUATE_EVERY,
    STEPS,
    curve,
    evaluated,
    evaluations,
    flags,
    run,
    start,
    stop_at,
    workers_of,
)

from unilseg_jax.training.model_directory import load_pretrained

pytestmark = pytest.mark.slow
STOPPED_AT = 7
"""A step between two checkpoints, and between two evaluations."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """The directory of a run that nobody stopped."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    code, _, err = run(flags(workdir), cache)
    assert code == 0, err
    return workdir


def assert_stopped(code, err):
    """Returns the step after which the run says that it saved."""
    assert code == 75, err
    (line,) = [line for line in err.splitlines() if line.startswith("stopped: ")]
    assert "Traceback" not in err
    return int(line.split("saved at step ")[1].split(" of ")[0])


def assert_same_run(workdir, whole):
    """The two runs did the same, to the last bit."""
    assert curve(workdir) == curve(whole)
    assert_same_end(workdir, whole)


def assert_same_end(workdir, whole):
    """The two runs have the same weights, at the end and at their best, to the last bit."""
    assert evaluated(workdir, "held_out") == evaluations()
    parts, wanted = (load_pretrained(each).variables for each in (workdir, whole))
    for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(wanted), strict=True):
        assert a.tobytes() == b.tobytes()
    best, wanted = (load_pretrained(each / "best").variables for each in (workdir, whole))
    for a, b in zip(jax.tree.leaves(best), jax.tree.leaves(wanted), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_at_the_next_step_and_the_run_goes_on_as_if_nothing_had_been(whole, cache, tmp_path, asked):
    workdir = tmp_path / "run"
    saved = assert_stopped(*stop_at(f"step {STOPPED_AT}/", asked, flags(workdir), cache))
    assert STOPPED_AT <= saved <= STOPPED_AT + 1
    assert (workdir / "checkpoints" / str(saved)).is_dir()
    assert not (workdir / "summary.json").exists()
    code, out, err = run(flags(workdir), cache)
    assert code == 0, err
    assert f"steps {saved} to {STEPS}" in out
    assert_same_run(workdir, whole)


def test_sigusr1_breaks_an_evaluation_off_and_it_is_made_again(whole, cache, tmp_path):
    workdir = tmp_path / "run"
    # The line comes before the evaluation.
    saved = assert_stopped(*stop_at(f"step {EVALUATE_EVERY}/", signal.SIGUSR1, flags(workdir), cache))
    assert saved == EVALUATE_EVERY
    code, _, err = run(flags(workdir), cache)
    assert code == 0, err
    assert_same_run(workdir, whole)


def test_a_signal_is_heard_while_the_run_still_starts(cache, tmp_path):
    workdir = tmp_path / "run"
    code, err = stop_at("training on ", signal.SIGUSR1, flags(workdir), cache)  # before it compiles
    assert code == 75, err
    (line,) = [line for line in err.splitlines() if line.startswith("stopped: ")]
    assert "Traceback" not in err
    saved = [path.name for path in (workdir / "checkpoints").iterdir()]
    assert f"saved at step {saved[0]} of {STEPS}" in line if saved else "there is nothing to save" in line


def test_checkpoints_by_time_come_beside_those_by_step(cache, tmp_path):
    workdir = tmp_path / "run"
    often = flags(workdir, checkpoint_every=1000, checkpoint_minutes=1e-9, checkpoints_kept=100, log_every=2)
    assert_stopped(*stop_at("step 8/", signal.SIGTERM, often, cache))
    saved = {int(path.name) for path in (workdir / "checkpoints").iterdir()}
    assert {2, 4, 6, 8} <= saved
    assert len(saved) <= 5, "only when something is logged, or at the stop"


def test_a_disk_that_takes_no_more_ends_the_run_with_one_line(cache, tmp_path):
    workdir = tmp_path / "run"
    limit = 1_000_000  # bytes per file: enough for all but a checkpoint

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    code, out, err = run(flags(workdir), cache, preexec_fn=no_room)
    assert code == 74, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "a checkpoint cannot be written (there is none yet): " in line
    assert "too large" in line
    assert "Traceback" not in err
    steps = [int(number) for number in re.findall(r"^step (\d+)/", out, re.MULTILINE)]
    assert steps[-1] <= 2 * CHECKPOINT_EVERY, "the next checkpoint is the last moment to find out"
    code, _, err = run(flags(workdir), cache)
    assert code == 0, err


def test_a_worker_process_that_is_killed_ends_the_run_with_one_line(cache, tmp_path):
    workdir = tmp_path / "run"
    # Slow enough that the run does not end before the kill is noticed.
    running = start(flags(workdir, input__workers=2, steps=400, log_every=1), cache)
    for line in running.stdout:
        if line.startswith(f"step {2 * CHECKPOINT_EVERY}/"):
            break
    workers = workers_of(running)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 74, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "a worker process that makes pictures ended by itself (exit code -9" in line
    assert "Traceback" not in err
    saved = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    assert max(saved) >= CHECKPOINT_EVERY


PLANTED = f"""
import sys, jax, jax.numpy as jnp
from unilseg_jax import train
from unilseg_jax.errors import run_command
from unilseg_jax.training import step
whole = step.make_train_step
def planted(*args, **options):
    inner = whole(*args, **options)
    def taken(state, batch):
        state, terms = inner(state, batch)
        return state, {{**terms, "loss": jnp.where(state.step == {STOPPED_AT}, jnp.nan, terms["loss"])}}
    return jax.jit(taken)
step.make_train_step = planted
run_command(train.main, sys.argv[1:])
"""


def test_a_loss_that_is_no_number_at_a_step_leaves_the_checkpoint_before_it(whole, cache, tmp_path):
    workdir = tmp_path / "run"
    code, _, err = run(flags(workdir, log_every=100), cache, program=("-c", PLANTED))
    assert code == 3, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "the loss is nan" in line
    assert f"at step {STOPPED_AT}; nothing was saved since" in line
    assert "Traceback" not in err
    found = json.loads((workdir / "not_finite.json").read_text())
    assert found["step"] == STOPPED_AT
    assert len(found["samples"]) == 2, "a step has two pictures"
    saved = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert saved == STOPPED_AT // CHECKPOINT_EVERY * CHECKPOINT_EVERY
    code, out, err = run(flags(workdir), cache)
    assert code == 0, err
    assert f"steps {saved} to {STEPS}" in out
    # The first run was to log every 100 steps, so it says nothing of the first ones.
    assert [line for line in curve(workdir) if line["step"] > saved] == curve(whole)[saved:]
    assert_same_end(workdir, whole)


def test_a_trace_is_written_and_the_compilers_flags_are_told(cache, tmp_path):
    workdir = tmp_path / "run"
    code, out, err = run(flags(workdir, steps=4, profile_steps=(2, 3), xla_flags="deterministic"), cache)
    assert code == 0, err
    assert "XLA flags deterministic" in out
    assert json.loads((workdir / "config.json").read_text())["xla"]["flags"] == {"xla_gpu_deterministic_ops": True}
    assert [path for path in (workdir / "profile").rglob("*.xplane.pb") if path.stat().st_size > 1000]
