"""A run of `configs/quickstart.py` shrunk to seconds, as flags; processes that share what they compiled."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = "configs/quickstart.py"
STEPS, CHECKPOINT_EVERY, EVALUATE_EVERY, SCENES = 12, 3, 5, 5

ARCHITECTURE = {
    "embed_dim": 8,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 1, 1, 1),
    "window_size": 4,
    "text_width": 64,
    "text_layers": 1,
    "sentence_width": 16,
    "query_width": 8,
    "query_layers": 1,
    "ffn_width": 8,
    "word_len": 14,
}
"""The least that every box of the paper can be built with; the vocabulary stays CLIP's."""

CHANGES = {
    **{f"model.{key}": value for key, value in ARCHITECTURE.items()},
    # The boxes of Table 8 take most of the time to compile; what stays has the noise of stochastic depth.
    "model.pre_fusion": False,
    "model.language_path": False,
    "model.vision_path": False,
    "model.stochastic_depth": 0.5,
    "steps": STEPS,
    "input.size": 32,
    "input.batch_size": 2,
    "input.prompts": 2,
    "optim.learning_rate": 1e-3,
    "optim.warmup_steps": 50,
    "checkpoint_every": CHECKPOINT_EVERY,
    "log_every": 1,
    "best_metric": "held_out/oiou",
    "pictures": 2,
    "evals.held_out.every": EVALUATE_EVERY,
    "evals.held_out.source.num_scenes": SCENES,
    "evals.held_out.batch_size": 2,
    "evals.glance.source.num_scenes": 1,
}


def flags(workdir: object, config: str = QUICKSTART, **more: object) -> list[str]:
    """Returns the arguments of `train` for a run in `workdir`; dots of keys in `more` are written `__`."""
    changes = {**CHANGES, **{key.replace("__", "."): value for key, value in more.items()}}
    return [
        f"--config={config}",
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in changes.items()),
    ]


def free_port() -> int:
    """Returns a port of this machine that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(cache: object = None, devices: int = 1) -> dict[str, str]:
    """Returns the environment of a user's process, without the simulated devices of the tests.

    Args:
        cache: folder of compiled programs that several processes share.
        devices: to be simulated in this process.
    """
    found = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    found["JAX_PLATFORMS"] = "cpu"
    if devices > 1:
        found["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    if cache is not None:
        found |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        # Compiling takes most of the time; what is computed stays the same but for rounding.
        found["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    return found


def start(
    arguments: list[str],
    cache: object = None,
    devices: int = 1,
    program: tuple[str, str] = ("-m", "unilseg_jax.train"),
    **options: object,
) -> subprocess.Popen:
    """Starts `python -m unilseg_jax.train`, or another program, as a user would; `options` are `Popen`'s."""
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        env=environment(cache, devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(arguments: list[str], cache: object = None, devices: int = 1, **options: object) -> tuple[int, str, str]:
    """Runs the command to its end and returns exit code, stdout and stderr."""
    process = start(arguments, cache, devices, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def stop_at(line_start: str, number: int, arguments: list[str], cache: object = None) -> tuple[int, str]:
    """Runs the command, sends it a signal once it prints a line, and returns exit code and stderr."""
    process = start(arguments, cache)
    for line in process.stdout:
        if line.startswith(line_start):
            process.send_signal(number)
            break
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def workers_of(process: subprocess.Popen) -> list[int]:
    """Returns the numbers of the processes that make pictures for a run."""
    found = []
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended, or a child
            for pid in map(int, (task / "children").read_text().split()):
                if b"multiprocessing-fork" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
    return found


def wait_until(happened: Callable[[], object], running: Sequence[subprocess.Popen], seconds: float = 240) -> None:
    """Returns once something has happened; the processes must not have ended before."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert all(process.poll() is None for process in running), [process.communicate() for process in running]
        assert time.monotonic() < deadline
        time.sleep(0.005)


CLOCK = {"images_per_s", "seconds", "model_tflop_per_s", "data_s", "checkpoint_s", "compute_s"}
"""What a run writes about each step that depends on the clock."""


def entries(workdir: Path, prefix: str) -> list[dict]:
    """Returns the lines of `metrics.jsonl` whose numbers have the prefix, in order."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if any(key.startswith(prefix) for key in line)]


def curve(workdir: Path) -> list[dict]:
    """Returns everything about the steps that does not depend on the clock."""
    return [
        {key: value for key, value in line.items() if key.removeprefix("train/") not in CLOCK}
        for line in entries(workdir, "train/")
    ]


def evaluated(workdir: Path, name: str) -> list[int]:
    """Returns the steps of the lines of an evaluation."""
    return [line["step"] for line in entries(workdir, f"{name}/")]


def evaluations() -> list[int]:
    """Returns the steps after which the run evaluates."""
    return [*range(EVALUATE_EVERY, STEPS, EVALUATE_EVERY), STEPS]
