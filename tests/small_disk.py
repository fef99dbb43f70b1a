"""Runs a command in a process that may write no large files, as if the disk were full."""

import subprocess
import sys

_CODE = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit, name = int(sys.argv[1]), sys.argv[2]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv = sys.argv[2:]
runpy.run_module(name, run_name="__main__")
"""


def refusal_of_disk(limit: int, command: str, *arguments: object) -> str:
    """Returns the one line that a command of the package ends with if files may have `limit` bytes."""
    line = [sys.executable, "-c", _CODE, str(limit), f"unilseg_jax.{command}", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: cannot write "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr
