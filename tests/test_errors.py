"""How commands end: a mistake of the user's costs one line, everything else stays an exception."""

import errno
import re

import pytest

from unilseg_jax.errors import ExternalError, StoppedBySignal, UserError, checked_file, run_command


def ending(error, capsys):
    """Returns exit code and stderr of a command that raises `error`."""

    def main(argv):
        raise error

    with pytest.raises(SystemExit) as stop:
        run_command(main, [])
    captured = capsys.readouterr()
    assert captured.out == ""
    return stop.value.code, captured.err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no such image: 'a.jpg'; check the path"), 2, "error: no such image: 'a.jpg'; check the path\n"),
        (FloatingPointError("the loss is nan"), 3, "error: the loss is nan\n"),
        (ExternalError("process 1 is missing"), 74, "error: process 1 is missing\n"),
        (StoppedBySignal("saved at step 7"), 75, "stopped: saved at step 7\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_expected_end_is_one_line_and_a_code(error, code, line, capsys):
    assert ending(error, capsys) == (code, line)


def test_an_error_of_ours_is_not_hidden():
    def main(argv):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run_command(main, [])


def test_a_full_disk_is_one_line_and_another_error_of_the_disk_is_not_hidden(capsys):
    code, line = ending(OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl"), capsys)
    assert code == 74
    assert re.fullmatch(r"error: .*No space left on device: 'metrics.jsonl'; make room .*\n", line)
    with pytest.raises(PermissionError):
        ending(PermissionError(errno.EACCES, "Permission denied"), capsys)


def test_arguments_are_handed_on_and_success_is_silent(capsys):
    seen = []
    run_command(seen.append, ["--flag"])
    run_command(seen.append)
    assert seen == [["--flag"], None]
    assert capsys.readouterr() == ("", "")


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)


def test_checked_file_takes_files_only(tmp_path):
    file = tmp_path / "a.jpg"
    with pytest.raises(UserError, match=r"no such image: .*a\.jpg"):
        checked_file(file, "image")
    with pytest.raises(UserError, match="is a folder, a file is wanted as checkpoint"):
        checked_file(str(tmp_path), "checkpoint")
    file.touch()
    assert checked_file(str(file), "image") == file
