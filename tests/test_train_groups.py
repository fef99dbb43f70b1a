"""Signals to all processes of a run at once, also those that make pictures, as a scheduler or a terminal sends them."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from tiny_run import flags, free_port, start, wait_until, workers_of

pytestmark = pytest.mark.slow
SECONDS = 30
"""What a scheduler leaves between SIGTERM and SIGKILL."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def start_all():
    """Starts runs; what a test leaves of them is killed."""
    started = []

    def start_one_more(*arguments):
        running = start_processes(*arguments)
        started.extend(running)
        return running

    yield start_one_more
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def start_processes(workdir, cache, count):
    """Starts a run of some processes, each of which has two that make pictures, in a group of its own."""
    coordinator = {"distributed__coordinator": f"127.0.0.1:{free_port()}", "distributed__num_processes": count}
    return [
        start(
            flags(
                workdir,
                steps=400,
                input__workers=2,
                evals__held_out__every=0,
                **({**coordinator, "distributed__process_id": number} if count > 1 else {}),
            ),
            cache,
            start_new_session=True,
        )
        for number in range(count)
    ]


def members(groups):
    """Returns the processes of some groups that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            _, rest = (folder / "stat").read_text().rsplit(")", 1)
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, group, *_ = rest.split()
        if int(group) in groups and state != "Z":
            found.append((folder.name, (folder / "cmdline").read_bytes()))
    return found


def assert_gone(groups):
    deadline = time.monotonic() + 10
    while members(groups) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert members(groups) == []


@pytest.mark.parametrize("moment", ["it trains", "its workers start"])
@pytest.mark.parametrize("count", [1, 2])
def test_sigterm_to_everything_saves_and_is_gone_in_time(count, moment, start_all, cache, tmp_path):
    workdir = tmp_path / "run"
    running = start_all(workdir, cache, count)
    if moment == "it trains":
        for line in running[0].stdout:
            if line.startswith("step 4/"):
                break
    else:
        wait_until(lambda: workers_of(running[0]), running)
    began = time.monotonic()
    for process in running:
        os.killpg(process.pid, signal.SIGTERM)
    errors = [process.communicate(timeout=240)[1] for process in running]
    took = time.monotonic() - began
    assert [process.returncode for process in running] == [75] * count, errors
    (step,) = {err.split("stopped: saved at step ")[1].split(" of ")[0] for err in errors}
    assert (workdir / "checkpoints" / step).is_dir()
    assert "Traceback" not in "".join(errors)
    assert_gone([process.pid for process in running])
    if moment == "it trains":
        assert took < SECONDS
    print(f"{count} process(es), {moment}: gone after {took:.1f} s")


def test_workers_end_with_a_run_that_is_killed(start_all, cache, tmp_path):
    (run,) = start_all(tmp_path / "run", cache, 1)
    wait_until(lambda: len(workers_of(run)) == 2, [run])
    for line in run.stdout:
        if line.startswith("step 2/"):
            break
    run.kill()
    run.communicate(timeout=60)  # which an orphan would keep open
    assert_gone([run.pid])
