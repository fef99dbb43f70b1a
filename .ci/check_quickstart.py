"""Fails if the quickstart did not reach what the README promises.

Usage: python .ci/check_quickstart.py runs/quickstart/summary.json
"""

import json
import sys
from pathlib import Path

OIOU = 0.60
SHUFFLED = 0.25
RELATION_MARGIN = 0.15


def shortfalls(summary: dict) -> list[str]:
    """Returns one line for each promise that does not hold."""
    held_out = summary["evals"]["held_out"]
    honest, shuffled = held_out["honest"], held_out["shuffled"]
    whole, deaf = honest["all"]["oiou"], shuffled["all"]["oiou"]
    margin = honest["kinds"]["relation"]["oiou"] - shuffled["kinds"]["relation"]["oiou"]
    claims = [
        (whole >= OIOU, f"oIoU over all phrases {whole:.4f}, wanted {OIOU}"),
        (deaf <= SHUFFLED, f"oIoU with shuffled phrases {deaf:.4f}, wanted at most {SHUFFLED}"),
        (margin >= RELATION_MARGIN, f"relations {margin:.4f} above shuffled, wanted {RELATION_MARGIN}"),
    ]
    return [line for holds, line in claims if not holds]


if __name__ == "__main__":
    found = shortfalls(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("\n".join(found) or "every promise holds")
    sys.exit(bool(found))
