"""Several processes as one run; what needs more than one is run in processes of their own."""

import re
import subprocess
import sys

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
    [{}, SLURM, {**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, {**POD, "JAX_NUM_PROCESSES": "1"}],
    ids=["a desk", "a batch script of Slurm, not its tasks", "one task of Slurm", "one pod"],
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
        ({}, {"coordinator": "a:1"}, "process_id = -1 must be 0 to num_processes - 1"),
        ({}, {"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "process_id = 2 must be 0 to"),
        ({}, {"num_processes": 2}, "need config.distributed.coordinator"),
        ({key: POD[key] for key in list(POD)[:2]}, {}, "no JAX_COORDINATOR_ADDRESS"),
    ],
)
def test_flags_that_do_not_fit_are_refused(variables, flags, message):
    with pytest.raises(UserError, match=re.escape(message)):
        found(variables, **flags)


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
from unilseg_jax.errors import ExternalError
from unilseg_jax.training import distributed

me = int(sys.argv[3])
distributed.connect(
    Path(sys.argv[1]), coordinator=sys.argv[2], num_processes=2, process_id=me, timeout=float(sys.argv[4])
)
rows = distributed.gather_rows(np.full((1 + 2 * me, 2), 7 + me, np.int32))
print("rows", rows[:, 0].tolist(), "agreed", distributed.agreed(me == 0), flush=True)
distributed.wait_for_all("both", 30)
try:
    if me == 0:
        distributed.wait_for_all("the end", 1)
except ExternalError as error:
    print(error, flush=True)
else:
    time.sleep(2)
os._exit(0)
"""


def process(folder, coordinator, number, timeout):
    arguments = [str(folder), coordinator, str(number), str(timeout)]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        env=environment(),
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
    assert "waited 1 s for the end: process 1 did not come; " in outputs[0][0], outputs[0][1]
    assert not list((tmp_path / distributed.WAITING).iterdir())


def test_a_process_that_never_starts_is_named(tmp_path):
    alone = process(tmp_path, f"127.0.0.1:{free_port()}", 0, 0.5)
    _, err = alone.communicate(timeout=60)
    assert alone.returncode == 74
    assert "error: waited 0.5 s for the start: process 1 did not come; " in err
