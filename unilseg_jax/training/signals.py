"""SIGTERM, SIGUSR1 and the first Ctrl-C ask a run to save and stop; all its processes do so at the same step."""

import contextlib
import os
import signal
import sys
from types import FrameType

from unilseg_jax.errors import StoppedBySignal, is_one_of_several

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_HEARD = "the run saves what it has done and stops"


class StopRequest:
    """Whether somebody asked the run to stop, as a context in which the signals do not end the process.

    With several processes JAX listens to SIGTERM since `distributed.connect`: a signal to one of them reaches
    all, which agree on the number after the greatest that any has asked about. What came before, SIGUSR1 and SIGINT are
    handed on to JAX as a SIGTERM. A second SIGINT does what it always does.

    Attributes:
        signal: name of the signal that this process received; "" if none.
    """

    def __init__(self):
        self.signal = ""
        self._handed_on = False
        self._asked = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        # A shell that runs a command in the background lets it ignore Ctrl-C, which is meant for others then.
        ignored = [signal.SIGINT] if signal.getsignal(signal.SIGINT) == signal.SIG_IGN else []
        if _jax_listens():
            ignored.append(signal.SIGTERM)
        heard = [number for number in SIGNALS if number not in ignored]
        self._before = {number: signal.signal(number, self._received) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if number != signal.SIGTERM or not is_one_of_several():  # else it is JAX's by now
                signal.signal(number, handler)  # pyrefly: ignore[bad-argument-type]

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        line = f"{self.signal}: {_HEARD}\n"
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
            line = f"interrupted: {_HEARD}; once more ends it without\n"
        with contextlib.suppress(OSError):
            os.write(2, line.encode())  # standard error; what has a buffer may not be entered twice

    def leave(self) -> None:
        """Breaks off what needs not be finished; several processes have to stay together for it.

        Raises:
            StoppedBySignal: a run of one process was asked to stop.
        """
        if not is_one_of_several():
            self.leave_others()

    def leave_others(self) -> None:
        """Ends this process, while it still waits for the others of its run.

        Raises:
            StoppedBySignal: it was asked to stop.
        """
        if self.signal:
            raise StoppedBySignal(f"{self.signal} came; the same command starts again")

    def leave_before(self, first_step: int) -> None:
        """Ends a run that was asked to stop while it started.

        Args:
            first_step: steps taken by the processes before this one.

        Raises:
            StoppedBySignal: it was.
        """
        if self.reached(first_step):
            raise StoppedBySignal(
                f"no step was taken after step {first_step}, so there is nothing to save; the same command starts "
                "again",
                of_all=True,
            )

    def leave_after(self, last_step: int) -> None:
        """Ends a run that was asked to stop since its last step; every process asks this before each evaluation there.

        Args:
            last_step: of the run.

        Raises:
            StoppedBySignal: it was.
        """
        if self.reached(max(self._asked, last_step) + 1):
            raise StoppedBySignal("all steps are taken; the same command makes the evaluations", of_all=True)

    def reached(self, step: int) -> bool:
        """Returns whether the run stops after `step`; every process asks this after every step, and before the first.

        Args:
            step: steps taken, more than when this was asked before.
        """
        if not is_one_of_several():
            return bool(self.signal)
        from jax.experimental import multihost_utils  # here: a signal in the seconds that JAX takes shall be heard

        if self.signal and not self._handed_on:
            self._handed_on = True
            os.kill(os.getpid(), signal.SIGTERM)
        # JAX says yes to the agreed number alone, which is 1 if the signal came before anybody asked: none may be left
        # out, and nobody else may ask (see `checkpoint.make_manager`).
        numbers = range(self._asked + 1, step + 1)
        self._asked = step
        return any(multihost_utils.reached_preemption_sync_point(number) for number in numbers)


def _jax_listens() -> bool:
    """Whether JAX has SIGTERM already: several processes were connected by whoever calls this."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1
