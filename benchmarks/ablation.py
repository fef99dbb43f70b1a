"""Table 8's four rows on drawn scenes: trains what is not there yet, then prints the table.

    python benchmarks/ablation.py [--runs runs/ablation] [--seeds 0 1 2] [--config.key=value ...]

oIoU and mIoU of the scenes that nobody trained on, mean and spread over the seeds, and oIoU when every picture is asked
with another picture's phrases. A run that was interrupted goes on; one that is finished is only read.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "ablation.py"
ROWS = {"baseline": "baseline", "pre_fusion": "+ PF", "language_path": "+ LP", "vision_path": "+ VP"}


def result(runs: Path, row: str, seed: int, flags: list[str]) -> dict:
    """Returns what the summary of a run says about the held-out scenes; the run is made if it is not there."""
    workdir = runs / f"{row}-{seed}"
    summary = workdir / "summary.json"
    if not summary.exists():
        command = [sys.executable, "-m", "unilseg_jax.train", f"--config={CONFIG}:{row}", f"--workdir={workdir}"]
        subprocess.run([*command, f"--config.seed={seed}", *flags], check=True, stdout=sys.stderr)
    return json.loads(summary.read_text())


def mean(values: list[float]) -> str:
    """Returns mean and standard deviation in percent."""
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{spread}"


def main() -> None:
    """Trains and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments, flags = parser.parse_known_args()
    print(
        f"| row | M parameters | oIoU of seeds {arguments.seeds} | oIoU | mIoU | oIoU, shuffled |\n"
        "|---|---|---|---|---|---|"
    )
    order = {}
    for row, label in ROWS.items():
        found = [result(arguments.runs, row, seed, flags) for seed in arguments.seeds]
        evals = [each["evals"]["held_out"] for each in found]
        oiou = [each["honest"]["all"]["oiou"] for each in evals]
        order[label] = statistics.mean(oiou)
        print(
            f"| {label} | {found[0]['parameters'] / 1e6:.2f} | {', '.join(f'{100 * value:.2f}' for value in oiou)} | "
            f"{mean(oiou)} | {mean([each['honest']['all']['miou'] for each in evals])} | "
            f"{mean([each['shuffled']['all']['oiou'] for each in evals])} |",
            flush=True,
        )
    print("by mean oIoU:", " < ".join(sorted(order, key=lambda label: order[label])))


if __name__ == "__main__":
    main()
