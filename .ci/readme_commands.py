"""Prints the shell commands of a Markdown file, so that CI runs what a reader would type.

Usage: python .ci/readme_commands.py README.md
"""

import re
import sys
from pathlib import Path


def commands(markdown: str) -> list[str]:
    """Returns the content of every block marked `sh`; blocks marked `console` are only shown to readers."""
    return re.findall(r"^```sh\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    sys.stdout.write("".join(commands(Path(sys.argv[1]).read_text(encoding="utf-8"))))
