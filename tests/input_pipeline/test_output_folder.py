"""The folder of a data set while it is converted: what cannot be written, and who else is at it."""

import errno
import fcntl
import os

import pytest

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.output_folder import locked, one_line_errors


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/out/a"), "'/out/a' cannot be read or written: No space"),
        (PermissionError(errno.EACCES, "Permission denied", b"/out/\xff"), r"/out/.*xff' cannot .* Permission denied"),
        (OSError("no temporary directory"), "a file cannot be read or written: no temporary directory"),
        (
            RuntimeError('Failed to finalize: write() failed: File too large; writing /out/a; at byte 100; "x"'),
            "'/out/a' cannot be read or written: File too large; check",
        ),
    ],
)
def test_what_the_file_system_refuses_is_one_line(error, message):
    with pytest.raises(UserError, match=message) as caught, one_line_errors():
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("no file"), BrokenPipeError(), ConnectionError("no Ray"), KeyError("a"), UserError("b")]
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, one_line_errors():
        raise error
    assert caught.value is error


def test_working_folder_is_held_once_and_goes_if_nothing_is_in_it(tmp_path):
    work = tmp_path / "out" / "unfinished_1.0.0"
    with locked(work), pytest.raises(UserError, match="another process converts into"), locked(work):
        pass
    assert list((tmp_path / "out").iterdir()) == []
    with locked(work):
        (work / "train-00000.json").touch()
    assert sorted(path.name for path in work.iterdir()) == ["lock", "train-00000.json"]
    with locked(work):
        pass


def test_lock_that_was_removed_meanwhile_is_not_taken_for_the_folders(tmp_path, monkeypatch):
    """Its holder ends between the opening of the file and the taking of the lock."""
    work, take = tmp_path / "work", fcntl.flock
    removed = []

    def remove_first(handle, operation):
        if not removed:
            removed.append(os.unlink(work / "lock"))
        take(handle, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with locked(work):
        assert (work / "lock").exists()
        with pytest.raises(UserError, match="another process"), locked(work):
            pass


def test_file_system_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    def refuse(handle, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "work"):
        assert (tmp_path / "work").is_dir()
