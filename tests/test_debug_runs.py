"""The `:debug` runs that `launch/chain.sh` does not have, from prepared stand-ins to the summary."""

import json
import subprocess
import sys

import pytest
from tiny_run import ROOT, environment

from unilseg_jax import prepare

pytestmark = pytest.mark.slow
STEPS = 2


@pytest.mark.parametrize(
    ("config", "data", "judged", "benchmarks"),
    [
        ("finetune_ade20k", "ade20k", {"val"}, {"ade20k"}),
        ("finetune_partimagenet", "part_imagenet", {"val", "test"}, {"val_map", "test_map"}),
        ("finetune_sod", "salient", {"ecssd", "sod", "pascal_s", "duts"}, set()),
        ("finetune_ref_youtube_vos", "ref_youtube_vos", {"valid"}, set()),
    ],
)
def test_a_debug_run_goes_from_stand_ins_to_its_summary(config, data, judged, benchmarks, tmp_path):
    prepare.main([data, "--synthetic=4", f"--raw={tmp_path / 'raw'}", f"--out={tmp_path / 'prepared'}"])
    arguments = [f"--config={ROOT / 'configs' / config}.py:debug", "--workdir=run", f"--config.steps={STEPS}"]
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT)}  # compiling takes most of the time
    done = subprocess.run(
        [sys.executable, "-m", "unilseg_jax.train", *arguments],
        cwd=tmp_path,  # where the config looks for `prepared`
        env=environment() | quick,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert set(summary["evals"]) == judged
    assert all(found["honest"]["all"]["count"] > 0 for found in summary["evals"].values())
    found = summary.get("benchmarks", {})
    assert set(found) == benchmarks
    assert all(0 <= numbers["miou"] <= 1 for numbers in found.values())
