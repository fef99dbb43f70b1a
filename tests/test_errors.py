"""How commands end: a mistake of the user's costs one line, everything else stays an exception."""

import errno
import fcntl
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unilseg_jax.errors import ExternalError, StoppedBySignal, UserError, checked_file, denial, run_command

LONG = "n" * 300
"""Longer than the name of any file may be."""
CONFIG = str(Path(__file__).resolve().parents[1] / "configs" / "quickstart.py")


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
        (
            PermissionError(errno.EACCES, "Permission denied", "/data/secret"),
            2,
            "error: '/data/secret': Permission denied; allow the access or name another path\n",
        ),
        (OSError(errno.EIO, "Input/output\nerror", b"a"), 2, "error: b'a': Input/output error; check the path\n"),
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


def test_a_full_disk_has_a_code_of_its_own(capsys):
    code, line = ending(OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl"), capsys)
    assert (code, line) == (74, "error: 'metrics.jsonl': No space left on device; make room or name another path\n")
    line = "error: No space left on device; make room or name another path\n"
    assert ending(OSError(errno.ENOSPC, "No space left on device"), capsys) == (74, line)


@pytest.mark.parametrize("error", [OSError("odd"), OSError(errno.EPIPE, "Broken pipe"), OSError(errno.EBADF, "bad", 7)])
def test_a_system_error_that_names_no_file_is_not_hidden(error):
    def main(argv):
        raise error

    with pytest.raises(OSError, match=r"odd|Broken|bad"):
        run_command(main, [])


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("predict", ["--image", LONG, "--checkpoint", "{file}", "--phrase", "a cat", "--output", "out"]),
        ("predict", ["--checkpoint", LONG, "--image", "{file}", "--phrase", "a cat", "--output", "out"]),
        ("convert", ["--input", LONG, "--output", "out"]),
        ("convert", ["--output", LONG, "--input", "{file}"]),
        ("export", ["--output", f"{LONG}.safetensors", "--checkpoint", "."]),
        ("export", ["--checkpoint", LONG, "--output", "out.safetensors"]),
        ("train", ["--workdir", LONG, "--config", CONFIG]),
        ("train", ["--config", LONG, "--workdir", "out"]),
        ("prepare", ["--out", LONG, "--raw", ".", "salient"]),
        ("prepare", ["--raw", LONG, "--out", "out", "salient"]),
        ("doctor", ["--data", LONG]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_name_that_is_too_long_costs_one_line(command, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    main = importlib.import_module(f"unilseg_jax.{command}").main
    with pytest.raises(SystemExit) as stop:
        run_command(main, [argument.format(file=tmp_path / "file") for argument in arguments])
    message = capsys.readouterr().err
    assert (stop.value.code, message.count("\n")) == (2, 1)
    assert message.startswith("error: ")
    assert LONG in message
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("convert", ["--input", "", "--output", "out"]),
        ("convert", ["--input", "{file}", "--output", ""]),
        ("export", ["--checkpoint", "", "--output", "out.safetensors"]),
        ("prepare", ["--raw", "", "--out", "out", "salient"]),
        ("prepare", ["--raw", ".", "--out", "", "salient"]),
        ("doctor", ["--data", ""]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_an_empty_path_is_refused_and_not_taken_for_the_current_folder(
    command, arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"unilseg_jax.{command}").main(
            [argument.format(file=tmp_path / "file") for argument in arguments]
        )
    assert stop.value.code == 2
    assert "the path is empty" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["file"]


def test_arguments_are_handed_on_and_success_is_silent(capsys):
    seen = []
    run_command(seen.append, ["--flag"])
    run_command(seen.append)
    assert seen == [["--flag"], None]
    assert capsys.readouterr() == ("", "")


def error_from(cause):
    try:
        raise RuntimeError("no such thing") from cause
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "no"), "Permission denied; allow the access or name another path"),
        (OSError(errno.EPERM, "no"), "Operation not permitted; allow the access or name another path"),
        (RuntimeError("open() failed: Permission denied; opening a"), "Permission denied; allow the access or name"),
        (error_from(PermissionError(errno.EACCES, "no")), "Permission denied; allow the access or name another path"),
        (error_from(OSError(errno.EIO, "Input/output error")), None),
        (ValueError("damaged"), None),
    ],
    ids=str,
)
def test_denied_access_is_told_apart_however_it_is_said(error, said):
    found = denial(error)
    assert found is None if said is None else found.startswith(said)


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)


def test_checked_file_takes_files_only(tmp_path):
    file = tmp_path / "a.jpg"
    with pytest.raises(UserError, match=r"no such image: .*a\.jpg"):
        checked_file(file, "image")
    with pytest.raises(UserError, match="is a folder, a file is wanted as checkpoint"):
        checked_file(str(tmp_path), "checkpoint")
    with pytest.raises(UserError, match=r"cannot read image .*File name too long; use a shorter one"):
        checked_file(tmp_path / LONG, "image")
    file.touch()
    assert checked_file(str(file), "image") == file


OF_SEVERAL = """
import atexit, sys
from unilseg_jax import errors

errors._LAST_WORDS = 0.3

def main(argv):
    if sys.argv[3:]:
        errors.one_of_several(is_first=sys.argv[3] == "first")
    raise eval(sys.argv[1], vars(errors))

atexit.register(print, "waited for the others", file=open(sys.argv[2], "w"), flush=True)
print("a last line")
errors.run_command(main)
"""


def one_of_several(error, waited, *place, **streams):
    """Ends a process by an error; with a `place` it is one of several."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", OF_SEVERAL, error, str(waited), *place]
    return subprocess.run(command, text=True, cwd=Path(CONFIG).parents[1], env=environment, **streams)


@pytest.mark.parametrize("full", ["", "stdout", "stderr"])
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("UserError('no such data')", 2, "error: no such data\n"),
        ("ExternalError('no room')", 74, "error: no room\n"),
        ("StoppedBySignal('SIGTERM came')", 75, "stopped: SIGTERM came\n"),
        ("KeyboardInterrupt()", 130, "interrupted\n"),
        ("KeyError('a bug')", 1, "KeyError: 'a bug'\n"),
    ],
)
def test_one_of_several_processes_waits_for_nobody(tmp_path, error, code, line, full):
    with open("/dev/full", "w") as no_room:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | ({full: no_room} if full else {})
        done = one_of_several(error, tmp_path / "waited", "later", **streams)
    assert done.returncode == code
    assert full == "stderr" or done.stderr.endswith(line)
    assert full == "stdout" or done.stdout == "a last line\n"
    assert (tmp_path / "waited").read_text() == ""


@pytest.mark.parametrize("place", [(), ("later",), ("first",)], ids=["alone", "later", "first"])
@pytest.mark.parametrize(
    ("error", "code"), [("StoppedBySignal('saved', of_all=True)", 75), ("FloatingPointError('loss is nan')", 3)]
)
@pytest.mark.parametrize("full", ["", "stdout", "stderr"])
def test_what_all_processes_agreed_on_they_end_with_together(tmp_path, error, code, place, full):
    with open("/dev/full", "w") as no_room:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | ({full: no_room} if full else {})
        assert one_of_several(error, tmp_path / "waited", *place, **streams).returncode == code
    assert (tmp_path / "waited").read_text() == "waited for the others\n"


def test_a_log_that_nobody_reads_keeps_no_process(tmp_path):
    nobody_reads, log = os.pipe()
    os.write(log, b"\0" * fcntl.fcntl(log, fcntl.F_GETPIPE_SZ))  # all that it takes
    try:
        assert one_of_several("UserError('no such data')", tmp_path / "waited", "later", stderr=log).returncode == 2
    finally:
        os.close(nobody_reads)
        os.close(log)


@pytest.mark.parametrize(
    ("why", "code", "advice"),
    [
        (
            "Backend 'x' is not in the list of known backends: ['cpu'].",
            2,
            "install JAX for it, or set JAX_PLATFORMS to",
        ),
        ("Failed to open libtpu.so: cannot open shared object file", 2, "install JAX for it, or set JAX_PLATFORMS to"),
        ("INTERNAL: Getting local topologies timed out", 74, "is the device there and free, and have all processes"),
    ],
)
def test_a_device_that_jax_cannot_use_costs_one_line(why, code, advice, capsys):
    """A process of a pod shall be started again, unless it can never work."""
    found, line = ending(RuntimeError(f"Unable to initialize backend 'x':\n{why}"), capsys)
    assert found == code
    assert line.startswith(f"error: Unable to initialize backend 'x': {why}; {advice}")
    assert line.count("\n") == 1


@pytest.mark.parametrize("touch", ["jax.devices()", "jax.numpy.zeros(3)"])
@pytest.mark.parametrize(
    ("platforms", "said"),
    [
        ("abacus", "Unable to initialize backend 'abacus'"),
        pytest.param(
            "cuda",
            "JAX_PLATFORMS=cuda: no such device is visible to this process; set it to another (cpu)",
            marks=pytest.mark.skipif(any(Path("/dev").glob("nvidia*")), reason="an NVIDIA GPU is here"),
        ),
    ],
)
def test_jax_says_what_is_expected_of_a_device_that_is_not_there(platforms, said, touch):
    program = f"import jax\nfrom unilseg_jax import errors\nerrors.run_command(lambda argv: {touch})"
    environment = os.environ | {"JAX_PLATFORMS": platforms}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, text=True, cwd=Path(CONFIG).parents[1], env=environment, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1
