"""Two processes of two devices do what one process of four does."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest
from tiny_run import (
    EVALUATE_EVERY,
    STEPS,
    curve,
    entries,
    evaluated,
    evaluations,
    flags,
    free_port,
    run,
    start,
    wait_until,
)

from unilseg_jax.training.model_directory import load_pretrained

pytestmark = pytest.mark.slow
BATCH = {"input__batch_size": 4, "evals__held_out__batch_size": 4, "evals__glance__batch_size": 4}


def start_both(workdir, cache, **more):
    coordinator = f"127.0.0.1:{free_port()}"
    return [
        start(
            flags(
                workdir,
                **BATCH,
                **more,
                distributed__coordinator=coordinator,
                distributed__num_processes=2,
                distributed__process_id=number,
            ),
            cache,
            devices=2,
        )
        for number in range(2)
    ]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def one(cache, tmp_path_factory):
    """The directory of a run of one process with four devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    code, _, err = run(flags(workdir, **BATCH), cache, devices=4)
    assert code == 0, err
    return workdir


@pytest.fixture(scope="module")
def two(cache, tmp_path_factory):
    """(directory, stdout of each) of a run of two processes with two devices."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    both = start_both(workdir, cache)
    results = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    return workdir, [out for out, _ in results]


def losses(workdir):
    return np.array([line["train/loss"] for line in curve(workdir)])


def assert_close(workdir, wanted):
    np.testing.assert_allclose(losses(workdir), losses(wanted), rtol=1e-5)
    pairs = zip(*(jax.tree.leaves(load_pretrained(each).variables) for each in (workdir, wanted)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_losses_and_parameters_are_the_same(one, two):
    assert len(losses(one)) == STEPS
    assert_close(two[0], one)


def test_given_weights_reach_both_processes(one, cache, tmp_path):
    """They are divided among the devices, and a moving average starts from them."""
    more = {"init__model": str(one), "steps": 2, "mesh__fsdp": 2, "ema__decay": 0.9, "evals__held_out__every": 0}
    code, out, err = run(flags(tmp_path / "alone", **BATCH, **more), cache, devices=4)
    assert code == 0, err
    assert f"all weights from {one}" in out
    both = start_both(tmp_path / "both", cache, **more)
    results = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert_close(tmp_path / "both", tmp_path / "alone")
    fresh = curve(one)[0]["train/loss"]
    assert curve(tmp_path / "alone")[0]["train/loss"] < 0.9 * fresh, "the weights are those of a run that has learnt"


def test_only_the_first_process_speaks_and_writes(two):
    workdir, (first, second) = two
    assert "2 processes, " in first
    assert [line for line in second.splitlines() if not line.startswith("[Gloo]")] == []  # the backend's own lines
    assert [line["step"] for line in entries(workdir, "train/")] == list(range(1, STEPS + 1))
    assert evaluated(workdir, "held_out") == evaluations()


def test_evaluations_judge_every_phrase_once(one, two):
    summaries = [json.loads((workdir / "summary.json").read_text()) for workdir in (one, two[0])]
    alone, shared = (each["evals"]["held_out"]["honest"] for each in summaries)
    assert shared["all"]["count"] == alone["all"]["count"]
    assert shared["kinds"].keys() == alone["kinds"].keys()
    assert shared["all"]["oiou"] == pytest.approx(alone["all"]["oiou"], abs=2e-3)


@pytest.mark.parametrize(
    ("number", "receivers"),
    [
        pytest.param(signal.SIGTERM, (1,), id="SIGTERM to the second"),
        pytest.param(signal.SIGUSR1, (0, 1), id="SIGUSR1 to both"),  # as Slurm sends it
    ],
)
def test_a_signal_stops_both_at_the_same_step(cache, tmp_path, number, receivers):
    workdir = tmp_path / "run"
    both = start_both(workdir, cache, steps=400)
    for line in both[0].stdout:
        if line.startswith("step 4/"):
            for receiver in receivers:
                both[receiver].send_signal(number)
            break
    errors = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [75, 75], errors
    steps = [err.split("saved at step ")[1].split(" of ")[0] for err in errors]
    assert steps[0] == steps[1]
    assert (workdir / "checkpoints" / steps[0]).is_dir()


def stop_both(both):
    """Sends SIGTERM to the second process and returns what it and the first say at their end."""
    both[1].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [75, 75], errors
    return [line for err in errors for line in err.splitlines() if line.startswith("stopped: ")]


@pytest.mark.parametrize("moment", ["connected", "restored"])
def test_a_signal_is_heard_while_a_run_that_goes_on_starts(two, cache, tmp_path, moment):
    workdir = shutil.copytree(two[0], tmp_path / "run")  # with more steps it goes on
    both = start_both(workdir, cache, steps=400)
    if moment == "connected":  # and nobody has asked yet whether the run shall stop
        wait_until((workdir / "waiting").exists, both)
        wait_until(lambda: not (workdir / "waiting").exists(), both)
    else:
        for line in both[0].stdout:
            if line.startswith("training on "):
                break
    lines = stop_both(both)
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert [int(path.name) for path in (workdir / "checkpoints").iterdir() if int(path.name) >= STEPS]


def test_evaluations_that_are_broken_off_are_made_again(cache, tmp_path):
    workdir, last = tmp_path / "run", EVALUATE_EVERY + 1
    long = {"steps": last, "evals__held_out__source__num_scenes": 1000}
    both = start_both(workdir, cache, **long)
    wait_until((workdir / "checkpoints" / str(EVALUATE_EVERY)).is_dir, both)
    for process in both:
        process.kill()
        process.communicate()
    assert evaluated(workdir, "held_out") == [], "it was killed during the evaluation, and has the step's checkpoint"
    both = start_both(workdir, cache, **long)
    for line in both[0].stdout:
        if line.startswith(f"step {last}/"):
            break
    assert stop_both(both) == [f"stopped: saved at step {last} of {last}; the same command goes on from there"] * 2
    # JAX looks for signals once a second: either before the first of the last evaluations, or while it is made.
    assert evaluated(workdir, "held_out") in ([EVALUATE_EVERY], [EVALUATE_EVERY, last])
    assert evaluated(workdir, "held_out_shuffled") == []
    both = start_both(workdir, cache, **long)
    results = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert evaluated(workdir, "held_out") == [EVALUATE_EVERY, last]
    assert evaluated(workdir, "held_out_shuffled") == [last]
