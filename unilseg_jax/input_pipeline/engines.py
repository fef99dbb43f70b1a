"""Runs a function over many tasks in worker processes: of this machine, or of a Ray cluster.

An engine is called as `engine(function, tasks, workers)` and yields once per finished task, in any order. The
function must be importable by its module, its arguments picklable, and its results lie in files.
"""

import contextlib
import itertools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection

from unilseg_jax.errors import UserError

Engine = Callable[[Callable[..., None], Sequence[tuple], int], Iterator[None]]

_WORKER_DIED = (
    "a worker process died, perhaps for want of memory ({}); run the command again, with fewer --workers: what is "
    "finished is kept"
)


def run_local(function: Callable[..., None], tasks: Sequence[tuple], workers: int) -> Iterator[None]:
    """Runs the tasks in processes of this machine.

    Args:
        function: is called as `function(*task)`.
        tasks: arguments.
        workers: processes at a time, at least 1.

    Raises:
        UserError: a worker process died, or the function raised it.
    """
    if not tasks:
        return
    # Spawned, since ArrayRecord's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=context, initializer=_start_worker, initargs=(reader,)
    )
    try:
        for future in as_completed([pool.submit(function, *task) for task in tasks]):
            future.result()
            yield
    except BaseException as error:
        # Nobody waits for a task that may take an hour more.
        writer.close()
        if isinstance(error, BrokenProcessPool):
            raise UserError(_WORKER_DIED.format(error)) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


def _start_worker(reader: Connection) -> None:
    """Prepares a worker process: an interrupt is the main process's business, whose end is also its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_main, args=(reader,), daemon=True).start()


def _end_with_main(reader: Connection) -> None:
    # The main process never writes: the pipe ends when it closes it or is killed, and else workers stay for ever.
    with contextlib.suppress(EOFError, OSError):
        reader.recv_bytes()
    os._exit(1)


def run_ray(function: Callable[..., None], tasks: Sequence[tuple], workers: int) -> Iterator[None]:
    """Runs the tasks on the Ray cluster that `RAY_ADDRESS` names, else on one of this machine's own.

    Args:
        function: is called as `function(*task)`; all its paths must be there on every node.
        tasks: arguments.
        workers: tasks at a time, at least 1; each takes one CPU.

    Raises:
        UserError: Ray is not installed, a worker process died, or the function raised it.
    """
    if not tasks:
        return
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed; pip install 'unilseg_jax[ray]', or use --engine local") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    started = not ray.is_initialized()
    if started:
        named = bool(os.environ.get("RAY_ADDRESS"))
        ray.init(
            num_cpus=None if named else workers,
            include_dashboard=None if named else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    remote, waiting, running = ray.remote(num_cpus=1)(function), iter(tasks), []
    try:
        while True:
            # Not all at once: a cluster shared with others is not filled with this queue.
            running += [remote.remote(*task) for task in itertools.islice(waiting, workers - len(running))]
            if not running:
                return
            finished, running = ray.wait(running)
            ray.get(finished)
            yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise UserError(_WORKER_DIED.format(" ".join(str(error).split()))) from None
    finally:
        for task in running:
            ray.cancel(task, force=True)
        if started:
            ray.shutdown()


ENGINES: dict[str, Engine] = {"local": run_local, "ray": run_ray}
