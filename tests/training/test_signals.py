"""Being asked to stop, with JAX's agreement among several processes faked; `test_train_processes.py` has real ones."""

import signal

import jax
import pytest
from jax.experimental import multihost_utils
from training_states import save, some_state

from unilseg_jax import train
from unilseg_jax.errors import StoppedBySignal
from unilseg_jax.training import signals
from unilseg_jax.training.signals import StopRequest


class Agreement:
    """What JAX does: a signal fixes the number after the last that was asked about, and that alone is answered yes."""

    def __init__(self):
        self.asked: list[int] = []
        self.agreed = None

    def signal(self):
        self.agreed = max(self.asked[-1:], default=0) + 1

    def reached(self, number):
        self.asked.append(number)
        return number == self.agreed


@pytest.fixture
def agreement(monkeypatch):
    found = Agreement()
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", found.reached)
    return found


@pytest.fixture
def two_processes(monkeypatch):
    monkeypatch.setattr(signals, "is_one_of_several", lambda: True)


@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize("first_step", [1, 7])
def test_a_signal_before_anybody_asked_ends_the_start(agreement, first_step):
    agreement.signal()
    with pytest.raises(StoppedBySignal, match=f"after step {first_step}, so there is nothing to save"):
        StopRequest().leave_before(first_step)


@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize("first_step", [0, 7])
def test_a_signal_after_the_start_ends_the_next_step(agreement, first_step):
    stop = StopRequest()
    stop.leave_before(first_step)
    agreement.signal()
    assert stop.reached(first_step + 1)


@pytest.mark.usefixtures("two_processes")
def test_a_signal_after_the_last_step_ends_the_evaluations(agreement):
    stop = StopRequest()
    stop.leave_before(0)
    assert not any(stop.reached(step) for step in (1, 2, 3))
    stop.leave_after(3)
    stop.leave_after(3)
    agreement.signal()
    with pytest.raises(StoppedBySignal):
        stop.leave_after(3)
    assert agreement.asked == [1, 2, 3, 4, 5, 6]


@pytest.mark.usefixtures("two_processes")
def test_a_run_that_only_evaluates_hears_a_signal_too(agreement):
    stop = StopRequest()
    stop.leave_before(3)
    agreement.signal()
    with pytest.raises(StoppedBySignal):
        stop.leave_after(3)


def test_a_process_alone_stops_wherever_it_asks():
    with StopRequest() as stop:
        stop.leave_before(5)
        assert not stop.reached(6)
        stop.leave()
        signal.raise_signal(signal.SIGUSR1)
        assert stop.reached(7)
        for leave in (stop.leave, lambda: stop.leave_before(5), lambda: stop.leave_after(7)):
            with pytest.raises(StoppedBySignal):
                leave()


@pytest.mark.usefixtures("two_processes")
def test_jax_keeps_sigterm_where_it_has_it_already(monkeypatch, agreement):
    """Who trains by calls may have connected the processes."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    before = signal.signal(signal.SIGTERM, lambda *_: agreement.signal())
    try:
        with StopRequest() as stop:
            stop.leave_before(0)
            signal.raise_signal(signal.SIGUSR1)
            assert stop.reached(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_listens_before_its_config_is_read(monkeypatch):
    heard = []
    monkeypatch.setattr(train, "parse_flags", lambda argv: (signal.raise_signal(signal.SIGTERM), "runs/q"))
    monkeypatch.setattr(train, "train", lambda config, workdir, stop: heard.append(stop.signal))
    before = signal.getsignal(signal.SIGTERM)
    train.main([])
    assert heard == ["SIGTERM"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_is_told_at_once(capfd):
    """What runs may take long to stop."""
    with StopRequest():
        signal.raise_signal(signal.SIGTERM)
        assert capfd.readouterr().err == "SIGTERM: the run saves what it has done and stops\n"


def test_a_second_interrupt_asks_nothing_more(capfd):
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.reached(1)
        assert capfd.readouterr().err.startswith("interrupted: the run saves what it has done and stops; once more")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(("number", "heard"), [(signal.SIGINT, False), (signal.SIGUSR1, True), (signal.SIGTERM, True)])
def test_of_what_the_shell_lets_a_run_ignore_the_interrupt_alone_stays_so(number, heard):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(number)
            assert stop.reached(1) == heard
    finally:
        signal.signal(number, before)


def test_writing_a_checkpoint_asks_nothing(agreement, tmp_path):
    save(tmp_path, some_state(0, 3), some_state(1, 6))
    assert agreement.asked == []
