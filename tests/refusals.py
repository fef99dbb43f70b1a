"""How a test sees that a command refuses its arguments."""

import pytest

from unilseg_jax import train
from unilseg_jax.errors import run_command


def refused(arguments, capsys):
    """Runs the command, which must refuse; returns its line."""
    with pytest.raises(SystemExit) as stop:
        run_command(train.main, arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    return captured.err
