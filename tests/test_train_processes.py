"""Two processes of two devices do what one process of four does."""

import json
import signal

import jax
import numpy as np
import pytest
from tiny_run import STEPS, curve, entries, evaluated, evaluations, flags, free_port, run, start

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
