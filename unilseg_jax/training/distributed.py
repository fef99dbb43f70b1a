"""Several processes that train one model: how they find one another, wait for one another and add up counts."""

import contextlib
import os
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from unilseg_jax.errors import ExternalError, UserError, alone, of_system, one_of_several

AUTO = "auto"
"""A coordinator that JAX itself shall find, as it can on TPU pods and under MPI."""
_LOOK_SECONDS = 0.2
_SEEN_WITHIN = 20.0
"""Seconds after which a file that another process has made is taken for missing."""
WEEK = 7 * 24 * 3600.0
"""Seconds; where one process works alone, it takes as long as it takes, and the others must not leave before."""
WAITING = "waiting"
"""Folder of the run's directory with a file for each process that waits for the others to start."""
_TOUCHED_EVERY, _FRESH = 5.0, 30.0
"""Seconds between two signs of life of a process that waits, and after which one is taken for dead."""


class Names(NamedTuple):
    """What users call the arguments of `processes_of`, for messages."""

    coordinator: str = "config.distributed.coordinator"
    num_processes: str = "config.distributed.num_processes"
    process_id: str = "config.distributed.process_id"


CONFIG, PODS = Names(), Names("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JOB_COMPLETION_INDEX")


def processes_of(
    environment: Mapping[str, str], *, coordinator: str, num_processes: int, process_id: int, names: Names = CONFIG
) -> dict:
    """Returns the arguments of `jax.distributed.initialize`; none for a run of one process.

    Args:
        environment: variables of the process. Slurm's `srun` sets its own; in an indexed Job of Kubernetes the
            variables `JAX_COORDINATOR_ADDRESS` and `JAX_NUM_PROCESSES` of its pods say the rest. A pod that is not
            the first of its Job and is not told how many there are is refused: each of them would train alone, all
            into one directory.
        coordinator: host:port of process 0; "" looks into the environment, `AUTO` lets JAX look.
        num_processes: of the run, if a host is given.
        process_id: 0 to num_processes - 1, as well.
        names: of these three.

    Raises:
        UserError: the three do not fit together, or a variable cannot be used.
    """
    if coordinator and coordinator != AUTO:
        if not re.fullmatch(r".+:\d+", coordinator):
            raise UserError(f"{names.coordinator} = {coordinator!r} must be host:port, or {AUTO!r}")
        if not 1 <= int(coordinator.rpartition(":")[2]) < 2**16:
            raise UserError(f"{names.coordinator} = {coordinator!r}: the port must be 1 to 65535")
        if not 0 <= process_id < num_processes:
            raise UserError(
                f"{names.process_id} = {process_id} must be 0 to {names.num_processes} - 1, and that is "
                f"{num_processes}; give both with the coordinator"
            )
        return {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
            "cluster_detection_method": "deactivate",
        }
    if num_processes or process_id >= 0:
        raise UserError(f"{names.num_processes} and {names.process_id} need {names.coordinator}, which is host:port")
    if coordinator == AUTO:
        return {"cluster_detection_method": None}
    if _number(environment, "SLURM_STEP_NUM_TASKS", least=1, absent=1) > 1:
        # JAX then gives each process the GPU of its number on the node, so all of them must be visible to it.
        return {"cluster_detection_method": "slurm"}
    pod = _number(environment, "JOB_COMPLETION_INDEX", least=0, absent=-1)
    if pod > 0 and "JAX_NUM_PROCESSES" not in environment:
        raise UserError(
            f"JOB_COMPLETION_INDEX = {pod} is of a Job of several pods, and JAX_NUM_PROCESSES is not set; set it to "
            "the number of pods that train together (1: each alone, in a directory of its own)"
        )
    pods = _number(environment, "JAX_NUM_PROCESSES", least=1, absent=1) if pod >= 0 else 1
    if pods > 1:
        return processes_of(
            {},
            coordinator=environment.get("JAX_COORDINATOR_ADDRESS", "(no JAX_COORDINATOR_ADDRESS)"),
            num_processes=pods,
            process_id=pod,
            names=PODS,
        )
    return {}


def _number(environment: Mapping[str, str], name: str, *, least: int, absent: int) -> int:
    """Returns the number that a variable holds."""
    text = environment.get(name)
    if text is None:
        return absent
    if not re.fullmatch(r"[0-9]+", text) or int(text) < least:
        raise UserError(f"the variable {name} = {text!r} must be a whole number, at least {least}; set or unset it")
    return int(text)


def _place(arguments: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[int, int | None]:
    """Returns how many processes there are and which one this is; (0, None) where only JAX knows it."""
    if "process_id" in arguments:
        return arguments["num_processes"], arguments["process_id"]
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS", least=1, absent=1)
    if tasks > 1 and "SLURM_PROCID" in environment:
        return tasks, _number(environment, "SLURM_PROCID", least=0, absent=0)
    return 0, None


def connect(
    directory: Path,
    *,
    coordinator: str,
    num_processes: int,
    process_id: int,
    timeout: float,
    names: Names = CONFIG,
    stops_together: bool = True,
    leave: Callable[[], None] = lambda: None,
) -> None:
    """Joins this process to the others of its run, if there are any; before JAX touches a device.

    Args:
        directory: the run's directory, which all processes see.
        coordinator: see `processes_of`.
        num_processes: as well.
        process_id: as well.
        timeout: seconds to wait for the others.
        names: see `processes_of`.
        stops_together: leave SIGTERM to JAX if there are several processes, which can then agree on a step to stop
            after. Otherwise, and with one process, Python's handler stays.
        leave: called again and again while this one waits; what it raises ends the waiting.

    Raises:
        UserError: the arguments do not fit together, there is no cluster to be found, or the processes do not see the
            same directory.
        ExternalError: processes are missing after the timeout, and it says which, or which hosts have come; or the
            disk is full. After this and after what `leave` raised the process has to end: JAX still waits in a thread,
            and ends it in the end.
    """
    arguments = processes_of(
        os.environ, coordinator=coordinator, num_processes=num_processes, process_id=process_id, names=names
    )
    if jax.distributed.is_initialized():  # by whoever calls this
        if jax.process_count() > 1:
            one_of_several(is_first=jax.process_index() == 0)
        return
    if not arguments:
        return
    count, number = _place(arguments, os.environ)
    if number == 0 and "coordinator_address" in arguments:
        _check_port(arguments["coordinator_address"], names)
    if not stops_together or count == 1:
        jax.config.update("jax_enable_preemption_service", False)  # which would take SIGTERM
    waiting = Waiting(directory, number, timeout)
    until = time.monotonic() + timeout

    def look() -> None:
        leave()
        waiting.touch()
        if time.monotonic() > until:
            waiting.give_up()
            came = waiting.came()
            absent = [str(number) for number in range(count) if str(number) not in came]
            hosts = [] if count else sorted({name.rpartition(".")[0] for name in came})
            raise ExternalError(_message("the start", timeout, absent, hosts))

    def initialize() -> None:
        try:
            # JAX ends a process that has waited too long without a word about the others.
            jax.distributed.initialize(**arguments, initialization_timeout=round(timeout) + 60)
        except ValueError as error:
            raise UserError(f"no cluster found here ({error}); {names.coordinator} wants host:port") from None

    one_of_several(is_first=False, connected=False)
    try:
        _aside(initialize, look)
    finally:
        waiting.end()
    one_of_several(is_first=not number)  # 0, or only JAX knows it
    if (count or jax.process_count()) == 1:
        alone()
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # JAX has it where only it knew the number
        return
    _check_shared(directory, min(timeout, _SEEN_WITHIN))


class Waiting:
    """Files of the processes that wait, by which each can tell who is missing.

    They are named by the process's number, or where only JAX knows that, by its host. A process touches its own while
    it waits; what has not been touched for a while is of one that has died, unless it says that it gave up.
    """

    _GAVE_UP = "gave up"

    def __init__(self, directory: Path, number: int | None, timeout: float):
        """Makes this process's file.

        Args:
            directory: the run's.
            number: of the process; None if only JAX knows it.
            timeout: seconds after which a process gives up.

        Raises:
            UserError: it cannot be made.
            ExternalError: the disk is full.
        """
        self._folder = directory / WAITING
        self._mine = self._folder / (f"{socket.gethostname()}.{os.getpid()}" if number is None else str(number))
        self._timeout = timeout
        self._touched = time.monotonic()
        self._stays = False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._mine.write_text(f"{socket.gethostname()} {os.getpid()}\n")
        except OSError as error:
            raise of_system(f"cannot write to {str(directory)!r}, which all processes need", error) from error

    def touch(self) -> None:
        """Says, now and then, that this process is alive."""
        if time.monotonic() > self._touched + _TOUCHED_EVERY:
            self._touched = time.monotonic()
            with contextlib.suppress(OSError):
                self._mine.touch()

    def give_up(self) -> None:
        """Says that this process has waited in vain: the others must not take it for missing."""
        self._stays = True
        with contextlib.suppress(OSError):
            self._mine.write_text(f"{self._GAVE_UP}\n")

    def came(self) -> set[str]:
        """Returns the names of the processes that wait, or gave up no longer than the timeout ago."""
        return {path.name for path, age in self._ages() if self._counts(path, age)}

    def end(self) -> None:
        """Removes the file, unless this process gave up, and what is left of an earlier start that failed."""
        for path, age in self._ages():
            if not self._stays if path == self._mine else not self._counts(path, age):
                with contextlib.suppress(OSError):  # a folder, or somebody else's
                    path.unlink()
        with contextlib.suppress(OSError):  # others are still there
            self._folder.rmdir()

    def _ages(self) -> list[tuple[Path, float]]:
        """Returns the files, and how many seconds before this process's own they were touched: by one clock."""
        now, ages = time.time(), []
        with contextlib.suppress(OSError):
            self._mine.touch()
            now = self._mine.stat().st_mtime
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                with contextlib.suppress(OSError):  # it has gone meanwhile
                    ages.append((path, now - path.stat().st_mtime))
        return ages

    def _counts(self, path: Path, age: float) -> bool:
        """Whether the process of a file lives, or gave up not long ago."""
        if age < _FRESH:
            return True
        with contextlib.suppress(OSError):
            return age < self._timeout and path.read_text().startswith(self._GAVE_UP)
        return False


def _check_port(coordinator: str, names: Names) -> None:
    """Refuses a port of this host that somebody else has; JAX would end without a word."""
    try:
        socket.create_server(("", int(coordinator.rpartition(":")[2]))).close()
    except OSError as error:
        raise UserError(
            f"{names.coordinator} = {coordinator!r}: the port cannot be used on this host: "
            f"{os.strerror(error.errno or 0)}; choose another"
        ) from None


def _check_shared(directory: Path, seconds: float) -> None:
    """Refuses a folder of which not all processes see the same: they would wait for one another's files for ever.

    Raises:
        UserError: in all processes alike.
    """
    number = int(multihost_utils.broadcast_one_to_all(np.int32(secrets.randbelow(2**31))))
    mark = directory / f"seen-by-all-{number}"
    if jax.process_index() == 0:
        mark.touch()
    agreed(True)  # it is there now
    until = time.monotonic() + seconds
    while not (seen := mark.exists()) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    shared = all_say(seen)
    if jax.process_index() == 0:
        mark.unlink(missing_ok=True)
    if not shared:
        raise UserError(
            f"the processes do not see the same {str(directory)!r}; name a folder of a file system that all share"
        )


def wait_for_all(what: str, timeout: float, leave: Callable[[], None] | None = None) -> None:
    """Waits until every process of the run has come here.

    Args:
        what: that they wait for; for the message.
        timeout: seconds.
        leave: called again and again meanwhile; what it raises ends the waiting. None waits in one piece, in which
            Python answers to no signal.

    Raises:
        ExternalError: processes are missing after the timeout; names them.
    """
    if jax.process_count() == 1:
        return
    barrier = ocp.multihost.get_barrier_sync_fn()

    def arrive() -> None:
        try:
            barrier(key=what, timeout_ms=round(1000 * timeout))
        except (
            RuntimeError
        ) as error:  # JAX's coordination service names its tasks 3, or /job:jax_worker/replica:0/task:3
            named = re.search(r"timed out task names:((?:\s*[\w:/]*\d+,?\s)*)", str(error))
            absent = re.findall(r"(\d+),?\s", named.group(1)) if named else []
            raise ExternalError(_message(what, timeout, absent)) from error

    if leave is None:
        arrive()
    else:
        _aside(arrive, leave)


def _aside(call: Callable[[], None], leave: Callable[[], None]) -> None:
    """Calls in a thread, and `leave` until that has ended; if it raises, this process leaves the others for good."""
    failed: list[BaseException] = []

    def called() -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=called, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_SECONDS)
        if thread.is_alive():
            leave()  # the thread stays behind, and `run_command` ends the process without it
    if failed:
        raise failed[0]


def _message(what: str, timeout: float, absent: Sequence[str], hosts: Sequence[str] = ()) -> str:
    who = f"process {', '.join(absent)} did not come" if absent else "not all processes came"
    came = f", only those of {', '.join(hosts)}" if hosts else ""
    return f"waited {timeout:g} s for {what}: {who}{came}; see the logs, then start the run again"


def on_host(tree: Any) -> Any:
    """Returns the arrays of a structure as whole NumPy arrays, wherever their parts lie."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def agreed(decision: bool) -> bool:
    """Returns what process 0 decided."""
    return bool(multihost_utils.broadcast_one_to_all(np.int32(decision)))


def all_say(yes: bool) -> bool:
    """Returns whether all processes say yes."""
    return bool(np.all(multihost_utils.process_allgather(np.int32(yes))))


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """Returns the rows of all processes, those of process 0 first.

    Args:
        rows: int32 (n, k); n may be another for each process, k may not.
    """
    if jax.process_count() == 1:
        return rows
    counts = multihost_utils.process_allgather(np.int32(len(rows)))
    padded = np.zeros((int(counts.max()), rows.shape[1]), np.int32)
    padded[: len(rows)] = rows
    gathered = multihost_utils.process_allgather(padded)
    return np.concatenate([part[:count] for part, count in zip(gathered, counts, strict=True)])
