"""SIGTERM and SIGUSR1 ask a run to save and stop; all its processes do so at the same step."""

import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils

from unilseg_jax.errors import StoppedBySignal

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether somebody asked the run to stop, as a context in which the signals do not end the process.

    With several processes JAX listens to SIGTERM since `jax.distributed.initialize`: a signal to one of them reaches
    all, which agree on the step after the furthest that any has come to. What came before, and SIGUSR1, is handed on to
    JAX as a SIGTERM.

    Attributes:
        signal: name of the signal that this process received; "" if none.
    """

    def __init__(self):
        self.signal = ""
        self._handed_on = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._received) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if number == signal.SIGUSR1 or jax.process_count() == 1:  # else it is JAX's by now
                signal.signal(number, handler)  # pyrefly: ignore[bad-argument-type]

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name

    def leave(self) -> None:
        """Breaks off what needs not be finished; several processes have to stay together for it.

        Raises:
            StoppedBySignal: a run of one process was asked to stop.
        """
        if self.signal and jax.process_count() == 1:
            raise StoppedBySignal(f"{self.signal} came; the same command starts again")

    def reached(self, step: int) -> bool:
        """Returns whether the run stops after `step`; every process asks this after every step, and before the first.

        Args:
            step: steps taken.
        """
        if jax.process_count() == 1:
            return bool(self.signal)
        if self.signal and not self._handed_on:
            self._handed_on = True
            os.kill(os.getpid(), signal.SIGTERM)
        # The checkpoints' library asks JAX the same with the same numbers, so they must be the run's steps.
        return multihost_utils.reached_preemption_sync_point(step)
