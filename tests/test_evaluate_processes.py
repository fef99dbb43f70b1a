"""`evaluate` in processes of its own: killed, asked to stop, two that share the work, and the numbers of a run."""

import json
import signal
import time

import pytest
from evaluate_stand_ins import SPLITS, prepare_all, results_of, save_tiny
from tiny_run import flags, free_port, run, start

pytestmark = pytest.mark.slow

PROGRAM = """
import signal, sys
from unilseg_jax import evaluate
from unilseg_jax.errors import run_command
from unilseg_jax.evaluation import journal, passport, runner
from unilseg_jax.evaluation.judges import JUDGES
journal.FLUSH_SECONDS = -1  # each unit is written down at once
passport.RESAMPLES, passport.CURVES_RESAMPLES, runner.EXAMPLES = 20, 3, 1
stop_at = int(sys.argv.pop(1))
judged = 0
for judge in set(JUDGES.values()):
    def counted(self, unit, whole=judge.judge):
        global judged
        if judged == stop_at:
            print("waits", flush=True)
            signal.alarm(60)
            signal.pause()  # until a signal was handled
            signal.alarm(0)
        judged += 1
        found = whole(self, unit)
        print("judged", type(self).__name__, unit, flush=True)
        return found
    if "judge" in vars(judge):
        judge.judge = counted
run_command(evaluate.main, sys.argv[1:])
"""
"""The command, which says what it judges; before the unit of the first argument's number it waits for a minute."""
NEVER = "-1"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Arguments that name the model and the data."""
    folder = tmp_path_factory.mktemp("place")
    return ["--checkpoint", save_tiny(folder), "--data", prepare_all(folder, pictures=3)]


def arguments(place, output, *names):
    return [*place, *(part for name in names for part in ("--benchmark", name)), "--output", str(output)]


SOME = ("refcoco:val", "ref_youtube_vos", "ade20k:val", "sod")
"""A benchmark of each kind."""


@pytest.fixture(scope="module")
def alone(place, cache, tmp_path_factory):
    """The output folder of one process that nobody disturbed."""
    output = tmp_path_factory.mktemp("alone") / "new"
    code, _, err = run([NEVER, *arguments(place, output, "all")], cache, program=("-c", PROGRAM))
    assert code == 0, err
    return output


def lines(out, start):
    return [line for line in out.splitlines() if line.startswith(start)]


def assert_same(output, alone, names):
    found, wanted = results_of(output), results_of(alone)
    assert found
    assert found == {name: content for name, content in wanted.items() if name.startswith(names)}
    for path in alone.rglob("submission-*.zip"):
        if path.parent.name in found:
            assert (output / path.relative_to(alone)).read_bytes() == path.read_bytes()
    assert not list(output.rglob("work-*"))


FOLDERS = ("refcoco-val", "ref_youtube_vos-valid", "ade20k-val", "sod-test")


@pytest.mark.parametrize("finished", [1, 4, 6])
def test_killed_half_way_and_started_again_nothing_is_judged_twice(place, cache, alone, tmp_path, finished):
    command = arguments(place, tmp_path, *SOME)
    process = start([str(finished), *command], cache, program=("-c", PROGRAM))
    before = []
    for line in process.stdout:
        before.append(line.strip())
        if line.startswith("waits"):
            process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    code, out, err = run([NEVER, *command], cache, program=("-c", PROGRAM))
    assert code == 0, err
    first, second = lines("\n".join(before), "judged"), lines(out, "judged")
    assert len(first) == finished
    assert not set(first) & set(second)
    assert len(second) + finished == 3 + 1 + 3 + 3
    assert_same(tmp_path, alone, FOLDERS)


def test_sigterm_is_answered_after_the_unit_and_the_work_goes_on(place, cache, alone, tmp_path):
    command = arguments(place, tmp_path, *SOME)
    process = start([NEVER, *command], cache, program=("-c", PROGRAM))
    for line in process.stdout:
        if line.startswith("judged"):
            process.send_signal(signal.SIGTERM)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    (said,) = lines(err, "stopped: ")
    assert "the same command goes on" in said
    assert "Traceback" not in err
    first = [line.strip(), *lines(out, "judged")]
    code, out, err = run([NEVER, *command], cache, program=("-c", PROGRAM))
    assert code == 0, err
    assert not set(first) & set(lines(out, "judged"))
    assert_same(tmp_path, alone, FOLDERS)


def start_both(command, cache, stop_at=(NEVER, NEVER)):
    port = free_port()
    several = [f"--coordinator=127.0.0.1:{port}", "--num-processes=2", "--timeout=100"]
    return [
        start([stop_at[number], *command, *several, f"--process-id={number}"], cache, program=("-c", PROGRAM))
        for number in range(2)
    ]


def test_two_processes_share_the_work_and_find_the_same(place, cache, alone, tmp_path):
    both = start_both(arguments(place, tmp_path, "all"), cache)
    (first, shown), (second, silent) = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], shown + silent
    shares = [lines(out, "judged") for out in (first, second)]
    assert not {line for line in shares[0] if "Referring" not in line and "Salient" not in line} & set(shares[1])
    assert min(map(len, shares)) > 15
    assert_same(tmp_path, alone, tuple(f"{name}-{split}" for name, split in SPLITS))
    # The first one alone speaks of the work.
    assert "refcoco:val" in first
    assert "refcoco:val" in shown
    assert lines(second, "all numbers") == []
    assert "refcoco" not in silent


def test_two_processes_go_on_with_what_one_has_begun(place, cache, alone, tmp_path):
    command = arguments(place, tmp_path, *SOME)
    process = start(["2", *command], cache, program=("-c", PROGRAM))
    for line in process.stdout:
        if line.startswith("waits"):
            process.send_signal(signal.SIGKILL)
    process.communicate()
    both = start_both(command, cache)
    found = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], found
    assert sum(len(lines(out, "judged")) for out, _ in found) == 10 - 2
    assert_same(tmp_path, alone, FOLDERS)


@pytest.mark.parametrize("stop_at", [("1", "0"), ("1", NEVER)], ids=["in their last units", "one waits for the other"])
def test_sigterm_to_both_of_two_processes(place, cache, alone, tmp_path, stop_at):
    command = arguments(place, tmp_path, *SOME)
    both = start_both(command, cache, stop_at)
    for process, number in zip(both, stop_at, strict=True):
        for line in process.stdout:
            if line.startswith("judged" if number == NEVER else "waits"):
                break
    time.sleep(1)
    for process in both:
        process.send_signal(signal.SIGTERM)
    found = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [75, 75], found
    code, _, err = run([NEVER, *command], cache, program=("-c", PROGRAM))
    assert code == 0, err
    assert_same(tmp_path, alone, FOLDERS)


def test_sigterm_to_one_of_two_processes_ends_it_without_the_other(place, cache, alone, tmp_path):
    command = arguments(place, tmp_path, *SOME)
    both = start_both(command, cache, (NEVER, "1"))
    for line in both[1].stdout:
        if line.startswith("waits"):
            break
    both[1].send_signal(signal.SIGTERM)
    try:
        _, err = both[1].communicate(timeout=60)  # JAX alone would wait for the other for 300 s
    finally:
        both[0].kill()
        both[0].communicate()
    assert both[1].returncode == 75, err
    code, _, err = run([NEVER, *command], cache, program=("-c", PROGRAM))
    assert code == 0, err
    assert_same(tmp_path, alone, FOLDERS)


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    """The directory of a tiny trained run."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    code, _, err = run(flags(workdir, evals__held_out__source__num_scenes=7), cache)
    assert code == 0, err
    return workdir


def test_the_evaluations_of_a_run_have_the_runs_own_numbers(trained, cache, tmp_path):
    command = ["--checkpoint", str(trained), "--benchmark", "run", "--output", str(tmp_path)]
    code, out, err = run(command, cache, program=("-m", "unilseg_jax.evaluate"))
    assert code == 0, err
    summary = json.loads((trained / "summary.json").read_text())
    assert {path.name for path in tmp_path.iterdir()} == {f"run-{name}" for name in summary["evals"]}
    for name, wanted in summary["evals"].items():
        entries = json.loads((tmp_path / f"run-{name}" / "results.json").read_text())["numbers"]
        whole = entries[0]
        assert whole["passport"]["sentences"] == "all"
        assert whole["passport"]["leakage"]["status"] == "clean"
        honest = wanted["honest"]
        for key, value in whole["metrics"].items():
            assert value == honest["all"][key], (name, key)
        assert whole["passport"]["phrases"] == honest["all"]["count"]
        for kind, numbers in honest["kinds"].items():
            if len(honest["kinds"]) > 1:
                assert whole["groups"][kind]["oiou"] == numbers["oiou"]
    assert "run/held_out" in out


def test_an_evaluation_of_a_run_by_name_and_its_first_pictures(trained, cache, tmp_path):
    command = ["--checkpoint", str(trained), "--benchmark", "run:held_out", "--output", str(tmp_path)]
    for more, images, complete in ((["--max-images=3"], 3, False), ([], 7, True)):
        code, _, err = run([*command, *more], cache, program=("-m", "unilseg_jax.evaluate"))
        assert code == 0, err
        entries = json.loads((tmp_path / "run-held_out" / "results.json").read_text())["numbers"]
        assert {entry["passport"]["images"] for entry in entries} == {images}
        assert {entry["passport"]["complete"] for entry in entries} == {complete}
    code, _, err = run([*command[:3], "run:absent", *command[4:]], cache, program=("-m", "unilseg_jax.evaluate"))
    assert code == 2
    assert "the run has no evaluation 'absent'; it has glance, held_out" in err or "it has held_out, glance" in err
