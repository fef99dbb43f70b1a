"""The scripts that start runs, with the programs they call replaced by ones that write down how they were called."""

import fnmatch
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from unilseg_jax.config import base_config
from unilseg_jax.errors import EXIT_CODES, StoppedBySignal
from unilseg_jax.training.distributed import processes_of

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))


@pytest.fixture
def programs(tmp_path):
    """A folder that stands first in PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


def add(programs, name, body):
    """Adds a program that notes its arguments in `NAME.calls` and does what `body` says."""
    path = programs / name
    path.write_text(f'#!/bin/bash\necho "$@" >> {programs / name}.calls\n{body}\n')
    path.chmod(0o755)


def calls(programs, name):
    path = programs / f"{name}.calls"
    return path.read_text().splitlines() if path.exists() else []


def launch(programs, script, *arguments, **variables):
    environment = {**os.environ, **variables, "PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", LAUNCH / script, *arguments], env=environment, capture_output=True, text=True, timeout=30
    )


def ends_with(programs, codes):
    """Returns the body of a program that ends with these codes, one after the other."""
    return f'set -- {codes}\nturn=$(wc -l < "{programs}/python.calls")\nexit "${{!turn}}"'


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash_and_says_how_it_is_used(script, programs):
    assert len(SCRIPTS) >= 4
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    found = launch(programs, script.name)
    assert found.returncode == 2
    assert found.stderr.startswith("usage: ")


@pytest.mark.parametrize(
    ("codes", "wanted", "times"),
    [
        ("0", 0, 1),
        ("2", 2, 1),
        ("3", 3, 1),
        ("130", 130, 1),
        ("75 75 75 75 75 0", 0, 6),
        ("1 137 0", 0, 3),
        ("1 75 1 1", 1, 4),
    ],
)
def test_a_local_run_starts_again_where_that_helps(programs, codes, wanted, times):
    add(programs, "python", ends_with(programs, codes))
    found = launch(programs, "local.sh", "configs/quickstart.py", "runs/q", "--config.seed=1", RESTARTS="2")
    assert found.returncode == wanted
    assert (
        calls(programs, "python")
        == ["-m unilseg_jax.train --config configs/quickstart.py --workdir runs/q --config.seed=1"] * times
    )


@pytest.mark.parametrize(
    ("number", "listens"),
    [
        (signal.SIGTERM, "trap 'sleep 0.3; exit 75' TERM"),
        (signal.SIGUSR1, "trap 'sleep 0.3; exit 75' TERM"),
        (signal.SIGINT, "trap 'sleep 0.3; exit 75' TERM"),
        (signal.SIGTERM, "# not yet"),
    ],
)
def test_a_signal_to_the_local_script_stops_the_run_for_good(programs, number, listens):
    add(programs, "python", f"{listens}\ntouch {programs}/ready\nfor _ in $(seq 100); do sleep 0.1; done")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["bash", LAUNCH / "local.sh", "c.py", "w"],
        env=environment,
        stderr=subprocess.PIPE,
        # What runs in the background may have inherited that SIGINT is ignored, and Bash cannot trap that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (programs / "ready").exists():
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=8) == EXIT_CODES[StoppedBySignal]
    process.stderr.close()
    assert len(calls(programs, "python")) == 1


@pytest.mark.parametrize("code", [0, 3, EXIT_CODES[StoppedBySignal]])
def test_a_signal_just_as_the_run_ends_never_looks_like_a_crash(programs, code):
    """Bash may have lost the run's code then."""
    ends = f"import os; os.kill(os.getppid(), {signal.SIGTERM:d}); os._exit({code})"
    add(programs, "python", f"trap '' TERM; exec {sys.executable} -S -E -c '{ends}'")
    found = {launch(programs, "local.sh", "c.py", "w").returncode for _ in range(20)}
    assert found <= {code, EXIT_CODES[StoppedBySignal]}


@pytest.mark.parametrize(
    ("script", "program", "given", "wanted"),
    [
        ("local.sh", "python", {}, "runs/q/compiled"),
        ("local.sh", "python", {"JAX_COMPILATION_CACHE_DIR": "/c"}, "/c"),
        ("slurm.sh", "srun", {}, "runs/q/compiled"),
    ],
)
def test_what_starts_again_finds_its_compiled_programs(programs, script, program, given, wanted):
    add(programs, program, f'echo "$JAX_COMPILATION_CACHE_DIR" > {programs}/found')
    launch(programs, script, "c.py", "runs/q", **given)
    assert (programs / "found").read_text() == f"{wanted}\n"


def directives():
    lines = (LAUNCH / "slurm.sh").read_text().splitlines()
    return dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines if line.startswith("#SBATCH"))


def test_slurm_gives_each_gpu_a_process_that_sees_all_gpus():
    found = directives()
    assert found["ntasks-per-node"] == found["gpus-per-node"]
    assert found["signal"] == "USR1@300"
    assert "requeue" in found
    text = (LAUNCH / "slurm.sh").read_text()
    assert not re.search(r"--(gpus-per-task|gpu-bind|gres)", text)
    assert "CUDA_VISIBLE_DEVICES" not in text


@pytest.mark.parametrize(("code", "queued_again"), [(0, False), (2, False), (74, False), (75, True)])
def test_slurm_queues_the_job_again_once_all_is_saved(programs, code, queued_again):
    add(programs, "srun", f"exit {code}")
    add(programs, "scontrol", "")
    found = launch(programs, "slurm.sh", "c.py", "/runs/a b", "--config.seed=1", SLURM_JOB_ID="17")
    assert found.returncode == code
    assert calls(programs, "scontrol") == (["requeue 17"] if queued_again else [])
    (call,) = calls(programs, "srun")
    assert call.endswith("python -m unilseg_jax.train --config c.py --workdir /runs/a b --config.seed=1")
    # Tasks that still save when the first one ends are not killed at once, nor waited for without end.
    assert "--kill-on-bad-exit=0 --wait=120 " in call


def test_every_host_of_a_tpu_runs_the_same_command(programs):
    add(programs, "gcloud", 'for last; do :; done; bash -c "${last#--command=cd ~/unilseg_jax && launch/}"')
    add(programs, "local.sh", "")
    found = launch(programs, "tpu_vm.sh", "c.py", "/runs/a b", "--config.seed=1", TPU="pod", ZONE="somewhere")
    assert found.returncode == 0, found.stderr
    assert calls(programs, "gcloud")[0].startswith(
        "compute tpus tpu-vm ssh pod --zone=somewhere --worker=all --command="
    )
    assert calls(programs, "local.sh") == ["c.py /runs/a b --config.distributed.coordinator=auto --config.seed=1"]
    assert processes_of({}, coordinator="auto", num_processes=0, process_id=-1)


@pytest.fixture(scope="module")
def jobset():
    return yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())


def test_the_jobset_numbers_its_pods_and_starts_them_together(jobset):
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert workers["replicas"] == 1
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"]
    assert job["backoffLimit"] == 0
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [2, 3]
    (container,) = job["template"]["spec"]["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in job["template"]["spec"]["volumes"]
    }


def test_the_pods_of_the_jobset_find_one_another(jobset):
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert all(isinstance(value, str) for value in variables.values())
    defaults = {key: value for key, value in base_config().distributed.items() if key != "timeout"}
    last = processes_of({**variables, "JOB_COMPLETION_INDEX": str(job["completions"] - 1)}, **defaults)
    assert (last["num_processes"], last["process_id"]) == (job["completions"], job["completions"] - 1)
    name, port = jobset["metadata"]["name"], container["ports"][0]["containerPort"]
    assert last["coordinator_address"] == f"{name}-{workers['name']}-0-0.{name}:{port}"
    assert all(argument.startswith(("--config=", "--config.", "--workdir=")) for argument in container["args"])


@pytest.mark.slow
@pytest.mark.parametrize(("more", "code"), [([], 0), (["--config.optim.accumulate=1"], 2)])
def test_the_jobset_fits_gpus_of_80_gb(jobset, more, code):
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    gpus = job["completions"] * container["resources"]["limits"]["nvidia.com/gpu"]
    config = [argument for argument in container["args"] if not argument.startswith("--workdir")]
    command = [sys.executable, "-m", "unilseg_jax.plan", *config, *more, f"--chips={gpus}xH100", "--estimate"]
    assert subprocess.run(command, cwd=LAUNCH.parent, capture_output=True).returncode == code


def test_the_image_gets_what_it_installs_and_runs():
    root = LAUNCH.parent
    lines = (root / ".dockerignore").read_text().splitlines()
    left_out = {line.strip("/") for line in lines if line and not line.startswith("#")}
    assert {".git", "runs", "prepared", "**/venv", "**/.venv"} <= left_out
    needed = [root / name for name in ("pyproject.toml", "setup.py", "README.md")]
    for folder in ("unilseg_jax", "configs", "data"):
        needed += [
            path for path in root.glob(f"{folder}/**/*") if path.suffix in (".py", ".json", ".txt", ".gz", ".md")
        ]
    assert len(needed) > 100
    for path in needed:
        assert path.exists()
        parts = path.relative_to(root).parts
        anywhere = [each.removeprefix("**/") for each in left_out if each.startswith("**/")]
        assert parts[0] not in left_out, path
        assert not [part for part in parts if any(fnmatch.fnmatch(part, each) for each in anywhere)], path


def test_signals_reach_the_run_in_its_container():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    (entry,) = [line for line in lines if line.startswith("ENTRYPOINT")]
    assert entry == 'ENTRYPOINT ["python", "-m", "unilseg_jax.train"]'
    assert not [line for line in lines if line.startswith("CMD")]
