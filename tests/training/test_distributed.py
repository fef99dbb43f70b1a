"""Several processes as one run; what needs more than one is run in processes of their own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny_run import ROOT, environment, free_port

from unilseg_jax.errors import UserError
from unilseg_jax.training import distributed

NOTHING = {"coordinator": "", "num_processes": 0, "process_id": -1}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16", "SLURM_PROCID": "3", "SLURM_LOCALID": "3"}
POD = {"JOB_COMPLETION_INDEX": "3", "JAX_NUM_PROCESSES": "4", "JAX_COORDINATOR_ADDRESS": "train-workers-0-0.train:8476"}


def found(variables, **flags):
    return distributed.processes_of(variables, **{**NOTHING, **flags})


@pytest.mark.parametrize(
    "variables",
    [
        {},
        SLURM,
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1"},
        {**POD, "JAX_NUM_PROCESSES": "1"},
        {"JOB_COMPLETION_INDEX": "0"},
    ],
    ids=[
        "a desk",
        "a batch script of Slurm, not its tasks",
        "one task of Slurm",
        "pods for themselves",
        "a Job of one",
    ],
)
def test_a_process_alone_joins_nobody(variables):
    assert found(variables) == {}


def test_slurm_is_detected():
    assert found({**SLURM, "SLURM_STEP_NUM_TASKS": "16"}) == {"cluster_detection_method": "slurm"}


def test_flags_and_an_indexed_job_of_kubernetes_say_the_same():
    coordinator = POD["JAX_COORDINATOR_ADDRESS"]
    wanted = {"coordinator_address": coordinator, "num_processes": 4, "process_id": 3}
    wanted["cluster_detection_method"] = "deactivate"
    assert found(POD) == wanted
    assert found({}, coordinator=coordinator, num_processes=4, process_id=3) == wanted


def test_flags_count_more_than_the_cluster():
    assert found(POD, coordinator="a:1", num_processes=2, process_id=0)["num_processes"] == 2


@pytest.mark.parametrize(
    ("variables", "flags", "message"),
    [
        ({}, {"coordinator": "a"}, "'a' must be host:port"),
        ({}, {"coordinator": "a:1"}, "process_id = -1 must be 0 to config.distributed.num_processes - 1"),
        ({}, {"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "process_id = 2 must be 0 to"),
        ({}, {"coordinator": "a:99999", "num_processes": 2, "process_id": 0}, "'a:99999': the port must be 1 to 65535"),
        ({}, {"num_processes": 2}, "need config.distributed.coordinator, which is host:port"),
        ({key: POD[key] for key in list(POD)[:2]}, {}, "no JAX_COORDINATOR_ADDRESS"),
    ],
)
def test_flags_that_do_not_fit_are_refused(variables, flags, message):
    with pytest.raises(UserError, match=re.escape(message)):
        found(variables, **flags)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"JAX_NUM_PROCESSES": "abc"}, "the variable JAX_NUM_PROCESSES = 'abc' must be a whole number, at least 1"),
        ({"JAX_NUM_PROCESSES": "0"}, "the variable JAX_NUM_PROCESSES = '0' must be a whole number, at least 1"),
        ({"JAX_NUM_PROCESSES": ""}, "the variable JAX_NUM_PROCESSES = '' must be a whole number, at least 1"),
        ({"JOB_COMPLETION_INDEX": "x"}, "the variable JOB_COMPLETION_INDEX = 'x' must be a whole number, at least 0"),
        ({"JOB_COMPLETION_INDEX": "-1"}, "the variable JOB_COMPLETION_INDEX = '-1' must be a whole number"),
        ({"SLURM_STEP_NUM_TASKS": "many"}, "the variable SLURM_STEP_NUM_TASKS = 'many' must be a whole number"),
        ({"JOB_COMPLETION_INDEX": "4"}, "JOB_COMPLETION_INDEX = 4 must be 0 to JAX_NUM_PROCESSES - 1, and that is 4"),
    ],
)
def test_variables_that_say_no_number_of_use_are_refused(changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        found({**POD, **changes})


def test_who_has_flags_is_told_of_flags():
    names = distributed.Names("--coordinator", "--num-processes", "--process-id")
    with pytest.raises(UserError, match=r"^--process-id = 2 must be 0 to --num-processes - 1, and that is 2; "):
        found({}, coordinator="a:1", num_processes=2, process_id=2, names=names)
    with pytest.raises(UserError, match=r"^--num-processes and --process-id need --coordinator, which is host:port$"):
        found({}, num_processes=2, names=names)


def test_pods_that_are_not_told_their_number_do_not_train_each_for_itself():
    lacking = {key: value for key, value in POD.items() if key != "JAX_NUM_PROCESSES"}
    with pytest.raises(UserError, match=r"JOB_COMPLETION_INDEX = 3 is of .* JAX_NUM_PROCESSES is not set; set it"):
        found(lacking)
    assert found(lacking, coordinator="a:1", num_processes=2, process_id=1)["process_id"] == 1


def test_alone_nothing_is_waited_for_and_rows_stay():
    distributed.wait_for_all("nobody", 0.0)
    rows = np.arange(6, dtype=np.int32).reshape(3, 2)
    np.testing.assert_array_equal(distributed.gather_rows(rows), rows)
    assert distributed.agreed(True) is True
    assert distributed.agreed(False) is False


PROGRAM = """
import os, sys, time
from pathlib import Path
import jax
import numpy as np
from unilseg_jax.errors import ExternalError, run_command
from unilseg_jax.training import distributed

me = int(sys.argv[3])
both = {} if sys.argv[2] == distributed.AUTO else {"num_processes": 2, "process_id": me}
both = {"num_processes": 0, "process_id": -1} | both

def main(argv):
    distributed.connect(Path(sys.argv[1]), coordinator=sys.argv[2], timeout=float(sys.argv[4]), **both)
    rows = distributed.gather_rows(np.full((1 + 2 * me, 2), 7 + me, np.int32))
    print("rows", rows[:, 0].tolist(), "agreed", distributed.agreed(me == 0), flush=True)
    distributed.wait_for_all("both", 30)
    if me == 0:
        distributed.wait_for_all("the end", 0.3)
    time.sleep(1)
    os._exit(0)

run_command(main)
"""


ONE_FAILS = """
import sys
from pathlib import Path
from unilseg_jax.errors import UserError, run_command
from unilseg_jax.training import distributed

folder, coordinator, me, fails = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def main(argv):
    distributed.connect(folder, coordinator=coordinator, num_processes=2, process_id=me, timeout=60)
    print("joined", flush=True)
    if me == fails:
        raise {"UserError": UserError, "KeyError": KeyError}[sys.argv[5]]("a line of its own")
    distributed.agreed(True)  # waits for the other

run_command(main)
"""


def process(folder, coordinator, number, *more, program=PROGRAM, **variables):
    arguments = [str(folder), coordinator, str(number), *map(str, more)]
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_gather_agree_and_name_the_one_that_is_missing(tmp_path):
    coordinator = f"127.0.0.1:{free_port()}"
    both = [process(tmp_path, coordinator, number, 60) for number in range(2)]
    outputs = [each.communicate(timeout=60) for each in both]
    for out, err in outputs:
        assert "rows [7, 8, 8, 8] agreed True" in out, err
    assert "error: waited 0.3 s for the end: process 1 did not come; " in outputs[0][1]
    assert [each.returncode for each in both] == [74, 0]
    assert not (tmp_path / distributed.WAITING).exists()


def test_a_process_that_never_starts_is_named(tmp_path):
    alone = process(tmp_path, f"127.0.0.1:{free_port()}", 0, 0.5)
    _, err = alone.communicate(timeout=60)
    assert alone.returncode == 74
    assert "error: waited 0.5 s for the start: process 1 did not come; " in err


def test_one_that_died_while_it_waited_is_named(tmp_path):
    """Its file stays; one that gave up has said so in its own."""
    waiting = tmp_path / distributed.WAITING
    waiting.mkdir()
    for name, text, age in (("1", "gave up", 40), ("2", "node-b 17", 40), ("3", "node-c 17", 10), ("4", "gave up", 70)):
        (waiting / name).write_text(f"{text}\n")
        os.utime(waiting / name, (time.time() - age,) * 2)
    (waiting / "5").symlink_to("nowhere")  # as one that goes while others are looked at
    alone = distributed.Waiting(tmp_path, 0, 60.0)
    assert alone.came() == {"0", "1", "3"}
    alone.end()
    assert sorted(path.name for path in waiting.iterdir()) == ["1", "3", "5"]


def test_one_that_gave_up_stays_told(tmp_path):
    """What an earlier start has left, and may not be removed, does no harm."""
    (tmp_path / distributed.WAITING / "2").mkdir(parents=True)
    os.utime(tmp_path / distributed.WAITING / "2", (0, 0))
    first, second = (distributed.Waiting(tmp_path, number, 60.0) for number in range(2))
    first.give_up()
    first.end()
    assert second.came() == {"0", "1"}
    second.end()
    assert sorted(path.name for path in (tmp_path / distributed.WAITING).iterdir()) == ["0", "2"]


def test_a_process_that_waits_says_that_it_lives(tmp_path, monkeypatch):
    alone = distributed.Waiting(tmp_path, 0, 60.0)
    file = tmp_path / distributed.WAITING / "0"
    os.utime(file, (0, 0))
    alone.touch()
    assert file.stat().st_mtime == 0  # not each time
    monkeypatch.setattr(distributed, "_TOUCHED_EVERY", -1.0)
    alone.touch()
    assert file.stat().st_mtime > 0
    alone.end()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_process_that_waits_hears_sigterm(tmp_path, command):
    place = {"coordinator": f"127.0.0.1:{free_port()}", "num_processes": 2, "process_id": 0}
    if command == "train":
        flags = ["--config=configs/quickstart.py", f"--workdir={tmp_path}"]
        flags += [f"--config.distributed.{key}={value}" for key, value in place.items()]
    else:
        (tmp_path / "model").mkdir()
        flags = [f"--checkpoint={tmp_path / 'model'}", "--benchmark=refcoco:val", f"--data={tmp_path}"]
        flags += [f"--output={tmp_path}", *(f"--{key.replace('_', '-')}={value}" for key, value in place.items())]
    alone = subprocess.Popen(
        [sys.executable, "-m", f"unilseg_jax.{command}", *flags],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not (tmp_path / distributed.WAITING / "0").exists() and alone.poll() is None:
            time.sleep(0.05)
        time.sleep(1)  # it is told, asks JAX, and waits there
        alone.send_signal(signal.SIGTERM)
        _, err = alone.communicate(timeout=20)
    finally:
        alone.kill()
    assert alone.returncode == 75, err
    assert "stopped: SIGTERM came; " in err
    assert not (tmp_path / distributed.WAITING).exists()


@pytest.mark.slow
def test_of_those_that_wait_only_the_absent_one_is_named(tmp_path):
    """Each gives up by its own clock, and the last ones when others have left."""
    coordinator = f"127.0.0.1:{free_port()}"
    program = PROGRAM.replace('"num_processes": 2', '"num_processes": 4')
    assert program != PROGRAM
    came = [process(tmp_path, coordinator, number, 12, program=program) for number in (0, 1, 3)]
    for each in came:
        _, err = each.communicate(timeout=60)
        assert "error: waited 12 s for the start: process 2 did not come; " in err
        assert each.returncode == 74


ASKED_TO_STOP = """
import os, signal, sys
from pathlib import Path
import jax
from unilseg_jax.training import distributed
from unilseg_jax.training.signals import StopRequest

initialize = jax.distributed.initialize

def initialize_and_be_asked(**arguments):
    initialize(**arguments)
    os.kill(os.getpid(), signal.SIGTERM)

jax.distributed.initialize = initialize_and_be_asked
with StopRequest() as stop:
    distributed.connect(Path(sys.argv[1]), coordinator=sys.argv[2], num_processes=1, process_id=0, timeout=20)
    print(stop.signal, stop.reached(1))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_that_was_told_of_no_others_hears_sigterm(tmp_path):
    alone = process(tmp_path, f"127.0.0.1:{free_port()}", 0, program=ASKED_TO_STOP)
    out, err = alone.communicate(timeout=60)
    assert out == "SIGTERM True\n", err
    assert alone.returncode == -signal.SIGTERM


def test_of_processes_that_jax_finds_those_that_came_are_named(tmp_path):
    """JAX finds what Open MPI says: two processes, of which one comes."""
    variables = {
        "OMPI_MCA_orte_hnp_uri": f"{os.getpid() * 2**12}.0;tcp://127.0.0.1:1",  # JAX makes a port of the first number
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "0",
        "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    }
    waiting = tmp_path / distributed.WAITING
    waiting.mkdir()
    (waiting / "node-b.example.17").touch()
    alone = process(tmp_path, distributed.AUTO, 0, 0.5, **variables)
    _, err = alone.communicate(timeout=60)
    assert alone.returncode == 74
    hosts = ", ".join(sorted([socket.gethostname(), "node-b.example"]))
    assert f"error: waited 0.5 s for the start: not all processes came, only those of {hosts}; see" in err
    assert sorted(path.name for path in waiting.iterdir()) == sorted(
        ["node-b.example.17", f"{socket.gethostname()}.{alone.pid}"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fails", "error", "code", "said"),
    [
        (0, "UserError", 2, "error: a line of its own\n"),
        (1, "UserError", 2, "error: a line of its own\n"),
        (1, "KeyError", 1, "Traceback"),
    ],
)
def test_an_error_of_one_process_ends_it_with_its_code_while_the_other_waits(tmp_path, fails, error, code, said):
    coordinator = f"127.0.0.1:{free_port()}"
    both = [process(tmp_path, coordinator, number, fails, error, program=ONE_FAILS) for number in range(2)]
    try:
        _, err = both[fails].communicate(timeout=90)  # JAX alone would wait for 300 s
    finally:
        for each in both:
            each.kill()
    assert both[fails].returncode == code, err
    assert said in err


@pytest.mark.slow
@pytest.mark.parametrize("fails", [0, 1])
def test_a_process_without_its_device_ends_at_once(tmp_path, fails):
    coordinator = f"127.0.0.1:{free_port()}"
    platforms = [{"JAX_PLATFORMS": "abacus"} if number == fails else {} for number in range(2)]
    both = [process(tmp_path, coordinator, number, 60, **platforms[number]) for number in range(2)]
    try:
        _, err = both[fails].communicate(timeout=60)  # JAX alone would wait for 300 s
    finally:
        for each in both:
            each.kill()
    assert both[fails].returncode == 2, err
    assert "error: Unable to initialize backend 'abacus'" in err


@pytest.mark.slow
def test_processes_that_do_not_see_the_same_folder_are_told(tmp_path):
    coordinator = f"127.0.0.1:{free_port()}"
    both = [process(tmp_path / str(number), coordinator, number, 15) for number in range(2)]
    for number, each in enumerate(both):
        _, err = each.communicate(timeout=90)
        assert f"the processes do not see the same '{tmp_path / str(number)}'; name a folder" in err


def test_a_port_that_somebody_else_has_is_told(tmp_path):
    with socket.create_server(("", 0)) as taken:
        coordinator = f"127.0.0.1:{taken.getsockname()[1]}"
        _, err = process(tmp_path, coordinator, 0, 5).communicate(timeout=60)
    assert f"'{coordinator}': the port cannot be used on this host: Address already in use; choose another" in err


def test_where_jax_finds_no_cluster_nothing_is_left(tmp_path):
    _, err = process(tmp_path, distributed.AUTO, 0, 5).communicate(timeout=60)
    assert "error: no cluster found here (" in err
    assert not list(tmp_path.iterdir())
