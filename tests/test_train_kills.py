"""Runs that are killed without warning, time and again: every restart goes on, and nothing comes out otherwise."""

import random
import signal
import time

import jax
import pytest
from tiny_run import curve, entries, flags, free_port, start

from unilseg_jax.training.model_directory import CHECKPOINTS, load_pretrained

pytestmark = pytest.mark.slow
KILLS, STEPS, BATCH = 10, 100, 4
CHANGES = {
    "steps": STEPS,
    "checkpoint_every": 2,
    "input__batch_size": BATCH,
    "best_metric": "",
    "evals__held_out__every": 0,
    "evals__held_out__source__num_scenes": 2,
    "evals__held_out__batch_size": BATCH,
    "evals__glance__every": 0,
    "evals__glance__source__num_scenes": 2,
    "evals__glance__batch_size": BATCH,
}
"""Changes of the tiny run: long enough to be killed often, and with nothing to judge in between."""


SHARED = {"mesh__fsdp": 4, "ema__decay": 0.9}
"""Changes of the run of two processes: a checkpoint is written by both, and holds all that there can be."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


def processes(workdir, cache, count):
    """Starts a run on four devices, in one process or two."""
    if count == 1:
        return [start(flags(workdir, **CHANGES), cache, devices=4)]
    coordinator = f"127.0.0.1:{free_port()}"
    return [
        start(
            flags(
                workdir,
                **CHANGES,
                **SHARED,
                distributed__coordinator=coordinator,
                distributed__num_processes=count,
                distributed__process_id=number,
            ),
            cache,
            devices=4 // count,
        )
        for number in range(count)
    ]


def unfinished(workdir):
    """Returns the checkpoints that are there under the name that they have before they are whole."""
    folder = workdir / CHECKPOINTS
    return {path.name for path in folder.iterdir() if "tmp" in path.name} if folder.is_dir() else set()


def wait_for_moment(running, workdir, moment, rng):
    """Returns at a random moment of a kind, or when a process has ended.

    What an earlier kill left unfinished is gone by the first step: the run that goes on clears it away.
    """
    first, deadline = running[0], time.monotonic() + 240
    if moment == "start":
        deadline = time.monotonic() + rng.uniform(0.5, 12)
        while time.monotonic() < deadline and all(each.poll() is None for each in running):
            time.sleep(0.05)
        return
    for line in first.stdout:
        if line.startswith("step "):
            break
    if moment == "step":
        time.sleep(rng.uniform(0, 1.5))
        return
    while not unfinished(workdir) and time.monotonic() < deadline:
        if any(each.poll() is not None for each in running):
            return
        time.sleep(0.001)


def kill_often(workdir, cache, count, seed):
    """Kills one process of a run `KILLS` times, lets it end, and returns how often a checkpoint was being written."""
    rng, while_writing = random.Random(seed), 0
    for number in range(KILLS):
        before = unfinished(workdir)
        running = processes(workdir, cache, count)
        wait_for_moment(running, workdir, ("checkpoint", "step", "start")[number % 3], rng)
        victim = rng.choice(running)
        assert victim.poll() is None, "it ended before it could be killed"
        victim.send_signal(signal.SIGKILL)
        assert victim.wait() == -signal.SIGKILL
        while_writing += bool(unfinished(workdir) - before)
        for survivor in running:  # as a launcher does, and without mercy
            survivor.kill()
            survivor.communicate()
    last = processes(workdir, cache, count)
    results = [each.communicate(timeout=900) for each in last]
    assert [each.returncode for each in last] == [0] * count, results
    return while_writing


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_that_is_killed_ten_times_is_the_run_that_was_not(count, cache, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = processes(whole, cache, count)
    results = [each.communicate(timeout=900) for each in undisturbed]
    assert [each.returncode for each in undisturbed] == [0] * count, results
    assert kill_often(killed, cache, count, seed=count) >= 2, "no kill met a checkpoint that was being written"
    # The loss of a step depends on its samples, its noise and all steps before: each is there once, as it was.
    assert [line["step"] for line in entries(killed, "train/")] == list(range(1, STEPS + 1))
    assert curve(killed) == curve(whole)
    parts, wanted = (jax.tree.leaves(load_pretrained(each).variables) for each in (killed, whole))
    for a, b in zip(parts, wanted, strict=True):
        assert a.tobytes() == b.tobytes()
