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


def check_refusal(limit: int, command: str, *arguments: object) -> None:
    """Runs a command of the package where files may have `limit` bytes, and checks its one line.

    Args:
        limit: bytes.
        command: name of the module.
        *arguments: of the command; the last is the output.
    """
    line = [sys.executable, "-c", _CODE, str(limit), f"unilseg_jax.{command}", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    said = "File too large; raise the limit (ulimit -f) or name another path"
    assert done.stderr == f"error: cannot write {str(arguments[-1])!r}: {said}\n"
    assert done.returncode == 2
